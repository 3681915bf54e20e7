"""Whom a recording is from: naming schemes, a pattern of the user's, or a table."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpora import bids, tuh
from data_prep.corpora.table import TableRow, read_table

SUBJECT_PATTERNS: dict[str, str] = {
    "BIDS (sub-XX)": r"(?:^|/)(sub-[A-Za-z0-9]+)(?=[_/])",
    "SubjectNN": r"(?i:(?:^|[/_\-.])(subject[_-]?\d+))(?!\d)",
    tuh.SCHEME: tuh.SUBJECT_PATTERN,
    "chbNN": r"(?:^|/)(chb\d{2})(?=[a-z]?_)",
    "SNNN": r"(?:^|/)(S\d{2,3})(?=R\d|[/_\-.])",
}
"""Naming schemes that are recognised, tried in this order on a recording's path inside the given folder."""

_SESSION = re.compile(r"(?:^|[/_])(ses-[A-Za-z0-9]+|s\d{3}(?=_\d{4}|_t\d{3}))")
PATH_COLUMNS = ("path", "file")
"""Headings under which a table names recordings."""


class Naming:
    """How the paths of recordings name subjects.

    Parameters
    ----------
    pattern : str, optional
        Regular expression whose first group (or whole match) in a recording's path is its subject, instead of the
        schemes that are recognised.

    Raises
    ------
    ValueError
        The pattern is no regular expression.
    """

    def __init__(self, pattern: str | None = None) -> None:
        self.pattern = pattern
        try:
            own = {"--subject_pattern": re.compile(pattern)} if pattern is not None else None
        except re.error as error:
            raise ValueError(f"--subject_pattern {pattern!r} is no regular expression: {error}") from None
        self._schemes = own or {scheme: re.compile(known) for scheme, known in SUBJECT_PATTERNS.items()}

    def subject(self, key: str) -> tuple[str, str]:
        """Subject that a path names and the scheme that it follows; its own name and "" if it follows none."""
        for scheme, expression in self._schemes.items():
            if found := expression.search(key):
                return next((group for group in found.groups() if group), found[0]), scheme
        return stem_of(key), ""


def subjects_of(files: Sequence[str | os.PathLike[str]]) -> list[tuple[str, str]]:
    """Subject and naming scheme of recordings that were named one by one.

    Their paths below the folder that they share are looked at, as in a corpus those below the given one: who a folder
    further up is named after would be all of them.
    """
    places = [Path(file).absolute() for file in files]
    shared = os.path.commonpath([place.parent for place in places])
    return [Naming().subject(place.relative_to(shared).as_posix()) for place in places]


@dataclass(frozen=True, kw_only=True)
class Person:
    """What a table says of whom a recording is from."""

    subject: str
    """Name."""
    age: str
    """Age in years, or ""."""
    sex: str
    """"male", "female" or ""."""


class SubjectTable:
    """A table of recordings: columns `path` (or `file`) and `subject`, and where known `age` and `sex`.

    A path counts from the table's folder, from a folder that was given, or is a file name that occurs once.

    Attributes
    ----------
    unused : list of str
        Paths in the table at which no recording was found.

    Raises
    ------
    FileNotFoundError
        No such table.
    ValueError
        It lacks a column, or a row is incomplete, or two rows contradict each other.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)
        self.unused: list[str] = []
        self._people: dict[str, Person] = {}
        for row in self._rows():
            path = next((row.cells[name] for name in PATH_COLUMNS if row.cells.get(name)), "").replace("\\", "/")
            if not path or not row.cells["subject"]:
                raise ValueError(f"--subjects {file}: line {row.line} has no {'subject' if path else 'path'}")
            age, sex = bids.age_and_sex(row.cells)
            person = Person(subject=row.cells["subject"], age=age, sex=sex)
            if self._people.setdefault(path, person) != person:
                raise ValueError(f"--subjects {file}: line {row.line} says otherwise of {path} than a line before it")
        if not self._people:
            raise ValueError(f"--subjects {file} has no rows")

    def people(self, files: Mapping[Path, str]) -> dict[Path, Person]:
        """Whom recordings are from, given with their paths inside the given folder; without those not in the table.

        Raises
        ------
        ValueError
            None is in the table, or a bare name in it is that of several recordings.
        """
        own = {os.path.normpath(self.file.absolute().parent / path): path for path in self._people}
        # A path that is one of a recording is no bare name besides.
        exact = {file: own.get(str(file)) or (key if key in self._people else None) for file, key in files.items()}
        bare = self._people.keys() - set(exact.values())
        names = Counter(file.name for file, row in exact.items() if row is None)
        found = {file: row or file.name for file, row in exact.items() if row or file.name in bare}
        for row in bare:
            if names[row] > 1:
                raise ValueError(f"--subjects {self.file}: {row} could be any of {names[row]} files: give their paths")
        if not found:
            raise ValueError(
                f"--subjects {self.file} names none of the recordings: it has {next(iter(self._people))!r}, the first "
                f"recording is {next(iter(files.values()))!r}. A path counts from the table's folder or a given one"
            )
        self.unused = sorted(set(self._people) - set(found.values()))
        return {file: self._people[row] for file, row in found.items()}

    def _rows(self) -> list[TableRow]:
        columns, rows = read_table(self.file, "--subjects")
        if "subject" not in columns or not set(columns) & set(PATH_COLUMNS):
            raise ValueError(
                f"--subjects {self.file} needs the columns path (or file) and subject, and may have age and sex; it "
                f"has {', '.join(columns) or 'none'}"
            )
        return rows


def session_of(key: str) -> str:
    """Session that a path names, or ""."""
    found = _SESSION.search(key)
    return found[1] if found else ""


def stem_of(key: str) -> str:
    """A recording's own name: with its folders, for two folders may hold the same file name."""
    return re.sub(r"(\.fif)?\.[^./]+$", "", key)
