"""The classifier: backbone and head in one module that takes microvolts, and its folder on disk.

    export/config.json        sizes of backbone and head; what the outputs mean; which windows it takes and how they
                              were prepared, so that the same can be done to a new recording
           model.safetensors  weights
           README.md          model card

Shape letters: B batch, C channels, T samples, P patches per channel, D width, K outputs.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from codebrain.backbone import EEGSSM, BackboneConfig
from codebrain.hub import training_record
from codebrain.model import CodeBrain
from codebrain.patches import patchify, to_model_units
from codebrain.saving import write_model
from codebrain.weights import Source, read_state_dict, resolve
from finetune.config import FROM_SCRATCH
from finetune.heads import Head, HeadConfig
from finetune.task import Task

MODEL_TYPE = "codebrain-classifier"


class Classifier(nn.Module):
    """Backbone and head: windows in microvolts to logits."""

    def __init__(self, backbone: EEGSSM, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x_uv: Tensor) -> Tensor:
        """Windows (B, C, T) in microvolts to logits (B, K); a sequence head takes (B, L, C, T) and gives (B, L, K)."""
        return self.head(backbone_features(self.backbone, x_uv))


def backbone_features(backbone: EEGSSM, x_uv: Tensor) -> Tensor:
    """Features (..., C, P, D) of windows (..., C, T) in microvolts."""
    patches = patchify(to_model_units(x_uv.flatten(0, -3)), backbone.config.patch_size)
    return backbone(patches).unflatten(0, x_uv.shape[:-2])


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a fine-tuned model takes and what its outputs mean."""

    task: Task
    ch_names: tuple[str, ...]
    """Channels of the windows it was trained on, in their order."""
    n_times: int
    """Samples per window."""
    sfreq: float
    """Sampling rate in Hz."""
    preparation: dict[str, Any] = field(default_factory=dict)
    """Every constant of the preparation, from the task store."""


def load_backbone(ckpt: str, sizes: BackboneConfig) -> EEGSSM:
    """Backbone of a checkpoint, in evaluation mode.

    Parameters
    ----------
    ckpt : str
        As `FinetuneConfig.ckpt`; the run or export folder of a fine-tuned model gives its backbone.
    sizes : BackboneConfig
        For `none`, whose random weights come from torch's global generator.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such checkpoint, or it is something else, such as a tokenizer.
    """
    if ckpt == FROM_SCRATCH:
        return EEGSSM(sizes).eval()
    with _naming(ckpt):
        source = resolve(ckpt)
        if _config(source) is not None:
            return load(source.weights.parent)[0].backbone
        return CodeBrain.from_pretrained(ckpt, n_outputs=None).backbone


@contextmanager
def _naming(ckpt: str) -> Iterator[None]:
    """Add to a message what was given and what may be given."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        remedy = "Give a stage-2 run, an export folder, a Hub id, a .pth or .safetensors, or `none` for random weights."
        raise type(error)(f"--ckpt {ckpt}: {error}. {remedy}") from error


def record_of(ckpt: str) -> dict[str, Any]:
    """What a pre-trained model says of its training; nothing for a fine-tuned one, or released weights."""
    found = resolve(ckpt)
    return {} if _config(found) is not None else training_record(found)


def fresh_backbone(like: EEGSSM) -> EEGSSM:
    """A backbone of the same sizes with random weights from torch's global generator."""
    return EEGSSM(like.config, type(like.activation)).eval()


def save(folder: str | os.PathLike[str], model: Classifier, contract: Contract, *, card: str) -> None:
    """Write an export folder; an interrupted one holds no weights."""
    activation = type(model.backbone.activation)
    config = {
        "model_type": MODEL_TYPE,
        "task": dataclasses.asdict(contract.task),
        "ch_names": contract.ch_names,
        "n_times": contract.n_times,
        "sfreq": contract.sfreq,
        "unit": "uV",
        "backbone": {
            **dataclasses.asdict(model.backbone.config),
            "activation": f"{activation.__module__}.{activation.__qualname__}",
        },
        "head": dataclasses.asdict(model.head.config),
        "preparation": contract.preparation,
    }
    write_model(Path(folder), model.state_dict(), config, card)


def load(source: str | os.PathLike[str]) -> tuple[Classifier, Contract]:
    """Read a fine-tuned model: run folder, export folder or Hub id. The model is in evaluation mode.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such model, or it is another kind of model.
    """
    found = resolve(source)
    config = _config(found)
    if config is None:
        raise ValueError(f"{source} is no fine-tuned model; codebrain-finetune writes one to RUN/export")
    model = Classifier(CodeBrain.from_config(config["backbone"]).backbone, Head(HeadConfig(**config["head"])))
    model.load_state_dict(read_state_dict(found.weights))
    return model.eval(), _contract(config)


def contract_of(source: str | os.PathLike[str]) -> Contract | None:
    """What a fine-tuned model takes, or None for any other model."""
    config = _config(resolve(source))
    return None if config is None else _contract(config)


def _contract(config: dict[str, Any]) -> Contract:
    return Contract(
        task=Task(**{**config["task"], "class_names": tuple(config["task"]["class_names"])}),
        ch_names=tuple(config["ch_names"]),
        n_times=config["n_times"],
        sfreq=config["sfreq"],
        preparation=config["preparation"],
    )


def n_parameters(module: nn.Module) -> int:
    """Weights of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def freeze(module: nn.Module) -> nn.Module:
    """The module with no gradient and no dropout."""
    return module.requires_grad_(False).eval()


def layer_scale(name: str, n_layers: int, decay: float) -> float:
    """Factor on the learning rate of a backbone parameter: `decay` per layer below the top one.

    The embedding is the lowest of n_layers + 2 layers, what follows the blocks the highest.
    """
    part, *rest = name.split(".")
    if part in ("patch_embedding", "input"):
        depth = 0
    elif part == "blocks":
        depth = 1 + int(rest[0])
    else:
        depth = n_layers + 1
    return decay ** (n_layers + 1 - depth)


def _config(found: Source) -> dict[str, Any] | None:
    """The config.json of a fine-tuned model, or None for any other model."""
    if found.config is None:
        return None
    try:
        config = json.loads(found.config.read_text(encoding="utf-8"))
        return config if config.get("model_type") == MODEL_TYPE else None
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{found.config} is no valid JSON ({error})") from error
