"""Heads: what each one computes, starts from and refuses."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from finetune.heads import AttentionPool, Head, HeadConfig, shrink
from finetune.task import Task

SIZES = {"n_chans": 5, "n_patches": 3, "width": 8}


def make_head(kind, n_outputs=2, **options) -> Head:
    torch.manual_seed(0)
    return Head(HeadConfig(kind=kind, n_outputs=n_outputs, **(SIZES | options))).eval()


@pytest.mark.parametrize("kind", ["mlp", "linear", "channel", "mean", "attention"])
def test_a_batch_of_one_is_a_batch(kind):
    assert make_head(kind)(torch.randn(1, 5, 3, 8)).shape == (1, 2)


def test_mlp_has_the_sizes_of_the_paper():
    with torch.device("meta"):
        head = make_head("mlp", n_chans=19, n_patches=30, width=200, n_outputs=9)
    shapes = [tuple(p.shape) for p in head.classify.parameters() if p.ndim == 2]
    assert shapes == [(800, 114000), (200, 800), (9, 200)]


@pytest.mark.parametrize("kind", ["linear", "mean", "attention"])
def test_shallow_heads_start_at_equal_odds(kind):
    assert torch.equal(make_head(kind)(torch.randn(4, 5, 3, 8)), torch.zeros(4, 2))


def test_mean_is_one_layer_on_the_mean():
    head = make_head("mean")
    layer = head.classify[-1]
    torch.nn.init.normal_(layer.weight)
    features = torch.randn(4, 5, 3, 8)
    torch.testing.assert_close(head(features), layer(features.reshape(4, 15, 8).mean(1)))


def test_attention_starts_as_the_mean_and_can_pick_one_patch():
    pool = AttentionPool(8, 2)
    features = torch.randn(4, 5, 3, 8)
    torch.testing.assert_close(pool(features), features.mean((1, 2)))
    torch.nn.init.normal_(pool.score.weight, std=300)
    weights = pool.weights(features)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(4, 2))
    picked = weights[0, ..., 0].flatten().argmax()
    torch.testing.assert_close(pool(features)[0, :4], features[0].flatten(0, 1)[picked, :4])


@pytest.mark.parametrize("kind", ["mean", "attention"])
def test_pooling_heads_take_any_montage_in_any_order(kind):
    head = make_head(kind)
    torch.nn.init.normal_(head.classify[-1].weight)
    features = torch.randn(2, 7, 4, 8)
    torch.testing.assert_close(head(features), head(features[:, torch.randperm(7)]))


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_bound_heads_refuse_another_montage(kind):
    with pytest.raises(ValueError, match=rf"`{kind}` head is bound to windows of 5 channels x 3 patches.*7 x 3.*mean"):
        make_head(kind)(torch.randn(2, 7, 3, 8))


def test_another_width_is_refused():
    with pytest.raises(ValueError, match="takes features of width 8, the backbone gives 16"):
        make_head("mean")(torch.randn(2, 5, 3, 16))


@pytest.mark.parametrize(
    ("options", "message"), [({"dropout": 1.0}, "no fraction"), ({"n_queries": 3}, "its 3 queries divide.* gives 8")]
)
def test_impossible_heads_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_head("attention", **options)


def test_standardise_makes_what_the_classifier_sees_zero_mean_unit_spread():
    head = make_head("linear")
    features = torch.randn(500, 5, 3, 8) * 7 + 3
    features[:, 0, 0, 0] = 4.0
    pooled = head.pool(features)
    head.standardise(pooled.mean(0), pooled.std(0, correction=0))
    seen = (head.pool(features) - head.shift) / head.scale
    torch.testing.assert_close(seen.mean(0), torch.zeros(120), atol=1e-4, rtol=0)
    assert seen[:, 0].abs().max() == 0, "an input that never moves is left at 0, not divided by 0"
    torch.testing.assert_close(seen[:, 1:].std(0, correction=0), torch.ones(119))


@pytest.mark.parametrize("n_dead", [100, 120])
def test_inputs_that_do_not_move_in_training_do_not_blow_up_later(n_dead):
    head = make_head("linear")
    spread = torch.full((120,), 2.0, dtype=torch.float64)
    spread[:n_dead] = 0
    head.standardise(torch.zeros(120, dtype=torch.float64), spread)
    assert set(head.scale.tolist()) == ({2.0} if n_dead < 120 else {1.0})
    assert head(torch.randn(4, 5, 3, 8)).isfinite().all()


# --- the task's losses ---------------------------------------------------------------------------------------------


def make_task(kind) -> Task:
    names = {"binary": ("rest", "count"), "multiclass": ("a", "b", "c"), "regression": ()}[kind]
    return Task(name="t", protocol="corrected", kind=kind, class_names=names)


def test_binary_loss_is_binary_cross_entropy_on_one_logit():
    task, logits, label = make_task("binary"), torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    p = torch.sigmoid(logits[:, 0])
    expected = -torch.where(label == 1, p, 1 - p).log().mean()
    torch.testing.assert_close(task.loss(logits, label, weights=torch.ones(2), smoothing=0.1), expected)
    torch.testing.assert_close(task.scores(logits)[:, 1], p.double())
    assert task.n_logits == 1
    assert task.selection == "auroc"


def test_multiclass_loss_smooths_labels():
    task, logits, label = make_task("multiclass"), torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    target = torch.full((6, 3), 0.1 / 3).scatter(1, label[:, None], 0.9 + 0.1 / 3)
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task.loss(logits, label, weights=torch.ones(3), smoothing=0.1), expected)
    torch.testing.assert_close(task.scores(logits).sum(1), torch.ones(6, dtype=torch.float64))


def test_balanced_weights_give_each_class_the_same_say():
    task, label = make_task("binary"), torch.tensor([0] * 9 + [1] * 3)
    weights = task.weights(label.numpy(), "balanced")
    assert (weights[0] * 9).item() == pytest.approx((weights[1] * 3).item())
    assert (weights[label]).mean().item() == pytest.approx(1)
    constant = torch.zeros(12, 1, requires_grad=True)
    task.loss(constant, label, weights=weights, smoothing=0).backward()
    assert constant.grad.sum().item() == pytest.approx(0, abs=1e-7), "guessing the frequent class gains nothing"


def test_regression_loss_is_the_unexplained_share_of_the_variance():
    task, label = make_task("regression"), torch.tensor([10.0, 30.0, 80.0])
    logits = torch.tensor([[12.0], [25.0], [60.0]])
    loss = task.loss(logits, label, weights=task.weights(label.numpy(), "balanced"), smoothing=0)
    assert loss.item() == pytest.approx(1 - r2_score(label, logits[:, 0]))
    assert task.n_logits == 1
    np.testing.assert_array_equal(task.scores(torch.tensor([[2.0]])).numpy(), [[2.0]])


@pytest.mark.parametrize("kind", ["mlp", "mean", "sequence"])
def test_answers_of_a_regression_lie_as_the_training_values_do(kind):
    torch.manual_seed(0)
    config = HeadConfig(kind=kind, n_chans=2, n_patches=3, width=8, n_outputs=1, hidden=8, dropout=0.0)
    head, features = Head(config), torch.randn(2, 5, 2, 3, 8) if kind == "sequence" else torch.randn(5, 2, 3, 8)
    plain = head(features)
    head.answer_like(45.0, 20.0)
    torch.testing.assert_close(head(features), 45 + 20 * plain)


def test_features_of_any_size_reach_the_classifier_alike():
    features = torch.randn(200, 3, 2, 8) * torch.tensor([1.0, 2, 0.5, 1, 1, 1, 1, 0])
    seen = []
    for size in (1e-6, 1.0, 1e6):
        head = Head(HeadConfig(kind="mean", n_outputs=1, **SIZES))
        pooled = head.pool(size * features)
        head.standardise(pooled.mean(0), pooled.std(0))
        seen.append((pooled - head.shift) / head.scale)
    torch.testing.assert_close(seen[0], seen[1])
    torch.testing.assert_close(seen[2], seen[1])
    assert seen[1][:, :7].std(0).allclose(torch.ones(7))
    assert not seen[1][:, 7].any(), "a dead unit stays one"


def test_what_is_kept_for_a_head_gives_the_same_answers():
    features = torch.randn(4, 3, 2, 8)
    for kind in ("mean", "channel", "attention", "linear", "mlp"):
        head = Head(HeadConfig(kind=kind, n_chans=3, n_patches=2, width=8, n_outputs=2)).eval()
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter)
        torch.testing.assert_close(head(shrink(kind)(features)), head(features))
    assert shrink("mean")(features).shape == (4, 1, 1, 8)
    assert shrink("channel")(features).shape == (4, 3, 1, 8)


def test_channel_is_one_layer_on_the_means_of_the_channels_whatever_the_length():
    head = make_head("channel")
    torch.nn.init.normal_(head.classify[1].weight)
    assert head.classify[1].weight.shape == (2, 5 * 8)
    for n_patches in (3, 7):
        features = torch.randn(4, 5, n_patches, 8)
        expected = features.mean(2).reshape(4, 40) @ head.classify[1].weight.T + head.classify[1].bias
        torch.testing.assert_close(head(features), expected)
    with pytest.raises(ValueError, match=r"bound to windows of 5 channels, these have 4 x 3"):
        head(torch.randn(1, 4, 3, 8))
    assert head.config.rate == 1
