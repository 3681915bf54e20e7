"""A labelled store from any annotated recordings: windows at what the files, or the events.tsv beside them, mark."""

import math
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np

from codebrain.data.format import TaskInfo
from data_prep.clean import Chain
from data_prep.corpora import Source, bids
from data_prep.read import Annotation, Readable, UnusableError
from data_prep.recipe import Recipe
from data_prep.tasks.own import OwnTask
from data_prep.windows import WindowPlan, usable_span


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
        marks = bids.events(recording.path) or recording.annotations()
        classes = self.info().class_names
        sfreq = recipe.clean.sfreq
        first, last = usable_span(recipe.windows, sfreq=sfreq, n_times=chain.n_out, edge=chain.edge)
        found: list[tuple[int, int]] = []
        n_lost = 0
        for mark in marks:
            name = next((name for pattern, name in self.labels.items() if fnmatch(mark.text, pattern)), None)
            if name is not None:
                starts = [round(start * sfreq) for start in self._starts(mark, recipe.windows.seconds)]
                inside = [(start, classes.index(name)) for start in starts if first <= start <= last]
                found += inside
                n_lost += len(starts) - len(inside)
        lost = f"{n_lost} windows at events too near its ends" if n_lost else ""
        if lost and not found:
            raise UnusableError(f"no usable event: {lost}")
        if not found:
            texts = ", ".join(sorted({mark.text for mark in marks})[:8]) or "none at all"
            raise UnusableError(f"no usable event: none of {', '.join(self.labels)} among its annotations ({texts})")
        found.sort()
        start, label = np.array(found, dtype=np.int64).T
        return WindowPlan(start=start, label=label, note=lost)

    def _starts(self, mark: Annotation, seconds: float) -> list[float]:
        """Onsets of the windows of one event: at least one, even if the event is shorter than a window."""
        # A nanosecond of tolerance: durations in files are decimal fractions.
        n_fit = math.floor((mark.duration - self.offset) / seconds + 1e-9) if self.tile else 1
        return [mark.onset + self.offset + index * seconds for index in range(max(n_fit, 1))]
