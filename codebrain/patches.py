"""Windows cut into patches, and the Fourier transform of a patch.

Shapes: B batch, C channels, P patches per channel, L samples per patch, T samples per channel.
This is the only place that knows how a patch is cut, which units a model sees and which FFT convention holds.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codebrain.units import wrong_unit

SCALE_UV = 100.0
"""Microvolts that are 1.0 to a model: stores and arguments are in microvolts, models see microvolts / 100."""


RATE_TOLERANCE = 0.01
"""Relative difference up to which two sampling rates count as one: an epoch of two seconds at 200 Hz that MNE cuts has
401 samples, as if it were of 200.5 Hz."""

_LOOKED_AT = 256
"""Patches that tell the amplitude of a batch."""


class PatchLengthWarning(UserWarning):
    """A patch does not last one second."""


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
    if not _is_cheap_to_read(patches):
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


def deviations(patches: Tensor) -> npt.NDArray[np.float64]:
    """Standard deviation of some patches (n,), spread evenly over (B, C, P, L); a constant patch gives exactly 0.

    None (n = 0) where ``torch.func`` transforms the function that is called: such a tensor's values cannot be read.
    """
    n = patches.shape[:-1].numel()
    rows = np.unravel_index(np.arange(0, n, max(1, n // _LOOKED_AT)), patches.shape[:-1])
    try:
        some = patches.detach()[rows].double().cpu().numpy()
    except RuntimeError:
        return np.empty(0)
    return (some - some[:, :1]).std(axis=-1)


class UnitWatch:
    """Warns once if the signals that a model is given cannot be EEG in the unit that it takes.

    Looks where reading a signal is cheap, and at the passes number 1, 2, 4, 8 ... alone: whoever gives volts gives them
    in the first, and a small model's pass takes no longer than the look.

    Parameters
    ----------
    unit_uv : float
        Microvolts that are 1.0 in that unit.
    """

    def __init__(self, unit_uv: float) -> None:
        self._unit_uv = unit_uv
        self._passes = 0
        self._warned = False

    def look(self, patches: Tensor) -> None:
        """Look at patches (B, C, P, L) of one pass."""
        if self._warned or not _is_cheap_to_read(patches):
            return
        self._passes += 1
        if self._passes & (self._passes - 1):
            return
        if fault := wrong_unit(deviations(patches), unit_uv=self._unit_uv):
            self._warned = True
            warnings.warn(fault, stacklevel=5)


def complete_window(
    n_times: int | None, seconds: float | None, sfreq: float | None
) -> tuple[int | None, float | None, float | None]:
    """Complete samples, seconds and sampling rate of a window: any two of them give the third.

    Raises
    ------
    ValueError
        If one is not positive, or the three contradict each other.
    """
    for name, value in (("n_times", n_times), ("input_window_seconds", seconds), ("sfreq", sfreq)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value} must be positive")
    if n_times is not None and seconds is not None and sfreq is not None and n_times != round(seconds * sfreq):
        raise ValueError(
            f"n_times={n_times} contradicts input_window_seconds={seconds} * sfreq={sfreq} = {round(seconds * sfreq)}"
        )
    if n_times is None and seconds is not None and sfreq is not None:
        n_times = round(seconds * sfreq)
    elif seconds is None and n_times is not None and sfreq is not None:
        seconds = n_times / sfreq
    elif sfreq is None and n_times is not None and seconds is not None:
        sfreq = n_times / seconds
    return n_times, seconds, sfreq


def is_rate(found: float, expected: float) -> bool:
    """Whether two sampling rates are the same but for what ``RATE_TOLERANCE`` allows."""
    return abs(found / expected - 1) <= RATE_TOLERANCE


def _is_cheap_to_read(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


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
