"""A labelled store from any annotated recordings: windows at what the files, or the events.tsv beside them, mark."""

import dataclasses
import math
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import numpy as np

from codebrain.config import to_dict
from codebrain.data.format import TaskInfo
from data_prep.clean import Chain
from data_prep.corpora import Source, bids, find_recordings
from data_prep.cut import FileCutter
from data_prep.read import Annotation, Readable, UnusableError
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig, WindowPlan, usable_span


@dataclass(frozen=True, kw_only=True)
class Events(FileCutter, Recipe):
    """Windows at annotated events, labelled by a map from annotations to classes."""

    windows: WindowConfig = field(
        default_factory=lambda: WindowConfig(seconds=5.0, min_recording=0.0, drop_first=0.0, drop_last=0.0)
    )
    """Length of the windows and what makes one unusable."""
    labels: dict[str, str]
    """Class of each annotation: {"eyes open": open, "T[12]": move}; the first pattern that fits counts, an annotation
    that none fits is passed over. Classes are numbered in the order in which they first appear."""
    offset: float = 0.0
    """Seconds from an event's onset to its first window."""
    tile: bool = True
    """Whether an event that lasts for several windows gives them all, one after the other, or only the first."""
    name: str = "events"
    """Name of the task."""
    subject_pattern: str | None = None
    """Regular expression whose first group, in a recording's path, is its subject."""
    subjects: str | None = None
    """CSV table with columns path (or file) and subject, and where known age and sex, instead of names in paths."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.labels.values())) < 2:
            raise ValueError(f"labels {self.labels} name fewer than two classes: nothing could be learned from them")

    def info(self) -> TaskInfo:
        """What the labels mean."""
        return TaskInfo(name=self.name, protocol="corrected", class_names=tuple(dict.fromkeys(self.labels.values())))

    def recipe(self) -> Recipe:
        """What is done to each recording."""
        return Recipe(**{entry.name: getattr(self, entry.name) for entry in dataclasses.fields(Recipe)})

    def constants(self) -> dict[str, Any]:
        """All that the store depends on besides the recordings."""
        # Whom the table names is noted for each recording: it may grow, or move.
        constants = {name: value for name, value in to_dict(self).items() if name != "subjects"}
        return {**constants, "task": "events"}

    def sources(self, path: str) -> list[Source]:
        """All recordings of a folder."""
        return find_recordings([path], self.subject_pattern, subjects=self.subjects, say=print)

    def warning(self) -> str:
        """Nothing: there is no published protocol."""
        return ""

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
