"""A table of labels: a row per file, per pattern of files or per subject, and which recordings each row is about."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal

from data_prep.corpora import Source
from data_prep.corpora.subjects import PATH_COLUMNS
from data_prep.corpora.table import TableRow, read_table

LabelsAs = Literal["auto", "classes", "numbers"]

_SUBJECT_COLUMNS = ("subject", "participant_id")
_NOTHING = ("", "n/a", "na", "nan")  # an empty cell, as people, BIDS, R and pandas write it
_WILD = frozenset("*?[")
_LISTED = 8


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """What a row says."""

    line: int
    """Where it stands in the table."""
    who: str
    """The file, pattern of files or subject that it is about."""
    label: str
    """Its label, as it is written; "" for none."""


class LabelTable:
    """A table of labels.

    Parameters
    ----------
    file : path
    column : str
        Heading of the labels.

    Attributes
    ----------
    by : str
        Heading of the column that says what a row is about.
    names_subjects : bool
        Whether a table of files has a column of subjects besides.
    rows : list of LabelRow
    unused : list of LabelRow
        Those that are about no recording; known after `rows_of`.

    Raises
    ------
    FileNotFoundError, ValueError
        No such table; it lacks a column, has no rows, or has one that is about nothing.
    """

    def __init__(self, file: str | os.PathLike[str], column: str) -> None:
        self.file, self.column = Path(file), column.strip().lower()
        headings, rows = read_table(self.file, "--labels")
        if self.column not in headings:
            near = difflib.get_close_matches(self.column, headings, n=1)
            hint = f". Did you mean {near[0]}?" if near else ""
            raise ValueError(f"--column {column}: {file} has the columns {', '.join(headings) or 'none'}{hint}")
        by = next((name for name in (*PATH_COLUMNS, *_SUBJECT_COLUMNS) if name in headings), None)
        if by is None:
            raise ValueError(
                f"--labels {file} needs a column file (names, or patterns such as *_rest.edf) or a column subject; it "
                f"has {', '.join(headings)}"
            )
        self.by = by
        self.names_subjects = by in PATH_COLUMNS and not set(_SUBJECT_COLUMNS).isdisjoint(headings)
        self.rows = [self._row(row) for row in rows]
        self.unused: list[LabelRow] = []
        if not any(row.label for row in self.rows):
            raise ValueError(f"--labels {file} has no label in its column {self.column}")

    def _row(self, row: TableRow) -> LabelRow:
        who = row.cells[self.by].replace("\\", "/").removeprefix("./")
        if not who:
            raise ValueError(f"--labels {self.file}: line {row.line} has no {self.by}")
        label = row.cells[self.column]
        return LabelRow(line=row.line, who=who, label="" if label.lower() in _NOTHING else label)

    def rows_of(self, sources: Sequence[Source]) -> dict[str, LabelRow]:
        """The row about each recording, by the recording's name in the store; without those that none is about.

        Raises
        ------
        ValueError
            No row is about any of them, rows give one of them different labels, or a row's subject is in several data
            sets.
        """
        about = self._by_file(sources) if self.by in PATH_COLUMNS else self._by_subject(sources)
        if not about:
            raise ValueError(
                f"--labels {self.file} is about none of the recordings: its column {self.by} begins with "
                f"{self.rows[0].who!r}, the first recording is {sources[0].key!r} of subject {sources[0].person!r}"
            )
        used = {row.line for rows in about.values() for row in rows}
        self.unused = [row for row in self.rows if row.line not in used]
        return {key: self._agreed(key, rows) for key, rows in about.items()}

    def _by_file(self, sources: Sequence[Source]) -> dict[str, list[LabelRow]]:
        exact = _together(self.rows, lambda row: row.who)
        patterns = [row for row in self.rows if not _WILD.isdisjoint(row.who)]
        keys = {source.key for source in sources}
        about = {}
        for source in sources:
            bare = PurePosixPath(source.key).name
            paths = [source.key, os.path.relpath(source.file, self.file.absolute().parent), source.file]
            # A path that is one of a recording is no bare name besides.
            names = paths if bare in keys else [*paths, bare]
            rows = {row.line: row for name in names for row in exact.get(name, [])}
            rows |= {row.line: row for row in patterns if any(fnmatchcase(name, row.who) for name in [*paths, bare])}
            if rows:
                about[source.key] = [rows[line] for line in sorted(rows)]
        return about

    def _by_subject(self, sources: Sequence[Source]) -> dict[str, list[LabelRow]]:
        rows = _together(self.rows, lambda row: _bare(row.who))
        subjects: dict[str, str] = {}
        about = {}
        for source in sources:
            name = next((name for name in map(_bare, (source.subject, source.person)) if name in rows), None)
            if name is None:
                continue
            if (other := subjects.setdefault(name, source.subject)) != source.subject:
                raise ValueError(
                    f"--labels {self.file}: {name} could be {other} or {source.subject}: write which it is"
                )
            about[source.key] = rows[name]
        return about

    def _agreed(self, key: str, rows: Sequence[LabelRow]) -> LabelRow:
        labels = {row.label: row for row in reversed(rows) if row.label}
        if len(labels) > 1:
            said = " and ".join(f"{row.label!r} by line {row.line} ({row.who})" for row in reversed(labels.values()))
            raise ValueError(f"--labels {self.file}: {key} is {said}. A recording has one label")
        return next(iter(labels.values()), rows[0])


def class_names(table: LabelTable, labels_as: LabelsAs, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes in their order; none where the labels are numbers to learn.

    Parameters
    ----------
    table : LabelTable
    labels_as : str
        `auto`: texts are classes, and so are two different numbers; what else there may be has to be told.
    classes : sequence of str
        Those that the user chose; none takes all, as they first appear.

    Raises
    ------
    ValueError
        What the labels are has to be told, is told otherwise, or leaves nothing to learn.
    """
    labels = [row for row in table.rows if row.label]
    names = list(dict.fromkeys(row.label for row in labels))
    where = f"column {table.column} of {table.file}"
    if labels_as == "auto" and not classes:
        _check_plain(labels, names, where)
    if labels_as == "numbers":
        if classes:
            raise ValueError("--classes and --labels_as numbers exclude each other: give one of them")
        _check_numbers(labels, where)
        return ()
    if unknown := [name for name in classes if name not in names]:
        raise ValueError(f"--classes {' '.join(unknown)}: no label in {where} is written so; it has {_listed(names)}")
    chosen = tuple(dict.fromkeys(classes or names))
    if len(chosen) < 2:
        raise ValueError(f"{where} has only one class to learn, {chosen[0]!r}: there is nothing to tell apart")
    return chosen


