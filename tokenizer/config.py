"""Sizes of a tokenizer and what it is asked to restore."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from tokenizer.encoder import Norm
from tokenizer.inputs import montage_matrix, require_at_least, require_type
from tokenizer.targets import AmplitudeScale, PhaseForm, WaveformScale

COUNTS = ("max_patches", "width", "n_layers", "n_heads", "conv_features", "decoder_layers", "code_dim")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of a tokenizer and what its codes are asked to restore; the defaults are the paper's sizes."""

    patch_size: int = 200
    """Samples per patch."""
    sfreq: float = 200.0
    """Sampling rate that the model expects, in Hz."""
    max_patches: int = 60
    """Longest window, in patches: rows of the time embedding."""
    width: int = 200
    """Features per token."""
    n_layers: int = 12
    """Transformer blocks of the encoder."""
    n_heads: int = 10
    """Attention heads; divides the width."""
    mlp_ratio: float = 4.0
    """Hidden features of a block's MLP, as a multiple of the width."""
    conv_features: int = 8
    """Features of each convolution of TFConv; a multiple of 4."""
    conv_norm: Norm = "group"
    """TFConv's normalisation: per patch ("group") or over the micro-batch of one process ("batch", the paper's, with
    which the split of a batch over processes changes the result)."""
    linear_path: bool = True
    """Whether a linear map of the patch and its spectrum runs beside TFConv's convolutions (not in the paper)."""
    decoder_layers: int = 3
    """Transformer blocks of each decoder."""
    n_codes_t: int = 4096
    """Codes of the temporal codebook."""
    n_codes_f: int = 4096
    """Codes of the frequency codebook."""
    code_dim: int = 32
    """Dimension of a code."""
    decay: float = 0.99
    """Decay of the codebooks' moving averages, per optimizer step."""
    codebook_start: Literal["kmeans", "random"] = "kmeans"
    """Codes start by k-means over the patches of an encoder that has trained without quantisation for a while (see
    the trainer's `start.share`), or at random and from the first step on (as published)."""
    revive_below: float = 0.15
    """A code whose moving average of hits falls below this fraction of the codes' mean is put on a patch of the current
    batch; 0 leaves dead codes dead."""
    rotation_trick: bool = False
    """Pass the gradient through the quantiser by rotation instead of straight through (the paper's)."""
    waveform: WaveformScale = "patch"
    """Waveform to restore: z-scored per patch ("patch") or microvolts / 100 ("raw", as published)."""
    amplitude: AmplitudeScale = "log"
    """Amplitude to restore, z-scored over the window: its logarithm ("log") or itself ("linear", as published)."""
    phase: PhaseForm = "vector"
    """Phase to restore: cosine and sine ("vector") or the angle z-scored over the window ("angle", as published)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            require_type(field.name, getattr(self, field.name), field.type)
        for name in COUNTS:
            require_at_least(1, name, getattr(self, name))
        for name in ("patch_size", "n_codes_t", "n_codes_f"):
            require_at_least(2, name, getattr(self, name))
        for name in ("sfreq", "mlp_ratio"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a number above 0")
        if not 0 < self.decay < 1:
            raise ValueError(f"decay={self.decay} must lie between 0 and 1, both excluded; 0.99 is usual")
        if self.width % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} does not divide width={self.width}; choose a divisor")
        if self.conv_features % 4:
            raise ValueError(f"conv_features={self.conv_features} is not a multiple of 4, the groups of its norm")
        if not 0 <= self.revive_below < 1:
            raise ValueError(
                f"revive_below={self.revive_below} is a fraction of the mean hits: 0 (never) up to below 1"
            )

    def check(self, ch_names: Sequence[str], n_times: int) -> None:
        """Raise ValueError if a model of these sizes cannot take windows of these channels and samples."""
        n_patches = n_times // self.patch_size
        if not 1 <= n_patches <= self.max_patches:
            raise ValueError(
                f"windows of {n_times} samples are {n_patches} patches of {self.patch_size}; this model takes 1 to "
                f"{self.max_patches}. Cut the windows, or train with a larger max_patches"
            )
        montage_matrix(ch_names)
