"""Weights on disk and on the Hub: reading, naming, saving, and saying what was and was not used.

All names that the same tensor has elsewhere stand in this file. Three layouts are read:

    ours         backbone.blocks.3.sgconv.kernel            one tensor (rows, features, taps of all scales)
    braindecode  residual_layer.residual_blocks.3.sgconv.kernel_list.0 ... .9
    upstream     module.residual_layer.residual_blocks.3.S41.kernel_list.0.kernel ... , weight_g / weight_v, sn, D
"""

import json
import logging
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codebrain.sgconv import DECAY, TAPS, n_scales, norm_of_kernel

logger = logging.getLogger(__name__)

MODEL_TYPE = "codebrain"
"""``model_type`` in config.json: tells a backbone from a tokenizer."""

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "CodeBrain.pth")
"""What the weights of a folder or Hub repository are called: ours and braindecode's, older ones, upstream's."""

WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pth", ".pt"}
"""How files of weights end."""

HEADS = ("final_layer.", "head_t.", "head_f.")
"""Tensors that depend on the task or on the codebooks: loaded where they fit, reported where they do not."""

SAME_SIZE = {
    **{"n_chans": "chs_info", "chs_info": "n_chans"},
    **{"n_times": "input_window_seconds", "input_window_seconds": "n_times"},
}
"""Arguments that give the same size: a new value of one replaces a saved value of the other."""

RELEASED_LMAX = 570
"""``s4_lmax`` of the released weights: a kernel's shape tells it up to the next power of two only."""


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------

_UPSTREAM_TO_BRAINDECODE = (
    (re.compile(r"^(module\.|_orig_mod\.)+"), ""),
    (re.compile(r"\.S41\."), ".sgconv."),
    (re.compile(r"\.sn\."), ".rms_norm."),
    (re.compile(r"\.D$"), ".skip_weight"),
    (re.compile(r"\.kernel_list\.(\d+)\.kernel$"), r".kernel_list.\1"),
    (re.compile(r"\.weight_g$"), ".parametrizations.weight.original0"),
    (re.compile(r"\.weight_v$"), ".parametrizations.weight.original1"),
)

_BLOCK = "residual_layer.residual_blocks."
_BRAINDECODE_TO_OURS = (
    ("patch_embedding.proj_in.", "backbone.patch_embedding.temporal."),
    ("patch_embedding.spectral_proj.0.", "backbone.patch_embedding.spectral."),
    ("patch_embedding.positional_encoding.0.", "backbone.patch_embedding.positional."),
    ("patch_embedding.mask_encoding", "backbone.patch_embedding.mask_encoding"),
    ("init_conv.0.conv.", "backbone.input."),
    ("final_conv.0.conv.", "backbone.gather."),
    ("final_conv.2.conv.", "backbone.output."),
    ("norm.", "backbone.norm."),
    ("lm_head_t.", "head_t."),
    ("lm_head_f.", "head_f."),
    ("final_layer.", "final_layer."),
)
_BRAINDECODE_TO_OURS_IN_BLOCK = (
    ("rms_norm.", "norm."),
    ("conv_layer.conv.", "expand."),
    ("sgconv.output_linear.", "sgconv.out."),
    ("sgconv.skip_weight", "sgconv.skip"),
    ("sgconv.", "sgconv."),
    ("attention.", "attention."),
    ("res_conv.", "residual."),
    ("skip_conv.", "skip."),
)
_WEIGHT_NORM = (("parametrizations.weight.original0", "weight_g"), ("parametrizations.weight.original1", "weight_v"))


