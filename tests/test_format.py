"""The store on disk: what is written is read back, and what is not a complete store is refused in words."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codebrain.data.format import (
    PARTIAL_SUFFIX,
    Recording,
    ShardWriter,
    Store,
    StoreInfo,
    dequantise,
    quantise,
    read_recordings,
    write_store,
)
from tests.conftest import edit_index, write_toy_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write_toy_store(tmp_path / "store", classes=("rest", "task"))


@given(st.floats(0.01, 5000), st.integers(0, 2**32 - 1))
def test_quantisation_error_is_half_a_step(peak: float, seed: int) -> None:
    windows = np.random.default_rng(seed).uniform(-peak, peak, (3, 2, 50))
    counts, scale, offset = quantise(windows)
    assert not offset.any()
    error = np.abs(dequantise(counts, scale) - windows).max(axis=(1, 2))
    # Half a step, and the rounding of float32 on top.
    assert (error <= 0.5 * scale + 1e-6 * peak).all()
    assert (scale <= peak / 32767 * (1 + 1e-6)).all()


def test_a_window_of_zeros_and_one_sided_peaks_survive() -> None:
    windows = np.zeros((2, 1, 4))
    windows[1, 0, 0] = -97.3
    np.testing.assert_allclose(dequantise(*quantise(windows)), windows, atol=1e-5)


def offsets_of_electrodes(channels: int, largest_uv: float) -> np.ndarray:
    return np.random.default_rng(3).uniform(-largest_uv, largest_uv, channels)[:, None]


@pytest.mark.parametrize("largest_uv", [1e3, 2e4, 2e5])
def test_channels_far_from_zero_keep_the_resolution(largest_uv: float) -> None:
    """Of a DC-coupled amplifier without a high-pass: 20 mV are usual, BioSemi's reach 200 mV."""
    rng = np.random.default_rng(0)
    windows = rng.normal(0, 15, (3, 19, 400)) + offsets_of_electrodes(19, largest_uv)
    quantised = quantise(windows)
    exact = quantised.counts * quantised.scale.astype(float)[:, None, None] + quantised.offset.astype(float)[..., None]
    assert np.abs(exact - windows).max() < 0.005
    # What float32 itself leaves of 200 mV comes on top.
    assert np.abs(dequantise(*quantised) - windows).max() < 0.01
    assert np.abs(dequantise(*quantise(windows.astype(np.float32))) - windows).max() < 0.02


def test_only_windows_that_gain_by_offsets_have_them() -> None:
    rng = np.random.default_rng(0)
    small, swing, blink, shifted = rng.normal(0, 15, (4, 3, 400))
    small += 200  # microvolts away from zero, fine enough as it is
    swing[1, 100:200] += 300_000  # from one end to the other within the window
    blink[0, :50] += 2_000
    shifted[2] += 20_000
    windows = np.stack([small, swing, blink, shifted])
    counts, scale, offset = quantise(windows)
    assert offset.any(axis=1).tolist() == [False, False, False, True]
    for row in range(3):  # as if the last one were not there
        alone = quantise(windows[row : row + 1])
        np.testing.assert_array_equal(counts[row], alone.counts[0])
        np.testing.assert_array_equal(counts[row], np.rint(windows[row] / scale[row]))
        assert scale[row] == np.float32(np.abs(windows[row]).max() / 32767)
    error = np.abs(dequantise(counts, scale, offset) - windows).max(axis=(1, 2))
    assert error[3] < 0.01
    assert (error[:3] <= 0.51 * scale[:3]).all()


def test_one_enormous_value_is_stored_like_any_other() -> None:
    windows = np.zeros((1, 2, 4), np.float32)
    windows[0, 0, 0] = 3e38
    counts, scale, offset = quantise(windows)
    assert not offset.any()
    assert dequantise(counts, scale, offset)[0, 0, 0] == pytest.approx(3e38, rel=1e-4)


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


