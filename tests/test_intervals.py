"""Intervals over subjects: against scikit-learn and SciPy done the slow way, and how often they are right."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))  # whose scripts share a module

from benchmarks import coverage
from finetune import intervals, metrics
from finetune.compare import Evaluation, over_all
from finetune.intervals import Weights, degrees_of_freedom
from finetune.metrics import Predictions
from tests.test_metrics import make_predictions


def predictions(subject, label, p) -> Predictions:
    p = np.asarray(p, dtype=float)
    label = np.asarray(label)
    return Predictions(
        window=np.arange(len(p)), subject=np.asarray(subject), label=label, score=np.stack([1 - p, p], axis=1)
    )


def evaluate(kind, *by_seed) -> Evaluation:
    return Evaluation.of(kind, by_seed, Weights.leave_one_out(by_seed[0].subject))


# --- metrics of weighted subjects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_every_row_of_weights_equals_scikit_learn_on_the_repeated_windows(kind, ties):
    p = make_predictions(kind, n=120, ties=ties)
    names = np.unique(p.subject)
    rows = np.random.default_rng(1).multinomial(6, np.full(6, 1 / 6), size=20).astype(float)
    fast = intervals.weighted(kind, p, rows)
    for number, row in enumerate(rows):
        repeated = np.concatenate(
            [np.tile(np.flatnonzero(p.subject == name), int(n)) for name, n in zip(names, row, strict=True)]
        )
        slow = metrics.score(kind, p.take(repeated))
        for name, value in slow.items():
            assert fast[name][number] == pytest.approx(value, abs=1e-10), (number, name)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_leaving_a_subject_out_equals_scikit_learn_on_the_others(kind):
    p = make_predictions(kind, n=120, ties=True)
    weights = Weights.leave_one_out(p.subject)
    fast = weights.metrics(kind, [p])
    for number, name in enumerate(weights.names):
        slow = metrics.score(kind, p.take(p.subject != name))
        assert {name: values[number] for name, values in fast.items()} == pytest.approx(slow, abs=1e-10)


def test_weights_of_one_subject_have_an_error_and_no_correlation():
    """An age is one number for a whole person, and few are sums of powers of two."""
    subject = np.repeat(["S0", "S1", "S2"], 7)
    label = np.repeat([23.1, 41.7, 67.3], 7)
    p = Predictions(
        window=np.arange(21), subject=subject, label=label, score=label[:, None] + 0.1 * np.arange(21)[:, None]
    )
    found = intervals.weighted("regression", p, 3 * np.eye(3))
    assert np.isnan(found["r2"]).all()
    assert np.isnan(found["pearson_r"]).all()
    assert np.isfinite(found["rmse"]).all()


# --- intervals -------------------------------------------------------------------------------------------------------


def by_hand(kind, p, name):
    """The jackknife, step by step: a metric's standard error."""
    subjects = np.unique(p.subject)
    replicates = [metrics.score(kind, p.take(p.subject != subject))[name] for subject in subjects]
    n = len(subjects)
    return np.sqrt((n - 1) / n * sum((value - np.mean(replicates)) ** 2 for value in replicates))


SCALES = {
    "auroc": (lambda x: np.log(x / (1 - x)), lambda z: 1 / (1 + np.exp(-z))),
    "kappa": (np.arctanh, np.tanh),
    "pearson_r": (np.arctanh, np.tanh),
    "r2": (lambda x: -np.log(1 - x), lambda z: 1 - np.exp(-z)),
    "rmse": (np.log, np.exp),
}
"""A scale without ends for each kind of range, and back."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("binary", "auroc"),
        ("multiclass", "kappa"),
        ("regression", "pearson_r"),
        ("regression", "r2"),
        ("regression", "rmse"),
    ],
)
def test_an_interval_is_student_s_on_the_scale_of_its_metric(kind, name):
    p = make_predictions(kind, n=240, n_subjects=12)
    found = evaluate(kind, p)
    value, (to, back) = metrics.score(kind, p)[name], SCALES[name]
    slope = (to(value + 1e-6) - to(value - 1e-6)) / 2e-6
    margin = stats.t.ppf(0.975, degrees_of_freedom(kind, [p])) * by_hand(kind, p, name) * slope
    assert found.interval(name) == pytest.approx((back(to(value) - margin), back(to(value) + margin)), rel=1e-6)
    assert found.interval(name)[0] < value < found.interval(name)[1]


def test_a_difference_that_is_a_mean_over_subjects_has_the_interval_of_a_paired_t_test():
    """With equal windows per subject and class, balanced accuracy is the mean of the subjects' own."""
    rng = np.random.default_rng(0)
    subject, label = np.repeat([f"S{n}" for n in range(9)], 20), np.arange(180) % 2
    ours, theirs = (predictions(subject, label, np.clip(rng.normal(0.4 + 0.2 * label, s), 0, 1)) for s in (0.2, 0.4))
    own = [[row["balanced_accuracy"] for row in metrics.per_subject("binary", each)] for each in (ours, theirs)]
    expected = stats.ttest_rel(*own).confidence_interval(0.95)
    found = over_all("balanced_accuracy", evaluate("binary", ours), evaluate("binary", theirs))
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.verdict == ("better" if expected.low > 0 else "not significant")


