"""Which of a recording's channels become those of its windows, and what its row says of the others."""

from dataclasses import replace
from pathlib import Path

import h5py
import mne
import numpy as np
import pytest

from codebrain.channels import TEN_TWENTY_19
from codebrain.data.format import dequantise
from data_prep.clean import CleanConfig
from data_prep.corpora import find_recordings
from data_prep.montage import MontageConfig, plan_montage
from data_prep.read import UnusableError
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig
from data_prep.write import Job, Result, prepare
from tests.recordings import noise, write_edf
from tests.test_prep import prep

RECIPE = Recipe(
    clean=CleanConfig(l_freq=None, h_freq=None, notch=None),
    windows=WindowConfig(seconds=2, min_recording=0, drop_first=0, drop_last=0, keep_edges=True, max_uv=None),
)
SHORT = ["Fp1", "Fp2", "C3", "C4", "O1", "O2"]


def run(file: Path, store: Path, recipe: Recipe = RECIPE) -> Result:
    (source,) = find_recordings([file])
    return prepare(Job(store=str(store), row=0, source=source, recipe=recipe))


def windows_of(store: Path) -> tuple[list[str], np.ndarray]:
    with h5py.File(store / "shards" / "000000.h5") as h5:
        return [str(name) for name in h5.attrs["ch_names"]], dequantise(h5["windows"][:], h5["scale"][:])


def fif(path: Path, x: np.ndarray, labels=SHORT, bads=(), types="eeg") -> Path:
    info = mne.create_info(list(labels), 200.0, types)
    info["bads"] = list(bads)
    mne.io.RawArray(x * 1e-6, info, verbose="error").save(path, verbose="error")
    return path


# --- bad channels ----------------------------------------------------------------------------------------------------


def test_channels_that_the_file_marks_bad_are_left_out(tmp_path):
    x = noise(6, 20, 200.0)
    x[2] *= 30
    file = fif(tmp_path / "a_raw.fif", x, bads=["C3"])
    result = run(file, tmp_path / "s")
    names, windows = windows_of(tmp_path / "s")
    assert names == ["Fp1", "Fp2", "C4", "O1", "O2"]
    assert result.recording.reason == "left out: C3 (marked bad in the file)"
    np.testing.assert_allclose(np.concatenate(list(windows), axis=1), x[[0, 1, 3, 4, 5]], atol=0.01)
    wanted = replace(RECIPE, channels=MontageConfig(names=["C3", "C4"]))
    reason = run(file, tmp_path / "t", wanted).recording.reason
    assert reason == "lacks 1 of 2 wanted channels: C3 (marked bad in the file)"


@pytest.mark.parametrize("spelling", ["Fp2", "FP2", "EEG Fp2-Ref", "EEG FP2"])
def test_channels_tsv_may_spell_a_bad_channel_otherwise(spelling, tmp_path):
    labels = [f"EEG {name}-Ref" for name in SHORT]
    file = write_edf(tmp_path / "a.edf", noise(6, 20, 200.0), 200.0, labels=labels)
    table = tmp_path / "a_channels.tsv"
    table.write_text(f"name\ttype\tstatus\nFp1\tEEG\tgood\n{spelling}\tEEG\tbad\n")
    result = run(file, tmp_path / "s")
    assert windows_of(tmp_path / "s")[0] == ["Fp1", "C3", "C4", "O1", "O2"]
    assert result.recording.reason == "left out: Fp2 (bad in a_channels.tsv)"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("Fp1\tEEG\tgood\nF7\tEEG\tbad\n", "a_channels.tsv calls channels bad that it does not have: F7"),
        ("X1\tEEG\tgood\nX2\tEEG\tbad\n", "no row of a_channels.tsv is about a channel of it: X1, X2"),
        ("Fp1\tEEG\tgood\nTrigger\tTRIG\tgood\n", ""),
        ("O2\tEOG\tgood\n", "left out: O2 (EOG in a_channels.tsv)"),
    ],
)
def test_rows_of_channels_tsv_that_fit_nothing_are_named(rows, reason, tmp_path):
    file = write_edf(tmp_path / "a.edf", noise(6, 20, 200.0), 200.0, labels=SHORT)
    (tmp_path / "a_channels.tsv").write_text(f"name\ttype\tstatus\n{rows}")
    assert run(file, tmp_path / "s").recording.reason == reason


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "used", "others"),
    [
        (["C3-A2", "C3"], "C3", ["C3-A2"]),
        (["EEG C3-REF", "EEG C3", "C3"], "C3", ["EEG C3", "EEG C3-REF"]),
        (["T3", "T7"], "T7", ["T3"]),
        (["T7-A1", "EEG T3"], "EEG T3", ["T7-A1"]),
        (["C3-0", "C3-1"], "C3-0", ["C3-1"]),
        (["E36", "C3"], "E36", ["C3"]),
    ],
)
def test_of_several_channels_of_one_electrode_the_exact_name_is_taken(labels, used, others):
    montage = plan_montage(["Fp1", *labels], MontageConfig(rename={"E36": "C3"} if "E36" in labels else {}))
    assert montage.labels == ("Fp1", used)
    assert montage.note == f"several channels of one electrode: {used} used, not {', '.join(others)}"


