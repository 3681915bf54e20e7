"""Sliding-window attention against a dense masked reference."""

import pytest
import torch
from torch import nn

from codebrain.attention import SlidingWindowAttention, banded_attention
from tests import reference_backbone as reference


def layer(window_size, dropout=0.0):
    torch.manual_seed(0)
    made = SlidingWindowAttention(8, 2, window_size, dropout).double()
    nn.init.normal_(made.in_proj_bias)
    nn.init.normal_(made.out_proj.bias)
    return made


@pytest.mark.parametrize("n_patches", [None, 10])
@pytest.mark.parametrize("window_size", [1, 3, 7, 31, 501])
@pytest.mark.parametrize("n_tokens", [10, 70, 130])
def test_equals_the_dense_reference_with_gradients(window_size, n_tokens, n_patches):
    made = layer(window_size)
    x = torch.randn(8, 2, n_tokens, dtype=torch.float64, requires_grad=True)
    ours, dense = made(x, n_patches), reference.attention(made, x, n_patches)
    torch.testing.assert_close(ours, dense)
    probe, inputs = torch.randn_like(ours), (x, *made.parameters())
    for mine, slow in zip(
        torch.autograd.grad((ours * probe).sum(), inputs),
        torch.autograd.grad((dense * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, slow)


@pytest.mark.parametrize("window_size", [1, 5])
def test_parameters_are_those_of_multihead_attention(window_size):
    made, theirs = layer(window_size), nn.MultiheadAttention(8, 2, batch_first=True).double()
    theirs.load_state_dict(made.state_dict())
    x = torch.randn(8, 2, 20, dtype=torch.float64)
    place = torch.arange(20)
    outside = (place[:, None] - place).abs() > window_size // 2
    tokens = x.permute(1, 2, 0)
    expected, _ = theirs(tokens, tokens, tokens, attn_mask=outside)
    torch.testing.assert_close(made(x), expected.permute(2, 0, 1))


def test_a_token_reaches_no_further_than_its_window():
    made = layer(5)
    x = torch.randn(8, 1, 100, dtype=torch.float64, requires_grad=True)
    made(x)[:, :, 50].sum().backward()
    reached = x.grad.abs().sum(dim=(0, 1)).nonzero().flatten()
    assert reached.tolist() == [48, 49, 50, 51, 52]


@pytest.mark.parametrize("window_size", [1, 5])
def test_dropout_keeps_the_mean_and_removes_weights(window_size):
    torch.manual_seed(0)
    made = layer(window_size, dropout=0.3)
    x = torch.randn(8, 1, 12, dtype=torch.float64)
    mean = torch.stack([made(x) for _ in range(3000)]).mean(dim=0)
    torch.testing.assert_close(mean, made.eval()(x), atol=0.1, rtol=0.1)


def test_dropout_with_a_window_of_one_drops_a_head_of_a_token_as_multihead_attention_does():
    torch.manual_seed(0)
    made = layer(1, dropout=0.5)
    x = torch.randn(8, 1, 4000, dtype=torch.float64)
    value = made._own_value(x).unflatten(0, (2, 4))
    dropped = (value == 0).all(dim=1)
    assert torch.equal(dropped, (value == 0).any(dim=1))
    assert dropped.double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_memory_is_linear_in_length():
    """The largest tensor of a long sequence stays far below N x N."""
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, torch.Tensor))
            return out

    n_tokens = 4000
    q = torch.randn(1, 1, n_tokens, 4, requires_grad=True)
    with Watch():
        banded_attention(q, q, q, 31, dropout=0.1).sum().backward()
    assert max(sizes) < n_tokens * 200 < n_tokens**2 / 10


@pytest.mark.parametrize("window_size", [0, 2, -1, 30])
def test_an_even_window_is_refused(window_size):
    with pytest.raises(ValueError, match=f"swa_window_size={window_size} must be odd"):
        SlidingWindowAttention(8, 2, window_size)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="cannot be split into 4 heads"):
        SlidingWindowAttention(10, 4)
