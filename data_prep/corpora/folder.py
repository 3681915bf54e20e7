"""Any folder of recordings: each one with its name in the store, whom it is from, and whether it can be used at all."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data_prep.corpora import bids, eegmmidb, tuh
from data_prep.corpora.duplicates import mark_duplicates
from data_prep.corpora.files import files_of
from data_prep.corpora.source import Source, counted
from data_prep.corpora.subjects import SUBJECT_PATTERNS, Naming, SubjectTable, session_of, stem_of
from data_prep.corpora.walk import SUFFIXES, list_recordings

_LISTED = 5
_LOCAL_SCHEMES = SUBJECT_PATTERNS.keys() - {tuh.SCHEME}
"""Schemes by which two data sets give the same name to different persons."""


def find_recordings(
    paths: Sequence[str | os.PathLike[str]],
    subject_pattern: str | None = None,
    skip_folders: Sequence[str] = (),
    *,
    subjects: str | os.PathLike[str] | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> list[Source]:
    """List the recordings in files and folders, in a fixed order.

    Parameters
    ----------
    paths : sequence of paths
        Files, or folders that are searched through.
    subject_pattern : str, optional
        Regular expression whose first group (or whole match) in a recording's path is its subject.
    skip_folders : sequence of str
        Names of folders whose recordings are left out.
    subjects : path, optional
        Table of the recordings' subjects; recordings that are not in it cannot be used.
    say : callable
        Gets lines on what was passed over and what cannot be used.

    Raises
    ------
    FileNotFoundError
        A path does not exist.
    ValueError
        No recording is there, the pattern is no regular expression or fits none of them, or so for the table.
    """
    given = [Path(path).absolute() for path in paths]
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    if subjects is not None and subject_pattern is not None:
        raise ValueError("--subjects and --subject_pattern both say whom recordings are from: give one of them")
    naming = Naming(subject_pattern)
    listing = list_recordings(given, skip_folders)
    for line in listing.in_words():
        say(_readable(line))
    if not listing.files:
        names = ", ".join(str(path) for path in given) or "nothing"
        raise ValueError(f"no recordings in {names}: looked for files ending in {', '.join(SUFFIXES)}")
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given]))
    keys = {file: file.relative_to(root).as_posix() for file in listing.files}
    if subjects is not None:
        table = SubjectTable(subjects)
        sources = _by_table(listing.files, keys, table)
        if table.unused:
            say(
                f"WARNING: {counted(len(table.unused), 'row')} of {table.file} fit no recording: {table.unused[0]}, ..."
            )
    else:
        data_sets = _data_sets(listing.files)
        sources = [
            _by_path(file, keys[file], given_path, naming, data_sets[file])
            for file, given_path in listing.files.items()
        ]
        _check_pattern(naming, sources)
    sources = mark_duplicates(sources)
    _say_unusable(sources, say)
    return sources


def source_of(file: Path, key: str, subject: str, *, data_set: str = "", **known: str) -> Source:
    """A recording with what its files and the tables beside it tell; `known` are further fields of Source."""
    files = files_of(file)
    age, sex = bids.participant(file, subject.removeprefix(f"{data_set}/"))
    told = {"age": age, "sex": sex, "unusable": _fault_of_name(file) or files.not_there(), **known}
    return Source(
        file=str(file),
        key=_readable(key),
        subject=_readable(subject),
        session=session_of(_readable(key)),
        data_set=data_set,
        size=files.size,
        files_hash=files.hash(),
        **told,
    )


def say_subjects(sources: Sequence[Source]) -> str:
    """One line on how many recordings and subjects there are and how the subjects were told apart."""
    usable = [source for source in sources if not source.unusable]
    schemes = sorted({source.scheme for source in usable if source.scheme})
    n_own = sum(not source.scheme for source in usable)
    n_subjects = len({source.subject for source in usable})
    line = f"{counted(len(usable), 'recording')} of {counted(n_subjects, 'subject')}"
    if schemes:
        line += f", told apart by {', '.join(schemes)}"
    if data_sets := sorted({source.data_set for source in usable if source.data_set}):
        line += (
            f", each data set's kept apart ({', '.join(data_sets[:_LISTED])}{', ...' * (len(data_sets) > _LISTED)}): "
            "if these hold the same persons, give the folder above them"
        )
    if n_own:
        line += (
            f"; {n_own} with no known naming scheme, each taken for a subject of its own. If a person has several "
            "recordings, name them apart with --subject_pattern, or a split may cut through a subject"
        )
    return line


def _by_path(file: Path, key: str, found_by: Path, naming: Naming, data_set: str) -> Source:
    """A recording whose path names its subject."""
    # A folder above the given one says nothing: all of /data/sub-project/ is not one person.
    inside = file.relative_to(found_by).as_posix() if file != found_by else file.name
    subject, scheme = naming.subject(key if naming.pattern else inside)
    if not scheme:
        subject = stem_of(key)
    data_set = data_set if scheme in _LOCAL_SCHEMES else ""
    name = f"{data_set}/{subject}" if data_set else subject
    source = source_of(file, key, name, data_set=data_set, scheme=scheme)
    fault = eegmmidb.fault_of(key) if file != found_by and not source.unusable else ""
    return dataclasses.replace(source, unusable=fault) if fault else source


def _by_table(files: Mapping[Path, Path], keys: Mapping[Path, str], table: SubjectTable) -> list[Source]:
    """Recordings whose subjects a table names; those that are not in it cannot be used."""
    people = table.people(
        {file: file.relative_to(given).as_posix() if file != given else file.name for file, given in files.items()}
    )
    sources = []
    for file, key in keys.items():
        if file in people:
            person = people[file]
            told = {name: value for name, value in (("age", person.age), ("sex", person.sex)) if value}
            sources.append(source_of(file, key, person.subject, scheme=table.file.name, **told))
        else:
            sources.append(source_of(file, key, stem_of(key), unusable=f"not in {table.file.name}"))
    return sources


def _data_sets(files: Mapping[Path, Path]) -> dict[Path, str]:
    """Folder of the data set that each recording is of, below the folder common to all; "" if there is one only.

    A data set is what a BIDS description says, or else a folder that was given.
    """
    roots = {
        file: _bids_root(file.parent) or (given if file != given else file.parent) for file, given in files.items()
    }
    common = os.path.commonpath(list(set(roots.values())))
    names = {root: _readable(Path(os.path.relpath(root, common)).as_posix()) for root in set(roots.values())}
    return {file: "" if names[root] == "." else names[root] for file, root in roots.items()}


@functools.lru_cache(maxsize=100_000)
def _bids_root(folder: Path) -> Path | None:
    """The outermost folder at or above this one that is described as a BIDS data set."""
    above = _bids_root(folder.parent) if folder != folder.parent else None
    return above or (folder if (folder / "dataset_description.json").exists() else None)


def _check_pattern(naming: Naming, sources: Sequence[Source]) -> None:
    if naming.pattern is not None and not any(source.scheme for source in sources):
        raise ValueError(f"--subject_pattern {naming.pattern!r} fits no recording, such as {sources[0].key!r}")


def _say_unusable(sources: Sequence[Source], say: Callable[[str], object]) -> None:
    unusable = [source for source in sources if source.unusable]
    if not unusable:
        return
    say(f"{counted(len(unusable), 'recording')} cannot be used, which recordings.csv will say too:")
    for source in unusable[:_LISTED]:
        say(f"  {source.key}: {source.unusable}")
    if len(unusable) > _LISTED:
        say(f"  and {len(unusable) - _LISTED:,} more")


def _fault_of_name(file: Path) -> str:
    try:
        str(file).encode("utf-8")
    except UnicodeEncodeError:
        return "its path is not in UTF-8, as names of old systems are; rename it (convmv does it for whole folders)"
    return ""


def _readable(path: str) -> str:
    """A path as text that can be printed and stored, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
