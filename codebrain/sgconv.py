"""Structured global convolution: a convolution as long as the sequence, with a handful of parameters per feature.

After "What Makes Convolutional Models Great on Long Sequence Modeling?" (Li et al. 2022, arXiv 2210.09298), as
CodeBrain uses it. A kernel is a row of sub-kernels; sub-kernel i has two learnt taps, is stretched linearly by
2^max(0, i-1) and decays with i:

    k = [2^(S-1) k_0, 2^(S-2) up_1(k_1), 2^(S-3) up_2(k_2), up_4 ..., up_(2^(S-2))(k_(S-1))] / norm      length 2^S

so k is *linear* in its parameters: k = w @ basis, with w (2 S taps) learnt and basis (2 S, 2^S) fixed. The same holds
for the kernel's spectrum, for the kernel that runs backwards in time and for the skip connection (a constant spectrum).
One small matrix product therefore gives the spectra of all kernels, and no kernel is ever built or transformed.

Shapes: B batch, N tokens, H features, K output channels per feature, S scales, F frequencies.
Layout: width first, (H, B, N). Every projection is one matrix product over all B * N tokens, in both directions of
training, and no tensor is transposed.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from codebrain.constants import constant

TAPS = 2
"""Learnt values per sub-kernel."""

DECAY = 2.0
"""A sub-kernel weighs this many times more than the next one."""

CPU_CHUNK, GPU_CHUNK = 2**18, 2**25
"""Samples (features x windows x FFT length) that are convolved at once. On a CPU the spectra of a chunk stay in its
cache, on a GPU they are a small part of its memory."""


def n_scales(l_max: int) -> int:
    """Return the number of sub-kernels whose concatenation covers ``l_max`` tokens."""
    return 1 + math.ceil(math.log2(l_max / TAPS))


class SGConv(nn.Module):
    """Convolve every feature with K global kernels, then mix all K * H results back to H features.

    ``forward`` is: long convolution (both directions in one product) plus a skip, GELU, dropout of whole features,
    optionally LayerNorm, linear projection.

    Parameters
    ----------
    n_features : int
        H.
    l_max : int
        Tokens that the kernel reaches, rounded up to a power of two. A longer sequence is allowed: a token then sees
        this far only.
    n_channels : int
        K, kernels per feature (and direction).
    bidirectional : bool
        Whether tokens see later ones too.
    dropout : float
        Probability of dropping a (feature, channel) of a window.
    layer_norm : bool
        Whether to normalise before the projection. The released weights do not.
    """

    kernel_norm: Tensor

    def __init__(
        self,
        n_features: int,
        l_max: int,
        *,
        n_channels: int = 4,
        bidirectional: bool = True,
        dropout: float = 0.0,
        layer_norm: bool = False,
    ):
        super().__init__()
        self.n_scales = n_scales(l_max)
        self.n_directions = 2 if bidirectional else 1
        self.dropout = dropout
        self.kernel = nn.Parameter(torch.randn(self.n_directions * n_channels, n_features, TAPS * self.n_scales))
        self.skip = nn.Parameter(torch.randn(n_channels, n_features))
        # Frozen at initialisation: it sets the scale of the output once, and training may then change that scale.
        self.register_buffer("kernel_norm", norm_of_kernel(self.kernel.detach()))
        self.norm = nn.LayerNorm(n_channels * n_features) if layer_norm else None
        self.out = nn.Linear(n_channels * n_features, n_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (H, B, N) to (H, B, N)."""
        y = long_convolution(x, self.coefficients(), self.n_scales)
        y = y.to(x.dtype)
        keep = self._feature_dropout(y)
        if self.norm is None:
            return gelu_project(y, keep, self.out.weight, self.out.bias)
        y = nn.functional.gelu(y) if keep is None else nn.functional.gelu(y) * keep
        return self.out(self.norm(y.permute(1, 2, 0))).permute(2, 0, 1)

    def coefficients(self) -> Tensor:
        """Return every kernel's weights in the basis of :func:`spectral_basis`: (K, H, basis rows)."""
        kernel = self.kernel / self.kernel_norm.unsqueeze(-1)
        return torch.cat([*kernel.chunk(self.n_directions), self.skip.unsqueeze(-1)], dim=-1)

    def _feature_dropout(self, y: Tensor) -> Tensor | None:
        """Return the factor (K * H, B, 1) that drops whole features of single windows, or None if none is."""
        if not self.training or self.dropout == 0.0:
            return None
        return torch.empty_like(y[..., :1]).bernoulli_(1 - self.dropout).div_(1 - self.dropout)


# ---------------------------------------------------------------------------------------------------------------------
# Kernels
# ---------------------------------------------------------------------------------------------------------------------


