"""Comparing with a baseline: the same subjects for both, and folds whose models have unlike probabilities."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from finetune import compare, metrics
from finetune.compare import Difference, Evaluation
from finetune.intervals import Weights, degrees_of_freedom, interval_of_difference
from finetune.metrics import Predictions

N_SUBJECTS, PER_SUBJECT = 20, 30
SUBJECT = np.repeat([f"S{index:02d}" for index in range(N_SUBJECTS)], PER_SUBJECT)
LABEL = np.arange(len(SUBJECT)) % 2


def said(logit, rows=slice(None)) -> Predictions:
    p = 1 / (1 + np.exp(-logit[rows]))
    window = np.arange(len(SUBJECT))[rows]
    return Predictions(window=window, subject=SUBJECT[rows], label=LABEL[rows], score=np.stack([1 - p, p], 1))


def hard_and_easy_subjects(seed=0):
    """Logits of a model that reads some subjects well and others not at all."""
    rng = np.random.default_rng(seed)
    skill = rng.choice([0.0, 3.0], N_SUBJECTS).repeat(PER_SUBJECT)
    return skill * (LABEL - 0.5) + rng.normal(size=len(SUBJECT))


def judge(*by_seed):
    return Evaluation.of("binary", by_seed, Weights.leave_one_out(SUBJECT))


def test_a_difference_is_told_where_the_two_intervals_overlap():
    logit = hard_and_easy_subjects()
    ours, theirs = judge(said(logit)), judge(said(logit + np.random.default_rng(1).normal(0, 0.7, len(logit))))
    apart = [each.interval("auroc") for each in (ours, theirs)]
    assert apart[0][0] < apart[1][1], "each by itself says nothing: whoever is hard is hard for both"
    found = compare.over_all("auroc", ours, theirs)
    assert found.verdict == "better"
    assert found.value == pytest.approx(
        metrics.score("binary", ours.by_seed[0])["auroc"] - metrics.score("binary", theirs.by_seed[0])["auroc"]
    )
    assert found.interval[0] < found.value < found.interval[1]
    assert compare.over_all("auroc", theirs, ours).verdict == "worse"


def test_the_difference_of_equal_models_is_not_significant():
    logit = hard_and_easy_subjects()
    noise = np.random.default_rng(1).normal(0, 0.3, (2, len(logit)))
    assert compare.over_all("auroc", judge(said(logit)), judge(said(logit))).verdict == "not significant"
    found = [
        compare.over_all("auroc", judge(said(logit + one)), judge(said(logit + other))).verdict
        for one, other in (noise, noise[::-1])
    ]
    assert found == ["not significant"] * 2


def test_seeds_are_averaged_within_a_row_of_weights():
    logit = hard_and_easy_subjects()
    both, one, other = judge(said(logit), said(-logit)), judge(said(logit)), judge(said(-logit))
    np.testing.assert_allclose(both.weighted["auroc"], (one.weighted["auroc"] + other.weighted["auroc"]) / 2)
    assert both.mean("auroc") == pytest.approx(0.5)


def test_folds_with_other_probabilities_are_compared_within_each():
    """A shift of a fold's logits spoils the ranking of all windows together and of no fold."""
    logit = hard_and_easy_subjects()
    halves = [slice(0, len(logit) // 2), slice(len(logit) // 2, None)]
    shifted = logit + np.repeat([0.0, 12.0], len(logit) // 2)
    noisy = logit + np.random.default_rng(1).normal(0, 1.5, len(logit))
    assert compare.over_all("auroc", judge(said(shifted)), judge(said(noisy))).verdict == "worse"
    ours, theirs = ([judge(said(each, half)) for half in halves] for each in (shifted, noisy))
    found = compare.within_folds("auroc", ours, theirs)
    assert found.verdict == "better"
    plain = compare.within_folds("auroc", [judge(said(logit, half)) for half in halves], theirs)
    assert found.value == pytest.approx(plain.value)
    assert found.interval == pytest.approx(plain.interval)


def test_a_fold_that_defines_no_figure_is_replicates_and_none_at_all_is_undefined():
    logit = hard_and_easy_subjects()
    pairs = [judge(said(logit, slice(0, 300))), judge(said(logit, np.flatnonzero(LABEL[300:]) + 300))]
    found = compare.within_folds("auroc", pairs, pairs)
    assert found.ours == pairs[0].mean("auroc")
    assert found.verdict == "not significant"
    assert compare.within_folds("auroc", pairs[1:], pairs[1:]).verdict == "undefined"


def test_folds_of_one_subject_are_a_t_test_of_the_subjects_differences():
    logit = hard_and_easy_subjects()
    noisy = logit + np.random.default_rng(1).normal(0, 0.5, len(logit))
    each = [np.flatnonzero(name == SUBJECT) for name in np.unique(SUBJECT)]
    ours, theirs = ([judge(said(x, rows)) for rows in each] for x in (logit, noisy))
    found = compare.within_folds("auroc", ours, theirs)
    own = np.array([a.mean("auroc") - b.mean("auroc") for a, b in zip(ours, theirs, strict=True)])
    expected = ttest_1samp(own, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(own.mean())
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_a_fold_counts_by_the_subjects_that_are_left_in_it():
    """Two folds of five subjects: without one of them its fold has four, and weighs four fifths of the other."""
    logit = hard_and_easy_subjects()[:300]
    noisy = logit + np.random.default_rng(1).normal(0, 1.5, 300)
    weights = Weights.leave_one_out(SUBJECT[:300])
    halves = [slice(0, 150), slice(150, 300)]
    ours, theirs = ([Evaluation.of("binary", [said(x, half)], weights) for half in halves] for x in (logit, noisy))

    def auroc(x, rows):
        return metrics.score("binary", said(x, rows))["auroc"]

    def without(name):
        rows = [np.flatnonzero(SUBJECT[half] != name) + half.start for half in halves]
        share = np.array([len(each) / 150 for each in rows])
        return np.average([auroc(logit, each) - auroc(noisy, each) for each in rows], weights=share)

    replicates = np.array([without(name) for name in weights.names])
    found = compare.within_folds("auroc", ours, theirs)
    assert compare.weighted_within_folds("auroc", ours, theirs) == pytest.approx(replicates)
    df = degrees_of_freedom("binary", [each.by_seed[0] for each in ours])
    assert df == pytest.approx(9)
    assert found.interval == pytest.approx(interval_of_difference("auroc", found.value, replicates, df))


def test_few_subjects_give_no_verdict():
    logit = hard_and_easy_subjects()
    noise = np.random.default_rng(1).normal(size=len(logit))
    for n_subjects, verdict in ((1, "too few subjects"), (5, "too few subjects"), (6, "better")):
        rows = slice(0, n_subjects * PER_SUBJECT)
        weights = Weights.leave_one_out(SUBJECT[rows])
        ours, theirs = (Evaluation.of("binary", [said(x, rows)], weights) for x in (3 * LABEL + logit, noise))
        assert compare.over_all("auroc", ours, theirs).verdict == verdict, n_subjects
    assert Difference(0.7, 0.6, (0.05, 0.15)).verdict == "better"
    assert Difference(0.7, 0.6, (-0.05, 0.25)).verdict == "not significant"
    assert Difference(0.6, 0.7, (-0.15, -0.05)).verdict == "worse"
    assert Difference(0.7, 0.6, None).verdict == "too few subjects", "all windows of a class are of one"
    assert Difference(np.nan, 0.6, None).verdict == "undefined"


def test_one_patient_and_some_controls_have_no_interval():
    """Without the patient there is no AUROC: how other patients would score, nobody can say."""
    rows = slice(0, 8 * PER_SUBJECT)
    label = (SUBJECT[rows] == "S00").astype(int)
    p = Predictions(
        window=np.arange(len(label)),
        subject=SUBJECT[rows],
        label=label,
        score=said(hard_and_easy_subjects(), rows).score,
    )
    alone = Evaluation.of("binary", [p], Weights.leave_one_out(p.subject))
    assert np.isfinite(alone.mean("auroc"))
    assert np.isnan(alone.weighted["auroc"][0])
    assert alone.interval("auroc") is None
    assert compare.over_all("auroc", alone, alone).verdict == "too few subjects"
