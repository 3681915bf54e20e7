"""Whose recordings are left out: subjects of folders and lists that the user gives, or that lie beside TUH recordings.

A subject is known by its name in the folder or list, and by the name of TUH that a path holds: so neither another
naming scheme nor a pattern of the user's turns an exclusion off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpora import tuh
from data_prep.corpora.source import Source, counted
from data_prep.corpora.subjects import Naming
from data_prep.corpora.walk import SUFFIXES, list_recordings

_SUBJECT = re.compile(r"^[^\s,;#]+$")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder or list of subjects to be left out."""

    path: Path
    """Where it is."""
    subjects: frozenset[str]
    """Under all the names by which they may be known."""
    nameless: tuple[str, ...] = ()
    """Recordings of TUH in it of which neither path nor header says whom they are from."""
    is_beside: bool = False
    """Whether it was found, not given."""

    def left_out(self, sources: Sequence[Source]) -> list[Source]:
        """Recordings of its subjects, and those that lie in it, whomever they are from."""
        folder = self.path.absolute()
        return [
            source for source in sources if _names(source) & self.subjects or Path(source.file).is_relative_to(folder)
        ]


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Whose recordings are left out of a corpus, and what has to be said about it."""

    rest: tuple[Source, ...]
    """The recordings of the others."""
    subjects: tuple[str, ...]
    """All names that are left out, in the corpus or not."""
    said: tuple[str, ...]
    """Lines for the user."""


def exclude(
    sources: Sequence[Source], places: Sequence[str], naming: Naming, beside: Sequence[str] | None = None
) -> Exclusion:
    """Leave out the subjects of some places.

    Parameters
    ----------
    sources : sequence of Source
        The recordings of the corpus.
    places : sequence of paths
        Folders of recordings; or lists, text files with a subject per line or in the first column of a table.
    naming : Naming
        How the user says that subjects are named.
    beside : sequence of paths, optional
        The paths of the corpus, if the parts of TUEG that lie beside them are left out too.

    Raises
    ------
    FileNotFoundError
        No such folder or file.
    ValueError
        A given place names no subject or none of the corpus, or no recording is left.
    """
    is_tuh = any(tuh.subject_of(source.key) for source in sources)
    found = [_given(Path(place), naming) for place in places]
    if is_tuh and beside is not None:
        found += [_of_tuh(folder, is_beside=True) for folder in tuh.subsets_beside(beside)]
    left_out = [place.left_out(sources) for place in found]
    for place, its_sources in zip(found, left_out, strict=True):
        if not place.is_beside and not its_sources:
            raise ValueError(_no_match(place, sources))
    subjects = frozenset().union(*(place.subjects for place in found))
    gone = {source.file for its_sources in left_out for source in its_sources}
    rest = tuple(source for source in sources if source.file not in gone)
    if sources and not rest:
        raise ValueError(
            f"all {counted(len(sources), 'recording')} are of subjects to be left out, those in "
            f"{', '.join(str(place.path) for place in found)}: is that the corpus itself? --exclude_beside false stops "
            "the search for parts of TUEG"
        )
    said = [line for place, its_sources in zip(found, left_out, strict=True) for line in _in_words(place, its_sources)]
    if is_tuh and not subjects:
        said.append(
            "WARNING: these are TUH recordings, and no subject is left out. TUAB, TUEV, TUSZ and others are parts of "
            "TUEG: a model pre-trained on their subjects has seen what it is tested on. Give their folders or lists of "
            "their subjects with --exclude"
        )
    return Exclusion(rest=rest, subjects=tuple(sorted(subjects)), said=tuple(said))


def _names(source: Source) -> frozenset[str]:
    """All names under which a recording's subject may be excluded."""
    return frozenset({source.subject, source.person, tuh.subject_of(source.key)} - {""})


def _given(path: Path, naming: Naming) -> Place:
    """The subjects of a list or folder that the user names."""
    if not path.exists():
        raise FileNotFoundError(f"--exclude {path}: no such folder or list")
    if path.is_file() and not path.name.lower().endswith(SUFFIXES):
        place = Place(path=path, subjects=frozenset(_listed(path)))
    elif not (place := _of_tuh(path)).subjects:
        place = Place(path=path, subjects=frozenset(naming.subject(key)[0] for key in _files(path)))
    if not place.subjects:
        raise ValueError(f"--exclude {path} names no subject: a list has one per line, a folder holds recordings")
    return place


def _of_tuh(folder: Path, *, is_beside: bool = False) -> Place:
    """The subjects of TUH in a folder."""
    named = {key: tuh.subject_of(key) or tuh.subject_in_header(file) for key, file in _files(folder).items()}
    return Place(
        path=folder,
        subjects=frozenset(named.values()) - {""},
        nameless=tuple(key for key, subject in named.items() if not subject),
        is_beside=is_beside,
    )


def _files(folder: Path) -> dict[str, Path]:
    """Recordings of a folder by their path in it."""
    root = folder.absolute()
    files = list_recordings([root]).files
    return {file.relative_to(root).as_posix() if file != root else file.name: file for file in files}


def _listed(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        first = re.split(r"[,;\t ]", line.strip(), maxsplit=1)[0]
        if _SUBJECT.match(first):
            yield tuh.subject_of(first) or first


def _in_words(place: Place, left_out: Sequence[Source]) -> Iterator[str]:
    """What a place left out; what it could not, in words that are not overlooked."""
    name = place.path.name
    n_subjects = len({source.subject for source in left_out})
    if place.subjects:
        yield (
            f"left out {counted(len(left_out), 'recording')} of {counted(n_subjects, 'subject')} that are in {name}, "
            f"which names {len(place.subjects):,}"
        )
    else:
        yield (
            f"WARNING: {place.path} lies beside and is named like a part of TUEG, but no file in it names a subject of "
            "TUH: nobody is left out for it. Complete it, or give a list of its subjects with --exclude; "
            "--exclude_beside false stops the search"
        )
    if place.nameless:
        yield (
            f"WARNING: {counted(len(place.nameless), 'recording')} in {name} do not say whom they are from "
            f"({_few(place.nameless)}): if these persons are in the corpus, they stay there. Give a list of them with "
            "--exclude"
        )


def _no_match(place: Place, sources: Sequence[Source]) -> str:
    there = {source.person for source in sources}
    return (
        f"--exclude {place.path} leaves nobody out: it names {counted(len(place.subjects), 'subject')} "
        f"({_few(place.subjects)}), the recordings are of {len(there):,} others ({_few(there)}). Are they named in "
        "another way? --subject_pattern holds for folders of --exclude too"
    )


def _few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (", ..." if len(ordered) > _SHOWN else "")
