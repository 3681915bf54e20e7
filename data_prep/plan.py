"""The plan of a store: which constants it was begun with, and which recordings its rows are of.

    STORE/progress/plan.json

Whatever would bring a recording into a store twice, or in two ways, is refused before any work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codebrain.data.format import PREPARATION_VERSION, write_text
from data_prep.write import Job, is_another


@dataclass(frozen=True)
class Plan:
    """Contents of plan.json."""

    constants: dict[str, Any]
    """All that the content of the store depends on besides the recordings."""
    rows: list[str]
    """The recordings, in the order of their rows."""
    is_older: bool
    """Whether an earlier version of the program wrote it."""


def read_plan(folder: Path) -> Plan | None:
    """The plan of a store, or None if it has none."""
    path = folder / "progress" / "plan.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # Earlier versions counted the version of the format among the constants.
        constants = {key: value for key, value in content["constants"].items() if key != "format_version"}
        rows, version = content["recordings"], content.get("preparation_version", 0)
        if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
            raise TypeError("its recordings are no list of paths")
        return Plan(constants, rows, is_older=version < PREPARATION_VERSION)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}), so that the recordings of {folder} are not "
            "known. Give another --output, or delete that folder to prepare it again."
        ) from error


def write_plan(folder: Path, constants: dict[str, Any], rows: Sequence[str]) -> None:
    """Write the plan of a store, in the name of this version of the program."""
    content = {"preparation_version": PREPARATION_VERSION, "constants": constants, "recordings": rows}
    write_text(folder / "progress" / "plan.json", json.dumps(content, indent=1))


def check_same(folder: Path, plan: Plan, now: dict[str, Any]) -> None:
    """Refuse to continue a preparation under other constants.

    Those that an earlier version did not have are only printed: its recordings are all prepared again.
    """
    old, new = dict(_flat(plan.constants)), dict(_flat(now))
    changed = {key: (old.get(key), new.get(key)) for key in sorted(old | new) if old.get(key) != new.get(key)}
    unknown = {key: values for key, values in changed.items() if plan.is_older and not (key in old and key in new)}
    if unknown:
        listed = ", ".join(f"{key} = {new[key]}" if key in new else f"no {key}" for key in unknown)
        print(f"constants   that differ from those of the earlier version of this program: {listed}")
    changed = {key: values for key, values in changed.items() if key not in unknown}
    if changed:
        listed = "; ".join(f"{key}: {before} there, {after} now" for key, (before, after) in changed.items())
        raise ValueError(
            f"{folder} was begun with another configuration ({listed}). "
            "Give another --output, or delete that folder to prepare it again."
        )


def check_not_renamed(folder: Path, gone: Iterable[str], added: Iterable[str]) -> None:
    """Refuse recordings that the store holds under another path: they would be in it twice."""
    by_ending = {ending: key for key in gone for ending in _endings(key)}
    full = set(by_ending.values())
    for key in added:
        before = by_ending.get(key) or next((ending for ending in _endings(key) if ending in full), None)
        if before is not None:
            raise ValueError(
                f"{folder} has a recording {before} that is not there now, and {key} looks like the same: paths in a "
                "store are relative to what is given. Give the same folders as before (new recordings may lie in "
                "them), or another --output."
            )


def check_not_others(folder: Path, jobs: Sequence[Job]) -> None:
    """Refuse recordings under a name that the store has for another recording, of another folder."""
    for job in jobs:
        if is_another(job):
            raise ValueError(
                f"{job.source.file} is another recording than the {job.source.key} that {folder} holds. To have both "
                "folders in a store give them together (corpus A B), and another --output."
            )


def _endings(key: str) -> list[str]:
    """For a/b/c: a/b/c, b/c and c."""
    parts = key.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        leaves += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return leaves
