"""What the tables of a BIDS folder say of a recording: its bad channels, its events, the person's age and sex.

Tables are found by their names alone, so they serve any recording that has them beside it.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from data_prep.read import Annotation

_DEEPEST = 5  # folders between a recording and the root of its data set: sub-XX/ses-YY/eeg


def unfit_channels(recording: Path) -> dict[str, str]:
    """Channels that `channels.tsv` calls bad or no EEG, with the reason: {"T7": "bad", "HEOG": "EOG"}."""
    unfit = {}
    for row in _rows(_beside(recording, "channels")):
        kind, status = row.get("type", "EEG").upper(), row.get("status", "").lower()
        if kind not in ("EEG", "N/A", ""):
            unfit[row.get("name", "")] = kind
        elif status == "bad":
            unfit[row.get("name", "")] = "bad"
    return unfit


def events(recording: Path) -> tuple[Annotation, ...]:
    """The rows of `events.tsv`, under their trial type, or their value where there is none."""
    found = []
    for row in _rows(_beside(recording, "events")):
        text = next((row[name] for name in ("trial_type", "value") if row.get(name, "n/a") not in ("n/a", "")), "")
        onset, duration = _number(row.get("onset")), _number(row.get("duration"))
        if text and not math.isnan(onset):
            found.append(Annotation(onset=onset, duration=0.0 if math.isnan(duration) else duration, text=text))
    return tuple(found)


def participant(recording: Path, subject: str) -> tuple[str, str]:
    """Age in years and sex as `participants.tsv` gives them, "" where it does not."""
    for folder in list(recording.parents)[:_DEEPEST]:
        for row in _rows(folder / "participants.tsv"):
            if row.get("participant_id") == subject:
                sex = {"m": "male", "f": "female"}.get(row.get("sex", row.get("gender", "")).lower()[:1], "")
                age = _number(row.get("age"))
                return ("" if math.isnan(age) else f"{age:g}"), sex
    return "", ""


def _beside(recording: Path, what: str) -> Path:
    """`sub-01_task-rest_eeg.edf` has its channels in `sub-01_task-rest_channels.tsv`."""
    stem = recording.name.split(".")[0]
    return recording.with_name(f"{stem.removesuffix('_eeg')}_{what}.tsv")


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return [
            {key: (value or "").strip() for key, value in row.items() if key}
            for row in csv.DictReader(file, delimiter="\t")
        ]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
