"""The report: report.json for programs, report.md for people, both from the same numbers.

A figure of merit is computed per seed, on the predictions for all windows of a side (over several folds: every
subject's windows once, from the model that did not see the subject), and given as mean and standard deviation over
seeds, with a confidence interval over subjects.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codebrain.config import to_dict
from codebrain.data.format import write_text
from finetune import compare, intervals, metrics
from finetune.compare import Difference, Evaluation
from finetune.config import FinetuneConfig
from finetune.intervals import Weights
from finetune.markdown import MAIN, TITLES, counted, in_words, to_markdown
from finetune.metrics import Predictions
from finetune.splits import Splits, Windows, fault_of_test
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

    def by_fold(self, arm: str, side: str) -> list[list[Predictions]]:
        """Of each fold the predictions of each seed."""
        folds = sorted({result.fold for result in self.results[arm]})
        return [[r.predictions[side] for r in self.results[arm] if r.fold == fold] for fold in folds]


_FEW = 10
"""Subjects below whom the report warns of wide intervals."""


@dataclass(frozen=True)
class _Arm:
    """An arm's figures on the side that the report speaks of."""

    whole: Evaluation
    """On all windows, those of all folds together."""
    folds: list[Evaluation]
    """Within each fold, of several."""
    recordings: Evaluation | None
    """Of predictions averaged over each recording, where all windows of one have the same label."""


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
        What else the run knows: `store`, `processes`, and what `provenance` finds: `pretraining`, `prepared_otherwise`.
    """
    evaluated = {name: _evaluate(arms, name, windows) for name in arms.results}
    compared = {name: _compare(arms.task.selection, evaluated, name) for name in evaluated if name != MAIN}
    whole = evaluated[MAIN].whole
    return {
        "task": {"name": arms.task.name, "protocol": arms.task.protocol, "title": arms.task.title}
        | {"kind": arms.task.kind, "class_names": list(arms.task.class_names)},
        **facts,
        "config": to_dict(config),
        "splits": _splits(splits, windows),
        "selected_by": f"valid/{arms.task.selection}",
        "reported_side": arms.side,
        "intervals": _intervals(arms.task, whole),
        "chance": metrics.chance(arms.task.kind, whole.by_seed[0].label),
        "arms": {
            name: {arms.side: _side(arms.task, each)}
            | ({"valid": _selection(arms, name)} if arms.side != "valid" else {})
            | {"trials": [{"fold": r.fold, "seed": r.seed} | r.facts for r in arms.results[name]]}
            for name, each in evaluated.items()
        },
        "per_subject": _mean_tables([metrics.per_subject(arms.task.kind, p) for p in whole.by_seed]),
        "compared": {name: {way: d.to_json() for way, d in ways.items()} for name, ways in compared.items()},
        "cautions": _cautions(arms, splits, windows, _intervals(arms.task, whole))
        + _pretraining(facts["pretraining"], arms.side)
        + [text for name, ways in compared.items() if (text := _verdict(arms.task.selection, name, ways))],
        "versions": _versions(),
    }


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json and report.md."""
    write_text(folder / "report.json", json.dumps(_json(report), indent=1, allow_nan=False) + "\n")
    write_text(folder / "report.md", to_markdown(report))


def _versions() -> dict[str, str]:
    """What the figures were computed with."""
    found = {name: version(name) for name in ("codebrain-eeg", "torch", "accelerate", "numpy", "scikit-learn")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"python": platform.python_version(), **found, "device": device}


# --- figures -------------------------------------------------------------------------------------------------------


def _evaluate(arms: Arms, arm: str, windows: Windows) -> _Arm:
    kind, side = arms.task.kind, arms.side
    by_seed = list(arms.by_seed(arm, side).values())
    weights = Weights.leave_one_out(by_seed[0].subject)
    folds = arms.by_fold(arm, side)
    recordings = [metrics.by_recording(each, windows.recording) for each in by_seed]
    return _Arm(
        Evaluation.of(kind, by_seed, weights),
        [Evaluation.of(kind, fold, weights) for fold in folds] if len(folds) > 1 else [],
        Evaluation.of(kind, whole, weights) if (whole := [each for each in recordings if each is not None]) else None,
    )


