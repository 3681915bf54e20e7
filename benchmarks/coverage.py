"""How often an interval over subjects holds the population's value, and how often a verdict on two models is wrong.

    python benchmarks/coverage.py                          # a few minutes on two cores
    python benchmarks/coverage.py --simulations 1000       # the tables of docs/finetuning.md

Test sets of few and many subjects are simulated over and over, and on each the intervals of `finetune.intervals` are
computed beside those of the method before it, the percentile bootstrap over subjects. Two models of equal skill are
compared, of which nothing but chance can make one "better" or "worse", and two of unequal skill.

A subject has an effect of its own on the level of the scores and on how well its classes are separated; windows of a
subject share both. The population's value of a metric is its value over the windows of very many subjects together
(30,000 by default), which is what the metric of a test set tends to as subjects are added. For an AUROC that is the
chance that a window of the one class outranks a window of the other, of two different subjects; in a test set of S
subjects 1 pair in S is of the same subject. results.json has the mean over the test sets (`expected`) beside it: an R2
of few subjects is far smaller. Where several folds have models of their own, their shifts are fixed: trained models are
evaluated, and not the training.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import measure
import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed

from finetune import compare, intervals
from finetune.compare import Evaluation
from finetune.intervals import Weights, weighted
from finetune.metrics import Predictions, score
from finetune.task import TaskKind

Floats = npt.NDArray[np.float64]
Ends = tuple[float, float] | None

SUBJECTS = (3, 4, 6, 8, 10, 16, 20, 32, 64)
WINDOWS = 12
"""Of a subject, on average."""
MODEL, EQUAL, BETTER = range(3)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Subjects, classes and models of a test set."""

    title: str
    metrics: tuple[str, ...]
    kind: TaskKind = "binary"
    shares: tuple[float, ...] = (0.5, 0.5)
    """Of the classes: of each subject's windows, or of the subjects."""
    one_class: bool = False
    """Whether each subject has one class, or, in a regression, one value."""
    rare: bool = False
    """Whether the last class occurs in two subjects only, or in a fifth of them."""
    unequal: bool = False
    """Whether subjects have few and many windows, with a standard deviation of 0.6 of the logarithm."""
    skill: float = 1.2
    """How far the score of the true class is raised; of the better model by a third of this more, or 0.4."""
    spread: float = 0.8
    """Standard deviation of the skill over subjects."""
    two_kinds: bool = False
    """Whether half of the subjects are read twice as well, and the others not at all."""
    alike: float = 0.5
    """Correlation of the effects and noise of two models."""
    seeds: int = 1
    folds: int = 1
    """Models that test their own subjects, with shifted scores."""


BOTH = ("auroc", "pr_auc", "balanced_accuracy")
SCENARIOS = (
    Scenario(title="both classes in each subject", metrics=BOTH),
    Scenario(title="both, unequal windows, 1:3", metrics=BOTH, unequal=True, shares=(0.75, 0.25)),
    Scenario(title="both, half of the subjects unreadable", metrics=("auroc",), two_kinds=True, spread=0.2),
    Scenario(title="both, nearly perfect", metrics=("auroc",), skill=3.5),
    Scenario(title="both, models much alike", metrics=("auroc",), alike=0.9),
    Scenario(title="both, 3 seeds", metrics=("auroc",), seeds=3),
    Scenario(title="both, 5 folds", metrics=("auroc",), folds=5),
    Scenario(title="one class each, 1:1", metrics=("auroc", "balanced_accuracy"), one_class=True),
    Scenario(
        title="one class each, 3:7, unequal windows",
        metrics=("auroc", "balanced_accuracy"),
        one_class=True,
        unequal=True,
        shares=(0.7, 0.3),
    ),
    Scenario(title="one class each, 1:1, 5 folds", metrics=("auroc",), one_class=True, folds=5),
    Scenario(
        title="second class in few subjects", metrics=("auroc", "balanced_accuracy"), rare=True, shares=(0.6, 0.4)
    ),
    Scenario(
        title="4 classes, unequal windows",
        metrics=("balanced_accuracy", "kappa", "weighted_f1"),
        kind="multiclass",
        shares=(0.4, 0.3, 0.2, 0.1),
        unequal=True,
    ),
    Scenario(
        title="4 classes, the last in few subjects",
        metrics=("balanced_accuracy",),
        kind="multiclass",
        shares=(0.3, 0.3, 0.2, 0.2),
        rare=True,
    ),
    Scenario(
        title="3 classes, one each",
        metrics=("balanced_accuracy", "kappa"),
        kind="multiclass",
        shares=(1 / 3,) * 3,
        one_class=True,
    ),
    Scenario(title="regression, a value each", metrics=("r2", "pearson_r"), kind="regression", one_class=True),
    Scenario(title="regression, unequal windows", metrics=("r2", "pearson_r"), kind="regression", unequal=True),
)


