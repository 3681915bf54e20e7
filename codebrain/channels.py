"""Electrode names: what a channel label means, and where on the head the electrode sits.

One table serves preparation, the tokenizer's electrode embedding and every figure. Names are those of the 10-05
extension of the 10-20 system (Oostenveld & Praamstra 2001), with the modern T7/T8/P7/P8 for the old T3/T4/T5/T6.
A label from a file ("EEG FP1-REF", "Fc5.", "EEG T3-LE") becomes such a name, or None where it is no scalp electrode.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

ChannelType = Literal["eeg", "eog", "ecg", "emg", "stim", "reference", "bipolar", "misc"]

# The order of ELECTRODES is the order of rows in every trained electrode embedding: append, never insert.
_TEN_TEN = """
    Nz
    Fp1 Fpz Fp2
    AF9 AF7 AF5 AF3 AF1 AFz AF2 AF4 AF6 AF8 AF10
    F9 F7 F5 F3 F1 Fz F2 F4 F6 F8 F10
    FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 FT10
    T9 T7 C5 C3 C1 Cz C2 C4 C6 T8 T10
    TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10
    P9 P7 P5 P3 P1 Pz P2 P4 P6 P8 P10
    PO9 PO7 PO5 PO3 PO1 POz PO2 PO4 PO6 PO8 PO10
    O1 Oz O2
    I1 Iz I2
"""
# Cerebellar sites of the Neuroscan caps (SEED), and TUH's anterior temporal electrodes.
_BESIDE_THE_GRID = "CB1 CB2 T1 T2"
_HALFWAY_ROWS = """
    AFp9 AFp7 AFp5 AFp3 AFp1 AFpz AFp2 AFp4 AFp6 AFp8 AFp10
    AFF9 AFF7 AFF5 AFF3 AFF1 AFFz AFF2 AFF4 AFF6 AFF8 AFF10
    FFT9 FFT7 FFC5 FFC3 FFC1 FFCz FFC2 FFC4 FFC6 FFT8 FFT10
    FTT9 FTT7 FCC5 FCC3 FCC1 FCCz FCC2 FCC4 FCC6 FTT8 FTT10
    TTP9 TTP7 CCP5 CCP3 CCP1 CCPz CCP2 CCP4 CCP6 TTP8 TTP10
    TPP9 TPP7 CPP5 CPP3 CPP1 CPPz CPP2 CPP4 CPP6 TPP8 TPP10
    PPO9 PPO7 PPO5 PPO3 PPO1 PPOz PPO2 PPO4 PPO6 PPO8 PPO10
    POO9 POO7 POO5 POO3 POO1 POOz POO2 POO4 POO6 POO8 POO10
    OI1 OIz OI2
