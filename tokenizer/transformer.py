"""The pre-norm transformer that the encoder and both decoders share, with embeddings of place and time.

Shapes: B windows, C channels, P patches per channel, N = C*P tokens (channel-major), D width,
E electrodes in the table.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from codebrain.channels import ELECTRODES, positions

LAYER_NORM_EPS = 1e-6  # LaBraM's, which the paper follows
EMBEDDING_SIZE = 0.2  # root mean square of the embeddings at the start, a third of the tokens'
FINEST = 0.5  # finest detail that the starting embeddings tell apart, in radii of the head and in patches


class Attention(nn.Module):
    """Multi-head self-attention over all tokens; no N x N matrix is kept for the backward pass.

    Parameters
    ----------
    width : int
        D, features per token.
    n_heads : int
        Heads; divides `width`.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens (B, N, D) of each window."""
        query, key, value = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, D / heads)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, n_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = Attention(width, n_heads)
        self.mlp_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Refine the tokens (B, N, D)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


def lean(block: nn.Module, x: Tensor) -> Tensor:
    """Run a block, keeping for its backward pass what would take long to compute again.

    Those are the attention and the two products that widen the tokens. Norms, GELU, sums and the narrow product between
    them are repeated: nearly half of the block's memory for a few per cent of its time.
    """
    if not torch.is_grad_enabled():
        return block(x)
    contexts = partial(create_selective_checkpoint_contexts, _keep_or_repeat)
    return checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _keep_or_repeat(_: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    name = operator.__name__
    if name.startswith(("addmm", "mm")):
        n_inputs, n_outputs = args[-1].shape
        costly = n_outputs > n_inputs
    else:
        costly = name.startswith("_scaled_dot_product")
    return CheckpointPolicy.MUST_SAVE if costly else CheckpointPolicy.PREFER_RECOMPUTE


class Trunk(nn.Module):
    """Add where and when each token was recorded, run the blocks, normalise.

    Every montage works without padding: a window brings as many tokens as it has channels and patches, and
    all of them are signal.

    Parameters
    ----------
    width, n_layers, n_heads, mlp_ratio
        Size of the transformer.
    max_patches : int
        Rows of the time table: the most patches of a window.
    """

    def __init__(self, *, width: int, n_layers: int, n_heads: int, mlp_ratio: float, max_patches: int) -> None:
        super().__init__()
        where, when = torch.from_numpy(positions(ELECTRODES)), torch.arange(max_patches)[:, None]
        self.place = nn.Embedding.from_pretrained(smooth_features(where, width), freeze=False)
        self.time = nn.Embedding.from_pretrained(smooth_features(when, width), freeze=False)
        self.blocks = nn.ModuleList(Block(width, n_heads, mlp_ratio) for _ in range(n_layers))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, tokens: Tensor, montage: Tensor) -> Tensor:
        """Refine the tokens of windows of one montage.

        Parameters
        ----------
        tokens : Tensor, (B, C, P, D)
        montage : Tensor, (C, E), float
            Each channel as a sum of electrodes: one 1 for a referential channel, a 1 and a -1 for a bipolar one.

        Returns
        -------
        Tensor, (B, C, P, D)
        """
        n_chans, n_patches = tokens.shape[1:3]
        place = montage.to(self.place.weight.dtype) @ self.place.weight
        x = (tokens + place[:, None] + self.time.weight[:n_patches]).flatten(1, 2)
        for block in self.blocks:
            x = lean(block, x)
        return self.norm(x).unflatten(1, (n_chans, n_patches))


def smooth_features(points: Tensor, width: int) -> Tensor:
    """Random Fourier features (n, width) of points (n, dims): the nearer two points, the more alike their features.

    Embeddings start from these, so that attention can find a patch's neighbours from the first step on, and an
    electrode that no training montage had is embedded like those around it. (Rahimi and Recht 2007.)
    """
    n_waves = math.ceil(width / 2)
    waves = torch.randn(points.shape[-1], n_waves) / FINEST
    angle = points.float() @ waves
    features = torch.cat([angle.cos(), angle.sin()], dim=-1)[:, :width]
    return features * (EMBEDDING_SIZE * math.sqrt(2))
