"""Masks: 1 is hidden, a function of the seed, never empty."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codebrain import masking

shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 8))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(shapes, st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_every_window_has_a_hidden_patch(shape, ratio, seed):
    for mask in (
        masking.bernoulli(shape, ratio, seeded(seed)),
        masking.exact(shape, ratio, seeded(seed)),
        masking.blocks(shape, ratio, (1, min(2, shape[2])), seeded(seed)),
    ):
        assert mask.dtype == torch.bool
        assert mask.shape == shape
        assert mask.flatten(1).any(dim=1).all()


@given(shapes, st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_exact_hides_the_same_number_in_every_window(shape, ratio, seed):
    hidden = masking.exact(shape, ratio, seeded(seed)).flatten(1).sum(dim=1)
    assert (hidden == max(1, round(ratio * shape[1] * shape[2]))).all()


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_ratio_is_the_hidden_share(ratio):
    for mask in (
        masking.bernoulli((64, 19, 30), ratio, seeded(0)),
        masking.blocks((64, 19, 30), ratio, (2, 3), seeded(0)),
    ):
        assert mask.float().mean().item() == pytest.approx(ratio, abs=0.03)


def test_the_same_seed_gives_the_same_mask():
    shape = (3, 4, 5)
    assert torch.equal(masking.bernoulli(shape, 0.5, seeded(1)), masking.bernoulli(shape, 0.5, seeded(1)))
    assert not torch.equal(masking.bernoulli(shape, 0.5, seeded(1)), masking.bernoulli(shape, 0.5, seeded(2)))


def test_blocks_of_the_full_height_hide_times_and_of_the_full_width_channels():
    times = masking.blocks((8, 6, 20), 0.5, (6, 4), seeded(0))
    assert (times == times[:, :1]).all()
    channels = masking.blocks((8, 6, 20), 0.5, (1, 20), seeded(0))
    assert (channels == channels[..., :1]).all()


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5])
def test_a_ratio_that_hides_nothing_or_everything_is_refused(ratio):
    for call in (
        lambda: masking.bernoulli((1, 2, 3), ratio),
        lambda: masking.exact((1, 2, 3), ratio),
        lambda: masking.blocks((1, 2, 3), ratio, (1, 1)),
    ):
        with pytest.raises(ValueError, match="between 0 and 1"):
            call()


@pytest.mark.parametrize("block", [(0, 1), (3, 1), (1, 4)])
def test_a_block_that_does_not_fit_is_refused(block):
    with pytest.raises(ValueError, match="block"):
        masking.blocks((1, 2, 3), 0.5, block)
