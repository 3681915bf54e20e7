"""Splits: which windows train, select and test a model; their manifest; and the check for leakage.

A subject is on one side only, unless the protocol itself splits within subjects and `within_subject` says so. All
that is random here is a function of the seed and the subjects' names.

Shape letters: n windows of the store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from codebrain.data.format import SPLITS, Store, write_text

SplitKind = Literal["auto", "predefined", "ratio", "kfold", "leave_one_subject_out"]
Ids = npt.NDArray[np.int64]

MANIFEST_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How windows are divided into those that train, select and test."""

    kind: SplitKind = "auto"
    """`predefined`: the protocol's own, from the store; `ratio`: subjects drawn once; `kfold`: every subject tests
    once, in `n_folds` groups; `leave_one_subject_out`: every subject tests alone; `auto`: predefined where the store
    has one, otherwise ratio."""
    valid_fraction: float = 0.15
    """Share of the subjects that do not test, to select on (all kinds but predefined)."""
    test_fraction: float = 0.2
    """Share of all subjects to test on (ratio)."""
    n_folds: int = 5
    """Groups of subjects (kfold)."""
    seed: int = 0
    """Seed of the draw of subjects; the same for every seed of the weights."""
    within_subject: bool = False
    """Whether the protocol may put windows of one subject on several sides (SEED-V, BCIC2020-3). Where it does, figures
    do not speak about new subjects, and the report says so."""


@dataclass(frozen=True)
class Fold:
    """Numbers of the windows on each side, ascending."""

    train: Ids
    valid: Ids
    test: Ids

    def sides(self) -> Iterator[tuple[str, Ids]]:
        """Name and windows of each side that has any."""
        for name in SPLITS:
            if len(ids := getattr(self, name)):
                yield name, ids


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What a split needs to know of every window of a store."""

    subject: npt.NDArray[np.str_]
    """(n,) whom it was recorded from."""
    label: npt.NDArray[Any]
    """(n,) class index, or the value to regress."""
    published: npt.NDArray[np.int8] | None = None
    """(n,) side in the protocol's own split (0 train, 1 valid, 2 test), where there is one."""
    class_names: tuple[str, ...] = ()
    """Name of each class; empty for a regression."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The folds of a run: one, or one per group of test subjects."""

    kind: str
    """How they were made."""
    folds: tuple[Fold, ...]
    within_subject: bool
    seed: int


def make(windows: Windows, config: SplitConfig) -> Splits:
    """Divide windows as configured.

    Raises
    ------
    ValueError
        The store has no split of its own, there are too few subjects, a subject would be on two sides, or a class has
        no example to train on.
    """
    kind: str = config.kind
    if kind == "auto":
        kind = "ratio" if windows.published is None else "predefined"
    folds = (_predefined(windows),) if kind == "predefined" else tuple(_by_subject(windows, kind, config))
    made = check(Splits(kind=kind, folds=folds, within_subject=config.within_subject, seed=config.seed), windows)
    # Allowed is not done: only what divides a subject is said to.
    return dataclasses.replace(made, within_subject=any(_divides(fold, windows.subject) for fold in folds))


def check(splits: Splits, windows: Windows) -> Splits:
    """Return the splits if every side can be used, otherwise raise ValueError."""
    for number, fold in enumerate(splits.folds):
        where = f" in fold {number}" if len(splits.folds) > 1 else ""
        for side, ids in (("training", fold.train), ("validation", fold.valid)):
            if not len(ids):
                raise ValueError(f"no {side} window{where}. Change --split.*, or take more subjects.")
        if not splits.within_subject:
            _check_subjects(fold, windows.subject, where)
        if windows.class_names:
            _check_classes(fold, windows, where)
    return splits


def _predefined(windows: Windows) -> Fold:
    if windows.published is None:
        raise ValueError(
            "--split.kind predefined, but the store's protocol fixes no split. Use ratio, kfold or "
            "leave_one_subject_out."
        )
    return Fold(*(np.flatnonzero(windows.published == side) for side in range(len(SPLITS))))


def _by_subject(windows: Windows, kind: str, config: SplitConfig) -> Iterator[Fold]:
    """Folds whose sides are groups of subjects."""
    names = subject_order(windows.subject, windows.label, config.seed)
    for test in _test_groups(names, kind, config):
        rest = [name for name in names if name not in test]
        n_valid = max(1, round(config.valid_fraction * len(rest)))
        if n_valid >= len(rest):
            raise ValueError(
                f"{len(names)} subjects are too few: {len(test)} to test on leave {len(rest)}, of which "
                f"{n_valid} would select and none train. At least three subjects are needed."
            )
        sides = (rest[n_valid:], rest[:n_valid], sorted(test))
        yield Fold(*(np.flatnonzero(np.isin(windows.subject, side)) for side in sides))


def _test_groups(names: list[str], kind: str, config: SplitConfig) -> list[list[str]]:
    for field in ("valid_fraction", "test_fraction"):
        if not 0 < getattr(config, field) < 1:
            raise ValueError(f"--split.{field} is {getattr(config, field)}; it must lie between 0 and 1.")
    if kind == "ratio":
        return [names[: max(1, round(config.test_fraction * len(names)))]]
    if kind == "leave_one_subject_out":
        return [[name] for name in sorted(names)]
    if not 2 <= config.n_folds <= len(names):
        raise ValueError(
            f"--split.n_folds is {config.n_folds}, but the store has {len(names)} subjects; allowed are 2 to "
            f"{len(names)}, and `--split.kind leave_one_subject_out` takes each alone."
        )
    return [part.tolist() for part in np.array_split(names, config.n_folds)]


