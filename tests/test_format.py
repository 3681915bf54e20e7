"""The store on disk: what is written is read back, and what is not a complete store is refused in words."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codebrain.data.format import (
    PARTIAL_SUFFIX,
    ShardWriter,
    Store,
    dequantise,
    quantise,
    read_recordings,
)
from tests.conftest import write_toy_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write_toy_store(tmp_path / "store", classes=("rest", "task"))


def edit_index(store: Store, **changes: object) -> None:
    path = store.path / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@given(st.floats(0.01, 5000), st.integers(0, 2**32 - 1))
def test_quantisation_error_is_half_a_step(peak: float, seed: int) -> None:
    windows = np.random.default_rng(seed).uniform(-peak, peak, (3, 2, 50))
    counts, scale = quantise(windows)
    error = np.abs(dequantise(counts, scale) - windows).max(axis=(1, 2))
    # Half a step, and the rounding of float32 on top.
    assert (error <= 0.5 * scale + 1e-6 * peak).all()
    assert (scale <= peak / 32767 * (1 + 1e-6)).all()


def test_a_window_of_zeros_and_one_sided_peaks_survive() -> None:
    windows = np.zeros((2, 1, 4))
    windows[1, 0, 0] = -97.3
    np.testing.assert_allclose(dequantise(*quantise(windows)), windows, atol=1e-5)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        quantise(np.full((1, 1, 3), np.nan))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    windows = rng.normal(0, 30, (5, 2, 40))
    arguments = {"ch_names": ("Cz", "Pz"), "sfreq": 20.0, "n_times": 40, "label_dtype": np.int64, "has_split": True}
    with ShardWriter(tmp_path, "a", **arguments) as writer:
        writer.append(windows[:2], recording=3, start=[0.0, 2.0], label=[0, 1], split=0)
        writer.append(windows[2:], recording=7, start=[0.0, 2.0, 4.0], label=1, split=2)
    assert writer.shard is not None
    assert writer.shard.runs == ((3, 2), (7, 3))
    with h5py.File(tmp_path / "shards/a.h5") as h5:
        np.testing.assert_allclose(dequantise(h5["windows"][:], h5["scale"][:]), windows, atol=0.003)
        assert h5["windows"].chunks == (1, 2, 40)
        assert h5["label"][:].tolist() == [0, 1, 1, 1, 1]
        assert h5["split"][:].tolist() == [0, 0, 2, 2, 2]
        assert list(h5.attrs["ch_names"]) == ["Cz", "Pz"]
        assert h5.attrs["digest"] == writer.shard.digest


def test_an_interrupted_shard_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "a", ch_names=("Cz",), sfreq=1.0, n_times=2) as writer:
        writer.append(np.ones((1, 1, 2)), recording=0, start=0.0)
        raise RuntimeError
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_shard_has_no_final_name_while_it_is_written(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "a", ch_names=("Cz",), sfreq=1.0, n_times=2) as writer:
        writer.append(np.ones((1, 1, 2)), recording=0, start=0.0)
        assert [path.name for path in (tmp_path / "shards").iterdir()] == ["a.h5" + PARTIAL_SUFFIX]
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["a.h5"]


def test_a_shard_without_windows_is_no_file(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "a", ch_names=("Cz",), sfreq=1.0, n_times=2) as writer:
        pass
    assert writer.shard is None
    assert list((tmp_path / "shards").iterdir()) == []


def test_the_index_describes_the_store(store: Store) -> None:
    again = Store.open(store.path)
    assert again == store
    assert (again.n_windows, again.info.sfreq, again.info.task.class_names) == (60, 200.0, ("rest", "task"))
    assert again.hours == pytest.approx(60 * 4 / 3600)
    assert [recording.subject for recording in again.recordings] == [f"s{i}" for i in range(5)]


def test_the_fingerprint_follows_the_contents(store: Store, tmp_path: Path) -> None:
    same = write_toy_store(tmp_path / "same", classes=("rest", "task"))
    other = write_toy_store(tmp_path / "other", classes=("rest", "task"), seed=1)
    assert store.fingerprint() == same.fingerprint() != other.fingerprint()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such store"):
        Store.open(tmp_path / "nowhere")


def test_unfinished_preparation(store: Store) -> None:
    (store.path / "store.json").unlink()
    with pytest.raises(FileNotFoundError, match="has not finished; run the same codebrain-prep command again"):
        Store.open(store.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "version 99, this program reads version 1"),
        ({"unit": "V"}, "values in 'V', but stores are in 'uV'"),
        ({"shards": [{}]}, "damaged"),
    ],
)
def test_other_stores_are_refused(store: Store, change: dict, message: str) -> None:
    edit_index(store, **change)
    with pytest.raises(ValueError, match=message):
        Store.open(store.path)


def test_truncated_index(store: Store) -> None:
    path = store.path / "store.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match="damaged"):
        Store.open(store.path)


def test_another_sampling_rate_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"sampled at 200 Hz, the model needs 256 Hz. Prepare it again"):
        store.require(sfreq=256.0)


def test_recordings_with_columns_of_a_later_version(store: Store) -> None:
    path = store.path / "recordings.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",handedness", *(line + ",left" for line in lines[1:])]))
    assert read_recordings(path) == store.recordings
