"""A labelled store from any annotated recordings: windows at what the files, or the events.tsv beside them, mark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np
import numpy.typing as npt

from codebrain.data.format import TaskInfo
from data_prep.clean import Chain
from data_prep.corpora import Source, bids
from data_prep.read import Annotation, Readable, UnusableError
from data_prep.recipe import Recipe
from data_prep.tasks.own import OwnTask
from data_prep.windows import WindowPlan, sample_at, usable_span


@dataclass(frozen=True, kw_only=True)
class Events(OwnTask):
    """Windows at annotated events, labelled by a map from annotations to classes."""

    labels: dict[str, str]
    """Class of each annotation: {"eyes open": open, "T[12]": move}; the first pattern that fits counts, an annotation
    that none fits is passed over. Classes are numbered in the order in which they first appear."""
    offset: float = 0.0
    """Seconds from an event's onset to its first window."""
    tile: bool = True
    """Whether an event that lasts for several windows gives them all, one after the other, or only the first."""
    name: str = "events"
    """Name of the task."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.labels.values())) < 2:
            raise ValueError(f"labels {self.labels} name fewer than two classes: nothing could be learned from them")

    def info(self) -> TaskInfo:
        """What the labels mean."""
        return TaskInfo(name=self.name, protocol="", class_names=tuple(dict.fromkeys(self.labels.values())))

    def constants(self) -> dict[str, Any]:
        """All that the store depends on besides the recordings."""
        return {**super().constants(), "task": "events"}

    def why_no_window(self) -> str:
        """Most often a label that is spelt otherwise in the recordings."""
        return (
            "Are labels spelt as in the recordings? Upper and lower case count, and of several patterns that fit the "
            "first does. Or were all its windows rejected?"
        )

    def cut(self, source: Source, recording: Readable, chain: Chain, recipe: Recipe) -> WindowPlan:
        """Windows at the recording's annotated events; those that the filters' edges or its ends cut off are left."""
        table = bids.events(recording.path)
        marks = table.marks or recording.annotations()
        length = round(recipe.windows.seconds * chain.sfreq)
        first, last = usable_span(recipe.windows, sfreq=chain.sfreq, n_times=chain.n_out, edge=chain.edge)
        found: dict[int, set[int]] = {}
        n_lost = 0
        for mark in marks:
            label = self._label(mark)
            if label is None:
                continue
            for onset in self._starts(mark, recipe.windows.seconds):
                start = sample_at(onset, recording, chain)
                if first <= start <= last:
                    found.setdefault(start, set()).add(label)
                else:
                    n_lost += 1
        lost = f"{n_lost} windows at events too near its ends" if n_lost else ""
        one = sorted((start, labels.pop()) for start, labels in found.items() if len(labels) == 1)
        if not one:
            raise UnusableError(f"no usable event: {self._why_none(marks, found, lost, table.said(recording.seconds))}")
        start, label = np.array(one, dtype=np.int64).T
        n_two = len(found) - len(one)
        notes = [
            lost,
            f"{n_two} windows left out, at which events of different classes begin" if n_two else "",
            _said_of_overlap(start, label, length),
        ]
        return WindowPlan(start=start, label=label, note="; ".join(note for note in notes if note))

    def _label(self, mark: Annotation) -> int | None:
        """Class of an annotation; None if it is of none."""
        name = next((name for pattern, name in self.labels.items() if fnmatch(mark.text, pattern)), None)
        return None if name is None else self.info().class_names.index(name)

    def _why_none(self, marks: Sequence[Annotation], found: Mapping[int, object], lost: str, of_table: str) -> str:
        """Why a recording has no window."""
        if found:
            return "at each window events of different classes begin"
        if lost or of_table:
            return "; ".join(words for words in (lost, of_table) if words)
        texts = ", ".join(sorted({mark.text for mark in marks})[:8]) or "none at all"
        return f"none of {', '.join(self.labels)} among its annotations ({texts})"

    def _starts(self, mark: Annotation, seconds: float) -> list[float]:
        """Onsets of the windows of one event: at least one, even if the event is shorter than a window."""
        # A nanosecond of tolerance: durations in files are decimal fractions.
        n_fit = math.floor((mark.duration - self.offset) / seconds + 1e-9) if self.tile else 1
        return [mark.onset + self.offset + index * seconds for index in range(max(n_fit, 1))]


def _said_of_overlap(start: npt.NDArray[np.int64], label: npt.NDArray[np.int64], length: int) -> str:
    """How many windows (n,) share samples with one of another class, such as those of events in quick succession."""
    shared = np.zeros(len(start), dtype=bool)
    for index in range(len(start) - 1):
        later = slice(index + 1, np.searchsorted(start, start[index] + length))
        others = label[later] != label[index]
        shared[later] |= others
        shared[index] |= others.any()
    return f"{shared.sum()} windows overlap one of another class" if shared.any() else ""
