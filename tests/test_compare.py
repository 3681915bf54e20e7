"""Comparing with a baseline: the same draws for both, and folds whose models do not speak of the same probabilities."""

import numpy as np
import pytest

from finetune import bootstrap, compare, metrics
from finetune.bootstrap import Draws
from finetune.compare import Difference, Judged
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


def judge(*by_seed, n_draws=300):
    return Judged.of("binary", by_seed, Draws.of(SUBJECT, n_draws))


def test_a_difference_is_told_where_the_two_intervals_overlap():
    logit = hard_and_easy_subjects()
    ours, theirs = judge(said(logit)), judge(said(logit + np.random.default_rng(1).normal(0, 0.7, len(logit))))
    apart = [bootstrap.interval(each.drawn["auroc"]) for each in (ours, theirs)]
    assert apart[0][0] < apart[1][1], "each by itself says nothing: whoever is hard is hard for both"
    found = compare.over_all("auroc", ours, theirs)
    assert found.verdict == "better"
    assert found.value == pytest.approx(
        metrics.score("binary", ours.by_seed[0])["auroc"] - metrics.score("binary", theirs.by_seed[0])["auroc"]
    )
    assert found.interval[0] < found.value < found.interval[1]
    assert compare.over_all("auroc", theirs, ours).verdict == "worse"


def test_equal_models_are_not_told_apart():
    logit = hard_and_easy_subjects()
    noise = np.random.default_rng(1).normal(0, 0.3, (2, len(logit)))
    assert compare.over_all("auroc", judge(said(logit)), judge(said(logit))).verdict == "not told apart"
    told = [
        compare.over_all("auroc", judge(said(logit + one)), judge(said(logit + other))).verdict
        for one, other in (noise, noise[::-1])
    ]
    assert told == ["not told apart"] * 2


def test_seeds_are_averaged_within_a_draw():
    logit = hard_and_easy_subjects()
    both, one, other = judge(said(logit), said(-logit)), judge(said(logit)), judge(said(-logit))
    np.testing.assert_allclose(both.drawn["auroc"], (one.drawn["auroc"] + other.drawn["auroc"]) / 2)
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


def test_a_fold_that_defines_no_figure_is_left_out_and_none_at_all_is_undefined():
    logit = hard_and_easy_subjects()
    pairs = [judge(said(logit, slice(0, 300))), judge(said(logit, np.flatnonzero(LABEL[300:]) + 300))]
    found = compare.within_folds("auroc", pairs, pairs)
    assert found.ours == pairs[0].mean("auroc")
    assert found.verdict == "not told apart"
    assert compare.within_folds("auroc", pairs[1:], pairs[1:]).verdict == "undefined"


def test_folds_of_one_subject_are_the_bootstrap_of_the_subjects_differences():
    """A subject that is drawn three times counts three times, though it is one fold."""
    logit = hard_and_easy_subjects()
    noisy = logit + np.random.default_rng(1).normal(0, 0.5, len(logit))
    each = [np.flatnonzero(name == SUBJECT) for name in np.unique(SUBJECT)]
    ours, theirs = ([judge(said(x, rows)) for rows in each] for x in (logit, noisy))
    found = compare.within_folds("auroc", ours, theirs)
    own = np.array([a.mean("auroc") - b.mean("auroc") for a, b in zip(ours, theirs, strict=True)])
    counts = Draws.of(SUBJECT, 300).counts
    assert found.value == pytest.approx(own.mean())
    assert found.interval == pytest.approx(bootstrap.interval(counts @ own / counts.sum(1)))
    assert found.n_subjects == N_SUBJECTS


def test_few_subjects_give_no_verdict():
    logit = hard_and_easy_subjects()
    noisy = logit + np.random.default_rng(1).normal(0, 0.5, len(logit))
    for n_subjects, verdict in ((1, "too few subjects"), (5, "too few subjects"), (6, "better")):
        rows = slice(0, n_subjects * PER_SUBJECT)
        draws = Draws.of(SUBJECT[rows], 300)
        ours, theirs = (Judged.of("binary", [said(x, rows)], draws) for x in (3 * LABEL + logit, noisy))
        assert compare.over_all("auroc", ours, theirs).verdict == verdict, n_subjects
    assert Difference(0.7, 0.6, (0.05, 0.15), 6).verdict == "better"
    assert Difference(0.7, 0.6, None, 40).verdict == "too few subjects", "of most draws one class is missing"


def test_a_figure_that_few_draws_define_has_no_interval():
    """One patient and one control: every draw that has an AUROC has both, and thus the same."""
    draws = Draws.of(np.array(["A", "B"]), 300)
    p = Predictions(
        window=np.arange(8),
        subject=np.repeat(["A", "B"], 4),
        label=np.repeat([0, 1], 4),
        score=np.stack([np.linspace(0.2, 0.9, 8)[::-1], np.linspace(0.1, 0.8, 8)], 1),
    )
    drawn = draws.figures("binary", [p])["auroc"]
    assert np.isfinite(drawn).any()
    assert bootstrap.interval(drawn) is None
    assert bootstrap.interval(np.append(np.linspace(0, 1, 95), np.full(5, np.nan))) is not None
