"""A table of the user's: a text file with a heading per column, divided by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DELIMITERS = ",;\t"


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of a table."""

    line: int
    """Where it ends in the file, counted from 1."""
    cells: dict[str, str]
    """What stands under each heading, without blanks around it; "" where nothing does."""


def read_table(file: Path, flag: str) -> tuple[Sequence[str], list[TableRow]]:
    """Headings in small letters, and the rows, of a table that was given with a flag.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, or it is no text in UTF-8, such as a spreadsheet's own file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{flag} {file}: no such table")
    text = _text(file.read_bytes())
    if text is None:
        raise ValueError(f"{flag} {file} is no CSV or TSV in UTF-8: save the table, or the spreadsheet, as one")
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=header.count))
    reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    return reader.fieldnames, [
        TableRow(line=reader.line_num, cells={name: (text or "").strip() for name, text in row.items() if name})
        for row in reader
    ]


def _text(content: bytes) -> str | None:
    """A file's text; None if it is none, or one in another encoding, in which names would not be those of files."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
