"""What a tokenizer gives: codes, what they restore, and what the losses need of one forward pass.

Shapes: B windows, C channels, P patches per channel, L samples per patch, F = L//2 + 1 bins, D width.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Codes(NamedTuple):
    """Both token sequences of a batch of windows: `codes_t, codes_f = tokenizer.encode(...)`."""

    t: Tensor
    """(B, C, P) int64, temporal codes."""
    f: Tensor
    """(B, C, P) int64, frequency codes."""


@dataclass(frozen=True)
class Reconstruction:
    """What the decoders say of each patch, in the scale of `tokenizer.targets`."""

    waveform: Tensor
    """(B, C, P, L)"""
    amplitude: Tensor
    """(B, C, P, F)"""
    phase: Tensor
    """(B, C, P, 2F), cosines then sines, or (B, C, P, F) if the model predicts the angle."""


@dataclass(frozen=True)
class TokenizerOutput:
    """What one forward pass gives to the losses."""

    codes: Codes | None
    """Tokens of the windows; None while the codebooks wait for their k-means start."""
    reconstruction: Reconstruction
    """The decoders' predictions."""
    features: Tensor
    """(B, C, P, D), the encoder's, for the contrastive term."""
    commitment_t: Tensor
    """(), mean squared distance to the temporal codes."""
    commitment_f: Tensor
    """(), mean squared distance to the frequency codes."""