# --- simulated test sets ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TestSet:
    """Predictions of the three models, of every seed, and the fold of every window."""

    by_model: list[list[Predictions]]
    fold: npt.NDArray[np.intp]


def simulate(scenario: Scenario, n_subjects: int, rng: np.random.Generator) -> TestSet:
    """A test set of subjects drawn from the population."""
    number = np.full(n_subjects, WINDOWS)
    if scenario.unequal:
        number = np.maximum(3, np.round(WINDOWS * rng.lognormal(-0.18, 0.6, n_subjects))).astype(int)
    subject = np.repeat(np.arange(n_subjects), number)
    label = labels(scenario, subject, n_subjects, rng)
    fold = subject % scenario.folds
    make = regression_scores if scenario.kind == "regression" else class_scores
    scores = make(scenario, subject, label, rng)
    if scenario.folds > 1:
        scores[..., -1] += np.linspace(-0.6, 0.6, scenario.folds)[fold]
    names = np.char.mod("%06d", subject)
    window = np.arange(len(subject))
    return TestSet(
        [
            [
                Predictions(window=window, subject=names, label=label, score=probability(scenario, each))
                for each in model
            ]
            for model in scores
        ],
        fold,
    )


def labels(scenario: Scenario, subject: npt.NDArray[np.intp], n: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    if scenario.kind == "regression":
        own = rng.normal(size=n)[subject]
        return own if scenario.one_class else 0.7 * own + 0.7 * rng.normal(size=len(subject))
    if scenario.one_class:
        # As many subjects of each class as its share says, and two if there are enough, as a stratified draw gives.
        counts = np.maximum(np.round(np.array(scenario.shares[1:]) * n).astype(int), min(2, n // len(scenario.shares)))
        return np.repeat(np.arange(len(scenario.shares)), [n - counts.sum(), *counts])[subject]
    label = rng.choice(len(scenario.shares), len(subject), p=scenario.shares)
    if scenario.rare:
        label[(label == label.max()) & (subject >= max(2, n // 5))] = 0
    return label


def class_scores(
    scenario: Scenario, subject: npt.NDArray[np.intp], label: npt.NDArray[Any], rng: np.random.Generator
) -> Floats:
    """(models, seeds, n, K): level of the subject + skill where it is the class + noise."""
    n, n_classes = subject.max() + 1, len(scenario.shares)
    level = 0.5 * effects(scenario, (n, n_classes), rng)
    skill = scenario.skill + scenario.spread * effects(scenario, (n,), rng)
    if scenario.two_kinds:
        skill += scenario.skill * np.where(rng.random(n) < 0.5, 1.0, -1.0)
    skill[BETTER] += min(0.4, scenario.skill / 3)
    noise = effects(scenario, (len(subject), n_classes), rng)[:, None]
    noise = noise + 0.5 * rng.normal(size=(3, scenario.seeds, *noise.shape[2:]))
    return level[:, None, subject] + skill[:, None, subject, None] * np.eye(n_classes)[label] + noise


def regression_scores(
    scenario: Scenario, subject: npt.NDArray[np.intp], label: npt.NDArray[Any], rng: np.random.Generator
) -> Floats:
    """(models, seeds, n, 1): the label, shrunk, + an error of the subject + noise, less of them in the better model."""
    error = 0.45 * effects(scenario, (subject.max() + 1,), rng)[:, subject]
    error += 0.4 * effects(scenario, (len(subject),), rng)
    error[BETTER] *= 0.8
    return (0.6 * label + error)[:, None, :, None]


def effects(scenario: Scenario, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """(models, *shape) standard normal, correlated between the models."""
    common, own = rng.normal(size=shape), rng.normal(size=(3, *shape))
    return np.sqrt(scenario.alike) * common + np.sqrt(1 - scenario.alike) * own


def probability(scenario: Scenario, scores: Floats) -> Floats:
    if scenario.kind == "regression":
        return scores
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


# --- both methods on one test set ------------------------------------------------------------------------------------


Found = dict[str, list[Ends]]
"""By method and metric: the intervals of the model's metric, and of the differences of the two others from it."""


def measured(
    scenario: Scenario, test: TestSet, n_draws: int, rng: np.random.Generator
) -> tuple[Found, dict[str, float]]:
    """Intervals of both methods on one test set, and the model's metrics."""
    subject = test.by_model[MODEL][0].subject
    weights = Weights.leave_one_out(subject)
    n = len(weights.names)
    drawn = Weights(weights.names, rng.multinomial(n, np.full(n, 1 / n), size=n_draws).astype(float))
    whole = [evaluated(scenario.kind, model, weights, drawn) for model in test.by_model]
    folds = []
    if scenario.folds > 1:
        rows = [np.flatnonzero(test.fold == number) for number in np.unique(test.fold)]
        folds = [
            [evaluated(scenario.kind, [p.take(own) for p in model], weights, drawn) for own in rows]
            for model in test.by_model
        ]
    found: Found = {}
    for name in scenario.metrics:
        first, others = whole[MODEL], whole[EQUAL:]
        differences = [compare.over_all(name, other[0], first[0]).interval for other in others]
        found[f"new {name}"] = [first[0].interval(name), *differences]
        differences = [percentile(other[1].weighted[name] - first[1].weighted[name]) for other in others]
        found[f"old {name}"] = [percentile(first[1].weighted[name]), *differences]
        if folds:
            (now, before), *pairs = [list(zip(*model, strict=True)) for model in folds]
            differences = [compare.within_folds(name, other, now).interval for other, _ in pairs]
            found[f"new {name} within folds"] = [None, *differences]
            drawn_within = [compare.weighted_within_folds(name, other, before) for _, other in pairs]
            found[f"old {name} within folds"] = [None, *map(percentile, drawn_within)]
    return found, {name: whole[MODEL][0].mean(name) for name in scenario.metrics}


def evaluated(kind: TaskKind, by_seed: list[Predictions], *sets: Weights) -> list[Evaluation]:
    """A model under each set of weights; all metrics for all rows in one go, the first row with weights of 1."""
    counts = [weights.counts_of(by_seed[0]) for weights in sets]
    rows = np.concatenate([np.ones((1, counts[0].shape[1])), *counts])
    each = [weighted(kind, predictions, rows) for predictions in by_seed]
    scores = [{name: values[0] for name, values in found.items()} for found in each]
    mean = {name: np.mean([found[name] for found in each], axis=0) for name in each[0]}
    stops = np.cumsum([1, *map(len, counts)])
    return [
        Evaluation(kind, by_seed, scores, {name: v[start:stop] for name, v in mean.items()}, own.mean(axis=1))
        for own, (start, stop) in zip(counts, itertools.pairwise(stops), strict=True)
    ]


def percentile(values: Floats) -> Ends:
    """The method before: what 95 % of the draws hold, where nine tenths of them define the metric."""
    defined = values[np.isfinite(values)]
    if len(defined) < 0.9 * len(values):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


# --- many test sets --------------------------------------------------------------------------------------------------


def population(scenario: Scenario, n_subjects: int, seed: int) -> list[dict[str, float]]:
    """Every metric of each model over the windows of very many subjects."""
    test = simulate(scenario, n_subjects, np.random.default_rng([seed, 1]))
    return [score(scenario.kind, model[0]) for model in test.by_model]


def cell(
    scenario: Scenario, n_subjects: int, truths: list[dict[str, float]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A scenario with a number of subjects, simulated over and over: a row for each metric."""
    truth = truths[MODEL]
    rng = np.random.default_rng([options.seed, SCENARIOS.index(scenario), n_subjects])
    tests = (simulate(scenario, n_subjects, rng) for _ in range(options.simulations))
    with mock.patch.object(intervals, "MIN_SUBJECTS", 2):  # to see what would come of fewer than the product asks for
        found, values = zip(*(measured(scenario, test, options.draws, rng) for test in tests), strict=True)
    rows = []
    for name in dict.fromkeys(key.split(" ", 1)[1] for key in found[0]):
        row: dict[str, Any] = {"scenario": scenario.title, "metric": name, "subjects": n_subjects}
        if name in truth:
            row |= {"population": truth[name], "population_better": truths[BETTER][name]}
            row |= {"expected": float(np.nanmean([value[name] for value in values]))}
        for method in ("old", "new"):
            own, equal, better = zip(*(each[f"{method} {name}"] for each in found), strict=True)
            row[method] = {
                "missing": float(np.mean([ends is None for ends in (own if name in truth else equal)])),
                "coverage": over(own, lambda low, high, name=name: low <= truth[name] <= high, np.mean),
                "width": over(own, lambda low, high: high - low, np.median),
                "wrong": over(equal, lambda low, high: low > 0 or high < 0, np.mean),
                "power": over(better, lambda low, high: low > 0, np.mean),
            }
        rows.append(row)
    return rows


def over(
    all_ends: Sequence[Ends], what: Callable[[float, float], float], average: Callable[[Any], Any]
) -> float | None:
    """Average of something over the intervals that there are."""
    values = [what(*ends) for ends in all_ends if ends is not None]
    return float(average(values)) if values else None


def main() -> None:
    options = parse()
    worker = Parallel(n_jobs=options.jobs)
    truths = worker(delayed(population)(scenario, options.population, options.seed) for scenario in SCENARIOS)
    cells = [(scenario, n, truth) for scenario, truth in zip(SCENARIOS, truths, strict=True) for n in options.subjects]
    # The large ones first, so that no process is left with one of them alone.
    order = sorted(range(len(cells)), key=lambda place: -cells[place][1])
    done = dict(zip(order, worker(delayed(cell)(*cells[place], options) for place in order), strict=True))
    rows = [row for place in range(len(cells)) for row in done[place]]
    measure.write(options.output, rows)
    print(tables(rows, options.simulations))


def parse() -> argparse.Namespace:
    parser = measure.parser(__doc__, "coverage")
    parser.add_argument(
        "--simulations", type=int, default=100, help="test sets of each scenario and number of subjects"
    )
    parser.add_argument("--subjects", type=int, nargs="+", default=SUBJECTS, help="numbers of subjects")
    parser.add_argument("--draws", type=int, default=300, help="draws of the percentile bootstrap")
    parser.add_argument("--population", type=int, default=30_000, help="subjects of the population's value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    return parser.parse_args()


TABLES = {
    "coverage": "Share of intervals that hold the population's value",
    "width": "Median width of the intervals",
    "wrong": 'Share of verdicts "better" or "worse" on two equal models',
    "power": 'Share of verdicts "better" on a better model',
    "missing": "Share of test sets without an interval",
}


def tables(rows: list[dict[str, Any]], n: int) -> str:
    """A table for each question: a line for each scenario and metric, a column for each number of subjects."""
    subjects = list(dict.fromkeys(row["subjects"] for row in rows))
    by_line: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_line.setdefault((row["scenario"], row["metric"]), []).append(row)
    lines = [f"{n} test sets a cell: a share of 0.95 or 0.05 has a standard error of {np.sqrt(0.95 * 0.05 / n):.3f}."]
    for what, title in TABLES.items():
        lines += ["", f"{title}: percentile bootstrap, jackknife", ""]
        lines += ["| scenario | metric | " + " | ".join(map(str, subjects)) + " |", "|---" * (2 + len(subjects)) + "|"]
        for names, found in by_line.items():
            cells = [[row[method][what] for method in ("old", "new")] for row in found]
            if any(value is not None for pair in cells for value in pair):
                lines.append("| " + " | ".join([*names, *map(in_words, cells)]) + " |")
    return "\n".join(lines)


def in_words(pair: Sequence[float | None]) -> str:
    return ", ".join("none" if value is None else f"{value:.2f}" if value < 100 else "> 100" for value in pair)


if __name__ == "__main__":
    main()
