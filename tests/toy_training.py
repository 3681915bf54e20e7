"""A program that trains a small model through the real loop, for tests that kill it, double it and break it."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field

import torch
from torch import nn

from codebrain.config import command, parse
from codebrain.data.subjects import SplitConfig, split_subjects
from codebrain.data.windows import WindowDataset
from codebrain.training import launch
from codebrain.training.launch import LoopConfig
from codebrain.training.loop import fit
from codebrain.training.optim import OptimConfig, parameter_groups
from codebrain.training.sampling import eval_batches


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """An autoencoder of one-second patches."""

    data: list[str]
    """Stores."""
    run_dir: str
    """Folder of the run."""
    dropout: float = 0.1
    """Share of hidden units to drop."""
    fault: str = ""
    """What happens in step 6: `nan`, `infinite`, `gradient`, `raise`, `worker`, `sigterm`; `slow` for a run that can be
    killed; `last` for SIGTERM in the last validation; `export` for a main process that is long busy after training."""
    split: SplitConfig = SplitConfig(valid_fraction=0.2)
    """Held-out subjects."""
    optim: OptimConfig = OptimConfig(lr=1e-2)
    """Optimizer."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(total_steps=12, batch_size=4, trackers=[]))
    """Loop."""


class Toy(nn.Module):
    """Patch -> hidden -> patch, with a running mean as a buffer that only `after_update` moves."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(200, 16), nn.Linear(16, 200)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = x.unfold(-1, 200, 200) / 100
        return ((self.decode(self.dropout(self.encode(patches).tanh())) - patches) ** 2).mean()


def main() -> None:
    """Train."""
    config = parse(ToyConfig, prog="toy", description="Train a toy.")
    run = launch.start(config.run_dir, config.loop, config)
    train, valid = split_subjects(WindowDataset(config.data), config.split)
    model = Toy(config.dropout).to(run.device)

    def loss_fn(model: nn.Module, batch, generator):
        noise = torch.randn(batch.global_size, generator=generator)[batch.offset : batch.offset + len(batch)]
        loss = model(batch.x + noise[:, None, None])
        if batch.offset == 0 and config.fault == "nan" and step[0] == 5:
            loss = loss * float("nan")
        if config.fault == "infinite" and step[0] == 5 and run.rank == run.world - 1:
            loss = loss + math.inf
        if config.fault == "gradient" and step[0] == 5:
            loss.register_hook(lambda gradient: gradient * math.inf)
        if config.fault == "raise" and step[0] == 5 and run.rank == run.world - 1:
            raise RuntimeError("this process was told to fail")
        return loss, {}

    step = [0]

    def after_update(index: int, generator: torch.Generator) -> dict[str, float]:
        step[0] = index + 1
        model.mean += torch.randn(16, generator=generator)
        if config.fault == "sigterm" and step[0] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        if config.fault == "worker" and step[0] == 5 and run.rank == run.world - 1:
            for worker in multiprocessing.active_children():
                worker.kill()
        if config.fault == "slow":
            time.sleep(0.1)
        return {"mean": float(model.mean.mean())}

    def evaluate(model: nn.Module) -> dict[str, float]:
        batches = eval_batches(valid, 4, rank=run.rank, world=run.world)
        sums = torch.tensor([[float(model(b.x)) * len(b), len(b)] for b in batches], dtype=torch.float64).sum(0)
        if config.fault == "last" and step[0] == config.loop.total_steps:
            os.kill(os.getpid(), signal.SIGTERM)
        total, count = run.accelerator.reduce(sums) if run.world > 1 else sums
        return {"valid/loss": float(total / count)}

    result = fit(
        run,
        model=model,
        groups=parameter_groups(model, config.optim.weight_decay),
        loss_fn=loss_fn,
        evaluate=evaluate,
        train=train,
        optim=config.optim,
        after_update=after_update,
    )
    if config.fault == "export" and run.is_main:
        (run.path / "exporting").touch()
        time.sleep(100)
    run.finish(dataclasses.asdict(result))


if __name__ == "__main__":
    command(main)