def test_seeds_are_averaged_before_subjects_are_compared():
    one, other = make_predictions("binary", seed=1), make_predictions("binary", seed=1)
    other = Predictions(window=other.window, subject=other.subject, label=other.label, score=other.score[:, ::-1])
    both = evaluate("binary", one, other)
    assert both.mean("auroc") == pytest.approx(0.5)
    assert both.interval("auroc") == pytest.approx((0.5, 0.5)), "the two cancel in each subject"


def test_degrees_of_freedom():
    def df(kind, subject, label):
        return degrees_of_freedom(kind, [predictions(subject, label, np.zeros(len(subject)))])

    ten = np.repeat(list("abcdefghij"), 4)
    assert df("binary", ten, np.arange(40) % 2) == pytest.approx(9), "all alike: one less than subjects"
    assert df("regression", ten, np.arange(40.0)) == pytest.approx(9)
    # Welch 1947 of two patients and eight controls, each of whom is a share of 1/2 and 1/8.
    welch = (1 / 2 + 1 / 8) ** 2 / (1 / (4 * 3) + 1 / (64 * 9)) - 2
    assert df("binary", ten, np.repeat([1, 1, *[0] * 8], 4)) == pytest.approx(welch)
    assert welch < 3
    assert df("binary", ten, np.repeat([1] * 5 + [0] * 5, 4)) == pytest.approx(9), "never more than subjects allow"
    # Who has half of the windows counts for much: 1 / sum of squared shares.
    uneven = np.repeat(list("abcdefghij"), [36, *[4] * 9])
    assert df("regression", uneven, np.arange(72.0)) == pytest.approx(1 / (0.5**2 + 9 * (1 / 18) ** 2) - 1)


def test_too_few_subjects_or_a_class_of_one_leave_no_degrees_of_freedom():
    def df(subject, label):
        return degrees_of_freedom("binary", [predictions(subject, label, np.zeros(len(subject)))])

    assert np.isnan(df(np.repeat(list("abcde"), 4), np.arange(20) % 2))
    assert df(np.repeat(list("abcdef"), 4), np.arange(24) % 2) == pytest.approx(5)
    six = np.repeat(list("abcdef"), 4)
    assert np.isnan(df(six, (six == "a").astype(int))), "one patient"
    label = np.zeros(240, int)
    label[:41] = 1
    assert np.isnan(df(np.repeat(six, 10), label)), "40 windows of one patient and 1 of another"


def test_a_class_of_one_subject_is_no_interval_however_many_classes_there_are():
    subject = np.repeat([f"S{n}" for n in range(12)], 10)
    label = np.arange(120) % 6
    label[(label == 5) & (subject != "S3")] = 0
    score = np.eye(6)[label] * 0.5 + 0.1
    p = Predictions(window=np.arange(120), subject=subject, label=label, score=score)
    assert np.isnan(degrees_of_freedom("multiclass", [p]))
    assert evaluate("multiclass", p).interval("kappa") is None


def test_folds_weigh_alike_in_the_degrees_of_freedom():
    """Two folds of one subject each and one of four: the mean over folds is decided by three, not by six."""
    subject = np.repeat(list("abcdef"), 10)
    whole = predictions(subject, np.arange(60) % 2, np.zeros(60))
    folds = [whole.take(np.isin(subject, list(names))) for names in ("a", "b", "cdef")]
    assert degrees_of_freedom("binary", folds) == pytest.approx(1 / (2 / 9 + 4 / 144) - 1)
    assert degrees_of_freedom("binary", [whole]) == pytest.approx(5)


# --- the ends of what can be known -----------------------------------------------------------------------------------


def test_one_subject_has_no_interval():
    for kind in ("binary", "multiclass", "regression"):
        found = evaluate(kind, make_predictions(kind, n_subjects=1))
        assert {found.interval(name) for name in found.scores[0]} == {None}


