"""Reading: units, damaged files, and recordings of any shape through the whole chain."""

import errno
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codebrain.channels import ELECTRODES, TEN_TWENTY_19
from codebrain.data.format import Status, dequantise
from data_prep.clean import CleanConfig
from data_prep.corpora import find_recordings
from data_prep.montage import MontageConfig, plan_montage
from data_prep.probe import GuardConfig, check_amplitude, probe
from data_prep.read import OpenRecording, UnusableError
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig
from data_prep.write import Job, Result, prepare
from tests.recordings import noise, write_edf

SHORT = WindowConfig(seconds=2, min_recording=0, drop_first=0, drop_last=0, max_uv=500)
RECIPE = Recipe(clean=CleanConfig(l_freq=1.0, h_freq=45, notch=None), windows=SHORT)


def run(file: Path, store: Path, recipe: Recipe = RECIPE) -> Result:
    source = find_recordings([file])[0]
    return prepare(Job(store=str(store), row=0, source=source, recipe=recipe))


def windows_of(store: Path) -> np.ndarray:
    import h5py

    with h5py.File(store / "shards" / "000000.h5") as h5:
        return dequantise(h5["windows"][:], h5["scale"][:])


def starts_of(store: Path) -> np.ndarray:
    import h5py

    with h5py.File(store / "shards" / "000000.h5") as h5:
        return h5["start"][:]


def outcome(result: Result) -> tuple[Status, str]:
    return result.recording.status, result.recording.reason


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1.0), ("mV", 1e-3), ("V", 1e-6), ("nV", 1e3)])
def test_units_of_the_header_are_understood(tmp_path, unit, factor):
    x = noise(2, 20, 200.0)
    file = write_edf(tmp_path / "a.edf", x * factor, 200.0, labels=["Fp1", "Fp2"], unit=unit)
    if unit == "nV":  # MNE knows no nanovolts and takes the numbers for volts
        assert "wrong unit?" in run(file, tmp_path / "s").recording.reason
        result = run(file, tmp_path / "t", Recipe(unit="nV", clean=RECIPE.clean, windows=SHORT))
        assert result.recording.reason == "its numbers taken for nV"
    recording = OpenRecording(file, unit="nV" if unit == "nV" else "auto")
    # A field of eight characters holds few digits of a volt.
    np.testing.assert_allclose(recording.read([0, 1], 0, 4000), x, atol=0.05 if unit != "V" else 5)


def test_wrong_header_is_refused_and_can_be_overruled(tmp_path):
    x = noise(2, 20, 200.0)
    file = write_edf(tmp_path / "a.edf", x, 200.0, labels=["Fp1", "Fp2"], unit="mV")
    status, reason = outcome(run(file, tmp_path / "s"))
    assert status == "failed"
    assert "above the 1000 that EEG can have. If you know" in reason
    assert "--unit" in reason
    result = run(file, tmp_path / "t", Recipe(unit="uV", clean=RECIPE.clean, windows=SHORT))
    assert outcome(result) == ("ok", "its numbers taken for uV")


@pytest.mark.parametrize(("amplitude", "passes"), [(0.05, False), (3.0, True), (400.0, True), (5000.0, False)])
def test_guard(amplitude, passes):
    channels = np.full(3, amplitude)
    if passes:
        assert check_amplitude(channels, ["Fp1", "Cz", "O1"], GuardConfig(), "the unit in its header") == ""
    else:
        with pytest.raises(UnusableError, match=r"wrong unit\? With the unit in its header its amplitude is"):
            check_amplitude(channels, ["Fp1", "Cz", "O1"], GuardConfig(), "the unit in its header")


@pytest.mark.parametrize(
    ("factor", "status", "words"),
    [
        (
            1000,
            "failed",
            "wrong unit of 1 of 19 channels? Amplitudes in microvolts above the 1000 that EEG can have: EEG",
        ),
        (1000, "failed", ". The limit is --guard.max_uv"),
        (0.001, "ok", "hardly moving, or in another unit: EEG Cz-REF"),
    ],
)
def test_one_channel_in_another_unit_does_not_pass_in_silence(tmp_path, factor, status, words):
    x = noise(19, 20, 200.0)
    x[TEN_TWENTY_19.index("Cz")] *= factor
    recipe = Recipe(clean=RECIPE.clean, windows=replace(SHORT, max_uv=None, min_swing_uv=None))
    result = run(write_edf(tmp_path / "a.edf", x, 200.0), tmp_path / "s", recipe)
    assert (result.recording.status, words in result.recording.reason) == (status, True), result.recording
    assert "Cz" in result.recording.reason


