"""The backbone's operations as their definitions read: slow, dense, float64 if the input is."""

import torch
from torch import Tensor
from torch.nn import functional as F

from codebrain.attention import SlidingWindowAttention
from codebrain.sgconv import SGConv


def kernels(layer: SGConv) -> Tensor:
    """Build every kernel (directions * K, H, 2^S) by stretching, weighting and joining its sub-kernels."""
    parts = []
    for scale, taps in enumerate(layer.kernel.split(2, dim=-1)):
        stretched = F.interpolate(taps, scale_factor=2 ** max(0, scale - 1), mode="linear")
        parts.append(stretched * 2.0 ** (layer.n_scales - 1 - scale))
    return torch.cat(parts, dim=-1) / layer.kernel_norm.unsqueeze(-1)


def long_convolution(layer: SGConv, x: Tensor) -> Tensor:
    """Convolve (H, B, N) lag by lag: (K * H, B, N)."""
    n_tokens = x.shape[-1]
    forward, *backward = kernels(layer).chunk(layer.n_directions)
    out = torch.einsum("kh,hbn->khbn", layer.skip, x)
    for lag in range(min(n_tokens, forward.shape[-1])):
        delayed = F.pad(x, (lag, 0))[..., :n_tokens]
        out = out + torch.einsum("kh,hbn->khbn", forward[..., lag], delayed)
        if backward and lag + 1 < n_tokens:
            advanced = F.pad(x, (0, lag + 1))[..., lag + 1 :]
            out = out + torch.einsum("kh,hbn->khbn", backward[0][..., lag], advanced)
    return out.flatten(0, 1)


def attention(layer: SlidingWindowAttention, x: Tensor, n_patches: int | None = None) -> Tensor:
    """Attend with a dense N x N score matrix, everything outside the window masked: (E, B, N) to (E, B, N)."""
    width, batch, n_tokens = x.shape
    qkv = F.linear(x.permute(1, 2, 0), layer.in_proj_weight, layer.in_proj_bias)
    q, k, v = (t.view(batch, n_tokens, layer.n_heads, -1).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
    place = torch.arange(n_tokens)
    hidden = (place[:, None] - place).abs() > layer.window_size // 2
    if n_patches is not None:
        hidden |= place[:, None] // n_patches != place // n_patches
    scores = (q @ k.mT / (width // layer.n_heads) ** 0.5).masked_fill(hidden, float("-inf"))
    out = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
    return F.linear(out, layer.out_proj.weight, layer.out_proj.bias).permute(2, 0, 1)