def test_five_subjects_have_no_interval_and_six_have():
    for n_subjects, has in ((5, False), (6, True)):
        found = evaluate("binary", make_predictions("binary", n_subjects=n_subjects))
        assert all((found.interval(name) is not None) == has for name in found.scores[0]), n_subjects


def test_without_any_error_nobody_knows_how_rare_errors_are():
    subject, label = np.repeat([f"S{n}" for n in range(8)], 6), np.arange(48) % 2
    perfect = evaluate("binary", predictions(subject, label, label * 0.8 + 0.1))
    assert perfect.mean("auroc") == 1.0
    assert perfect.interval("auroc") is None
    assert over_all("auroc", perfect, perfect).interval == pytest.approx((0, 0), abs=1e-9)
    assert over_all("auroc", perfect, perfect).verdict == "not significant"


def test_a_model_that_always_says_the_same_is_at_chance_for_certain():
    subject, label = np.repeat([f"S{n}" for n in range(8)], 6), np.arange(48) % 2
    found = evaluate("binary", predictions(subject, label, np.full(48, 0.7)))
    assert found.interval("auroc") == pytest.approx((0.5, 0.5))
    assert found.interval("balanced_accuracy") == pytest.approx((0.5, 0.5))
    constant = Predictions(window=np.arange(48), subject=subject, label=np.arange(48.0), score=np.full((48, 1), 20.0))
    assert evaluate("regression", constant).interval("pearson_r") is None, "it is undefined"
    assert evaluate("regression", constant).interval("rmse") is not None


def test_a_subject_with_a_single_window_counts():
    p = make_predictions("binary", n=140, n_subjects=7)
    single = p.take((p.subject != "S0") | (np.arange(140) == 0))
    found = evaluate("binary", single)
    low, high = found.interval("auroc")
    assert low < found.mean("auroc") < high
    assert found.df < 6


def test_intervals_stay_in_the_range_of_their_metric():
    rng = np.random.default_rng(0)
    for _ in range(50):
        subject, label = np.repeat([f"S{n}" for n in range(6)], 8), np.arange(48) % 2
        skill = rng.normal(1, 3, 6).repeat(8)
        skill = rng.normal(1, 3, (2, 6)).repeat(8, axis=1)
        p = 1 / (1 + np.exp(-skill * (label - 0.5) - rng.normal(size=(2, 48))))
        a, b = (evaluate("binary", predictions(subject, label, each)) for each in p)
        for name in ("auroc", "pr_auc", "balanced_accuracy", "weighted_f1"):
            if (found := a.interval(name)) is not None:
                assert 0 <= found[0] <= a.mean(name) <= found[1] <= 1
        low, high = over_all("auroc", a, b).interval
        assert -1 <= low <= high <= 1


def test_the_order_of_windows_changes_nothing():
    p = make_predictions("binary", n=300, n_subjects=10)
    mixed = p.take(np.random.default_rng(0).permutation(300))
    assert evaluate("binary", mixed).interval("auroc") == pytest.approx(evaluate("binary", p).interval("auroc"))
    assert evaluate("binary", p).interval("auroc") == evaluate("binary", p).interval("auroc")


def test_an_interval_narrows_with_subjects():
    few, many = (evaluate("binary", make_predictions("binary", n=40 * n, n_subjects=n, seed=3)) for n in (6, 40))
    narrow, wide = many.interval("auroc"), few.interval("auroc")
    assert narrow[0] < many.mean("auroc") < narrow[1]
    assert narrow[1] - narrow[0] < wide[1] - wide[0]


# --- how often they are right ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("both, unequal windows, 1:3", "balanced_accuracy"),
        ("one class each, 3:7, unequal windows", "auroc"),
        ("regression, a value each", "r2"),
    ],
)
def test_intervals_hold_the_population_s_value_as_often_as_they_say(title, name):
    """`benchmarks/coverage.py` in small: 95 % and 5 % within four standard errors, where the bootstrap is far off."""
    (scenario,) = (each for each in coverage.SCENARIOS if each.title == title)
    truths = coverage.population(scenario, 4000, seed=0)
    options = argparse.Namespace(seed=0, simulations=250, draws=60)
    rows = {row["metric"]: row for row in coverage.cell(scenario, 8, truths, options)}
    now, before = rows[name]["new"], rows[name]["old"]
    assert 0.90 <= now["coverage"] <= 1.0
    assert now["wrong"] <= 0.10
    assert now["missing"] < 0.05
    assert before["coverage"] < 0.90
    assert before["wrong"] > now["wrong"]
