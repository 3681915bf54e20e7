"""report.md: the report for people, written from the numbers of report.json."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MAIN = "codebrain"
"""Name of the model that a run is about, beside the baselines."""

TITLES = {
    MAIN: "CodeBrain",
    "untrained": "the same on an untrained backbone",
    "band_power": "log band power + linear",
    "tangent_space": "Riemannian tangent space + linear",
}

HEADLINE = {
    "binary": ("balanced_accuracy", "auroc", "pr_auc"),
    "multiclass": ("balanced_accuracy", "kappa", "weighted_f1"),
    "regression": ("pearson_r", "r2", "rmse"),
}
"""Figures of the table in report.md, those of the papers; report.json has all."""

_WORDS = {
    "auroc": "AUROC",
    "pr_auc": "PR-AUC",
    "kappa": "Cohen's kappa",
    "weighted_f1": "weighted F1",
    "f1": "F1",
    "pearson_r": "Pearson's r",
    "r2": "R2",
    "rmse": "RMSE",
    "n_parameters": "weights",
    "n_trained": "trained",
}


def in_words(name: str) -> str:
    """A figure or a column of report.json as people write it."""
    if name.startswith("valid_"):
        return f"validation {in_words(name.removeprefix('valid_'))}"
    return _WORDS.get(name, name.replace("_", " "))


def to_markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    task, side = report["task"], report["reported_side"]
    config, counts = report["config"], report["splits"]["folds"]
    parts = [
        f"# {task['title']}: CodeBrain, `{config['mode']}` with head `{config['head']}`",
        "\n".join(f"- **{text}**" for text in report["cautions"]) or None,
        f"## Figures on {'the test set' if side == 'test' else 'VALIDATION'}",
        _headline(report),
        interval_note(report),
        *_compared(report),
        *_recordings(report),
        *(_seeds(report) if len(config["seeds"]) > 1 else []),
        *(_folds(report) if len(counts) > 1 else []),
        *_classes(report),
        "What was said about every window is in predictions.csv.",
        "## Per subject",
        _table(report["per_subject"]),
        "## Splits",
        f"`{report['splits']['kind']}`, seed {report['splits']['seed']}; which subject is where: splits.json.",
        report.get("sequences"),
        _table(
            [
                {"fold": number, "side": name, **_flat(entry)}
                for number, fold in enumerate(counts)
                for name, entry in fold.items()
                if entry["windows"]
            ]
        ),
        "## Seeds and time",
        f"Weights were selected by `{report['selected_by']}`.",
        _table([{"arm": arm, **row} for arm, entry in report["arms"].items() for row in entry["trials"]]),
        "## Protocol",
        _pretraining(report),
        f"Of the signals: {report['prepared_otherwise']}." if report["prepared_otherwise"] else None,
        f"Checkpoint `{config['ckpt']}`, store `{config['data']}` (fingerprint {report['store']['fingerprint'][:16]}), "
        f"{report['processes']} process(es). Every setting is in config.yaml and report.json.",
        ", ".join(f"{name} {number}" for name, number in report["versions"].items()) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _pretraining(report: dict[str, Any]) -> str | None:
    if (seen := report["pretraining"]) is None:
        return None
    which = "test recordings" if report["reported_side"] == "test" else "recordings of the validation set"
    if seen["unknown"] and not seen["seen"]:
        return f"Whether pre-training was done on {which} is not known here: {seen['unknown']}."
    least = "at least " if seen["unknown"] else ""
    count = f"{least}{seen['seen']} of {seen['tested']}"
    text = f"{which.capitalize()} that pre-training was done on, without labels: {count}."
    return text + (f" Not all is known here: {seen['unknown']}." if seen["unknown"] else "")


def summary(report: dict[str, Any]) -> str:
    """The cautions and the table of figures, for the terminal."""
    rows = headline_rows(report)
    table = [{column: in_words(column) for column in rows[0]}, *rows]
    widths = {column: max(len(row[column]) for row in table) for column in rows[0]}
    lines = ["  ".join(row[column].ljust(width) for column, width in widths.items()).rstrip() for row in table]
    return "\n".join([*report["cautions"], "", *lines, interval_note(report)])


def interval_note(report: dict[str, Any]) -> str:
    """What stands beside a metric, and how its interval was computed."""
    note = "Mean over seeds ± standard deviation over seeds" if len(report["config"]["seeds"]) > 1 else "One seed"
    found = report["intervals"]
    if found["none_because"]:
        return f"{note}. No 95 % CI: {found['none_because']}."
    over = f"over {counted(found['subjects'], 'subject')} for these trained models ({found['method']})"
    note += f"; in brackets the 95 % CI {over}."
    metrics = [
        entry[report["reported_side"]]["metrics"][name]
        for entry in report["arms"].values()
        for name in HEADLINE[report["task"]["kind"]]
    ]
    if any(metric["interval"] is None for metric in metrics):
        note += " A metric at an end of its range, or undefined without some subject, has none."
    return note


def counted(n: int, noun: str) -> str:
    """`1 subject`, `2 subjects`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def headline_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of figures: one row per arm, and chance."""
    side, names = report["reported_side"], HEADLINE[report["task"]["kind"]]
    rows = [
        {"model": TITLES[arm]} | {name: _figure(entry[side]["metrics"][name]) for name in names}
        for arm, entry in report["arms"].items()
    ]
    chance = {name: _number(report["chance"][name]) if name in report["chance"] else "" for name in names}
    return [*rows, {"model": "chance"} | chance]


def _headline(report: dict[str, Any]) -> str:
    return _table(headline_rows(report))


def _figure(entry: dict[str, Any]) -> str:
    text = _number(entry["mean"])
    if entry["sd"] is not None:
        text += f" ± {_number(entry['sd'])}"
    return text + _interval(entry["interval"])


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"


def _interval(ends: tuple[float, float] | None, sign: str = "") -> str:
    return f" [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]" if ends else ""


def _compared(report: dict[str, Any]) -> list[str]:
    """How far the model lies above each baseline."""
    if not report["compared"]:
        return []
    figure = in_words(report["selected_by"].removeprefix("valid/"))
    where = {"all": "over all windows", "within_folds": "within the folds"}
    rows = [
        {"CodeBrain against": TITLES[arm], "figure": f"{figure} {where[way]}"}
        | {"difference": _difference(found), "verdict": found["verdict"]}
        for arm, ways in report["compared"].items()
        for way, found in ways.items()
    ]
    return [
        "Against the baselines; in brackets the 95 % CI of the difference, over subjects that are the same for both. "
        "It is significant where that excludes 0. Of equal models, 1 verdict in 20 is significant by chance:",
        _table(rows),
    ]


def _difference(found: dict[str, Any]) -> str:
    if not math.isfinite(found["difference"]):
        return "undefined"
    return f"{found['difference']:+.3f}" + _interval(found["interval"], "+")


def _recordings(report: dict[str, Any]) -> list[str]:
    """Metrics of one prediction per recording."""
    side, names = report["reported_side"], HEADLINE[report["task"]["kind"]]
    entries = {arm: entry[side]["recordings"] for arm, entry in report["arms"].items() if "recordings" in entry[side]}
    if not entries:
        return []
    rows = [
        {"model": TITLES[arm]} | {name: _figure(entry["metrics"][name]) for name in names}
        for arm, entry in entries.items()
    ]
    return [
        f"One prediction per recording, the mean over its windows ({entries[MAIN]['n']} recordings, each of one "
        "label):",
        _table(rows),
    ]


def _seeds(report: dict[str, Any]) -> list[str]:
    side, names = report["reported_side"], HEADLINE[report["task"]["kind"]]
    rows = []
    for arm, entry in report["arms"].items():
        seeds = dict.fromkeys(trial["seed"] for trial in entry["trials"])
        for place, seed in enumerate(seeds if len(seeds) > 1 else ()):  # classical baselines draw nothing
            figures = {name: entry[side]["metrics"][name]["by_seed"][place] for name in names}
            rows.append({"model": TITLES[arm], "seed": seed} | figures)
    return ["Each seed:", _table(rows)]


def _folds(report: dict[str, Any]) -> list[str]:
    side, names = report["reported_side"], HEADLINE[report["task"]["kind"]]
    own = report["arms"][MAIN][side]["folds"]
    each = [
        {"fold": number} | {name: own[name]["by_fold"][number] for name in names}
        for number in range(len(report["splits"]["folds"]))
    ]
    rows = [
        {"model": TITLES[arm]} | {name: _over_folds(entry[side]["folds"][name]) for name in names}
        for arm, entry in report["arms"].items()
    ]
    return [
        "Within each fold, mean ± standard deviation over folds (which is no standard error):",
        _table(rows),
        f"{TITLES[MAIN]} within each fold (mean of seeds):",
        _table(each),
    ]


def _over_folds(entry: dict[str, Any]) -> str:
    n = len(entry["by_fold"])
    defined = f" ({entry['defined']} of {n} folds)" if 0 < entry["defined"] < n else ""
    return _figure(entry | {"interval": None}) + defined


def _classes(report: dict[str, Any]) -> list[str]:
    entry = report["arms"][MAIN][report["reported_side"]]
    if "per_class" not in entry:
        return []
    names = report["task"]["class_names"]
    matrix = [
        {"true class": name} | dict(zip((f"predicted {other}" for other in names), map(windows_in, row), strict=True))
        for name, row in zip(names, entry["confusion"], strict=True)
    ]
    return [
        "## Per class",
        _table(entry["per_class"]),
        "Windows by true and predicted class" + (", mean over seeds:" if len(report["config"]["seeds"]) > 1 else ":"),
        _table(matrix),
    ]


def windows_in(value: float) -> str:
    """A number of windows, which may be a mean over seeds."""
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "classes"} | entry.get("classes", {})


def _table(rows: Iterable[dict[str, Any]]) -> str:
    """A table of dicts, with a column for every key that any of them has."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(map(in_words, columns)) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "undefined" if math.isnan(value) else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}"
    return str(value)