def _check_plain(labels: Sequence[LabelRow], names: Sequence[str], where: str) -> None:
    """Refuse labels that could be meant as classes or as numbers."""
    texts = [row for row in labels if not _is_number(row.label)]
    if len(texts) == len(labels) or (not texts and len(names) <= 2):
        return
    what = f"numbers and texts, such as {texts[0].label!r} in line {texts[0].line}" if texts else "numbers"
    raise ValueError(
        f"{where} holds {what}. Say --labels_as numbers to learn them as numbers (a regression), or --labels_as "
        "classes to take each for the name of a class"
    )


def _check_numbers(labels: Sequence[LabelRow], where: str) -> None:
    for row in labels:
        if not _is_number(row.label):
            raise ValueError(
                f"--labels_as numbers, but {where} has {row.label!r} in line {row.line}. Leave a cell empty where a "
                "number is not known"
            )
    if len({float(row.label) for row in labels}) < 2:
        raise ValueError(f"{where} is {labels[0].label} throughout: there is nothing to learn")


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def _together(rows: Sequence[LabelRow], name: Callable[[LabelRow], str]) -> dict[str, list[LabelRow]]:
    """Rows by whom they are about."""
    found: dict[str, list[LabelRow]] = {}
    for row in rows:
        found.setdefault(name(row), []).append(row)
    return found


def _bare(subject: str) -> str:
    """A subject without the prefix that BIDS gives it, which tables have or leave out."""
    return subject.removeprefix("sub-")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
