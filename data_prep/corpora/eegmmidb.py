"""EEGMMIDB, PhysioNet's EEG Motor Movement/Imagery data set: which of its 109 persons are commonly left out.

Its files are S001/S001R01.edf to S109/S109R14.edf. Reported for S088 at
https://github.com/NeuroTechX/moabb/issues/50; studies of the data set leave out all four.
"""

from __future__ import annotations

import re

_FILE = re.compile(r"(?:^|/)(S\d{3})/\1R\d{2}\.edf$")
_RATE = "recorded at 128 Hz, the others at 160 Hz"
_FAULTY = {"S088": _RATE, "S092": _RATE, "S100": _RATE, "S104": "trials that do not follow the protocol"}


def fault_of(key: str) -> str:
    """Why a recording of EEGMMIDB is left out; "" for every other recording."""
    found = _FILE.search(key)
    fault = _FAULTY.get(found[1]) if found else None
    if found is None or fault is None:
        return ""
    return f"EEGMMIDB: {found[1]} is left out as studies of it do ({fault}); named as a file, it is used"
