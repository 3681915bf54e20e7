"""What a run's folder says of the run: who writes there, with which configuration, on which inputs.

    RUN/ config.yaml    as it was last launched  inputs.json     what it reads, and the hash of its contents
         .lock          held while it trains     summary.json    how it ended: its presence says "finished"

Launching again into a folder takes its run up. It must then be the same run: equal configuration, equal inputs.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from codebrain.config import to_dict, to_yaml
from codebrain.data.format import PARTIAL_SUFFIX, write_text
from codebrain.lock import hold
from codebrain.training.logging import from_json

Inputs = Mapping[str, Mapping[str, str]]
"""By flag: where each input lies, and the hash of its contents; `{"data": {"STORE": "9f2c"}}`."""

_CONFIG = "config.yaml"

RESUMABLE = ("run_dir", "loop.num_workers", "loop.keep_last", "loop.trackers")
"""What may differ between any run and the launch that takes it up again: nothing that the result depends on."""

_OTHER_KIND = 40
"""Differences that no two runs of the same program have."""

_NAMED = 8
"""Differences from an earlier launch that a message lists."""


def claim(path: Path, config: Any, changeable: Collection[str]) -> FileLock | None:
    """Make or check a run's folder and keep every other launch out of it.

    Parameters
    ----------
    path : Path
    config : dataclass
    changeable : collection of str
        Keys that may differ besides `RESUMABLE`.

    Returns
    -------
    FileLock, or None where the file system has no locks
        Held until it is released or the process ends.

    Raises
    ------
    ValueError
        The folder is none, is in use, or holds a run of another configuration.
    """
    for what, is_it in (("a store", (path / "store.json").exists()), ("a file", path.is_file())):
        if is_it:
            raise ValueError(f"--run_dir {path} is {what}; give a run a folder of its own, which need not exist.")
    path.mkdir(parents=True, exist_ok=True)
    lock = hold(path / ".lock", f"training in {path}", "wait for it, or give another --run_dir")
    if lock is not None:  # so that these are of killed launches
        for left_over in list(path.rglob(f"*{PARTIAL_SUFFIX}")):
            if left_over.is_file():
                left_over.unlink()
    saved = path / _CONFIG
    # Until something was trained, a mistake in the first command may be mended in the same folder.
    if not saved.exists() or not was_trained(path):
        write_text(saved, to_yaml(config))
        return lock
    try:
        changed = dict(_differences(yaml.safe_load(saved.read_text()), to_dict(config), {*RESUMABLE, *changeable}))
    except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(
            f"{saved} is damaged, so that nobody can say what was trained there. Give another --run_dir."
        ) from error
    if len(changed) > _OTHER_KIND:
        raise ValueError(f"{path} holds a run of another program or stage. Give this one a --run_dir of its own.")
    if changed:
        listed = "; ".join(f"{key} was {old!r}, now {new!r}" for key, (old, new) in list(changed.items())[:_NAMED])
        listed += f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise ValueError(
            f"{path} holds a run of another configuration ({listed}). Give another --run_dir, or launch with the "
            "values it was started with to take it up again."
        )
    return lock


def keep_to(path: Path, inputs: Inputs, config: Any) -> None:
    """Note what a run reads and how it was launched.

    Raises
    ------
    ValueError
        The run was trained on inputs of other contents, wherever they lie; both notes stay as they were.
    """
    noted = path / "inputs.json"
    if was_trained(path) and noted.exists():
        before = read_json(noted, "launch again with the very stores and tokenizer that the run was started with.")
        if changed := list(_changed(before, inputs)):
            raise ValueError(
                f"{path} was trained with other contents of {', '.join(changed)}. Give what it was started with, "
                "which may lie elsewhere now, or another --run_dir."
            )
    write_text(noted, json.dumps(inputs, indent=1) + "\n")
    write_text(path / _CONFIG, to_yaml(config))


def read_json(path: Path, then: str) -> dict[str, Any]:
    """A JSON object that a run wrote for itself.

    Raises
    ------
    ValueError
        The file is damaged; it names the file, and says to delete it and what to do `then`.
    """
    try:
        found = from_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete that file and {then}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (no JSON object). Delete that file and {then}")
    return found


def was_trained(path: Path) -> bool:
    """Whether a run's folder, or one inside it, holds a checkpoint or what came of a finished run."""
    checkpoints = (not found.name.endswith(PARTIAL_SUFFIX) for found in path.rglob("checkpoints/step-*"))
    return any(checkpoints) or any(path.rglob("summary.json"))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as `outer.inner`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return found


def _differences(
    old: dict[str, Any], new: dict[str, Any], passed_over: Collection[str]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    before, after = flat(old), flat(new)
    for key in sorted((before.keys() | after.keys()) - set(passed_over)):
        if before.get(key) != after.get(key):
            yield key, (before.get(key), after.get(key))


def _changed(before: Inputs, now: Inputs) -> Iterator[str]:
    """The inputs whose contents differ, each compared with the one that stood in its place."""
    for flag, found in now.items():
        nothing = ("", "")
        for (old, old_hash), (new, new_hash) in itertools.zip_longest(
            before.get(flag, {}).items(), found.items(), fillvalue=nothing
        ):
            if old_hash != new_hash:
                was = f" (then {old or 'not there'}, now {new or 'not there'})" if old != new else ""
                yield f"--{flag} {new or old}{was}"
