"""The filters of preparation applied the obvious way: to the whole recording in float64, one after the other."""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.signal import firwin, resample_poly

from data_prep.clean import CleanConfig, design_filter


def clean(x: npt.NDArray[np.float64], sfreq: float, config: CleanConfig) -> npt.NDArray[np.float64]:
    """(C, T) microvolts at `sfreq` Hz to those at the new rate, zeros beyond the ends."""
    if config.order == "resample_first":
        return _filter(_resample(x, sfreq, config.sfreq), config, config.sfreq)
    return _resample(_filter(x, config, sfreq), sfreq, config.sfreq)


def _resample(x: npt.NDArray[np.float64], sfreq: float, new: float) -> npt.NDArray[np.float64]:
    """Polyphase with a low-pass of 16 zero crossings a side at the lower of both Nyquist frequencies."""
    ratio = Fraction(new / sfreq).limit_denominator(10_000)
    if ratio == 1:
        return x
    if abs(ratio / (new / sfreq) - 1) > 1e-9 or max(ratio.numerator, ratio.denominator) > 1000:
        return interpolate(x, new / sfreq)
    faster = max(ratio.numerator, ratio.denominator)
    kernel = firwin(32 * faster + 1, 1 / faster, window=("kaiser", 8.0))
    return resample_poly(x, ratio.numerator, ratio.denominator, axis=1, window=kernel)[:, : int(x.shape[1] * ratio)]


def interpolate(x: npt.NDArray[np.float64], ratio: float) -> npt.NDArray[np.float64]:
    """Each output as the sum over all inputs, weighted by a windowed sinc of their distance in time."""
    cutoff, inputs = min(1.0, ratio), np.arange(x.shape[1])

    def kernel(lag: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        inside = np.clip(1 - (lag * cutoff / 16) ** 2, 0, None)
        return np.where(inside > 0, np.sinc(cutoff * lag) * np.i0(8.0 * np.sqrt(inside)), 0.0)

    fine = np.linspace(-40, 40, 800_001)
    scale = 1 / (kernel(fine).sum() * (fine[1] - fine[0]))
    outputs = np.arange(int(x.shape[1] * ratio + 1e-6))
    return scale * np.stack([x @ kernel(output / ratio - inputs) for output in outputs], axis=1)


def _filter(x: npt.NDArray[np.float64], config: CleanConfig, rate: float) -> npt.NDArray[np.float64]:
    fir = design_filter(config, rate, None)
    return x if fir is None else np.stack([np.convolve(row, fir.kernel, mode="same") for row in x])
