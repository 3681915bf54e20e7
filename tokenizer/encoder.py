"""TFConv and the shared encoder: each patch is read twice, as a waveform and as a spectrum, then in its context.

Shapes: B windows, C channels, P patches per channel, L samples per patch, F = L//2 + 1 bins, D width.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokenizer.targets import EPS, log_amplitude, one_sided, standardise
from tokenizer.transformer import Trunk

Norm = Literal["group", "batch"]

KERNEL, STRIDE = 15, 8  # of the first convolution: LaBraM's, the paper's are not public
GROUPS = 4  # of the group norm
SPECTRUM_ROWS = 3
LOG_STD = math.pi / math.sqrt(24)  # of the logarithm of a Rayleigh amplitude, what one bin of noise has


class ConvBranch(nn.Module):
    """Three convolutions over one view of a patch, each with norm and ReLU; the first one strides.

    Parameters
    ----------
    n_inputs : int
        Input rows (1 for a waveform).
    length : int
        Points of the view.
    n_features : int
        Output rows of every convolution.
    norm : {"group", "batch"}
        Statistics per patch, or over all patches of the batch (the paper's).
    """

    def __init__(self, n_inputs: int, length: int, n_features: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_layer(n_inputs, n_features, norm, kernel_size=KERNEL, stride=STRIDE, padding=KERNEL // 2),
            *_layer(n_features, n_features, norm, kernel_size=3, padding=1),
            *_layer(n_features, n_features, norm, kernel_size=3, padding=1),
        )
        self.n_outputs = n_features * ((length - 1) // STRIDE + 1)

    def forward(self, view: Tensor) -> Tensor:
        """Map (n, n_inputs, length) to (n, n_outputs)."""
        return self.layers(view).flatten(1)


def _layer(n_inputs: int, n_features: int, norm: Norm, **shape: int) -> list[nn.Module]:
    # Without a bias: the norm would take it out again, and Adam would blow up what rounding leaves of its gradient.
    convolution = nn.Conv1d(n_inputs, n_features, bias=False, **shape)  # type: ignore[arg-type]
    statistics = nn.GroupNorm(GROUPS, n_features) if norm == "group" else nn.BatchNorm1d(n_features)
    return [convolution, statistics, nn.ReLU()]


class TFConv(nn.Module):
    """Tokens from patches: a waveform branch and a spectrum branch, concatenated and projected to the width.

    Beside the branches a linear map of both views may run. It is not in the paper: convolutions alone learn the
    waveform several times slower (docs/experiments.md).
    """

    mean_log_amplitude: Tensor

    def __init__(self, *, patch_size: int, n_features: int, width: int, norm: Norm, linear_path: bool) -> None:
        super().__init__()
        n_bins = patch_size // 2 + 1
        self.waveform = ConvBranch(1, patch_size, n_features, norm)
        self.spectrum = ConvBranch(SPECTRUM_ROWS, n_bins, n_features, norm)
        self.project = nn.Linear(self.waveform.n_outputs + self.spectrum.n_outputs, width)
        self.register_buffer("mean_log_amplitude", torch.zeros(n_bins))
        self.linear = nn.Linear(patch_size + SPECTRUM_ROWS * n_bins, width) if linear_path else None

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches (..., L) in model units to tokens (..., D)."""
        flat = patches.flatten(0, -2)
        waveform, spectrum = standardise(flat)[:, None], spectrum_rows(flat, self.mean_log_amplitude)
        tokens = self.project(torch.cat([self.waveform(waveform), self.spectrum(spectrum)], dim=-1))
        if self.linear is not None:
            tokens = tokens + self.linear(torch.cat([waveform.flatten(1), spectrum.flatten(1)], dim=-1))
        return tokens.unflatten(0, patches.shape[:-1])


def spectrum_rows(patches: Tensor, mean_log_amplitude: Tensor) -> Tensor:
    """Log-amplitude, and the cosine and sine of the phase weighted by relative amplitude, as (n, 3, F).

    Parameters
    ----------
    patches : Tensor, (n, L)
        In model units.
    mean_log_amplitude : Tensor, (F,)
        Origin of the log-amplitude.
    """
    spectrum = one_sided(patches)
    amplitude = spectrum.abs()
    scale = torch.rsqrt(amplitude.square().mean(-1, keepdim=True) + EPS)
    level = (log_amplitude(amplitude) - mean_log_amplitude) / LOG_STD
    return torch.stack([level, scale * spectrum.real, scale * spectrum.imag], dim=1)


class Encoder(nn.Module):
    """TFConv, then the transformer over all tokens of a window."""

    def __init__(
        self,
        *,
        patch_size: int,
        conv_features: int,
        conv_norm: Norm,
        linear_path: bool,
        width: int,
        **trunk: Any,
    ) -> None:
        super().__init__()
        self.embed = TFConv(
            patch_size=patch_size, n_features=conv_features, width=width, norm=conv_norm, linear_path=linear_path
        )
        self.trunk = Trunk(width=width, **trunk)

    def forward(self, patches: Tensor, montage: Tensor) -> Tensor:
        """Map patches (B, C, P, L) in model units to features (B, C, P, D)."""
        return self.trunk(self.embed(patches), montage)
