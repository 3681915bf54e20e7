"""The losses of stage 1, each under its own name, and their weighted sum.

Shapes: B windows, C channels, P patches per channel, L samples per patch, F = L//2 + 1 bins, D width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from tokenizer.outputs import Reconstruction, TokenizerOutput
from tokenizer.targets import Targets, standardise, unstandardise

TERMS = ("waveform", "amplitude", "phase", "commitment_t", "commitment_f", "contrastive")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weight of each term in the sum that is minimised, and how the contrastive term compares windows."""

    waveform: float = 1.0
    """Mean squared error of the waveform."""
    amplitude: float = 5.0
    """Mean squared error of the amplitude; its variance around each frequency's mean is about a fifth of the total."""
    phase: float = 0.1
    """Error of the phase: of (cosine, sine) weighted by amplitude, or of the z-scored angle as published. Small:
    the temporal codes hold the phase already."""
    commitment: float = 0.2
    """Squared distance of the encoder's vectors to their codes, for each of the two codebooks."""
    contrastive: float = 0.1
    """NT-Xent between the two halves of a window, against the other windows of the global micro-batch."""
    temperature: float = 0.1
    """Temperature of NT-Xent."""
    contrast_on: Literal["mean", "tokens"] = "mean"
    """Compare the mean feature of each half, or all its tokens' features side by side ("tokens", as published; all
    processes must then hold windows of one montage)."""


def stage1_loss(
    output: TokenizerOutput, targets: Targets, config: LossConfig, *, across_processes: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the terms, and the terms. Collective if `across_processes`.

    Parameters
    ----------
    output : TokenizerOutput
        From the model's forward.
    targets : Targets
        Of the same windows.
    config : LossConfig
        Weights.
    across_processes : bool
        Whether the contrastive term compares with the windows of all processes; in validation, where processes may
        hold different numbers of windows, it does not.

    Returns
    -------
    loss : Tensor, ()
    terms : dict of str to Tensor, ()
        Unweighted, by the names in `TERMS`.
    """
    restored = output.reconstruction
    terms = {
        "waveform": F.mse_loss(restored.waveform, targets.waveform),
        "amplitude": F.mse_loss(restored.amplitude, targets.amplitude),
        "phase": phase_loss(restored, targets),
        "commitment_t": output.commitment_t,
        "commitment_f": output.commitment_f,
        "contrastive": nt_xent(
            *halves(output.features, config.contrast_on), config.temperature, across_processes=across_processes
        ),
    }
    weights = {
        "waveform": config.waveform,
        "amplitude": config.amplitude,
        "phase": config.phase,
        "commitment_t": config.commitment,
        "commitment_f": config.commitment,
        "contrastive": config.contrastive,
    }
    # A term of weight 0 stays in the graph: its parameters get a zero gradient, which DistributedDataParallel needs.
    loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return loss, {name: term.detach() for name, term in terms.items()}


def phase_loss(restored: Reconstruction, targets: Targets) -> Tensor:
    """Mean squared error of the angle, or of its (cosine, sine) weighted by each bin's share of the amplitude.

    An angle jumps from pi to -pi where nothing happens, and means nothing where there is no power; the vector does
    neither. The weighted error is 1 for a prediction of zero, which says nothing of the phase.
    """
    if restored.phase.shape == targets.phase.shape:
        return F.mse_loss(restored.phase, standardise(targets.phase, (1, 2, 3)))
    error = (restored.phase - phase_vector(targets.phase)).square()
    error = torch.stack(error.chunk(2, dim=-1)).sum(0)
    return (targets.phase_weight * error).sum(-1).mean()


def restored_angle(restored: Reconstruction, targets: Targets) -> Tensor:
    """The predicted phase (B, C, P, F) in radians; a z-scored angle is scaled back by its window's own statistics."""
    if restored.phase.shape == targets.phase.shape:
        return unstandardise(restored.phase, (1, 2, 3), like=targets.phase)
    cosine, sine = restored.phase.chunk(2, dim=-1)
    return torch.atan2(sine, cosine)


def phase_vector(angle: Tensor) -> Tensor:
    """Cosines then sines (..., 2F) of angles (..., F)."""
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def halves(features: Tensor, on: Literal["mean", "tokens"]) -> tuple[Tensor, Tensor]:
    """The first and second half (B, n) in time of features (B, C, P, D).

    Of an odd P the last patch is left out; of P = 1 nothing is left, and n is 0.
    """
    half = features.shape[2] // 2
    if not half:
        nothing = features.flatten(1)[:, :0]
        return nothing, nothing
    parts = features[:, :, :half], features[:, :, half : 2 * half]
    if on == "mean":
        return parts[0].mean((1, 2)), parts[1].mean((1, 2))
    return parts[0].flatten(1), parts[1].flatten(1)


def nt_xent(first: Tensor, second: Tensor, temperature: float, *, across_processes: bool = False) -> Tensor:
    """NT-Xent (Chen et al. 2020, SimCLR) of two views of each window. Collective if `across_processes`.

    Each of this process's 2B vectors is compared with all (2B * n_processes) by one matrix product; the mean over the
    processes of the returned value, and of its gradient, is that of one process with all windows.

    Parameters
    ----------
    first, second : Tensor, (B, n)
        B must be the same on every process.

    Returns
    -------
    Tensor, ()
        0 for windows too short to halve.
    """
    if not first.numel():
        return first.sum()
    local = F.normalize(torch.cat([first, second]).float(), dim=-1)  # (2B, n)
    everyone, rank = gather(local) if across_processes else (local, 0)
    n_local = len(local)
    similarity = local @ everyone.T / temperature  # (2B, 2B * n_processes)
    own = torch.arange(n_local, device=local.device)
    start = rank * n_local
    similarity = similarity.index_put((own, start + own), similarity.new_tensor(-torch.inf))
    partner = start + (own + n_local // 2) % n_local
    return F.cross_entropy(similarity, partner)


def gather(local: Tensor) -> tuple[Tensor, int]:
    """Rows of all processes, with gradients, and this process's rank. Collective."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return local, 0
    return _Gather.apply(local), dist.get_rank()


class _Gather(torch.autograd.Function):
    """all_gather whose backward hands each process the gradients that all of them have for its rows."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:
        """Concatenate the rows of all processes, by rank."""
        ctx.n_rows = len(local)
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """Sum the gradients over processes and keep the own rows."""
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[dist.get_rank() * ctx.n_rows :][: ctx.n_rows]
