"""codebrain-predict and codebrain-embed: recordings in, answers or features with times out, and what they refuse."""

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import mne
import numpy as np
import pytest
import torch

from codebrain.backbone import EEGSSM, BackboneConfig
from codebrain.config import to_dict
from codebrain.model import CodeBrain
from data_prep.clean import CleanConfig
from data_prep.montage import MontageConfig
from data_prep.recipe import Recipe, recipe_of
from data_prep.windows import WindowConfig
from finetune import classifier, embed_cli, predict_cli
from finetune.classifier import Classifier, Contract, backbone_features
from finetune.heads import Head, HeadConfig
from finetune.task import Task
from tests.reference_finetune import write_task_store

SIZES = {"num_res_layers": 1, "res_channels": 8, "skip_channels": 8, "out_channels": 8}
CH_NAMES = ("Fz", "Cz", "Pz")
SECONDS = 2.0
RECIPE = Recipe(
    clean=CleanConfig(sfreq=200.0, l_freq=None, h_freq=None, notch=None),
    channels=MontageConfig(names=list(CH_NAMES)),
    windows=WindowConfig(
        seconds=SECONDS, min_recording=0.0, drop_first=0.0, drop_last=0.0, keep_edges=True, max_uv=500.0
    ),
)


def save_model(folder: Path, kind="linear", class_names=("rest", "count"), recipe=RECIPE, task="toy/corrected") -> Path:
    torch.manual_seed(0)
    head = HeadConfig(
        kind=kind, n_chans=3, n_patches=2, width=8, n_outputs=1 if len(class_names) < 3 else 3,
        hidden=16 if kind == "sequence" else 0, sequence_length=4,
    )  # fmt: skip
    model = Classifier(EEGSSM(BackboneConfig(**SIZES)), Head(head)).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    kinds = {0: "regression", 2: "binary", 3: "multiclass"}
    name, protocol = task.split("/")
    meaning = Task(name=name, protocol=protocol, kind=kinds[len(class_names)], class_names=class_names)
    contract = Contract(task=meaning, ch_names=CH_NAMES, n_times=400, sfreq=200.0, preparation=to_dict(recipe))
    classifier.save(folder / "export", model, contract, card="")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def record(
    path: Path, labels=("EEG Pz-REF", "EEG FZ-REF", "EEG Cz-REF", "ECG"), seconds=13, gain=1.0, loud=None, volts=900e-6
):
    """A recording at 200 Hz whose channels are in another order and under other names than the model's."""
    rng = np.random.default_rng(len(labels))
    x = 20e-6 * gain * rng.standard_normal((len(labels), 200 * seconds))
    if loud is not None:
        x[0, loud] = volts
    raw = mne.io.RawArray(x, mne.create_info(list(labels), 200.0, "eeg"), verbose="error")
    mne.export.export_raw(path, raw, verbose="error", overwrite=True)
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("recording") / "night.edf")


def microvolts(path: Path, first: int, n_windows: int) -> torch.Tensor:
    """Windows (n, 3, 400) read by MNE and by nothing of ours."""
    raw = mne.io.read_raw(path, verbose="error")
    x = 1e6 * raw.get_data(picks=["EEG FZ-REF", "EEG Cz-REF", "EEG Pz-REF"])
    windows = [x[:, 400 * index : 400 * (index + 1)] for index in range(first, first + n_windows)]
    return torch.from_numpy(np.stack(windows)).float()


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_recording_gets_an_answer_for_every_window_with_its_time(model, recording, capsys):
    assert predict_cli.run_command([str(recording), "--ckpt", str(model)]) == 0
    rows = table(capsys.readouterr().out)
    loaded, contract = classifier.load(model)
    with torch.no_grad():
        expected = contract.task.scores(loaded(microvolts(recording, 0, 6))).numpy()
    assert [(row["start_s"], row["stop_s"]) for row in rows] == [(f"{2 * n}", f"{2 * n + 2}") for n in range(6)]
    found = np.array([[float(row["p_rest"]), float(row["p_count"])] for row in rows])
    np.testing.assert_allclose(found, expected, atol=2e-3)  # the store's counts are whole numbers
    assert [row["answer"] for row in rows] == [["rest", "count"][index] for index in expected.argmax(1)]
    assert {row["recording"] for row in rows} == {str(recording)}


