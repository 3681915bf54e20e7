"""Checkpoints: a folder per saved step that appears under its name only when it is complete.

    checkpoints/step-00001000/  model.safetensors   weights and codebooks, under the names of the unwrapped model
                                optimizer.pt        AdamW's state (tensors only, read with weights_only=True)
                                state.json          step, processes, running sums, best value, sizes and hashes

The order of the data and every random draw are functions of (seed, step), so no generator's state is kept, and one
process writes what all of them resume from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codebrain.data.format import PARTIAL_SUFFIX, publish

_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.pt", "state.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A complete and undamaged checkpoint."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer updates made."""
        return int(self.state["step"])

    def weights(self) -> dict[str, Tensor]:
        """The model's state_dict."""
        return load_file(self.path / _MODEL)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put weights and optimizer state back where they came from."""
        model.load_state_dict(self.weights())
        optimizer.load_state_dict(torch.load(self.path / _OPTIMIZER, map_location="cpu", weights_only=True))


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Checkpoint:
    """Write `folder/step-XXXXXXXX`; an error (a full disk) leaves the checkpoints before it as they are.

    Parameters
    ----------
    folder : Path
        The run's `checkpoints`.
    model : nn.Module
        Unwrapped: neither compiled nor distributed, whose prefixes must not get into the names.
    optimizer : Optimizer
    state : dict
        JSON-able, with the key `step`.
    """
    final = folder / f"step-{state['step']:08d}"
    partial = folder / (final.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        save_file(tensors, partial / _MODEL)
        torch.save(optimizer.state_dict(), partial / _OPTIMIZER)
        state = {**state, "files": {name: _identity(partial / name) for name in (_MODEL, _OPTIMIZER)}}
        (partial / _STATE).write_text(json.dumps(state, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        publish(partial, final)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        kept = latest(folder)
        raise OSError(
            f"the checkpoint of step {state['step']} could not be written to {folder} ({error}). "
            + (f"The last good one is {kept.path.name}; make room and launch again to go on from it." if kept else "")
        ) from error
    return Checkpoint(final, state)


def latest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint; damaged ones are passed over and said."""
    return next(_undamaged(folder), None)


def resumable(folder: Path) -> Checkpoint | None:
    """The checkpoint that a run goes on from, or None if it has not saved one yet.

    Raises
    ------
    ValueError
        There are checkpoints, and every one is damaged: starting again at step 0 would throw the run away unasked.
    """
    found = latest(folder)
    if found is None and (names := [path.name for path in _complete(folder)]):
        raise ValueError(
            f"every checkpoint in {folder} is damaged ({', '.join(names)}). Put an undamaged copy there, or delete "
            "that folder to train again from the start."
        )
    return found


def at_step(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of a step, which must be there."""
    for checkpoint in _undamaged(folder):
        if checkpoint.step == step:
            return checkpoint
    raise FileNotFoundError(f"{folder} holds no undamaged checkpoint of step {step}")


def newest_step(folder: Path) -> int | None:
    """Step of the newest checkpoint, damaged or not; None if there is none."""
    written = _complete(folder)
    return int(written[-1].name.removeprefix("step-")) if written else None


def prune(folder: Path, keep_last: int, best_step: int | None, step: int) -> None:
    """Delete all but the last `keep_last` checkpoints and the best one.

    Those later than `step`, which was just saved, are damaged ones that the run went back from: they take no place.
    """
    for path in [path for path in _complete(folder) if path.name <= f"step-{step:08d}"][: -max(1, keep_last)]:
        if best_step is None or path.name != f"step-{best_step:08d}":
            shutil.rmtree(path)


def _complete(folder: Path) -> list[Path]:
    """Checkpoints that were written to their end, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if not path.name.endswith(PARTIAL_SUFFIX))


def _undamaged(folder: Path) -> Iterator[Checkpoint]:
    for path in reversed(_complete(folder)):
        try:
            state = json.loads((path / _STATE).read_text())
            damaged = [name for name, identity in state["files"].items() if _identity(path / name) != identity]
        except (OSError, ValueError, KeyError) as error:
            damaged = [f"{_STATE}: {error}"]
        if damaged:
            _log.warning("checkpoint %s is damaged (%s) and passed over", path.name, ", ".join(damaged))
            continue
        yield Checkpoint(path, state)


def _identity(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
