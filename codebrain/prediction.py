"""How well hidden codes are predicted: the loss of stage 2 and its figures, beside what guessing would reach.

Shapes: n hidden patches, K codes, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

TOP = (1, 5)


def code_loss(logits: Tensor, codes: Tensor, n_patches: float) -> Tensor:
    """Cross-entropy summed over patches and divided by `n_patches`, in nats.

    Parameters
    ----------
    logits : (n, K) float Tensor
    codes : (n,) int64 Tensor
    n_patches : float
        Patches that the mean is taken over; a share of those of all processes, where several share a batch.
    """
    return F.cross_entropy(logits.float(), codes, reduction="sum") / n_patches


def prominent_band(patches: Tensor, sfreq: float, bands_hz: Sequence[tuple[float, float]]) -> Tensor:
    """Index (n,) of the band that stands out in each patch.

    The amplitude spectrum of EEG falls about as 1/f; times the frequency it is flat, and the band with the highest mean
    is the one with more than its usual share.

    Parameters
    ----------
    patches : (n, L) float Tensor
    sfreq : float
        Sampling rate in Hz.
    bands_hz : sequence of (low, high)
        A bin belongs to the band that it is at the lower end of.
    """
    size = patches.shape[-1]
    frequency = torch.arange(size // 2 + 1, device=patches.device) * (sfreq / size)
    flat = frequency * torch.fft.rfft(patches.float()).abs()
    return torch.stack([flat[:, (frequency >= low) & (frequency < high)].mean(-1) for low, high in bands_hz]).argmax(0)


class CodeTally:
    """Sums over hidden patches of one codebook, from which all figures follow.

    Parameters
    ----------
    n_codes : int
    """

    def __init__(self, n_codes: int, device: torch.device | str = "cpu") -> None:
        self.n_codes = n_codes
        self.sums = torch.zeros(1 + len(TOP) + n_codes, dtype=torch.float64, device=device)
        """Nats, hits among the first guesses, and how often each code was the target: adds up over processes."""

    def add(self, logits: Tensor, codes: Tensor) -> Tensor:
        """Count a batch, and return which of its patches were guessed right at once, (n,) bool."""
        nats = F.cross_entropy(logits.float(), codes, reduction="sum")
        ranked = logits.topk(min(TOP[-1], self.n_codes), dim=-1).indices == codes[:, None]
        hits = torch.stack([ranked[:, :top].any(-1).sum() for top in TOP])
        self.sums += torch.cat([nats[None], hits, torch.bincount(codes, minlength=self.n_codes)])
        return ranked[:, 0]

    def figures(self, suffix: str) -> dict[str, float]:
        """Name the figures of a codebook.

        Parameters
        ----------
        suffix : str
            `t` or `f`.

        Returns
        -------
        dict
            bits_*: mean cross-entropy in bits per hidden patch; entropy_*: of the codes' own frequencies, what the
            best guess without context costs; top1_*, top5_*: share among the first guesses; majority_*: share that
            always guessing the most frequent code reaches; codes_used_*: codes among the targets.
        """
        nats, hits, counts = self.sums[0], self.sums[1 : 1 + len(TOP)], self.sums[1 + len(TOP) :]
        n = counts.sum()
        share = counts[counts > 0] / n
        return {
            f"bits_{suffix}": float(nats / n) / math.log(2),
            f"entropy_{suffix}": float(-(share * share.log2()).sum()),
            **{f"top{top}_{suffix}": float(hit / n) for top, hit in zip(TOP, hits, strict=True)},
            f"majority_{suffix}": float(share.max()),
            f"codes_used_{suffix}": float((counts > 0).sum()),
        }


class GroupTally:
    """Hidden patches and right guesses of each group, such as an electrode or a frequency band.

    Parameters
    ----------
    names : sequence of str
        The groups.
    """

    def __init__(self, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.names = tuple(names)
        self.sums = torch.zeros(3, len(names), dtype=torch.float64, device=device)
        """Hidden patches, right temporal and right frequency guesses of each group: adds up over processes."""

    def add(self, group: Tensor, right_t: Tensor, right_f: Tensor) -> None:
        """Count a batch: group (n,) of its hidden patches, and which of them were right."""
        for kind, weight in enumerate((torch.ones_like(right_t), right_t, right_f)):
            self.sums[kind].index_add_(0, group, weight.to(self.sums.dtype))

    def accuracy(self) -> tuple[list[float], list[float]]:
        """Share of right guesses of each group, temporal and frequency; NaN where nothing was hidden."""
        return (self.sums[1] / self.sums[0]).tolist(), (self.sums[2] / self.sums[0]).tolist()
