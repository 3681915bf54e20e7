"""Whether the model beats a baseline: the difference of their metrics on the same subjects, and its interval.

Both models are evaluated on the same subjects, and whoever is hard for one is mostly hard for the other: the interval
of the difference is far narrower than those of the two metrics suggest, and only it says whether one beats the other.

Over several folds there are two differences. That of the metrics over all windows mixes models that were trained
apart, whose probabilities need not mean the same; that of the metrics within each fold does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from finetune import intervals, metrics
from finetune.intervals import Floats, Weights
from finetune.metrics import Predictions
from finetune.task import TaskKind

Verdict = Literal["better", "worse", "not significant", "too few subjects", "undefined"]


@dataclass(frozen=True)
class Evaluation:
    """Predictions of models of several seeds for the same windows, with their metrics."""

    kind: TaskKind
    by_seed: Sequence[Predictions]
    scores: Sequence[dict[str, float]]
    """Every metric, of each seed."""
    weighted: dict[str, Floats]
    """Every metric for every row of weights (R,), mean over seeds."""
    share: Floats
    """(R,) how many of its subjects count in a row of weights, by how many there are."""

    @classmethod
    def of(cls, kind: TaskKind, by_seed: Sequence[Predictions], weights: Weights) -> Evaluation:
        """Compute all metrics."""
        scores = [metrics.score(kind, each) for each in by_seed]
        share = weights.counts_of(by_seed[0]).mean(axis=1)
        return cls(kind, by_seed, scores, weights.metrics(kind, by_seed), share)

    @cached_property
    def df(self) -> float:
        """Degrees of freedom of an interval; NaN if there is none."""
        return intervals.degrees_of_freedom(self.kind, [self.by_seed[0]])

    def mean(self, name: str) -> float:
        """A metric, mean over seeds."""
        return float(np.mean([values[name] for values in self.scores]))

    def interval(self, name: str) -> tuple[float, float] | None:
        """Interval of a metric's mean over seeds."""
        return intervals.interval(name, self.mean(name), self.weighted[name], self.df)


@dataclass(frozen=True)
class Difference:
    """How far the model's metric lies above a baseline's."""

    ours: float
    theirs: float
    interval: tuple[float, float] | None
    """Of the difference, over subjects."""

    @property
    def value(self) -> float:
        """The difference itself."""
        return self.ours - self.theirs

    @property
    def verdict(self) -> Verdict:
        """Better or worse only where the interval excludes 0, and there is one."""
        if not np.isfinite(self.value):
            return "undefined"
        if self.interval is None:
            return "too few subjects"
        if self.interval[0] > 0:
            return "better"
        return "worse" if self.interval[1] < 0 else "not significant"

    def to_json(self) -> dict[str, Any]:
        """As it stands in report.json."""
        numbers = {"ours": self.ours, "theirs": self.theirs, "difference": self.value}
        return numbers | {"interval": self.interval, "verdict": self.verdict}


def over_all(name: str, ours: Evaluation, theirs: Evaluation) -> Difference:
    """Of a metric over all windows."""
    value = ours.mean(name) - theirs.mean(name)
    found = intervals.interval_of_difference(name, value, ours.weighted[name] - theirs.weighted[name], ours.df)
    return Difference(ours.mean(name), theirs.mean(name), found)


def within_folds(name: str, ours: Sequence[Evaluation], theirs: Sequence[Evaluation]) -> Difference:
    """Of a metric within each fold, averaged over the folds that define it for both."""
    pairs = list(zip(ours, theirs, strict=True))
    values = np.array([[one.mean(name), other.mean(name)] for one, other in pairs])
    defined = np.isfinite(values).all(axis=1)
    if not defined.any():
        return Difference(np.nan, np.nan, None)
    mean_ours, mean_theirs = values[defined].mean(axis=0)
    folds = [one for one, its in zip(ours, defined, strict=True) if its]
    df = intervals.degrees_of_freedom(folds[0].kind, [fold.by_seed[0] for fold in folds])
    weighted = weighted_within_folds(name, ours, theirs)
    found = intervals.interval_of_difference(name, mean_ours - mean_theirs, weighted, df)
    return Difference(float(mean_ours), float(mean_theirs), found)


def weighted_within_folds(name: str, ours: Sequence[Evaluation], theirs: Sequence[Evaluation]) -> Floats:
    """The difference within folds for every row of weights (R,).

    A fold counts by the share of its subjects that do: if each subject is a fold, these are the means of the other
    subjects' own differences. A fold that a row leaves undefined does not count in it.
    """
    pairs = list(zip(ours, theirs, strict=True))
    differences = np.stack([one.weighted[name] - other.weighted[name] for one, other in pairs])
    share = np.where(np.isfinite(differences), np.stack([one.share for one, _ in pairs]), 0.0)
    with np.errstate(invalid="ignore"):
        return (share * np.nan_to_num(differences)).sum(axis=0) / share.sum(axis=0)
