"""What a labelled data set has to say of itself, and what data sets of the literature have in common.

A data set is a folder in a known layout, a montage, a chain of filters and labelled stretches of its recordings. The
traps of its published protocol are declared with it: the warning, the documentation and the code that keeps or mends
one all go by the same name.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from codebrain.config import to_dict
from codebrain.data.format import SPLITS, TaskInfo
from data_prep.clean import Chain, CleanConfig
from data_prep.corpora import Source, source_of
from data_prep.corpora.walk import files_below
from data_prep.cut import Cutter, FileCutter
from data_prep.montage import MontageConfig
from data_prep.read import Annotation, Readable, UnusableError
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig, WindowPlan, sample_at


class Task(Cutter, Protocol):
    """A labelled data set: a frozen dataclass, whose fields are its flags."""

    def info(self) -> TaskInfo:
        """What the labels mean."""

    def recipe(self) -> Recipe:
        """What is done to each recording."""

    def sources(self, path: str) -> list[Source]:
        """Its recordings in a folder; ValueError if it does not look like the data set."""

    def constants(self) -> dict[str, Any]:
        """All that the store depends on besides the recordings, of JSON types."""

    def warning(self) -> str:
        """What whoever quotes figures on this store should know; "" for nothing."""

    def why_no_window(self) -> str:
        """What to look at if a class has no window, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Trap:
    """Something in a published preparation that its users should know of."""

    name: str
    """Under which the code asks for it."""
    published: str
    """What `published` does, as the literature did."""
    corrected: str
    """What `corrected` does instead."""
    repeatable: bool = True
    """Whether any recording can be prepared so, or only one whose trials are known."""


@dataclass(frozen=True, kw_only=True)
class About:
    """Everything that is known of a data set before its files are seen."""

    name: str
    """Name on the command line."""
    title: str
    """Name in the literature."""
    url: str
    """Where it is to be had."""
    layout: str
    """The files that are expected, one line each."""
    class_names: tuple[str, ...]
    """Name of each class index."""
    subjects: int | None
    """Number of persons in the published preparation; None where no source gives it."""
    windows: int | None
    """Number of windows of the published preparation; None where no source gives it."""
    seconds: float
    """Length of a window in seconds."""
    native: str
    """Sampling rate of the files."""
    channels: tuple[str, ...]
    """Channels of the windows, in their order."""
    clean: CleanConfig
    """Sampling rate and filters."""
    split: str
    """The protocol's split, in words."""
    reference: Literal["as_recorded", "average"] = "as_recorded"
    """Potential to which the channels refer."""
    traps: tuple[Trap, ...] = ()
    """What the published preparation does that it should not."""
    note: str = ""
    """What else a user should know."""

    def expected(self) -> str:
        """What the folder should look like, for messages."""
        lines = "\n".join(f"    {line}" for line in self.layout.splitlines())
        return f"{self.title} ({self.url}) is expected to look like this:\n{lines}"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A labelled part of a recording."""

    onset: float
    """Seconds from the recording's first sample; trials lie end to end."""
    label: int
    """Class index."""
    seconds: float | None = None
    """Filled with as many windows as fit, or with one that is resampled if it is shorter than one; None: one window."""
    part: str = ""
    """Side of the protocol's split; "" takes that of the recording."""


NO_FILTER = CleanConfig(sfreq=200.0, l_freq=None, h_freq=None, notch=None)
"""Resampled to 200 Hz and nothing else: what most data sets come filtered for."""

