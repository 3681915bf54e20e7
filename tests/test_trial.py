"""What a trial hands to the training loop: every setting of a run arrives where it acts."""

import numpy as np
import pytest
import torch

import finetune.trial
from codebrain.data.windows import Request
from finetune import cli
from finetune.task import Task
from finetune.trial import worth
from tests.reference_finetune import TINY, write_task_store


class Stopped(Exception):
    """Raised in place of a training."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    names = ("a", "b", "c")
    return write_task_store(tmp_path_factory.mktemp("data") / "store", class_names=names, per_subject=7)


@pytest.fixture
def handed(store, tmp_path, monkeypatch):
    """A function from flags to the loop's arguments, and the run's."""

    def of(*flags):
        found = {}

        def fit(run, **options):
            found.update(options, run=run)
            raise Stopped

        monkeypatch.setattr(finetune.trial, "fit", fit)
        with pytest.raises(Stopped):
            cli.run_command(["--ckpt=none", f"--data={store.path}", f"--run_dir={tmp_path / 'r'}", *TINY, *flags])
        return found

    return of


def scales(options):
    """Rate of each parameter relative to the backbone's."""
    named = {id(parameter): name for name, parameter in options["model"].named_parameters()}
    return {named[id(p)]: group["lr_scale"] for group in options["groups"] for p in group["params"]}


def test_the_head_has_a_rate_of_its_own_and_layers_decay_towards_the_input(handed):
    options = handed("--optim.lr", "1e-3", "--training.head_lr", "4e-3", "--training.layer_decay", "0.5")
    rate = scales(options)
    assert rate["head.classify.0.weight"] == pytest.approx(4)
    assert rate["backbone.norm.weight"] == 1
    assert rate["backbone.blocks.0.expand.bias"] == 0.5
    assert rate["backbone.patch_embedding.spectral.weight"] == 0.25


def test_a_probe_trains_the_head_alone(handed):
    options = handed("--mode", "probe", "--training.head_lr", "4e-3")
    assert not [name for name in scales(options) if name.startswith("backbone")]
    assert options["optim"].lr == pytest.approx(4e-3)
    assert options["optim"].min_lr == pytest.approx(4e-3 / 1e-4 * 1e-6)


@pytest.mark.parametrize("mode", ["probe", "full"])
def test_a_linear_head_learns_slower_by_the_root_of_the_patches_that_it_sums_over(handed, mode):
    options = handed("--mode", mode, "--head", "linear", "--optim.lr", "1e-3", "--training.head_lr", "4e-3")
    (rate,) = {rate for name, rate in scales(options).items() if "classify" in name}
    assert options["optim"].lr * rate == pytest.approx(4e-3 / np.sqrt(3 * 2))


def test_a_batch_is_computed_in_parts(handed):
    loop = handed("--training.batch_size", "12", "--training.micro_batch", "4")["run"].loop
    assert (loop.batch_size, loop.accumulation) == (4, 3)


@pytest.mark.parametrize(("mode", "smoothing"), [("none", "0"), ("balanced", "0.2")])
def test_class_weights_and_label_smoothing_are_in_the_loss(handed, store, mode, smoothing):
    options = handed("--training.class_weights", mode, "--training.label_smoothing", smoothing)
    train, model = options["train"], options["model"].eval()
    batch = train[Request(train.ids()[:10])]
    task = Task.of(store)
    weights = task.weights(train.labels(), mode)
    assert (weights.min() < weights.max()) == (mode == "balanced")
    with torch.no_grad():
        loss, _ = options["loss_fn"](model, batch, torch.Generator())
        log_p = model(batch.x).log_softmax(1)
    k = 3
    target = torch.full((10, k), float(smoothing) / k) + (1 - float(smoothing)) * torch.eye(k)[batch.label]
    torch.testing.assert_close(loss, (-(target * log_p).sum(1) * weights[batch.label]).mean())


def test_among_equal_figures_the_smaller_loss_wins_whatever_its_size():
    for larger, smaller in ((0.7, 0.6), (1.6, 1.1), (60.0, 50.0)):
        assert worth(0.0, smaller) > worth(0.0, larger)
    assert worth(0.5001, 50.0) > worth(0.5, 0.01), "a better figure outweighs any loss"


def test_sequences_weigh_classes_by_the_windows_that_they_hold(handed, store):
    """Seven windows of three classes in turn: a sequence of six leaves one of class a out."""
    options = handed("--head", "sequence", "--training.sequence_length", "6", "--training.hidden", "8")
    train, model = options["train"], options["model"].eval()
    assert np.bincount(train.labels(train.covered())).tolist() == [2 * len(train)] * 3
    batch = train[Request(train.ids()[:2])]
    with torch.no_grad():
        loss, _ = options["loss_fn"](model, batch, torch.Generator())
        logits = model(batch.x).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, batch.label.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
