"""Health figures: what they say of known distributions, and when they raise the alarm."""

import logging

import pytest
import torch

from tests import reference_tokenizer as reference
from tokenizer.losses import phase_vector
from tokenizer.model import Reconstruction
from tokenizer.quality import BANDS_HZ, QualityTally
from tokenizer.targets import make_targets
from tokenizer.usage import CodebookCollapse, CollapseConfig, CollapseWatch, usage


def test_usage_of_known_distributions() -> None:
    even = usage(torch.full((64,), 3))
    assert even["codes_in_use"] == 1
    assert even["perplexity"] == pytest.approx(64)
    assert even["top10_share"] == pytest.approx(10 / 64)
    collapsed = usage(torch.eye(1, 64)[0] * 1000)
    assert collapsed["codes_in_use"] == pytest.approx(1 / 64)
    assert collapsed["perplexity"] == pytest.approx(1)
    assert collapsed["top10_share"] == 1
    assert usage(torch.zeros(64)) == {}


def test_perplexity_is_that_of_the_codes() -> None:
    codes = torch.randint(0, 20, (500,), generator=torch.Generator().manual_seed(0)).square() % 31
    assert usage(torch.bincount(codes))["perplexity"] == pytest.approx(reference.entropy_in_codes(codes.tolist()))


def test_alarm_after_several_lines_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    watch = CollapseWatch(CollapseConfig(below=0.05, patience=3))
    with caplog.at_level(logging.WARNING):
        for share in (0.01, 0.01, 0.5, 0.01, 0.01):
            watch.look({"temporal": share, "frequency": 0.9})
        assert not caplog.records
        watch.look({"temporal": 0.01, "frequency": 0.9})
    (record,) = caplog.records
    assert "temporal codebook has collapsed: 1.0% of its codes" in record.getMessage()
    assert "--start.share" in record.getMessage()
    assert "--model.codebook_start kmeans" in record.getMessage()


def test_stop_on_collapse() -> None:
    watch = CollapseWatch(CollapseConfig(patience=1, stop=True))
    watch.look({"temporal": 0.06})
    with pytest.raises(CodebookCollapse, match="frequency codebook"):
        watch.look({"temporal": 0.06, "frequency": 0.04})


def windows(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 2, 4, 200, generator=torch.Generator().manual_seed(1)) * 0.3


def blurred(targets, by: float) -> Reconstruction:
    noise = torch.Generator().manual_seed(2)
    return Reconstruction(
        targets.waveform + by * torch.randn(targets.waveform.shape, generator=noise),
        targets.amplitude + by * torch.randn(targets.amplitude.shape, generator=noise),
        phase_vector(targets.phase),
    )


def test_figures_are_the_definitions() -> None:
    targets = make_targets(windows(), waveform="patch", amplitude="log")
    guess = blurred(targets, 0.5)
    tally = QualityTally(200, 200.0)
    tally.add(guess, targets)
    figures = tally.figures()
    expected = reference.explained_variance(guess.amplitude.flatten(0, 2), targets.amplitude.flatten(0, 2))
    assert figures["amplitude_ev"] == pytest.approx(expected, rel=1e-4)
    error = (guess.waveform - targets.waveform).square().sum() / targets.waveform.square().sum()
    assert figures["waveform_ev"] == pytest.approx(1 - error.item(), rel=1e-4)
    assert figures["phase_cosine"] == pytest.approx(1, abs=1e-3)
    assert {f"waveform_ev_{band}" for band in BANDS_HZ} < figures.keys()


def test_batches_add_up() -> None:
    whole, parts = QualityTally(200, 200.0), [QualityTally(200, 200.0) for _ in range(2)]
    for tally, x in ((whole, windows()), (parts[0], windows()[:2]), (parts[1], windows()[2:])):
        targets = make_targets(x, waveform="patch", amplitude="log")
        tally.add(Reconstruction(targets.waveform * 0.5, targets.amplitude * 0.5, phase_vector(targets.phase)), targets)
    parts[0].sums += parts[1].sums
    assert parts[0].figures() == pytest.approx(whole.figures(), rel=1e-6)


def test_a_band_is_explained_where_its_waves_are_restored() -> None:
    time = torch.arange(200) / 200
    alpha, gamma = torch.sin(2 * torch.pi * 10 * time), torch.sin(2 * torch.pi * 40 * time)
    targets = make_targets((alpha + gamma).expand(1, 1, 2, 200), waveform="raw", amplitude="log")
    guess = Reconstruction(alpha.expand(1, 1, 2, 200), targets.amplitude, phase_vector(targets.phase))
    tally = QualityTally(200, 200.0)
    tally.add(guess, targets)
    figures = tally.figures()
    assert figures["waveform_ev_alpha"] == pytest.approx(1, abs=1e-4)
    assert figures["waveform_ev_gamma"] == pytest.approx(0, abs=1e-4)
