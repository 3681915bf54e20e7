"""Which windows a step trains on: a pure function of (seed, step), however many processes share the step.

Every montage has an endless stream of its windows, epoch after epoch, each epoch in a new order. A step takes the
next batch from one montage's stream; which montage is drawn without replacement, in proportion to their windows.

The order within an epoch suits a disk: blocks of neighbouring windows are shuffled, and windows are shuffled again
within a buffer of many blocks. A store smaller than the buffer is shuffled perfectly.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from codebrain.data.windows import Batch, Ids, Request, WindowDataset
from codebrain.progress import Bar

BLOCK = 32
"""Neighbouring windows that are read together."""

BUFFER = 256 * BLOCK
"""Windows within which the order is uniformly random."""

_SHORT_S = 5.0
"""A validation of less than so many seconds shows no bar."""


class EpochOrder:
    """Order of one montage's windows in one epoch, computed buffer by buffer.

    Parameters
    ----------
    n : int
        Number of windows.
    key : sequence of int
        Seed, montage and epoch.
    """

    def __init__(self, n: int, key: Sequence[int], *, block: int = BLOCK, buffer: int = BUFFER) -> None:
        self._n, self._key, self._block, self._buffer = n, tuple(key), block, buffer
        self._blocks = np.random.default_rng([*self._key, 0]).permutation(-(-n // block))
        lengths = np.minimum(block, n - self._blocks * block)
        self._ends = np.cumsum(lengths)
        self._current = -1
        self._shuffled: Ids = np.empty(0, np.int64)

    def take(self, start: int, stop: int) -> Ids:
        """Positions (in the order of the disk) that stand at places start to stop of the epoch."""
        parts = []
        while start < stop:
            chunk = start // self._buffer
            first = chunk * self._buffer
            end = min(stop, first + self._buffer)
            parts.append(self._load(chunk)[start - first : end - first])
            start = end
        return np.concatenate(parts)

    def _load(self, chunk: int) -> Ids:
        if chunk != self._current:
            places = np.arange(chunk * self._buffer, min((chunk + 1) * self._buffer, self._n))
            block = np.searchsorted(self._ends, places, side="right")
            # Distance of a place from its block's end is the same before and after the blocks moved.
            last = np.minimum((self._blocks[block] + 1) * self._block, self._n)
            positions = last - (self._ends[block] - places)
            self._shuffled = np.random.default_rng([*self._key, 1, chunk]).permutation(positions)
            self._current = chunk
        return self._shuffled


class TrainOrder:
    """The global batch of every step.

    Parameters
    ----------
    sizes : sequence of int
        Windows of each montage.
    batch : int
        Windows per step over all processes and micro-batches.
    seed : int
    """

    def __init__(self, sizes: Sequence[int], batch: int, seed: int) -> None:
        self._sizes, self._batch, self._seed = list(sizes), batch, seed
        share = np.array(sizes) / batch
        self._per_cycle = np.maximum(1, np.rint(share)).astype(np.int64)
        self._epochs: dict[int, tuple[int, EpochOrder]] = {}
        self._cycle: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, step: int) -> tuple[int, Ids]:
        """Montage and positions (in that montage, in the order of the disk) of a step, counted from 0."""
        cycle, place = divmod(step, int(self._per_cycle.sum()))
        groups = self._groups(cycle)
        group = int(groups[place])
        before = cycle * int(self._per_cycle[group]) + int((groups[:place] == group).sum())
        return group, self._stream(group, before * self._batch, (before + 1) * self._batch)

    def _groups(self, cycle: int) -> npt.NDArray[np.int64]:
        if self._cycle[0] != cycle:
            order = np.repeat(np.arange(len(self._sizes)), self._per_cycle)
            self._cycle = (cycle, np.random.default_rng([self._seed, 2, cycle]).permutation(order))
        return self._cycle[1]

    def _stream(self, group: int, start: int, stop: int) -> Ids:
        n, parts = self._sizes[group], []
        while start < stop:
            epoch, place = divmod(start, n)
            end = min(n, place + stop - start)
            parts.append(self._epoch(group, epoch).take(place, end))
            start += end - place
        return np.concatenate(parts)

    def _epoch(self, group: int, epoch: int) -> EpochOrder:
        if group not in self._epochs or self._epochs[group][0] != epoch:
            self._epochs[group] = (epoch, EpochOrder(self._sizes[group], [self._seed, 3, group, epoch]))
        return self._epochs[group][1]


class StepRequests:
    """Micro-batches of one process from a given step on; the batch sampler of the training DataLoader."""

    def __init__(
        self,
        dataset: WindowDataset,
        *,
        batch_size: int,
        accumulation: int,
        steps: range,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._dataset, self._batch_size, self._accumulation = dataset, batch_size, accumulation
        self._steps, self._rank, self._world = steps, rank, world
        self._global = batch_size * accumulation * world
        self._order = TrainOrder(dataset.group_sizes(), self._global, seed)

    def __len__(self) -> int:
        return len(self._steps) * self._accumulation

    def __iter__(self) -> Iterator[Request]:
        for step in self._steps:
            group, positions = self._order.batch(step)
            window = self._dataset.ids(group, positions)
            for micro in range(self._accumulation):
                offset = (micro * self._world + self._rank) * self._batch_size
                yield Request(window[offset : offset + self._batch_size], offset, self._global)


class _Carrying(Dataset["Batch | Exception"]):
    """Hands an error over as a value: raised in a worker process, it would come wrapped in a traceback of its own."""

    def __init__(self, dataset: WindowDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, request: Request) -> Batch | Exception:
        try:
            return self._dataset[request]
        except (ValueError, OSError) as error:
            return error


def train_loader(requests: StepRequests, dataset: WindowDataset, *, num_workers: int, pin: bool) -> Iterator[Batch]:
    """Micro-batches of this process, read ahead by worker processes.

    Raises
    ------
    ValueError
        A window that cannot be read.
    OSError
        A worker process that died.
    """
    loader = DataLoader(
        _Carrying(dataset),
        batch_size=None,
        sampler=requests,
        num_workers=num_workers,
        pin_memory=pin,
        # Without a generator of its own, making the iterator draws from the global one and resume is not exact.
        generator=torch.Generator(),
        multiprocessing_context="spawn" if num_workers else None,
        prefetch_factor=4 if num_workers else None,
    )
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    # PyTorch has set a handler that raises wherever the program happens to be when a worker dies, be it in the middle
    # of saving or of telling another error. Without it the loader notices when it is asked for the next batch.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return _raised(batches)


def _raised(batches: Iterator[Batch | Exception]) -> Iterator[Batch]:
    try:
        for batch in batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch
    except (RuntimeError, ConnectionError, EOFError) as error:
        # A worker that is killed in the middle of handing a batch over breaks the connection instead.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise OSError(
            f"a process that reads windows ahead died ({error}). Often memory ran out: lower num_workers. "
            "Launched again, the run goes on from its last checkpoint."
        ) from error


def eval_batches(
    dataset: WindowDataset, batch_size: int, *, rank: int = 0, world: int = 1, shown_as: str = ""
) -> Iterator[Batch]:
    """This process's share of all windows, in the order of the disk: every window once over all processes.

    Parameters
    ----------
    dataset : WindowDataset
    batch_size : int
    rank, world : int
        Number of this process, and of processes.
    shown_as : str
        What the work is called beside a bar on the first process, which is shown if it takes long; empty for no bar.
    """
    requests = [
        Request(ids[first : first + batch_size])
        for group in range(len(dataset.montages))
        for ids in [dataset.ids(group)]
        for first in range(0, len(ids), batch_size)
    ][rank::world]
    shown = bool(shown_as) and rank == 0
    with Bar(total=len(requests), unit="batch", shown=shown, desc=shown_as, leave=False, delay=_SHORT_S) as bar:
        for request in requests:
            yield dataset[request]
            bar.update()