def to_ours(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring a ``state_dict`` of any of the three layouts into ours.

    Names that no layout has are kept, so that whoever loads the result can report them.

    Raises
    ------
    ValueError
        If a kernel was made with a decay other than 2, which this model cannot express.
    """
    plain = {_apply(_UPSTREAM_TO_BRAINDECODE[:1], name): value for name, value in state_dict.items()}
    if any(name.startswith("backbone.") for name in plain):
        return plain
    named = {_apply(_UPSTREAM_TO_BRAINDECODE, name): value for name, value in plain.items()}
    ours = {_rename(name, inverse=False): _to_our_shape(name, value) for name, value in named.items()}
    for prefix in sorted({name.rpartition("kernel_list.")[0] for name in ours if ".kernel_list." in name}):
        _join_kernels(ours, prefix)
    return ours


def to_braindecode(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a ``state_dict`` of any layout braindecode's names and shapes, as its ``CodeBrain`` loads strictly."""
    theirs: dict[str, Tensor] = {}
    for name, value in to_ours(state_dict).items():
        target = _rename(name, inverse=True)
        if name.endswith(".sgconv.kernel"):
            prefix = target.removesuffix("kernel")
            for index, kernel in enumerate(value.split(TAPS, dim=-1)):
                theirs[f"{prefix}kernel_list.{index}"] = kernel.contiguous()
            theirs[f"{prefix}multiplier"] = torch.full((1, value.shape[1], 1), DECAY, dtype=value.dtype)
            theirs[f"{prefix}kernel_norm_initialized"] = torch.tensor(True)
        elif name.endswith(".weight_g"):
            theirs[target] = value[:, None, None]
        elif name.endswith(".sgconv.kernel_norm") or name == "backbone.output.weight":
            theirs[target] = value.unsqueeze(-1)
        elif name.endswith(".norm.scale"):
            theirs[target] = value[None, :, None]
        else:
            theirs[target] = value
    return theirs


def _apply(rules: Iterable[tuple[re.Pattern[str], str]], name: str) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def _rename(name: str, *, inverse: bool) -> str:
    """Translate one name between braindecode's layout and ours; a name without a translation stays as it is."""
    here, there = ("backbone.blocks.", _BLOCK) if inverse else (_BLOCK, "backbone.blocks.")
    if name.startswith(here):
        index, _, rest = name.removeprefix(here).partition(".")
        return f"{there}{index}.{_swap(rest, _BRAINDECODE_TO_OURS_IN_BLOCK, inverse)}"
    return _swap(name, _BRAINDECODE_TO_OURS, inverse)


def _swap(name: str, table: Iterable[tuple[str, str]], inverse: bool) -> str:
    for theirs, ours in table:
        old, new = (ours, theirs) if inverse else (theirs, ours)
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    for theirs, ours in _WEIGHT_NORM:
        old, new = (ours, theirs) if inverse else (theirs, ours)
        if name.endswith("." + old):
            return name.removesuffix(old) + new
    return name


def _to_our_shape(name: str, value: Tensor) -> Tensor:
    """Drop the dimensions of size one that braindecode's tensors carry and ours do not."""
    if name.endswith((".weight.original0", ".rms_norm.scale")):
        return value.flatten()
    if name.endswith(".kernel_norm") or name == "final_conv.2.conv.weight":
        return value.squeeze(-1)
    return value


def _join_kernels(ours: dict[str, Tensor], prefix: str) -> None:
    """Replace the kernels of one SGConv by one tensor, and its constants by the norm that they lead to."""
    names = [name for name in ours if name.startswith(f"{prefix}kernel_list.")]
    in_order = [f"{prefix}kernel_list.{index}" for index in range(len(names))]
    if set(names) != set(in_order):
        raise ValueError(
            f"the kernels {prefix}kernel_list. are not 0, 1, 2 ... but {_some(sorted(names))}: one is missing"
        )
    kernel = torch.cat([ours.pop(name) for name in in_order], dim=-1)
    decay = ours.pop(f"{prefix}multiplier", None)
    if decay is not None and not torch.all(decay == DECAY):
        raise ValueError(
            f"{prefix}multiplier is {decay.flatten()[0].item()}, but only kernels with a decay of {DECAY} can be loaded"
        )
    ours[f"{prefix}kernel"] = kernel
    initialized = ours.pop(f"{prefix}kernel_norm_initialized", None)
    if initialized is not None and not initialized:
        # Saved before the first forward pass, which is when that code would have taken the norm.
        ours[f"{prefix}kernel_norm"] = norm_of_kernel(kernel)


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Where a model lies: its weights and, unless it is a bare file, its config.json."""

    weights: Path
    config: Path | None


def resolve(source: str | os.PathLike[str], **hub: Any) -> Source:
    """Find the files of a model.

    Parameters
    ----------
    source : path or str
        A run folder (its ``export/`` is taken), an export folder, a ``.safetensors``, ``.pth`` or ``.bin`` file, or a
        Hub id such as ``user/model``.
    **hub
        ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download`` of ``hf_hub_download``.

    Raises
    ------
    FileNotFoundError
        If there is nothing of the kind; the message says what was looked for. A name beside which files lie here is a
        path, and the Hub is not asked for it.
    ValueError
        If the name is empty, or the Hub cannot be reached or does not give the model away.
    """
    if not str(source):
        raise ValueError("the name of the model is empty: pass a folder, a file or a Hub id (user/model)")
    path = Path(source)
    if path.is_file():
        return Source(path, None)
    if path.is_dir():
        return _in_folder(path)
    is_id = re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(source)) and path.suffix.lower() not in WEIGHT_SUFFIXES
    if is_id and not path.parent.exists():
        return _on_hub(str(source), hub)
    raise FileNotFoundError(f"{source}: no such file or folder, and not a Hub id (user/model). {_beside(path)}")


def _beside(path: Path) -> str:
    """Say what lies where ``path`` was looked for."""
    folder = path.parent
    if not folder.is_dir():
        return f"There is no folder {folder} either"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return f"The folder {folder.resolve()} holds {_some(names) if names else 'nothing'}"


def _in_folder(folder: Path) -> Source:
    if (folder / "export").is_dir():
        folder = folder / "export"
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            config = folder / "config.json"
            return Source(folder / name, config if config.is_file() else None)
    hint = ""
    if (folder / "checkpoints").is_dir():
        hint = (
            ". It is a run that has not written its export/ yet: launch it again with the same --run_dir to finish it"
        )
    raise FileNotFoundError(f"{folder}: no weights here (looked for {', '.join(WEIGHT_FILES)}){hint}")


def _on_hub(repo_id: str, hub: Mapping[str, Any]) -> Source:
    options, unreachable = dict(hub), False

    def fetch(name: str) -> Path | None:
        nonlocal unreachable
        try:
            return Path(hf_hub_download(repo_id, name, **options))
        except LocalEntryNotFoundError:
            # No network, and not in the cache. Another file may be: ask the cache alone, the network is slow to fail.
            unreachable = options["local_files_only"] = True
            return None
        except (GatedRepoError, RevisionNotFoundError) as error:
            raise ValueError(f"{repo_id}: {str(error).splitlines()[-1]}") from error
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise FileNotFoundError(f"{repo_id}: neither a file or folder here nor a model on the Hub") from error
        except EntryNotFoundError:
            return None
        except OSError as error:
            raise ValueError(_unreachable(repo_id)) from error

    for name in WEIGHT_FILES:
        if weights := fetch(name):
            return Source(weights, fetch("config.json"))
    if unreachable:
        raise ValueError(_unreachable(repo_id))
    raise FileNotFoundError(
        f"{repo_id}: no such file or folder here, and no weights of that name on the Hub (looked for "
        f"{', '.join(WEIGHT_FILES)})"
    )


def _unreachable(repo_id: str) -> str:
    return (
        f"{repo_id}: no such file or folder here, not in the cache of the Hub, and the Hub cannot be asked "
        "(no network, local_files_only, or HF_HUB_OFFLINE is set): download the model first and pass its folder"
    )


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file or of a pickle, without running any code that the pickle names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, holds other things than tensors, or none at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it is no file of weights, or holds Python objects that could run code when read. "
            "Save the model's state_dict() alone"
        ) from error
    except (MemoryError, OSError):  # says itself what is wrong
        raise
    except Exception as error:  # a damaged pickle raises what it likes, IndexError and AttributeError too
        raise ValueError(
            f"{path} cannot be read as weights, it may be incomplete ({type(error).__name__}: {error}): copy or "
            "download it again"
        ) from error
    if not isinstance(content, Mapping) or not content:
        raise ValueError(
            f"{path} holds a {type(content).__name__} instead of named tensors: save the model's state_dict()"
        )
    strange = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(
            f"{path} holds entries that are no tensors ({_some(strange)}): save the model's state_dict() alone"
        )
    return dict(content)


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json of ours or braindecode's as constructor arguments."""
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__} instead of named arguments")
    kind = config.pop("model_type", MODEL_TYPE)
    if kind != MODEL_TYPE:
        raise ValueError(f"{path.parent} holds a model of type {kind!r}, expected {MODEL_TYPE!r}: pass a backbone")
    return {name: value for name, value in config.items() if name not in {"braindecode_version", "codebrain_version"}}