def test_biosemi_numbers_can_be_renamed():
    labels = [f"{letter}{number}" for letter in "ABCD" for number in range(1, 33)]
    with pytest.raises(UnusableError, match=r"0 scalp electrodes.*say so with --channels.rename"):
        plan_montage(labels, MontageConfig())
    rename = {"A1": "Cz", "A19": "Pz", "D3": "C3", "B22": "C4"}
    montage = plan_montage(labels, MontageConfig(rename=rename))
    assert dict(zip(montage.ch_names, montage.labels, strict=True)) == {name: label for label, name in rename.items()}
    assert montage.note.startswith("ONLY 4 of 128 EEG channels used: no electrodes have the names A2, A3,")


def test_a_recording_that_loses_most_of_its_channels_says_so(tmp_path):
    labels = [*(f"E{number}" for number in range(1, 129)), "Cz"]
    result = run(fif(tmp_path / "a_raw.fif", noise(129, 10, 200.0), labels), tmp_path / "s")
    assert result.recording.status == "ok"
    assert result.recording.reason == (
        "ONLY 1 of 129 EEG channels used: no electrodes have the names E1, E2, E3, E4, E5, E6, E7, E8 and 120 more. "
        "--channels.rename says which they are"
    )


def test_channels_that_are_dropped_are_named(tmp_path):
    labels = [*SHORT, "X1", "ECG", "A2-A1"]
    file = write_edf(tmp_path / "a.edf", noise(9, 20, 200.0), 200.0, labels=labels)
    assert run(file, tmp_path / "s").recording.reason == "no known electrodes, not used: X1"
    unit = ["uV"] * 5 + ["%"] + ["uV"] * 3
    file = write_edf(tmp_path / "b.edf", noise(9, 20, 200.0), 200.0, labels=labels, unit=unit)
    assert run(file, tmp_path / "t").recording.reason == (
        "no EEG by type or unit in the file, not used: O2; no known electrodes, not used: X1"
    )
    asked = replace(RECIPE, channels=MontageConfig(names=["Fp1", "C3"]))  # who asks for some wants no more
    (tmp_path / "c").mkdir()
    file = write_edf(tmp_path / "c" / "a.edf", noise(9, 20, 200.0), 200.0, labels=labels)
    assert run(file, tmp_path / "u", asked).recording.reason == ""


# --- references ------------------------------------------------------------------------------------------------------


