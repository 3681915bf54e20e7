"""Data order: a pure function of (seed, step) in which every window comes once an epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codebrain.training.sampling import EpochOrder, TrainOrder


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 500), block=st.integers(1, 40), blocks=st.integers(1, 6), seed=st.integers(0, 9))
def test_an_epoch_is_a_permutation(n: int, block: int, blocks: int, seed: int) -> None:
    order = EpochOrder(n, [seed], block=block, buffer=block * blocks)
    assert sorted(order.take(0, n).tolist()) == list(range(n))


def test_pieces_are_parts_of_the_whole() -> None:
    whole = EpochOrder(1000, [3], block=8, buffer=64).take(0, 1000)
    order = EpochOrder(1000, [3], block=8, buffer=64)
    pieces = [order.take(start, min(start + 37, 1000)) for start in range(0, 1000, 37)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_buffer_touches_few_places_of_the_disk() -> None:
    order = EpochOrder(100_000, [0], block=32, buffer=32 * 16)
    blocks = {position // 32 for position in order.take(512, 1024)}
    # The epoch's one short block may shift the buffer against the blocks by less than one.
    assert len(blocks) <= 17


def test_small_data_is_shuffled_uniformly() -> None:
    firsts = [EpochOrder(100, [seed]).take(0, 1)[0] for seed in range(2000)]
    counts = np.bincount(np.array(firsts) // 10, minlength=10)
    assert counts.min() > 140
    assert counts.max() < 260


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=4), batch=st.integers(1, 64), seed=st.integers(0, 5))
def test_a_step_does_not_depend_on_the_steps_before(sizes: list[int], batch: int, seed: int) -> None:
    one = TrainOrder(sizes, batch, seed)
    steps = [one.batch(step) for step in range(12)]
    for step in (11, 0, 7, 3):
        group, positions = TrainOrder(sizes, batch, seed).batch(step)
        assert group == steps[step][0]
        np.testing.assert_array_equal(positions, steps[step][1])
        assert len(positions) == batch
        assert positions.max() < sizes[group]


def test_montages_share_the_steps_by_their_windows() -> None:
    order = TrainOrder([6000, 2000, 10], batch=50, seed=0)
    groups = np.bincount([order.batch(step)[0] for step in range(161 * 3)])
    assert groups.tolist() == [360, 120, 3]


@pytest.mark.parametrize("n", [64, 100])
def test_epochs_follow_one_another_without_loss(n: int) -> None:
    order = TrainOrder([n], batch=16, seed=2)
    seen = np.concatenate([order.batch(step)[1] for step in range(n)])
    assert np.bincount(seen, minlength=n).tolist() == [16] * n
    assert seen[:n].tolist() != seen[n : 2 * n].tolist()
