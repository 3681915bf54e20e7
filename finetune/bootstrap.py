"""Confidence intervals over subjects.

Windows of one subject are not independent, so it is subjects that are drawn with replacement. A draw is a count per
subject, and every figure of merit is a function of weighted counts, so a thousand draws are a few matrix products
instead of a thousand calls of scikit-learn; a test holds the two equal, draw by draw.

Shape letters: R draws, S subjects, n windows, K classes, M distinct scores.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.metrics import Predictions
from finetune.task import TaskKind

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""Share of the draws that an interval holds."""

MIN_DEFINED = 0.9
"""Share of the draws that must define a figure for it to have an interval. What is left of fewer are the draws that
look like the sample: of one patient and one control, every draw with an AUROC has the same."""

_VALUES = 1 << 22
"""Weights of windows (draws x windows) whose curves are computed at once: bounds the memory."""


@dataclass(frozen=True)
class Draws:
    """Subjects, drawn with replacement as often as there are any. Equal subjects and seeds give equal draws, so that
    what two models reach can be compared draw by draw.
    """

    names: npt.NDArray[np.str_]
    """(S,) the subjects, sorted."""
    counts: Floats
    """(R, S) how often each is taken."""

    @classmethod
    def of(cls, subject: npt.NDArray[np.str_], n_draws: int, seed: int = 0) -> Draws:
        """Draws of the subjects of a set of windows; none at all of fewer than two."""
        names = np.unique(subject)
        rng = np.random.default_rng(seed)
        taken = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_draws if len(names) > 1 else 0)
        return cls(names, taken.astype(float))

    def counts_of(self, predictions: Predictions) -> Floats:
        """(R, S') how often each of those who are judged there is taken."""
        return self.counts[:, np.isin(self.names, predictions.subject)]

    def figures(self, kind: TaskKind, by_seed: Sequence[Predictions]) -> dict[str, Floats]:
        """Every figure of merit in every draw (R,), mean over seeds; NaN where a draw does not define it.

        Parameters
        ----------
        kind : TaskKind
        by_seed : sequence of Predictions
            For the same windows by models of several seeds. Their subjects may be some of those drawn.
        """
        counts = self.counts_of(by_seed[0])
        each = [resampled(kind, predictions, counts) for predictions in by_seed]
        return {name: np.mean([figures[name] for figures in each], axis=0) for name in each[0]}


def interval(values: Floats) -> tuple[float, float] | None:
    """Percentile interval of a figure over draws (R,); None where too few of them define it."""
    defined = values[np.isfinite(values)]
    if not len(defined) or len(defined) < MIN_DEFINED * len(values):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def resampled(kind: TaskKind, predictions: Predictions, draws: Floats) -> dict[str, Floats]:
    """Figures of merit (R,) of every draw.

    Parameters
    ----------
    kind : TaskKind
    predictions : Predictions
    draws : (R, S) float
        How often each subject is taken, in the order of their sorted names.
    """
    _, subject = np.unique(predictions.subject, return_inverse=True)
    if kind == "regression":
        return _regression(predictions.label, predictions.score[:, 0], subject, draws)
    classes = [1] if kind == "binary" else range(predictions.score.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw of nobody, or of one class, gives NaN
        figures = _classification(predictions.label, predictions.predicted(), subject, draws)
        each = [_ranked(predictions.label == index, predictions.score[:, index], subject, draws) for index in classes]
        return figures | {name: np.nanmean([one[name] for one in each], axis=0) for name in each[0]}


def _ranked(
    positive: npt.NDArray[np.bool_], score: Floats, subject: npt.NDArray[np.intp], draws: Floats
) -> dict[str, Floats]:
    """`_ranking` of all draws, some at a time."""
    rows = max(1, _VALUES // len(score))
    starts = range(0, max(1, len(draws)), rows)
    parts = [_ranking(positive, score, draws[first : first + rows, subject]) for first in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _classification(
    label: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], subject: npt.NDArray[np.intp], draws: Floats
) -> dict[str, Floats]:
    """Balanced accuracy, kappa and weighted F1 from the confusion matrices of the subjects."""
    n_classes = int(max(label.max(), predicted.max())) + 1
    counts = np.zeros((draws.shape[1], n_classes, n_classes))
    np.add.at(counts, (subject, label, predicted), 1)
    matrix = np.einsum("rs,sij->rij", draws, counts)
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


def _ranking(positive: npt.NDArray[np.bool_], score: Floats, weight: Floats) -> dict[str, Floats]:
    """AUROC, PR-AUC (trapezoid) and average precision from the curves over all distinct thresholds.

    Parameters
    ----------
    positive : (n,) bool
    score : (n,) float
    weight : (R, n) float
        How often each window is taken.
    """
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(weight[:, order] * positive[order], axis=1)[:, last_of_tie]
    called = np.cumsum(weight[:, order], axis=1)[:, last_of_tie]
    recall = hits / hits[:, -1:]
    false_rate = (called - hits) / (called - hits)[:, -1:]
    precision = hits / called
    negatives = (called - hits)[:, -1:]
    recall = np.where(negatives > 0, recall, np.nan)
    # A threshold above all windows that were drawn calls nothing; scikit-learn starts the curve at precision 1.
    precision = np.where(called > 0, precision, 1.0)
    before = np.concatenate([np.ones((len(weight), 1)), precision[:, :-1]], axis=1)
    return {
        "auroc": (_steps(false_rate) * (recall - _steps(recall) / 2)).sum(1),
        "pr_auc": (_steps(recall) * (precision + before) / 2).sum(1),
        "average_precision": (_steps(recall) * precision).sum(1),
    }


def _steps(curve: Floats) -> Floats:
    return np.diff(curve, axis=1, prepend=0.0)


_ROUNDING = 1e-10
"""Share of a sum of squares that a difference of two such sums may owe to rounding."""


def _regression(label: Floats, predicted: Floats, subject: npt.NDArray[np.intp], draws: Floats) -> dict[str, Floats]:
    """Pearson's r, R2 and RMSE from the moments of the subjects."""
    # Centred first: the moments of a far-away mean would cancel.
    y, p = label - label.mean(), predicted - label.mean()
    columns = (np.ones_like(y), y, p, y * y, p * p, y * p, (y - p) ** 2)
    n, sy, sp, syy, spp, syp, error = (
        draws @ np.bincount(subject, weights=column, minlength=draws.shape[1]) for column in columns
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        var_y, var_p, cov = syy - sy**2 / n, spp - sp**2 / n, syp - sy * sp / n
        # A draw of one subject with one label leaves rounding errors, not a variance.
        moves_y, moves_p = var_y > _ROUNDING * syy, var_p > _ROUNDING * spp
        return {
            "pearson_r": np.where(moves_y & moves_p, cov / np.sqrt(var_y * var_p), np.nan),
            "r2": np.where(moves_y, 1 - error / var_y, np.nan),
            "rmse": np.sqrt(error / n),
        }
