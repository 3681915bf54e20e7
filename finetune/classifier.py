"""The classifier: backbone and head in one module that takes microvolts, and its folder on disk.

    export/config.json  sizes of backbone and head; what the outputs mean; which windows it takes and how they were
                        prepared, so that the same can be done to a new recording
           README.md    model card
           model.safetensors      weights of a head that is that of `braindecode.models.CodeBrain`, in its layout, or
           codebrain.safetensors  weights of any other head, which nothing but `load` reads

Shape letters: B batch, C channels, T samples, P patches per channel, D width, K outputs.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codebrain.backbone import EEGSSM, BackboneConfig
from codebrain.hub import training_record
from codebrain.model import CodeBrain
from codebrain.overrides import trained_rate
from codebrain.patches import deviations, is_rate, patchify, require_finite, to_model_units
from codebrain.saving import write_model
from codebrain.units import wrong_unit
from codebrain.weights import OWN_WEIGHTS, SHARED_WEIGHTS, Source, read_state_dict, read_values, require_fit, resolve
from finetune.config import FROM_SCRATCH
from finetune.heads import Head, HeadConfig
from finetune.layouts import braindecode_arguments, braindecode_has, classifier_to_braindecode, classifier_to_ours
from finetune.task import Task

MODEL_TYPE = "codebrain-classifier"

_IN_BRAINDECODE = """
`braindecode.models.CodeBrain.from_pretrained("PATH_OR_HUB_ID")` loads it too and gives the same logits of
`x_uv / 100`.
"""


class Classifier(nn.Module):
    """Backbone and head: windows in microvolts to logits.

    Parameters
    ----------
    backbone : EEGSSM
    head : Head
    contract : Contract, optional
        What the windows must be, as `load` reads it; without one they are taken as they are.
    """

    def __init__(self, backbone: EEGSSM, head: Head, contract: Contract | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.contract = contract
        self._warned_of_length = False

    def forward(self, x_uv: Tensor, *, prepared: bool = False) -> Tensor:
        """Logits (B, K) of windows (B, C, T); a sequence head takes (B, L, C, T) and gives (B, L, K).

        Parameters
        ----------
        x_uv : Tensor
            Microvolts.
        prepared : bool
            Whether the windows are those of a store or a recording that `data_prep` prepared for this model: their unit
            and rate are known then, and windows in which hardly anything moves are no sign of another.

        Raises
        ------
        ValueError
            Of a model that was loaded: the amplitudes of the windows are none that EEG has in microvolts, their number
            of samples is not that of the training, or (on a CPU) they hold a NaN or an infinity.
        FloatingPointError
            Of a model that was loaded, in evaluation mode: the logits are NaN or infinite.

        Warns
        -----
        UserWarning
            Once, if the windows of a head that takes any length are not as long as those of the training.
        """
        checked = self.contract is not None and not prepared and not torch.compiler.is_compiling()
        if checked:
            self._check(x_uv)
        logits = self.head(backbone_features(self.backbone, x_uv))
        if checked and not self.training and not torch.isfinite(logits).all():
            raise FloatingPointError(
                f"the logits of windows that reach {x_uv.abs().max():.3g} microvolts are NaN or infinite: reject them"
            )
        return logits

    def _check(self, x_uv: Tensor) -> None:
        assert self.contract is not None
        patches = patchify(x_uv.flatten(0, -3) if x_uv.ndim > 3 else x_uv, self.backbone.config.patch_size)
        self._check_length(x_uv.shape[-1], self.contract)
        require_finite(patches, self.contract.ch_names if patches.shape[1] == len(self.contract.ch_names) else None)
        if fault := wrong_unit(deviations(patches)):
            raise ValueError(fault)

    def _check_length(self, n_samples: int, contract: Contract) -> None:
        if n_samples == contract.n_times or self._warned_of_length:
            return
        seconds = contract.n_times / contract.sfreq
        difference = (
            f"windows of {n_samples} samples for a model that was trained on {contract.n_times}, {seconds:g} s at "
            f"{contract.sfreq:g} Hz. If they are {seconds:g} s at {n_samples / seconds:g} Hz, resample them"
        )
        if not self.head.config.any_length:
            raise ValueError(f"{difference}; otherwise cut windows of that length")
        self._warned_of_length = True
        warnings.warn(f"{difference}; otherwise nothing is wrong, this head takes any length", stacklevel=6)


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
        model = CodeBrain.from_pretrained(ckpt, n_outputs=None)
        rate, patch_size = trained_rate(model.get_config(), model.record), model.backbone.config.patch_size
        if not is_rate(rate, patch_size):
            raise ValueError(
                f"it was trained at {rate:g} Hz on patches of {patch_size} samples, that is {patch_size / rate:g} s; "
                "a patch must be one second here"
            )
        return model.backbone


@contextmanager
def _naming(ckpt: str) -> Iterator[None]:
    """Add to a message what was given and what may be given."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        remedy = "Give a stage-2 run, an export folder, a Hub id, a .pth or .safetensors, or `none` for random weights."
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"--ckpt {ckpt}: {error}. {remedy}") from error


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
    backbone = {
        **dataclasses.asdict(model.backbone.config),
        "activation": f"{activation.__module__}.{activation.__qualname__}",
    }
    config = {
        "model_type": MODEL_TYPE,
        "task": dataclasses.asdict(contract.task),
        "ch_names": contract.ch_names,
        "n_times": contract.n_times,
        "sfreq": contract.sfreq,
        "unit": "uV",
        "backbone": backbone,
        "head": dataclasses.asdict(model.head.config),
        "preparation": contract.preparation,
    }
    if not braindecode_has(model.backbone, model.head):
        write_model(Path(folder), OWN_WEIGHTS, model.state_dict(), config, card)
        return
    state_dict = classifier_to_braindecode(model.state_dict(), model.head.config.width)
    config = {**backbone, **braindecode_arguments(model.head.config), **config}
    write_model(Path(folder), SHARED_WEIGHTS, state_dict, config, card + _IN_BRAINDECODE)