def infer_config(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of a model off its tensors (our layout), for files that come without a config.json.

    What leaves no trace in a shape stays at its default, that of the released model: attention window, dropout,
    activation, groups and padding of the patch embedding.
    """

    def shape(name: str) -> torch.Size:
        if name not in state_dict:
            raise ValueError(
                f"these are no weights of a CodeBrain backbone: there is no {name} among {_some(state_dict)}"
            )
        return state_dict[name].shape

    rows, width, taps = shape("backbone.blocks.0.sgconv.kernel")
    n_channels = shape("backbone.blocks.0.sgconv.skip")[0]
    scales = taps // TAPS
    positional = shape("backbone.patch_embedding.positional.weight")
    first = shape("backbone.patch_embedding.temporal.0.weight")
    config: dict[str, Any] = {
        "patch_size": 2 * (shape("backbone.patch_embedding.spectral.weight")[1] - 1),
        "res_channels": width // 2,
        "skip_channels": shape("backbone.gather.weight_v")[0],
        "out_channels": shape("backbone.output.weight")[0],
        "num_res_layers": len({name.split(".")[2] for name in state_dict if name.startswith("backbone.blocks.")}),
        "s4_bidirectional": rows == 2 * n_channels,
        "s4_layernorm": "backbone.blocks.0.sgconv.norm.weight" in state_dict,
        "conv_out_chans": first[0],
        "proj_kernel_size": first[-1],
        "proj_padding": first[-1] // 2,
        "proj_refine_kernel": shape("backbone.patch_embedding.temporal.3.weight")[-1],
        "pos_kernel": tuple(positional[-2:]),
    }
    config["s4_lmax"] = RELEASED_LMAX if n_scales(RELEASED_LMAX) == scales else 2**scales
    for argument, head in (("codebook_size_t", "head_t.weight"), ("codebook_size_f", "head_f.weight")):
        if head in state_dict:
            config[argument] = len(state_dict[head])
    return config


# ---------------------------------------------------------------------------------------------------------------------
# Loading
# ---------------------------------------------------------------------------------------------------------------------


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


def load(model: nn.Module, state_dict: Mapping[str, Tensor]) -> LoadReport:
    """Copy a checkpoint of any layout into a model: the backbone entirely or not at all, heads where they fit.

    Raises
    ------
    ValueError
        If a tensor of the backbone is missing, has another shape, or is one that the model does not know. Nothing has
        been copied then.
    """
    ours, target = to_ours(state_dict), model.state_dict()
    fits = [name for name, value in target.items() if name in ours and ours[name].shape == value.shape]
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


class HubModel(PyTorchModelHubMixin):
    """``save_pretrained``, ``push_to_hub`` and ``from_pretrained`` for the models of this package."""

    load_report: LoadReport | None = None
    """What ``from_pretrained`` loaded."""

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
            whose shape changes are new, everything else is loaded.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such model, a file is damaged, or its backbone (with ``strict``, any tensor) does not fit.
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
        config = read_config(files.config) if files.config else infer_config(state_dict)
        try:
            outdated = {SAME_SIZE[name] for name, value in overrides.items() if name in SAME_SIZE and value is not None}
            config = {name: value for name, value in config.items() if name not in outdated}
            model = cls.from_config({**config, **overrides})
        except TypeError as error:
            raise ValueError(f"{files.config or source}: an argument has a value of another kind: {error}") from error
        model.load_report = load(model, state_dict)  # type: ignore[arg-type]
        if strict and (model.load_report.fresh or model.load_report.unused):
            raise ValueError(f"{source} does not fit strictly: {model.load_report}. Pass strict=False for new heads")
        logger.info("%s: %s", source, model.load_report)
        return model.eval().to(map_location)  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load tensors of any of the three layouts as ``torch.nn.Module.load_state_dict`` does.

        Raises
        ------
        ValueError
            If not a single tensor has a name of this model, even with ``strict=False``.
        """
        ours = to_ours(state_dict)
        if not ours.keys() & self.state_dict().keys():  # type: ignore[attr-defined]
            raise ValueError(f"none of these tensors belongs to {type(self).__name__}: {_some(state_dict)}")
        return super().load_state_dict(ours, strict=strict, assign=assign)  # type: ignore[misc]

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        config: Any = None,
        model_card_kwargs: Any = None,
        **hub: Any,
    ) -> str | None:
        """Write config.json, model.safetensors and README.md, and upload them if ``push_to_hub``.

        The mixin's own removes config.json before it writes; here a save that is interrupted leaves the model that lay
        there before, or none. ``config`` and ``model_card_kwargs``, which the mixin passes, are the model's own.

        Raises
        ------
        ValueError
            If the model is folded.
        """
        from codebrain.model_card import model_card

        self.refuse_folded("save_pretrained")
        folder = Path(save_directory)
        write_model(folder, self.state_dict(), {"model_type": MODEL_TYPE, **self.get_config()}, model_card(self))  # type: ignore[attr-defined]
        return self.push_to_hub(repo_id or folder.name, **hub) if push_to_hub else None


def write_model(folder: Path, state_dict: Mapping[str, Tensor], config: Mapping[str, Any], card: str) -> None:
    """Write the three files of a model so that an interrupted save never leaves a folder that looks like one.

    All files are whole before the first takes its place, and the weights, without which a folder holds no model, come
    last: new ones never stand beside the config of old ones.
    """
    tensors = {name: value.detach().contiguous() for name, value in state_dict.items()}
    writers: dict[str, Callable[[Path], Any]] = {
        "README.md": lambda path: path.write_text(card),
        "config.json": lambda path: path.write_text(json.dumps(config, indent=2) + "\n"),
        "model.safetensors": lambda path: save_file(tensors, path, metadata={"format": "pt"}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / f"{name}.partial" for name in writers}
    try:
        for name, write in writers.items():
            write(partial[name])
        (folder / "model.safetensors").unlink(missing_ok=True)
        for name, path in partial.items():
            os.replace(path, folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def _some(names: Iterable[Any], limit: int = 4) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
