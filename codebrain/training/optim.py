"""AdamW, its parameter groups and its learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine decay."""

    lr: float = 1e-4
    """Learning rate at its peak."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices; norms, biases and embeddings have none."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of AdamW's running mean and variance."""
    eps: float = 1e-8
    """Added to AdamW's denominator."""
    warmup_steps: int = 0
    """Optimizer updates over which the rate rises linearly."""
    decay_steps: int = 0
    """Optimizer updates at which the cosine ends; 0 means the run's total."""
    grad_clip: float = 1.0
    """Largest norm of the gradient over all parameters; 0 switches clipping off."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"--optim.lr is {self.lr:g}; it must be above 0")
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"--optim.min_lr is {self.min_lr:g}; it must lie between 0 and --optim.lr, {self.lr:g}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(
                f"--optim.betas are {self.betas[0]:g} and {self.betas[1]:g}; they must be 0 or more, below 1"
            )
        for name in ("weight_decay", "eps", "warmup_steps", "decay_steps", "grad_clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"--optim.{name} is {getattr(self, name):g}; it cannot be negative")


def learning_rate(step: int, config: OptimConfig, total_steps: int) -> float:
    """Rate of the update `step`, counted from 0: linear warm-up, then a cosine from `lr` to `min_lr`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    horizon = (config.decay_steps or total_steps) - config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, horizon))
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(
    model: nn.Module, weight_decay: float, lr_scale: Callable[[str], float] = lambda name: 1.0
) -> list[dict[str, Any]]:
    """Split trainable parameters by whether they decay and by their share of the learning rate.

    Parameters
    ----------
    model : nn.Module
    weight_decay : float
        For matrices. Embeddings, and whatever has fewer than two dimensions (norms, biases, gains), get none.
    lr_scale : callable
        Factor on the learning rate for a parameter's name, such as a layer-wise decay.
    """
    plain = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        for name, _ in module.named_parameters(recurse=False)
    }
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and name not in plain
        key = (decays, lr_scale(name))
        group = groups.setdefault(
            key, {"params": [], "weight_decay": weight_decay if decays else 0.0, "lr_scale": key[1]}
        )
        group["params"].append(parameter)
    return list(groups.values())


def adamw(groups: Iterable[dict[str, Any]], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the groups; on a GPU in one fused kernel."""
    groups = list(groups)
    on_gpu = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=on_gpu or None)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate by hand: a prepared scheduler would step once per process."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
