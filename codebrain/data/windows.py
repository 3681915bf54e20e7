"""Windows of one or several stores as batches of torch tensors.

A dataset is a set of segments (runs of windows on disk), not a list of windows: one over a million windows in
seventy thousand shards costs a few megabytes, in every worker. It is indexed by a `Request`, which names the windows
of a whole batch, and returns the `Batch`. Windows are numbered over all shards of all stores; those with the same
channels and length form a group, and a batch never mixes groups.

Shape letters: B batch, C channels, T samples, P patches.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from codebrain.data.codes import CodeFiles, Codes
from codebrain.data.format import REMEDY, Recording, Shard, Store
from codebrain.data.shards import HeldOpen, OpenShard, ShardError, open_shard

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Montage:
    """What all windows of a batch have in common."""

    ch_names: tuple[str, ...]
    n_times: int

    def __str__(self) -> str:
        return f"{len(self.ch_names)} channels x {self.n_times} samples"


@dataclass(frozen=True)
class Request:
    """The windows of one micro-batch, and its place in the step's global batch."""

    window: Ids
    offset: int = 0
    global_size: int = 0


@dataclass
class Batch:
    """Windows of one montage."""

    x: Tensor
    """(B, C, T) float32, microvolts."""
    ch_names: tuple[str, ...]
    """Names of the C channels."""
    window: Tensor
    """(B,) int64, numbers of the windows in the dataset."""
    offset: int
    """This micro-batch is rows offset to offset + B of the step's global batch ..."""
    global_size: int
    """... which has this many windows over all processes and micro-batches."""
    label: Tensor | None = None
    """(B,) int64 class or float64 value; task stores only."""
    codes_t: Tensor | None = None
    """(B, C, P) int64 temporal codes, where they were read from a cache."""
    codes_f: Tensor | None = None
    """(B, C, P) int64 frequency codes, likewise."""

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, which a DataLoader asks for before a copy to a GPU."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: Any = {
            field.name: change(value)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **changed)