def test_what_is_no_potential_is_no_eeg(tmp_path):
    x = np.concatenate([noise(3, 20, 200.0), 96 + noise(1, 20, 200.0, rms_uv=0.5)])
    file = write_edf(tmp_path / "a.edf", x, 200.0, labels=["C3", "C4", "Fz", "O2"], unit=["uV", "mV", "", "%"])
    assert OpenRecording(file).eeg_labels == ("C3", "C4", "Fz")


def test_truncated_file_is_refused_or_used_as_far_as_it_goes(tmp_path):
    file = write_edf(tmp_path / "a.edf", noise(2, 30, 200.0), 200.0, labels=["Fp1", "Fp2"])
    file.write_bytes(file.read_bytes()[:-9000])
    status, reason = outcome(run(file, tmp_path / "s"))
    assert status == "failed"
    assert reason.startswith("truncated:")
    assert reason.endswith("; copy it again. What is there is used with --truncated keep")
    result = run(file, tmp_path / "t", Recipe(truncated="keep", clean=RECIPE.clean, windows=SHORT))
    assert result.recording.status == "ok"
    assert result.recording.reason.startswith("truncated:")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty file"), (b"not an EDF at all" * 100, "cannot be read"), (b"0       ", "cannot be read")],
)
def test_what_is_no_recording_says_so(tmp_path, content, words):
    file = tmp_path / "a.edf"
    file.write_bytes(content)
    status, reason = outcome(run(file, tmp_path / "s"))
    assert (status, words in reason) == ("failed", True), reason


