"""Figures of merit, from scikit-learn, on the predictions for whole sets of windows.

Names follow the papers: for two classes balanced accuracy, PR-AUC and AUROC; for more balanced accuracy, Cohen's kappa
and weighted F1; for a regression Pearson's r, R2 and RMSE. `pr_auc` is the trapezoid under the precision-recall curve
that the papers report; `average_precision` is the step-wise sum, which is a different number.
Of more than two classes AUROC, PR-AUC and average precision are those of each class against the rest, averaged over the
classes that have a window. A figure that the windows do not define (an AUROC where one class is absent) is NaN.

Shape letters: n windows, K classes.
"""

from __future__ import annotations

import dataclasses
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from codebrain.data.format import whole
from finetune.task import TaskKind


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model said about a set of windows, each once, in the order of the store."""

    window: npt.NDArray[np.int64]
    """(n,) number of the window in its store."""
    subject: npt.NDArray[np.str_]
    """(n,) whom it was recorded from."""
    label: npt.NDArray[Any]
    """(n,) class index, or the value to regress."""
    score: npt.NDArray[np.float64]
    """(n, K) class probabilities, or (n, 1) predicted values."""

    def __len__(self) -> int:
        return len(self.window)

    def take(self, rows: npt.NDArray[Any]) -> Predictions:
        """Those of some rows (indices or a mask)."""
        return Predictions(
            window=self.window[rows], subject=self.subject[rows], label=self.label[rows], score=self.score[rows]
        )

    def predicted(self) -> npt.NDArray[np.int64]:
        """(n,) most probable class, which is the threshold 0.5 for two classes."""
        return self.score.argmax(axis=1)

    def save(self, path: Path) -> None:
        """Write to an .npz file that holds nothing but arrays, and make its folder."""
        path.parent.mkdir(exist_ok=True)
        with whole(path) as partial, partial.open("wb") as file:
            np.savez(file, window=self.window, subject=self.subject, label=self.label, score=self.score)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            The file is missing or damaged; the message names it.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in ("window", "subject", "label", "score")})
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is missing or damaged ({error}).") from error

    @classmethod
    def concatenate(cls, parts: list[Predictions]) -> Predictions:
        """Those of several sets of windows."""
        names = ("window", "subject", "label", "score")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def score(kind: TaskKind, predictions: Predictions) -> dict[str, float]:
    """All figures of merit of a set of predictions."""
    if kind == "regression":
        return _regression(predictions.label, predictions.score[:, 0])
    figures = _classification(predictions.label, predictions.predicted())
    if kind == "binary":
        return figures | _ranking(predictions.label == 1, predictions.score[:, 1])
    each = [_ranking(predictions.label == index, score) for index, score in enumerate(predictions.score.T)]
    return figures | {name: _mean_of_defined([one[name] for one in each]) for name in each[0]}


def chance(kind: TaskKind, labels: npt.NDArray[Any]) -> dict[str, float]:
    """What a guess that does not look at the signal reaches: the line to beat in a figure.

    NaN where all labels are the same: a guess of that one is right everywhere, and says nothing.
    """
    n_values = len(np.unique(labels))
    if kind == "regression":
        found = {"pearson_r": 0.0, "r2": 0.0, "rmse": float(np.std(labels))}
    else:
        # Of several classes the mean of their shares.
        share = float(np.mean(labels == 1)) if kind == "binary" else 1 / n_values
        found = {"balanced_accuracy": 1 / n_values, "kappa": 0.0, "auroc": 0.5}
        found |= {"pr_auc": share, "average_precision": share}
    return found if n_values > 1 else dict.fromkeys(found, float("nan"))


def per_class(predictions: Predictions, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall, F1, AUROC against the rest, and from how many windows and subjects, of each class."""
    columns = sk.precision_recall_fscore_support(
        predictions.label, predictions.predicted(), labels=range(len(class_names)), zero_division=0
    )
    return [
        {"class": name, "precision": float(p), "recall": float(r), "f1": float(f)}
        | {"auroc": _ranking(predictions.label == index, predictions.score[:, index])["auroc"], "windows": int(n)}
        | {"subjects": len(np.unique(predictions.subject[predictions.label == index]))}
        for index, (name, p, r, f, n) in enumerate(zip(class_names, *columns, strict=True))
    ]


