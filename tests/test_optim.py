"""Learning rate and parameter groups."""

import itertools

import pytest
import torch
from torch import nn

from codebrain.training.optim import OptimConfig, adamw, learning_rate, parameter_groups, set_learning_rate


def test_warm_up_then_cosine() -> None:
    config = OptimConfig(lr=1.0, min_lr=0.1, warmup_steps=10)
    rates = [learning_rate(step, config, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert all(one >= other for one, other in itertools.pairwise(rates[10:]))


def test_the_released_schedule_is_cut_before_its_end() -> None:
    """A cosine from 1e-4 to 1e-5 over 40 epochs, stopped after 10: the rate falls to 8.7e-5 only."""
    config = OptimConfig(lr=1e-4, min_lr=1e-5, decay_steps=40_000)
    assert learning_rate(10_000, config, 10_000) == pytest.approx(8.7e-5, rel=5e-3)


def test_what_decays() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    model[0].bias.requires_grad_(False)
    groups = parameter_groups(model, 0.1, lambda name: 0.5 if name.startswith("0") else 1.0)
    found = {(group["weight_decay"], group["lr_scale"]): [p.shape for p in group["params"]] for group in groups}
    assert found == {
        (0.1, 0.5): [torch.Size([4, 3])],
        (0.0, 1.0): [torch.Size([4]), torch.Size([4]), torch.Size([5, 4])],
    }


def test_rates_are_set_by_group() -> None:
    model = nn.Linear(2, 2)
    optimizer = adamw(parameter_groups(model, 0.1, lambda name: 0.5 if name == "bias" else 1.0), OptimConfig())
    set_learning_rate(optimizer, 0.2)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.1, 0.2]
