"""The same signal in the formats of several vendors, written here, comes out of the chain as the same windows."""

from pathlib import Path

import mne
import numpy as np
import pytest
import scipy.io
from edfio import Bdf, BdfSignal

from codebrain.data.format import dequantise
from data_prep.clean import Chain, CleanConfig
from data_prep.corpora import find_recordings
from data_prep.read import OpenRecording
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig
from data_prep.write import Job, Result, prepare
from tests import recordings
from tests.recordings import noise, write_edf

LABELS = ("EEG Fp1-REF", "ECG", "EEG T3-REF", "EEG Oz-REF")
SFREQ, SECONDS = 200.0, 20
RECIPE = Recipe(
    clean=CleanConfig(l_freq=None, h_freq=None, notch=None),
    windows=WindowConfig(seconds=5, min_recording=0, drop_first=0, drop_last=0, max_uv=None),
)


def write_plain_edf(path: Path, x: np.ndarray) -> Path:
    return write_edf(path.with_suffix(".edf"), x, SFREQ, labels=LABELS, annotations=[(1.0, 0.0, "mark")])


def write_bdf(path: Path, x: np.ndarray) -> Path:
    signals = [
        BdfSignal(row, SFREQ, label=label, physical_dimension="uV", physical_range=(-500, 500))
        for label, row in zip(LABELS, x, strict=True)
    ]
    file = path.with_suffix(".bdf")
    Bdf(signals).write(file)
    return file


def write_brainvision(path: Path, x: np.ndarray) -> Path:
    channels = "\n".join(f"Ch{number}={label},,0.01,µV" for number, label in enumerate(LABELS, start=1))
    path.with_suffix(".eeg").write_bytes(np.rint(x / 0.01).astype("<i2").T.tobytes())
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n"
        "[Marker Infos]\nMk1=New Segment,,1,1,0,20200101120000000000\nMk2=Stimulus,S  1,401,1,0\n"
    )
    header = path.with_suffix(".vhdr")
    header.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n"
        f"MarkerFile=a.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels={len(LABELS)}\n"
        f"SamplingInterval={1e6 / SFREQ:g}\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    return header


def write_eeglab(path: Path, x: np.ndarray) -> Path:
    places = np.array([(label,) for label in LABELS], dtype=[("labels", object)])
    eeg = {"setname": "a", "srate": SFREQ, "nbchan": len(x), "pnts": x.shape[1], "trials": 1, "xmin": 0.0}
    eeg |= {"xmax": SECONDS - 1 / SFREQ, "data": x.astype(np.float32), "chanlocs": places, "event": [], "epoch": []}
    eeg |= {"icawinv": [], "icasphere": [], "icaweights": [], "icaact": [], "ref": "common", "comments": ""}
    file = path.with_suffix(".set")
    scipy.io.savemat(file, {"EEG": eeg}, appendmat=False)
    return file


def write_gdf(path: Path, x: np.ndarray) -> Path:
    return recordings.write_gdf(path.with_suffix(".gdf"), x, SFREQ, labels=LABELS, events=[(2.0, 0x301)])


def write_fif(path: Path, x: np.ndarray) -> Path:
    info = mne.create_info(list(LABELS), SFREQ, ["eeg", "ecg", "eeg", "eeg"])
    file = path.with_name("a_raw.fif")
    mne.io.RawArray(x * 1e-6, info, verbose="error").save(file, verbose="error")
    return file


def run(file: Path, store: Path) -> Result:
    (source,) = find_recordings([file.parent])
    assert Path(source.file) == file
    return prepare(Job(store=str(store), row=0, source=source, recipe=RECIPE))


@pytest.mark.parametrize("write", [write_plain_edf, write_bdf, write_gdf, write_brainvision, write_eeglab, write_fif])
def test_every_vendor_gives_the_same_windows(write, tmp_path):
    import h5py

    x = noise(len(LABELS), SECONDS, SFREQ)
    (tmp_path / "in").mkdir()
    result = run(write(tmp_path / "in" / "a", x), tmp_path / "s")
    assert (result.recording.status, result.recording.reason) == ("ok", "")
    assert result.shard is not None
    assert result.shard.ch_names == ("Fp1", "T7", "Oz")
    with h5py.File(tmp_path / "s" / result.shard.file) as h5:
        windows = dequantise(h5["windows"][:], h5["scale"][:])
        np.testing.assert_array_equal(h5["start"][:], [0, 5, 10, 15])
    np.testing.assert_allclose(np.concatenate(list(windows), axis=1), x[[0, 2, 3]], atol=0.02)


