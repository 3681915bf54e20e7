"""The obvious, slow versions of what the tokenizer computes fast."""

import math

import torch
from torch import Tensor


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss, window by window."""
    views = [*first, *second]
    n = len(first)

    def similar(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b / (a.norm() * b.norm()) / temperature).exp()

    losses = []
    for i, view in enumerate(views):
        partner = views[(i + n) % (2 * n)]
        others = [other for j, other in enumerate(views) if j != i]
        losses.append(-torch.log(similar(view, partner) / sum(similar(view, other) for other in others)))
    return torch.stack(losses).mean()


def entropy_in_codes(codes: list[int]) -> float:
    """Perplexity of a list of codes."""
    shares = [codes.count(code) / len(codes) for code in set(codes)]
    return math.exp(-sum(share * math.log(share) for share in shares))


def explained_variance(guess: Tensor, truth: Tensor) -> float:
    """1 - error / variance around the mean of each column, of (n, columns)."""
    return float(1 - ((guess - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum())


def lloyd(vectors: Tensor, codes: Tensor, n_iters: int) -> Tensor:
    """Spherical k-means from given codes."""
    for _ in range(n_iters):
        assigned = (vectors @ codes.T).argmax(-1)
        for k in range(len(codes)):
            if (assigned == k).any():
                total = vectors[assigned == k].sum(0)
                codes = torch.cat([codes[:k], (total / total.norm())[None], codes[k + 1 :]])
    return codes
