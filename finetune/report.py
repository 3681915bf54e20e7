"""The report: report.json for programs, report.md for people, both from the same numbers.

A figure of merit is computed per seed, on the predictions for all windows of a side (over several folds: every
subject's windows once, from the model that did not see the subject), and given as mean and standard deviation over
seeds, with an interval over subjects.
"""

from __future__ import annotations

import json
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from codebrain.config import to_dict
from codebrain.data.format import write_text
from finetune import bootstrap, metrics
from finetune.config import FinetuneConfig
from finetune.markdown import MAIN, TITLES, in_words, to_markdown
from finetune.metrics import Predictions
from finetune.splits import Splits, Windows
from finetune.task import Task
from finetune.trial import Result


@dataclass(frozen=True)
class Arms:
    """Results of the model and of what it is compared with, by name."""

    task: Task
    results: dict[str, list[Result]]

    @property
    def side(self) -> str:
        """The side that figures speak of: test, or validation where there is no test set."""
        return "test" if "test" in self.results[MAIN][0].predictions else "valid"

    def by_seed(self, arm: str, side: str) -> dict[int, Predictions]:
        """Predictions of each seed, those of all folds together."""
        seeds = dict.fromkeys(result.seed for result in self.results[arm])
        return {
            seed: Predictions.concatenate([r.predictions[side] for r in self.results[arm] if r.seed == seed])
            for seed in seeds
        }


