"""What the tables of a BIDS folder say of a recording: its bad channels, its events, the person's age and sex.

Tables are found by their names alone, so they serve any recording that has them beside it, in a valid BIDS data set or
not.
"""

from __future__ import annotations

import csv
import functools
import math
import os
from collections.abc import Mapping
from pathlib import Path

from data_prep.read import Annotation

_DEEPEST = 5  # folders between a recording and the root of its data set: sub-XX/ses-YY/eeg


def unfit_channels(recording: Path) -> dict[str, str]:
    """Channels that `channels.tsv` calls bad or no EEG, with the reason: {"T7": "bad", "HEOG": "EOG"}."""
    unfit = {}
    for row in _rows(_table(recording, "channels")):
        kind, status = row.get("type", "EEG").upper(), row.get("status", "").lower()
        if kind not in ("EEG", "N/A", ""):
            unfit[row.get("name", "")] = kind
        elif status == "bad":
            unfit[row.get("name", "")] = "bad"
    return unfit


def events(recording: Path) -> tuple[Annotation, ...]:
    """The rows of `events.tsv`, under their trial type, or their value where there is none."""
    found = []
    for row in _rows(_table(recording, "events")):
        text = next((row[name] for name in ("trial_type", "value") if row.get(name, "n/a") not in ("n/a", "")), "")
        onset, duration = _number(row.get("onset")), _number(row.get("duration"))
        if text and not math.isnan(onset):
            found.append(Annotation(onset=onset, duration=0.0 if math.isnan(duration) else duration, text=text))
    return tuple(found)


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
    stem = recording.name.split(".")[0].removesuffix("_eeg")
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
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return [
            {key: (value or "").strip() for key, value in row.items() if key}
            for row in csv.DictReader(file, delimiter="\t")
        ]


@functools.lru_cache(maxsize=64)
def _participants(table: Path, changed: int, size: int) -> dict[str, tuple[str, str]]:
    """Age and sex of each person in a table; read once, until it changes."""
    return {row.get("participant_id", ""): age_and_sex(row) for row in _rows(table)}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