def test_the_unit_of_a_brainvision_header_can_be_overruled(tmp_path):
    x = noise(len(LABELS), SECONDS, SFREQ)
    (tmp_path / "in").mkdir()
    header = write_brainvision(tmp_path / "in" / "a", x)
    header.write_text(header.read_text(encoding="utf-8").replace("µV", "mV"), encoding="utf-8")
    assert "wrong unit?" in run(header, tmp_path / "s").recording.reason
    recording = OpenRecording(header, unit="uV")
    np.testing.assert_allclose(recording.read(range(len(x)), 0, recording.n_times), x, atol=0.01)


@pytest.mark.parametrize("has_gap", [True, False])
def test_a_discontinuous_edf_with_gaps_is_refused(has_gap, tmp_path):
    file = write_plain_edf(tmp_path / "in" / "a", noise(len(LABELS), SECONDS, SFREQ))
    content = file.read_bytes().replace(b"EDF+C", b"EDF+D", 1)
    if has_gap:  # the data records from the 13th on begin 5 s later
        for second in range(SECONDS - 1, 11, -1):
            content = content.replace(b"+%d\x14\x14" % second, b"+%d\x14\x14" % (second + 5))
    file.write_bytes(content)
    result = run(file, tmp_path / "s")
    expected = "discontinuous (EDF+D): gaps at 1 places, the first of 5 s at 12 s. Write its stretches"
    assert result.recording.reason.startswith(expected) == has_gap
    assert result.recording.status == ("failed" if has_gap else "ok")


def mark_brainvision(file: Path) -> None:
    with file.with_suffix(".vmrk").open("a") as markers:
        markers.write("Mk3=New Segment,,2401,1,0,20200101130000000000\n")


def mark_eeglab(file: Path) -> None:
    content = scipy.io.loadmat(file, squeeze_me=True, struct_as_record=True)["EEG"]
    eeg = {name: content[name].item() for name in content.dtype.names}
    eeg["event"] = np.array(
        [("boundary", 2401.0, 500.0)], dtype=[("type", object), ("latency", float), ("duration", float)]
    )
    scipy.io.savemat(file, {"EEG": eeg}, appendmat=False)


@pytest.mark.parametrize(("write", "mark"), [(write_brainvision, mark_brainvision), (write_eeglab, mark_eeglab)])
@pytest.mark.parametrize("l_freq", [None, 4.0])
def test_no_window_lies_across_a_gap(write, mark, l_freq, tmp_path):
    """Recording went on later at 12 s: neither a window nor a filter's reach may mix the two stretches."""
    import h5py

    (tmp_path / "in").mkdir()
    file = write(tmp_path / "in" / "a", noise(len(LABELS), SECONDS, SFREQ))
    mark(file)
    clean = CleanConfig(l_freq=l_freq, h_freq=None, notch=None)
    (source,) = find_recordings([file.parent])
    recipe = Recipe(clean=clean, windows=RECIPE.windows)
    result = prepare(Job(store=str(tmp_path / "s"), row=0, source=source, recipe=recipe))
    assert result.shard is not None
    reach = Chain(clean, sfreq=SFREQ, n_times=round(SECONDS * SFREQ)).edge / SFREQ
    with h5py.File(tmp_path / "s" / result.shard.file) as h5:
        found = h5["start"][:]
    assert result.rejected["gap"] >= 1
    assert all(start + 5 + reach <= 12 or start - reach >= 12 for start in found)
    assert l_freq is not None or found.tolist() == [0, 5, 15]


@pytest.mark.parametrize("suffix", [".cnt", ".gdf", ".set", ".vhdr", ".fif", ".mff", ".nxe", ".cdt", ".eeg"])
def test_a_file_that_only_bears_the_name_of_a_format_gets_a_reason(suffix, tmp_path):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / f"a{suffix}"
    file.write_bytes(b"no recording at all" * 200)
    result = run(file, tmp_path / "s")
    assert result.recording.status == "failed"
    assert result.recording.reason.startswith(("cannot be read", "empty"))