def time_basis(scales: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the kernel (TAPS * scales, 2^scales) that each learnt tap stands for, decay included.

    Stretching two taps by a factor f is linear interpolation at (t + 1/2) / f - 1/2, held constant beyond the ends.
    """
    basis = torch.zeros(TAPS * scales, 2**scales, dtype=dtype, device=device)
    start = 0
    for scale in range(scales):
        factor = 2 ** max(0, scale - 1)
        stop = start + TAPS * factor
        position = (torch.arange(TAPS * factor, dtype=dtype, device=device) + 0.5) / factor - 0.5
        second = position.clamp(0, 1)
        decay = DECAY ** (scales - 1 - scale)
        basis[TAPS * scale, start:stop] = (1 - second) * decay
        basis[TAPS * scale + 1, start:stop] = second * decay
        start = stop
    return basis


def norm_of_kernel(kernel: Tensor) -> Tensor:
    """Return the Euclidean length (rows, H) of the kernels that taps (rows, H, TAPS * S) stand for."""
    basis = time_basis(kernel.shape[-1] // TAPS, kernel.dtype, kernel.device)
    return (kernel @ basis).norm(dim=-1)


@constant
def spectral_basis(
    scales: int, directions: int, length: int, n_fft: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the spectra of all that a kernel is made of, for sequences of ``length`` tokens.

    The forward kernel starts at lag 0. The backward kernel starts at lag -1, thus in the last sample of the FFT, and
    runs towards the front. The last row is the skip connection: a unit impulse, whose spectrum is 1.

    Returns
    -------
    Complex tensor (directions * TAPS * scales + 1, F), F = n_fft // 2 + 1.
    """
    forward = time_basis(scales, dtype, device)[:, :length]
    rows = torch.zeros(directions * len(forward) + 1, n_fft, dtype=dtype, device=device)
    rows[: len(forward), : forward.shape[1]] = forward
    if directions == 2:
        backward = forward[:, : length - 1]
        rows[len(forward) : -1, n_fft - backward.shape[1] :] = backward.flip(-1)
    rows[-1, 0] = 1
    return torch.fft.rfft(rows)


def fft_length(length: int, scales: int) -> int:
    """Return the shortest even FFT length with prime factors 2, 3 and 5 that holds a linear convolution.

    A kernel reaches ``2^scales`` tokens, and no more than there are: so much room keeps what is shifted over one end
    from coming in at the other. Any more is as right, and lengths with large prime factors are slow to transform.
    """
    n = length + min(length, 2**scales)
    n += n % 2
    while not _is_smooth(n):
        n += 2
    return n


def _is_smooth(n: int) -> bool:
    for factor in (2, 3, 5):
        while n % factor == 0:
            n //= factor
    return n == 1


# ---------------------------------------------------------------------------------------------------------------------
# The two operations whose automatic gradients would keep several times the memory
# ---------------------------------------------------------------------------------------------------------------------


def long_convolution(x: Tensor, coefficients: Tensor, scales: int) -> Tensor:
    """Convolve every feature with its K kernels.

    Parameters
    ----------
    x : Tensor (H, B, N)
    coefficients : Tensor (K, H, basis rows)
        Weights in the basis of :func:`spectral_basis`; the last one is the skip connection's.
    scales : int
        S.

    Returns
    -------
    Tensor (K * H, B, N), float32 (float64 where ``x`` is): spectra keep full precision under autocast.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    length, n_fft = x.shape[-1], fft_length(x.shape[-1], scales)
    directions = (coefficients.shape[-1] - 1) // (TAPS * scales)
    basis = spectral_basis(scales, directions, length, n_fft, dtype, x.device)
    with torch.autocast(x.device.type, enabled=False):
        return _LongConvolution.apply(x.to(dtype), coefficients.to(dtype), basis, n_fft)


class _LongConvolution(torch.autograd.Function):
    """Product of spectra. Keeps the input alone: spectra are many times larger, and cheap to make again."""

    @staticmethod
    def forward(x: Tensor, coefficients: Tensor, basis: Tensor, n_fft: int) -> Tensor:
        out = x.new_empty(len(coefficients), *x.shape)
        for part in _chunks(x, n_fft):
            product = _kernel_spectra(coefficients[:, part], basis) * torch.fft.rfft(x[part], n=n_fft)
            out[:, part] = torch.fft.irfft(product, n=n_fft)[..., : x.shape[-1]]
        return out.flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
        x, coefficients, basis, ctx.n_fft = inputs
        ctx.save_for_backward(x, coefficients, basis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, coefficients, basis = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            grad = grad.unflatten(0, (len(coefficients), -1))
            adjoint, mean = basis.conj_physical(), _mean_over_frequencies(basis, ctx.n_fft)
            grad_x, grad_coefficients = torch.empty_like(x), torch.empty_like(coefficients)
            for part in _chunks(x, ctx.n_fft):
                spectra = torch.fft.rfft(grad[:, part], n=ctx.n_fft)
                grad_spectrum = (_kernel_spectra(coefficients[:, part], adjoint) * spectra).sum(dim=0)
                grad_x[part] = torch.fft.irfft(grad_spectrum, n=ctx.n_fft)[..., : x.shape[-1]]
                x_spectra = torch.fft.rfft(x[part], n=ctx.n_fft).conj_physical()
                # In place, unless this pass is itself differentiated and needs both factors again.
                product = spectra * x_spectra if torch.is_grad_enabled() else spectra.mul_(x_spectra)
                grad_coefficients[:, part] = _real(product.sum(dim=2)) @ mean.T
            return grad_x, grad_coefficients, None, None


def _chunks(x: Tensor, n_fft: int) -> list[slice]:
    """Split the features of ``x`` (H, B, N) into parts that are convolved one after another, with the same result.

    A compiled graph would hold every part, so there it is one.
    """
    if torch.compiler.is_compiling():
        return [slice(None)]
    size = max(1, (CPU_CHUNK if x.device.type == "cpu" else GPU_CHUNK) // (x.shape[1] * n_fft))
    return [slice(start, start + size) for start in range(0, len(x), size)]


def _kernel_spectra(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Return the complex spectra (K, H, 1, F) of all kernels: one product of real matrices."""
    spectra = coefficients.flatten(0, 1) @ _real(basis)
    return torch.view_as_complex(spectra.view(*coefficients.shape[:2], 1, -1, 2))


def _mean_over_frequencies(basis: Tensor, n_fft: int) -> Tensor:
    """Return the real matrix (rows, 2 F) that carries a gradient from product spectra to coefficients.

    By Parseval, a dot product in time is a mean over all n_fft frequencies; a half spectrum holds each but the first
    and the last (n_fft is even) once instead of twice.
    """
    twice = torch.full((basis.shape[-1],), 2.0 / n_fft, dtype=basis.real.dtype, device=basis.device)
    twice[0] = twice[-1] = 1.0 / n_fft
    return _real(basis * twice)


def _real(spectra: Tensor) -> Tensor:
    """View complex spectra (..., F) as real numbers (..., 2 F)."""
    return torch.view_as_real(spectra).flatten(-2)


def gelu_project(y: Tensor, keep: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply GELU, drop features and project: ``weight @ (gelu(y) * keep) + bias``.

    Parameters
    ----------
    y : Tensor (W, B, N)
    keep : Tensor (W, B, 1), optional
        Dropout factor.
    weight, bias : Tensor (H, W), (H,)

    Returns
    -------
    Tensor (H, B, N), in the dtype of autocast where it is on.
    """
    device = y.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else y.dtype
    y, weight, bias = y.to(dtype), weight.to(dtype), bias.to(dtype)
    return _GeluProject.apply(y, None if keep is None else keep.to(dtype), weight, bias)


class _GeluProject(torch.autograd.Function):
    """Keeps the input only and makes its GELU again in the backward pass: it is the widest tensor of the model.

    The backward pass takes as many rows at a time as there are outputs, so that it makes one more of that width only.
    """

    @staticmethod
    def forward(y: Tensor, keep: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias.unsqueeze(-1), weight, _gelu(y, keep).flatten(1)).unflatten(-1, y.shape[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, Tensor, Tensor], output: Tensor) -> None:
        y, keep, weight, _ = inputs
        ctx.save_for_backward(y, keep, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, keep, weight = ctx.saved_tensors
        grad, n_outputs = grad.flatten(1), len(weight)
        grad_y, grad_weight = torch.empty_like(y), torch.empty_like(weight)
        for start in range(0, len(y), n_outputs):
            rows = slice(start, start + n_outputs)
            rows_keep = None if keep is None else keep[rows]
            grad_weight[:, rows] = grad @ _gelu(y[rows], rows_keep).flatten(1).T
            grad_rows = (weight[:, rows].T @ grad).unflatten(-1, y.shape[1:])
            if rows_keep is not None:
                grad_rows *= rows_keep
            grad_y[rows] = torch.ops.aten.gelu_backward(grad_rows, y[rows])
        return grad_y, None, grad_weight, grad.sum(dim=1)


def _gelu(y: Tensor, keep: Tensor | None) -> Tensor:
    activated = nn.functional.gelu(y)
    return activated if keep is None else activated.mul_(keep)
