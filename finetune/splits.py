"""Splits: which windows train, select and test a model.

A subject is on one side only, unless the protocol itself splits within subjects and `within_subject` says so. All
that is random here is a function of the seed and the subjects' names.

Shape letters: n windows of the store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from codebrain.data.format import SPLITS

SplitKind = Literal["auto", "predefined", "ratio", "kfold", "leave_one_subject_out"]
Ids = npt.NDArray[np.int64]

_FEWEST_OF_A_CLASS = 3
"""Subjects of a class that its windows need in training, validation and test."""

_DRAWN = ("ratio", "kfold", "leave_one_subject_out")
"""Kinds whose subjects are drawn here, so that others can be."""


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
        The store has no split of its own, there are too few subjects, a subject would be on two sides, a class has no
        example to train on, or the validation or test split holds one class only.
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
        if fault := _one_label(windows, fold.valid, "validation", where):
            raise ValueError(f"{fault}, so nothing can be selected on it. {_advice(splits.kind, 'valid')}")
    if splits.kind in _DRAWN and (fault := fault_of_test(splits, windows)):
        raise ValueError(f"{fault}. {_advice(splits.kind, 'test')}")
    return splits


def fault_of_test(splits: Splits, windows: Windows) -> str:
    """Why the test windows, of all folds together, leave metrics or their intervals undefined; "" if they do not."""
    tested = np.concatenate([fold.test for fold in splits.folds])
    if fault := _one_label(windows, tested, "test", ""):
        undefined = "balanced accuracy, AUROC and PR-AUC" if windows.class_names else "R2 and Pearson's r"
        return f"{fault}, which leaves {undefined} undefined"
    if not windows.class_names or not len(tested):
        return ""
    subjects = _Subjects.of(dataclasses.replace(windows, subject=windows.subject[tested], label=windows.label[tested]))
    alone = [windows.class_names[index] for index, n in sorted(subjects.count(subjects.classes).items()) if n == 1]
    if alone and subjects.least == 2:
        return (
            f"the test split has one subject of class {', '.join(map(repr, alone))}: each subject has one class, so "
            "that metrics would be those of this subject, without an interval"
        )
    return ""


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
    subjects = _Subjects.of(windows)
    groups = _test_groups(subjects, kind, config)
    _check_three_of_each(subjects, windows.class_names)
    names = subjects.order(config.seed)
    if kind != "leave_one_subject_out":
        tested = list(itertools.chain.from_iterable(groups))
        names = list(dict.fromkeys([*tested, *names]))
    for test in groups:
        # Those that come next validate: others in every fold, so that no few select for all.
        after = 1 + max(names.index(name) for name in test)
        rest = [name for name in names[after:] + names[:after] if name not in test]
        valid = subjects.to_validate(rest, max(1, round(config.valid_fraction * len(rest))))
        if not 0 < len(valid) < len(rest):
            raise ValueError(
                f"{len(names)} subjects are too few: {len(test)} to test on leave {len(rest)}, to select and to train "
                "on. At least three subjects are needed."
            )
        sides = ([name for name in rest if name not in valid], valid, sorted(test))
        yield Fold(*(np.flatnonzero(np.isin(windows.subject, side)) for side in sides))


def _check_three_of_each(subjects: _Subjects, class_names: tuple[str, ...]) -> None:
    """Raise ValueError if one of two classes has too few subjects, however they are drawn."""
    counts = subjects.count(subjects.classes)
    few = {name: counts[index] for index, name in enumerate(class_names) if counts[index] < _FEWEST_OF_A_CLASS}
    if len(class_names) == 2 and few and len(subjects.classes) >= _FEWEST_OF_A_CLASS:
        listed = ", ".join(f"{name!r} has {count}" for name, count in few.items())
        raise ValueError(
            f"a drawn split needs three subjects of each class, to train, to select and to test on; {listed} of "
            f"{len(subjects.classes)}. Add recordings of that class."
        )


def _test_groups(subjects: _Subjects, kind: str, config: SplitConfig) -> list[list[str]]:
    names = subjects.order(config.seed)
    for field in ("valid_fraction", "test_fraction"):
        if not 0 < getattr(config, field) < 1:
            raise ValueError(f"--split.{field} is {getattr(config, field)}; it must lie between 0 and 1.")
    if kind == "ratio":
        return [subjects.with_all_classes(names, max(1, round(config.test_fraction * len(names))))]
    if kind == "leave_one_subject_out":
        return [[name] for name in sorted(names)]
    if not 2 <= config.n_folds <= len(names):
        raise ValueError(
            f"--split.n_folds is {config.n_folds}, but the store has {len(names)} subjects; allowed are 2 to "
            f"{len(names)}, and `--split.kind leave_one_subject_out` takes each alone."
        )
    stretches = [part.tolist() for part in np.array_split(names, config.n_folds)]
    by_class = sorted(names, key=lambda name: subjects.main_class[name])
    dealt = [by_class[number :: config.n_folds] for number in range(config.n_folds)]
    # Stretches of the draw as long as none of them lacks a class that it could have.
    return max(stretches, dealt, key=lambda groups: sum(len(subjects.count(group)) for group in groups))


@dataclass(frozen=True)
class _Subjects:
    """Which classes each subject of a store has; none of a regression."""

    classes: dict[str, list[int]]
    """By subject, in the order of their names."""
    main_class: dict[str, int]
    """The most frequent one of each."""

    @classmethod
    def of(cls, windows: Windows) -> _Subjects:
        names, code = np.unique(windows.subject, return_inverse=True)
        table = np.zeros((len(names), len(windows.class_names)), dtype=np.int64)
        if not windows.class_names:
            return cls({str(name): [] for name in names}, dict.fromkeys(map(str, names), 0))
        np.add.at(table, (code, windows.label), 1)
        classes = {str(name): np.flatnonzero(row).tolist() for name, row in zip(names, table, strict=True)}
        return cls(classes, dict(zip(classes, table.argmax(axis=1).tolist(), strict=True)))

    def order(self, seed: int) -> list[str]:
        """Subjects in a random order of which any stretch has about the classes of the whole.

        Where a subject has one class only (patient or control), a plain shuffle of few subjects can leave a split
        without a class. Subjects are shuffled by a hash of seed and name, then interleaved by their most frequent
        class.
        """
        places: list[tuple[float, int, str]] = []
        for number in sorted(set(self.main_class.values())):
            members = [name for name, main in self.main_class.items() if main == number]
            shuffled = sorted(members, key=lambda name: _draw(seed, name))
            places += [((rank + 0.5) / len(members), number, name) for rank, name in enumerate(shuffled)]
        return [name for _, _, name in sorted(places)]

    def count(self, names: Iterable[str]) -> Counter[int]:
        """How many of some subjects have each class."""
        return Counter(index for name in names for index in self.classes[name])

    @property
    def least(self) -> int:
        """Subjects of each class that a test split needs: two where each has one class, since a metric of one patient
        and some controls is that of the one patient.
        """
        return 2 if all(len(classes) == 1 for classes in self.classes.values()) else 1

    def with_all_classes(self, names: list[str], n: int) -> list[str]:
        """The first n of an order, or where they lack a class, as few others in their place as needed.

        Two subjects of a class always remain, to train and to select on.
        """
        chosen, total = names[:n], self.count(names)
        for least in range(1, self.least + 1):
            for index in sorted(total, key=lambda index: (total[index], index)):
                held = self.count(chosen)
                spare = [name for name in names[n:] if name not in chosen and index in self.classes[name]]
                dispensable = [name for name in chosen if all(held[own] > least for own in self.classes[name])]
                if held[index] < least <= total[index] - 2 and spare and dispensable:
                    chosen = [spare[0] if name == dispensable[-1] else name for name in chosen]
        return chosen

    def to_validate(self, rest: list[str], n: int) -> list[str]:
        """The first n of those who do not test, or more until they have two classes: else nothing can be selected.

        Of patients and controls, of whom each has one class, the next few may be all alike. Whoever is the last to have
        a class trains.
        """
        left, chosen = self.count(rest), list[str]()
        for name in rest:
            if len(chosen) >= n and (not left or len(self.count(chosen)) > 1):
                return chosen
            if all(left[index] > 1 for index in self.classes[name]):
                chosen.append(name)
                left.subtract(self.classes[name])
        return chosen


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
    counts = np.bincount(windows.label[fold.train], minlength=len(windows.class_names))
    missing = [name for name, count in zip(windows.class_names, counts, strict=True) if not count]
    if missing:
        raise ValueError(
            f"class {', '.join(map(repr, missing))} has no example in the training split{where} "
            f"({_listed(windows, fold.train)}). Change --split.seed or --split.kind, or add recordings of that class."
        )


def _one_label(windows: Windows, ids: Ids, name: str, where: str) -> str:
    """What is wrong with a split all of whose windows have the same label; "" if they have not, or it has none."""
    if not len(ids) or np.ptp(windows.label[ids]) > 0:
        return ""
    if windows.class_names:
        return f"the {name} split{where} holds one class only ({_listed(windows, ids)})"
    return f"the {name} values{where} are all {windows.label[ids][0]:g}"


def _listed(windows: Windows, ids: Ids) -> str:
    counts = np.bincount(windows.label[ids], minlength=len(windows.class_names))
    return ", ".join(f"{count} x {name}" for name, count in zip(windows.class_names, counts, strict=True))


def _advice(kind: str, split: str) -> str:
    """How to draw subjects otherwise where the validation or test split (`valid`, `test`) cannot be used."""
    if kind not in _DRAWN:
        return "`--split.kind ratio` or `--split.kind kfold` draw another split."
    more = "`--split.kind kfold` tests every subject once; " if split == "test" else ""
    return f"{more}another --split.seed or a larger --split.{split}_fraction draws other subjects."
