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


def code_loss(logits: Tensor, codes: Tensor, n_hidden: float) -> Tensor:
    """Cross-entropy summed over hidden patches and divided by `n_hidden`, in nats.

    Parameters
    ----------
    logits : (n, K) float Tensor
    codes : (n,) int64 Tensor
    n_hidden : float
        Hidden patches that the mean is taken over; a share of those of all processes, where several share a batch.
    """
    return F.cross_entropy(logits.float(), codes, reduction="sum") / n_hidden


class CodeTally:
    """Sums over hidden patches of one codebook, from which all figures follow.

    Parameters
    ----------
    n_codes : int
    """

    def __init__(self, n_codes: int, device: torch.device | str = "cpu") -> None:
        self.n_codes = n_codes
        self.nats = torch.zeros((), dtype=torch.float64, device=device)
        self.hits = torch.zeros(len(TOP), dtype=torch.float64, device=device)
        self.counts = torch.zeros(n_codes, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, codes: Tensor) -> Tensor:
        """Count a batch, and return which of its patches were guessed right at once, (n,) bool."""
        self.nats += F.cross_entropy(logits.float(), codes, reduction="sum")
        ranked = logits.topk(min(TOP[-1], self.n_codes), dim=-1).indices == codes[:, None]
        self.hits += torch.stack([ranked[:, :top].any(-1).sum() for top in TOP])
        self.counts += torch.bincount(codes, minlength=self.n_codes)
        return ranked[:, 0]

    def sums(self) -> Tensor:
        """All sums in one vector, to be added up over processes."""
        return torch.cat([self.nats[None], self.hits, self.counts])

    def figures(self, sums: Tensor, suffix: str) -> dict[str, float]:
        """Name the figures of a codebook.

        Parameters
        ----------
        sums : Tensor
            What `sums` gave, added up over processes.
        suffix : str
            `t` or `f`.

        Returns
        -------
        dict
            bits_*: mean cross-entropy in bits per hidden patch; entropy_*: of the codes' own frequencies, what the
            best guess without context costs; top1_*, top5_*: share among the first guesses; majority_*: share that
            always guessing the most frequent code reaches; codes_used_*: codes among the targets.
        """
        nats, hits, counts = sums[0], sums[1 : 1 + len(TOP)], sums[1 + len(TOP) :]
        n = counts.sum()
        share = counts[counts > 0] / n
        return {
            f"bits_{suffix}": float(nats / n) / math.log(2),
            f"entropy_{suffix}": float(-(share * share.log2()).sum()),
            **{f"top{top}_{suffix}": float(hit / n) for top, hit in zip(TOP, hits, strict=True)},
            f"majority_{suffix}": float(share.max()),
            f"codes_used_{suffix}": float((counts > 0).sum()),
        }


class ElectrodeTally:
    """Hidden patches and right guesses of each electrode.

    Parameters
    ----------
    ch_names : sequence of str
        Every electrode that may occur.
    """

    def __init__(self, ch_names: Sequence[str], device: torch.device | str = "cpu") -> None:
        self._row = {name: row for row, name in enumerate(ch_names)}
        self.ch_names = tuple(ch_names)
        self.counts = torch.zeros(3, len(ch_names), dtype=torch.float64, device=device)

    def add(self, ch_names: Sequence[str], mask: Tensor, right_t: Tensor, right_f: Tensor) -> None:
        """Count a batch: mask (B, C, P), and which of its hidden patches were right, row-major."""
        rows = torch.tensor([self._row[name] for name in ch_names], device=mask.device)
        row = rows[None, :, None].expand(mask.shape)[mask]
        for kind, weight in enumerate((torch.ones_like(right_t), right_t, right_f)):
            self.counts[kind].index_add_(0, row, weight.to(self.counts.dtype))

    @staticmethod
    def accuracy(counts: Tensor) -> tuple[Tensor, Tensor]:
        """Share of right guesses of each electrode, temporal and frequency, from the summed counts."""
        hidden = counts[0].clamp(min=1)
        return counts[1] / hidden, counts[2] / hidden