class WindowDataset(Dataset[Batch]):
    """Windows of one or several stores.

    Parameters
    ----------
    stores : sequence of Store or path
        Opened with `Store.open`, which raises for what is no complete store. ValueError for different sampling rates.
    codes : CodeFiles, optional
        Cached codes to read along with the windows, one entry per store.
    """

    def __init__(self, stores: Sequence[Store | str | os.PathLike[str]], codes: Sequence[CodeFiles] = ()) -> None:
        self.stores = tuple(store if isinstance(store, Store) else Store.open(store) for store in stores)
        if len(rates := {store.info.sfreq for store in self.stores}) > 1:
            raise ValueError(
                f"the stores are sampled at {' and '.join(f'{rate:g}' for rate in sorted(rates))} Hz, and a model "
                "takes one rate. Prepare them again with the same `--clean.sfreq`."
            )
        self._code_files = tuple(codes)
        self._shards = [(store, shard) for store in self.stores for shard in store.shards]
        self._first = np.concatenate([[0], np.cumsum([shard.n for _, shard in self._shards])]).astype(np.int64)
        self._segments = np.stack([self._first[:-1], self._first[1:]], axis=1)
        self._open: HeldOpen[OpenShard] = HeldOpen()
        self._open_codes: HeldOpen[Codes] = HeldOpen()

    def __len__(self) -> int:
        return int((self._segments[:, 1] - self._segments[:, 0]).sum())

    @cached_property
    def montages(self) -> tuple[Montage, ...]:
        """The groups, in the order in which they first appear."""
        return tuple(dict.fromkeys(_montage(self._shards[index][1]) for index in self._shard_of(self._segments[:, 0])))

    def group_sizes(self) -> list[int]:
        """Number of windows of each montage."""
        return [int(lengths.sum()) for _, lengths in self._groups]

    def ids(self, group: int | None = None, positions: Ids | None = None) -> Ids:
        """Numbers of windows in the order of the disk.

        Parameters
        ----------
        group : int, optional
            Index into `montages`; all windows by default.
        positions : int array, optional
            Which of the group's windows; all by default.
        """
        if group is None:
            return np.concatenate([self.ids(index) for index in range(len(self.montages))])
        starts, lengths = self._groups[group]
        ends = np.cumsum(lengths)
        if positions is None:
            positions = np.arange(ends[-1] if len(ends) else 0)
        segment = np.searchsorted(ends, positions, side="right")
        return starts[segment] + positions - (ends[segment] - lengths[segment])

    def subset(self, window: npt.ArrayLike) -> WindowDataset:
        """The dataset of these windows only, which keep their numbers."""
        chosen = np.unique(np.asarray(window, dtype=np.int64))
        known = self.ids()
        if len(outside := np.setdiff1d(chosen, known)):
            raise ValueError(f"windows {outside[:5].tolist()} ... are not in this dataset of {len(known)}")
        breaks = (np.diff(chosen) != 1) | (np.diff(self._shard_of(chosen)) != 0)
        edges = np.concatenate([[0], np.flatnonzero(breaks) + 1, [len(chosen)]]) if len(chosen) else np.zeros(1, int)
        return self._with(np.stack([chosen[edges[:-1]], chosen[edges[1:] - 1] + 1], axis=1))

    def of_subjects(self, subjects: Sequence[str]) -> WindowDataset:
        """The dataset of these subjects' windows only."""
        wanted = set(subjects)
        kept = [
            (start, start + count)
            for first, (store, shard) in zip(self._first, self._shards, strict=False)
            for start, (row, count) in zip(_run_starts(first, shard), shard.runs, strict=True)
            if store.recording(row).subject in wanted
        ]
        return self._with(_intersect(np.array(kept, dtype=np.int64).reshape(-1, 2), self._segments))

    def of_shard(self, shard: Shard) -> Ids:
        """Numbers of the windows of a shard of a single store, in the order in which they lie."""
        index = self._place[shard.file]
        return np.arange(self._first[index], self._first[index + 1])

    def with_codes(self, codes: Sequence[CodeFiles]) -> WindowDataset:
        """The same dataset reading cached codes along with the windows, one entry per store."""
        return self._with(self._segments, codes)

    def subjects(self, window: npt.ArrayLike | None = None) -> npt.NDArray[np.str_]:
        """Subject of each window."""

        def of_shard(index: int) -> npt.NDArray[Any]:
            store, shard = self._shards[index]
            names = np.array([store.recording(row).subject for row, _ in shard.runs])
            return np.repeat(names, [count for _, count in shard.runs])

        return self._gather(of_shard, window)

    def rows(self, window: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
        """Row in its store's recordings.csv of the recording that each window was cut from."""

        def of_shard(index: int) -> npt.NDArray[Any]:
            rows, counts = zip(*self._shards[index][1].runs, strict=True)
            return np.repeat(np.array(rows, dtype=np.int64), counts)

        return self._gather(of_shard, window)

    @cached_property
    def subject_names(self) -> tuple[str, ...]:
        """Every subject with a window here, sorted."""
        names = set()
        for start, stop in self._segments:
            store, shard = self._shards[self._shard_of(start)]
            first = self._first[self._shard_of(start)]
            for begin, (row, count) in zip(_run_starts(first, shard), shard.runs, strict=True):
                if begin < stop and begin + count > start:
                    names.add(store.recording(row).subject)
        return tuple(sorted(names))

    def recording(self, window: int) -> Recording:
        """The row of recordings.csv that a window was cut from."""
        index = self._shard_of(window)
        store, shard = self._shards[index]
        ends = np.cumsum([count for _, count in shard.runs])
        row, _ = shard.runs[int(np.searchsorted(ends, window - self._first[index], side="right"))]
        return store.recording(row)

    def describe(self, window: int) -> str:
        """Where a window comes from, in words, for messages."""
        index = self._shard_of(window)
        store, shard = self._shards[index]
        row = int(window - self._first[index])
        return f"window {row} of {store.path / shard.file} ({self.recording(window).path})"

    def unseen(self, patch_size: int) -> str:
        """Say what of the windows a model does not see that reads whole patches of so many samples; "" for nothing."""
        rests = {(montage.n_times, rest) for montage in self.montages if (rest := montage.n_times % patch_size)}
        sfreq = self.stores[0].info.sfreq
        return "; ".join(
            f"the model reads patches of {patch_size / sfreq:g} s: it does not see the last {rest / sfreq:g} s of each "
            f"window of {n_times / sfreq:g} s"
            for n_times, rest in sorted(rests)
        )

    def labels(self, window: npt.ArrayLike | None = None) -> npt.NDArray[Any]:
        """Label of each window of a task store: int64 class or float64 value."""
        for store in self.stores:
            if store.info.task is None:
                raise ValueError(f"{store.path} has no labels; `codebrain-prep task NAME PATH` makes a task store.")
        return self._column("label", window)

    def splits(self, window: npt.ArrayLike | None = None) -> npt.NDArray[np.int8]:
        """Side of each window where the task's protocol fixes it: 0 train, 1 valid, 2 test."""
        return self._column("split", window)

    def starts(self, window: npt.ArrayLike | None = None) -> npt.NDArray[np.float64]:
        """Seconds from the start of the recording, of each window."""
        return self._column("start", window)

    def __getitem__(self, request: Request) -> Batch:
        shards = self._shard_of(request.window)
        rows = request.window - self._first[shards]
        montage = _montage(self._shards[shards[0]][1])
        n = len(request.window)
        shape = (len(montage.ch_names), montage.n_times)
        counts = np.empty(shape, "<i2")
        x = _empty(n, *shape)
        x_uv = x.numpy()
        labels: list[Any] = [None] * n
        codes: list[Any] = [None] * n
        # In the order of the disk, whatever the order of the batch; the disk learns of all windows before the first is
        # waited for.
        places = np.argsort(request.window, kind="stable").tolist()
        for wanted in (True, False):
            for place in places:
                index, row = int(shards[place]), int(rows[place])
                with self._named(request.window[place]):
                    opened = self._opened(index)
                    if wanted:
                        opened.announce(row)
                        continue
                    opened.read(row, counts, x_uv[place])
                    if opened.label is not None:
                        labels[place] = opened.label[row]
                    if self._code_files:
                        codes[place] = self._codes(index)[row]
        pair = torch.from_numpy(np.stack(codes).astype(np.int64)) if self._code_files else None
        return Batch(
            x=x,
            ch_names=montage.ch_names,
            window=torch.from_numpy(np.asarray(request.window)),
            offset=request.offset,
            global_size=request.global_size or n,
            label=None if None in labels else torch.from_numpy(np.asarray(labels)),
            codes_t=None if pair is None else pair[:, 0],
            codes_f=None if pair is None else pair[:, 1],
        )

    @cached_property
    def _place(self) -> dict[str, int]:
        return {shard.file: index for index, (_, shard) in enumerate(self._shards)}

    @cached_property
    def _groups(self) -> list[tuple[Ids, Ids]]:
        """Of each montage the starts and lengths of its segments."""
        of_segment = [_montage(self._shards[index][1]) for index in self._shard_of(self._segments[:, 0])]
        groups = []
        for montage in self.montages:
            chosen = self._segments[[other == montage for other in of_segment]]
            groups.append((chosen[:, 0], chosen[:, 1] - chosen[:, 0]))
        return groups

    def _with(self, segments: Ids, codes: Sequence[CodeFiles] | None = None) -> WindowDataset:
        other = WindowDataset(self.stores, self._code_files if codes is None else codes)
        other._segments = segments
        return other

    def _window(self, window: npt.ArrayLike | None) -> Ids:
        return self.ids() if window is None else np.asarray(window, dtype=np.int64)

    def _shard_of(self, window: Any) -> Any:
        return np.searchsorted(self._first, window, side="right") - 1

    def _column(self, name: str, window: npt.ArrayLike | None) -> npt.NDArray[Any]:
        def of_shard(index: int) -> npt.NDArray[Any]:
            return self._opened(index).column(name)

        return self._gather(of_shard, window)

    def _gather(self, of_shard: Callable[[int], npt.NDArray[Any]], window: npt.ArrayLike | None) -> npt.NDArray[Any]:
        """What `of_shard` has for each of its windows, for those that are asked for and in their order."""
        ids = self._window(window)
        order = np.argsort(ids, kind="stable")
        shards = self._shard_of(ids[order])
        used, first = np.unique(shards, return_index=True)
        parts = [
            of_shard(int(index))[rows - self._first[index]]
            for index, rows in zip(used, np.split(ids[order], first[1:]), strict=False)
        ]
        found = np.concatenate(parts) if parts else np.empty(0)
        result = np.empty_like(found)
        result[order] = found
        return result

    def _opened(self, index: int) -> OpenShard:
        return self._open.get(index, lambda: open_shard(*self._shards[index]))

    def _codes(self, index: int) -> Codes:
        store, shard = self._shards[index]
        return self._open_codes.get(index, lambda: self._code_files[self.stores.index(store)].open(shard))

    @contextmanager
    def _named(self, window: int) -> Iterator[None]:
        """Add the recording of a window to the error if it cannot be read."""
        try:
            yield
        except ShardError as error:
            raise ValueError(f"{self.describe(window)} cannot be read ({error.reason}). {REMEDY}") from error


def _empty(*shape: int) -> Tensor:
    """A float32 tensor to fill; in a worker process in shared memory, as torch's own collation makes it: sending it to
    the training process then copies nothing.
    """
    if get_worker_info() is None:
        return torch.empty(shape)
    storage = torch.UntypedStorage._new_shared(4 * math.prod(shape))
    return torch.empty(0).set_(storage).view(shape)


def _montage(shard: Shard) -> Montage:
    return Montage(shard.ch_names, shard.n_times)


def _run_starts(first: int, shard: Shard) -> Iterator[int]:
    for _, count in shard.runs:
        yield int(first)
        first += count


def _intersect(left: Ids, right: Ids) -> Ids:
    """Common parts of two lists of ascending half-open intervals."""
    both, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        start, stop = max(left[i, 0], right[j, 0]), min(left[i, 1], right[j, 1])
        if start < stop:
            both.append((start, stop))
        if left[i, 1] < right[j, 1]:
            i += 1
        else:
            j += 1
    return np.array(both, dtype=np.int64).reshape(-1, 2)
