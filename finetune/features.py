"""Features of a pre-trained backbone as a step of a scikit-learn pipeline.

Shape letters: n windows, C channels, T samples, P patches per channel, D width of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import resample_poly
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from codebrain.backbone import BackboneConfig
from codebrain.channels import electrode_index
from codebrain.device import find_device
from codebrain.units import EEG_UV, wrong_unit
from finetune.classifier import backbone_features, freeze, load_backbone
from finetune.config import FROM_SCRATCH

_OTHER_UNIT = 100
"""Factor between the amplitudes of two sets of windows that may not be in the same unit."""


class CodeBrainFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Windows of EEG to features of a frozen backbone.

    Parameters
    ----------
    ckpt : str
        Pre-trained or fine-tuned model: run folder, export folder, Hub id, .pth or .safetensors.
    sfreq : float
        Sampling rate of the windows in Hz; they are resampled if the model's is another.
    ch_names : sequence of str, optional
        Names of the channels in any spelling, to be checked: scalp electrodes, as many as the windows have. The model
        sees the channels in the order in which they come.
    pooling : {"window", "channel", "patch"}
        Mean over channels and patches (D features), over patches (C * D), or none (C * P * D).
    batch_size : int
        Windows at a time.
    device : str
        Where the model runs; `auto` takes a GPU where there is one.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> model = make_pipeline(CodeBrainFeatures("RUN2", sfreq=200), LogisticRegression())
    """

    def __init__(
        self,
        ckpt: str,
        *,
        sfreq: float = 200.0,
        ch_names: Sequence[str] | None = None,
        pooling: Literal["window", "channel", "patch"] = "window",
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        self.ckpt = ckpt
        self.sfreq = sfreq
        self.ch_names = ch_names
        self.pooling = pooling
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: npt.ArrayLike, y: Any = None) -> Self:
        """Load the model and note the shape of the windows; nothing is learnt from them.

        Parameters
        ----------
        X : (n, C, T) array
            Microvolts.
        y
            Ignored.

        Raises
        ------
        FileNotFoundError, ValueError
            There is no such model, or the windows are not what it takes.
        """
        self._check_parameters()
        device = find_device(self.device)
        windows = self._checked(X)
        self.amplitude_uv_ = float(np.median(windows.std(axis=-1)))
        low, high = EEG_UV
        if not low <= self.amplitude_uv_ <= high:
            raise ValueError(
                f"the windows' median standard deviation is {self.amplitude_uv_:.3g}, which EEG in microvolts cannot "
                f"have ({low:g} to {high:g}). MNE gives volts: multiply by 1e6, and millivolts by 1e3"
            )
        self.n_chans_, self.n_times_ = windows.shape[1:]
        self.backbone_ = load_backbone(self.ckpt, BackboneConfig()).to(device)
        freeze(self.backbone_)
        shortest = self.backbone_.config.patch_size
        if self._resampled(windows[:1]).shape[-1] < shortest:
            seconds = self.n_times_ / self.sfreq
            raise ValueError(f"windows of {seconds:g} s are shorter than a patch of {shortest} samples")
        self._n_features_out = self._features(windows[:1]).shape[1]  # names get_feature_names_out
        return self

    def transform(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Features (n, F) of windows (n, C, T) in microvolts.

        Raises
        ------
        ValueError
            The windows have another shape than those of `fit`, or are in another unit.
        """
        check_is_fitted(self)
        windows = self._checked(X)
        if windows.shape[1:] != (self.n_chans_, self.n_times_):
            raise ValueError(
                f"windows have {windows.shape[1]} channels x {windows.shape[2]} samples; those of fit had "
                f"{self.n_chans_} x {self.n_times_}"
            )
        deviation = windows.std(axis=-1)
        amplitude = float(np.median(deviation))
        # A disconnected amplifier is no mistake of the user's, a thousand times less than at first is.
        differs = not self.amplitude_uv_ / _OTHER_UNIT < amplitude < self.amplitude_uv_ * _OTHER_UNIT
        if differs and wrong_unit(deviation):
            raise ValueError(
                f"the windows' median standard deviation is {amplitude:.3g}, that of the windows of fit was "
                f"{self.amplitude_uv_:.3g} microvolts: give both in microvolts "
                "(volts * 1e6, millivolts * 1e3)"
            )
        parts = [
            self._features(windows[first : first + self.batch_size])
            for first in range(0, len(windows), self.batch_size)
        ]
        return np.concatenate(parts)

    def _check_parameters(self) -> None:
        if self.pooling not in ("window", "channel", "patch"):
            raise ValueError(f"pooling {self.pooling!r} is unknown; allowed are window, channel and patch")
        for name in ("sfreq", "batch_size"):
            if not isinstance(value := getattr(self, name), Real) or value <= 0:
                raise ValueError(f"{name} is {value!r}; it must be a number above 0")
        if self.ckpt == FROM_SCRATCH:
            raise ValueError("ckpt 'none' has random weights, others at every fit: give a model that was trained")

    def _features(self, windows: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        device = next(self.backbone_.parameters()).device
        x = torch.from_numpy(self._resampled(windows).astype(np.float32)).to(device)
        with torch.inference_mode():
            found = backbone_features(self.backbone_, x)
        if not torch.isfinite(found).all():
            largest = float(np.abs(windows).max())
            raise FloatingPointError(
                f"features of windows that reach {largest:.3g} microvolts are NaN or infinite: reject such windows"
            )
        axes = {"window": (1, 2), "channel": (2,), "patch": ()}[self.pooling]
        return (found.mean(axes) if axes else found).flatten(1).cpu().numpy()

    def _resampled(self, windows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """At the model's rate, at which a patch is one second."""
        ratio = Fraction(self.backbone_.config.patch_size / self.sfreq).limit_denominator(10_000)
        if ratio == 1:
            return windows
        # Beyond a window's ends its trend goes on: zeros there would bend its first and last samples towards them.
        return resample_poly(windows, ratio.numerator, ratio.denominator, axis=-1, padtype="line")

    def _checked(self, X: npt.ArrayLike) -> npt.NDArray[np.floating]:
        windows = np.asarray(X)
        if windows.ndim != 3 or not len(windows):
            raise ValueError(f"expected windows (n, channels, samples), got an array of shape {windows.shape}")
        if self.ch_names is not None:
            electrode_index(self.ch_names)
            if len(set(self.ch_names)) < len(self.ch_names):
                twice = next(name for name in self.ch_names if list(self.ch_names).count(name) > 1)
                raise ValueError(f"channel {twice} is named twice in ch_names")
            if len(self.ch_names) != windows.shape[1]:
                raise ValueError(f"{len(self.ch_names)} ch_names for windows of {windows.shape[1]} channels")
        if not np.isfinite(windows).all():
            raise ValueError("windows hold values that are no numbers")
        return windows

    def __sklearn_tags__(self) -> Any:
        """Windows are arrays of three dimensions."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags
