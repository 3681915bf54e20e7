"""The losses against their definitions, and where a definition alone would give NaN."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests import reference_tokenizer as reference
from tokenizer.losses import LossConfig, halves, nt_xent, phase_loss, phase_vector, stage1_loss
from tokenizer.outputs import Codes, Reconstruction, TokenizerOutput
from tokenizer.targets import Targets, make_targets, standardise

B, C, P, L = 4, 3, 6, 20
BINS = L // 2 + 1


def patches(seed: int = 0) -> Tensor:
    return torch.randn(B, C, P, L, generator=torch.Generator().manual_seed(seed)) * 0.2


def output(targets: Targets, phase: Tensor) -> TokenizerOutput:
    features = torch.randn(B, C, P, 16, generator=torch.Generator().manual_seed(3)).requires_grad_()
    return TokenizerOutput(
        codes=Codes(torch.zeros(B, C, P), torch.zeros(B, C, P)),
        reconstruction=Reconstruction(targets.waveform, targets.amplitude, phase),
        features=features,
        commitment_t=torch.tensor(0.25),
        commitment_f=torch.tensor(0.5),
    )


@pytest.mark.parametrize("on", ["mean", "tokens"])
def test_nt_xent_is_simclrs(on: str) -> None:
    features = torch.randn(B, C, P + 1, 16, dtype=torch.float64, requires_grad=True)
    first, second = halves(features, on)
    fast = nt_xent(first, second, 0.1)
    slow = reference.nt_xent(first, second, 0.1)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    (ours,) = torch.autograd.grad(fast, features, retain_graph=True)
    (theirs,) = torch.autograd.grad(slow, features)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_nt_xent_memory_grows_with_tokens_only() -> None:
    n, width = 64, 2000
    first = torch.randn(n, width, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        nt_xent(first, torch.randn(n, width), 0.1)
    assert max(saved) <= 2 * n * width, "an n x n x width broadcast was kept"


def test_windows_too_short_to_halve_cost_nothing() -> None:
    features = torch.randn(B, C, 1, 16, requires_grad=True)
    loss = nt_xent(*halves(features, "tokens"), 0.1)
    assert loss == 0
    assert torch.isfinite(nt_xent(*halves(features, "mean"), 0.1))


def test_perfect_restoration_leaves_commitment_and_contrast() -> None:
    targets = make_targets(patches(), waveform="patch", amplitude="log")
    found = output(targets, phase_vector(targets.phase))
    loss, terms = stage1_loss(found, targets, LossConfig(commitment=2.0, contrastive=0.0))
    assert {name: terms[name].item() for name in ("waveform", "amplitude", "phase")} == {
        "waveform": 0.0,
        "amplitude": 0.0,
        "phase": 0.0,
    }
    assert loss.item() == pytest.approx(2.0 * 0.75)
    loss.backward()
    assert found.features.grad is not None, "a term of weight 0 must stay in the graph"
    assert not found.features.grad.any()


def test_phase_vector_does_not_see_the_jump_at_pi() -> None:
    targets = make_targets(patches(), waveform="patch", amplitude="log")
    turned = Targets(targets.waveform, targets.amplitude, targets.phase + 2 * math.pi, targets.phase_weight)
    guess = Reconstruction(targets.waveform, targets.amplitude, torch.randn(B, C, P, 2 * BINS))
    torch.testing.assert_close(phase_loss(guess, targets), phase_loss(guess, turned))
    silent = Reconstruction(targets.waveform, targets.amplitude, torch.zeros(B, C, P, 2 * BINS))
    assert phase_loss(silent, targets).item() == pytest.approx(1.0, abs=1e-4)


def test_published_targets() -> None:
    x = patches()
    targets = make_targets(x, waveform="raw", amplitude="linear")
    assert torch.equal(targets.waveform, x)
    spectrum = torch.fft.fft(x)[..., :BINS]
    torch.testing.assert_close(targets.amplitude, standardise(spectrum.abs(), (1, 2, 3)))
    torch.testing.assert_close(targets.phase, spectrum.angle())
    guess = Reconstruction(x, targets.amplitude, torch.zeros(B, C, P, BINS))
    expected = F.mse_loss(torch.zeros_like(spectrum.abs()), standardise(spectrum.angle(), (1, 2, 3)))
    torch.testing.assert_close(phase_loss(guess, targets), expected)


def test_targets_of_constant_and_clipped_patches_are_finite() -> None:
    x = patches()
    x[0] = 0.0
    x[1, 0] = 3.0
    x[2] = x[2].clamp(-0.01, 0.01)
    for amplitude in ("log", "linear"):
        targets = make_targets(x, waveform="patch", amplitude=amplitude)
        assert all(torch.isfinite(value).all() for value in vars(targets).values())
    assert not targets.waveform[0].any()
    assert not targets.waveform[1, 0].any()
    assert not targets.phase_weight[0].any()


def test_waveform_target_is_standardised_per_patch() -> None:
    targets = make_targets(patches() + 0.3, waveform="patch", amplitude="log")
    torch.testing.assert_close(targets.waveform.mean(-1), torch.zeros(B, C, P), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.waveform.std(-1, correction=0), torch.ones(B, C, P), atol=1e-3, rtol=0)
    assert targets.amplitude.mean((1, 2, 3)).abs().max() < 1e-5
