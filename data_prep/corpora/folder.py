"""Any folder of recordings: each one with its name in the store, whom it is from, and whether it can be used at all."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpora import bids, eegmmidb, tuh
from data_prep.corpora.duplicates import mark_duplicates
from data_prep.corpora.files import files_of
from data_prep.corpora.source import Source, counted
from data_prep.corpora.subjects import SUBJECT_PATTERNS, Naming, SubjectTable, session_of, stem_of
from data_prep.corpora.walk import SUFFIXES, Listing, list_recordings

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
    if subjects is not None and subject_pattern is not None:
        raise ValueError("--subjects and --subject_pattern both say whom recordings are from: give one of them")
    naming, table = Naming(subject_pattern), SubjectTable(subjects) if subjects is not None else None
    given = _existing(paths)
    listing = list_recordings(given, skip_folders)
    for line in listing.in_words():
        say(_readable(line))
    if not listing.files:
        names = ", ".join(str(path) for path in given) or "nothing"
        raise ValueError(f"no recordings in {names}: looked for files ending in {', '.join(SUFFIXES)}")
    found = _found(given, listing)
    sources = _by_path(found, naming) if table is None else _by_table(found, table)
    if table is not None and table.unused:
        rows = counted(len(table.unused), "row")
        say(f"WARNING: {rows} of {table.file} fit no recording, such as {table.unused[0]}")
    sources = mark_duplicates(sources)
    for line in unusable_in_words(sources):
        say(line)
    return sources


def source_of(
    file: Path, key: str, subject: str, labels: Iterable[Path] = (), /, *, data_set: str = "", **known: str
) -> Source:
    """A recording with what its files and the tables beside it tell.

    `labels` are files with its labels, if there are any. `known` are further fields of Source, which win where they
    are not "".
    """
    files = files_of(file, labels)
    age, sex = bids.participant(file, subject.removeprefix(f"{data_set}/"))
    told = {"age": age, "sex": sex, "unusable": _fault_of_name(file) or _readable(files.not_there())}
    told |= {name: value for name, value in known.items() if value}
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


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A recording that was found."""

    file: Path
    """Where it is."""
    given: Path
    """File or folder that the user gave."""
    key: str
    """Its path below the folder that is common to all that was given."""
    data_set: str
    """Name of its data set, if there are several."""

    @property
    def inside(self) -> str:
        """Its path below the given folder: all of /data/sub-project/ is not one person."""
        return self.file.relative_to(self.given).as_posix() if self.file != self.given else self.file.name


def _existing(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    for path in paths:
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    return [Path(path).absolute() for path in paths]


def _found(given: Sequence[Path], listing: Listing) -> list[_Found]:
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given]))
    data_sets = _data_sets(listing.files)
    return [
        _Found(file=file, given=path, key=file.relative_to(root).as_posix(), data_set=data_sets[file])
        for file, path in listing.files.items()
    ]


def _data_sets(files: Mapping[Path, Path]) -> dict[Path, str]:
    """Folder of the data set that each recording is of, below the folder common to all; "" if there is one only.

    A data set is what a BIDS description says, or else a folder that was given.
    """
    described = functools.cache(_described)
    roots = {file: described(file.parent) or (given if file != given else file.parent) for file, given in files.items()}
    common = os.path.commonpath(list(set(roots.values())))
    names = {root: _readable(Path(os.path.relpath(root, common)).as_posix()) for root in set(roots.values())}
    return {file: "" if names[root] == "." else names[root] for file, root in roots.items()}


def _described(folder: Path) -> Path | None:
    """The outermost BIDS data set that a folder is in: derivatives are described too, and of the same persons."""
    above = reversed([folder, *folder.parents])
    return next((place for place in above if (place / "dataset_description.json").exists()), None)


def _by_path(found: Sequence[_Found], naming: Naming) -> list[Source]:
    """Recordings whose subjects their paths name."""
    named = [naming.subject(one.key if naming.pattern else one.inside) for one in found]
    if naming.pattern is not None and not any(scheme for _, scheme in named):
        raise ValueError(f"--subject_pattern {naming.pattern!r} fits no recording, such as {found[0].key!r}")
    sources = []
    for one, (subject, scheme) in zip(found, named, strict=True):
        data_set = one.data_set if scheme in _LOCAL_SCHEMES else ""
        name = (f"{data_set}/{subject}" if data_set else subject) if scheme else stem_of(one.key)
        source = source_of(one.file, one.key, name, data_set=data_set, scheme=scheme)
        fault = source.unusable or ("" if one.file == one.given else eegmmidb.fault_of(one.key))
        sources.append(dataclasses.replace(source, unusable=fault))
    return sources


def _by_table(found: Sequence[_Found], table: SubjectTable) -> list[Source]:
    """Recordings whose subjects a table names; those that are not in it cannot be used."""
    people = table.people({one.file: one.inside for one in found})
    sources = []
    for one in found:
        if one.file in people:
            person = people[one.file]
            known = {"age": person.age, "sex": person.sex, "scheme": table.file.name}
            sources.append(source_of(one.file, one.key, person.subject, **known))
        else:
            sources.append(source_of(one.file, one.key, stem_of(one.key), unusable=f"not in {table.file.name}"))
    return sources


def unusable_in_words(sources: Sequence[Source]) -> Iterator[str]:
    """Lines on recordings that cannot be used, the first few with the reason."""
    unusable = [source for source in sources if source.unusable]
    if unusable:
        yield f"{counted(len(unusable), 'recording')} cannot be used, which recordings.csv will say too:"
    yield from (f"  {source.key}: {source.unusable}" for source in unusable[:_LISTED])
    if len(unusable) > _LISTED:
        yield f"  and {len(unusable) - _LISTED:,} more"


def _fault_of_name(file: Path) -> str:
    try:
        str(file).encode("utf-8")
    except UnicodeEncodeError:
        return "its path is not in UTF-8, as names of old systems are; rename it (convmv does it for whole folders)"
    return ""


def _readable(path: str) -> str:
    """A path as text that can be printed and stored, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
