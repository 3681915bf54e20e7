"""What the tensors of a fine-tuned model are called, in the two layouts that are read.

ours         backbone.* , head.classify.0.weight ...       any head
braindecode  patch_embedding.* ... , final_layer.1.weight  a head that `braindecode.models.CodeBrain` has: a plain `mlp`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from codebrain.backbone import EEGSSM
from codebrain.hub import CLASSIFIER, HEADS
from codebrain.layouts import to_braindecode, to_ours
from finetune.heads import Head, HeadConfig

_LAYERS = "head.classify."


def braindecode_has(backbone: EEGSSM, head: Head) -> bool:
    """Whether braindecode's class computes the same from the same numbers."""
    sizes = head.config
    moved = head.shift.any() or head.answer_shift.any() or (head.scale != 1).any() or (head.answer_scale != 1).any()
    return sizes.kind == "mlp" and not moved and sizes.first_layer % sizes.width == 0 and backbone.is_braindecodes


def braindecode_arguments(head: HeadConfig) -> dict[str, Any]:
    """Arguments of braindecode's class for the head; those for the backbone and the windows come on top."""
    return {
        "n_outputs": head.n_outputs,
        "n_chans": head.n_chans,
        "mlp_hidden_multiplier": head.first_layer // head.width,
        # It always has heads for codes: as small as can be.
        "codebook_size_t": 1,
        "codebook_size_f": 1,
    }


def classifier_to_braindecode(state_dict: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Weights of a `Classifier` under braindecode's names; its classifier begins with `nn.Flatten`."""
    named = {name: value for name, value in state_dict.items() if name.startswith("backbone.")}
    for name, value in state_dict.items():
        if name.startswith(_LAYERS):
            layer, _, rest = name.removeprefix(_LAYERS).partition(".")
            named[f"{CLASSIFIER}{int(layer) + 1}.{rest}"] = value
    codes = {"head_t.weight": torch.zeros(1, width), "head_f.weight": torch.zeros(1, width)}
    return to_braindecode({**named, **codes})


def classifier_to_ours(state_dict: Mapping[str, Tensor], head: Head) -> dict[str, Tensor]:
    """Weights of either layout under the names of a `Classifier` with this head, as it was built."""
    ours = to_ours(state_dict)
    if not any(name.startswith(CLASSIFIER) for name in ours):
        return ours
    found = {name: value for name, value in ours.items() if not name.startswith(HEADS)}
    for name, value in ours.items():
        if name.startswith(CLASSIFIER):
            layer, _, rest = name.removeprefix(CLASSIFIER).partition(".")
            found[f"{_LAYERS}{int(layer) - 1}.{rest}"] = value
    # Such a head shifts and scales nothing.
    return found | {f"head.{name}": value for name, value in head.named_buffers()}
