"""A recording read in pieces is the recording read whole, whatever the sampling rates and labels of its channels."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from edfio import Bdf, BdfSignal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import firwin, resample_poly

from codebrain.channels import TEN_TWENTY_19
from data_prep.clean import CleanConfig
from data_prep.corpora import find_recordings
from data_prep.read import OpenRecording, UnusableError
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig
from data_prep.write import Job, prepare
from tests.recordings import noise, write_edf, write_gdf


def write_bdf(path: Path, x, rates, *, labels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    signals = [
        BdfSignal(np.asarray(row), rate, label=label, physical_dimension="uV", physical_range=(-500, 500))
        for label, row, rate in zip(labels, x, rates, strict=True)
    ]
    Bdf(signals, data_record_duration=1.0).write(path)
    return path


WRITERS = {".edf": write_edf, ".bdf": write_bdf, ".gdf": write_gdf}


@pytest.fixture
def never_held(monkeypatch):
    """Every recording counts as too large to be kept in memory."""
    monkeypatch.setattr("data_prep.read._HELD_BYTES", 0)


def resampled(x: np.ndarray, ratio: Fraction) -> np.ndarray:
    """A channel at another rate, all of it at once, its ends point-reflected."""
    if ratio == 1:
        return x
    ends = ratio.denominator * -(-40 // ratio.denominator)
    padded = np.concatenate([2 * x[0] - x[ends:0:-1], x, 2 * x[-1] - x[-2 : -2 - ends : -1]])
    faster = max(ratio.numerator, ratio.denominator)
    kernel = firwin(32 * faster + 1, 1 / faster, window=("kaiser", 8.0))
    y = resample_poly(padded, ratio.numerator, ratio.denominator, window=kernel)
    return y[int(ends * ratio) :][: int(len(x) * ratio)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".edf", ".bdf", ".gdf"]),
    rates=st.lists(st.sampled_from([64, 100, 128, 200, 256]), min_size=2, max_size=5),
    others=st.lists(st.sampled_from([("EMG", 512), ("EMG", 100), ("ECG", 1024), ("C3", 512), ("EDF", 20)]), max_size=3),
    cuts=st.lists(st.integers(0, 256 * 9), min_size=2, max_size=6),
    is_held=st.booleans(),
)
def test_pieces_are_the_whole(tmp_path_factory, suffix, rates, others, cuts, is_held):
    folder = tmp_path_factory.mktemp("pieces")
    names = list(TEN_TWENTY_19[: len(rates)])
    labels, every = names + [label for label, _ in others], [*rates, *(rate for _, rate in others)]
    x = [noise(1, 9, rate, seed=number)[0] for number, rate in enumerate(every)]
    file = WRITERS[suffix](folder / f"a{suffix}", x, [float(rate) for rate in every], labels=labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.read._HELD_BYTES", 1 << 40 if is_held else 0)
        recording = OpenRecording(file)
        # Of channels with one label MNE numbers all: the first is the wanted one.
        wanted = [f"{name}-0" if f"{name}-0" in recording.labels else name for name in names]
        recording.restrict(wanted)
        fastest = max(rates)
        assert recording.sfreq == fastest
        assert recording.n_times == 9 * fastest
        picks = [recording.labels.index(label) for label in wanted]
        whole = recording.read(picks, 0, recording.n_times)
        for start, stop in itertools.pairwise(np.clip(sorted(cuts), 0, recording.n_times).tolist()):
            if start < stop:
                np.testing.assert_allclose(recording.read(picks, start, stop), whole[:, start:stop], atol=1e-9)
    for channel, rate in enumerate(rates):
        expected = resampled(x[channel], Fraction(fastest, rate))
        np.testing.assert_allclose(whole[channel], expected, atol=0.05)  # the file's resolution


@pytest.mark.parametrize("suffix", [".edf", ".bdf", ".gdf"])
@pytest.mark.parametrize("labels", [("EMG", "EMG"), ("EMG", "ECG"), ("EMG",)], ids="+".join)
def test_faster_channels_beside_leave_the_windows_right(suffix, labels, tmp_path, never_held):
    """Long recordings are read in pieces: their windows were noise where a faster label occurred twice."""
    x = [*noise(19, 60, 256.0), *noise(len(labels), 60, 512.0, seed=1)]
    rates = [256.0] * 19 + [512.0] * len(labels)
    file = WRITERS[suffix](tmp_path / "in" / f"a{suffix}", x, rates, labels=[*TEN_TWENTY_19, *labels])
    windows = windows_of(file, tmp_path / "s", sfreq=256.0)
    assert len(windows) == 6
    for number, window in enumerate(windows):
        expected = np.stack(x[:19])[:, number * 2560 : (number + 1) * 2560]
        np.testing.assert_allclose(window, expected, atol=0.05)


def test_wanted_channels_of_several_rates_are_all_right(tmp_path, never_held):
    t = {rate: np.arange(60 * rate) / rate for rate in (100, 128, 256)}
    x = [30 * np.sin(2 * np.pi * 9 * t[rate] + number) for number, rate in enumerate((256, 100, 256, 128))]
    file = write_edf(tmp_path / "in" / "a.edf", x, [256.0, 100.0, 256.0, 128.0], labels=["Fp1", "C3", "Cz", "O1"])
    windows = windows_of(file, tmp_path / "s", sfreq=200.0)
    for number, window in enumerate(windows):
        u = number * 10 + np.arange(2000) / 200
        expected = [30 * np.sin(2 * np.pi * 9 * u + channel) for channel in (0, 1, 2, 3)]
        inner = slice(200, -200)  # the recording's own ends are not known beyond themselves
        np.testing.assert_allclose(window[:, inner], np.stack(expected)[:, inner], atol=0.05)
    assert reason_of(tmp_path / "s") == "resampled to 256 Hz: O1 (128 Hz), C3 (100 Hz)"


@pytest.mark.parametrize("suffix", [".edf", ".bdf", ".gdf"])
def test_channels_that_differ_in_rate_alone(suffix, tmp_path, never_held):
    x = [noise(1, 20, rate)[0] for rate in (256, 512)]
    file = WRITERS[suffix](tmp_path / f"a{suffix}", x, [256.0, 512.0], labels=["C3", "C3"])
    for label, rate, samples in zip(("C3-0", "C3-1"), (256, 512), x, strict=True):
        recording = OpenRecording(file)
        recording.restrict([label])
        assert (recording.labels, recording.sfreq, recording.n_times) == ((label,), rate, 20 * rate)
        np.testing.assert_allclose(recording.read([0], 100, 900)[0], samples[100:900], atol=0.05)


def test_a_slow_channel_is_no_eeg(tmp_path):
    x = [noise(1, 20, rate)[0] for rate in (256, 10)]
    recording = OpenRecording(write_edf(tmp_path / "a.edf", x, [256.0, 10.0], labels=["C3", "C4"]))
    with pytest.raises(UnusableError, match="sampling rate of 10 Hz of C4"):
        recording.restrict(["C3", "C4"])


@pytest.mark.real
def test_real_files_in_pieces(eeg_folder, monkeypatch):
    rng, seen = np.random.default_rng(0), 0
    for folder in ("formats", "ssvep_exo", "eegmmidb/S001", "malformed"):
        for source in find_recordings([eeg_folder / folder]):
            recording = OpenRecording(Path(source.file), truncated="keep")
            slow = {"test_uneven_samp.edf": "Blk"}.get(Path(source.file).name, "none")  # at 12.8 Hz
            recording.restrict([label for label in recording.eeg_labels if slow not in label])
            whole = recording.read(range(len(recording.labels)), 0, recording.n_times)
            with monkeypatch.context() as patch:
                patch.setattr("data_prep.read._HELD_BYTES", 0)
                for start, stop in np.sort(rng.integers(0, recording.n_times, (8, 2)), axis=1):
                    piece = recording.read(range(len(recording.labels)), int(start), int(stop))
                    np.testing.assert_allclose(piece, whole[:, start:stop], rtol=0, atol=1e-9 * np.abs(whole).max())
            seen += 1
    assert seen >= 25


def windows_of(file: Path, store: Path, *, sfreq: float) -> np.ndarray:
    """All windows (n, C, T) of 10 s of a recording, without any filter."""
    import h5py

    from codebrain.data.format import dequantise

    recipe = Recipe(
        clean=CleanConfig(sfreq=sfreq, l_freq=None, h_freq=None, notch=None),
        windows=WindowConfig(
            seconds=10, min_recording=0, drop_first=0, drop_last=0, keep_edges=True, max_uv=None, min_swing_uv=None
        ),
    )
    (source,) = find_recordings([file])
    result = prepare(Job(store=str(store), row=0, source=source, recipe=recipe))
    assert result.recording.status == "ok", result.recording
    with h5py.File(store / "shards" / "000000.h5") as h5:
        x = dequantise(h5["windows"][:], h5["scale"][:])
        names = [str(name) for name in h5.attrs["ch_names"]]
    wanted = [name for name in ("Fp1", "C3", "Cz", "O1") if name in names] if len(names) == 4 else list(TEN_TWENTY_19)
    return x[:, [names.index(name) for name in wanted]]


def reason_of(store: Path) -> str:
    import json

    return json.loads((store / "progress" / "000000.json").read_text())["recording"]["reason"]
