"""Windows of one or several stores as batches of torch tensors.

A dataset is a set of segments (runs of windows on disk), not a list of windows: one over a million windows in
seventy thousand shards costs a few megabytes, in every worker. It is indexed by a `Request`, which names the windows
of a whole batch, and returns the `Batch`. Windows are numbered over all shards of all stores; those with the same
channels and length form a group, and a batch never mixes groups.

Shape letters: B batch, C channels, T samples, P patches.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from codebrain.data.codes import CodeFiles
from codebrain.data.format import Recording, Shard, Store, check_shard, dequantise

Ids = npt.NDArray[np.int64]

_OPEN_SHARDS = 256
"""Files that a process holds open: about as many as a shuffling buffer of the training order reaches into."""

_REMEDY = "Delete that file, if it is there, and run the same codebrain-prep command again: it makes what is missing."


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which subjects are held out to validate on."""

    valid_fraction: float = 0.1
    """Share of the subjects to hold out, at least one. A subject's side follows from a hash of the name, the same in
    every store and whatever stores are added; the share is met on average."""
    valid_subjects: list[str] = dataclasses.field(default_factory=list)
    """Names of the subjects to hold out, instead of a share; wildcards such as `Subject3*` are understood."""
    seed: int = 0
    """Which draw of subjects."""


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


class _OpenShard(NamedTuple):
    """A shard's file; what is small is read at once, since a read of one number costs as much as that of a window."""

    file: h5py.File
    windows: h5py.h5d.DatasetID
    scale: npt.NDArray[np.float32]
    label: npt.NDArray[Any] | None

    @classmethod
    def of(cls, path: Path) -> _OpenShard:
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing")
        file = h5py.File(path, "r")
        check_shard(file, path)
        label = file["label"][:] if "label" in file else None
        return cls(file, file["windows"].id, file["scale"][:], label)

    def announce(self, row: int) -> None:
        """Let the kernel fetch a window's bytes from now on, while others are still being read."""
        if hasattr(os, "posix_fadvise"):
            chunk = self.windows.get_chunk_info_by_coord((row, 0, 0))
            handle = self.file.id.get_vfd_handle()
            os.posix_fadvise(handle, chunk.byte_offset, chunk.size, os.POSIX_FADV_WILLNEED)

    def read(self, row: int, counts: npt.NDArray[np.int16], out: npt.NDArray[np.float32]) -> None:
        """Microvolts of one window into `out` (C, T), by way of `counts` of the same shape."""
        # The bytes of the window's chunk: a third of the time that selecting a row takes.
        self.windows.read_direct_chunk((row, 0, 0), out=counts.reshape(-1).view(np.uint8))
        dequantise(counts, self.scale[row], out)


class WindowDataset(Dataset[Batch]):
    """Windows of one or several stores.

    Parameters
    ----------
    stores : sequence of Store or path
        Opened with `Store.open`, which raises for what is no complete store.
    codes : CodeFiles, optional
        Cached codes to read along with the windows, one entry per store.
    """

    def __init__(self, stores: Sequence[Store | str | os.PathLike[str]], codes: Sequence[CodeFiles] = ()) -> None:
        self.stores = tuple(store if isinstance(store, Store) else Store.open(store) for store in stores)
        self._codes = tuple(codes)
        self._shards = [(store, shard) for store in self.stores for shard in store.shards]
        self._first = np.concatenate([[0], np.cumsum([shard.n for _, shard in self._shards])]).astype(np.int64)
        self._segments = np.stack([self._first[:-1], self._first[1:]], axis=1)
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        # HDF5 handles survive neither pickling nor a fork: each process opens its own.
        return {**self.__dict__, "_open": OrderedDict(), "_pid": -1}

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
        return np.array([self.recording(index).subject for index in self._window(window)])

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
                with _readable(self.describe, request.window[place]):
                    opened = self._opened(index)
                    if wanted:
                        opened.announce(row)
                        continue
                    opened.read(row, counts, x_uv[place])
                    if opened.label is not None:
                        labels[place] = opened.label[row]
                    if self._codes:
                        codes[place] = self._codes_of(index).read(self._shards[index][1], row)
        pair = torch.from_numpy(np.stack(codes).astype(np.int64)) if self._codes else None
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
        other = WindowDataset(self.stores, self._codes if codes is None else codes)
        other._segments = segments
        return other

    def _window(self, window: npt.ArrayLike | None) -> Ids:
        return self.ids() if window is None else np.asarray(window, dtype=np.int64)

    def _shard_of(self, window: Any) -> Any:
        return np.searchsorted(self._first, window, side="right") - 1

    def _column(self, name: str, window: npt.ArrayLike | None) -> npt.NDArray[Any]:
        ids = self._window(window)
        shards = self._shard_of(ids)
        columns = {}
        for index in np.unique(shards).tolist():
            store, shard = self._shards[index]
            with _readable("/{} of {}".format, name, store.path / shard.file):
                columns[index] = self._opened(index).file[name][:]
        return np.array([columns[index][row] for index, row in zip(shards, ids - self._first[shards], strict=True)])

    def _codes_of(self, index: int) -> CodeFiles:
        return self._codes[self.stores.index(self._shards[index][0])]

    def _opened(self, index: int) -> _OpenShard:
        """A shard, opened; the least recently used one is closed for it."""
        if self._pid != os.getpid():
            self._open, self._pid = OrderedDict(), os.getpid()
        if index not in self._open:
            store, shard = self._shards[index]
            self._open[index] = _OpenShard.of(store.path / shard.file)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)[1].file.close()
        self._open.move_to_end(index)
        return self._open[index]


def split_subjects(dataset: WindowDataset, config: SplitConfig) -> tuple[WindowDataset, WindowDataset]:
    """Training and validation windows, no subject in both.

    Raises
    ------
    ValueError
        A name that matches no subject, or a side left empty.
    """
    names = dataset.subject_names
    held_out = _matching(names, config.valid_subjects) if config.valid_subjects else _drawn(names, config)
    training = [name for name in names if name not in held_out]
    if not held_out or not training:
        raise ValueError(
            f"{len(held_out)} of {len(names)} subjects would be held out, which leaves {len(training)} to train on; "
            "both sides need at least one. Change --split.valid_fraction or --split.valid_subjects, or add recordings."
        )
    return dataset.of_subjects(training), dataset.of_subjects(sorted(held_out))


def _drawn(names: Sequence[str], config: SplitConfig) -> set[str]:
    if not 0 < config.valid_fraction < 1:
        raise ValueError(f"--split.valid_fraction is {config.valid_fraction}; it must lie between 0 and 1.")
    place = {name: _place(name, config.seed) for name in names}
    # The lowest subject is held out in any case: some must be.
    return {min(place, key=place.__getitem__)} | {name for name in names if place[name] < config.valid_fraction}


def _place(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on the subject's name and the seed alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7]) / 2**56


def _matching(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ValueError(
                f"--split.valid_subjects: no subject matches {pattern!r}; subjects are {', '.join(names[:8])} ..."
            )
        chosen.update(matched)
    return chosen


@contextmanager
def _readable(describe: Callable[..., str], *what: Any) -> Iterator[None]:
    """Say of what could not be read where it lies, and what to do."""
    try:
        yield
    except (OSError, KeyError) as error:
        raise ValueError(f"{describe(*what)} cannot be read ({error}). {_REMEDY}") from error


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
