"""Pictures of a fine-tuning run: figures/*.png.

comparison.png       the figures of merit of all arms, with intervals, against chance
confusion.png        share of each true class that got each answer
curves.png           receiver operating characteristic and precision against recall
agreement.png        of a regression: what was said against what is true
subjects.png         a figure of merit within each subject
learning.png         loss and selection metric over the steps of every trial
features.png         principal components of the features, coloured by class and by subject
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn import metrics as sk
from sklearn.decomposition import PCA

from codebrain.training.figures import save
from codebrain.training.logging import read_metrics
from finetune.markdown import HEADLINE, MAIN, TITLES, in_words, windows_in
from finetune.metrics import Predictions
from finetune.trial import Result

_MANY = 10
"""Subjects or folds that can still be told apart by colour and listed by name."""

_STYLE: Any = {
    **dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 8),
    **dict.fromkeys(("figure.titlesize", "axes.titlesize"), 9),
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
}
_CHANCE: dict[str, Any] = {"color": "C3", "linestyle": "--", "linewidth": 1}


@rc_context(_STYLE)
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
    drawn = {"comparison": comparison(report), "subjects": subjects(report), "learning": learning(report, trials)}
    if report["task"]["kind"] == "regression":
        drawn["agreement"] = agreement(report, by_seed)
    else:
        drawn["confusion"] = confusion(report)
        drawn["curves"] = ranking_curves(report, by_seed)
    for name, figure in drawn.items():
        save(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in drawn]


def comparison(report: dict[str, Any]) -> Figure:
    """A panel per figure of merit, a row per arm: mean over seeds, interval over subjects, every seed as a dot."""
    names, arms = HEADLINE[report["task"]["kind"]], list(report["arms"])
    figure = Figure(figsize=(9.6, 1.5 + 0.45 * len(arms)), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        for place, arm in enumerate(arms):
            value = report["arms"][arm][report["reported_side"]]["metrics"][name]
            colour = "C0" if arm == MAIN else "0.45"
            if value["interval"]:
                axis.plot(value["interval"], [place, place], "-", color=colour, linewidth=2.5, alpha=0.45)
            axis.plot(value["by_seed"], [place] * len(value["by_seed"]), "o", color=colour, markersize=3, alpha=0.6)
            axis.plot(value["mean"], place, "D", color=colour, markersize=6)
            text = (f"{value['mean']:.3f}", (value["mean"], place), (0, 6))
            axis.annotate(*text, textcoords="offset points", ha="center")
        if np.isfinite(report["chance"].get(name, np.nan)):
            axis.axvline(report["chance"][name], label="chance", **_CHANCE)
        axis.set_xlabel(in_words(name) + " (less is better)" * (name == "rmse"))
        axis.grid(axis="x", alpha=0.3)
        axis.margins(x=0.12)
    axes[0].set(yticks=range(len(arms)), ylim=(len(arms) - 0.5, -0.7))
    axes[0].set_yticklabels([TITLES[arm] for arm in arms])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right lower")
    found = report["intervals"]
    bar = f"no 95 % CI: {found['none_because']}" if found["none_because"] else f"bar: 95 % CI ({found['method']})"
    figure.suptitle(f"{_title(report)}\ndiamond: mean over seeds, dots: seeds, {bar}")
    return figure


def confusion(report: dict[str, Any]) -> Figure:
    """Rows are true classes and sum to 100 %; a cell has its share and the number of windows, mean over seeds."""
    names, counts = report["task"]["class_names"], np.array(_main(report)["confusion"])
    total = counts.sum(1, keepdims=True)
    share = counts / np.where(total > 0, total, 1)
    size = 2.4 + 0.62 * len(names)
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(*share.shape):
        text = f"{100 * share[row, column]:.0f} %\n{windows_in(float(counts[row, column]))}"
        colour = "white" if share[row, column] > 0.55 else "black"
        axis.text(column, row, text, ha="center", va="center", color=colour)
    axis.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="answer", ylabel="true class")
    axis.set_xticklabels(names, rotation=30 if len(names) > 3 else 0)
    axis.set_yticklabels(names)
    axis.set_title(_title(report).replace(": ", ":\n"))
    figure.colorbar(image, ax=axis, label="share of the true class (%)", shrink=0.8)
    return figure


def ranking_curves(report: dict[str, Any], by_seed: dict[int, Predictions]) -> Figure:
    """One line per seed of two classes, one per class of more (against the rest, first seed)."""
    names = report["task"]["class_names"]
    seed, first = next(iter(by_seed.items()))
    lines = (
        [(f"seed {seed}", p.label == 1, p.score[:, 1]) for seed, p in by_seed.items()]
        if len(names) == 2
        else [(name, first.label == index, first.score[:, index]) for index, name in enumerate(names)]
    )
    figure = Figure(figsize=(8.0, 4.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, positive, score in lines:
        if positive.all() or not positive.any():
            continue
        false_rate, recall, _ = sk.roc_curve(positive, score)
        left.plot(false_rate, recall, label=f"{name}: {sk.auc(false_rate, recall):.3f}")
        precision, recall, _ = sk.precision_recall_curve(positive, score)
        right.plot(recall, precision, label=f"{name}: {sk.auc(recall, precision):.3f}")
    share = report["chance"]["pr_auc"]
    if np.isfinite(share):  # otherwise there is one class, and no curve
        left.plot([0, 1], [0, 1], label="chance: 0.500", **_CHANCE)
        chance = "chance" if len(names) == 2 else "chance, mean of the classes"
        right.axhline(share, label=f"{chance}: {share:.3f}", **_CHANCE)
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="receiver operating characteristic")
    what = f"recall of {names[1]!r}" if len(names) == 2 else f"recall of each class against the rest, seed {seed}"
    right.set(xlabel=what, ylabel="precision", title="precision and recall")
    for axis in (left, right):
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
        if axis.lines:
            axis.legend(loc="lower right" if axis is left else "best", title="area under the curve", title_fontsize=7)
    several = len(names) > 2 and len(by_seed) > 1
    figure.suptitle(_title(report) + f"\ncurves of seed {seed} alone" * several)
    return figure


def agreement(report: dict[str, Any], by_seed: dict[int, Predictions]) -> Figure:
    """What was said (mean of seeds) against what is true, a dot per window."""
    first = next(iter(by_seed.values()))
    said = np.mean([predictions.score[:, 0] for predictions in by_seed.values()], axis=0)
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axis = figure.subplots()
    ends = [min(first.label.min(), said.min()), max(first.label.max(), said.max())]
    axis.plot(ends, ends, "--", color="0.5", linewidth=1, label="equal")
    _scatter_by_subject(axis, first.label, said, first.subject)
    axis.legend(title="subject", title_fontsize=7)
    axis.set(xlabel="true value", ylabel="answer (mean of seeds)", title=_title(report).replace(": ", ":\n"))
    return figure


def subjects(report: dict[str, Any]) -> Figure:
    """One dot per subject, sorted: whether a mean speaks for most of them."""
    # What is defined within one subject, who may have one class or one value only.
    name = {"binary": "balanced_accuracy", "multiclass": "accuracy", "regression": "rmse"}[report["task"]["kind"]]
    rows = sorted(report["per_subject"], key=lambda row: row[name])
    figure = Figure(figsize=(max(4.5, min(12.0, 1.5 + 0.22 * len(rows))), 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot([row[name] for row in rows], "o", markersize=4)
    if np.isfinite(report["chance"].get(name, np.nan)):
        axis.axhline(report["chance"][name], label="chance", **_CHANCE)
        axis.legend()
    if len(rows) <= 5 * _MANY:
        axis.set_xticks(range(len(rows)))
        axis.set_xticklabels([row["subject"] for row in rows], rotation=90)
    axis.set(xlabel="subject, sorted", ylabel=f"{in_words(name)} (mean of seeds)")
    axis.set_title(_title(report).replace(": ", ":\n"))
    axis.grid(axis="y", alpha=0.3)
    return figure


def learning(report: dict[str, Any], trials: list[Result]) -> Figure:
    """Loss and selection metric of every trial; the dot is the step whose weights were taken."""
    figure = Figure(figsize=(9.0, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    key = report["selected_by"]
    several = len(report["splits"]["folds"]) > 1
    named: dict[str, Line2D] = {}
    for trial in trials:
        assert trial.path is not None
        name = f"fold {trial.fold}" if several else f"seed {trial.seed}"
        colour = f"C{list(dict.fromkeys([*named, name])).index(name) % 10}"
        lines = read_metrics(trial.path)
        for loss, style in (("train/loss", ":"), ("valid/loss", "-")):
            _line(left, *_series(lines, loss), style, color=colour)
        steps, values = _series(lines, key)
        named[name] = _line(right, steps, values, "-", color=colour)
        best = trial.facts["best_step"]
        right.plot(best, dict(zip(steps, values, strict=True))[best], "o", color=colour, markersize=4)
    left.set(xlabel="step (optimizer updates)", ylabel="loss (dotted: training, line: validation)")
    right.set(xlabel="step (optimizer updates)", ylabel=f"{in_words(key.removeprefix('valid/'))} on validation")
    if 0 < len(named) <= _MANY:
        figure.legend(list(named.values()), list(named), loc="outside right center")
    task, config = report["task"], report["config"]
    what = f"{task['title']}, {config['mode']} with head {config['head']}"
    figure.suptitle(f"{what}: a line per fold and seed, a dot where its weights were taken")
    return figure


@rc_context(_STYLE)
def feature_map(
    path: Path,
    features: npt.NDArray[np.floating],
    label: npt.NDArray[Any],
    subject: npt.NDArray[np.str_],
    class_names: tuple[str, ...],
    title: str,
) -> Path:
    """First two principal components of pooled features (n, D), by label and by subject.

    If windows gather by subject and not by class, a classifier of new subjects has little to go by.
    """
    parts = PCA(2, random_state=0).fit(features)
    xy = parts.transform(features)
    share = 100 * parts.explained_variance_ratio_
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    if class_names:
        for index, name in enumerate(class_names):
            left.scatter(*xy[label == index].T, s=6, alpha=0.6, label=name)
        left.legend()
    else:
        figure.colorbar(left.scatter(*xy.T, s=6, c=label), ax=left, label="true value")
    _scatter_by_subject(right, xy[:, 0], xy[:, 1], subject)
    left.set_title("by class" if class_names else "by label")
    right.set_title(f"by subject ({len(np.unique(subject))})")
    for axis in (left, right):
        axis.set_xlabel(f"component 1 ({share[0]:.0f} % of variance)")
        axis.set_ylabel(f"component 2 ({share[1]:.0f} % of variance)")
    figure.suptitle(title)
    save(figure, path)
    return path


def _scatter_by_subject(
    axis: Any, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating], subject: npt.NDArray[np.str_]
) -> None:
    """A dot per window in the colour of its subject; subjects are named where they can be told apart."""
    names = np.unique(subject)
    for number, name in enumerate(names):
        own = subject == name
        legend = str(name) if len(names) <= _MANY else None
        axis.scatter(x[own], y[own], s=6, alpha=0.6, color=f"C{number % 10}", label=legend)
    if len(names) <= _MANY:
        axis.legend()


def _series(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in points], [value for _, value in points]


def _line(axis: Any, steps: list[int], values: list[float], style: str, **options: Any) -> Line2D:
    """A line, or a dot where there is one point only."""
    (drawn,) = axis.plot(steps, values, style, linewidth=1, marker="." if len(steps) == 1 else None, **options)
    return drawn


def _main(report: dict[str, Any]) -> dict[str, Any]:
    """What the report says of the model on the side that it speaks of."""
    return report["arms"][MAIN][report["reported_side"]]


def _title(report: dict[str, Any]) -> str:
    """Task, side, and how many subjects, folds and seeds are behind the figures."""
    task, config = report["task"], report["config"]
    side = "test" if report["reported_side"] == "test" else "VALIDATION, no test set"
    counts = {
        "subject": _main(report)["subjects"],
        "fold": len(report["splits"]["folds"]),
        "seed": len(config["seeds"]),
    }
    behind = ", ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in counts.items())
    return f"{task['title']}, {side}: {behind}"
