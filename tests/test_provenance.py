"""What a checkpoint has seen of those who test it: signals are told, labels are refused."""

import json
import shutil

import numpy as np
import pytest

from codebrain.model import CodeBrain
from finetune import cli, provenance
from finetune.data import open_data
from finetune.provenance import Seen
from finetune.splits import Fold
from tests.reference_finetune import TINY, write_task_store

SIZES = {"num_res_layers": 1, "res_channels": 8, "skip_channels": 8, "out_channels": 8}
PROBE = ("--mode", "probe", "--head", "mean")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_task_store(tmp_path_factory.mktemp("data") / "task")


def write_run(folder, *, data, tokenizer=()):
    """A stage's run as far as its inputs go, with a backbone."""
    CodeBrain(**SIZES).save_pretrained(folder / "export")
    (folder / "config.yaml").write_text("")
    inputs = {"data": {str(store.path): "hash" for store in data}, "tokenizer": {str(path): "" for path in tokenizer}}
    (folder / "inputs.json").write_text(json.dumps(inputs))
    return folder


def launch(store, run_dir, *flags, ckpt):
    assert cli.run_command([f"--ckpt={ckpt}", f"--data={store.path}", f"--run_dir={run_dir}", *TINY, *flags]) == 0
    return json.loads((run_dir / "report.json").read_text())


def test_recordings_are_known_by_their_files_through_the_tokenizer_too(store, tmp_path):
    """Recordings are 0.edf to 7.edf; the corpora hold the first two and the first five."""
    two, five = (write_task_store(tmp_path / f"s{n}", n_subjects=n, labelled=False) for n in (2, 5))
    tokenizer = write_run(tmp_path / "tokenizer", data=[five])
    run = write_run(tmp_path / "run", data=[two], tokenizer=[tokenizer])
    data = open_data(str(store.path))
    fold = Fold(train=np.arange(8), valid=np.arange(8), test=np.flatnonzero(data.windows.recording >= 3))
    for ckpt in (run, run / "export"):
        assert provenance.seen_in_pretraining(str(ckpt), data, fold) == Seen(2, 5)
    assert provenance.seen_in_pretraining(str(write_run(tmp_path / "other", data=[two])), data, fold) == Seen(0, 5)


def test_where_nobody_can_say_nobody_does(store, tmp_path):
    corpus = write_task_store(tmp_path / "corpus", labelled=False)
    run, data = write_run(tmp_path / "run", data=[corpus]), open_data(str(store.path))
    everybody, nobody = (Fold(train=np.arange(8), valid=np.arange(8), test=np.arange(n)) for n in (64, 0))
    assert provenance.seen_in_pretraining(str(run), data, everybody) == Seen(8, 8)
    assert provenance.seen_in_pretraining(str(run), data, nobody) is None
    assert provenance.seen_in_pretraining("none", data, everybody) is None
    assert provenance.seen_in_pretraining("user/model", data, everybody) is None
    shutil.copytree(run / "export", tmp_path / "moved")
    assert provenance.seen_in_pretraining(str(tmp_path / "moved"), data, everybody) is None
    shutil.rmtree(corpus.path)
    assert provenance.seen_in_pretraining(str(run), data, everybody) is None
    assert provenance.total([Seen(1, 4), Seen(0, 3)]) == {"seen": 1, "tested": 7}
    assert provenance.total([Seen(1, 4), None]) is None


def test_the_report_says_whose_signals_were_read(store, tmp_path):
    corpus = write_task_store(tmp_path / "corpus", labelled=False)
    run = write_run(tmp_path / "run", data=[corpus])
    kfold = ("--split.kind", "kfold", "--split.n_folds", "2")
    report = launch(store, tmp_path / "r", *PROBE, *kfold, ckpt=run)
    assert report["pretraining"] == {"seen": 8, "tested": 8}
    assert "Pre-training read 8 of the 8 test recordings, without labels" in "".join(report["cautions"])
    assert "Test recordings that pre-training read, without labels: 8 of 8." in (tmp_path / "r/report.md").read_text()
    shutil.copytree(run / "export", tmp_path / "moved")
    report = launch(store, tmp_path / "unknown", *PROBE, ckpt=tmp_path / "moved")
    assert "Pre-training read" not in "".join(report["cautions"])
    assert "is not known here" in (tmp_path / "unknown/report.md").read_text()


def test_who_taught_a_model_its_answers_does_not_test_it(store, tmp_path):
    ratio, other = (("--split.kind", "ratio", "--split.seed", seed) for seed in ("0", "1"))
    first = tmp_path / "first"
    launch(store, first, *PROBE, *ratio, ckpt="none")
    launch(store, tmp_path / "same", *PROBE, *ratio, ckpt=first)
    launch(store, tmp_path / "given", *PROBE, "--splits", str(first / "splits.json"), ckpt=first / "export")
    with pytest.raises(
        ValueError, match=r"was fine-tuned on \d of the subjects that test it \(S0\d.*Give it the splits"
    ):
        launch(store, tmp_path / "r", *PROBE, *other, ckpt=first)
    assert not (tmp_path / "r").exists()


def test_other_filters_than_those_of_pre_training_are_said(store, tmp_path, capsys):
    backbone = CodeBrain(**SIZES)
    preparation = {"clean": {"l_freq": 0.5, "h_freq": 75}, "channels": {"reference": "average"}}
    backbone.record = {"stores": [{"windows": 1, "window_seconds": 30, "preparation": preparation}]}
    backbone.save_pretrained(tmp_path / "export")
    data = open_data(str(store.path))
    data.contract.preparation.update(clean={"l_freq": 0.3, "h_freq": 75}, channels={"reference": "average"})
    said = "the windows were prepared otherwise than those of pre-training: clean.l_freq 0.3 (there 0.5)"
    assert provenance.prepared_otherwise(str(tmp_path), data) == said
    data.contract.preparation["clean"]["l_freq"] = 0.5
    assert not provenance.prepared_otherwise(str(tmp_path), data)
    assert not provenance.prepared_otherwise("none", data)
