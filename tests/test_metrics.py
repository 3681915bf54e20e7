"""Metrics against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from finetune import metrics
from finetune.metrics import Predictions


def make_predictions(kind, *, n=240, n_subjects=6, n_classes=4, seed=0, ties=False) -> Predictions:
    rng = np.random.default_rng(seed)
    subject = np.array([f"S{index % n_subjects}" for index in range(n)])
    if kind == "regression":
        label = rng.normal(50, 3, n)
        score = (label + rng.normal(0, 2, n))[:, None]
    else:
        n_classes = 2 if kind == "binary" else n_classes
        label = rng.choice(n_classes, n, p=np.arange(1, n_classes + 1) / np.arange(1, n_classes + 1).sum())
        logits = rng.normal(size=(n, n_classes)) + 1.2 * np.eye(n_classes)[label]
        score = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        if ties:
            score = np.round(score, 1)
            score[:, 0] = 1 - score[:, 1]
    return Predictions(window=np.arange(n), subject=subject, label=label, score=score)


def test_binary_figures_are_those_of_scikit_learn():
    p = make_predictions("binary")
    probability, called = p.score[:, 1], (p.score[:, 1] > 0.5).astype(int)
    precision, recall, _ = sk.precision_recall_curve(p.label, probability)
    assert metrics.score("binary", p) == pytest.approx(
        {
            "balanced_accuracy": sk.balanced_accuracy_score(p.label, called),
            "kappa": sk.cohen_kappa_score(p.label, called),
            "weighted_f1": sk.f1_score(p.label, called, average="weighted"),
            "auroc": sk.roc_auc_score(p.label, probability),
            "pr_auc": sk.auc(recall, precision),
            "average_precision": sk.average_precision_score(p.label, probability),
        }
    )


def test_pr_auc_and_average_precision_are_different_numbers():
    figures = metrics.score("binary", make_predictions("binary"))
    assert figures["pr_auc"] != figures["average_precision"]


def test_perfect_predictions():
    label = np.arange(60) % 3
    p = Predictions(window=np.arange(60), subject=np.full(60, "S"), label=label, score=np.eye(3)[label])
    assert set(metrics.score("multiclass", p).values()) == {1.0}
    assert metrics.confusion(p, 3).tolist() == [[20, 0, 0], [0, 20, 0], [0, 0, 20]]


def test_a_constant_guess_scores_chance():
    p = make_predictions("binary")
    constant = Predictions(window=p.window, subject=p.subject, label=p.label, score=np.tile([0.3, 0.7], (len(p), 1)))
    figures, chance = metrics.score("binary", constant), metrics.chance("binary", p.label)
    for name in ("balanced_accuracy", "kappa", "auroc", "average_precision"):
        assert figures[name] == pytest.approx(chance[name]), name


def test_one_class_leaves_the_ranking_undefined_not_wrong():
    p = make_predictions("binary")
    only = p.take(p.label == 1)
    figures = metrics.score("binary", only)
    assert np.isnan(figures["auroc"])
    assert np.isnan(figures["pr_auc"])
    assert figures["balanced_accuracy"] == pytest.approx((only.predicted() == 1).mean())


def test_ranking_of_several_classes_is_each_against_the_rest():
    p = make_predictions("multiclass")
    figures = metrics.score("multiclass", p)
    assert figures["auroc"] == pytest.approx(sk.roc_auc_score(p.label, p.score, multi_class="ovr", average="macro"))
    one_hot = np.eye(4)[p.label]
    assert figures["average_precision"] == pytest.approx(sk.average_precision_score(one_hot, p.score, average="macro"))
    table = metrics.per_class(p, ("a", "b", "c", "d"))
    assert np.mean([row["auroc"] for row in table]) == pytest.approx(figures["auroc"])


def test_a_class_without_windows_has_no_ranking_and_the_others_have():
    p = make_predictions("multiclass")
    some = p.take(p.label != 2)
    table = metrics.per_class(some, ("a", "b", "c", "d"))
    defined = [row["auroc"] for row in table if row["class"] != "c"]
    assert np.isnan(table[2]["auroc"])
    assert metrics.score("multiclass", some)["auroc"] == pytest.approx(np.mean(defined))


def test_regression_figures():
    p = make_predictions("regression")
    figures = metrics.score("regression", p)
    value = p.score[:, 0]
    assert figures["r2"] == pytest.approx(sk.r2_score(p.label, value))
    assert figures["rmse"] == pytest.approx(np.sqrt(np.mean((p.label - value) ** 2)))
    assert figures["pearson_r"] == pytest.approx(np.corrcoef(p.label, value)[0, 1])
    mean = Predictions(window=p.window, subject=p.subject, label=p.label, score=np.full((len(p), 1), p.label.mean()))
    assert metrics.score("regression", mean)["r2"] == pytest.approx(0, abs=1e-12)
    assert metrics.score("regression", mean)["rmse"] == pytest.approx(metrics.chance("regression", p.label)["rmse"])


def test_chance_is_undefined_where_all_labels_are_the_same():
    for kind, labels in (("binary", np.ones(5, int)), ("multiclass", np.full(5, 2)), ("regression", np.full(5, 40.0))):
        chance = metrics.chance(kind, labels)
        assert all(np.isnan(value) for value in chance.values()), kind
        assert chance.keys() == metrics.chance(kind, np.arange(5) % 2).keys()
    assert metrics.chance("binary", np.array([0, 1, 1, 1])) == {
        "balanced_accuracy": 0.5, "kappa": 0.0, "auroc": 0.5, "pr_auc": 0.75, "average_precision": 0.75,
    }  # fmt: skip


def test_per_class_says_from_how_many_subjects():
    p = make_predictions("multiclass")
    few = p.take((p.label != 3) | (p.subject == "S2"))
    assert [row["subjects"] for row in metrics.per_class(few, ("a", "b", "c", "d"))] == [6, 6, 6, 1]


def test_per_class_and_per_subject_tables():
    p = make_predictions("multiclass")
    table = metrics.per_class(p, ("a", "b", "c", "d"))
    assert [row["windows"] for row in table] == np.bincount(p.label).tolist()
    assert np.mean([row["recall"] for row in table]) == pytest.approx(
        metrics.score("multiclass", p)["balanced_accuracy"]
    )
    rows = metrics.per_subject("multiclass", p)
    assert [row["subject"] for row in rows] == [f"S{index}" for index in range(6)]
    assert sum(row["windows"] * row["accuracy"] for row in rows) == pytest.approx((p.predicted() == p.label).sum())


def test_predictions_survive_a_file(tmp_path):
    p = make_predictions("binary")
    p.save(tmp_path / "p.npz")
    again = Predictions.load(tmp_path / "p.npz")
    for name in ("window", "subject", "label", "score"):
        np.testing.assert_array_equal(getattr(again, name), getattr(p, name))


def test_answers_of_a_recording_are_averaged_where_it_has_one_label():
    p = make_predictions("binary", n=40)
    by_label = 2 * (np.arange(50) % 3) + np.append(p.label, np.zeros(10, int))
    found = metrics.by_recording(p, by_label)
    rows = [np.flatnonzero(by_label[:40] == name) for name in np.unique(by_label[:40])]
    assert found.window.tolist() == [own[0] for own in rows]
    np.testing.assert_allclose(found.score, [p.score[own].mean(0) for own in rows])
    assert found.label.tolist() == [p.label[own[0]] for own in rows]
    assert metrics.by_recording(p, np.zeros(40, int)) is None, "it has two labels"
    assert metrics.by_recording(p, np.arange(40)) is None, "each has one window"
