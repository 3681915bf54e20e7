"""Fine-tuning as a user runs it, on a small store with something to learn in it."""

import json
import shutil
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import finetune.baselines
import finetune.figures
import finetune.predict
import finetune.report
import finetune.trial
from codebrain.backbone import EEGSSM, BackboneConfig
from codebrain.config import parse
from codebrain.data.format import Store
from codebrain.data.windows import Request, WindowDataset
from codebrain.layouts import to_ours
from codebrain.training.logging import read_metrics
from codebrain.weights import resolve
from finetune import classifier, cli
from finetune.classifier import layer_scale
from finetune.config import FinetuneConfig
from finetune.metrics import Predictions, score
from finetune.predict import moments
from finetune.trial import micro_batches
from tests.conftest import edit_index
from tests.processes import ROOT
from tests.reference_finetune import TINY, write_task_store

PUBLISHED = [0, 0, 0, 0, 1, 1, 2, 2]
LEARNT = (
    *("--seeds", "0", "1", "--baseline", "band_power"),
    *("--training.head_lr", "1e-2", "--optim.lr", "1e-2", "--training.epochs", "15", "--training.patience", "0"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_task_store(tmp_path_factory.mktemp("data") / "store", published=PUBLISHED)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Pictures take most of a small run's time; the module's `finished` run has them, the others compose them only."""
    monkeypatch.setattr(finetune.figures, "save", lambda figure, target: None)


def launch(store, run_dir, *flags, ckpt="none"):
    """Run the command in this process; what it returns is the report."""
    assert cli.run_command([f"--ckpt={ckpt}", f"--data={store.path}", f"--run_dir={run_dir}", *TINY, *flags]) == 0
    return json.loads((run_dir / "report.json").read_text())


@pytest.fixture(scope="module")
def elsewhere(finished, tmp_path_factory):
    """Its model, moved away from its splits: what it has learnt from whom is not known there."""
    return shutil.copytree(finished[0] / "export", tmp_path_factory.mktemp("model") / "export")


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    """A full fine-tuning with two seeds and a baseline."""
    folder = tmp_path_factory.mktemp("run") / "r"
    return folder, launch(store, folder, *LEARNT)


# --- what a run leaves behind ----------------------------------------------------------------------------------------


def test_a_run_leaves_report_model_splits_and_pictures(finished):
    folder, report = finished
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert names >= {
        "config.yaml", "splits.json", "summary.json", "report.json", "report.md", "seed-0/metrics.jsonl",
        "export/config.json", "export/model.safetensors", "export/README.md", "figures/confusion.png",
        "figures/comparison.png", "figures/curves.png", "figures/subjects.png", "figures/learning.png",
        "figures/features.png", "seed-1/predictions/test.npz",
    }  # fmt: skip
    assert report["reported_side"] == "test"
    assert set(report["arms"]) == {"codebrain", "band_power"}
    assert report["splits"]["folds"][0]["test"] == {"windows": 16, "subjects": 2, "classes": {"rest": 8, "count": 8}}


def test_the_rhythm_is_learnt_on_subjects_that_were_not_seen(finished):
    _, report = finished
    for arm in report["arms"].values():
        assert arm["test"]["metrics"]["auroc"]["mean"] > 0.9


def test_figures_are_the_mean_and_spread_of_the_seeds(finished):
    folder, report = finished
    own = [score("binary", Predictions.load(folder / f"seed-{seed}/predictions/test.npz")) for seed in (0, 1)]
    for name, entry in report["arms"]["codebrain"]["test"]["metrics"].items():
        values = [figures[name] for figures in own]
        assert entry["by_seed"] == pytest.approx(values)
        assert entry["mean"] == pytest.approx(np.mean(values))
        assert entry["sd"] == pytest.approx(np.std(values, ddof=1))


def test_the_weights_of_the_best_validation_are_judged(finished):
    folder, report = finished
    for seed, trial in enumerate(report["arms"]["codebrain"]["trials"]):
        lines = [m for m in read_metrics(folder / f"seed-{seed}") if "valid/auroc" in m and m["step"] > 0]
        top = max(line["valid/auroc"] for line in lines)
        tied = [line for line in lines if line["valid/auroc"] == top]
        assert trial["best_step"] == min(tied, key=lambda line: line["valid/loss"])["step"]
        judged = score("binary", Predictions.load(folder / f"seed-{seed}/predictions/valid.npz"))["auroc"]
        assert judged == trial["valid_auroc"] == pytest.approx(top)


def test_the_exported_model_gives_the_same_predictions_from_microvolts(finished, store):
    folder, _ = finished
    model, contract = classifier.load(folder)
    assert contract.ch_names == ("Fz", "Cz", "Pz")
    assert contract.task.class_names == ("rest", "count")
    assert contract.preparation == {"l_freq": 0.3}
    found = [Predictions.load(folder / f"seed-{seed}/predictions/test.npz") for seed in (0, 1)]
    dataset = WindowDataset([store])
    with torch.no_grad():
        again = contract.task.scores(model(dataset[Request(found[0].window)].x)).numpy()
    assert min(np.abs(again - p.score).max() for p in found) < 1e-6


def test_a_finished_run_says_so_and_changes_nothing(finished, store, capsys):
    folder, _ = finished
    before = (folder / "report.json").stat().st_mtime_ns
    launch(store, folder, *LEARNT)
    assert "is finished" in capsys.readouterr().out
    assert (folder / "report.json").stat().st_mtime_ns == before


def test_report_md_names_what_was_done(finished):
    text = (finished[0] / "report.md").read_text()
    for part in (
        "CodeBrain, `full` with head `mlp`",
        "log band power",
        "chance",
        "Per subject",
        "S06",
        "No 95 % CI and no verdict: 2 subjects, and an interval needs 6",
    ):
        assert part in text, part


def double(folder):
    """Make other weights of those of a model's folder."""
    weights = to_ours(load_file(folder / "model.safetensors"))
    save_file({name: 2 * value for name, value in weights.items()}, folder / "model.safetensors")


# --- modes -----------------------------------------------------------------------------------------------------------


def backbone_of(path):
    weights = to_ours(load_file(resolve(path).weights))
    return {name: value for name, value in weights.items() if name.startswith("backbone.")}


def test_a_probe_leaves_the_backbone_alone_and_full_fine_tuning_does_not(finished, store, tmp_path):
    source = finished[0]
    launch(store, tmp_path / "probe", "--mode", "probe", "--head", "linear", ckpt=source)
    launch(store, tmp_path / "full", "--head", "attention", "--training.layer_decay", "0.5", ckpt=source)
    start, probed, tuned = (backbone_of(path) for path in (source, tmp_path / "probe", tmp_path / "full"))
    assert all(torch.equal(start[name], probed[name]) for name in start)
    assert any(not torch.equal(start[name], tuned[name]) for name in start)
    trial = (
        json.loads((tmp_path / "probe/summary.json").read_text()),
        json.loads((tmp_path / "probe/seed-0/summary.json").read_text()),
    )
    assert trial[1]["n_trained"] == 3 * 2 * 8 + 1


def test_a_frozen_backbone_computes_each_window_once_for_all_folds_and_seeds(elsewhere, store, tmp_path, monkeypatch):
    computed, real = [], finetune.predict.backbone_features

    def counted(backbone, x_uv):
        computed.append(len(x_uv))
        return real(backbone, x_uv)

    monkeypatch.setattr(finetune.predict, "backbone_features", counted)
    flags = (
        "--mode",
        "probe",
        "--head",
        "attention",
        "--split.kind",
        "kfold",
        "--split.n_folds",
        "2",
        "--seeds",
        "0",
        "1",
    )
    launch(store, tmp_path / "kept", *flags, ckpt=elsewhere)
    assert sum(computed) == 64
    monkeypatch.setattr(finetune.predict, "CACHE_BYTES", 0)
    launch(store, tmp_path / "anew", *flags, ckpt=elsewhere)
    assert sum(computed) > 64 + 4 * 64
    for path in (tmp_path / "kept").rglob("predictions/*.npz"):
        one, other = Predictions.load(path), Predictions.load(tmp_path / "anew" / path.relative_to(tmp_path / "kept"))
        np.testing.assert_allclose(one.score, other.score, atol=1e-5)


def test_probe_then_full_starts_from_the_probe(store, tmp_path, monkeypatch):
    known, real = [], finetune.trial.fit

    def fit(run, **options):
        known.append(len(run.accelerator._optimizers))
        return real(run, **options)

    monkeypatch.setattr(finetune.trial, "fit", fit)
    report = launch(
        store, tmp_path / "r", "--mode", "probe_then_full", "--head", "mean", "--training.head_lr", "3e-2",
    )  # fmt: skip
    probe, full = (read_metrics(tmp_path / "r" / path) for path in ("seed-0/probe", "seed-0"))
    best = max(line["valid/auroc"] for line in probe if "valid/auroc" in line and line["step"] > 0)
    assert known == [0, 0], "float16 would unscale the gradients of the probe's optimizer, which has none any more"
    assert full[0]["step"] == 0
    assert full[0]["valid/auroc"] == pytest.approx(best), "full fine-tuning begins where the probe was best"
    assert (
        report["arms"]["codebrain"]["trials"][0]["n_trained"]
        == report["arms"]["codebrain"]["trials"][0]["n_parameters"]
    )


def test_folds_test_every_subject_once_beside_the_same_on_an_untrained_backbone(elsewhere, store, tmp_path):
    report = launch(
        store, tmp_path / "r", "--mode", "probe", "--head", "linear", "--split.kind", "kfold", "--split.n_folds", "3",
        "--baseline", "untrained", "band_power", ckpt=elsewhere,
    )  # fmt: skip
    for arm in ("codebrain", "untrained", "band_power"):
        entry = report["arms"][arm]["test"]
        assert entry["windows"] == 64
        assert entry["subjects"] == 8
        assert len(entry["folds"]["auroc"]["by_fold"]) == 3
    assert (tmp_path / "r/untrained/fold-2/seed-0/predictions/test.npz").exists()
    assert "Within each fold" in (tmp_path / "r/report.md").read_text()


def test_each_fold_may_start_from_a_backbone_of_its_own(elsewhere, store, tmp_path):
    kfold = ("--mode", "probe", "--head", "mean", "--split.kind", "kfold", "--split.n_folds", "2")
    export = elsewhere
    with pytest.raises(FileNotFoundError, match="own-1"):
        (tmp_path / "own-0").symlink_to(export)
        launch(store, tmp_path / "refused", *kfold, ckpt=str(tmp_path / "own-{fold}"))
    assert not (tmp_path / "refused").exists()
    shutil.copytree(export, tmp_path / "own-1")
    double(tmp_path / "own-1")
    launch(store, tmp_path / "shared", *kfold, ckpt=export)
    launch(store, tmp_path / "own", *kfold, ckpt=str(tmp_path / "own-{fold}"))
    scores = {
        (run, fold): np.load(tmp_path / run / f"fold-{fold}/seed-0/predictions/test.npz")["score"]
        for run in ("shared", "own")
        for fold in (0, 1)
    }
    assert np.array_equal(scores["own", 0], scores["shared", 0])
    assert not np.allclose(scores["own", 1], scores["shared", 1])


def test_several_classes_and_a_regression(tmp_path):
    three = write_task_store(tmp_path / "three", n_subjects=6, class_names=("a", "b", "c"))
    report = launch(three, tmp_path / "r3", "--mode", "probe", "--head", "linear", "--baseline", "band_power")
    assert report["selected_by"] == "valid/kappa"
    assert report["chance"]["balanced_accuracy"] == pytest.approx(1 / 3)
    number = write_task_store(tmp_path / "number", n_subjects=6, class_names=())
    report = launch(number, tmp_path / "rn", "--mode", "probe", "--head", "linear", "--baseline", "band_power")
    assert report["selected_by"] == "valid/r2"
    trained = [line for line in read_metrics(tmp_path / "rn/seed-0") if "valid/loss" in line]
    assert trained[0]["valid/loss"] == pytest.approx(1 - trained[0]["valid/r2"], rel=0.2), "in units of the variance"
    assert report["arms"]["band_power"]["test"]["metrics"]["r2"]["mean"] > 0.6
    assert report["arms"]["codebrain"]["test"]["metrics"]["r2"]["mean"] > -0.5, "it begins at the mean"
    assert "confusion" not in report["arms"]["codebrain"]["test"]


def test_without_test_windows_everything_is_on_validation_and_says_so(tmp_path, capsys):
    store = write_task_store(tmp_path / "s", published=[0, 0, 0, 0, 0, 0, 1, 1])
    report = launch(store, tmp_path / "r", "--mode", "probe", "--head", "mean")
    assert report["reported_side"] == "valid"
    assert report["cautions"][0].startswith("THERE IS NO TEST SET")
    assert "VALIDATION" in (tmp_path / "r/report.md").read_text()
    assert "THERE IS NO TEST SET" in capsys.readouterr().out


def test_the_splits_of_another_run_can_be_used(finished, store, tmp_path):
    folder, _ = finished
    launch(store, tmp_path / "r", "--mode", "probe", "--head", "mean", "--splits", str(folder / "splits.json"))
    assert (tmp_path / "r/splits.json").read_bytes() == (folder / "splits.json").read_bytes()


# --- parts of a batch ------------------------------------------------------------------------------------------------


def test_one_process_computes_the_same_parts_of_a_batch_as_several():
    assert micro_batches(64, 32, 1) == (32, 2)
    assert micro_batches(64, 32, 2) == (32, 1)
    assert micro_batches(48, 32, 1) == (24, 2)
    assert micro_batches(8, 32, 1) == (8, 1)
    with pytest.raises(ValueError, match="batch_size 7 does not divide by 2 processes"):
        micro_batches(7, 32, 2)


def test_a_batch_that_processes_cannot_share_leaves_no_folder(store, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    message = "batch_size 16 does not divide by 3 processes, which share every batch. Give 15 or another multiple of 3"
    with pytest.raises(ValueError, match=message):
        launch(store, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_process_without_windows_joins_the_moments():
    rows = torch.randn(5, 3, dtype=torch.float64)
    others = torch.stack([torch.full((3,), 5.0), rows.sum(0), rows.square().sum(0)])
    accelerator = SimpleNamespace(reduce=lambda sums, reduction: sums + others)
    run = SimpleNamespace(world=2, device=torch.device("cpu"), accelerator=accelerator)
    mean, spread = moments(run, [], 3)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(spread, rows.std(0, correction=0))


# --- refusals --------------------------------------------------------------------------------------------------------


def refused(message, store, run_dir, *flags, error=ValueError, **options):
    with pytest.raises(error, match=message):
        launch(store, run_dir, *flags, **options)


def test_checkpoints_that_are_none_are_refused(store, tmp_path):
    refused("no such file or folder.*stage-2 run", store, tmp_path / "a", ckpt="nowhere", error=FileNotFoundError)
    tokenizer = tmp_path / "tokenizer/export"
    tokenizer.mkdir(parents=True)
    (tokenizer / "config.json").write_text('{"model_type": "codebrain-tokenizer"}')
    save_file({"encoder.weight": torch.zeros(1)}, tokenizer / "model.safetensors")
    refused("'codebrain-tokenizer'.*stage-2 run", store, tmp_path / "b", ckpt=tokenizer.parent)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((tokenizer / "model.safetensors").read_bytes()[:-2])
    refused("broken.*may be incomplete.*copy or download it again", store, tmp_path / "c", ckpt=broken)
    assert not [path for path in "abc" if (tmp_path / path).exists()], "nothing is left behind"


def test_stores_that_cannot_be_learnt_from_are_refused(tmp_path):
    corpus = write_task_store(tmp_path / "corpus", labelled=False)
    refused("has no labels.*codebrain-prep task", corpus, tmp_path / "a")
    twins = write_task_store(tmp_path / "twins", twin=(0, 7), published=PUBLISHED)
    refused("identical content.*0.edf.*in train.*7.edf.*in test", twins, tmp_path / "b")
    assert not (tmp_path / "b/splits.json").exists()
    slow = write_task_store(tmp_path / "slow", sfreq=100)
    refused("sampled at 100 Hz, the model needs 200 Hz", slow, tmp_path / "c")
    nowhere = SimpleNamespace(path=tmp_path / "nowhere")
    refused("no such store. `codebrain-prep task NAME", nowhere, tmp_path / "d", error=FileNotFoundError)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("what", ["windows", "label", "scale"])
def test_a_damaged_store_is_refused_by_the_shards_name_before_any_training(what, tmp_path):
    """Bits of the EEG, inverted labels, other scales: whatever the disk made of it."""
    store = write_task_store(tmp_path / "s")
    changes = {"windows": lambda x: x ^ 1, "label": lambda x: 1 - x, "scale": lambda x: 1000 * x}
    with h5py.File(store.path / store.shards[0].file, "r+") as h5:
        h5[what][:] = changes[what](h5[what][:])
    refused(r"shards/a\.h5 cannot be read \(its digest.*same codebrain-prep command again", store, tmp_path / "r")
    assert not (tmp_path / "r/splits.json").exists()


def test_a_store_of_an_earlier_version_is_warned_of(tmp_path, capsys):
    store = write_task_store(tmp_path / "s", published=PUBLISHED)
    edit_index(store, preparation_version=0)
    launch(store, tmp_path / "r", "--mode", "probe", "--head", "mean")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING")]
    assert line == f"WARNING: {Store.open(store.path).outdated()}"


def test_a_class_without_a_training_example_ends_the_command_with_2(tmp_path, monkeypatch, capsys):
    store = write_task_store(tmp_path / "s", class_names=("a", "b", "c"), per_subject=2)
    line = ["codebrain-finetune", "--ckpt=none", f"--data={store.path}", f"--run_dir={tmp_path / 'r'}", *TINY]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "class 'c' has no example in the training split" in capsys.readouterr().err


def test_a_store_that_changed_since_is_refused(store, tmp_path):
    launch(store, tmp_path / "r", "--mode", "probe", "--head", "mean")
    (tmp_path / "r/summary.json").unlink()
    manifest = json.loads((tmp_path / "r/splits.json").read_text())
    manifest["store"] = "another"
    (tmp_path / "r/splits.json").write_text(json.dumps(manifest))
    refused("have changed since", store, tmp_path / "r", "--mode", "probe", "--head", "mean")


def test_splits_may_be_mended_until_something_was_trained(store, tmp_path, monkeypatch):
    flags = ("--mode", "probe", "--head", "mean", "--split.kind", "kfold")

    def dies(trial):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune.trial.Trial, "execute", dies)
        with pytest.raises(KeyboardInterrupt):
            launch(store, tmp_path / "r", *flags, "--split.n_folds", "4")
    report = launch(store, tmp_path / "r", *flags, "--split.n_folds", "3")
    assert len(report["splits"]["folds"]) == len(json.loads((tmp_path / "r/splits.json").read_text())["folds"]) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "1", "1"], "one or more different numbers"),
        (["--baseline", "untrained"], "--ckpt none has them already"),
        (["--training.epochs", "0"], "must be at least 1"),
        (["--training.patience", "-1"], "patience is -1; it must be at least 0"),
        (["--training.num_workers", "-1"], "num_workers is -1; it must be at least 0"),
        (["--training.dropout", "1.5"], "dropout is 1.5; it must be 0 or more, and below 1"),
        (["--training.label_smoothing", "2"], "label_smoothing is 2.0; it must be 0 or more, and below 1"),
        (["--optim.lr", "0"], r"optim.lr is 0; it must be above 0"),
        (["--optim.grad_clip", "-1"], "grad_clip is -1; it cannot be negative"),
        (["--optim.min_lr", "1"], "min_lr is 1; it must lie between 0 and --optim.lr"),
        (["--optim.betas", "0.9", "1.0"], "they must be 0 or more, below 1"),
        (["--seeds", "0", "-1"], "a seed is a whole number, 0 or more"),
        (["--splits", "s.json", "--split.kind", "kfold"], "brings its own split: leave --split"),
        (["--training.head_lr", "0"], "head_lr is 0.0; it must be above 0"),
        (["--head", "sequence", "--training.sequence_length", "2", "--training.hidden", "30"], "must divide by its 4"),
        (["--training.layer_decay", "1.5"], "not above 1"),
        (["--split.kind", "kfold", "--split.n_folds", "9"], "n_folds is 9, but the store has 8 subjects"),
        (["--training.epoch", "3"], "Did you mean 'training.epochs'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_written(store, tmp_path, flags, message):
    refused(message, store, tmp_path / "r", *flags)
    assert not (tmp_path / "r").exists()


def test_pyriemann_is_asked_for_only_where_it_is_needed(store, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("pip install pyriemann", store, tmp_path / "r", "--baseline", "tangent_space")


# --- launched again --------------------------------------------------------------------------------------------------


def test_more_seeds_and_baselines_train_what_is_missing(store, tmp_path, monkeypatch, capsys):
    trained, real = [], finetune.trial.fit

    def fit(run, **options):
        trained.append(run.path.name)
        return real(run, **options)

    monkeypatch.setattr(finetune.trial, "fit", fit)
    flags = ("--mode", "probe", "--head", "mean")
    one = launch(store, tmp_path / "r", *flags)
    more = ("--seeds", "0", "1", "--baseline", "band_power", "--training.num_workers", "1")
    two = launch(store, tmp_path / "r", *flags, *more)
    assert trained == ["seed-0", "seed-1"]
    auroc = [content["arms"]["codebrain"]["test"]["metrics"]["auroc"]["by_seed"] for content in (one, two)]
    assert auroc[1][:1] == auroc[0]
    assert "band_power" in two["arms"]
    assert json.loads((tmp_path / "r/report.json").read_text())["config"]["seeds"] == [0, 1]
    refused("head was 'mean', now 'linear'", store, tmp_path / "r", "--mode", "probe", "--head", "linear")


def test_a_run_that_dies_at_its_end_does_not_train_again(store, tmp_path, monkeypatch):
    def dies(*arguments):
        raise KeyboardInterrupt

    flags = ("--mode", "probe", "--head", "mean", "--baseline", "band_power")
    with monkeypatch.context() as patch:
        patch.setattr(finetune.report, "build", dies)
        with pytest.raises(KeyboardInterrupt):
            launch(store, tmp_path / "r", *flags)
    with monkeypatch.context() as patch:
        patch.setattr(finetune.trial, "fit", dies)
        patch.setattr(finetune.baselines, "predict", dies)
        again = launch(store, tmp_path / "r", *flags)
    assert set(again["arms"]) == {"codebrain", "band_power"}


def test_a_damaged_file_of_a_trial_is_named_and_the_advice_helps(store, tmp_path):
    flags = ("--mode", "probe", "--head", "mean", "--seeds", "0", "1")
    before = launch(store, tmp_path / "r", *flags)
    (tmp_path / "r/summary.json").unlink()
    damaged = tmp_path / "r/seed-1/predictions/test.npz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    summary = tmp_path / "r/seed-1/summary.json"
    refused(rf"{damaged} is missing or damaged .*Delete {summary} and launch again", store, tmp_path / "r", *flags)
    summary.unlink()
    after = launch(store, tmp_path / "r", *flags)
    assert after["arms"]["codebrain"]["test"] == before["arms"]["codebrain"]["test"]


def test_a_trial_that_is_done_keeps_no_checkpoints(finished, store, tmp_path):
    launch(store, tmp_path / "r", "--mode", "probe_then_full", "--head", "mean")
    assert not list(tmp_path.rglob("step-*"))
    assert not list(finished[0].rglob("step-*"))
    flags = ("--mode", "probe_then_full", "--head", "mean", "--training.dropout", "0.2")
    refused("dropout was 0.1, now 0.2", store, tmp_path / "r", *flags)


def test_another_checkpoint_or_store_is_no_continuation(finished, store, tmp_path):
    """Where they lie may change, what they are may not; of a finished run neither."""
    one, other = (shutil.copytree(finished[0] / "export", tmp_path / name) for name in ("one", "other"))
    double(other)
    flags = ("--mode", "probe", "--head", "mean", "--split.kind", "kfold", "--split.n_folds", "2")
    launch(store, tmp_path / "r", *flags, ckpt=one)
    one.rename(tmp_path / "moved")
    launch(store, tmp_path / "r", *flags, ckpt=tmp_path / "moved")
    said = (tmp_path / "r/config.yaml").read_text()
    assert str(tmp_path / "moved") in said
    refused("was trained with other contents of --ckpt", store, tmp_path / "r", *flags, ckpt=other)
    shorter = write_task_store(tmp_path / "shorter", per_subject=7)
    refused("have changed since", shorter, tmp_path / "r", *flags, ckpt=tmp_path / "moved")
    assert (tmp_path / "r/config.yaml").read_text() == said, "the report points to what was trained"


def test_full_training_does_not_give_up_what_the_probe_has_reached(store, tmp_path):
    """At a rate that ruins the weights the first validation, on those of the probe, is the best."""
    flags = ("--mode", "probe_then_full", "--head", "mean", "--training.head_lr", "3e-2", "--training.epochs", "4")
    report = launch(store, tmp_path / "r", *flags, "--optim.lr", "30", "--optim.warmup_steps", "0")
    (trial,) = report["arms"]["codebrain"]["trials"]
    probe = [
        m["valid/auroc"] for m in read_metrics(tmp_path / "r/seed-0/probe") if m.get("step") and "valid/auroc" in m
    ]
    assert trial["best_step"] == 0
    assert trial["valid_auroc"] == pytest.approx(max(probe))


def test_a_probe_keeps_its_head_and_the_run_its_model(store, tmp_path):
    report = launch(store, tmp_path / "r", "--mode", "probe", "--head", "linear", "--seeds", "0", "1")
    assert not list(tmp_path.glob("r/seed-*/export"))
    model, contract = classifier.load(tmp_path / "r")
    trials = report["arms"]["codebrain"]["trials"]
    best = max(trials, key=lambda trial: trial["valid_auroc"])["seed"]
    found = Predictions.load(tmp_path / f"r/seed-{best}/predictions/test.npz")
    with torch.no_grad():
        again = contract.task.scores(model(WindowDataset([store])[Request(found.window)].x)).numpy()
    np.testing.assert_allclose(again, found.score, atol=1e-6)


def test_answers_that_are_no_numbers_end_the_run_with_the_reason(store, tmp_path, monkeypatch):
    real = finetune.trial.outputs

    def broken(run, dataset, compute, batch_size):
        found = real(run, dataset, compute, batch_size)
        found.values[1] = torch.nan
        return found

    monkeypatch.setattr(finetune.trial, "outputs", broken)
    with pytest.raises(
        FloatingPointError, match=r"outputs for 1 of 16 windows are NaN or infinite, such as for window 33"
    ):
        launch(store, tmp_path / "r")


def test_every_window_alone_with_its_subject(tmp_path):
    """Leave-one-subject-out with one window each: no figure within a fold is defined, no picture can be drawn."""
    store = write_task_store(tmp_path / "s", n_subjects=8, per_subject=1, labels=[0, 1] * 4)
    flags = (
        "--mode",
        "probe",
        "--head",
        "mean",
        "--split.kind",
        "leave_one_subject_out",
        "--split.valid_fraction",
        "0.3",
    )
    report = launch(store, tmp_path / "r", *flags)
    assert report["arms"]["codebrain"]["test"]["windows"] == 8
    assert report["arms"]["codebrain"]["test"]["folds"]["auroc"]["by_fold"] == [None] * 8


def test_a_published_test_split_of_one_class_is_named_before_and_after(tmp_path, capsys):
    labels = [0, 1] * 10 + [1] * 4
    store = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4, labels=labels, published=[0, 0, 0, 1, 1, 2])
    report = launch(store, tmp_path / "r", "--mode", "probe", "--head", "mean")
    before, _, after = capsys.readouterr().out.partition("seed-0: valid_auroc")
    assert (
        "WARNING: the test split holds one class only (0 x rest, 4 x count), which leaves balanced accuracy" in before
    )
    assert "The test split holds one class only (0 x rest, 4 x count)" in after
    assert set(report["chance"].values()) == {None}
    (chance,) = [line for line in (tmp_path / "r/report.md").read_text().splitlines() if line.startswith("| chance")]
    assert chance == "| chance | undefined | undefined | undefined |"


# --- layers ----------------------------------------------------------------------------------------------------------


def test_layer_wise_decay_grows_towards_the_input():
    backbone = EEGSSM(BackboneConfig(num_res_layers=3, res_channels=8, skip_channels=8, out_channels=8))
    scale = {name: layer_scale(name, 3, 0.5) for name, _ in backbone.named_parameters()}
    assert scale["norm.weight"] == scale["output.weight"] == scale["gather.bias"] == 1
    assert scale["blocks.2.expand.bias"] == 0.5
    assert scale["blocks.0.expand.bias"] == 0.125
    assert scale["patch_embedding.spectral.weight"] == scale["input.bias"] == 0.0625


# --- presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "tiny"])
def test_presets_are_read_and_flags_override_them(name):
    argv = [f"--config={ROOT / 'finetune/configs' / name}.yaml", "--ckpt=a", "--data=b", "--run_dir=c", "--seeds", "7"]
    config = parse(FinetuneConfig, argv, prog="", description="")
    assert config.seeds == [7]
    assert (config.optim.lr, config.training.head_lr) == {"paper": (1e-4, 1e-4), "tiny": (5e-4, 1e-3)}[name]
    assert config.optim.grad_clip == 5.0
