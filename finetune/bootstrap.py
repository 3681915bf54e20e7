"""Confidence intervals over subjects.

Windows of one subject are not independent, so it is subjects that are drawn with replacement. A draw is a count per
subject, and every figure of merit is a function of weighted counts, so a thousand draws are a few matrix products
instead of a thousand calls of scikit-learn; a test holds the two equal, draw by draw.

Shape letters: R draws, S subjects, n windows, K classes, M distinct scores.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from finetune.metrics import Predictions
from finetune.task import TaskKind

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""Share of the draws that an interval holds."""

_ROWS = 64
"""Draws whose curves are computed at once: bounds the memory on sets of many windows."""


def intervals(
    kind: TaskKind, by_seed: list[Predictions], *, n_draws: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the mean over seeds of every figure of merit.

    Parameters
    ----------
    kind : TaskKind
    by_seed : list of Predictions
        For the same windows by models of several seeds; a draw of subjects is the same for all of them.
    n_draws : int
        Draws of subjects.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict of (low, high)
        NaN where fewer than two subjects were given or a figure is defined in no draw.
    """
    subjects = np.unique(by_seed[0].subject)
    if len(subjects) < 2:
        return {}
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(subjects), np.full(len(subjects), 1 / len(subjects)), size=n_draws).astype(float)
    each = [resampled(kind, predictions, draws) for predictions in by_seed]
    tail = (1 - LEVEL) / 2
    result = {}
    for name in each[0]:
        values = np.mean([figures[name] for figures in each], axis=0)
        values = values[np.isfinite(values)]
        low, high = np.quantile(values, [tail, 1 - tail]) if len(values) else (np.nan, np.nan)
        result[name] = (float(low), float(high))
    return result


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
    figures = _classification(predictions.label, predictions.predicted(), subject, draws)
    classes = [1] if kind == "binary" else range(predictions.score.shape[1])
    each = [_ranked(predictions.label == index, predictions.score[:, index], subject, draws) for index in classes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw that defines no class's figure gives NaN
        return figures | {name: np.nanmean([one[name] for one in each], axis=0) for name in each[0]}


def _ranked(
    positive: npt.NDArray[np.bool_], score: Floats, subject: npt.NDArray[np.intp], draws: Floats
) -> dict[str, Floats]:
    """`_ranking` of all draws, some at a time."""
    parts = [_ranking(positive, score, draws[first : first + _ROWS, subject]) for first in range(0, len(draws), _ROWS)]
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
    with np.errstate(invalid="ignore", divide="ignore"):
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
    with np.errstate(invalid="ignore", divide="ignore"):
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
        return {
            "pearson_r": np.where((var_y > 0) & (var_p > 0), cov / np.sqrt(var_y * var_p), np.nan),
            "r2": np.where(var_y > 0, 1 - error / var_y, np.nan),
            "rmse": np.sqrt(error / n),
        }
