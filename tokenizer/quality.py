"""How well the codes restore what they stand for, in figures that mean the same whatever a tokenizer was trained on.

Every tokenizer is measured on the default's scale: the waveform z-scored per patch and the logarithm of the amplitude
z-scored per window. What was trained on other targets is brought to that scale first, see `on_one_scale`.

Shapes: B windows, C channels, P patches per channel, L samples per patch, F = L//2 + 1 bins.
"""

from dataclasses import replace

import torch
from torch import Tensor

from codebrain.patches import patchify, to_model_units
from tokenizer.config import TokenizerConfig
from tokenizer.losses import restored_angle
from tokenizer.outputs import Reconstruction
from tokenizer.targets import Targets, log_amplitude, make_targets, one_sided, standardise, unstandardise

BANDS_HZ = {"delta": (0.5, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 75.0)}
"""The clinical bands; a bin belongs to the band that it is at the lower end of."""


class QualityTally:
    """Sums over patches from which the figures follow, so that batches and processes add up.

    Parameters
    ----------
    config : TokenizerConfig
        Of the tokenizer that is measured.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        self._config = config
        frequency = torch.arange(config.patch_size // 2 + 1) * (config.sfreq / config.patch_size)
        in_band = [(frequency >= low) & (frequency < high) for low, high in BANDS_HZ.values()]
        self._in_band = torch.stack(in_band).double()  # (bands, F)
        self._n_bins = len(frequency)
        self.sums = torch.zeros(4 * self._n_bins + 6, dtype=torch.float64)

    @torch.no_grad()
    def add(self, restored: Reconstruction, targets: Targets, x_uv: Tensor) -> None:
        """Add a batch of windows (B, C, T) in microvolts, what they should be restored to and what was."""
        restored, targets = on_one_scale(restored, targets, x_uv, self._config)
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

    def figures(self) -> dict[str, Tensor]:
        """Figures over everything added, or over other processes too if their `sums` were added to this one's.

        Returns
        -------
        dict of str to Tensor, (), on the device of the windows
            waveform_ev, amplitude_ev: explained variance, 1 for perfect, 0 for the mean (of each frequency, for the
            amplitude). phase_cosine: mean cosine of the phase error, weighted by amplitude. waveform_ev_delta to
            _gamma: explained power of the waveform in a band.
        """
        error, power, amplitude, square, rest = self.sums.split([*[self._n_bins] * 4, 6])
        wave_error, wave_power, amplitude_error, n, cosine, weight = rest
        spread = (square - amplitude.square() / n).sum()
        in_band = self._in_band.to(self.sums.device)
        bands = _explained(in_band @ error, in_band @ power)
        return {
            "waveform_ev": _explained(wave_error, wave_power),
            "amplitude_ev": _explained(amplitude_error, spread),
            "phase_cosine": cosine / weight.clamp(min=1e-12),
            **{f"waveform_ev_{name}": value for name, value in zip(BANDS_HZ, bands, strict=True)},
        }


def on_one_scale(
    restored: Reconstruction, targets: Targets, x_uv: Tensor, config: TokenizerConfig
) -> tuple[Reconstruction, Targets]:
    """What was restored, and what it should have been, on the scale of the default targets; theirs stay as they are.

    A raw waveform is divided by the standard deviation of the recorded patch, and its own mean is taken out: the
    z-scored waveform has none. A linear amplitude is scaled back by its window's own statistics, as its target was
    scaled, and its logarithm z-scored by those of the recorded logarithm.
    """
    if config.waveform == "patch" and config.amplitude == "log":
        return restored, targets
    patches = patchify(to_model_units(x_uv.float()), config.patch_size)
    waveform, amplitude = restored.waveform, restored.amplitude
    if config.waveform == "raw":
        offset = patches.mean(-1, keepdim=True) - waveform.mean(-1, keepdim=True)
        waveform = standardise(waveform + offset, like=patches)
    if config.amplitude == "linear":
        window, size = (1, 2, 3), one_sided(patches).abs()
        heights = log_amplitude(unstandardise(amplitude, window, like=size).clamp(min=0))
        amplitude = standardise(heights, window, like=log_amplitude(size))
    default = make_targets(patches, waveform="patch", amplitude="log")
    return replace(restored, waveform=waveform, amplitude=amplitude), default


def _power(x: Tensor) -> Tensor:
    """Power of patches (B, C, P, L) at each frequency, summed, (F,)."""
    return torch.fft.rfft(x.float()).abs().square().flatten(0, 2).sum(0).double()


def _total(x: Tensor) -> Tensor:
    return x.sum().double()[None]


def _explained(error: Tensor, variance: Tensor) -> Tensor:
    return 1 - error / variance.clamp(min=1e-12)
