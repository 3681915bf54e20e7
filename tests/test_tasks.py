"""Labelled data sets: which windows, which labels, which split."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from codebrain.channels import TEN_TWENTY_19
from codebrain.data.format import Store
from data_prep.engine import EngineConfig
from data_prep.output import Preparation
from data_prep.synthetic import SyntheticConfig, write_recordings
from data_prep.tasks import Events, MentalArithmetic, Task
from data_prep.windows import WindowConfig
from tests.recordings import noise, write_edf
from tests.test_prep import CONFIGS, prep

ORDER = "Fp1 Fp2 F3 F4 F7 F8 T3 T4 C3 C4 T5 T6 P3 P4 O1 O2 Fz Cz Pz A2-A1"
EYES = Path(__file__).resolve().parent.parent / "examples" / "eyes.yaml"
EEGMAT = [f"EEG {name}" for name in ORDER.split()]


def prepare(task: Task, path, store) -> tuple[Store, dict[str, np.ndarray]]:
    """Prepare a task; returns its store and the columns of all shards, one after the other."""
    preparation = Preparation(
        store=str(store), recipe=task.recipe(), sources=task.sources(str(path)), constants=task.constants(), task=task
    )
    assert preparation.run(EngineConfig(workers=1)) == 0
    opened = Store.open(store)
    columns: dict[str, list[np.ndarray]] = {}
    for shard in opened.shards:
        with h5py.File(opened.path / shard.file) as h5:
            for name in h5:
                columns.setdefault(name, []).append(h5[name][:])
    return opened, {name: np.concatenate(parts) for name, parts in columns.items()}


@pytest.fixture(scope="module")
def eegmat(tmp_path_factory):
    """Files named and laid out as those of `eegmat`, shorter."""
    folder = tmp_path_factory.mktemp("eegmat")
    for subject in (0, 27, 28, 32, 35):
        for run, seconds in ((1, 23), (2, 12)):
            x = noise(21, seconds, 500.0, seed=100 * run + subject)
            write_edf(folder / f"Subject{subject:02d}_{run}.edf", x, 500.0, labels=[*EEGMAT, "ECG ECG"])
    return folder


@pytest.mark.parametrize("protocol", ["published", "corrected"])
def test_mental_arithmetic(eegmat, tmp_path, protocol):
    store, columns = prepare(MentalArithmetic(protocol=protocol), eegmat, tmp_path)
    task = store.info.task
    assert task is not None
    assert (task.name, task.protocol, task.class_names, task.has_split) == (
        "mental_arithmetic",
        protocol,
        ("rest", "counting"),
        True,
    )
    # Every whole window of 5 s from the first sample on; nothing is rejected.
    assert store.n_windows == 5 * (4 + 2)
    assert columns["windows"].shape[1:] == ((20 if protocol == "published" else 19), 1000)
    np.testing.assert_array_equal(columns["label"], 5 * [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(columns["start"], 5 * [0, 5, 10, 15, 0, 5])
    subjects = np.array([int(store.recordings[row].subject[-2:]) for row in columns["recording"]])
    np.testing.assert_array_equal(columns["split"], np.select([subjects < 28, subjects < 32], [0, 1], 2))
    names = store.shards[0].ch_names
    assert (
        names == TEN_TWENTY_19 if protocol == "corrected" else names[:3] + names[-1:] == ("Fp1", "Fp2", "F3", "A2-A1")
    )


def test_a_window_is_the_file_resampled(eegmat, tmp_path):
    _, columns = prepare(MentalArithmetic(), eegmat, tmp_path)
    x = noise(21, 23, 500.0, seed=100)
    from scipy.signal import resample_poly

    reference = resample_poly(x, 2, 5, axis=1)
    window = columns["windows"][1] * columns["scale"][1]
    row = EEGMAT.index("EEG P4")
    ours, theirs = window[TEN_TWENTY_19.index("P4")], reference[row, 1000:2000]
    # Another anti-alias filter: the same up to what lies near 100 Hz.
    assert np.std(ours - theirs) < 0.15 * np.std(theirs)


@pytest.mark.real
def test_mental_arithmetic_has_the_published_number_of_windows(eeg_folder, tmp_path):
    store, columns = prepare(MentalArithmetic(protocol="published"), eeg_folder / "eegmat", tmp_path)
    # 1707 on all 36 subjects; these are the first 32.
    assert store.n_windows == 1515
    assert columns["windows"].shape == (1515, 20, 1000)
    assert set(np.unique(columns["split"])) == {0, 1}
    assert np.bincount(columns["label"]).tolist() == [1131, 384]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Two simulated persons."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_recordings(folder, SyntheticConfig(minutes=2), subjects=2, seed=0)
    return folder


LABELS = {"eyes open": "open", "eyes closed": "closed"}


def test_events_are_tiled_and_labelled(synthetic, tmp_path):
    store, columns = prepare(Events(labels=LABELS), synthetic, tmp_path)
    assert store.info.task is not None
    assert store.info.task.class_names == ("open", "closed")
    assert not store.info.task.has_split
    # Blocks of 30 s: six windows each, but for those too near the ends of the recording for the filters.
    plain = store.n_windows + sum(row.rejected for row in store.recordings)
    assert 2 * 20 <= plain <= 2 * 24
    block = (columns["start"] // 30).astype(int)
    for row in (0, 1):
        of_row = columns["recording"] == row
        first = columns["label"][of_row & (block == 1)][0]
        np.testing.assert_array_equal(columns["label"][of_row], np.where(block[of_row] % 2 == 1, first, 1 - first))
    np.testing.assert_allclose(columns["start"] % 5, 0)


def test_events_of_an_instant_and_patterns(tmp_path):
    marks = [(10.0, 0.0, "T1"), (20.0, 4.1, "T2"), (30.0, 4.1, "T0"), (59.5, 0.0, "T1")]
    write_edf(tmp_path / "in" / "a.edf", noise(2, 60, 160.0), 160.0, labels=["C3", "C4"], annotations=marks)
    task = Events(labels={"T[12]": "move", "T0": "rest"}, offset=0.5)
    _, columns = prepare(task, tmp_path / "in", tmp_path / "s")
    np.testing.assert_array_equal(columns["start"], [10.5, 20.5, 30.5])
    np.testing.assert_array_equal(columns["label"], [0, 0, 1])


def test_events_that_cannot_be_had_are_counted(tmp_path):
    marks = [(onset, 0.0, text) for onset, text in ((1.0, "one"), (20.0, "two"), (30.0, "one"), (58.0, "two"))]
    write_edf(tmp_path / "in" / "a.edf", noise(1, 60, 200.0), 200.0, labels=["Cz"], annotations=marks)
    task = Events(labels={"one": "1", "two": "2"})
    store, columns = prepare(task, tmp_path / "in", tmp_path / "s")
    np.testing.assert_array_equal(columns["start"], [20, 30])
    assert store.recordings[0].reason == "2 windows at events too near its ends"
    late = Events(labels=task.labels, windows=WindowConfig(seconds=5, min_recording=0, drop_first=25, drop_last=0))
    _, columns = prepare(late, tmp_path / "in", tmp_path / "t")
    np.testing.assert_array_equal(columns["start"], [30])


def test_recordings_without_events_are_rows_with_a_reason(tmp_path):
    for name, marks in (("a", [(20.0, 5.0, "one"), (30.0, 5.0, "two")]), ("b", [(20.0, 5.0, "else")]), ("c", [])):
        write_edf(tmp_path / "in" / f"{name}.edf", noise(1, 60, 200.0), 200.0, labels=["Cz"], annotations=marks)
    store, _ = prepare(Events(labels={"one": "1", "two": "2"}), tmp_path / "in", tmp_path / "s")
    assert [row.status for row in store.recordings] == ["ok", "failed", "failed"]
    assert "no usable event: none of one, two among its annotations (else)" in store.recordings[1].reason
    assert "none at all" in store.recordings[2].reason


def test_the_example_is_prepared_as_the_small_corpus():
    small, eyes = (yaml.safe_load(file.read_text()) for file in (CONFIGS / "small.yaml", EYES))
    assert eyes["windows"].pop("seconds") < small["windows"].pop("seconds")
    assert {part: eyes[part] for part in small} == small


def test_events_of_the_example_as_a_user_types_it(synthetic, tmp_path, monkeypatch, capsys):
    flags = ["--output", tmp_path / "s", "--config", EYES, "--workers", "1"]
    assert prep(monkeypatch, "task", "events", synthetic, *flags) == 0
    assert "classes     open 2" in capsys.readouterr().out
    assert Store.open(tmp_path / "s").shards[0].ch_names == TEN_TWENTY_19


def test_events_as_a_user_types_it(synthetic, tmp_path, monkeypatch, capsys):
    config = tmp_path / "eyes.yaml"
    config.write_text("labels:\n  eyes open: open\n  eyes closed: closed\nname: eyes\nwindows:\n  seconds: 2\n")
    flags = ["--config", config, "--workers", "1", "--clean.notch", "auto"]
    assert prep(monkeypatch, "task", "events", synthetic, "--output", tmp_path / "s", *flags) == 0
    task = Store.open(tmp_path / "s").info.task
    assert task is not None
    assert (task.name, task.class_names) == ("eyes", ("open", "closed"))
    said = capsys.readouterr().out
    assert "classes     open " in said
    assert "WARNING" not in said
    config.write_text(config.read_text().replace("eyes open", "Eyes Open"))
    assert prep(monkeypatch, "task", "events", synthetic, "--output", tmp_path / "u", *flags) == 0
    assert "WARNING: no window is of class open" in capsys.readouterr().out
    config.write_text("labels:\n  eyes open: 0\n  eyes closed: 1\n")
    assert prep(monkeypatch, "task", "events", synthetic, "--output", tmp_path / "t", "--config", config) == 2
    assert "a map whose values are each a text (a number is one in quotes)" in capsys.readouterr().err
    config.write_text("labels:\n  eyes open: open\n")
    assert prep(monkeypatch, "task", "events", synthetic, "--output", tmp_path / "t", "--config", config) == 2
    assert "fewer than two classes" in capsys.readouterr().err