"""
_GRID = tuple((_TEN_TEN + _HALFWAY_ROWS).split())
# "F3h" lies halfway from F3 towards the midline.
_HALFWAY_COLUMNS = tuple(f"{name}h" for name in _GRID if name[-1].isdigit())

ELECTRODES: tuple[str, ...] = (
    *_TEN_TEN.split(),
    *_BESIDE_THE_GRID.split(),
    *_HALFWAY_ROWS.split(),
    *_HALFWAY_COLUMNS,
)
"""Canonical names of all electrodes, in the fixed order of the rows of an electrode embedding."""

_CLINICAL = "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 Fz Cz Pz"
TEN_TWENTY_19: tuple[str, ...] = tuple(_CLINICAL.split())
"""The 19 electrodes of clinical EEG in the order of the pre-training corpus."""

_ALIASES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}

_ROW = {name.lower(): row for row, name in enumerate(ELECTRODES)}
_BY_LOWER = {name.lower(): name for name in ELECTRODES} | {old.lower(): new for old, new in _ALIASES.items()}

# "POL" is Nihon Kohden's word for a channel against the system reference.
_PREFIX = re.compile(r"^(?:EEG|POL)(?=[\s_\-.:])[\s_\-.:]*", re.IGNORECASE)
_SUFFIX_UNIT = re.compile(r"\s*[\[(][^\])]*[\])]\s*$")
# MNE numbers duplicate labels: "T8-P8-0", "T8-P8-1".
_RUNNING_NUMBER = re.compile(r"(?<=[A-Za-z0-9])-\d+$")
_REFERENCE_NAME = re.compile(
    r"^(?:ref\w*|gnd|le|re|ar|avg?|average|car|cl?e|org|[am]x|[am]1|[am]2|a1\+?a2|m1\+?m2)$", re.IGNORECASE
)
_OTHER_TYPES: dict[ChannelType, re.Pattern[str]] = {
    "stim": re.compile(r"^(?:status|sti\b|stim|trig|event|marker|mkr|edf annot|bdf annot|dig\b|ttl)", re.IGNORECASE),
    "ecg": re.compile(r"ecg|ekg", re.IGNORECASE),
    "eog": re.compile(r"eog|^(?:veo|heo)[lrud]?\b|^[lr]oc\b|^e[12]\b", re.IGNORECASE),
    "emg": re.compile(r"emg|^chin|^leg\b|^[lr]at\b", re.IGNORECASE),
}


# The recordings of a corpus have the same labels, and several hundred look-ups each.
@lru_cache(maxsize=4096)
def canonical_name(label: str) -> str | None:
    """Name of the scalp electrode that a label means, or None.

    A channel against an ear, a mastoid or an average is that of its electrode ("C4-A1" is C4); a difference of two
    scalp electrodes is not ("Fp1-F7" gives None: see `bipolar_pair`).

    Examples
    --------
    >>> [canonical_name(label) for label in ("EEG FP1-REF", "Fc5.", "T3", "EEG Fp1-LE", "EEG A2-A1", "ECG ECG")]
    ['Fp1', 'FC5', 'T7', 'Fp1', None, None]
    """
    parts = _parts(label)
    if len(parts) > 1 and not all(_REFERENCE_NAME.match(part) for part in parts[1:]):
        return None
    return _BY_LOWER.get(parts[0].lower())


@lru_cache(maxsize=4096)
def bipolar_pair(label: str) -> tuple[str, str] | None:
    """The two scalp electrodes whose difference a label means ("EEG FP1-F7" gives Fp1 and F7), or None."""
    names = [_BY_LOWER.get(part.lower()) for part in _parts(label)]
    if len(names) != 2 or names[0] is None or names[1] is None or names[0] == names[1]:
        return None
    return names[0], names[1]


def channel_type(label: str) -> ChannelType:
    """Guess from its label what a channel records.

    "eeg" is said of scalp electrodes only: "A2-A1" is "reference", "Fp1-F7" is "bipolar", and a name that is in no
    table is "misc", whatever the file claims.
    """
    if canonical_name(label) is not None:
        return "eeg"
    if bipolar_pair(label) is not None:
        return "bipolar"
    parts = _parts(label)
    for kind, pattern in _OTHER_TYPES.items():
        if pattern.search(" ".join(parts)) or pattern.search(label.strip()):
            return kind
    return "reference" if all(_REFERENCE_NAME.match(part) for part in parts) else "misc"


def bare_label(label: str) -> str:
    """A label without what surrounds its name in a file: "EEG A2-A1" gives "A2-A1", "EEG FP1 - REF" gives "FP1-REF"."""
    return "-".join(_parts(label))


def electrode_index(ch_names: Sequence[str]) -> list[int]:
    """Rows of `ELECTRODES` for channel names in any spelling.

    Raises
    ------
    ValueError
        A name is no scalp electrode; the message gives the nearest names.
    """
    return [_ROW[_require(name).lower()] for name in ch_names]


def positions(ch_names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Positions of electrodes on the unit sphere.

    The 10-05 system's own construction on a sphere: the equator passes through Fpz, T7, Oz and T8, its electrodes are
    18 degrees apart, and the electrodes of a row divide the circle through its two ends and its midline point evenly.

    Parameters
    ----------
    ch_names : sequence of str
        C names in any spelling.

    Returns
    -------
    (C, 3) float64
        x to the right ear, y to the nose, z up.
    """
    return np.array([_position(_require(name)) for name in ch_names], dtype=np.float64).reshape(-1, 3)


@lru_cache(maxsize=4096)
def _parts(label: str) -> tuple[str, ...]:
    """What the hyphens of a label separate, without prefixes, units, dots and running numbers."""
    name = _SUFFIX_UNIT.sub("", label.strip())
    name = _PREFIX.sub("", name)
    name = _RUNNING_NUMBER.sub("", name.strip())
    parts = [part.strip(" .:") for part in re.split(r"\s*[-_]\s*|\s+(?=ref\b)", name, flags=re.IGNORECASE)]
    # "CP 6" is CP6, but "F3 3 part" stays unknown.
    return tuple(re.sub(r"^([A-Za-z]+) (\d+h?)$", r"\1\2", part) for part in parts if part) or ("",)


