"""The TUH corpora: how they name persons, and which parts of TUEG lie beside it.

TUAB, TUEV, TUSZ and others are parts of TUEG. A model pre-trained on all of TUEG has seen the very recordings that it
is later tested on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

SCHEME = "TUH (aaaaaaaa)"
# aaaaaaaa_s001_t000.edf, and _s001_2015_t000.edf in old releases; aaaaaaaa_00000001.edf in TUEV's training half; or a
# folder of that name. Only the first needs no `aaa`: `abnormal` and `clinical_20200101` have eight letters too.
SUBJECT_PATTERN = r"(?:^|/)(?:([a-z]{8})(?=_s\d{3}_(?:\d{4}_)?t\d{3})|(aaa[a-z]{5})(?=/|_\d{8}\b))"

_PATIENT = re.compile(rb"0 {7}(aaa[a-z]{5}) ")  # bytes 8 to 88 of an EDF header are about the patient
_SUBSET = re.compile(
    r"^(?:tu(?:ab|ev|sz|ep|ar|sl)|tuh_eeg_(?:abnormal|events|seizure|epilepsy|artifact|slowing))", re.IGNORECASE
)
_LEVELS = 4  # tuh_eeg/v2.0.1/edf has its neighbours two levels up
_OF_A_STORE = ("store.json", "recordings.csv", "progress", "shards")


def subject_of(path: str) -> str:
    """The TUH subject that a path names, whatever the file is called besides; "" for none."""
    found = re.search(SUBJECT_PATTERN, path)
    return found[1] or found[2] if found else ""


def subject_in_header(file: Path) -> str:
    """The TUH subject that an EDF header names where another one would have the patient's code; "" for none."""
    try:
        with file.open("rb") as opened:
            found = _PATIENT.match(opened.read(88))
    except OSError:
        return ""
    return found[1].decode("ascii") if found else ""


def subsets_beside(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Folders next to the given ones, or next to the folders that these lie in, that are named like a part of TUEG.

    A store that was prepared from one is none.
    """
    given = [Path(path).absolute() for path in paths]
    neighbours = {folder for path in given for parent in list(path.parents)[:_LEVELS] for folder in _folders(parent)}
    apart = (folder for folder in neighbours if not any(path.is_relative_to(folder) for path in given))
    return sorted(folder for folder in apart if _SUBSET.search(folder.name) and not _is_store(folder))


def _folders(parent: Path) -> Iterator[Path]:
    try:
        yield from (path for path in parent.iterdir() if path.is_dir())
    except OSError:  # a folder above that may not be listed
        return


def _is_store(folder: Path) -> bool:
    return any((folder / name).exists() for name in _OF_A_STORE)