def test_several_recordings_go_into_one_file_and_a_bad_one_is_named(model, recording, tmp_path, capsys):
    short = record(tmp_path / "short.edf", seconds=5)
    other = record(tmp_path / "other.edf", labels=("EEG Pz", "EEG Oz"))
    output = tmp_path / "new" / "answers.csv"
    line = [str(recording), str(other), str(short), "--ckpt", str(model), "--output", str(output)]
    assert predict_cli.run_command(line) == 2
    rows = table(output.read_text())
    assert [row["recording"] for row in rows] == [str(recording)] * 6 + [str(short)] * 2
    said = capsys.readouterr()
    assert "8 windows of 2 recording(s)" in said.out
    assert f"error: {other} cannot be used: lacks 2 of 3 wanted channels: Fz, Cz" in said.err


def test_windows_that_the_preparation_rejects_are_left_out_and_counted(model, tmp_path, capsys):
    noisy = record(tmp_path / "noisy.edf", loud=900)
    assert predict_cli.run_command([str(noisy), "--ckpt", str(model)]) == 0
    said = capsys.readouterr()
    assert [float(row["start_s"]) for row in table(said.out)] == [0, 2, 6, 8, 10]
    assert "1 of 6 windows are left out (amplitude 1 (Pz 1))" in said.err


def test_a_dead_electrode_is_named(model, tmp_path, capsys):
    recipe = dataclasses.replace(RECIPE, windows=dataclasses.replace(RECIPE.windows, min_swing_uv=None))
    dead = record(tmp_path / "dead.edf", loud=slice(None), volts=0.0)
    assert predict_cli.run_command([str(dead), "--ckpt", str(save_model(tmp_path, recipe=recipe))]) == 0
    said = capsys.readouterr()
    assert len(table(said.out)) == 6
    assert said.err.strip().endswith(f"{dead}: nothing moves in EEG Pz-REF")


def test_a_sequence_model_sees_the_windows_in_their_row(recording, tmp_path, capsys):
    folder = save_model(tmp_path, "sequence", ("a", "b", "c"))
    assert predict_cli.run_command([str(recording), "--ckpt", str(folder)]) == 0
    found = np.array([[float(row[f"p_{name}"]) for name in "abc"] for row in table(capsys.readouterr().out)])
    loaded, contract = classifier.load(folder)
    x = microvolts(recording, 0, 6)
    with torch.no_grad():
        expected = torch.cat([contract.task.scores(loaded(part[None])[0]) for part in (x[:4], x[4:])])
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_regression_gives_values(recording, tmp_path, capsys):
    assert predict_cli.run_command([str(recording), "--ckpt", str(save_model(tmp_path, class_names=()))]) == 0
    assert set(table(capsys.readouterr().out)[0]) == {"recording", "start_s", "stop_s", "value"}


@pytest.mark.parametrize("command", [predict_cli.run_command, embed_cli.run_command])
def test_what_cannot_be_predicted_or_embedded_is_refused_with_the_reason(command, model, recording, tmp_path):
    def refused(message, *line, error=ValueError):
        output = ["--output", str(tmp_path / "x.npz")]
        with pytest.raises(error, match=message):
            command([*line, *output])
        assert not (tmp_path / "x.npz").exists()

    volts = record(tmp_path / "volts.edf", gain=1e3)
    foreign = record(tmp_path / "foreign.edf", labels=("EEG O1", "EEG O2"))
    ckpt = ["--ckpt", str(model)]
    (tmp_path / "folder").mkdir()
    refused("is a folder, and no recording: give its files, such as", str(tmp_path / "folder"), *ckpt)
    refused("is the folder of a model, which goes behind --ckpt", str(model), *ckpt)
    refused("no such recording", "nowhere.edf", *ckpt, error=FileNotFoundError)
    refused("wrong unit\\?.*microvolts, above the 1000 that EEG can have", str(volts), *ckpt)
    refused("none of the wanted channels; it has EEG O1, EEG O2", str(foreign), *ckpt)
    refused("--device nowhere cannot be used.*here are cpu", str(recording), *ckpt, "--device", "nowhere")
    refused("--batch_size is 0", str(recording), *ckpt, "--batch_size", "0")
    refused("no such file or folder", str(recording), "--ckpt", "nowhere", error=FileNotFoundError)


def test_a_store_is_no_recording_and_the_message_says_what_there_is(model, tmp_path):
    store = write_task_store(tmp_path / "store", n_subjects=3).path
    line = [str(store), "--ckpt", str(model), "--output", str(tmp_path / "x.npz")]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"is a store, and codebrain-predict reads recordings.*predictions\.csv"):
            predict_cli.run_command(line)
        (store / "progress").mkdir(exist_ok=True)
        (store / "store.json").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match="its preparation has not finished; run the same codebrain-prep"):
        embed_cli.run_command(line)


