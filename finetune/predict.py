"""Predictions for whole sets of windows, gathered over all processes without duplicates; features of a frozen backbone.

Shape letters: B batch, C channels, P patches per channel, D width, n windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import gather_object
from torch import Tensor

from codebrain.backbone import EEGSSM
from codebrain.data.windows import Batch, Request, WindowDataset
from codebrain.training.launch import Run
from codebrain.training.sampling import eval_batches
from finetune.classifier import backbone_features, freeze
from finetune.metrics import Predictions
from finetune.splits import Windows
from finetune.task import Task

FEATURE_BATCH = 64
"""Windows whose features a run computes at a time."""

LARGE_SAMPLES = "Weights and windows were finite: reject windows of huge samples in the preparation"
"""What helps against outputs that are NaN or infinite, of a model that was loaded."""

CACHE_BYTES = 2 << 30
"""Features of a frozen backbone are kept in memory up to this size, and computed for every batch beyond it."""


@dataclass(frozen=True)
class Outputs:
    """What a model gave for a set of windows, each once, in the order of the store."""

    window: npt.NDArray[np.int64]
    """(n,)"""
    values: Tensor
    """(n, K) float32 logits, or features (n, ...); on the CPU."""

    @classmethod
    def of(cls, batches: Iterable[Batch], compute: Callable[[Batch], Tensor], device: torch.device) -> Outputs:
        """Apply `compute` to batches of windows, or of sequences of them."""
        window, values = [], []
        for batch in batches:
            result = compute(batch.to(device)).float().cpu()
            # Sequences come as (B, L): from here on windows are what counts.
            window.append(batch.window.flatten().numpy())
            values.append(result.flatten(0, batch.window.ndim - 1).numpy())
        return cls.joined(window, values)

    @classmethod
    def joined(cls, window: list[npt.NDArray[np.int64]], values: list[npt.NDArray[np.float32]]) -> Outputs:
        """Parts of a set of windows, put together in the order of the store; the lists are emptied on the way.

        Features may fill most of the memory, so that there must not be two copies of all of them.
        """
        if not window:
            return cls(np.empty(0, np.int64), torch.empty(0, 0))
        found = np.sort(np.concatenate(window))
        whole = np.empty((len(found), *values[0].shape[1:]), np.float32)
        while window:
            whole[np.searchsorted(found, window.pop())] = values.pop()
        return cls(found, torch.from_numpy(whole))

    def predictions(self, task: Task, windows: Windows) -> Predictions:
        """As probabilities beside the true labels."""
        return Predictions(
            window=self.window,
            subject=windows.subject[self.window],
            label=windows.label[self.window],
            score=task.scores(self.values).numpy(),
        )

    def require_finite(self, described: Callable[[int], str], remedy: str) -> Outputs:
        """Itself; FloatingPointError if a value is NaN or infinite.

        Parameters
        ----------
        described : callable
            Says where a window comes from.
        remedy : str
            What may help besides looking at that window.
        """
        wrong = self.window[~torch.isfinite(self.values).flatten(1).all(1).numpy()]
        if not len(wrong):
            return self
        raise FloatingPointError(
            f"the model's outputs for {len(wrong)} of {len(self.window)} windows are NaN or infinite, such as for "
            f"{described(int(wrong[0]))}. {remedy}, or look at those windows."
        )


def outputs(run: Run, dataset: WindowDataset, compute: Callable[[Batch], Tensor], batch_size: int) -> Outputs:
    """Apply `compute` to every window of a dataset. Collective; every process gets all of them."""
    own = Outputs.of(eval_batches(dataset, batch_size, rank=run.rank, world=run.world), compute, run.device)
    if run.world == 1:
        return own
    parts: list[Any] = gather_object([(own.window, own.values.numpy())])
    some = [part for part in parts if len(part[0])]
    return Outputs.joined([window for window, _ in some], [values for _, values in some])


class FrozenFeatures:
    """Features of a backbone that does not change, computed once per window where they fit into memory.

    Parameters
    ----------
    run : Run
    backbone : EEGSSM
        Frozen from here on.
    dataset : WindowDataset
        All windows that will be asked for.
    batch_size : int
        Windows at a time, per process.
    shrink : callable, optional
        Applied to features (B, C, P, D) before they are kept, such as `heads.shrink`.
    """

    def __init__(
        self,
        run: Run,
        backbone: EEGSSM,
        dataset: WindowDataset,
        batch_size: int,
        shrink: Callable[[Tensor], Tensor] = lambda features: features,
    ) -> None:
        freeze(backbone)
        self._backbone = backbone.to(run.device)
        self._autocast = run.accelerator.autocast
        self._shrink = shrink
        self._cache: Tensor | None = None
        self._window = np.empty(0, np.int64)
        if len(dataset.montages) == 1 and self._bytes(dataset) <= CACHE_BYTES:
            found = outputs(run, dataset, self._compute, batch_size)
            self._cache, self._window = found.values, found.window

    def windows(self, dataset: WindowDataset, label: npt.NDArray[Any]) -> WindowDataset:
        """The dataset to take these features of: without its signals where they are not needed any more."""
        return dataset if self._cache is None else _Unread(dataset, label)

    def __call__(self, batch: Batch) -> Tensor:
        """Features (B, C, P, D) of a batch, on its device."""
        if self._cache is None:
            return self._compute(batch)
        window = batch.window.cpu().numpy()
        row = np.searchsorted(self._window, window).clip(max=len(self._window) - 1)
        assert (self._window[row] == window).all(), "asked for a window without features"
        return self._cache[torch.from_numpy(row)].to(batch.x.device)

    def _compute(self, batch: Batch) -> Tensor:
        with torch.no_grad(), self._autocast():
            return self._shrink(backbone_features(self._backbone, batch.x)).float()

    def _bytes(self, dataset: WindowDataset) -> int:
        config, (montage,) = self._backbone.config, dataset.montages
        shape = (len(montage.ch_names), montage.n_times // config.patch_size, config.out_channels)
        kept = self._shrink(torch.empty(1, *shape, device="meta")).numel()
        return 4 * len(dataset) * kept


class _Unread(WindowDataset):
    """Windows that come with label and number but without signal: reading it would take most of a probe's time."""

    def __init__(self, dataset: WindowDataset, label: npt.NDArray[Any]) -> None:
        super().__init__(dataset.stores)
        self._segments = dataset._segments
        self._label = label

    def __getitem__(self, request: Request) -> Batch:
        """Labels and numbers of the windows, and a signal of length 0."""
        n, ch_names = len(request.window), self.montages[0].ch_names
        return Batch(
            x=torch.empty(n, len(ch_names), 0),
            ch_names=ch_names,
            window=torch.from_numpy(np.asarray(request.window)),
            offset=request.offset,
            global_size=request.global_size or n,
            label=torch.from_numpy(self._label[request.window]),
        )


def moments(run: Run, pooled: Iterable[Tensor], width: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all rows of all processes' tensors (b, width), in float64. Collective.

    A process may have no tensors at all.
    """
    sums = torch.zeros(3, width, dtype=torch.float64, device=run.device)
    for part in pooled:
        rows = part.double()
        sums = sums + torch.stack([torch.full_like(rows[0], len(rows)), rows.sum(0), rows.square().sum(0)])
    n, total, squares = run.accelerator.reduce(sums, reduction="sum") if run.world > 1 else sums
    mean = total / n
    return mean, (squares / n - mean.square()).clamp_min(0).sqrt()