def build(
    config: FinetuneConfig, arms: Arms, splits: Splits, windows: Windows, facts: dict[str, Any]
) -> dict[str, Any]:
    """The whole report as JSON types.

    Parameters
    ----------
    config : FinetuneConfig
    arms : Arms
    splits : Splits
    windows : Windows
    facts : dict
        What else the run knows: store, checkpoint, seconds.
    """
    sides = [side for side in ("valid", "test") if side in arms.results[MAIN][0].predictions]
    return {
        "task": {"name": arms.task.name, "protocol": arms.task.protocol, "kind": arms.task.kind}
        | {"class_names": list(arms.task.class_names)},
        **facts,
        "config": to_dict(config),
        "splits": _splits(splits, windows),
        "selected_by": f"valid/{arms.task.selection}",
        "reported_side": arms.side,
        "chance": metrics.chance(arms.task.kind, windows.label[_windows_of(arms)]),
        "arms": {
            name: {side: _side(arms, name, side, config.n_bootstrap) for side in sides}
            | {"trials": [{"fold": r.fold, "seed": r.seed} | r.facts for r in arms.results[name]]}
            for name in arms.results
        },
        "cautions": _cautions(arms, splits, windows),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "sklearn": sklearn.__version__},
    }


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json and report.md."""
    write_text(folder / "report.json", json.dumps(_json(report), indent=1, allow_nan=False) + "\n")
    write_text(folder / "report.md", to_markdown(report))


def _windows_of(arms: Arms) -> Any:
    return np.concatenate([result.predictions[arms.side].window for result in arms.results[MAIN]])


def _side(arms: Arms, arm: str, side: str, n_draws: int) -> dict[str, Any]:
    """Everything about an arm on one side of the splits."""
    kind, by_seed = arms.task.kind, arms.by_seed(arm, side)
    scores = {seed: metrics.score(kind, predictions) for seed, predictions in by_seed.items()}
    intervals = bootstrap.intervals(kind, list(by_seed.values()), n_draws=n_draws)
    entry: dict[str, Any] = {
        "windows": len(next(iter(by_seed.values()))),
        "subjects": len(np.unique(next(iter(by_seed.values())).subject)),
        "metrics": {
            name: _spread([figures[name] for figures in scores.values()]) | {"interval": intervals.get(name)}
            for name in next(iter(scores.values()))
        },
        "per_subject": _mean_tables([metrics.per_subject(kind, p) for p in by_seed.values()], "subject"),
    }
    folds = sorted({result.fold for result in arms.results[arm]})
    if len(folds) > 1:
        entry["folds"] = _over_folds(arms, arm, side, folds)
    if kind != "regression":
        classes = arms.task.class_names
        entry["per_class"] = _mean_tables([metrics.per_class(p, classes) for p in by_seed.values()], "class")
        matrices = [metrics.confusion(p, len(classes)) for p in by_seed.values()]
        entry["confusion"] = np.sum(matrices, axis=0).tolist()
    return entry


def _spread(values: list[float]) -> dict[str, Any]:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd, "by_seed": values}


def _over_folds(arms: Arms, arm: str, side: str, folds: list[int]) -> dict[str, Any]:
    """Mean and standard deviation over folds of the figures within each fold (mean over seeds)."""
    of_fold = [
        [metrics.score(arms.task.kind, r.predictions[side]) for r in arms.results[arm] if r.fold == fold]
        for fold in folds
    ]
    result = {}
    for name in of_fold[0][0]:
        values = [float(np.mean([figures[name] for figures in seeds])) for seeds in of_fold]
        defined = [value for value in values if math.isfinite(value)]
        result[name] = {
            "mean": float(np.mean(defined)) if defined else math.nan,
            "sd": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
            "by_fold": values,
        }
    return result


def _mean_tables(tables: list[list[dict[str, Any]]], key: str) -> list[dict[str, Any]]:
    """Mean over seeds of tables with the same rows."""
    rows = []
    for same in zip(*tables, strict=True):
        row = {name: float(np.mean([each[name] for each in same])) for name in same[0] if name != key}
        rows.append({key: same[0][key]} | row | {"windows": same[0]["windows"]})
    return rows


def _splits(splits: Splits, windows: Windows) -> dict[str, Any]:
    def count(ids: Any) -> dict[str, Any]:
        entry: dict[str, Any] = {"windows": len(ids), "subjects": len(np.unique(windows.subject[ids]))}
        if windows.class_names:
            counts = np.bincount(windows.label[ids], minlength=len(windows.class_names))
            entry["classes"] = dict(zip(windows.class_names, counts.tolist(), strict=True))
        return entry

    return {
        "kind": splits.kind,
        "seed": splits.seed,
        "within_subject": splits.within_subject,
        "manifest": "splits.json",
        "folds": [
            {"train": count(fold.train), "valid": count(fold.valid), "test": count(fold.test)} for fold in splits.folds
        ],
    }


def _cautions(arms: Arms, splits: Splits, windows: Windows) -> list[str]:
    """What a reader must know before quoting a figure."""
    side = arms.side
    cautions = []
    if side == "valid":
        cautions.append(
            "THERE IS NO TEST SET. The split has no test windows, so every figure is on validation, where weights were "
            "also selected: it is too high by an unknown amount. `--split.kind kfold` tests every subject once."
        )
    if missing := _absent(arms):
        cautions.append(
            f"No window of {', '.join(missing)} is among those judged: balanced accuracy, AUROC and PR-AUC are means "
            "over the other classes."
        )
    if splits.within_subject:
        cautions.append(_who_is_known(splits, windows, side))
    n_subjects = len(np.unique(next(iter(arms.by_seed(MAIN, side).values())).subject))
    if n_subjects < 10:
        cautions.append(f"Only {n_subjects} subjects are behind the figures; an interval over so few is a rough one.")
    if len(arms.by_seed(MAIN, side)) == 1:
        cautions.append("One seed only: no spread over seeds is known. `--seeds 0 1 2 3 4` gives it.")
    if len(splits.folds) > 1:
        cautions.append(
            "Figures are over the predictions of all folds together; those within each fold are other numbers, and the "
            "report has both."
        )
    cautions += [verdict for name in arms.results if name != MAIN if (verdict := _verdict(arms, name, side))]
    return cautions


def _who_is_known(splits: Splits, windows: Windows, side: str) -> str:
    """What it means that a split divides subjects: that the judged ones are known, or only those selected on."""
    for fold in splits.folds:
        judged = windows.subject[getattr(fold, side)]
        if np.isin(judged, windows.subject[fold.train]).any():
            where = "test" if side == "test" else "validate"
            return f"Windows of the same subjects train and {where}: the figures do not speak about new subjects."
    return (
        "Some subjects are on two sides: weights were selected with people that the model knows, or that test. Whoever "
        "tests does not train."
    )


def _absent(arms: Arms) -> list[str]:
    """Classes without a window on the side that is reported."""
    judged = np.unique(next(iter(arms.by_seed(MAIN, arms.side).values())).label)
    return [name for index, name in enumerate(arms.task.class_names) if index not in judged]


def _verdict(arms: Arms, baseline: str, side: str) -> str:
    """A sentence if the model does not beat a baseline by the figure that selects it."""
    name = arms.task.selection
    ours, theirs = (
        float(np.mean([metrics.score(arms.task.kind, p)[name] for p in arms.by_seed(arm, side).values()]))
        for arm in (MAIN, baseline)
    )
    if ours > theirs:
        return ""
    return f"CodeBrain does NOT beat {TITLES[baseline]}: {in_words(name)} {ours:.3f} against {theirs:.3f}."


def _json(value: Any) -> Any:
    """The same with null for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