@pytest.mark.parametrize("where", ["mne.io.read_raw", "mne.io.BaseRaw.get_data", "data_prep.read.promised_bytes"])
@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (MemoryError(), False),
        (OSError(errno.EIO, "Input/output error"), False),
        (OSError(errno.ESTALE, "Stale file handle"), False),
        (OSError(errno.EINVAL, "Invalid argument"), True),
        (OSError("no such data set in it"), True),
        (IndexError("list index out of range"), True),
    ],
)
def test_what_is_not_the_files_fault_is_tried_again(where, error, is_final, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise error

    file = write_edf(tmp_path / "a.edf", noise(3, 20, 200.0), 200.0, labels=["Fp1", "T3", "O1"])
    with monkeypatch.context() as patch:
        patch.setattr(where, broken)
        result = run(file, tmp_path / "s")
    assert (result.recording.status, result.is_final) == ("failed", is_final)
    assert run(file, tmp_path / "s").recording.status == ("failed" if is_final else "ok")


def test_an_error_in_a_folder_named_like_the_store_does_not_end_the_run(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    file = write_edf(tmp_path / "study" / "a.edf", noise(3, 20, 200.0), 200.0, labels=["Fp1", "T3", "O1"])
    monkeypatch.setattr("mne.io.read_raw", broken)
    assert "Permission denied" in run(file, tmp_path / "s").recording.reason


def test_flat_channels_are_named(tmp_path):
    x = noise(3, 20, 200.0)
    x[1] = 0
    status, reason = outcome(run(write_edf(tmp_path / "a.edf", x, 200.0, labels=["Fp1", "T3", "O1"]), tmp_path / "s"))
    assert status == "rejected"
    assert reason.startswith("nothing moves in T3; no usable window: flat ")
    assert "(T7 " in reason
    flat = write_edf(tmp_path / "b.edf", 0 * x, 200.0, labels=["Fp1", "T3", "O1"])
    assert "nothing moves in any of the wanted channels" in run(flat, tmp_path / "t").recording.reason


@pytest.mark.parametrize(
    ("n_still", "words"),
    [
        (1, "nothing moves in EEG Fp1-REF"),
        (7, "nothing moves in EEG Fp1-REF, EEG Fp2-REF, EEG F3-REF, EEG F4-REF, EEG C3-REF and 2 more"),
    ],
)
def test_dead_channels_are_named_where_no_window_is_rejected_for_them(n_still, words, tmp_path):
    x = noise(19, 20, 200.0)
    x[:n_still] = 0
    recipe = Recipe(clean=RECIPE.clean, windows=replace(SHORT, min_swing_uv=None))
    assert outcome(run(write_edf(tmp_path / "a.edf", x, 200.0), tmp_path / "s", recipe)) == ("ok", words)


def test_a_channel_that_does_not_move_is_no_reason_for_another_unit():
    note = check_amplitude(np.array([np.nan, 0.05, 20.0, 20.0]), ["Fp1", "Cz", "O1", "O2"], GuardConfig(), "a header")
    assert note == "nothing moves in Fp1; hardly moving, or in another unit: Cz"


def test_not_a_number_never_reaches_a_window(tmp_path):
    import mne

    x = noise(3, 40, 200.0) * 1e-6
    x[1, 4000:4010] = np.nan
    file = tmp_path / "a_raw.fif"
    mne.io.RawArray(x, mne.create_info(["Fp1", "T7", "O1"], 200.0, "eeg"), verbose="error").save(file, verbose="error")
    result = run(file, tmp_path / "s")
    assert result.recording.status == "ok"
    assert result.rejected["not a number"] >= 1
    assert "not a number" in result.recording.reason
    assert "(T7 " in result.recording.reason
    assert np.isfinite(windows_of(tmp_path / "s")).all()


def test_a_faster_channel_does_not_set_the_rate(tmp_path):
    x = [*noise(2, 20, 100.0), noise(1, 20, 500.0)[0]]
    file = write_edf(tmp_path / "a.edf", x, [100.0, 100.0, 500.0], labels=["Fp1", "Fp2", "ECG"])
    recording = OpenRecording(file)
    assert recording.sfreq == 500
    recording.restrict(["Fp1", "Fp2"])
    assert recording.sfreq == 100
    np.testing.assert_allclose(recording.read([0, 1], 0, 2000), np.stack(x[:2]), atol=0.05)


def test_line_frequency_is_found(tmp_path):
    t = np.arange(4000) / 200
    for line in (50.0, 60.0, None):
        x = noise(2, 20, 200.0) + (10 * np.sin(2 * np.pi * line * t) if line else 0)
        recording = OpenRecording(write_edf(tmp_path / "a.edf", x, 200.0, labels=["Fp1", "Fp2"]))
        assert probe(recording, [0, 1], find_line=True).line_hz == line


def test_labels_that_no_scheme_tells_can_be_named():
    labels = ["E36", "E104", "Fp1-Cz"]
    with pytest.raises(UnusableError, match="If you know which electrodes these are"):
        plan_montage(labels, MontageConfig(names=["C3", "C4"]))
    names = {"E36": "C3", "E104": "C4", "Fp1-Cz": "Fp1"}
    montage = plan_montage(labels, MontageConfig(names=["C4", "Fp1"], rename=names))
    assert (montage.ch_names, montage.labels, montage.matrix) == (("C4", "Fp1"), ("E104", "Fp1-Cz"), None)


def test_what_interpolation_would_fill_in_is_said():
    with pytest.raises(
        UnusableError, match=r"lacks 1 of 19 .*: Pz. --channels.max_interpolated 1 would fill"
    ) as caught:
        plan_montage(TEN_TWENTY_19[:-1], MontageConfig(names=list(TEN_TWENTY_19)))
    assert caught.value.reason == "lacks 1 of 19 wanted channels: Pz"


def test_nobody_is_advised_to_make_most_channels_up():
    wanted = MontageConfig(names=list(TEN_TWENTY_19))
    plan_montage(TEN_TWENTY_19[:10], replace(wanted, max_interpolated=9))  # who asks for it gets it
    for n_there, offered in ((16, True), (15, False), (2, False)):
        with pytest.raises(UnusableError) as caught:
            plan_montage(TEN_TWENTY_19[:n_there], wanted)
        assert ("would fill them in" in str(caught.value)) == offered


def test_a_reason_speaks_of_flags_that_the_command_has():
    error = UnusableError("empty", "--truncated keep takes it", flag="--truncated")
    assert str(error) == error.told(("--unit", "--truncated")) == "empty. --truncated keep takes it"
    assert error.told(("--unit",)) == error.told(()) == "empty"
    assert UnusableError("empty file").told(("--",)) == "empty file"


def test_marked_stretches_are_left_out(tmp_path):
    marks = [(10.0, 3.0, "BAD movement"), (20.0, 1.0, "good")]
    file = write_edf(tmp_path / "a.edf", noise(2, 30, 200.0), 200.0, labels=["Fp1", "Fp2"], annotations=marks)
    result = run(file, tmp_path / "s")
    assert result.rejected == {"marked bad": 2}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.sampled_from(ELECTRODES), min_size=1, max_size=6, unique=True),
    others=st.lists(st.sampled_from(["ECG", "EEG A2-A1", "EOG", "Photic", "EMG chin"]), max_size=3, unique=True),
    form=st.sampled_from(["{}", "EEG {}-REF", "{}.."]),
    sfreq=st.sampled_from([100.0, 128.0, 200.0, 250.0, 256.0, 512.0]),
    seconds=st.integers(1, 24),
    rms_uv=st.floats(2, 60),
    scaling=st.sampled_from([("uV", 1.0), ("mV", 1e-3)]),
    bad=st.none() | st.integers(0, 20),
    seed=st.integers(0, 99),
)
def test_any_edf_becomes_its_windows_or_a_reason(
    tmp_path_factory, names, others, form, sfreq, seconds, rms_uv, scaling, bad, seed
):
    folder = tmp_path_factory.mktemp("any")
    labels = [form.format(name) for name in names] + others
    x = noise(len(labels), seconds, sfreq, seed=seed, rms_uv=rms_uv)
    unit, factor = scaling
    marks = [] if bad is None or bad >= seconds else [(float(bad), 1.0, "BAD")]
    file = write_edf(folder / "a.edf", x * factor, sfreq, labels=labels, unit=unit, annotations=marks)
    result = run(file, folder / "s", Recipe(clean=CleanConfig(l_freq=None, h_freq=None, notch=None), windows=SHORT))
    if result.recording.status != "ok":
        known = ("too short", "amplitude", "marked bad")
        assert any(words in result.recording.reason for words in known), result.recording
        return
    assert result.shard is not None
    assert set(result.shard.ch_names) == set(names)
    windows, starts = windows_of(folder / "s"), starts_of(folder / "s")
    assert np.isfinite(windows).all()
    assert all(start + 2 <= mark[0] or start >= mark[0] + mark[1] for start in starts for mark in marks)
    if sfreq == 200:  # unfiltered and not resampled: the file's own samples, in the right row and place
        originals = x[[names.index(name) for name in result.shard.ch_names]]
        for window, start in zip(windows, starts, strict=True):
            first = round(start * sfreq)
            # Limits of at least 0.1 of the unit in the header, over 65536 steps.
            np.testing.assert_allclose(window, originals[:, first : first + 400], atol=rms_uv / 200 + 0.02)


