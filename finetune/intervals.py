"""Confidence intervals over subjects.

Windows of one subject are not independent, so the unit is the subject. Every metric is computed again without each
subject (the delete-one-group jackknife; Efron and Stein 1981, doi:10.1214/aos/1176345462), which gives its standard
error, and Student's t distribution turns that into an interval. `benchmarks/coverage.py` measures how often such
intervals hold the population's value, beside the percentile bootstrap, which is too narrow for few subjects.

- A metric with a bounded range gets its interval on a scale without ends (the logit of an AUROC) and is mapped back, so
  that the interval is as skewed as the metric and stays in the range.
- The degrees of freedom follow from how evenly windows are spread over subjects: of 20 subjects of whom two have all
  windows of a class, two decide.

Excluding subjects is a matter of weights: a row of weights says how often each subject counts, and every metric is a
function of weighted counts, so that all rows are a few matrix products instead of many calls of scikit-learn. A test
holds the two equal, row by row, for weights of 0, 1, 2, ...

Shape letters: R rows of weights, S subjects, n windows, K classes, M distinct scores.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import t as student

from finetune.metrics import Predictions
from finetune.task import TaskKind

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""Share of samples of subjects whose interval holds the population's value."""

METHOD = "leave-one-subject-out jackknife, t distribution"

MIN_SUBJECTS = 6
"""Fewest subjects of an interval. Where half of all subjects are easy and half hard, five are all of one kind in
2 / 2**5, or 6 %, of samples, and nothing in such a sample shows that there are others."""

_MIN_DF = 1.0
"""Fewest degrees of freedom: with less, one subject has nearly all windows of a class."""

_ROUNDING = 1e-10
"""Share of a sum of squares that a difference of two such sums may owe to rounding; so far two equal metrics may lie
apart, too."""

_VALUES = 1 << 15
"""Weights of windows (rows x windows) whose curves are computed at once: as many as stay in a processor's cache."""


@dataclass(frozen=True)
class Weights:
    """How often each subject counts, a row for each time that a metric is computed."""

    names: npt.NDArray[np.str_]
    """(S,) the subjects, sorted."""
    counts: Floats
    """(R, S) how often each counts."""

    @classmethod
    def leave_one_out(cls, subject: npt.NDArray[np.str_]) -> Weights:
        """A row without each subject of a set of windows; none if there is one subject only."""
        names = np.unique(subject)
        return cls(names, 1 - np.eye(len(names)) if len(names) > 1 else np.empty((0, 1)))

    def counts_of(self, predictions: Predictions) -> Floats:
        """(R, S') how often each subject of these windows counts."""
        return self.counts[:, np.isin(self.names, predictions.subject)]

    def metrics(self, kind: TaskKind, by_seed: Sequence[Predictions]) -> dict[str, Floats]:
        """Every metric for every row of weights (R,), mean over seeds; NaN where a row does not define it.

        Parameters
        ----------
        kind : TaskKind
        by_seed : sequence of Predictions
            For the same windows by models of several seeds. Their subjects may be some of those of the weights.
        """
        counts = self.counts_of(by_seed[0])
        each = [weighted(kind, predictions, counts) for predictions in by_seed]
        return {name: np.mean([values[name] for values in each], axis=0) for name in each[0]}


# --- from the values without each subject to an interval -------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """A monotonic scale without ends for a metric that has some."""

    to: Callable[[float], float]
    back: Callable[[float], float]
    slope: Callable[[float], float]
    """Derivative of `to`."""
    width: float
    """Of the metric's range: how far two values can lie apart."""


_SHARE = _Scale(logit, expit, lambda x: 1 / (x * (1 - x)), 1.0)
_CORRELATION = _Scale(np.arctanh, np.tanh, lambda x: 1 / (1 - x * x), 2.0)
_SCALES = {
    **dict.fromkeys(("auroc", "pr_auc", "average_precision", "balanced_accuracy", "weighted_f1"), _SHARE),
    **dict.fromkeys(("kappa", "pearson_r"), _CORRELATION),
    # 1 - R2 is a ratio of two sums of squares.
    "r2": _Scale(lambda x: -np.log1p(-x), lambda z: -np.expm1(-z), lambda x: 1 / (1 - x), np.inf),
    "rmse": _Scale(np.log, np.exp, lambda x: 1 / x, np.inf),
}


