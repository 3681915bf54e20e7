"""Classical baselines: what their features are, and that they choose on validation."""

import h5py
import numpy as np
import pytest

from finetune import baselines
from finetune.data import open_data
from finetune.splits import Fold, SplitConfig, make
from tests.reference_finetune import write_task_store


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_data(str(write_task_store(tmp_path_factory.mktemp("data") / "store").path))


@pytest.fixture
def dataset(data):
    return data.dataset


def test_a_sine_has_its_power_in_its_band():
    time = np.arange(1000) / 200
    for number, (name, (low, high)) in enumerate(baselines.BANDS_HZ.items()):
        frequency = np.sqrt(low * high)
        wave = 10 * np.sin(2 * np.pi * frequency * time)[None, None] + np.zeros((1, 2, 1))
        powers = baselines.log_band_power(wave, sfreq=200).reshape(2, 5)
        assert (powers.argmax(1) == number).all(), name


def test_the_unit_is_microvolts_squared_per_hertz():
    noise = np.random.default_rng(0).normal(0, 3, (4, 1, 200_000))
    powers = 10 ** baselines.log_band_power(noise, sfreq=200).reshape(4, 5)
    np.testing.assert_allclose(powers, 9 / 100, rtol=0.05)  # variance over the bandwidth of 100 Hz


def test_ten_times_the_amplitude_is_two_more_everywhere():
    noise = np.random.default_rng(0).normal(0, 3, (4, 3, 1000))
    small, large = (baselines.log_band_power(gain * noise, sfreq=200) for gain in (1, 10))
    np.testing.assert_allclose(large - small, 2, atol=1e-4)


def test_features_are_in_the_order_of_the_store(dataset):
    values = baselines.features("band_power", dataset, batch_size=7)
    again = baselines.features("band_power", dataset, batch_size=64)
    assert values.shape == (64, 15)
    np.testing.assert_allclose(values, again)
    strong = dataset.labels() == 1
    assert values[strong, 12].min() > values[~strong, 12].max() - 1, "alpha over the third channel"


def test_the_strength_is_the_best_on_validation_and_test_windows_do_not_matter(data):
    task, windows, dataset = data.task, data.windows, data.dataset
    (fold,) = make(windows, SplitConfig(kind="ratio")).folds
    values = baselines.features("band_power", dataset)
    predictions, facts = baselines.predict("band_power", values, task, windows, fold, "balanced")
    assert facts["valid_auroc"] > 0.9
    assert predictions["test"].score.sum(1) == pytest.approx(1)
    spoilt = values.copy()
    spoilt[fold.test] = np.random.default_rng(0).normal(size=spoilt[fold.test].shape)
    other, other_facts = baselines.predict("band_power", spoilt, task, windows, fold, "balanced")
    np.testing.assert_array_equal(other["valid"].score, predictions["valid"].score)
    assert other_facts["C"] == facts["C"]


def test_tangent_space_learns_a_spatial_pattern(data):
    pytest.importorskip("pyriemann")
    task, windows, dataset = data.task, data.windows, data.dataset
    (fold,) = make(windows, SplitConfig(kind="ratio")).folds
    values = baselines.features("tangent_space", dataset)
    _, facts = baselines.predict("tangent_space", values, task, windows, fold, "balanced")
    assert facts["valid_auroc"] > 0.9


@pytest.mark.parametrize("counts", [0, 7])
def test_windows_that_do_not_move_spoil_no_other(counts, tmp_path):
    """Of a disconnected amplifier at zero, or away from it: one trains, one tests."""
    pytest.importorskip("pyriemann")
    store = write_task_store(tmp_path / "store")
    whole = baselines.features("tangent_space", open_data(str(store.path)).dataset)
    still = [1, 60]
    with h5py.File(store.path / store.shards[0].file, "r+") as h5:
        for window in still:
            h5["windows"][window] = counts
    data = open_data(str(store.path))
    values = baselines.features("tangent_space", data.dataset)
    np.testing.assert_array_equal(np.delete(values, still, axis=0), np.delete(whole, still, axis=0))
    fold = Fold(train=np.arange(32), valid=np.arange(32, 48), test=np.arange(48, 64))
    predictions, facts = baselines.predict("tangent_space", values, data.task, data.windows, fold, "balanced")
    assert facts["valid_auroc"] > 0.9
    assert np.isfinite(predictions["test"].score).all()


def test_a_store_in_which_nothing_moves_has_a_tangent_space(tmp_path):
    pytest.importorskip("pyriemann")
    store = write_task_store(tmp_path / "store")
    with h5py.File(store.path / store.shards[0].file, "r+") as h5:
        h5["windows"][:] = 0
    values = baselines.features("tangent_space", open_data(str(store.path)).dataset)
    assert np.isfinite(baselines._scaler("tangent_space").fit_transform(values)).all()