def _require(name: str) -> str:
    found = canonical_name(name)
    if found is None:
        near = difflib.get_close_matches(name, [*ELECTRODES, *_ALIASES], n=3, cutoff=0.4)
        hint = f"nearest names: {', '.join(near)}" if near else "electrodes have names such as Fp1, C3, T7, Pz, PO8"
        raise ValueError(f"{name!r} is not a scalp electrode of the 10-05 system; {hint}. Leave other channels out.")
    return found


# Tenths of the way from nasion (-5) over Cz (0) to inion (5) for each row of electrodes; temporal names share a row.
_ROWS = {
    **{"N": -5.0, "Fp": -4.0, "AFp": -3.5, "AF": -3.0, "AFF": -2.5, "F": -2.0, "FFT": -1.5, "FFC": -1.5, "FT": -1.0},
    **{"FC": -1.0, "FTT": -0.5, "FCC": -0.5, "T": 0.0, "C": 0.0, "TTP": 0.5, "CCP": 0.5, "TP": 1.0, "CP": 1.0},
    **{"TPP": 1.5, "CPP": 1.5, "P": 2.0, "PPO": 2.5, "PO": 3.0, "POO": 3.5, "O": 4.0, "OI": 4.5, "I": 5.0},
}
_NAME = re.compile(r"^([A-Za-z]+?)(z|\d+h?)$")
_TENTH = math.pi / 8  # Fpz, four tenths in front of Cz, is on the equator
_LIKE = {"CB1": "PO9", "CB2": "PO10", "T1": "FT9", "T2": "FT10"}


def _position(name: str) -> tuple[float, float, float]:
    """Unit vector of a canonical name."""
    match = _NAME.match(_LIKE.get(name, name))
    assert match is not None, name
    row, column = _ROWS[match[1]], match[2]
    if column == "z":
        return _on_midline(row)
    number = int(column.removesuffix("h"))
    side = -1.0 if number % 2 else 1.0
    step = (number + 1) // 2 - (0.5 if column.endswith("h") else 0.0)  # 1 for F1, 4 for F7, 4.5 for F9h
    if abs(row) >= 4:  # Fp, O, OI and I have one electrode a side, at the end of the row
        x, y, z = _on_ring(min(max(row, -4.0), 4.0), drop=abs(row) - 4, along=step)
    elif step > 4:
        x, y, z = _on_ring(row, drop=step - 4, along=1.0)
    else:
        x, y, z = _on_row(row, step / 4)
    return side * x, y, z


def _on_midline(row: float) -> tuple[float, float, float]:
    return 0.0, -math.sin(row * _TENTH), math.cos(row * _TENTH)


def _on_ring(row: float, *, drop: float, along: float) -> tuple[float, float, float]:
    """Right-hand point on the ring `drop` tenths below the equator; `along` goes from 0 at the midline to 1."""
    azimuth = row * math.pi / 10 * (1 if abs(row) < 4 else 1 + (1 - along) / 4)
    below = drop * _TENTH
    return math.cos(azimuth) * math.cos(below), -math.sin(azimuth) * math.cos(below), -math.sin(below)


def _on_row(row: float, fraction: float) -> tuple[float, float, float]:
    """Right-hand point on the circle through a row's midline point and its two ends on the equator."""
    middle = np.array(_on_midline(row))
    end = np.array(_on_ring(row, drop=0.0, along=1.0))
    foot = np.array([0.0, end[1], 0.0])
    # In the row's plane: u points from the foot of the ends up to the midline point, x to the right.
    height, half_width = float(np.linalg.norm(middle - foot)), float(end[0])
    up = (middle - foot) / height
    centre = (height**2 - half_width**2) / (2 * height)
    radius = height - centre
    angle = fraction * math.atan2(half_width, -centre)
    x, y, z = foot + (centre + radius * math.cos(angle)) * up + np.array([radius * math.sin(angle), 0.0, 0.0])
    return float(x), float(y), float(z)
