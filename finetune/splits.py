"""Splits: which windows train, select and test a model.

A subject is on one side only, unless the protocol itself splits within subjects and `within_subject` says so. All
that is random here is a function of the seed and the subjects' names.

Shape letters: n windows of the store.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from codebrain.data.format import SPLITS

SplitKind = Literal["auto", "predefined", "ratio", "kfold", "leave_one_subject_out"]
Ids = npt.NDArray[np.int64]


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

    @property
    def judged(self) -> list[str]:
        """Sides that a model predicts: `valid`, and `test` where there is one."""
        return [side for side, _ in self.sides() if side != "train"]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What a split needs to know of every window of a store."""

    subject: npt.NDArray[np.str_]
    """(n,) whom it was recorded from."""
    label: npt.NDArray[Any]
    """(n,) class index, or the value to regress."""
    recording: npt.NDArray[np.int64]
    """(n,) row of the recording that it was cut from."""
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
        elif not np.ptp(windows.label[fold.valid]) > 0:
            raise ValueError(
                f"the validation values{where} are all {windows.label[fold.valid][0]:g}, so nothing can be selected on "
                "them. Change --split.seed or --split.valid_fraction."
            )
    return splits


def _predefined(windows: Windows) -> Fold:
    if windows.published is None:
        raise ValueError(
            "--split.kind predefined, but the store's protocol fixes no split. Use ratio, kfold or "
            "leave_one_subject_out."
        )
    fold = Fold(*(np.flatnonzero(windows.published == side) for side in range(len(SPLITS))))
    if not len(fold.train) or not len(fold.valid):
        here = ", ".join(f"{len(np.unique(windows.subject[ids]))} {side}" for side, ids in fold.sides())
        raise ValueError(
            f"the protocol's own split has subjects to train and to validate, and of these the store has {here}: not "
            "all recordings are here. `--split.kind ratio` or `--split.kind kfold` divide those that are."
        )
    return fold


def _by_subject(windows: Windows, kind: str, config: SplitConfig) -> Iterator[Fold]:
    """Folds whose sides are groups of subjects."""
    names = subject_order(windows.subject, windows.label, config.seed)
    for test in _test_groups(names, kind, config):
        # Those that come next validate: others in every fold, so that no few select for all.
        after = 1 + max(names.index(name) for name in test)
        rest = [name for name in names[after:] + names[:after] if name not in test]
        n_valid = _both_classes(rest, max(1, round(config.valid_fraction * len(rest))), windows)
        if n_valid >= len(rest):
            raise ValueError(
                f"{len(names)} subjects are too few: {len(test)} to test on leave {len(rest)}, of which "
                f"{n_valid} would select and none train. At least three subjects are needed."
            )
        sides = (rest[n_valid:], rest[:n_valid], sorted(test))
        yield Fold(*(np.flatnonzero(np.isin(windows.subject, side)) for side in sides))


def _both_classes(rest: list[str], n_valid: int, windows: Windows) -> int:
    """How many of the subjects must validate, at least `n_valid`, so that two classes do; else nothing can be selected.

    Of patients and controls, of whom each has one class, the next few may be all alike.
    """
    if not windows.class_names:
        return n_valid
    for more in range(n_valid, len(rest)):
        if len(np.unique(windows.label[np.isin(windows.subject, rest[:more])])) > 1:
            return more
    return n_valid


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
