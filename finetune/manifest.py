"""The manifest of a run's splits (splits.json), and the check for leakage by content.

For every fold and side it lists subjects, windows and a hash of what the windows hold, so that another run can use the
same splits and knows that they are the same.

Shape letters: n windows of the store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codebrain.data.format import SPLITS, Store, write_text
from codebrain.data.shards import open_shard
from finetune.splits import Fold, Ids, Splits, Windows, check

VERSION = 1

_FLAT = b"flat"
"""Stands for the hash of a window that does not move: a disconnected amplifier, which tells nothing of anybody."""


def content_hashes(store: Store) -> npt.NDArray[np.bytes_]:
    """(n,) hash of what each window holds, whatever its file, label and scale.

    Reads every byte of the store, and compares each shard with its digest on the way.

    Raises
    ------
    ValueError
        A shard is damaged; it is named.
    """
    hashes: list[bytes] = []
    for shard in store.shards:
        with open_shard(store, shard) as opened:
            hashes += map(_hash, opened.verified())
    return np.array(hashes, dtype="S16")


def _hash(window: npt.NDArray[np.int16]) -> bytes:
    return hashlib.blake2b(window.tobytes(), digest_size=16).digest() if np.ptp(window, axis=-1).any() else _FLAT


def check_duplicates(splits: Splits, hashes: npt.NDArray[np.bytes_], describe: Callable[[int], str]) -> None:
    """Raise ValueError if two sides of a fold hold the same window, unless it is one that does not move.

    Parameters
    ----------
    splits : Splits
    hashes : (n,) bytes
        From `content_hashes`.
    describe : callable
        Says where a window comes from, for the message.
    """
    for fold in splits.folds:
        sides = list(fold.sides())
        for place, (side, ids) in enumerate(sides):
            for other, other_ids in sides[place + 1 :]:
                both = np.setdiff1d(np.intersect1d(hashes[ids], hashes[other_ids]), [_FLAT])
                if not len(both):
                    continue
                first, second = (rows[hashes[rows] == both[0]][0] for rows in (ids, other_ids))
                raise ValueError(
                    f"{len(both)} windows are on two sides with identical content: {describe(first)} in {side} is "
                    f"{describe(second)} in {other}. One recording was probably given twice under two subjects' names; "
                    "leave one out and prepare the store again."
                )


def to_manifest(splits: Splits, windows: Windows, hashes: npt.NDArray[np.bytes_], fingerprint: str) -> dict[str, Any]:
    """Everything that another run needs to use the same splits and to know that they are the same."""

    def side(ids: Ids) -> dict[str, Any]:
        return {
            "n_windows": len(ids),
            "subjects": np.unique(windows.subject[ids]).tolist(),
            "windows": _ranges(ids),
            "sha256": hashlib.sha256(b"".join(sorted(hashes[ids].tolist()))).hexdigest(),
        }

    return {
        "version": VERSION,
        "kind": splits.kind,
        "seed": splits.seed,
        "within_subject": splits.within_subject,
        "store": fingerprint,
        "folds": [{name: side(getattr(fold, name)) for name in SPLITS} for fold in splits.folds],
    }


def same(manifest: dict[str, Any], splits: Splits, fingerprint: str) -> bool:
    """Whether a manifest is of the same store and puts every window on the same side."""
    here = [{name: _ranges(getattr(fold, name)) for name in SPLITS} for fold in splits.folds]
    there = [{name: entry[name]["windows"] for name in SPLITS} for entry in manifest["folds"]]
    return manifest["store"] == fingerprint and here == there


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write splits.json."""
    write_text(path, json.dumps(manifest, indent=1) + "\n")


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a splits.json.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, or it is no manifest of this version, or one that does not fit together.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--splits {path}: no such file; a run writes its own to RUN/splits.json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise ValueError(f"it is of version {manifest['version']}, this program reads {VERSION}")
        _check_whole(manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is no manifest of splits ({reason}); a run writes one to RUN/splits.json") from error
    return manifest


def _check_whole(manifest: dict[str, Any]) -> None:
    """Raise unless a manifest has all its parts, counts its windows rightly and has none twice."""
    tested: list[Ids] = []
    for number, entry in enumerate(manifest["folds"]):
        sides = [_from_ranges(entry[name]["windows"]) for name in SPLITS]
        for name, ids in zip(SPLITS, sides, strict=True):
            if len(ids) != entry[name]["n_windows"]:
                raise ValueError(f"{name} of fold {number} lists {len(ids)} windows, not {entry[name]['n_windows']}")
        _check_once(np.concatenate(sides), f"in fold {number}")
        tested.append(sides[-1])
    if not tested:
        raise ValueError("it has no folds")
    _check_once(np.concatenate(tested), "among the test windows of all folds")


def _check_once(ids: Ids, where: str) -> None:
    twice = len(ids) - len(np.unique(ids))
    if twice:
        raise ValueError(f"{twice} windows are listed twice {where}")


def check_hashes(manifest: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise ValueError if a manifest for this store has other hashes than those that were found in it."""
    for number, (entry, own) in enumerate(zip(manifest["folds"], found["folds"], strict=True)):
        for name in SPLITS:
            if manifest["store"] == found["store"] and entry[name]["sha256"] != own[name]["sha256"]:
                raise ValueError(
                    f"--splits: the windows of {name} in fold {number} do not hold what its manifest says. It was "
                    "edited or damaged: take the splits.json that a run wrote."
                )


def from_manifest(manifest: dict[str, Any], windows: Windows, fingerprint: str) -> Splits:
    """The splits of a manifest, applied to a store.

    To the store that it was written for window by window; to another preparation of the same recordings by subject.

    Raises
    ------
    ValueError
        A split within subjects meant for another store, windows that the store has not, or subjects that the manifest
        does not place or places but the store has not.
    """
    folds = []
    for entry in manifest["folds"]:
        sides = [entry[name] for name in SPLITS]
        if manifest["store"] == fingerprint:
            folds.append(Fold(*(_from_ranges(side["windows"]) for side in sides)))
            _check_within(folds[-1], len(windows.subject))
            _check_names(entry, folds[-1], windows)
            continue
        if manifest["within_subject"]:
            raise ValueError(
                "the splits divide the windows of a subject, and they were made for another store: they fit only the "
                "store they were made for."
            )
        _check_same_subjects([name for side in sides for name in side["subjects"]], windows.subject)
        folds.append(Fold(*(np.flatnonzero(np.isin(windows.subject, side["subjects"])) for side in sides)))
    return check(
        Splits(
            kind=manifest["kind"],
            folds=tuple(folds),
            within_subject=manifest["within_subject"],
            seed=manifest["seed"],
        ),
        windows,
    )


def _check_within(fold: Fold, n_windows: int) -> None:
    placed = np.concatenate([ids for _, ids in fold.sides()])
    if placed.min() < 0 or placed.max() >= n_windows:
        raise ValueError(
            f"the splits place windows {placed.min()} to {placed.max()}, but the store has 0 to {n_windows - 1}."
        )


def _check_names(entry: dict[str, Any], fold: Fold, windows: Windows) -> None:
    for name in SPLITS:
        here = np.unique(windows.subject[getattr(fold, name)]).tolist()
        if here != entry[name]["subjects"]:
            raise ValueError(
                f"the splits name other subjects of {name} ({', '.join(entry[name]['subjects'][:5])} ...) than their "
                f"windows are of ({', '.join(here[:5])} ...): the file was edited. Take one that a run wrote."
            )


def _check_same_subjects(placed: Sequence[str], subject: npt.NDArray[np.str_]) -> None:
    here = set(np.unique(subject).tolist())
    missing, extra = sorted(set(placed) - here), sorted(here - set(placed))
    if missing or extra:
        raise ValueError(
            f"the splits were made for other subjects: {len(missing)} of theirs are not in the store "
            f"({', '.join(missing[:5]) or 'none'}), {len(extra)} of the store's are not in the splits "
            f"({', '.join(extra[:5]) or 'none'})."
        )


def _ranges(ids: Ids) -> list[list[int]]:
    """Ascending numbers as half-open ranges."""
    if not len(ids):
        return []
    edges = np.flatnonzero(np.diff(ids) != 1) + 1
    return [[int(part[0]), int(part[-1]) + 1] for part in np.split(ids, edges)]


def _from_ranges(ranges: list[list[int]]) -> Ids:
    return np.concatenate([np.arange(0), *(np.arange(start, stop, dtype=np.int64) for start, stop in ranges)])
