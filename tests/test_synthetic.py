"""The simulated recordings: reproducible, readable, and like EEG where it counts."""

import mne
import numpy as np
import pytest
from scipy.signal import welch

from codebrain.channels import TEN_TWENTY_19, canonical_name, channel_type
from data_prep.probe import GuardConfig, check_amplitude, probe
from data_prep.read import OpenRecording
from data_prep.synthetic import SyntheticConfig, write_recordings

N_SUBJECTS = 8


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """(names, sfreq, microvolts, is_closed) of each simulated person."""
    files = write_recordings(
        tmp_path_factory.mktemp("synthetic"), SyntheticConfig(minutes=2), subjects=N_SUBJECTS, seed=3
    )
    read = []
    for file in files:
        raw = mne.io.read_raw(file, preload=True, verbose="error")
        is_closed = np.zeros(raw.n_times, bool)
        for mark in raw.annotations:
            begin = round(mark["onset"] * raw.info["sfreq"])
            is_closed[begin : begin + round(mark["duration"] * raw.info["sfreq"])] = (
                mark["description"] == "eyes closed"
            )
        read.append((raw.ch_names, raw.info["sfreq"], raw.get_data() * 1e6, is_closed))
    return read


def power(x, sfreq, low, high):
    freqs, p = welch(x, sfreq, nperseg=round(2 * sfreq))
    return p[..., (freqs >= low) & (freqs < high)].mean(-1)


def test_same_seed_same_files_whatever_the_number_of_subjects(tmp_path):
    config = SyntheticConfig(minutes=1)
    three = write_recordings(tmp_path / "three", config, subjects=3, seed=0)
    two = write_recordings(tmp_path / "two", config, subjects=2, seed=0)
    other = write_recordings(tmp_path / "other", config, subjects=1, seed=1)
    assert [file.name for file in two] == ["sub-001_task-eyes_eeg.edf", "sub-002_task-eyes_eeg.edf"]
    assert [file.read_bytes() for file in two] == [file.read_bytes() for file in three[:2]]
    assert other[0].read_bytes() != two[0].read_bytes()
    assert three[0].read_bytes() != three[1].read_bytes()


def test_channels_and_annotations(recordings):
    for names, sfreq, x, is_closed in recordings:
        assert [channel_type(name) for name in names] == ["eeg"] * 19 + ["ecg"]
        assert sfreq == 250
        assert x.shape == (20, 2 * 60 * 250)
        assert is_closed.mean() == 0.5


def test_amplitudes_are_those_of_eeg(recordings, tmp_path):
    lines = []
    for file in write_recordings(tmp_path, SyntheticConfig(minutes=1), subjects=4, seed=0):
        found = probe(OpenRecording(file), range(19), find_line=True)
        check_amplitude(found.amplitude_uv, TEN_TWENTY_19, GuardConfig(), "auto")
        lines.append(found.line_hz)
    # In some recordings the line is below the EEG, as in a good laboratory.
    assert set(lines) <= {50.0, None}
    assert 50.0 in lines
    for _, _, x, _ in recordings:
        assert 5 < np.median(x[:19].std(axis=1)) < 40


def test_alpha_rises_when_the_eyes_close_and_most_over_the_back(recordings):
    rises = []
    for names, sfreq, x, is_closed in recordings:
        at = [canonical_name(name) for name in names]
        rises.append(
            [
                power(x[at.index(name)][is_closed], sfreq, 8, 12) / power(x[at.index(name)][~is_closed], sfreq, 8, 12)
                for name in ("O1", "Fp1")
            ]
        )
    back, front = np.log(rises).T
    assert np.median(back) > np.log(1.5)
    assert (back > front).mean() > 0.8
    # Persons differ: it must take more than one threshold to tell the conditions apart.
    assert back.std() > 0.3


def test_spectrum_falls_and_neighbours_are_alike(recordings):
    for names, sfreq, x, _ in recordings:
        at = [canonical_name(name) for name in names]
        slow, fast = power(x[at.index("F3")], sfreq, 2, 4), power(x[at.index("F3")], sfreq, 30, 40)
        assert 10 < slow / fast < 3000
        r = np.corrcoef(x[:19])
        assert r[at.index("F3"), at.index("Fz")] > r[at.index("F3"), at.index("O2")]


def test_blinks_are_frontal_and_belong_to_open_eyes(recordings):
    counts = {"open": 0, "closed": 0}
    for names, sfreq, x, is_closed in recordings:
        fp = x[[canonical_name(name) == "Fp1" for name in names]][0]
        smooth = np.convolve(fp, np.ones(round(0.1 * sfreq)) / round(0.1 * sfreq), mode="same")
        high = smooth > 35
        onsets = np.flatnonzero(np.diff(high.astype(int)) == 1)
        counts["closed"] += int(is_closed[onsets].sum())
        counts["open"] += int((~is_closed[onsets]).sum())
    assert counts["open"] > 20
    assert counts["closed"] < counts["open"] / 3