def test_a_dead_channel_is_no_part_of_the_average(tmp_path):
    x = noise(6, 20, 200.0)
    x[4] = 0
    file = fif(tmp_path / "a_raw.fif", x)
    average = MontageConfig(reference="average")
    kept = replace(RECIPE, channels=average, windows=replace(RECIPE.windows, min_swing_uv=None))
    result = run(file, tmp_path / "s", kept)
    assert result.recording.reason == "nothing moves in O1; average reference without O1"
    alive = [0, 1, 2, 3, 5]
    expected = x - x[alive].mean(axis=0)
    np.testing.assert_allclose(np.concatenate(list(windows_of(tmp_path / "s")[1]), axis=1), expected, atol=0.01)
    rejected = run(file, tmp_path / "t", replace(RECIPE, channels=average))
    assert rejected.rejected == {"flat": 10}
    assert "flat 10 (O1 10)" in rejected.recording.reason


def test_a_channel_that_dies_midway_costs_its_windows_whatever_the_reference(tmp_path):
    x = noise(6, 20, 200.0)
    x[4, 2000:] = x[4, 2000]
    file = fif(tmp_path / "a_raw.fif", x)
    for reference in ("as_recorded", "average"):
        recipe = replace(RECIPE, channels=MontageConfig(reference=reference))
        result = run(file, tmp_path / reference, recipe)
        assert (result.recording.kept, result.rejected) == (5, {"flat": 5})
    windows = windows_of(tmp_path / "average")[1]
    np.testing.assert_allclose(np.concatenate(list(windows), axis=1), (x - x.mean(axis=0))[:, :2000], atol=0.01)


def test_amplitudes_are_those_at_the_reference(tmp_path):
    x = noise(6, 20, 200.0, rms_uv=10) + 300 * np.sin(2 * np.pi * 3 * np.arange(4000) / 200)  # of the reference itself
    file = fif(tmp_path / "a_raw.fif", x)
    limited = replace(RECIPE, windows=replace(RECIPE.windows, max_uv=100.0))
    assert run(file, tmp_path / "s", limited).recording.kept == 0
    averaged = replace(limited, channels=MontageConfig(reference="average"))
    assert run(file, tmp_path / "t", averaged).recording.kept == 10


@pytest.mark.parametrize(
    ("bads", "flat", "reason"),
    [
        (["A1"], False, "neither A1 and A2 nor M1 and M2; left out: A1 (marked bad in the file)"),
        ([], True, "linked mastoids wanted, but nothing moves in A1"),
    ],
)
def test_mastoids_must_be_alive(bads, flat, reason, tmp_path):
    x = noise(4, 20, 200.0)
    x[2] *= not flat
    file = fif(tmp_path / "a_raw.fif", x, labels=["Fp1", "C3", "A1", "A2"], bads=bads)
    recipe = replace(RECIPE, channels=MontageConfig(names=["Fp1", "C3"], reference="linked_mastoids"))
    result = run(file, tmp_path / "s", recipe)
    assert (result.recording.status, reason in result.recording.reason) == ("failed", True), result.recording


def test_nineteen_clinical_channels_need_no_note(tmp_path):
    labels = [f"EEG {name}-REF" for name in TEN_TWENTY_19]
    file = write_edf(tmp_path / "a.edf", noise(19, 20, 200.0), 200.0, labels=labels)
    assert run(file, tmp_path / "s").recording.reason == ""


def test_the_command_counts_what_it_noted(tmp_path, monkeypatch, capsys):
    for number in range(3):
        write_edf(tmp_path / "in" / f"{number}.edf", noise(7, 20, 200.0, seed=number), 200.0, labels=[*SHORT, "X1"])
    (tmp_path / "in" / "1_channels.tsv").write_text("name\tstatus\nC3\tbad\n")
    flags = ["--windows.seconds", "1.5", "--windows.min_recording", "0", "--windows.drop_first", "0"]
    flags += ["--windows.drop_last", "0", "--workers", "1"]
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", tmp_path / "s", *flags) == 0
    said = capsys.readouterr().out
    assert "3 x no known electrodes, not used   e.g. 0.edf: no known electrodes, not used: X1" in said
    assert "1 x left out   e.g. 1.edf: left out: C3 (bad in 1_channels.tsv)" in said
    assert "will not see the last 0.5 s of each window of 1.5 s" in said
