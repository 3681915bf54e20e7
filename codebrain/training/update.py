"""One optimizer update: its gradient from all micro-batches, judged before it reaches the weights.

Every random draw of it is a function of (seed, step, micro-batch, process).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from codebrain.data.windows import Batch, WindowDataset
from codebrain.training import checkpoint
from codebrain.training.launch import Run
from codebrain.training.optim import OptimConfig, learning_rate, set_learning_rate

LossFn = Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, dict[str, Any]]]
AfterUpdateFn = Callable[[int, torch.Generator], dict[str, float]]

DRAW_STEP, DRAW_TORCH, DRAW_EVALUATE = 0, 1, 2
"""What a random draw is for: the last part of its key."""

_LEAST_SCALE = 2.0**-14
"""Of float16's loss scaling, which halves at every gradient that is not finite and starts at 2^16."""


def draw_key(*parts: int) -> int:
    """A 63-bit seed from a draw's coordinates."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


@dataclass
class Updater:
    """Makes one optimizer update after the other."""

    run: Run
    model: nn.Module
    """Compiled and distributed."""
    optimizer: Any
    """As accelerate prepared it."""
    batches: Iterator[Batch]
    loss_fn: LossFn
    after_update: AfterUpdateFn | None
    train: WindowDataset
    """Where the batches come from; names a window in a message."""
    optim: OptimConfig
    rate: float = 0.0
    """Learning rate of the last update."""

    def update(self, step: int) -> dict[str, Any]:
        """Make the update that comes after `step` others; its scalars are means over this process's micro-batches."""
        seed = self.run.loop.seed
        self.rate = learning_rate(step, self.optim, self.run.loop.total_steps)
        set_learning_rate(self.optimizer, self.rate)
        generator = torch.Generator().manual_seed(draw_key(seed, step, 0, 0, DRAW_STEP))
        scalars, windows = self._gradient(step, generator)
        scalars["train/grad_norm"] = self._clip()
        _require_finite(self.run, scalars, windows, step, self.train)
        scalars |= self._move()
        if self.after_update is not None:
            found = self.after_update(step, generator)
            scalars |= {f"train/{name}": value for name, value in found.items()}
        return scalars

    def _gradient(self, step: int, generator: torch.Generator) -> tuple[dict[str, Any], list[int]]:
        """Add up the gradients of the micro-batches; return the means of their scalars, and their windows."""
        run, loop = self.run, self.run.loop
        start = generator.get_state()
        sums: dict[str, Any] = {}
        windows: list[int] = []
        for micro in range(loop.accumulation):
            batch = next(self.batches)
            windows += batch.window.flatten().tolist()  # on a GPU this would wait for all that is under way
            batch = batch.to(run.device)
            generator.set_state(start)
            # By the place in the global batch: one process with two micro-batches draws what two with one each do.
            torch.manual_seed(draw_key(loop.seed, step, micro * run.world + run.rank, 0, DRAW_TORCH))
            last = micro == loop.accumulation - 1
            with nullcontext() if last else run.accelerator.no_sync(self.model):
                with run.accelerator.autocast():
                    loss, scalars = self.loss_fn(self.model, batch, generator)
                run.accelerator.backward(loss / loop.accumulation)
            for name, value in {"loss": loss, **scalars}.items():
                sums[f"train/{name}"] = sums.get(f"train/{name}", 0.0) + _detached(value) / loop.accumulation
        return sums, windows

    def _clip(self) -> Tensor:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return self.run.accelerator.clip_grad_norm_(parameters, self.optim.grad_clip or math.inf).detach()

    def _move(self) -> dict[str, float]:
        """Move the weights, unless float16's scaler finds the gradient too large for its present scale."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        accelerator = self.run.accelerator
        if accelerator.scaler is None:
            return {}
        skipped = accelerator.optimizer_step_was_skipped
        if skipped and accelerator.scaler.get_scale() < _LEAST_SCALE:
            raise FloatingPointError(
                f"float16 skipped updates until its scale fell below {_LEAST_SCALE:g}: the gradient is not finite at "
                "any scale. Train with mixed_precision bf16 or no."
            )
        return {"train/skipped_updates": float(skipped)} | ({"train/grad_norm": 0.0} if skipped else {})


def _require_finite(run: Run, sums: dict[str, Any], windows: list[int], step: int, train: WindowDataset) -> None:
    """End all processes together, with one message, before a non-finite number reaches the weights.

    Under float16 the scaler skips updates whose gradient is not finite by itself; there only the loss counts.
    """
    # An infinite loss may have a finite gradient; times nought, either one spoils the sum.
    judged = sums["train/loss"].double() * 0.0
    if run.accelerator.scaler is None:
        judged = judged + sums["train/grad_norm"].double() * 0.0
    if run.world > 1:
        judged = run.accelerator.reduce(judged, reduction="sum")
    if bool(torch.isfinite(judged)):
        return
    loss = float(sums["train/loss"])
    culprits = gather_object([] if math.isfinite(loss) else [train.describe(window) for window in windows])
    if not run.is_main:
        raise SystemExit(1)
    saved = checkpoint.latest(run.checkpoints)
    raise FloatingPointError(
        f"the {'loss' if culprits else 'gradient'} of step {step + 1} is not finite, so the run stops before "
        "the update. "
        + (
            f"Windows of the batch: {', '.join(culprits[:8])}{' ...' if len(culprits) > 8 else ''}. "
            if culprits
            else ""
        )
        + (f"Last good checkpoint: {saved.path}. " if saved else "")
        + "Lower --optim.lr or --optim.grad_clip, train in float32, or look at those windows."
    )


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