def test_advice_names_flags_that_the_command_has(model, recording, tmp_path, capsys):
    foreign = record(tmp_path / "foreign.edf", labels=("E1", "E2", "E3"))
    cut_short = tmp_path / "cut.edf"
    cut_short.write_bytes(recording.read_bytes()[:-5000])
    line = [str(recording), str(foreign), str(cut_short), "--output", str(tmp_path / "x.npz"), "--ckpt"]
    CodeBrain(**SIZES).save_pretrained(tmp_path / "export")
    rename = ". If you know which electrodes these are, say so with --channels.rename"
    for command, ckpt, flags, advice in (
        (predict_cli.run_command, model, [], ""),
        (embed_cli.run_command, model, [], ""),
        (embed_cli.run_command, tmp_path, ["--window_seconds", "2"], rename),
    ):
        assert command([*line, str(ckpt), *flags]) == 2
        said = capsys.readouterr().err
        assert f"E1, E2, E3{advice}\n" in said
        assert "; copy it again\n" in said
    volts = record(tmp_path / "volts.edf", gain=1e3)
    with pytest.raises(ValueError, match="say so with --unit V, mV, uV or nV"):
        predict_cli.run_command([str(volts), "--ckpt", str(model)])


@pytest.mark.parametrize("command", [predict_cli.run_command, embed_cli.run_command])
@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("bcic_iv_2a", "each trial is filtered by itself with a causal.*`--protocol corrected`"),
        ("isruc_s3", "reshaped to 6000 x 6 without a transposition.*cannot be done to other recordings"),
    ],
)
def test_a_published_preparation_that_knows_its_trials_is_refused(command, task, reason, recording, tmp_path):
    published, corrected = (save_model(tmp_path / kind, task=f"{task}/{kind}") for kind in ("published", "corrected"))
    line = [str(recording), "--output", str(tmp_path / "x.npz"), "--ckpt"]
    with pytest.raises(ValueError, match=reason):
        command([*line, str(published)])
    assert command([*line, str(corrected)]) == 0


def test_only_a_fine_tuned_model_predicts(recording, tmp_path):
    CodeBrain(**SIZES).save_pretrained(tmp_path / "export")
    with pytest.raises(ValueError, match="no fine-tuned model; codebrain-finetune writes one"):
        predict_cli.run_command([str(recording), "--ckpt", str(tmp_path)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("head"), "is damaged: it lacks 'head'"),
        (lambda c: c["task"].pop("kind"), "is damaged: .*'kind'"),
        (lambda c: c["head"].update(size=3), "is damaged: .*'size'"),
        (lambda c: c.update(backbone=None), "is damaged"),
        (lambda c: c["backbone"].update(activation=None), "is damaged: activation None is neither"),
        (lambda c: c["task"].update(class_names=["a", "b", "c"]), "'binary' do not fit the 1 outputs of the head"),
        (lambda c: c["task"].update(kind="multiclass"), "'multiclass' do not fit the 1 outputs"),
        (lambda c: c["task"].update(class_names=7), "is damaged"),
        (lambda c: c["task"].update(kind="other"), "'other' do not fit"),
        (lambda c: c.update(ch_names=["Fz"]), "ch_names are 1 channels, head.n_chans is 3"),
        (lambda c: c["head"].update(n_outputs=3), "do not fit the 3 outputs"),
        (lambda c: c["backbone"].update(res_channels=16), r"safetensors does not fit its config\.json: .*has shape"),
    ],
)
def test_a_damaged_fine_tuned_model_is_named(model, recording, tmp_path, change, message):
    shutil.copytree(model, tmp_path / "run")
    path = tmp_path / "run" / "export" / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as error:
        predict_cli.run_command([str(recording), "--ckpt", str(tmp_path / "run")])
    assert str(path.parent) in str(error.value)


def test_a_config_that_is_no_text_is_named(model, recording, tmp_path):
    shutil.copytree(model, tmp_path / "run")
    (tmp_path / "run" / "export" / "config.json").write_bytes(b"\xff\xfe{}")
    for command in (predict_cli.run_command, embed_cli.run_command):
        with pytest.raises(ValueError, match=r"config\.json is no valid JSON"):
            command([str(recording), "--ckpt", str(tmp_path / "run"), "--output", str(tmp_path / "x.npz")])