def confusion(predictions: Predictions, n_classes: int) -> npt.NDArray[np.int64]:
    """(K, K) windows of true class (row) called a class (column)."""
    return sk.confusion_matrix(predictions.label, predictions.predicted(), labels=range(n_classes))


def per_subject(kind: TaskKind, predictions: Predictions) -> list[dict[str, Any]]:
    """Figures of merit within each subject, in the order of their names."""
    rows: list[dict[str, Any]] = []
    for subject, own in _groups(predictions.subject):
        found = predictions.take(own)
        row: dict[str, Any] = {"subject": str(subject), "windows": len(own)}
        if kind != "regression":
            row["accuracy"] = float(np.mean(found.predicted() == found.label))
        rows.append(row | score(kind, found))
    return rows


def by_recording(predictions: Predictions, recording: npt.NDArray[np.int64]) -> Predictions | None:
    """One answer per recording, the mean of those for its windows; for what a recording has one label of.

    Parameters
    ----------
    predictions : Predictions
    recording : (all windows of the store,) int
        Row of the recording that each window was cut from.

    Returns
    -------
    Predictions or None
        `window` is the first of each recording. None where a recording's windows differ in label, or none has two.
    """
    groups = [rows for _, rows in _groups(recording[predictions.window])]
    if len(groups) == len(predictions) or any(len(np.unique(predictions.label[rows])) > 1 for rows in groups):
        return None
    first = predictions.take(np.array([rows[0] for rows in groups]))
    return dataclasses.replace(first, score=np.stack([predictions.score[rows].mean(axis=0) for rows in groups]))


def _groups(names: npt.NDArray[Any]) -> Iterator[tuple[Any, npt.NDArray[np.intp]]]:
    """Each name, sorted, with its rows in ascending order."""
    found, code, counts = np.unique(names, return_inverse=True, return_counts=True)
    yield from zip(found, np.split(np.argsort(code, kind="stable"), np.cumsum(counts)[:-1]), strict=True)


def _classification(label: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> dict[str, float]:
    with warnings.catch_warnings():
        # scikit-learn warns where a set of windows lacks a class that was predicted, or has one class only; it then
        # averages over the classes that are there, which is what a subject's own figures should do.
        warnings.simplefilter("ignore")
        return {
            "balanced_accuracy": float(sk.balanced_accuracy_score(label, predicted)),
            "kappa": float(sk.cohen_kappa_score(label, predicted)),
            "weighted_f1": float(sk.f1_score(label, predicted, average="weighted", zero_division=0)),
        }


def _ranking(positive: npt.NDArray[np.bool_], probability: npt.NDArray[np.float64]) -> dict[str, float]:
    if positive.all() or not positive.any():
        return {"auroc": float("nan"), "pr_auc": float("nan"), "average_precision": float("nan")}
    precision, recall, _ = sk.precision_recall_curve(positive, probability)
    return {
        "auroc": float(sk.roc_auc_score(positive, probability)),
        "pr_auc": float(sk.auc(recall, precision)),
        "average_precision": float(sk.average_precision_score(positive, probability)),
    }


def _mean_of_defined(values: list[float]) -> float:
    defined = [value for value in values if np.isfinite(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _regression(label: npt.NDArray[Any], predicted: npt.NDArray[np.float64]) -> dict[str, float]:
    moves = len(label) > 1 and np.ptp(label) > 0
    pearson = float(np.corrcoef(label, predicted)[0, 1]) if moves and np.ptp(predicted) > 0 else float("nan")
    return {
        "pearson_r": pearson,
        "r2": float(sk.r2_score(label, predicted)) if moves else float("nan"),
        "rmse": float(sk.root_mean_squared_error(label, predicted)),
    }
