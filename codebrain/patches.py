"""Windows cut into patches, and the Fourier transform of a patch.

Shapes: B batch, C channels, P patches per channel, L samples per patch, T samples per channel.
This is the only place that knows how a patch is cut, which units a model sees and which FFT convention holds.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SCALE_UV = 100.0
"""Microvolts that are 1.0 to a model: stores and arguments are in microvolts, models see microvolts / 100."""


def to_model_units(x_uv: Tensor) -> Tensor:
    """Convert a signal from microvolts to the units that models see (microvolts / 100)."""
    return x_uv / SCALE_UV


def patchify(x: Tensor, patch_size: int) -> Tensor:
    """Cut every channel into patches that follow one another without overlap.

    Parameters
    ----------
    x : Tensor (B, C, T)
        Signal in any unit. The samples after the last whole patch are dropped.
    patch_size : int
        Samples per patch, L.

    Returns
    -------
    Tensor (B, C, P, L) with P = T // L.

    Raises
    ------
    TypeError
        If ``x`` is no tensor.
    ValueError
        If ``x`` has not three dimensions or is shorter than one patch.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"the signal is a {type(x).__name__}, expected a tensor: torch.as_tensor(x)")
    if x.ndim != 3:
        raise ValueError(f"expected a signal of shape (batch, channels, samples), got {tuple(x.shape)}")
    n_patches = x.shape[-1] // patch_size
    if n_patches == 0:
        raise ValueError(
            f"a window of {x.shape[-1]} samples is shorter than one patch of {patch_size}: pass at least {patch_size} "
            "samples per channel"
        )
    return x[..., : n_patches * patch_size].unflatten(-1, (n_patches, patch_size))


def require_finite(patches: Tensor, ch_names: Sequence[str] | None = None) -> None:
    """Raise a ValueError if patches (B, C, P, L) hold a NaN or an infinity, which says where the first one is.

    Only where looking at the values costs no synchronisation with a device, and no graph break.
    """
    if patches.device.type != "cpu" or torch.compiler.is_compiling():
        return
    finite = torch.isfinite(patches)
    if finite.all():
        return
    window, channel, patch, sample = (~finite).nonzero()[0].tolist()
    raise ValueError(
        f"the signal is {patches[window, channel, patch, sample].item()} in window {window}, channel "
        f"{ch_names[channel] if ch_names else channel}, at sample {patch * patches.shape[-1] + sample} "
        f"({int((~finite).sum())} such samples in all): reject or repair them"
    )


def amplitude(patches: Tensor) -> Tensor:
    """Return the one-sided amplitude spectrum of each patch, |rfft| / L.

    Parameters
    ----------
    patches : Tensor (..., L)
        Computed in float32 at least: half-precision FFTs exist on few devices and for few lengths.

    Returns
    -------
    Tensor (..., L // 2 + 1), float32 or float64, in the unit of ``patches``; bin k is k * sfreq / L Hz.
    """
    patches = patches if patches.dtype == torch.float64 else patches.float()
    return torch.fft.rfft(patches, norm="forward").abs()