@pytest.mark.parametrize("command", [predict_cli.run_command, embed_cli.run_command])
def test_outputs_that_are_nan_are_an_error(command, model, recording, tmp_path, monkeypatch):
    """Of finite weights and windows."""
    forward = EEGSSM.forward
    monkeypatch.setattr(EEGSSM, "forward", lambda self, patches, mask=None: forward(self, patches, mask) * torch.inf)
    with pytest.raises(FloatingPointError, match=r"outputs for 6 of 6 windows are NaN or infinite.*night\.edf.*reject"):
        command([str(recording), "--ckpt", str(model), "--output", str(tmp_path / "x.npz")])
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("command", [predict_cli.run_command, embed_cli.run_command])
def test_a_recording_that_is_disconnected_for_a_while_is_no_error(command, tmp_path, recording):
    """Its unit is that of the whole recording, whatever single windows look like."""
    recipe = dataclasses.replace(RECIPE, windows=dataclasses.replace(RECIPE.windows, min_swing_uv=None))
    rng = np.random.default_rng(0)
    volts = 20e-6 * rng.standard_normal((3, 200 * 12))
    volts[:, 800:1600] *= 1e-4
    raw = mne.io.RawArray(volts, mne.create_info(list(CH_NAMES), 200.0, "eeg"), verbose="error")
    raw.save(tmp_path / "off_raw.fif", verbose="error")
    line = [str(tmp_path / "off_raw.fif"), "--ckpt", str(save_model(tmp_path, recipe=recipe)), "--batch_size", "1"]
    assert command([*line, "--output", str(tmp_path / "x.npz")]) == 0


def test_a_preparation_that_is_no_recipe_is_refused():
    assert recipe_of(to_dict(RECIPE) | {"task": "toy"}) == RECIPE
    with pytest.raises(ValueError, match=r"is no recipe of this version.*Prepare the store again"):
        recipe_of({"l_freq": 0.3})


# --- features --------------------------------------------------------------------------------------------------------


def embed(tmp_path, *line):
    output = tmp_path / "features.npz"
    assert embed_cli.run_command([*map(str, line), "--output", str(output)]) == 0
    with np.load(output, allow_pickle=False) as arrays:
        return dict(arrays)


def test_features_of_a_recording_have_times_and_names(recording, tmp_path):
    backbone = CodeBrain(**SIZES).save_pretrained(tmp_path / "export") or CodeBrain.from_pretrained(tmp_path).backbone
    plain = ("--clean.l_freq=null", "--clean.h_freq=null", "--clean.notch=null", "--channels.names", *CH_NAMES)
    line = (recording, "--ckpt", tmp_path, "--window_seconds", "2", *plain)
    patches = embed(tmp_path, *line, "--features", "patch")
    with torch.no_grad():
        expected = backbone_features(backbone, microvolts(recording, 0, 6)).numpy()
    assert patches["features"].shape == (6, 3, 2, 8)
    np.testing.assert_allclose(patches["features"], expected, atol=2e-2)
    assert patches["times"].tolist() == [[2.0 * n, 2.0 * n + 1] for n in range(6)]
    assert patches["ch_names"].tolist() == list(CH_NAMES)
    pooled = embed(tmp_path, *line)
    np.testing.assert_allclose(pooled["features"], patches["features"].mean((1, 2)), atol=1e-6)
    assert pooled["start"].tolist() == [0, 2, 4, 6, 8, 10]
    assert set(pooled["recording"]) == {str(recording)}


def test_a_recording_is_embedded_as_the_training_windows_were_prepared(recording, tmp_path, capsys):
    torch.manual_seed(0)
    backbone = CodeBrain(**SIZES)
    backbone.save_pretrained(tmp_path / "silent")
    clean = {"sfreq": 200.0, "l_freq": 1.0, "h_freq": 40.0, "notch": None, "order": "resample_first"}
    preparation = {**to_dict(Recipe()), "clean": clean, "channels": to_dict(MontageConfig(reference="average"))}
    backbone.record = {"stores": [{"windows": 9, "window_seconds": 4.0, "preparation": preparation}]}
    backbone.save_pretrained(tmp_path / "telling")
    found = embed(tmp_path, recording, "--ckpt", tmp_path / "telling")
    assert found["start"].tolist() == [0, 4, 8]
    assert "WARNING" not in capsys.readouterr().err
    flags = (
        *("--window_seconds", "4", "--channels.reference", "average"),
        *("--clean.l_freq", "1", "--clean.h_freq", "40", "--clean.notch", "null"),
    )
    same = embed(tmp_path, recording, "--ckpt", tmp_path / "silent", *flags)
    np.testing.assert_array_equal(found["features"], same["features"])
    assert "does not say how its training windows were prepared" in capsys.readouterr().err
    other = embed(tmp_path, recording, "--ckpt", tmp_path / "telling", "--clean.l_freq", "2")
    assert np.abs(other["features"] - found["features"]).max() > 1e-3
    warned = f"WARNING: --clean.l_freq 2.0, but {tmp_path / 'telling'} was trained with 1.0: its features will differ."
    assert capsys.readouterr().err.splitlines() == [warned]


