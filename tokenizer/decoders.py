"""The two decoders: the waveform from temporal codes, amplitude and phase from frequency codes.

Each sees the codes of the whole window, so that a patch is restored from its own code and its neighbours'.

Shapes: B windows, C channels, P patches per channel, L samples per patch, F = L//2 + 1 bins, D width.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tokenizer.targets import PhaseForm
from tokenizer.transformer import Trunk


class Decoder(nn.Module):
    """From code vectors to one or more predictions per patch.

    Parameters
    ----------
    code_dim : int
        Dimension of a code.
    outputs : dict of str to int
        Size of each prediction, by name.
    width, **trunk
        As in `Trunk`.
    """

    def __init__(self, *, code_dim: int, outputs: dict[str, int], width: int, **trunk: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(code_dim, width)
        self.trunk = Trunk(width=width, **trunk)
        self.heads = nn.ModuleDict({name: _head(width, size) for name, size in outputs.items()})

    def forward(self, quantized: Tensor, montage: Tensor) -> dict[str, Tensor]:
        """Map code vectors (B, C, P, code_dim) to each prediction (B, C, P, size), in float32."""
        # A code is a unit vector; its features are brought to size 1, or place and time would drown it.
        features = self.trunk(self.embed(quantized * math.sqrt(quantized.shape[-1])), montage)
        return {name: head(features).float() for name, head in self.heads.items()}

    @torch.no_grad()
    def start_at(self, name: str, value: Tensor) -> None:
        """Let a prediction start out around `value` (size,) instead of zero."""
        self.heads[name][-1].bias.copy_(value)  # type: ignore[index]


def temporal_outputs(patch_size: int) -> dict[str, int]:
    """Predictions of the temporal decoder."""
    return {"waveform": patch_size}


def frequency_outputs(patch_size: int, phase: PhaseForm) -> dict[str, int]:
    """Predictions of the frequency decoder; a phase vector has a cosine and a sine for each bin."""
    n_bins = patch_size // 2 + 1
    return {"amplitude": n_bins, "phase": 2 * n_bins if phase == "vector" else n_bins}


def _head(width: int, size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, size))
