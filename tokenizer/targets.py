"""What the decoders are asked for: the waveform, the amplitude and the phase of each patch, each in a stated scale.

Shapes: B windows, C channels, P patches per channel, L samples per patch, F = L//2 + 1 bins.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from codebrain.patches import SCALE_UV

WaveformScale = Literal["patch", "raw"]
AmplitudeScale = Literal["log", "linear"]
PhaseForm = Literal["vector", "angle"]

EPS = 1e-6  # added to every variance: a constant patch becomes zeros, not 0/0
FLOOR_UV = 0.1
"""Amplitude of a sinusoid, in microvolts, below which a bin counts as silent: filters and converters leave bins that
hold nothing but rounding, whose logarithm varies as much as a signal's."""


@dataclass(frozen=True)
class Targets:
    """What a window's codes should let the decoders restore."""

    waveform: Tensor
    """(B, C, P, L): z-scored per patch, or model units (microvolts / 100)."""
    amplitude: Tensor
    """(B, C, P, F): logarithm or not, z-scored over the window."""
    phase: Tensor
    """(B, C, P, F), radians in (-pi, pi]."""
    phase_weight: Tensor
    """(B, C, P, F): share of each bin in its patch's amplitude; sums to 1, or to 0 in a silent patch."""


def make_targets(patches: Tensor, *, waveform: WaveformScale, amplitude: AmplitudeScale) -> Targets:
    """Targets of patches (B, C, P, L) in model units."""
    spectrum = one_sided(patches)
    size = spectrum.abs()
    heights = log_amplitude(size) if amplitude == "log" else size
    return Targets(
        waveform=standardise(patches) if waveform == "patch" else patches,
        amplitude=standardise(heights, (1, 2, 3)),
        phase=spectrum.angle(),
        phase_weight=size / (size.sum(-1, keepdim=True) + EPS),
    )


def one_sided(patches: Tensor) -> Tensor:
    """Complex spectrum (..., F) of patches (..., L) in model units; the other half of the DFT mirrors it."""
    return torch.fft.rfft(patches.float())


def log_amplitude(amplitude: Tensor) -> Tensor:
    """Logarithm of the amplitudes (..., F) of `one_sided`, with bins below `FLOOR_UV` held level."""
    half_length = amplitude.shape[-1] - 1  # a sinusoid of amplitude a has |DFT| = a * L / 2
    return torch.log(amplitude + FLOOR_UV / SCALE_UV * half_length)


def standardise(x: Tensor, dim: int | tuple[int, ...] = -1, *, like: Tensor | None = None) -> Tensor:
    """Z-score over `dim`, by the mean and deviation of `like`, which is `x` itself; what is constant becomes zero."""
    mean, variance = _moments(x if like is None else like, dim)
    return (x - mean) * torch.rsqrt(variance)


def unstandardise(z: Tensor, dim: int | tuple[int, ...] = -1, *, like: Tensor) -> Tensor:
    """The inverse of `standardise`: z-scores in the scale of `like`."""
    mean, variance = _moments(like, dim)
    return z * variance.sqrt() + mean


def _moments(x: Tensor, dim: int | tuple[int, ...]) -> tuple[Tensor, Tensor]:
    mean = x.mean(dim, keepdim=True)
    return mean, (x - mean).square().mean(dim, keepdim=True) + EPS