def test_runs_of_a_person_are_of_one_subject(model, tmp_path, capsys):
    names = ("Subject28_1.edf", "Subject28_2.edf", "x/S001R01.edf", "sub-7/rest.edf", "sub-7/task.edf")
    for name in (*names, "night.edf", "x/night.edf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        record(tmp_path / name, seconds=2)
    found = embed(tmp_path, *(tmp_path / name for name in names), "--ckpt", model)
    assert found["subject"].tolist() == ["Subject28", "Subject28", "S001", "sub-7", "sub-7"]
    assert "name no subject" not in capsys.readouterr().err
    found = embed(tmp_path, tmp_path / "night.edf", tmp_path / "x" / "night.edf", "--ckpt", model)
    assert found["subject"].tolist() == ["night", "x/night"]
    assert "2 of 2 recordings name no subject in a known way" in capsys.readouterr().err
    # Two recordings of a person are two recordings.
    line = [str(tmp_path / name) for name in names[:2]]
    assert predict_cli.run_command([*line, "--ckpt", str(model), "--output", str(tmp_path / "a.csv")]) == 0
    assert "2 windows of 2 recording(s)" in capsys.readouterr().out


def test_what_is_no_whole_patch_is_said_to_be_unseen(recording, tmp_path, capsys):
    CodeBrain(**SIZES).save_pretrained(tmp_path / "export")
    embed(tmp_path, recording, "--ckpt", tmp_path, "--window_seconds", "2.5")
    said = capsys.readouterr().err
    assert "WARNING: the model reads patches of 1 s: it does not see the last 0.5 s of each window of 2.5 s." in said
    embed(tmp_path, recording, "--ckpt", tmp_path, "--window_seconds", "2")
    assert "does not see" not in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"--window_seconds 0\.5 is less than a patch of 1 s"):
        embed(tmp_path, recording, "--ckpt", tmp_path, "--window_seconds", "0.5")


def test_a_fine_tuned_model_embeds_as_it_was_prepared(model, recording, tmp_path):
    assert embed(tmp_path, recording, "--ckpt", model)["features"].shape == (6, 8)
    with pytest.raises(ValueError, match="brings its preparation: leave --window_seconds, --clean out"):
        embed(tmp_path, recording, "--ckpt", model, "--clean.notch", "50", "--window_seconds", "4")


def test_features_of_a_store_keep_labels_and_subjects(model, recording, tmp_path):
    store = write_task_store(tmp_path / "store", n_subjects=3)
    found = embed(tmp_path, store.path, "--ckpt", model)
    assert found["features"].shape == (24, 8)
    assert found["label"].tolist() == [0, 1] * 12
    assert found["class_names"].tolist() == ["rest", "count"]
    assert found["subject"].tolist() == [f"S0{index // 8}" for index in range(24)]
    with pytest.raises(ValueError, match="give the ones or the others"):
        embed(tmp_path, store.path, recording, "--ckpt", model)
    with pytest.raises(ValueError, match="must end in"):
        embed_cli.run_command([str(store.path), "--ckpt", str(model), "--output", "features.csv"])


@pytest.mark.parametrize("make", [embed_cli.run_command, predict_cli.run_command])
def test_outputs_that_cannot_be_written_are_refused_before_anything_is_read(make, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").touch()
    for output, message in (
        ("folder.npz", "is a folder"),
        ("file/deeper/a.npz", r"lies under .*file, which is a file"),
    ):
        with pytest.raises(ValueError, match=message):
            make(["nowhere.edf", "--ckpt", "nowhere", "--output", str(tmp_path / output)])


def test_patches_of_different_channels_fit_no_table(recording, tmp_path):
    CodeBrain(**SIZES).save_pretrained(tmp_path / "export")
    other = record(tmp_path / "other.edf", labels=("EEG Pz", "EEG Oz"))
    line = (recording, other, "--ckpt", tmp_path, "--window_seconds", "2")
    with pytest.raises(ValueError, match=r"of 2 kinds .* fit no common table"):
        embed(tmp_path, *line, "--features", "patch")
    assert embed(tmp_path, *line)["features"].shape == (12, 8)
