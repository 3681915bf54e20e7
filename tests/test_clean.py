"""Filters, resampling and montages: amplitudes, times, and pieces against the whole."""

import itertools

import mne
import numpy as np
import pytest
from scipy.signal import welch

from codebrain.channels import TEN_TWENTY_19, positions
from data_prep.clean import Chain, CleanConfig
from data_prep.montage import MontageConfig, average_reference, plan_montage
from data_prep.read import UnusableError
from tests import reference_prep
from tests.recordings import noise

RATES = [128.0, 160.0, 173.61, 200.0, 250.0, 256.0, 500.0, 512.0, 1000.0, 2048.0]


def clean(x, sfreq, config, start=None, stop=None, line_hz=None):
    chain = Chain(config, sfreq=sfreq, n_times=x.shape[1], line_hz=line_hz)
    return chain.clean(
        lambda a, b: x[:, a:b], 0 if start is None else start, chain.n_out if stop is None else stop
    ), chain


@pytest.mark.parametrize("sfreq", RATES)
@pytest.mark.parametrize("order", ["resample_first", "filter_first"])
def test_amplitudes_in_the_band_are_right_and_offset_and_line_are_gone(sfreq, order):
    t = np.arange(round(60 * sfreq)) / sfreq
    wanted = [1.0, 10.0, 40.0]
    x = 2000 + sum(20 * np.sin(2 * np.pi * f * t) for f in wanted) + 50 * np.sin(2 * np.pi * 60.0 * t)
    config = CleanConfig(l_freq=0.3, h_freq=75, notch=60, order=order)
    y, chain = clean(x[None], sfreq, config)
    y = y[0, chain.edge : chain.n_out - chain.edge]
    u = np.arange(chain.edge, chain.n_out - chain.edge) / config.sfreq
    basis = np.stack(
        [fn(2 * np.pi * f * u) for f in [*wanted, 60.0] for fn in (np.sin, np.cos)] + [np.ones_like(u)], axis=1
    )
    fit = np.linalg.lstsq(basis, y, rcond=None)[0]
    in_phase, quadrature = fit[0:6:2], fit[1:6:2]
    # The phase is right too: what was a sine is a sine, so times are right.
    np.testing.assert_allclose(in_phase, 20, rtol=0.01)
    np.testing.assert_allclose(quadrature, 0, atol=0.1)
    assert np.hypot(fit[6], fit[7]) < 50 / 100  # 40 dB
    assert abs(fit[8]) < 0.5


@pytest.mark.parametrize("sfreq", [250.0, 256.0, 1000.0])
def test_an_impulse_stays_where_it_is(sfreq):
    x = np.zeros((1, round(40 * sfreq)))
    x[0, round(20 * sfreq)] = 1000
    y, _ = clean(x, sfreq, CleanConfig(l_freq=None, h_freq=75, notch=None))
    assert np.argmax(y[0]) == 20 * 200


@pytest.mark.parametrize("sfreq", [160.0, 173.61, 200.0, 512.0])
@pytest.mark.parametrize("order", ["resample_first", "filter_first"])
def test_pieces_are_the_whole(sfreq, order):
    x = noise(3, 60, sfreq) + 100
    whole, chain = clean(x, sfreq, CleanConfig(order=order))
    cuts = [0, 777, 4000, 4001, 9001, chain.n_out]
    pieces = [chain.clean(lambda a, b: x[:, a:b], a, b) for a, b in itertools.pairwise(cuts)]
    inner = slice(chain.edge, chain.n_out - chain.edge)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1)[:, inner], whole[:, inner], atol=1e-9)


@pytest.mark.parametrize("sfreq", RATES)
@pytest.mark.parametrize("order", ["resample_first", "filter_first"])
def test_the_fast_way_is_the_obvious_way(sfreq, order):
    x = noise(2, 45, sfreq)
    config = CleanConfig(order=order)
    expected = reference_prep.clean(x, sfreq, config)
    exact = 1e-9 if sfreq != 173.61 else 1e-4  # whose kernel is looked up in a table
    for dtype, error in ((np.float64, exact), (np.float32, 1e-3)):  # microvolts; a store keeps 0.003
        y, chain = clean(x.astype(dtype), sfreq, config)
        assert y.shape == expected.shape
        inner = slice(chain.edge, chain.n_out - chain.edge)
        np.testing.assert_allclose(y[:, inner], expected[:, inner], rtol=0, atol=error)


@pytest.mark.parametrize("method", ["fft", "polyphase"])
def test_spectrum_agrees_with_mne_on_the_whole_recording(method):
    x = noise(4, 60, 500.0)
    ours, chain = clean(x, 500.0, CleanConfig())
    raw = mne.io.RawArray(x, mne.create_info(4, 500.0, "eeg"), verbose="error")
    raw.resample(200, method=method, verbose="error").filter(0.3, 75, verbose="error")
    theirs = raw.notch_filter(60, verbose="error").get_data()
    inner = slice(chain.edge, chain.n_out - chain.edge)
    freqs, p = welch(ours[:, inner], 200, nperseg=400)
    _, q = welch(theirs[:, inner], 200, nperseg=400)
    band = (freqs >= 1) & (freqs <= 40)
    assert np.abs(10 * np.log10(p / q))[:, band].max() < 0.1
    if method == "polyphase":  # the other one moves the signal by up to half a sample
        assert np.std(ours[:, inner] - theirs[:, inner]) < 0.1 * np.std(theirs)