def load(source: str | os.PathLike[str]) -> tuple[Classifier, Contract]:
    """Read a fine-tuned model: run folder, export folder or Hub id. The model is in evaluation mode.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such model, it is another kind of model, or a file is damaged; the message names it.
    """
    found = resolve(source)
    config = _config(found)
    if config is None:
        raise ValueError(f"{source} is no fine-tuned model; codebrain-finetune writes one to RUN/export")
    with _reading(found):
        contract = _contract(config)
        head = HeadConfig(**config["head"])
        _require_agreement(contract, head)
        model = Classifier(CodeBrain.from_config(config["backbone"]).backbone, Head(head), contract)
    state_dict = classifier_to_ours(read_state_dict(found.weights), model.head)
    require_fit(model, state_dict, found.weights)
    model.load_state_dict(state_dict)
    return model.eval(), contract


def contract_of(source: str | os.PathLike[str]) -> Contract | None:
    """What a fine-tuned model takes, or None for any other model."""
    found = resolve(source)
    config = _config(found)
    if config is None:
        return None
    with _reading(found):
        return _contract(config)


@contextmanager
def _reading(found: Source) -> Iterator[None]:
    """Name the config.json in whatever is wrong with it."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{found.config} is damaged: it lacks {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{found.config} is damaged: {error}") from error


def _contract(config: dict[str, Any]) -> Contract:
    return Contract(
        task=Task(**{**config["task"], "class_names": tuple(config["task"]["class_names"])}),
        ch_names=tuple(config["ch_names"]),
        n_times=config["n_times"],
        sfreq=config["sfreq"],
        preparation=config["preparation"],
    )


def _require_agreement(contract: Contract, head: HeadConfig) -> None:
    """Raise ValueError if a head's sizes are not those of the windows and the classes."""
    task = contract.task
    n_classes = {"binary": 2, "regression": 0, "multiclass": head.n_outputs}.get(task.kind)
    if len(task.class_names) != n_classes or task.n_logits != head.n_outputs:
        raise ValueError(
            f"task.class_names {list(task.class_names)} of kind {task.kind!r} do not fit the {head.n_outputs} outputs "
            "of the head"
        )
    if len(contract.ch_names) != head.n_chans:
        raise ValueError(f"ch_names are {len(contract.ch_names)} channels, head.n_chans is {head.n_chans}")


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
    config = read_values(found.config)
    return config if config.get("model_type") == MODEL_TYPE else None
