"""Cutting windows into patches, and the Fourier convention."""

import numpy as np
import pytest
import torch

from codebrain.patches import SCALE_UV, amplitude, patchify, to_model_units


def test_patches_are_consecutive_and_the_tail_is_dropped():
    x = torch.arange(2 * 3 * 25.0).view(2, 3, 25)
    patches = patchify(x, 10)
    assert patches.shape == (2, 3, 2, 10)
    torch.testing.assert_close(patches[1, 2, 1], x[1, 2, 10:20])
    torch.testing.assert_close(patches.flatten(-2), x[..., :20])


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 2, 9), "9 samples is shorter than one patch of 10"), ((2, 30), "shape")]
)
def test_what_cannot_be_cut_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        patchify(torch.zeros(shape), 10)


def test_amplitude_is_the_forward_normalised_half_spectrum():
    x = np.random.default_rng(0).standard_normal((4, 200))
    torch.testing.assert_close(amplitude(torch.from_numpy(x)), torch.from_numpy(np.abs(np.fft.rfft(x)) / 200))


def test_half_precision_is_transformed_in_float32():
    assert amplitude(torch.randn(2, 200).bfloat16()).dtype == torch.float32


def test_model_units_are_hundreds_of_microvolts():
    assert to_model_units(torch.tensor(50.0)).item() == 50 / SCALE_UV == 0.5