def test_line_frequency_may_be_told_by_the_recording():
    config = CleanConfig(notch="auto")
    t = np.arange(8000) / 200
    x = 30 * np.sin(2 * np.pi * 50 * t)[None]
    untouched, chain = clean(x, 200.0, config)
    removed, _ = clean(x, 200.0, config, line_hz=50.0)
    inner = slice(2 * chain.edge, -2 * chain.edge)
    assert untouched[0, inner].std() > 20
    assert removed[0, inner].std() < 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"h_freq": 100.0}, "must be below 100 Hz, half of clean.sfreq"),
        ({"l_freq": 80.0}, "must be below clean.h_freq"),
        ({"sfreq": 0.0, "h_freq": None}, "must be positive"),
    ],
)
def test_impossible_filters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CleanConfig(**wrong)


def test_a_choice_of_channels_needs_no_matrix():
    labels = ["ECG", *(f"EEG {name}-REF" for name in reversed(TEN_TWENTY_19))]
    montage = plan_montage(labels, MontageConfig(names=["Fp1", "T3", "Pz"]))
    assert montage.ch_names == ("Fp1", "T7", "Pz")
    assert montage.labels == ("EEG Fp1-REF", "EEG T7-REF", "EEG Pz-REF")
    assert montage.matrix is None


def test_whatever_electrode_is_there_in_the_order_of_the_table():
    montage = plan_montage(["Oz", "ECG", "A2-A1", "Cz", "Status", "Fp1", "Fp1-F7", "C3-0", "C3-1"], MontageConfig())
    assert montage.ch_names == ("Fp1", "C3", "Cz", "Oz")
    assert montage.labels == ("Fp1", "C3-0", "Cz", "Oz")


def test_bipolar_channels_are_found_or_made():
    made = plan_montage(["EEG FP1-REF", "EEG F7-REF", "EEG T3-REF"], MontageConfig(names=["FP1-F7", "F7-T7"]))
    np.testing.assert_array_equal(made(np.array([[5.0], [3.0], [2.0]])), [[2.0], [1.0]])
    found = plan_montage(["FP1-F7", "F7-T7"], MontageConfig(names=["F7-T3", "Fp1-F7"]))
    assert (found.ch_names, found.labels, found.matrix) == (("F7-T7", "Fp1-F7"), ("F7-T7", "FP1-F7"), None)


def test_missing_channels_are_named():
    with pytest.raises(UnusableError, match="lacks 2 of 3 wanted channels: Fz, Cz"):
        plan_montage(["Fp1", "ECG"], MontageConfig(names=["Fp1", "Fz", "Cz"]))
    with pytest.raises(UnusableError, match="none of the wanted channels; it has ECG, EMG"):
        plan_montage(["ECG", "EMG"], MontageConfig(names=["Fp1"]))
    with pytest.raises(UnusableError, match="0 scalp electrodes among its channels: ECG"):
        plan_montage(["ECG"], MontageConfig())


def test_biosemi_numbers_are_not_electrodes():
    labels = [f"{letter}{number}" for letter in "ABCD" for number in range(1, 33)]
    with pytest.raises(UnusableError, match="0 scalp electrodes"):
        plan_montage(labels, MontageConfig())


def test_interpolation_fills_in_a_smooth_field():
    def field(names):
        x, y, z = positions(names).T
        return np.stack([x, y + 0.5 * z, x * z], axis=1)

    names = list(TEN_TWENTY_19)
    present = [name for name in names if name not in ("C4", "Pz")]
    config = MontageConfig(names=names, max_interpolated=2)
    montage = plan_montage(present, config)
    assert montage.note == "interpolated C4, Pz"
    np.testing.assert_allclose(montage(field(present)), field(names), atol=0.12)
    with pytest.raises(UnusableError, match="lacks 2 of 19"):
        plan_montage(present, MontageConfig(names=names, max_interpolated=1))


def test_references():
    x = np.array([[3.0], [5.0], [1.0], [2.0]])
    labels = ["Fp1", "Fp2", "A1", "A2"]
    average = plan_montage(labels, MontageConfig(names=["Fp1", "Fp2"], reference="average"))
    assert average.is_averaged
    np.testing.assert_allclose(average_reference(average(x[:2]), np.array([False, False])), [[-1.0], [1.0]])
    np.testing.assert_allclose(average_reference(average(x[:2]), np.array([False, True])), [[0.0], [2.0]])
    ears = plan_montage(labels, MontageConfig(names=["Fp1", "Fp2"], reference="linked_mastoids"))
    np.testing.assert_allclose(ears(x), [[1.5], [3.5]])
    with pytest.raises(UnusableError, match="neither A1 and A2 nor M1 and M2"):
        plan_montage(labels[:2], MontageConfig(reference="linked_mastoids"))