def _intervals(task: Task, evaluation: Evaluation) -> dict[str, Any]:
    """What the intervals of the report are, or why there are none."""
    subject, label = evaluation.by_seed[0].subject, evaluation.by_seed[0].label
    n_subjects, why = len(np.unique(subject)), ""
    if n_subjects < intervals.MIN_SUBJECTS:
        why = f"{counted(n_subjects, 'subject')}, and an interval needs {intervals.MIN_SUBJECTS}"
    elif math.isnan(evaluation.df):
        groups = {f"class {name!r}": subject[label == index] for index, name in enumerate(task.class_names)}
        of = {name: own for name, own in (groups or {"the test set": subject}).items() if len(own)}
        few = min(of, key=lambda name: intervals.effective_subjects([of[name]]))
        most = "all" if len(np.unique(of[few])) == 1 else "most"
        why = f"{most} windows of {few} are of one subject"
    return {
        "level": intervals.LEVEL,
        "method": intervals.METHOD,
        "subjects": n_subjects,
        "degrees_of_freedom": evaluation.df,
        "none_because": why,
    }


def _side(task: Task, arm: _Arm) -> dict[str, Any]:
    """Everything about an arm on the side that the report speaks of."""
    first = arm.whole.by_seed[0]
    entry: dict[str, Any] = {"windows": len(first), "subjects": len(np.unique(first.subject))}
    entry["metrics"] = _over_seeds(arm.whole)
    if arm.folds:
        entry["folds"] = _over_folds([fold.scores for fold in arm.folds])
    if arm.recordings is not None:
        entry["recordings"] = {"n": len(arm.recordings.by_seed[0]), "metrics": _over_seeds(arm.recordings)}
    if task.kind != "regression":
        entry["per_class"] = _mean_tables([metrics.per_class(p, task.class_names) for p in arm.whole.by_seed])
        matrices = [metrics.confusion(p, len(task.class_names)) for p in arm.whole.by_seed]
        # Not the sum: that would count each window as often as there are seeds.
        entry["confusion"] = np.mean(matrices, axis=0).tolist()
    return entry


def _selection(arms: Arms, arm: str) -> dict[str, Any]:
    """Figures on validation beside those of a test set.

    Within each fold only: a window may validate in several.
    """
    return {"folds": _over_folds([[metrics.score(arms.task.kind, p) for p in f] for f in arms.by_fold(arm, "valid")])}


def _over_seeds(evaluation: Evaluation) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every metric, and its interval over subjects."""
    result = {}
    for name in evaluation.scores[0]:
        values = [scores[name] for scores in evaluation.scores]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        mean, interval = evaluation.mean(name), evaluation.interval(name)
        result[name] = {"mean": mean, "sd": sd, "by_seed": values, "interval": interval}
    return result


def _over_folds(folds: Sequence[Sequence[dict[str, float]]]) -> dict[str, Any]:
    """Mean and standard deviation over those folds that define a metric, of its mean over seeds within the fold."""
    result = {}
    for name in folds[0][0]:
        values = [float(np.mean([figures[name] for figures in seeds])) for seeds in folds]
        defined = [value for value in values if math.isfinite(value)]
        result[name] = {
            "mean": float(np.mean(defined)) if defined else math.nan,
            "sd": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
            "by_fold": values,
            "defined": len(defined),
        }
    return result


def _mean_tables(tables: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Mean over seeds of tables with the same rows; names and counts are those of the first."""
    rows = []
    for same in zip(*tables, strict=True):
        numbers = {name for name, value in same[0].items() if isinstance(value, float)}
        rows.append(same[0] | {name: float(np.mean([each[name] for each in same])) for name in numbers})
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