def degrees_of_freedom(kind: TaskKind, folds: Sequence[Predictions]) -> float:
    """Degrees of freedom of a jackknife over subjects, from how evenly they share the windows.

    n subjects whose shares of the windows are w count as 1 / sum(w**2) (Kish's effective sample size), which is n if
    all have as many. Each class counts for itself, since the metrics weigh classes equally, and the classes are put
    together as Welch (1947, doi:10.1093/biomet/34.1-2.28) does for samples of different precision.

    Parameters
    ----------
    kind : TaskKind
    folds : sequence of Predictions
        The windows of a metric, or those of each fold whose metrics are averaged.

    Returns
    -------
    float
        NaN if there are fewer than `MIN_SUBJECTS` subjects, or (nearly) all windows of a class are of one.
    """
    of_all = effective_subjects([each.subject for each in folds])
    if len(np.unique(np.concatenate([each.subject for each in folds]))) < MIN_SUBJECTS:
        return np.nan
    df = of_all - 1
    if kind != "regression":
        classes = np.unique(np.concatenate([each.label for each in folds]))
        n = np.array([effective_subjects([each.subject[each.label == index] for each in folds]) for index in classes])
        if n.min() < 1 + _ROUNDING:
            return np.nan
        df = min(df, (1 / n).sum() ** 2 / (1 / (n**2 * (n + 1))).sum() - 2)
    return float(df) if df >= _MIN_DF else np.nan


def effective_subjects(folds: Sequence[npt.NDArray[np.str_]]) -> float:
    """As how many subjects those of some windows count, who may have unequal shares: 1 / sum(share**2).

    Parameters
    ----------
    folds : sequence of (n,) str
        Subject of every window, fold by fold; each fold that has any weighs as much as the others.
    """
    found = [np.unique(subject, return_counts=True) for subject in folds if len(subject)]
    names, code = np.unique(np.concatenate([names for names, _ in found]), return_inverse=True)
    shares = np.concatenate([counts / counts.sum() for _, counts in found]) / len(found)
    return float(1 / np.square(np.bincount(code, shares, len(names))).sum())


def interval(name: str, value: float, replicates: Floats, df: float) -> tuple[float, float] | None:
    """Interval of a metric.

    Parameters
    ----------
    name : str
        Of the metric.
    value : float
    replicates : (S,) float
        The metric without each subject.
    df : float
        From `degrees_of_freedom`.

    Returns
    -------
    (float, float) or None
        None where the metric is undefined without some subject, or stands at an end of its range: where no subject has
        an error, none shows how often there are some.
    """
    scale = _SCALES[name]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        centre, margin = scale.to(value), _margin(replicates, df) * scale.slope(np.float64(value))
        ends = float(scale.back(centre - margin)), float(scale.back(centre + margin))
    return ends if np.isfinite([centre, *ends]).all() else None


def interval_of_difference(name: str, value: float, replicates: Floats, df: float) -> tuple[float, float] | None:
    """Interval of a difference of two models in a metric, no wider than the metric's range; as `interval`."""
    margin, width = _margin(replicates, df), _SCALES[name].width
    if not np.isfinite([value, margin]).all():
        return None
    margin = max(margin, _ROUNDING)
    return float(max(value - margin, -width)), float(min(value + margin, width))


def _margin(replicates: Floats, df: float) -> float:
    """Half the width of an interval on the scale of the metric itself, from the jackknife's standard error."""
    n = len(replicates)
    if n == 0:
        return np.nan
    variance = (n - 1) / n * np.square(replicates - replicates.mean()).sum()
    return float(student.ppf((1 + LEVEL) / 2, df) * np.sqrt(variance))


# --- metrics of weighted subjects ------------------------------------------------------------------------------------