def subject_order(subject: npt.NDArray[np.str_], label: npt.NDArray[Any], seed: int) -> list[str]:
    """Subjects in a random order of which any stretch has about the classes of the whole.

    Where a subject has one label only (patient or control), a plain shuffle of few subjects can leave a side without a
    class. Subjects are shuffled by a hash of seed and name, then interleaved by their most frequent label.
    """
    strata: dict[Any, list[str]] = {}
    discrete = not np.issubdtype(label.dtype, np.floating)
    for name in np.unique(subject):
        values, counts = np.unique(label[subject == name], return_counts=True)
        strata.setdefault(values[counts.argmax()] if discrete else 0, []).append(str(name))
    places: list[tuple[float, int, str]] = []
    for number, (_, members) in enumerate(sorted(strata.items())):
        shuffled = sorted(members, key=lambda name: _draw(seed, name))
        places += [((rank + 0.5) / len(members), number, name) for rank, name in enumerate(shuffled)]
    return [name for _, _, name in sorted(places)]


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _divides(fold: Fold, subject: npt.NDArray[np.str_]) -> bool:
    """Whether a subject has windows on several sides."""
    names = [name for _, ids in fold.sides() for name in np.unique(subject[ids]).tolist()]
    return len(names) > len(set(names))


def _check_subjects(fold: Fold, subject: npt.NDArray[np.str_], where: str) -> None:
    home: dict[str, str] = {}
    for side, ids in fold.sides():
        for name in np.unique(subject[ids]):
            if home.setdefault(str(name), side) != side:
                raise ValueError(
                    f"subject {name} is on two sides{where}: {home[str(name)]} and {side}. A model would be tested on "
                    "someone it knows. Split by subject (--split.kind ratio or kfold); if the protocol splits within "
                    "subjects on purpose, say so with --split.within_subject true."
                )


def _check_classes(fold: Fold, windows: Windows, where: str) -> None:
    for side, ids in fold.sides():
        counts = np.bincount(windows.label[ids], minlength=len(windows.class_names))
        missing = [name for name, count in zip(windows.class_names, counts, strict=True) if not count]
        if missing and side == "train":
            raise ValueError(
                f"class {', '.join(map(repr, missing))} has no example in the training split{where} "
                f"({', '.join(f'{n} x {name}' for name, n in zip(windows.class_names, counts, strict=True))}). Change "
                "--split.seed or --split.kind, or add recordings of that class."
            )
        if side == "valid" and (counts > 0).sum() < 2:
            raise ValueError(
                f"the validation split{where} holds one class only, so nothing can be selected on it. Change "
                "--split.seed or --split.valid_fraction."
            )


# --- leakage by content ------------------------------------------------------------------------------------------


def content_hashes(store: Store) -> npt.NDArray[np.bytes_]:
    """(n,) hash of what each window holds, whatever its file, label and scale."""
    hashes = []
    for shard in store.shards:
        with h5py.File(store.path / shard.file, "r") as h5:
            windows = h5["windows"]
            hashes += [hashlib.blake2b(windows[row].tobytes(), digest_size=16).digest() for row in range(shard.n)]
    return np.array(hashes, dtype="S16")


def check_duplicates(splits: Splits, hashes: npt.NDArray[np.bytes_], describe: Any) -> None:
    """Raise ValueError if two sides of a fold hold the same window.

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
                both = np.intersect1d(hashes[ids], hashes[other_ids])
                if not len(both):
                    continue
                first, second = (rows[hashes[rows] == both[0]][0] for rows in (ids, other_ids))
                raise ValueError(
                    f"{len(both)} windows are on two sides with identical content: {describe(first)} in {side} is "
                    f"{describe(second)} in {other}. One recording was probably given twice under two subjects' names; "
                    "leave one out and prepare the store again."
                )


# --- the manifest ------------------------------------------------------------------------------------------------


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
        "version": MANIFEST_VERSION,
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
        No such file, or it is no manifest of this version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--splits {path}: no such file; a run writes its own to RUN/splits.json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["version"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest of splits ({error}); a run writes one to RUN/splits.json") from error
    if version != MANIFEST_VERSION:
        raise ValueError(f"{path} is a manifest of version {version}, this program reads {MANIFEST_VERSION}")
    return manifest


def from_manifest(manifest: dict[str, Any], windows: Windows, fingerprint: str) -> Splits:
    """The splits of a manifest, applied to a store.

    To the store that it was written for window by window; to another preparation of the same recordings by subject.

    Raises
    ------
    ValueError
        A split within subjects meant for another store, or subjects that the manifest does not place or places
        but the store has not.
    """
    folds = []
    for entry in manifest["folds"]:
        sides = [entry[name] for name in SPLITS]
        if manifest["store"] == fingerprint:
            folds.append(Fold(*(_from_ranges(side["windows"]) for side in sides)))
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
    return np.concatenate([np.arange(0), *(np.arange(start, stop) for start, stop in ranges)])