def mutilated(content: bytes, rng: random.Random) -> bytes:
    """A file with bytes flipped, cut, inserted, or another header."""
    data = bytearray(content)
    kind = rng.choice(["flip", "header", "cut", "insert", "digits"])
    if kind == "flip":
        for _ in range(rng.randint(1, 50)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "header":
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(1024)] = rng.randrange(256)
    elif kind == "cut":
        start = rng.randrange(len(data))
        del data[start : start + rng.randint(1, 5000)]
    elif kind == "insert":
        start = rng.randrange(len(data))
        data[start:start] = rng.randbytes(rng.randint(1, 300))
    else:
        start = rng.randrange(168, 1000)
        data[start : start + 8] = rng.choice(
            [b"-1      ", b"0       ", b"99999999", b"1e300   ", b"nan     ", b"        "]
        )
    return bytes(data)


@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(40, 240), marks=pytest.mark.slow)], ids=["some", "all"]
)
@pytest.mark.timeout(280)
def test_mutilated_files_never_crash_nor_yield_what_is_no_number(tmp_path, seeds):
    good = write_edf(tmp_path / "good.edf", noise(3, 12, 200.0), 200.0, labels=["Fp1", "Cz", "O1"]).read_bytes()
    recipe = Recipe(channels=MontageConfig(), clean=RECIPE.clean, windows=SHORT)
    for seed in seeds:
        file = tmp_path / f"{seed}.edf"
        file.write_bytes(mutilated(good, random.Random(seed)))
        result = run(file, tmp_path / f"store{seed}", recipe)
        assert result.recording.status in ("ok", "rejected", "failed")
        assert result.recording.status == "ok" or result.recording.reason
        if result.shard:
            assert np.isfinite(windows_of(tmp_path / f"store{seed}")).all()


@pytest.mark.real
def test_the_units_of_the_exoskeleton_recordings_are_refused(eeg_folder, tmp_path):
    files = [file for file in (eeg_folder / "ssvep_exo").rglob("record*") if "eve" not in file.name]
    assert len(files) == 2
    for number, file in enumerate(files):
        status, reason = outcome(run(file, tmp_path / f"s{number}"))
        assert (status, "wrong unit?" in reason) == ("failed", True), reason
        told = run(file, tmp_path / f"t{number}", Recipe(unit="mV", clean=RECIPE.clean, windows=SHORT))
        assert told.recording.status == "ok", told.recording


@pytest.mark.real
def test_every_real_file_becomes_windows_or_a_reason(eeg_folder, tmp_path):
    sources = [source for source in find_recordings([eeg_folder]) if "eegmat" not in source.key]
    assert len(sources) > 25
    for row, source in enumerate(sources):
        result = prepare(Job(store=str(tmp_path), row=row, source=source, recipe=RECIPE))
        assert result.recording.status == "ok" or result.recording.reason
        assert "cannot be prepared" not in result.recording.reason, result.recording
