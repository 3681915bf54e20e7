"""Loading models with a backbone from a folder or the Hub: what of a checkpoint was used, and what was not."""

import inspect
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from codebrain.backbone import EEGSSM
from codebrain.layouts import infer_config, some, to_braindecode, to_ours
from codebrain.model_card import model_card
from codebrain.overrides import CLASSIFIER_ARGUMENTS, replaced, require_rate, require_same, same_places, trained_rate
from codebrain.patches import PatchLengthWarning
from codebrain.saving import Saved
from codebrain.weights import SHARED_WEIGHTS, Source, read_config, read_state_dict, resolve

logger = logging.getLogger(__name__)

MODEL_TYPE = "codebrain"
"""``model_type`` in config.json: tells a backbone from a tokenizer."""

RECORD = "training"
"""Key of config.json under which a model says what is known of its training."""

CLASSIFIER = "final_layer."
"""Beginning of the names of the classifier's tensors."""

HEADS = (CLASSIFIER, "head_t.", "head_f.")
"""Tensors that depend on the task or on the codebooks: loaded where they fit, reported where they do not."""


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a checkpoint and of a model, by the names of our layout."""

    loaded: list[str] = field(default_factory=list)
    """In both, copied."""
    fresh: list[str] = field(default_factory=list)
    """Heads that the checkpoint lacks or has in another shape: left as initialised."""
    unused: list[str] = field(default_factory=list)
    """Heads of the checkpoint that the model lacks or has in another shape."""

    def __str__(self) -> str:
        text = f"loaded {len(self.loaded)} tensors"
        if self.fresh:
            text += f"; freshly initialised: {', '.join(self.fresh)}"
        if self.unused:
            text += f"; in the checkpoint but not used: {', '.join(self.unused)}"
        return text


def load(model: nn.Module, state_dict: Mapping[str, Tensor], *, leave: tuple[str, ...] = ()) -> LoadReport:
    """Copy a checkpoint of any layout into a model: the backbone entirely or not at all, heads where they fit.

    Parameters
    ----------
    model : nn.Module
    state_dict : mapping
    leave : tuple of str
        Beginnings of the names of heads that do not fit although their shapes do.

    Raises
    ------
    ValueError
        If a tensor of the backbone is missing, has another shape, or is one that the model does not know. Nothing has
        been copied then.
    """
    ours, target = to_ours(state_dict), model.state_dict()
    fits = [
        name
        for name, value in target.items()
        if name in ours and ours[name].shape == value.shape and not name.startswith(leave)
    ]
    fresh = [name for name in target if name not in set(fits)]
    unused = [name for name in ours if name not in set(fits)]
    wrong = [
        f"{name}: {tuple(ours[name].shape)} in the checkpoint, {tuple(target[name].shape)} in the model"
        if name in ours and name in target
        else f"{name}: {'missing from the checkpoint' if name in target else 'unknown to the model'}"
        for name in dict.fromkeys([*fresh, *unused])
        if not name.startswith(HEADS)
    ]
    if wrong:
        raise ValueError(
            f"the checkpoint does not fit the model, {len(wrong)} tensors of its backbone differ:\n  "
            + "\n  ".join(wrong[:8])
            + ("\n  ..." if len(wrong) > 8 else "")
        )
    nn.Module.load_state_dict(model, {name: ours[name] for name in fits}, strict=False)
    return LoadReport(fits, fresh, unused)


class HubModel(Saved):
    """``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` for the models of this package."""

    load_report: LoadReport | None = None
    """What ``from_pretrained`` loaded."""

    backbone: EEGSSM
    """What all of them have."""

    record: Mapping[str, Any] = MappingProxyType({})
    """What is known of the model's training, JSON-able. Stage 2 writes it; loading and saving keep it."""

    folded: bool = False
    """Whether this is a copy that :func:`codebrain.folding.fold` made."""

    def get_config(self) -> dict[str, Any]:
        """Return the JSON-serialisable constructor arguments."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build a model from what :meth:`get_config` returned, without weights."""
        raise NotImplementedError

    def refuse_folded(self, method: str) -> None:
        """Raise a ValueError if this model is folded: what ``method`` makes of it would fit no other model."""
        if self.folded:
            raise ValueError(f"{method} of a folded model: call it on the model itself, and fold after loading")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        map_location: str | torch.device = "cpu",
        strict: bool = False,
        **overrides: Any,
    ) -> Self:
        """Load a model, in evaluation mode, and report what was and was not used (``load_report``, and a log line).

        The log line is a warning where a head of the checkpoint was not used or one that the model uses is new.

        Parameters
        ----------
        pretrained_model_name_or_path : path or str
            A run folder, an export folder (ours or braindecode's), a Hub id, or a file: ``.safetensors``, or upstream's
            ``.pth``, which is never unpickled beyond tensors.
        revision, token, cache_dir, local_files_only, force_download
            As in ``huggingface_hub``.
        map_location : str or torch.device
            Device of the model.
        strict : bool
            Whether the heads must fit too. The backbone must in any case.
        **overrides
            Constructor arguments that replace the saved ones, such as ``n_outputs``, ``n_chans``, ``n_times``. Heads
            whose shape changes are new, and so is a classifier for other channels or another number of patches;
            everything else is loaded. ``n_outputs=None`` leaves the classifier out.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such model, a file is damaged or holds NaN, its backbone (with ``strict``, any tensor) does
            not fit, or an argument would make the weights compute something else than they were trained for: another
            sampling rate, attention window, activation, grouping or padding.
        """
        source = pretrained_model_name_or_path
        hub = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "force_download": force_download,
        }
        files = resolve(source, **hub)
        state_dict = to_ours(read_state_dict(files.weights))
        saved = _arguments(files.config) if files.config else infer_config(state_dict)
        record = training_record(files)
        try:
            cls._require_use(overrides)
            require_rate(str(source), trained_rate(saved, record), overrides)
            if files.config:
                require_same(str(source), saved, overrides)
            arguments = replaced(saved, overrides)
            with warnings.catch_warnings():
                # Of a rate that the checkpoint was trained at: nobody can mend it here.
                warnings.simplefilter("ignore", PatchLengthWarning)
                model = cls.from_config(arguments)
        except TypeError as error:
            raise ValueError(f"{files.config or source}: an argument has a value of another kind: {error}") from error
        leave = () if same_places(saved, arguments) else (CLASSIFIER,)
        model.load_report = report = load(model, state_dict, leave=leave)  # type: ignore[arg-type]
        model.record = record
        if strict and (report.fresh or report.unused):
            raise ValueError(f"{source} does not fit strictly: {report}. Pass strict=False for new heads")
        logger.log(model._level(report, overrides), "%s: %s", source, report)
        return model.eval().to(map_location)  # type: ignore[attr-defined]

    @classmethod
    def _require_use(cls, overrides: Mapping[str, Any]) -> None:
        """Raise ValueError for arguments that this class would ignore."""
        known = inspect.signature(cls.__init__).parameters
        useless = [name for name in overrides if name in CLASSIFIER_ARGUMENTS and name not in known]
        if useless:
            raise ValueError(f"{cls.__name__} has no classifier, so it takes no {', '.join(useless)}: leave that out")

    def _level(self, report: LoadReport, overrides: Mapping[str, Any]) -> int:
        """Level of the log line on what was loaded: a warning if a head in use is new, or a saved one was not used."""
        in_use = {name for name, value in self.named_parameters() if value.requires_grad}  # type: ignore[attr-defined]
        declined = (CLASSIFIER,) if overrides.get("n_outputs", ...) is None else ()
        lost = [name for name in report.unused if not name.startswith(declined)]
        return logging.WARNING if lost or in_use & set(report.fresh) else logging.INFO

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load tensors of any of the three layouts as ``torch.nn.Module.load_state_dict`` does.

        Raises
        ------
        ValueError
            If not a single tensor has a name of this model, even with ``strict=False``.
        """
        ours = to_ours(state_dict)
        if not ours.keys() & self.state_dict().keys():  # type: ignore[attr-defined]
            raise ValueError(f"none of these tensors belongs to {type(self).__name__}: {some(state_dict)}")
        return super().load_state_dict(ours, strict=strict, assign=assign)  # type: ignore[misc]

    def saved_weights(self) -> tuple[str, Mapping[str, Tensor]]:
        """Return braindecode's layout wherever its class computes the same, so that it loads there completely."""
        if not self.backbone.is_braindecodes:
            return super().saved_weights()
        return SHARED_WEIGHTS, to_braindecode(self.state_dict())  # type: ignore[attr-defined]

    def saved_config(self) -> dict[str, Any]:
        """Return the contents of config.json; ValueError if the model is folded."""
        self.refuse_folded("save_pretrained")
        return {"model_type": MODEL_TYPE, **self.get_config(), **({RECORD: dict(self.record)} if self.record else {})}

    def saved_card(self) -> str:
        """Return the model card."""
        return model_card(self)


def _arguments(path: Path) -> dict[str, Any]:
    """Constructor arguments in a config.json of ours or braindecode's."""
    config = read_config(path, MODEL_TYPE, unnamed=MODEL_TYPE)
    passed_over = {"braindecode_version", "codebrain_version", RECORD}
    return {name: value for name, value in config.items() if name not in passed_over}


def training_record(source: Source) -> dict[str, Any]:
    """What a model's config.json says of its training; nothing where there is none, or it is silent."""
    if source.config is None:
        return {}
    record = read_config(source.config, MODEL_TYPE, unnamed=MODEL_TYPE).get(RECORD, {})
    if not isinstance(record, dict):
        raise ValueError(f"{source.config}: {RECORD!r} is {record!r} instead of named values")
    return record