def write_shard(folder: Path, windows: np.ndarray, name: str = "a") -> ShardWriter:
    _, channels, n_times = windows.shape
    names = tuple(f"E{number}" for number in range(channels))
    with ShardWriter(folder, name, ch_names=names, sfreq=20.0, n_times=n_times) as writer:
        for window in windows:
            writer.append(window[None], recording=0, start=0.0)
    assert writer.shard is not None
    return writer


def test_a_shard_without_offsets_is_what_it_always_was(tmp_path: Path) -> None:
    """To the bit: what is derived from a store (splits, codes) is kept under the digests of its shards."""
    writer = write_shard(tmp_path, np.sin(np.arange(5 * 3 * 40)).reshape(5, 3, 40) * 90)
    assert writer.shard.digest == "bfc0a0dd018807c119f43983c9a85c6aab5bca8bf2d8a849b1cd6ea1f7c43b8a"
    assert writer.note == ""
    with h5py.File(tmp_path / "shards/a.h5") as h5:
        assert sorted(h5) == ["recording", "scale", "start", "windows"]
        assert h5.attrs["format_version"] == 1


def test_a_program_that_knows_no_offsets_refuses_a_store_with_offsets(tmp_path: Path) -> None:
    plain = np.sin(np.arange(3 * 40)).reshape(1, 3, 40) * 90
    shards = [
        write_shard(tmp_path, np.concatenate([plain, plain + np.array([[0], [20_000], [0]])]), "a").shard,
        write_shard(tmp_path, plain, "b").shard,
    ]
    info = StoreInfo(sfreq=20.0, window_seconds=2.0)
    store = write_store(tmp_path, info, shards, [Recording(row=0, path="a", subject="a")])
    assert json.loads((tmp_path / "store.json").read_text())["format_version"] == 2
    assert [shard.has_offset for shard in store.shards] == [True, False]
    with h5py.File(tmp_path / "shards/a.h5") as h5:
        assert h5.attrs["format_version"] == 2
        assert h5["offset"].shape == (2, 3)
        assert not h5["offset"][0].any()
        assert h5["offset"][1, 1] == pytest.approx(20_000, abs=5)
    shutil.rmtree(tmp_path / "shards")
    alone = write_store(tmp_path, info, [write_shard(tmp_path, plain, "b").shard], store.recordings)
    assert json.loads((tmp_path / "store.json").read_text())["format_version"] == 1
    assert alone.shards[0].digest == store.shards[1].digest


def test_windows_that_int16_cannot_hold_exactly_are_noted(tmp_path: Path) -> None:
    windows = np.random.default_rng(0).normal(0, 15, (4, 3, 40))
    windows[1, 0, 20:] += 300_000
    windows[3, 0, 20:] += 1_000
    note = write_shard(tmp_path, windows).note
    assert re.fullmatch(r"amplitudes up to 300,0\d\d uV are stored in steps of 9\.2 uV \(2 windows\)", note)


