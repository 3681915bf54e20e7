"""How well the codes restore what they stand for, in figures that mean the same for every choice of targets' weights.

Shapes: B windows, C channels, P patches per channel, L samples per patch, F = L//2 + 1 bins.
"""

import torch
from torch import Tensor

from tokenizer.losses import restored_angle
from tokenizer.model import Reconstruction
from tokenizer.targets import Targets

BANDS_HZ = {"delta": (0.5, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 75.0)}
"""The clinical bands; a bin belongs to the band that it is at the lower end of."""


class QualityTally:
    """Sums over patches from which the figures follow, so that batches and processes add up.

    Parameters
    ----------
    patch_size : int
        L, samples.
    sfreq : float
        Sampling rate in Hz.
    """

    def __init__(self, patch_size: int, sfreq: float) -> None:
        frequency = torch.arange(patch_size // 2 + 1) * (sfreq / patch_size)
        in_band = [(frequency >= low) & (frequency < high) for low, high in BANDS_HZ.values()]
        self._in_band = torch.stack(in_band).double()  # (bands, F)
        self._n_bins = len(frequency)
        self.sums = torch.zeros(4 * self._n_bins + 6, dtype=torch.float64)

    @torch.no_grad()
    def add(self, restored: Reconstruction, targets: Targets) -> None:
        """Add a batch of windows."""
        error = restored.waveform - targets.waveform
        amplitude = targets.amplitude.flatten(0, 2).double()
        cosine = torch.cos(restored_angle(restored, targets) - targets.phase)
        parts = [
            _power(error),
            _power(targets.waveform),
            amplitude.sum(0),
            amplitude.square().sum(0),
            _total(error.square()),
            _total(targets.waveform.square()),
            _total((restored.amplitude - targets.amplitude).square()),
            amplitude.new_tensor([len(amplitude)]),
            _total(targets.phase_weight * cosine),
            _total(targets.phase_weight),
        ]
        self.sums = self.sums.to(error.device) + torch.cat(parts)

    def figures(self) -> dict[str, float]:
        """Figures over everything added, or over other processes too if their `sums` were added to this one's.

        Returns
        -------
        dict
            waveform_ev, amplitude_ev: explained variance, 1 for perfect, 0 for the mean (of each frequency, for the
            amplitude). phase_cosine: mean cosine of the phase error, weighted by amplitude. waveform_ev_delta to
            _gamma: explained power of the waveform in a band.
        """
        error, power, amplitude, square, rest = self.sums.cpu().split([*[self._n_bins] * 4, 6])
        wave_error, wave_power, amplitude_error, n, cosine, weight = rest
        spread = (square - amplitude.square() / n).sum()
        bands = _explained(self._in_band @ error, self._in_band @ power)
        return {
            "waveform_ev": float(_explained(wave_error, wave_power)),
            "amplitude_ev": float(_explained(amplitude_error, spread)),
            "phase_cosine": float(cosine / weight.clamp(min=1e-12)),
            **{f"waveform_ev_{name}": float(value) for name, value in zip(BANDS_HZ, bands, strict=True)},
        }


def _power(x: Tensor) -> Tensor:
    """Power of patches (B, C, P, L) at each frequency, summed, (F,)."""
    return torch.fft.rfft(x.float()).abs().square().flatten(0, 2).sum(0).double()


def _total(x: Tensor) -> Tensor:
    return x.sum().double()[None]


def _explained(error: Tensor, variance: Tensor) -> Tensor:
    return 1 - error / variance.clamp(min=1e-12)
