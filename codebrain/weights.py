"""Models on disk and on the Hub: finding their files, and reading them without running what they hold."""

import hashlib
import json
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from codebrain.layouts import some

SHARED_WEIGHTS = "model.safetensors"
"""Weights that ``braindecode.models.CodeBrain`` loads completely, in its layout. An earlier version wrote all models
under this name in our layout, which is read too."""

OWN_WEIGHTS = "codebrain.safetensors"
"""Weights that only this project can load. They have a name of their own, since braindecode's ``from_pretrained`` takes
from ``model.safetensors`` the tensors whose names it knows, leaves the others random and does not report it."""

WEIGHT_FILES = (SHARED_WEIGHTS, OWN_WEIGHTS, "pytorch_model.bin", "CodeBrain.pth")
"""What the weights of a folder or Hub repository are called: ours and braindecode's, older ones, upstream's."""

WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pth", ".pt"}
"""How files of weights end."""


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
        A run folder (its ``export/`` is taken), an export folder, a ``.safetensors``, ``.pth`` or ``.bin`` file (with
        the config.json beside it, if it has the name of a folder's weights), or a Hub id such as ``user/model``.
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
        return _with_config(path) if path.name in WEIGHT_FILES else Source(path, None)
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
    return f"The folder {folder.resolve()} holds {some(names) if names else 'nothing'}"


def _in_folder(folder: Path) -> Source:
    if (folder / "export").is_dir():
        folder = folder / "export"
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return _with_config(folder / name)
    hint = ""
    if (folder / "checkpoints").is_dir():
        hint = (
            ". It is a run that has not written its export/ yet: launch it again with the same --run_dir to finish it"
        )
    raise FileNotFoundError(f"{folder}: no weights here (looked for {', '.join(WEIGHT_FILES)}){hint}")


def _with_config(weights: Path) -> Source:
    config = weights.with_name("config.json")
    return Source(weights, config if config.is_file() else None)


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


def fingerprint(model: nn.Module, sizes: Any) -> str:
    """Hash of a model's sizes, in any form whose `repr` tells them apart, and weights."""
    digest = hashlib.sha256(repr(sizes).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file or of a pickle, without running any code that the pickle names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, holds other things than tensors, none at all, or NaN or infinite weights.
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
            f"{path} holds entries that are no tensors ({some(strange)}): save the model's state_dict() alone"
        )
    _require_finite(content, path)
    return dict(content)


def _require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        value = tensor.float() if tensor.itemsize == 1 else tensor  # float8 has no isfinite
        if value.is_floating_point() and not (finite := torch.isfinite(value)).all():
            raise ValueError(
                f"{path}: {name} holds {int((~finite).sum())} NaN or infinite values of {value.numel()}, and every "
                "output would be one too. The training diverged, or the file is damaged: take an earlier checkpoint, "
                "or copy the file again"
            )


def require_fit(model: nn.Module, state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Raise ValueError, in one line, if tensors of the file `path` are missing, of another shape or unknown."""
    expected = model.state_dict()
    wrong = [
        *(f"{name} is missing" for name in expected if name not in state_dict),
        *(f"{name} is unknown" for name in state_dict if name not in expected),
        *(
            f"{name} has shape {tuple(value.shape)}, not {tuple(expected[name].shape)}"
            for name, value in state_dict.items()
            if name in expected and value.shape != expected[name].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        raise ValueError(
            f"{path} does not fit its config.json: {wrong[0]}{more}. It was written by another version of this project "
            "or changed since; export the run again, or load it with the version that wrote it"
        )


def read_values(path: Path) -> dict[str, Any]:
    """Named values of a JSON file; ValueError if it is damaged or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} instead of named values")
    return content


def read_config(path: Path, model_type: str, *, unnamed: str = "unknown") -> dict[str, Any]:
    """Named values of a model's config.json.

    Parameters
    ----------
    path : Path
    model_type : str
        The kind of model that is expected.
    unnamed : str
        The kind of a model whose config.json does not say it.

    Raises
    ------
    ValueError
        It is no JSON object, or belongs to another kind of model.
    """
    config = read_values(path)
    kind = config.pop("model_type", unnamed)
    if kind != model_type:
        raise ValueError(
            f"{path.parent} holds a model of type {kind!r}, expected {model_type!r}: pass the folder of such a model"
        )
    return config
