"""Attention within a sliding window, with time and memory linear in the number of tokens.

A window of w (odd) lets a token see itself and (w - 1) / 2 tokens on either side. With w = 1, the released model's
choice, the softmax has one entry and attention is exactly out_proj(v_proj(x)).

Shapes: B batch, N tokens, E width, D width of a head. Layout at the interface: width first, (E, B, N), see sgconv.py.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codebrain.constants import constant

QUERY_BLOCK = 64
"""Queries per block: a block of b queries reads b + w - 1 keys, so small blocks waste reads and large ones products."""


class SlidingWindowAttention(nn.Module):
    """Multi-head self-attention with ``nn.MultiheadAttention``'s parameters, each token seeing a window only.

    Parameters
    ----------
    width : int
        E.
    n_heads : int
    window_size : int
        Tokens that a token sees, itself included; odd.
    dropout : float
        Probability of dropping an attention weight in training.

    Raises
    ------
    ValueError
        If ``window_size`` is even or not positive, or ``width`` cannot be split into the heads.
    """

    def __init__(self, width: int, n_heads: int, window_size: int = 1, dropout: float = 0.0):
        super().__init__()
        if window_size < 1 or window_size % 2 == 0:
            raise ValueError(
                f"swa_window_size={window_size} must be odd (1, 3, 5, ...): a token and as many on either side"
            )
        if width % n_heads:
            raise ValueError(f"attention width {width} cannot be split into {n_heads} heads")
        self.n_heads = n_heads
        self.window_size = window_size
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, n_patches: int | None = None) -> Tensor:
        """Attend.

        Parameters
        ----------
        x : Tensor (E, B, N)
        n_patches : int, optional
            If given, every run of this many tokens is a sequence of its own, over whose edges no window reaches.

        Returns
        -------
        Tensor (E, B, N)
        """
        if self.window_size > 1:
            attended = self._windowed(x, n_patches)
        elif self._drops() or _is_small(x):
            attended = self._own_value(x)
        else:
            return project(x, *self.as_linear())
        return project(attended, self.out_proj.weight, self.out_proj.bias)

    def as_linear(self) -> tuple[Tensor, Tensor]:
        """Return the weight (E, E) and the bias (E,) that a window of 1 comes to where nothing is dropped."""
        value_weight, value_bias = self.in_proj_weight.chunk(3)[2], self.in_proj_bias.chunk(3)[2]
        return self.out_proj.weight @ value_weight, self.out_proj.weight @ value_bias + self.out_proj.bias

    def _drops(self) -> bool:
        return self.training and self.dropout > 0

    def _own_value(self, x: Tensor) -> Tensor:
        """Attend to oneself: the value, with a weight of 1 that dropout may still remove, per head and token."""
        value = project(x, self.in_proj_weight.chunk(3)[2], self.in_proj_bias.chunk(3)[2])
        if not self._drops():
            return value
        heads = value.unflatten(0, (self.n_heads, -1))
        keep = torch.empty_like(heads[:, :1]).bernoulli_(1 - self.dropout).div_(1 - self.dropout)
        return (heads * keep).flatten(0, 1)

    def _windowed(self, x: Tensor, n_patches: int | None) -> Tensor:
        width, batch, n_tokens = x.shape
        length = n_tokens if n_patches is None else n_patches
        qkv = project(x, self.in_proj_weight, self.in_proj_bias)
        # (3, heads, D, sequences, length) -> (3, sequences, heads, length, D)
        qkv = qkv.view(3, self.n_heads, -1, batch * n_tokens // length, length).permute(0, 3, 1, 4, 2)
        q, k, v = qkv.unbind(0)
        attended = banded_attention(q, k, v, self.window_size, self.dropout if self._drops() else 0.0)
        return attended.permute(1, 3, 0, 2).reshape(width, batch, n_tokens)


def _is_small(x: Tensor) -> bool:
    """Whether (E, B, N) has too few tokens to repay a product of two matrices (E, E). A graph holds for any number."""
    return torch.compiler.is_compiling() or x[0].numel() <= len(x)


def project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Map (E, B, N) to (O, B, N) by a weight (O, E) and a bias (O,): one matrix product over all tokens."""
    return torch.addmm(bias.unsqueeze(-1), weight, x.flatten(1)).unflatten(-1, x.shape[1:])


def banded_attention(q: Tensor, k: Tensor, v: Tensor, window_size: int, dropout: float = 0.0) -> Tensor:
    """Attend within a band: query i sees keys i - h to i + h, h = (window_size - 1) / 2, as far as they exist.

    Queries are cut into blocks; a block attends to the keys that any of its queries sees. Time and memory grow with
    N * (block + window), and no N x N matrix exists on any device.

    Parameters
    ----------
    q, k, v : Tensor (B, heads, N, D)
    window_size : int
        Odd.
    dropout : float
        Probability of dropping an attention weight.

    Returns
    -------
    Tensor (B, heads, N, D)
    """
    batch, n_heads, length, width = q.shape
    half = window_size // 2
    block = min(QUERY_BLOCK, length)
    n_blocks = -(-length // block)
    tail = n_blocks * block - length
    q, k, v = (F.pad(t, (0, 0, 0, tail)).reshape(batch * n_heads, n_blocks, block, width) for t in (q, k, v))
    out = F.scaled_dot_product_attention(
        q,
        _with_neighbours(k, half),
        _with_neighbours(v, half),
        attn_mask=band_mask(length, window_size, block, q.device),
        dropout_p=dropout,
    )
    return out.reshape(batch, n_heads, n_blocks * block, width)[:, :, :length]


def _with_neighbours(blocks: Tensor, half: int) -> Tensor:
    """Put the ``half`` tokens before and after it to each block: (G, blocks, b, D) to (G, blocks, b + 2 * half, D).

    Slices side by side, because their gradient is a few copies; that of overlapping views (``unfold``) adds up element
    by element and took a third of the attention's time.
    """
    n_blocks, block = blocks.shape[1:3]
    reach = -(-half // block)
    around = F.pad(blocks, (0, 0, 0, 0, reach, reach))
    parts = [around[:, shift : shift + n_blocks] for shift in range(2 * reach + 1)]
    edge = half - (reach - 1) * block
    parts[0], parts[-1] = parts[0][:, :, block - edge :], parts[-1][:, :, :edge]
    return torch.cat(parts, dim=2)


@constant
def band_mask(length: int, window_size: int, block: int, device: torch.device) -> Tensor:
    """Return which keys (columns) each query (row) of each block sees: bool (blocks, block, block + window - 1)."""
    half = window_size // 2
    n_blocks = -(-length // block)
    query = torch.arange(n_blocks * block, device=device).view(n_blocks, block, 1)
    key = torch.arange(n_blocks, device=device).view(-1, 1, 1) * block + torch.arange(
        -half, block + half, device=device
    )
    in_band = (key - query).abs() <= half
    in_sequence = (key >= 0) & (key < length)
    # Rows that only fill the last block see their neighbours, filling too: a row that sees nothing would be NaN.
    return in_band & (in_sequence | (query >= length))
