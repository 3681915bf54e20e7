"""Sequences of windows: what a head that looks at neighbouring windows trains on and is judged by.

A sequence is a stretch of windows of one recording, each of which begins where the one before it ends, all on the same
side of the splits; a night scored in epochs of 30 s is a row of them. What is left at the end of a stretch is too short
for training and makes a shorter sequence where every window must be answered.

Shape letters: B sequences, L windows of a sequence, C channels, T samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from codebrain.data.windows import Batch, Ids, Montage, Request, WindowDataset
from finetune.splits import Splits

_SLACK_S = 0.01
"""Seconds by which a window may begin before or after the one before it ends; starts are rounded to samples."""


class SequenceDataset(WindowDataset):
    """Sequences of a dataset's windows, known by the number of their first window.

    Those of one length form a group, which a batch never mixes.

    Parameters
    ----------
    windows : WindowDataset
        Of one montage.
    length : int
        Windows of a whole sequence.
    only_whole : bool
        Whether windows that fill no sequence are left out, for training, or make shorter ones.
    """

    def __init__(self, windows: WindowDataset, length: int, *, only_whole: bool) -> None:
        super().__init__(windows.stores)
        self._windows = windows
        by_length: dict[int, list[int]] = {}
        for start, stop in _stretches(windows):
            for first in range(start, stop, length):
                by_length.setdefault(min(length, stop - first), []).append(first)
        self._first_of = {
            size: np.array(first, dtype=np.int64)
            for size, first in sorted(by_length.items(), reverse=True)
            if size == length or not only_whole
        }

    def __len__(self) -> int:
        return sum(self.group_sizes())

    def covered(self) -> Ids:
        """Numbers of the windows in all sequences."""
        parts = [(first[:, None] + np.arange(size)).reshape(-1) for size, first in self._first_of.items()]
        return np.concatenate([np.arange(0), *parts])

    @property
    def montages(self) -> tuple[Montage, ...]:
        """The dataset's own, once for each length."""
        return self._windows.montages * len(self._first_of)

    def group_sizes(self) -> list[int]:
        """Sequences of each length."""
        return [len(first) for first in self._first_of.values()]

    def ids(self, group: int | None = None, positions: Ids | None = None) -> Ids:
        """First windows of sequences; see `WindowDataset.ids`."""
        groups = list(self._first_of.values())
        first = np.concatenate([*groups, np.arange(0)]) if group is None else groups[group]
        return first if positions is None else first[positions]

    def __getitem__(self, request: Request) -> Batch:
        """A batch (B, L, C, T); labels and numbers of the windows are (B, L)."""
        size = next(size for size, first in self._first_of.items() if np.isin(request.window[0], first))
        window = (np.asarray(request.window)[:, None] + np.arange(size)).reshape(-1)
        batch = self._windows[Request(window)]
        shape = (len(request.window), size)
        return dataclasses.replace(
            batch,
            x=batch.x.unflatten(0, shape),
            window=batch.window.unflatten(0, shape),
            label=None if batch.label is None else batch.label.unflatten(0, shape),
            offset=request.offset,
            global_size=request.global_size or len(request.window),
        )


def require(windows: WindowDataset, splits: Splits, length: int, class_names: Sequence[str]) -> str:
    """Raise ValueError unless every fold has sequences to train on, of every class; otherwise say what there is."""
    words = []
    for number, fold in enumerate(splits.folds):
        covered = SequenceDataset(windows.subset(fold.train), length, only_whole=True).covered()
        if not len(covered):
            raise ValueError(
                f"no training recording of fold {number} has {length} consecutive windows. Lower "
                "--training.sequence_length, or take another --head."
            )
        missing = np.setdiff1d(windows.labels(fold.train), windows.labels(covered))
        if class_names and len(missing):
            names = ", ".join(repr(class_names[index]) for index in missing)
            raise ValueError(
                f"no training sequence of fold {number} holds a window of class {names}. Lower "
                "--training.sequence_length, or take another --head."
            )
        words.append(f"{len(covered) // length} ({len(fold.train) - len(covered)} windows fill none)")
    return f"training sequences of {length} windows, by fold: {', '.join(words)}; no window is left out of a judgement"


def _stretches(windows: WindowDataset) -> Iterator[tuple[int, int]]:
    """Half-open ranges of windows of the same recording, each of which begins where the one before it ends."""
    ids = np.sort(windows.ids())
    seconds = windows.stores[0].info.window_seconds
    # A window that was left out, because of an artefact, is a gap: what lies on its sides are no neighbours.
    apart = np.abs(np.diff(windows.starts(ids)) - seconds) > _SLACK_S
    edges = np.flatnonzero((np.diff(ids) != 1) | (np.diff(windows.rows(ids)) != 0) | apart) + 1
    for part in np.split(ids, edges):
        if len(part):
            yield int(part[0]), int(part[-1]) + 1
