"""SGConv against its definition, lag by lag."""

import pytest
import torch

from codebrain.sgconv import SGConv, fft_length, gelu_project, long_convolution, n_scales
from tests import reference_backbone as reference


def layer(n_features=3, l_max=16, **options):
    torch.manual_seed(0)
    return SGConv(n_features, l_max, **options).double()


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("n_tokens", [1, 2, 5, 16, 17, 19, 40, 75])
def test_equals_the_sum_over_lags_with_gradients(bidirectional, n_tokens):
    made = layer(bidirectional=bidirectional)
    x = torch.randn(3, 2, n_tokens, dtype=torch.float64, requires_grad=True)
    ours = long_convolution(x, made.coefficients(), made.n_scales)
    theirs = reference.long_convolution(made, x)
    torch.testing.assert_close(ours, theirs)
    probe, inputs = torch.randn_like(ours), (x, made.kernel, made.skip)
    for mine, slow in zip(
        torch.autograd.grad((ours * probe).sum(), inputs),
        torch.autograd.grad((theirs * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, slow)


def test_chunks_of_features_change_no_number(monkeypatch):
    made, results = layer(n_features=7), []
    x = torch.randn(7, 2, 19, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(28, 2, 19, dtype=torch.float64)
    for chunk in (2**30, 3 * 2 * 36, 1):
        monkeypatch.setattr("codebrain.sgconv.CPU_CHUNK", chunk)
        y = long_convolution(x, made.coefficients(), made.n_scales)
        results.append((y, *torch.autograd.grad((y * probe).sum(), (x, made.kernel, made.skip))))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_gradients_are_right_to_second_order():
    made = layer(n_features=2, l_max=4)
    x = torch.randn(2, 1, 5, dtype=torch.float64, requires_grad=True)
    coefficients = made.coefficients().detach().requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        check(lambda t, k: long_convolution(t, k, 2), (x, coefficients))
    keep = torch.rand(8, 1, 1, dtype=torch.float64)
    y, weight, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((8, 1, 5), (2, 8), (2,)))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        check(lambda *t: gelu_project(t[0], keep, t[1], t[2]), (y, weight, bias))
        check(lambda *t: gelu_project(t[0], None, t[1], t[2]), (y, weight, bias))


def test_reversing_time_swaps_the_two_directions():
    made = layer()
    x = torch.randn(3, 1, 12, dtype=torch.float64)
    forward = (made.kernel / made.kernel_norm.unsqueeze(-1)).chunk(2)[0]
    # A backward kernel starts one token away, a forward kernel at the token itself: shift by one to compare.
    zero = torch.zeros_like(made.skip.unsqueeze(-1))
    none = torch.zeros_like(forward)
    ahead = long_convolution(x.flip(-1), torch.cat([forward, none, zero], -1), made.n_scales).flip(-1)
    behind = long_convolution(x, torch.cat([none, forward, zero], -1), made.n_scales)
    torch.testing.assert_close(ahead[..., 1:], behind[..., :-1])


def test_more_tokens_change_nothing_for_a_causal_kernel():
    made = layer(bidirectional=False).eval()
    x = torch.randn(3, 2, 20, dtype=torch.float64)
    torch.testing.assert_close(made(x)[..., :13], made(x[..., :13]))


def test_the_layer_is_gelu_norm_and_projection_of_the_convolution():
    for layer_norm in (False, True):
        made = layer(layer_norm=layer_norm).eval()
        x = torch.randn(3, 2, 9, dtype=torch.float64)
        y = torch.nn.functional.gelu(reference.long_convolution(made, x)).permute(1, 2, 0)
        expected = made.out(made.norm(y) if made.norm is not None else y).permute(2, 0, 1)
        torch.testing.assert_close(made(x), expected)


def test_dropout_removes_whole_features_of_single_windows():
    torch.manual_seed(0)
    made = SGConv(64, 16, n_channels=2, dropout=0.25)
    keep = made._feature_dropout(torch.ones(128, 200, 7))
    assert keep.shape == (128, 200, 1)
    torch.testing.assert_close(keep.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert keep.mean().item() == pytest.approx(1, abs=0.02)
    assert made.eval()._feature_dropout(torch.ones(128, 2, 7)) is None


@pytest.mark.parametrize(
    ("length", "expected"), [(570, 1152), (1024, 2048), (3840, 5000), (7680, 8748), (1, 2), (11, 24)]
)
def test_fft_lengths_are_even_smooth_and_long_enough(length, expected):
    assert fft_length(length, scales=10) == expected


def test_released_size():
    assert n_scales(570) == 10
    assert SGConv(400, 570).kernel.shape == (8, 400, 20)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_spectra_are_float32_under_autocast(dtype):
    torch.manual_seed(0)
    made = SGConv(8, 64)
    x = torch.randn(8, 2, 50)
    exact = long_convolution(x, made.coefficients(), made.n_scales)
    with torch.autocast("cpu", dtype):
        assert made(x).dtype == dtype
        inside = long_convolution(x, made.coefficients(), made.n_scales)
    torch.testing.assert_close(inside, exact)


def test_a_constant_made_under_inference_mode_serves_training():
    made = SGConv(2, 8)
    with torch.inference_mode():
        made(torch.randn(2, 1, 37))
    made(torch.randn(2, 1, 37)).sum().backward()
    assert made.kernel.grad is not None
