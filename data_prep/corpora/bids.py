"""What the tables of a BIDS folder say of a recording: its bad channels, its events, the person's age and sex.

Tables are found by their names alone, so they serve any recording that has them beside it, in a valid BIDS data set or
not.
"""

from __future__ import annotations

import csv
import functools
import io
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.read import Annotation

BAD = "bad"
"""Reason of a channel that a person has judged."""

_DEEPEST = 5  # folders between a recording and the root of its data set: sub-XX/ses-YY/eeg
_DECIMAL_COMMA = re.compile(r"^-?\d+,\d+$")
_SHOWN = 3  # cells in a message


@dataclass(frozen=True, kw_only=True)
class ChannelsTable:
    """What `channels.tsv` says."""

    name: str = ""
    """Of the file."""
    rows: Mapping[str, str] = field(default_factory=dict)
    """Why each channel must not be used: "bad", or a type that is no EEG; "" if it may be."""


@dataclass(frozen=True, kw_only=True)
class EventsTable:
    """What `events.tsv` says."""

    name: str = ""
    """Of the file; "" if there is none."""
    marks: tuple[Annotation, ...] = ()
    """Its rows, under their trial type, or their value where there is none."""
    fault: str = ""
    """What of it could not be read, in words."""

    def said(self, seconds: float) -> str:
        """What a user should know of the table of a recording that lasts so many seconds; "" for nothing."""
        late = sum(mark.onset >= seconds for mark in self.marks)
        if not late:
            return self.fault
        lie = f"{late} of {len(self.marks)} events in {self.name} begin after its end at {seconds:.4g} s"
        unit = ": onsets are seconds from its first sample, are these samples or milliseconds?"
        return "; ".join([*([self.fault] if self.fault else []), lie + (unit if 2 * late > len(self.marks) else "")])


def channels(recording: Path) -> ChannelsTable:
    """The table of a recording's channels; without rows if there is none."""
    file = _table(recording, "channels")
    found = {}
    for row in _rows(file):
        kind, status = row.get("type", "EEG").upper(), row.get("status", "").lower()
        found[row.get("name", "")] = kind if kind not in ("EEG", "N/A", "") else BAD if status == BAD else ""
    return ChannelsTable(name=file.name, rows={name: reason for name, reason in found.items() if name})


def events(recording: Path) -> EventsTable:
    """The table of a recording's events; without marks if there is none."""
    file = _table(recording, "events")
    if not file.is_file():
        return EventsTable()
    rows = _rows(file)
    if rows and "onset" not in rows[0]:
        headings = ", ".join(rows[0])
        return EventsTable(name=file.name, fault=f"{file.name} has no column onset; it has {headings}")
    found, strange = [], []
    for row in rows:
        text = next((row[name] for name in ("trial_type", "value") if row.get(name, "n/a") not in ("n/a", "")), "")
        onset, duration = _number(row.get("onset")), _number(row.get("duration"))
        if not math.isfinite(onset):
            strange.append(row.get("onset", ""))
        elif text:
            found.append(Annotation(onset=onset, duration=duration if duration > 0 else 0.0, text=text))
    fault = ""
    if strange:
        shown = ", ".join(repr(text) for text in list(dict.fromkeys(strange))[:_SHOWN])
        fault = f"{len(strange)} of {len(rows)} onsets in {file.name} are no numbers of seconds, such as {shown}"
    return EventsTable(name=file.name, marks=tuple(found), fault=fault)


def participant(recording: Path, subject: str) -> tuple[str, str]:
    """Age in years and sex as `participants.tsv` gives them, "" where it does not."""
    for folder in list(recording.parents)[:_DEEPEST]:
        table = folder / "participants.tsv"
        if table.is_file():
            found = table.stat()
            people = _participants(table, found.st_mtime_ns, found.st_size)
            if subject in people:
                return people[subject]
    return "", ""


def age_and_sex(row: Mapping[str, str]) -> tuple[str, str]:
    """Age in years and sex ("male", "female") in a row of a table, "" where it does not say."""
    sex = {"m": "male", "f": "female"}.get(row.get("sex", row.get("gender", "")).lower()[:1], "")
    age = _number(row.get("age"))
    return ("" if math.isnan(age) else f"{age:g}"), sex


def tables(recording: Path) -> tuple[Path, ...]:
    """The tables that say something of a recording's channels and events, where there are any."""
    found = (_table(recording, what) for what in ("channels", "events"))
    return tuple(table for table in found if os.path.lexists(table))


def _table(recording: Path, what: str) -> Path:
    """The nearest table that holds for a recording.

    `sub-01_task-rest_eeg.edf` has its channels in `sub-01_task-rest_channels.tsv` beside it, or in that file or
    `task-rest_channels.tsv` in a folder above (BIDS: the inheritance principle).
    """
    stem = re.sub(r"(\.fif)?\.[^./]+$", "", recording.name, flags=re.IGNORECASE).removesuffix("_eeg")
    beside = recording.with_name(f"{stem}_{what}.tsv")
    if os.path.lexists(beside) or not stem.startswith("sub-"):
        return beside
    parts = stem.split("_")
    subject, task = parts[0], [part for part in parts if part.startswith("task-")]
    shared = [part for part in parts[1:] if not part.startswith("ses-")]
    names = ["_".join(name) for name in (parts, [subject, *shared], [subject, *task], shared, task) if name]
    above = (folder / f"{name}_{what}.tsv" for folder in list(recording.parents)[:_DEEPEST] for name in names)
    return next((table for table in above if table.exists()), beside)


def _rows(table: Path) -> list[dict[str, str]]:
    """Rows of a table by heading. Some are called .tsv and divided by commas or semicolons, as spreadsheets do it."""
    if not table.is_file():
        return []
    text = table.read_bytes().decode("utf-8-sig", errors="replace")
    header = text.partition("\n")[0]
    delimiter = "\t" if "\t" in header else max(",;", key=header.count)
    return [
        {key.strip(): (value or "").strip() for key, value in row.items() if key}
        for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    ]


@functools.lru_cache(maxsize=64)
def _participants(table: Path, changed: int, size: int) -> dict[str, tuple[str, str]]:
    """Age and sex of each person in a table; read once, until it changes."""
    return {row.get("participant_id", ""): age_and_sex(row) for row in _rows(table)}


def _number(text: str | None) -> float:
    """A cell as a number, also with a decimal comma; NaN if it is none."""
    text = text or "nan"
    try:
        return float(text.replace(",", ".") if _DECIMAL_COMMA.match(text) else text)
    except ValueError:
        return math.nan