def weighted(kind: TaskKind, predictions: Predictions, counts: Floats) -> dict[str, Floats]:
    """Every metric for every row of weights (R,).

    Parameters
    ----------
    kind : TaskKind
    predictions : Predictions
    counts : (R, S) float
        How often each subject counts, in the order of their sorted names.
    """
    _, subject = np.unique(predictions.subject, return_inverse=True)
    if kind == "regression":
        return _regression(predictions.label, predictions.score[:, 0], subject, counts)
    classes = [1] if kind == "binary" else range(predictions.score.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # weights of nobody, or of one class, give NaN
        metrics = _classification(predictions.label, predictions.predicted(), subject, counts)
        each = [_ranked(predictions.label == index, predictions.score[:, index], subject, counts) for index in classes]
        return metrics | {name: np.nanmean([one[name] for one in each], axis=0) for name in each[0]}


def _ranked(
    positive: npt.NDArray[np.bool_], score: Floats, subject: npt.NDArray[np.intp], counts: Floats
) -> dict[str, Floats]:
    """`_ranking` of all rows of weights, some at a time."""
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    rows = max(1, _VALUES // len(score))
    starts = range(0, max(1, len(counts)), rows)
    parts = [_ranking(positive[order], last_of_tie, counts[first : first + rows, subject[order]]) for first in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _classification(
    label: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], subject: npt.NDArray[np.intp], counts: Floats
) -> dict[str, Floats]:
    """Balanced accuracy, kappa and weighted F1 from the confusion matrices of the subjects."""
    n_classes = int(max(label.max(), predicted.max())) + 1
    of_subject = np.zeros((counts.shape[1], n_classes, n_classes))
    np.add.at(of_subject, (subject, label, predicted), 1)
    matrix = np.einsum("rs,sij->rij", counts, of_subject)
    true, called, hit = matrix.sum(2), matrix.sum(1), np.einsum("rii->ri", matrix)
    total = true.sum(1)
    recall = np.where(true > 0, hit / true, np.nan)
    f1 = np.where(true + called > 0, 2 * hit / (true + called), 0.0)
    expected = (true * called).sum(1) / total**2
    kappa = (hit.sum(1) / total - expected) / (1 - expected)
    return {
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "kappa": kappa,
        "weighted_f1": (f1 * true).sum(1) / total,
    }


def _ranking(positive: npt.NDArray[np.bool_], last_of_tie: npt.NDArray[np.intp], weight: Floats) -> dict[str, Floats]:
    """AUROC, PR-AUC (trapezoid) and average precision from the curves over all distinct thresholds.

    Parameters
    ----------
    positive : (n,) bool
        Of the windows, the highest score first.
    last_of_tie : (M,) int
        Place of the last window with each score.
    weight : (R, n) float
        How often each window counts.
    """
    hits = np.cumsum(weight * positive, axis=1)[:, last_of_tie]
    called = np.cumsum(weight, axis=1)[:, last_of_tie]
    recall = hits / hits[:, -1:]
    false_rate = (called - hits) / (called - hits)[:, -1:]
    precision = hits / called
    negatives = (called - hits)[:, -1:]
    recall = np.where(negatives > 0, recall, np.nan)
    # A threshold above all windows that count calls nothing; scikit-learn starts the curve at precision 1.
    precision = np.where(called > 0, precision, 1.0)
    before = np.concatenate([np.ones((len(weight), 1)), precision[:, :-1]], axis=1)
    return {
        "auroc": (_steps(false_rate) * (recall - _steps(recall) / 2)).sum(1),
        "pr_auc": (_steps(recall) * (precision + before) / 2).sum(1),
        "average_precision": (_steps(recall) * precision).sum(1),
    }


def _steps(curve: Floats) -> Floats:
    return np.diff(curve, axis=1, prepend=0.0)


def _regression(label: Floats, predicted: Floats, subject: npt.NDArray[np.intp], counts: Floats) -> dict[str, Floats]:
    """Pearson's r, R2 and RMSE from the moments of the subjects."""
    # Centred first: the moments of a far-away mean would cancel.
    y, p = label - label.mean(), predicted - label.mean()
    columns = (np.ones_like(y), y, p, y * y, p * p, y * p, (y - p) ** 2)
    n, sy, sp, syy, spp, syp, error = (
        counts @ np.bincount(subject, weights=column, minlength=counts.shape[1]) for column in columns
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        var_y, var_p, cov = syy - sy**2 / n, spp - sp**2 / n, syp - sy * sp / n
        # One subject with one label leaves rounding errors, not a variance.
        moves_y, moves_p = var_y > _ROUNDING * syy, var_p > _ROUNDING * spp
        return {
            "pearson_r": np.where(moves_y & moves_p, cov / np.sqrt(var_y * var_p), np.nan),
            "r2": np.where(moves_y, 1 - error / var_y, np.nan),
            "rmse": np.sqrt(error / n),
        }
