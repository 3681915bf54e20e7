"""Whether the model beats a baseline: the difference of their figures, draw by draw of the same subjects.

Two models are judged by the same people, and whoever is hard for one is mostly hard for the other: the interval of the
difference is far narrower than those of the two figures suggest, and only it says whether one beats the other.

Over several folds there are two differences. That of the figures over all windows mixes models that were trained
apart, whose probabilities need not mean the same; that of the figures within each fold does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from finetune import metrics
from finetune.bootstrap import Draws, Floats, interval
from finetune.metrics import Predictions
from finetune.task import TaskKind

Verdict = Literal["better", "worse", "not told apart", "too few subjects", "undefined"]

MIN_SUBJECTS = 6
"""Subjects without whom no verdict is given: of two equal models five subjects all prefer the same one in 2 / 2**5, or
6 %, of cases, more often than a 95 % interval may be wrong."""


@dataclass(frozen=True)
class Judged:
    """What models of several seeds said about the same windows, with the figures of merit of it."""

    by_seed: Sequence[Predictions]
    scores: Sequence[dict[str, float]]
    """Every figure, of each seed."""
    drawn: dict[str, Floats]
    """Every figure in every draw of subjects (R,), mean over seeds."""
    weight: Floats
    """(R,) how many of its subjects a draw holds, by how many there are."""

    @classmethod
    def of(cls, kind: TaskKind, by_seed: Sequence[Predictions], draws: Draws) -> Judged:
        """Compute all figures."""
        scores = [metrics.score(kind, each) for each in by_seed]
        return cls(by_seed, scores, draws.figures(kind, by_seed), draws.counts_of(by_seed[0]).mean(axis=1))

    @property
    def n_subjects(self) -> int:
        """Who is judged."""
        return len(np.unique(self.by_seed[0].subject))

    def mean(self, name: str) -> float:
        """A figure, mean over seeds."""
        return float(np.mean([figures[name] for figures in self.scores]))


@dataclass(frozen=True)
class Difference:
    """How far the model's figure of merit lies above a baseline's."""

    ours: float
    theirs: float
    interval: tuple[float, float] | None
    """Of the difference, over draws of subjects."""
    n_subjects: int
    """Whom it is about."""

    @property
    def value(self) -> float:
        """The difference itself."""
        return self.ours - self.theirs

    @property
    def verdict(self) -> Verdict:
        """Better or worse only where the interval does not hold 0, and is one."""
        if not np.isfinite(self.value):
            return "undefined"
        if self.interval is None or self.n_subjects < MIN_SUBJECTS:
            return "too few subjects"
        if self.interval[0] > 0:
            return "better"
        return "worse" if self.interval[1] < 0 else "not told apart"

    def to_json(self) -> dict[str, Any]:
        """As it stands in report.json."""
        numbers = {"ours": self.ours, "theirs": self.theirs, "difference": self.value}
        return numbers | {"interval": self.interval, "verdict": self.verdict}


def over_all(name: str, ours: Judged, theirs: Judged) -> Difference:
    """Of a figure over all windows that were judged."""
    drawn = interval(ours.drawn[name] - theirs.drawn[name])
    return Difference(ours.mean(name), theirs.mean(name), drawn, ours.n_subjects)


def within_folds(name: str, ours: Sequence[Judged], theirs: Sequence[Judged]) -> Difference:
    """Of a figure within each fold, averaged over the folds that define it for both.

    In a draw a fold counts by how many of its subjects were drawn: if each subject is a fold, this is the bootstrap of
    the subjects' own differences, where a fold that counted once in every draw would give too narrow an interval.
    """
    pairs = list(zip(ours, theirs, strict=True))
    figures = np.array([[one.mean(name), other.mean(name)] for one, other in pairs])
    defined = np.isfinite(figures).all(axis=1)
    means = figures[defined].mean(axis=0) if defined.any() else np.full(2, np.nan)
    drawn = np.stack([one.drawn[name] - other.drawn[name] for one, other in pairs])
    # A draw may leave out whom a fold needs; the folds that it does define speak for it.
    weight = np.where(np.isfinite(drawn), np.stack([one.weight for one, _ in pairs]), 0.0)
    with np.errstate(invalid="ignore"):
        mean = (weight * np.nan_to_num(drawn)).sum(axis=0) / weight.sum(axis=0)
    n_subjects = sum(one.n_subjects for (one, _), counts in zip(pairs, defined, strict=True) if counts)
    return Difference(float(means[0]), float(means[1]), interval(mean), n_subjects)
