"""Health figures: what they say of known distributions, and when they raise the alarm."""

import logging

import pytest
import torch

from codebrain.patches import patchify, to_model_units
from tests import reference_tokenizer as reference
from tokenizer.config import TokenizerConfig
from tokenizer.losses import phase_vector
from tokenizer.outputs import Reconstruction
from tokenizer.quality import BANDS_HZ, QualityTally
from tokenizer.targets import EPS, Targets, log_amplitude, make_targets, one_sided, standardise
from tokenizer.usage import CodebookCollapse, CollapseConfig, CollapseWatch, usage


def test_usage_of_known_distributions() -> None:
    even = usage(torch.full((64,), 3))
    assert even["codes_in_use"] == even["codes_reached"] == 1
    assert even["perplexity"] == pytest.approx(64)
    assert even["top10_share"] == pytest.approx(10 / 64)
    collapsed = usage(torch.eye(1, 64)[0] * 1000)
    assert collapsed["codes_in_use"] == pytest.approx(1 / 64)
    assert collapsed["perplexity"] == pytest.approx(1)
    assert collapsed["top10_share"] == 1
    few = usage(torch.tensor([1, 1, 1, 1, *[0] * 60]))  # four patches cannot reach more than four codes
    assert (few["codes_in_use"], few["codes_reached"]) == (4 / 64, 1)
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
    assert "temporal codebook has collapsed: of the codes within its reach 1.0% are in use" in record.getMessage()
    assert "--start.share" in record.getMessage()
    assert "--model.codebook_start kmeans" in record.getMessage()


def test_stop_on_collapse() -> None:
    watch = CollapseWatch(CollapseConfig(patience=1, stop=True))
    watch.look({"temporal": 0.06})
    with pytest.raises(CodebookCollapse, match="frequency codebook"):
        watch.look({"temporal": 0.06, "frequency": 0.04})


def windows_uv(n: int = 6) -> torch.Tensor:
    """Windows of two channels and four patches, strong ones and weak ones, around an offset."""
    generator = torch.Generator().manual_seed(1)
    size = 10 + 40 * torch.rand(n, 2, 4, 1, generator=generator)
    return (size * torch.randn(n, 2, 4, 200, generator=generator) + 7).flatten(2)


def patches(x_uv: torch.Tensor) -> torch.Tensor:
    return patchify(to_model_units(x_uv), 200)


def default_targets(x_uv: torch.Tensor) -> Targets:
    return make_targets(patches(x_uv), waveform="patch", amplitude="log")


def figures_of(restored: Reconstruction, targets: Targets, x_uv: torch.Tensor, **choices: str) -> dict[str, float]:
    tally = QualityTally(TokenizerConfig(**choices))
    tally.add(restored, targets, x_uv)
    return {name: value.item() for name, value in tally.figures().items()}


def blurred(targets: Targets, by: float) -> Reconstruction:
    noise = torch.Generator().manual_seed(2)
    return Reconstruction(
        targets.waveform + by * torch.randn(targets.waveform.shape, generator=noise),
        targets.amplitude + by * torch.randn(targets.amplitude.shape, generator=noise),
        phase_vector(targets.phase),
    )


def test_figures_are_the_definitions() -> None:
    x_uv = windows_uv()
    targets = default_targets(x_uv)
    guess = blurred(targets, 0.5)
    figures = figures_of(guess, targets, x_uv)
    expected = reference.explained_variance(guess.amplitude.flatten(0, 2), targets.amplitude.flatten(0, 2))
    assert figures["amplitude_ev"] == pytest.approx(expected, rel=1e-4)
    error = (guess.waveform - targets.waveform).square().sum() / targets.waveform.square().sum()
    assert figures["waveform_ev"] == pytest.approx(1 - error.item(), rel=1e-4)
    assert figures["phase_cosine"] == pytest.approx(1, abs=1e-3)
    assert {f"waveform_ev_{band}" for band in BANDS_HZ} < figures.keys()


def test_other_targets_are_measured_on_the_scale_of_the_default() -> None:
    """The same restored signal has the same figures, whatever targets the tokenizer was trained on."""
    x_uv = windows_uv()
    signal, targets = patches(x_uv), default_targets(x_uv)
    size = one_sided(signal).abs()
    louder = size * (1 + 0.3 * torch.rand(size.shape, generator=torch.Generator().manual_seed(3)))
    published = make_targets(signal, waveform="raw", amplitude="linear")
    bent = signal + 0.1 * signal.roll(1, -1)
    raw = Reconstruction(
        bent + 5.0,  # an offset, which the z-scored waveform knows nothing of
        (louder - size.mean((1, 2, 3), keepdim=True)) / (size.var((1, 2, 3), False, keepdim=True) + EPS).sqrt(),
        phase_vector(targets.phase),
    )
    patch = (-1, False)
    same = Reconstruction(
        (bent - bent.mean(-1, keepdim=True)) / (signal.var(*patch, keepdim=True) + EPS).sqrt(),
        standardise(log_amplitude(louder), (1, 2, 3), like=log_amplitude(size)),
        phase_vector(targets.phase),
    )
    expected = figures_of(same, targets, x_uv)
    assert 0.5 < expected["waveform_ev"] < 0.999
    assert 0.5 < expected["amplitude_ev"] < 0.999
    assert figures_of(raw, published, x_uv, waveform="raw", amplitude="linear") == pytest.approx(expected, rel=1e-4)


def test_what_is_restored_without_error_is_explained_wholly() -> None:
    x_uv = windows_uv()
    published = make_targets(patches(x_uv), waveform="raw", amplitude="linear")
    perfect = Reconstruction(published.waveform, published.amplitude, phase_vector(published.phase))
    figures = figures_of(perfect, published, x_uv, waveform="raw", amplitude="linear")
    assert figures["waveform_ev"] == pytest.approx(1, abs=1e-6)
    assert figures["amplitude_ev"] == pytest.approx(1, abs=1e-6)


def test_batches_add_up() -> None:
    whole, parts = QualityTally(TokenizerConfig()), [QualityTally(TokenizerConfig()) for _ in range(2)]
    for tally, x_uv in ((whole, windows_uv()), (parts[0], windows_uv()[:2]), (parts[1], windows_uv()[2:])):
        targets = default_targets(x_uv)
        halved = Reconstruction(targets.waveform * 0.5, targets.amplitude * 0.5, phase_vector(targets.phase))
        tally.add(halved, targets, x_uv)
    parts[0].sums += parts[1].sums
    together, found = parts[0].figures(), whole.figures()
    assert {name: value.item() for name, value in together.items()} == pytest.approx(
        {name: value.item() for name, value in found.items()}, rel=1e-6
    )


def test_a_band_is_explained_where_its_waves_are_restored() -> None:
    time = torch.arange(200) / 200
    alpha, gamma = torch.sin(2 * torch.pi * 10 * time), torch.sin(2 * torch.pi * 40 * time)
    x_uv = 100 * (alpha + gamma).expand(1, 1, 2, 200).flatten(2)
    targets = default_targets(x_uv)
    guess = Reconstruction(alpha.expand(1, 1, 2, 200), targets.amplitude, phase_vector(targets.phase))
    figures = figures_of(guess, targets, x_uv)
    assert figures["waveform_ev_alpha"] == pytest.approx(1, abs=1e-4)
    assert figures["waveform_ev_gamma"] == pytest.approx(0, abs=1e-4)