# Decimal fractions of seconds: a nanosecond of tolerance.
_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class DataSet(FileCutter):
    """A data set of the literature, prepared as published or without the traps."""

    protocol: Literal["published", "corrected"] = "corrected"
    """`published`: as the literature prepared it, its traps included; `corrected`: the same without the traps."""

    about: ClassVar[About]
    is_fixed: ClassVar[bool] = True

    def keeps(self, trap: str) -> bool:
        """Whether one of the declared traps is to be fallen into."""
        assert trap in {declared.name for declared in self.about.traps}, trap
        return self.protocol == "published"

    def info(self) -> TaskInfo:
        """What the labels mean."""
        about = self.about
        return TaskInfo(
            name=about.name, protocol=self.protocol, class_names=about.class_names, has_split=self.has_split()
        )

    def has_split(self) -> bool:
        """Whether the protocol fixes which windows train, validate and test."""
        return True

    def recipe(self) -> Recipe:
        """What is done to each recording: every window counts, nothing is rejected."""
        about = self.about
        return Recipe(
            channels=MontageConfig(names=list(about.channels), reference=about.reference),
            clean=about.clean,
            windows=WindowConfig(
                seconds=about.seconds,
                min_recording=0.0,
                drop_first=0.0,
                drop_last=0.0,
                keep_edges=True,
                max_uv=None,
                min_swing_uv=None,
                skip_bad=False,
            ),
        )

    def constants(self) -> dict[str, Any]:
        """All that the store depends on besides the recordings."""
        return {**to_dict(self.recipe()), "task": self.about.name, "protocol": self.protocol}

    def warning(self) -> str:
        """The traps that `published` falls into."""
        if self.protocol == "corrected" or not self.about.traps:
            return ""
        lines = [f"WARNING: {self.about.title} as published:"]
        lines += [f"  - {trap.published}. --protocol corrected: {trap.corrected}." for trap in self.about.traps]
        return "\n".join(lines)

    def why_no_window(self) -> str:
        """Only the user's copy can lack a class."""
        return f"Not all recordings of {self.about.title} are here, or could be used: recordings.csv lists those found"

    def cut(self, source: Source, recording: Readable, chain: Chain, recipe: Recipe) -> WindowPlan:
        """Windows that fill the labelled stretches of a recording; those that its ends cut off are left out."""
        sfreq = recipe.clean.sfreq
        whole = round(recipe.windows.seconds * sfreq)
        rows = []
        for stretch in self.stretches(source, recording):
            part = SPLITS.index(stretch.part or source.part) if self.has_split() else 0
            for onset, length in _windows_of(stretch, recipe.windows.seconds, sfreq):
                start = sample_at(onset, recording, chain)
                if self.goes_round() or 0 <= start <= start + length <= _end(start, recording, chain):
                    rows.append((start, stretch.label, part, length))
        if not rows:
            raise UnusableError("no labelled stretch is as long as a window")
        start, label, part, length = np.array(sorted(rows, key=lambda row: row[0]), dtype=np.int64).T
        return WindowPlan(
            start=start,
            label=label,
            split=part.astype(np.int8) if self.has_split() else None,
            length=None if (length == whole).all() else length,
            note=self.remark(source),
        )

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """The labelled parts of one recording; UnusableError if the labels cannot be had."""
        raise NotImplementedError

    def label_files(self, recording: Path) -> Iterable[Path]:
        """Where the labels of a recording are, if they are there: when one changes, it is prepared anew."""
        return ()

    def remark(self, source: Source) -> str:
        """What had to be taken for granted about the labels of one recording, for its row; "" for nothing."""
        return ""

    def takes_any_amplitude(self) -> bool:
        """As published: nobody looked."""
        return self.protocol == "published"

    def goes_round(self) -> bool:
        """Whether a window that reaches beyond an end of the recording goes on at the other."""
        return False

    def find(self, path: str, pattern: str) -> Iterator[tuple[re.Match[str], Source]]:
        """Files whose path below the folder ends with a pattern, whose group `subject` names the person.

        Raises
        ------
        FileNotFoundError, ValueError
            No such folder, or no such file in it; the message says what the data set looks like.
        """
        root = Path(path).absolute()
        if not root.is_dir():
            raise FileNotFoundError(f"{path}: no such folder. {self.about.expected()}")
        expression = re.compile(f"(?:^|/)(?:{pattern})$", re.IGNORECASE)
        found = [(match, file) for key, file in _files(root) if (match := expression.search(key))]
        if not found:
            raise ValueError(f"{path} does not hold the files of {self.about.title}. {self.about.expected()}")
        for match, file in found:
            key, labels = file.relative_to(root).as_posix(), self.label_files(file)
            yield match, source_of(file, key, match["subject"], labels, scheme=self.about.title)


def whole(recording: Readable, label: int) -> list[Stretch]:
    """A recording of one class from its first sample to its last."""
    return [Stretch(onset=0.0, seconds=recording.seconds, label=label)]


def labelled_trials(labels: npt.NDArray[np.integer], seconds: float, class_names: Sequence[str]) -> list[Annotation]:
    """Marks of trials of equal length that lie end to end, each with the name of its class.

    Raises
    ------
    UnusableError
        A label is no class index.
    """
    if unknown := set(labels.tolist()) - set(range(len(class_names))):
        raise UnusableError(f"labels {sorted(unknown)} (counted from 0) of {len(class_names)} classes")
    return [
        Annotation(onset=trial * seconds, duration=seconds, text=class_names[label])
        for trial, label in enumerate(labels.tolist())
    ]


def marked(recording: Readable, class_names: Sequence[str]) -> list[Stretch]:
    """One window at each mark that has the name of a class."""
    return [
        Stretch(onset=mark.onset, label=class_names.index(mark.text))
        for mark in recording.annotations()
        if mark.text in class_names
    ]


def side(number: int, first_valid: int, first_test: int) -> str:
    """Side of the `number`-th of a sequence of which the first train, the next validate and the others test."""
    return SPLITS[(number >= first_valid) + (number >= first_test)]


def first_of(names: Iterable[str], share: float) -> set[str]:
    """The first names in alphabetical order that make up a share of all."""
    ordered = sorted(set(names))
    return set(ordered[: int(len(ordered) * share)])


def with_part(source: Source, part: str) -> Source:
    """A recording on a side of the split."""
    return dataclasses.replace(source, part=part)


def _files(root: Path) -> list[tuple[str, Path]]:
    """Path below the root and place of every file that is not hidden, in order."""
    return sorted((file.relative_to(root.parent).as_posix(), file) for file in files_below(root))


def _windows_of(stretch: Stretch, seconds: float, sfreq: float) -> Sequence[tuple[float, int]]:
    """Onset in seconds and length in samples of the windows of a stretch."""
    length = round(seconds * sfreq)
    if stretch.seconds is None:
        return [(stretch.onset, length)]
    if stretch.seconds < seconds - _TOLERANCE:
        return [(stretch.onset, round(stretch.seconds * sfreq))]
    count = math.floor(stretch.seconds / seconds + _TOLERANCE)
    return [(stretch.onset + number * seconds, length) for number in range(count)]


def _end(start: int, recording: Readable, chain: Chain) -> int:
    """Sample after cleaning at which the trial of a window ends."""
    n_trials = recording.n_times // recording.trial_times
    return (min(max(start // chain.n_out, 0), n_trials - 1) + 1) * chain.n_out
