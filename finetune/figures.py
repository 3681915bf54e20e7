"""Pictures of a fine-tuning run: figures/*.png.

confusion.png        share of each true class that got each answer
comparison.png       balanced accuracy (or the metric of a regression) of all arms, with intervals, against chance
curves.png           receiver operating characteristic and precision against recall
subjects.png         the same metric within each subject
learning.png         loss and selection metric over the steps of every trial
features.png         principal components of the features, coloured by class and by subject
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn import metrics as sk
from sklearn.decomposition import PCA

from codebrain.training.figures import save
from codebrain.training.logging import read_metrics
from finetune.markdown import HEADLINE, MAIN, TITLES
from finetune.metrics import Predictions
from finetune.trial import Result

_MANY = 12
"""Subjects that can still be told apart by colour and listed by name."""


def draw(folder: Path, report: dict[str, Any], by_seed: dict[int, Predictions], trials: list[Result]) -> list[Path]:
    """Draw every picture that the task allows and return their paths.

    Parameters
    ----------
    folder : Path
    report : dict
        From `report.build`.
    by_seed : dict of Predictions
        Of the model, on the side that the report speaks of.
    trials : list of Result
        Of the model.
    """
    side = report["reported_side"]
    entry = report["arms"][MAIN][side]
    drawn = {
        "comparison": comparison(report),
        "subjects": subjects(report, entry),
        "learning": learning(report, trials),
    }
    if "confusion" in entry:
        drawn["confusion"] = confusion(report, entry)
        drawn["curves"] = ranking_curves(report, by_seed)
    for name, figure in drawn.items():
        save(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in drawn]


def confusion(report: dict[str, Any], entry: dict[str, Any]) -> Figure:
    """Rows are true classes and sum to 100 %; a cell has its share and the number of windows over all seeds."""
    names, counts = report["task"]["class_names"], np.array(entry["confusion"])
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 2.4 + 0.62 * len(names)
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(*share.shape):
        axis.text(
            column,
            row,
            f"{100 * share[row, column]:.0f} %\n{counts[row, column]}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share[row, column] > 0.55 else "black",
        )
    axis.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="answer", ylabel="true class")
    axis.set_xticklabels(names, rotation=30 if len(names) > 3 else 0)
    axis.set_yticklabels(names)
    axis.set_title(_title(report, entry), fontsize=9)
    figure.colorbar(image, ax=axis, label="share of the true class (%)", shrink=0.8)
    return figure


def comparison(report: dict[str, Any]) -> Figure:
    """One row per arm: mean over seeds with the interval over subjects, every seed as a dot, chance as a line."""
    side = report["reported_side"]
    name = HEADLINE[report["task"]["kind"]][0]
    arms = list(report["arms"])
    figure = Figure(figsize=(6.4, 1.3 + 0.55 * len(arms)), layout="constrained")
    axis = figure.subplots()
    for place, arm in enumerate(arms):
        value = report["arms"][arm][side]["metrics"][name]
        colour = "C0" if arm == MAIN else "0.45"
        if value["interval"]:
            axis.plot(value["interval"], [place, place], "-", color=colour, linewidth=2.5, alpha=0.45)
        axis.plot(value["by_seed"], [place] * len(value["by_seed"]), "o", color=colour, markersize=3.5, alpha=0.6)
        axis.plot(value["mean"], place, "D", color=colour, markersize=7)
        axis.annotate(f"{value['mean']:.3f}", (value["mean"], place), (0, 7), textcoords="offset points", fontsize=8)
    axis.axvline(report["chance"].get(name, 0.0), color="C3", linestyle="--", linewidth=1, label="chance")
    axis.set(yticks=range(len(arms)), ylim=(len(arms) - 0.4, -0.6))
    axis.set_yticklabels([TITLES[arm] for arm in arms], fontsize=8)
    n_seeds = len(report["config"]["seeds"])
    axis.set_xlabel(
        f"{name.replace('_', ' ')}, {_side(side)} (mean of {n_seeds} seed{'s' * (n_seeds > 1)}, dots: seeds,\n"
        "bar: 95 % interval over subjects)",
        fontsize=8,
    )
    axis.legend(fontsize=8, loc="lower right")
    return figure


def ranking_curves(report: dict[str, Any], by_seed: dict[int, Predictions]) -> Figure:
    """One line per seed of two classes, one per class of more (against the rest, first seed)."""
    names, side = report["task"]["class_names"], _side(report["reported_side"])
    seed, first = next(iter(by_seed.items()))
    lines = (
        [(f"seed {seed}", p.label == 1, p.score[:, 1]) for seed, p in by_seed.items()]
        if len(names) == 2
        else [(name, first.label == index, first.score[:, index]) for index, name in enumerate(names)]
    )
    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, positive, score in lines:
        if positive.all() or not positive.any():
            continue
        false_rate, recall, _ = sk.roc_curve(positive, score)
        left.plot(false_rate, recall, linewidth=1.2, label=f"{name}: {sk.auc(false_rate, recall):.3f}")
        precision, recall, _ = sk.precision_recall_curve(positive, score)
        right.plot(recall, precision, linewidth=1.2, label=f"{name}: {sk.auc(recall, precision):.3f}")
    left.plot([0, 1], [0, 1], "--", color="C3", linewidth=1, label="chance: 0.500")
    left.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC, area ({side})")
    share = report["chance"]["pr_auc"]
    right.axhline(share, linestyle="--", color="C3", linewidth=1, label=f"chance: {share:.3f}")
    what = f"recall of `{names[1]}`" if len(names) == 2 else f"recall of each class against the rest, seed {seed}"
    right.set(xlabel=what, ylabel="precision", title=f"Precision and recall, area ({side})", ylim=(0, 1.02))
    for axis in (left, right):
        axis.legend(fontsize=8, loc="lower right")
        axis.title.set_fontsize(9)
    return figure


def subjects(report: dict[str, Any], entry: dict[str, Any]) -> Figure:
    """One dot per subject, sorted: whether a mean speaks for most of them."""
    name = "accuracy" if report["task"]["kind"] == "multiclass" else HEADLINE[report["task"]["kind"]][0]
    rows = sorted(entry["per_subject"], key=lambda row: row[name])
    figure = Figure(figsize=(max(4.0, min(12.0, 1.5 + 0.22 * len(rows))), 3.4), layout="constrained")
    axis = figure.subplots()
    axis.plot([row[name] for row in rows], "o", markersize=4)
    if name in report["chance"]:
        axis.axhline(report["chance"][name], color="C3", linestyle="--", linewidth=1, label="chance")
        axis.legend(fontsize=8)
    if len(rows) <= 4 * _MANY:
        axis.set_xticks(range(len(rows)))
        axis.set_xticklabels([row["subject"] for row in rows], rotation=90, fontsize=7)
    axis.set_xlabel(f"subject ({_side(report['reported_side'])}, sorted)", fontsize=8)
    axis.set_ylabel(f"{name.replace('_', ' ')} (mean of seeds)", fontsize=8)
    axis.grid(axis="y", alpha=0.3)
    return figure


def learning(report: dict[str, Any], trials: list[Result]) -> Figure:
    """Loss and selection metric of every trial; the dot is the step whose weights were taken."""
    figure = Figure(figsize=(8.0, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    key = report["selected_by"]
    several = len(report["splits"]["folds"]) > 1
    for number, trial in enumerate(trials):
        assert trial.path is not None
        lines, colour = read_metrics(trial.path), f"C{number % 10}"
        for loss, style in (("train/loss", ":"), ("valid/loss", "-")):
            _line(left, *_series(lines, loss), style, color=colour)
        steps, values = _series(lines, key)
        name = f"fold {trial.fold}, " * several + f"seed {trial.seed}"
        _line(right, steps, values, "-", color=colour, label=name if len(trials) <= _MANY else None)
        best = trial.facts["best_step"]
        right.plot(best, dict(zip(steps, values, strict=True))[best], "o", color=colour, markersize=4)
    left.set(xlabel="step (optimizer updates)", ylabel="loss (dotted: training, line: validation)")
    right.set(xlabel="step (optimizer updates)", ylabel=f"{key.removeprefix('valid/')} on validation")
    for axis in (left, right):
        axis.xaxis.label.set_fontsize(8)
        axis.yaxis.label.set_fontsize(8)
    if 0 < len(trials) <= _MANY:
        right.legend(fontsize=7)
    return figure


def feature_map(
    path: Path,
    features: npt.NDArray[np.floating],
    label: npt.NDArray[Any],
    subject: npt.NDArray[np.str_],
    class_names: tuple[str, ...],
) -> Path:
    """First two principal components of pooled features (n, D), by label and by subject.

    If windows gather by subject and not by class, a classifier of new subjects has little to go by.
    """
    parts = PCA(2, random_state=0).fit(features - features.mean(0))
    xy = parts.transform(features - features.mean(0))
    share = 100 * parts.explained_variance_ratio_
    figure = Figure(figsize=(8.6, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    if class_names:
        for index, name in enumerate(class_names):
            left.scatter(*xy[label == index].T, s=6, alpha=0.6, label=name)
        left.legend(fontsize=7)
    else:
        figure.colorbar(left.scatter(*xy.T, s=6, c=label), ax=left, label="label")
    names = np.unique(subject)
    for number, name in enumerate(names):
        legend = name if len(names) <= _MANY else None
        right.scatter(*xy[subject == name].T, s=6, alpha=0.6, color=f"C{number % 10}", label=legend)
    if len(names) <= _MANY:
        right.legend(fontsize=7)
    left.set_title("by label", fontsize=9)
    right.set_title(f"by subject ({len(names)})", fontsize=9)
    for axis in (left, right):
        axis.set_xlabel(f"component 1 ({share[0]:.0f} % of variance)", fontsize=8)
        axis.set_ylabel(f"component 2 ({share[1]:.0f} % of variance)", fontsize=8)
    save(figure, path)
    return path


def _series(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in points], [value for _, value in points]


def _line(axis: Any, steps: list[int], values: list[float], style: str, **options: Any) -> None:
    """A line, or a dot where there is one point only."""
    axis.plot(steps, values, style, linewidth=1, marker="." if len(steps) == 1 else None, **options)


def _side(side: str) -> str:
    return "test" if side == "test" else "VALIDATION, no test set"


def _title(report: dict[str, Any], entry: dict[str, Any]) -> str:
    return f"{report['task']['name']}, {_side(report['reported_side'])}: {entry['subjects']} subjects"