def _cautions(arms: Arms, splits: Splits, windows: Windows, interval: dict[str, Any]) -> list[str]:
    """What a reader must know before quoting a figure."""
    side = arms.side
    cautions = []
    if side == "valid":
        cautions.append(
            "THERE IS NO TEST SET. The split has no test windows, so every figure is on validation, where weights were "
            "also selected: it is too high by an unknown amount. `--split.kind kfold` tests every subject once."
        )
    if fault := fault_of_test(splits, windows):
        cautions.append(f"{fault[0].upper()}{fault[1:]}.")
    elif missing := _absent(arms):
        where = "test set" if side == "test" else "validation set"
        cautions.append(
            f"No window of {', '.join(missing)} is in the {where}: balanced accuracy, AUROC and PR-AUC are means over "
            "the other classes."
        )
    if splits.within_subject:
        cautions.append(_who_is_known(splits, windows, side))
    if interval["none_because"]:
        more = " `--split.kind kfold` tests every subject once." if splits.kind == "ratio" else ""
        cautions.append(f"No 95 % CI and no verdict: {interval['none_because']}.{more}")
    elif interval["subjects"] < _FEW:
        cautions.append(
            f"Only {interval['subjects']} subjects are evaluated: intervals are wide, and only large differences are "
            "significant."
        )
    if len(arms.by_seed(MAIN, side)) == 1:
        cautions.append("One seed only: no spread over seeds is known. `--seeds 0 1 2 3 4` gives it.")
    if len(splits.folds) > 1:
        cautions.append(
            "Figures are over the predictions of all folds together; those within each fold are other numbers, and the "
            "report has both."
        )
    return cautions


def _pretraining(seen: dict[str, Any] | None, side: str) -> list[str]:
    """What a reader must know of what the backbone has read before."""
    if seen is None or not seen["seen"]:
        return []
    return [
        f"Pre-training was done on {seen['seen']} of the {seen['tested']} {'test' if side == 'test' else 'validation'} "
        "recordings, without labels (by the names of their files): the figures speak about people whose EEG, not whose "
        "answers, the backbone knows."
    ]


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
    """Classes without a window in the split that is reported."""
    present = np.unique(next(iter(arms.by_seed(MAIN, arms.side).values())).label)
    return [name for index, name in enumerate(arms.task.class_names) if index not in present]


# --- against the baselines -----------------------------------------------------------------------------------------


def _compare(figure: str, evaluated: dict[str, _Arm], baseline: str) -> dict[str, Difference]:
    """The model against a baseline: `all` windows together and, of several folds, `within_folds`."""
    ours, theirs = evaluated[MAIN], evaluated[baseline]
    found = {"all": compare.over_all(figure, ours.whole, theirs.whole)}
    if ours.folds:
        found["within_folds"] = compare.within_folds(figure, ours.folds, theirs.folds)
    return found


def _verdict(figure: str, baseline: str, ways: dict[str, Difference]) -> str:
    """A sentence unless the model is clearly above a baseline."""
    whole, name, title = ways["all"], in_words(figure), TITLES[baseline]
    if whole.verdict == "undefined":
        return f"CodeBrain and {title} cannot be compared: {name} is undefined on these windows."
    numbers = f"{name} {whole.ours:.3f} against {whole.theirs:.3f}, a difference of {_signed(whole)}"
    if whole.value <= 0:
        text = f"CodeBrain does NOT beat {title}: {numbers}."
    elif whole.verdict == "not significant":
        text = f"CodeBrain scores higher than {title}, but the difference is not significant: {numbers}."
    elif whole.verdict == "too few subjects":
        text = f"CodeBrain scores higher than {title}, but the subjects are too few to compare the two: {numbers}."
    else:
        text = ""
    within = ways.get("within_folds")
    if within is not None and within.value * whole.value < 0:
        text += f" Within the folds it is the other way round ({_signed(within)}): see the report."
    return text.strip()


def _signed(difference: Difference) -> str:
    if difference.interval is None:
        return f"{difference.value:+.3f} (no 95 % CI)"
    low, high = difference.interval
    return f"{difference.value:+.3f} [95 % CI {low:+.3f}, {high:+.3f}]"


def _json(value: Any) -> Any:
    """The same with null for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
