"""Figures of masked prediction against the same figures computed one patch at a time."""

import math

import pytest
import torch

from codebrain.prediction import CodeTally, GroupTally, code_loss, prominent_band


@pytest.fixture
def guesses() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.multinomial(torch.tensor([0.5, 0.2, 0.1, 0.1, 0.05, 0.05]), 200, True, generator=generator)
    logits = torch.randn(200, 6, generator=generator) + 1.5 * torch.nn.functional.one_hot(codes, 6)
    return logits, codes


def test_figures_are_what_counting_gives(guesses: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, codes = guesses
    tally = CodeTally(6)
    tally.add(logits[:70], codes[:70])
    tally.add(logits[70:], codes[70:])
    figures = tally.figures("t")

    probabilities = logits.double().softmax(-1)
    bits = -sum(math.log2(probabilities[i, codes[i]]) for i in range(200)) / 200
    ranks = [int((logits[i] > logits[i, codes[i]]).sum()) for i in range(200)]
    shares = [int((codes == k).sum()) / 200 for k in range(6)]
    assert figures["bits_t"] == pytest.approx(bits, rel=1e-5)
    assert figures["top1_t"] == pytest.approx(sum(rank == 0 for rank in ranks) / 200)
    assert figures["top5_t"] == pytest.approx(sum(rank < 5 for rank in ranks) / 200)
    assert figures["entropy_t"] == pytest.approx(-sum(share * math.log2(share) for share in shares))
    assert figures["majority_t"] == pytest.approx(max(shares))
    assert figures["codes_used_t"] == 6


def test_a_model_that_knows_only_frequencies_pays_the_entropy() -> None:
    codes = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    logits = torch.tensor([0.6, 0.3, 0.1, 1e-30]).log().expand(100, 4)
    tally = CodeTally(4)
    tally.add(logits, codes)
    figures = tally.figures("f")
    assert figures["bits_f"] == pytest.approx(figures["entropy_f"], rel=1e-5)
    assert figures["top1_f"] == pytest.approx(figures["majority_f"])


def test_sums_of_parts_are_the_sum_of_the_whole(guesses: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, codes = guesses
    whole, left, right = CodeTally(6), CodeTally(6), CodeTally(6)
    whole.add(logits, codes)
    left.add(logits[:50], codes[:50])
    right.add(logits[50:], codes[50:])
    left.sums += right.sums
    assert whole.figures("t") == pytest.approx(left.figures("t"), rel=1e-6)


def test_the_loss_of_parts_is_the_loss_of_the_whole(guesses: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, codes = guesses
    whole = code_loss(logits, codes, 200)
    torch.testing.assert_close(whole, torch.nn.functional.cross_entropy(logits, codes))
    torch.testing.assert_close(code_loss(logits[:30], codes[:30], 200) + code_loss(logits[30:], codes[30:], 200), whole)


def test_groups_are_counted() -> None:
    tally = GroupTally(["Cz", "Pz", "Oz"])
    tally.add(torch.tensor([1, 1, 0]), torch.tensor([True, False, True]), torch.tensor([False, False, True]))
    temporal, frequency = tally.accuracy()
    assert temporal[:2] == [1.0, 0.5]
    assert frequency[:2] == [1.0, 0.0]
    assert math.isnan(temporal[2])


def test_the_band_that_stands_out() -> None:
    """Of rhythms on a 1/f background, whose own largest amplitudes are all in the lowest band."""
    generator = torch.Generator().manual_seed(0)
    background = torch.randn(4, 200, generator=generator).cumsum(-1)
    background = 10 * (background - background.mean(-1, keepdim=True)) / background.std(-1, keepdim=True)
    seconds = torch.arange(200) / 200
    rhythms = torch.stack([torch.sin(2 * math.pi * hz * seconds) for hz in (2.0, 6.0, 10.0, 20.0)])
    bands = [(0.5, 4.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0)]
    assert prominent_band(background + 40 * rhythms, 200.0, bands).tolist() == [0, 1, 2, 3]
