"""Figures of masked prediction against the same figures computed one patch at a time."""

import math

import pytest
import torch

from codebrain.prediction import CodeTally, ElectrodeTally, code_loss


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
    figures = tally.figures(tally.sums(), "t")

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
    figures = tally.figures(tally.sums(), "f")
    assert figures["bits_f"] == pytest.approx(figures["entropy_f"], rel=1e-5)
    assert figures["top1_f"] == pytest.approx(figures["majority_f"])


def test_sums_of_parts_are_the_sum_of_the_whole(guesses: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, codes = guesses
    whole, left, right = CodeTally(6), CodeTally(6), CodeTally(6)
    whole.add(logits, codes)
    left.add(logits[:50], codes[:50])
    right.add(logits[50:], codes[50:])
    one, both = whole.figures(whole.sums(), "t"), whole.figures(left.sums() + right.sums(), "t")
    assert one == pytest.approx(both, rel=1e-6)


def test_the_loss_of_parts_is_the_loss_of_the_whole(guesses: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, codes = guesses
    whole = code_loss(logits, codes, 200)
    torch.testing.assert_close(whole, torch.nn.functional.cross_entropy(logits, codes))
    torch.testing.assert_close(code_loss(logits[:30], codes[:30], 200) + code_loss(logits[30:], codes[30:], 200), whole)


def test_electrodes_are_counted_by_name() -> None:
    tally = ElectrodeTally(["Cz", "Pz", "Oz"])
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    mask[0, 0, :2] = mask[1, 1, 2] = True
    tally.add(["Pz", "Cz"], mask, torch.tensor([True, False, True]), torch.tensor([False, False, True]))
    temporal, frequency = tally.accuracy(tally.counts)
    assert temporal.tolist() == [1.0, 0.5, 0.0]
    assert frequency.tolist() == [1.0, 0.0, 0.0]