def test_a_full_disk_leaves_nothing_and_the_program_ends_well(tmp_path: Path) -> None:
    """HDF5 cannot close what it could not write, and would end the program with a segmentation fault."""
    code = """
import resource, sys
import numpy as np
from codebrain.data.format import ShardWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with ShardWriter(sys.argv[1], "a", ch_names=["C3", "C4"], sfreq=200.0, n_times=800) as writer:
        for _ in range(40):
            writer.append(np.random.default_rng(0).normal(0, 30, (4, 2, 800)), recording=0, start=np.arange(4.0))
except OSError as error:
    sys.exit(f"{error.errno} {error}")
"""
    needed = 40 * 4 * 2 * 800 * 2
    for room in (10, 50_000, needed // 2, needed):
        command = [sys.executable, "-c", code, tmp_path, str(room)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1, result
        assert re.match(rf"{errno.EFBIG} .*File too large: .*a\.h5.*partial", result.stderr), result.stderr
        assert list((tmp_path / "shards").iterdir()) == []


def test_an_interrupted_shard_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "a", ch_names=("Cz",), sfreq=1.0, n_times=2) as writer:
        writer.append(np.ones((1, 1, 2)), recording=0, start=0.0)
        raise RuntimeError
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_shard_has_no_final_name_while_it_is_written(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "a", ch_names=("Cz",), sfreq=1.0, n_times=2) as writer:
        writer.append(np.ones((1, 1, 2)), recording=0, start=0.0)
        (unfinished,) = (path.name for path in (tmp_path / "shards").iterdir())
        assert unfinished.startswith(f"a.h5.{os.getpid()}-")
        assert unfinished.endswith(PARTIAL_SUFFIX)
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
        ({"format_version": 99}, "version 99, this program reads versions 1 to 2"),
        ({"unit": "V"}, "values in 'V', but stores are in 'uV'"),
        ({"shards": [{}]}, "damaged"),
        ({"shards": None}, "damaged"),
        ({"sfreq": None}, "damaged"),
        ({"sfreq": float("nan")}, "damaged .*windows of 4.0 s at nan Hz"),
        ({"sfreq": 0}, "damaged .*at 0.0 Hz"),
        ({"task": {"name": "x"}}, "damaged"),
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": None}, "a shard's file is None"),
        ({"file": "/etc/passwd"}, "a shard's file is '/etc/passwd', not shards/NAME.h5"),
        ({"file": "shards/../../other/shards/a.h5"}, "not shards/NAME.h5"),
        ({"file": "../shards/a.h5"}, "not shards/NAME.h5"),
        ({"ch_names": []}, "has the channels"),
        ({"ch_names": [1, 2]}, "has the channels"),
        ({"n": 13}, "has 13 windows of 800 samples in runs of"),
        ({"n": 0, "runs": []}, "has 0 windows"),
        ({"n_times": -1}, "of -1 samples"),
        ({"n": 1e400}, "OverflowError"),
        ({"runs": [[0, -1], [1, 13]]}, "in runs of"),
        ({"runs": 7}, "TypeError"),
    ],
)
def test_damaged_entries_of_the_index_are_named(store: Store, change: dict, said: str) -> None:
    content = json.loads((store.path / "store.json").read_text())
    content["shards"][1] |= change
    edit_index(store, shards=content["shards"])
    with pytest.raises(
        ValueError, match=rf"store\.json is damaged \(.*{said}.*\)\. Run the same codebrain-prep command"
    ):
        Store.open(store.path)


@pytest.mark.parametrize("content", [b"[]", b"null", b"7", b"\xff\xfe", b"", b"[" * 100_000])
def test_an_index_that_is_none_is_named(store: Store, content: bytes) -> None:
    (store.path / "store.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"store\.json is damaged .* Run the same codebrain-prep command again"):
        Store.open(store.path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:2] + lines[3:], "it lacks row 1, whose windows shards/rec-001.h5 holds"),
        (lambda lines: [*lines, lines[-1]], "it has row 4 more than once"),
        (lambda lines: [lines[0], lines[1].replace(",", ";"), *lines[2:]], ""),
        (lambda lines: [*lines, "x" * 200_000], "field larger than field limit"),
        (lambda lines: [lines[0].replace("row", "number"), *lines[1:]], ""),
        (lambda lines: ["\ufeff" + lines[0], *lines[1:]], ""),
        (lambda lines: [*lines[:2], lines[2] + "\0", *lines[3:], "\udcff"], ""),
    ],
)
def test_a_damaged_table_of_recordings_is_named(store: Store, change, said: str) -> None:
    path = store.path / "recordings.csv"
    lines = change(path.read_text().splitlines())
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=rf"recordings\.csv is damaged.*{said}.*same codebrain-prep command again"):
        Store.open(store.path)


def test_another_sampling_rate_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"sampled at 200 Hz, the model needs 256 Hz. Prepare it again"):
        store.require(sfreq=256.0)


def test_recordings_with_columns_of_a_later_version(store: Store) -> None:
    path = store.path / "recordings.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",handedness", *(line + ",left" for line in lines[1:])]))
    assert read_recordings(path) == store.recordings
