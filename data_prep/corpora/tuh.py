"""Subjects that pre-training must not see: the TUH corpora TUAB, TUEV, TUSZ and others are parts of TUEG.

A model pre-trained on all of TUEG has seen the very recordings that it is later tested on. So their subjects are left
out wherever they can be known: from folders or lists that the user gives, and from folders that lie beside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.corpora.folder import Source, counted, find_recordings

TUH_SCHEME = "TUH (aaaaaaaa_s001_t000)"
_SUBSET = re.compile(
    r"^(?:tu(?:ab|ev|sz|ep|ar|sl)|tuh_eeg_(?:abnormal|events|seizure|epilepsy|artifact|slowing))", re.IGNORECASE
)
_LEVELS = 4  # tuh_eeg/v2.0.1/edf has its neighbours two levels up
_SUBJECT = re.compile(r"^[A-Za-z0-9\-]+$")


def subsets_beside(paths: Sequence[str]) -> list[Path]:
    """Folders next to the given ones, or next to the folders that these lie in, that are named like a part of TUEG."""
    given = [Path(path).absolute() for path in paths]
    neighbours = {folder for path in given for parent in list(path.parents)[:_LEVELS] for folder in _folders(parent)}
    apart = (folder for folder in neighbours if not any(path.is_relative_to(folder) for path in given))
    return sorted(folder for folder in apart if _SUBSET.search(folder.name))


def excluded_subjects(exclude: Sequence[str | Path]) -> dict[str, str]:
    """Subjects of folders of recordings and of lists, each with the name of where it was found.

    A list is a text file with a subject per line, or a table with the subjects in its first column.

    Raises
    ------
    FileNotFoundError
        No such folder or file.
    ValueError
        No subject is in it.
    """
    found: dict[str, str] = {}
    for place in map(Path, exclude):
        if not place.exists():
            raise FileNotFoundError(f"--exclude {place}: no such folder or list")
        subjects = set(_listed(place) if place.is_file() else (source.subject for source in find_recordings([place])))
        if not subjects:
            raise ValueError(f"--exclude {place} names no subject: a list has one per line")
        found |= {subject: place.name for subject in subjects if subject not in found}
    return found


def leave_out(sources: Sequence[Source], excluded: dict[str, str]) -> list[Source]:
    """The recordings of the other subjects; ValueError if there are none."""
    rest = [source for source in sources if source.subject not in excluded]
    if not rest:
        raise ValueError(f"all {len(sources)} recordings are of excluded subjects: is --exclude the corpus itself?")
    return rest


def say_excluded(sources: Sequence[Source], rest: Sequence[Source], excluded: dict[str, str]) -> str:
    """What was left out; of TUH recordings also that nothing was, in words that are not overlooked."""
    if excluded:
        n_subjects = len({source.subject for source in sources} & set(excluded))
        places = ", ".join(sorted(set(excluded.values())))
        n_left_out = counted(len(sources) - len(rest), "recording")
        return f"left out {n_left_out} of {counted(n_subjects, 'subject')} that are in {places}"
    if any(source.scheme == TUH_SCHEME for source in sources):
        return (
            "WARNING: these are TUH recordings, and no subject is left out. TUAB, TUEV, TUSZ and others are parts of "
            "TUEG: a model pre-trained on their subjects has seen what it is tested on. Give their folders or lists of "
            "their subjects with --exclude"
        )
    return ""


def _folders(parent: Path) -> Iterator[Path]:
    try:
        yield from (path for path in parent.iterdir() if path.is_dir())
    except OSError:  # a folder above that may not be listed
        return


def _listed(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        first = re.split(r"[,;\t ]", line.strip(), maxsplit=1)[0]
        if _SUBJECT.match(first):
            yield first
