"""What a checkpoint has seen of those who test it: signals are told, labels are refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import finetune.figures
from codebrain.model import CodeBrain
from finetune import cli, provenance
from finetune.data import open_data
from finetune.provenance import Lesson, Origin, Seen, total
from finetune.splits import Fold
from finetune.trial import Trial
from tests.reference_finetune import TINY, write_task_store
from tests.test_tokenizer import TINY as TOKENIZER
from tokenizer.cache import fingerprint
from tokenizer.model import DualTokenizer

SIZES = {"num_res_layers": 1, "res_channels": 8, "skip_channels": 8, "out_channels": 8}
PROBE = ("--mode", "probe", "--head", "mean")
KFOLD = ("--split.kind", "kfold", "--split.n_folds", "2")


@pytest.fixture(autouse=True, scope="module")
def _undrawn():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune.figures, "save", lambda figure, target: None)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_task_store(tmp_path_factory.mktemp("data") / "task")


def write_run(folder, *, data, tokenizer=()):
    """A stage's run as far as its inputs go, with a backbone, or with a tokenizer where it has none. Holds S00 out."""
    if tokenizer:
        CodeBrain(**SIZES).save_pretrained(folder / "export")
    else:
        DualTokenizer(TOKENIZER).save_pretrained(folder / "export")
    (folder / "config.yaml").write_text("split: {valid_subjects: [S00]}")
    hashes = {str(path): fingerprint(DualTokenizer.from_pretrained(path)) for path in tokenizer}
    inputs = {"data": {str(store.path): store.fingerprint() for store in data}, "tokenizer": hashes}
    (folder / "inputs.json").write_text(json.dumps(inputs))
    return folder


def write_pretrained(folder, corpus):
    """A stage-2 run on a corpus, whose tokenizer has read the same."""
    tokenizer = write_run(folder / "tokenizer", data=[corpus])
    return write_run(folder / "backbone", data=[corpus], tokenizer=[tokenizer])


def seen(ckpt, data, fold):
    return Origin.of(str(ckpt)).seen(data, fold)


def of(data, first, test=True):
    """A fold that is judged by the recordings from `first` on."""
    ids, none = np.flatnonzero(data.windows.recording >= first), np.arange(0)
    return Fold(train=np.arange(8), valid=np.arange(8) if test else ids, test=ids if test else none)


def launch(store, run_dir, *flags, ckpt):
    assert cli.run_command([f"--ckpt={ckpt}", f"--data={store.path}", f"--run_dir={run_dir}", *TINY, *flags]) == 0
    return json.loads((run_dir / "report.json").read_text())


def said(run_dir):
    return (run_dir / "report.md").read_text()


# --- signals ---------------------------------------------------------------------------------------------------------


def test_recordings_are_known_by_their_files_through_the_tokenizer_too(store, tmp_path):
    """Recordings are 0.edf to 7.edf; the corpora hold the first two and the first five."""
    two, five = (write_task_store(tmp_path / f"s{n}", n_subjects=n, labelled=False) for n in (2, 5))
    tokenizer = write_run(tmp_path / "tokenizer", data=[five])
    run = write_run(tmp_path / "run", data=[two], tokenizer=[tokenizer])
    data = open_data(str(store.path))
    for ckpt in (run, run / "export", run / "export/model.safetensors"):
        assert seen(ckpt, data, of(data, 3)) == Seen(2, 5)
    assert seen(write_pretrained(tmp_path / "other", two), data, of(data, 3)) == Seen(0, 5)
    assert seen(run, data, of(data, 4, test=False)) == Seen(1, 4), "without a test set validation is judged"
    (tmp_path / "link").symlink_to(run / "export")
    assert seen(tmp_path / "link", data, of(data, 3)) == Seen(2, 5)


def test_files_of_one_name_are_told_apart_by_their_subjects(store):
    """As `sub-7/rest.edf` is, of every subject; S00 to S02 are held out."""
    data = open_data(str(store.path))
    alike = replace(data, store=replace(store, recordings=[replace(r, path="rest.edf") for r in store.recordings]))
    read = frozenset((f"S{row:02d}", "rest.edf") for row in range(3, 8))
    assert Origin("c", (), read, ()).seen(alike, of(data, 0)) == Seen(5, 8)
    assert Origin("c", (), frozenset({("other", "3.edf")}), ()).seen(data, of(data, 0)) == Seen(1, 8)
    assert Origin("c", (), frozenset({("other", "rest.edf")}), ()).seen(alike, of(data, 0)) == Seen(0, 8)


def test_where_nobody_can_say_nobody_does(store, tmp_path, monkeypatch):
    corpus = write_task_store(tmp_path / "corpus", labelled=False)
    run, data = write_pretrained(tmp_path / "runs", corpus), open_data(str(store.path))
    assert seen(run, data, of(data, 0)) == Seen(7, 8)
    assert seen("none", data, of(data, 0)) == Seen(0, 8)
    apart = "is not in the folder of the run that made it"
    assert seen("user/model", data, of(data, 0)) == Seen(0, 8, f"user/model {apart}")
    moved = shutil.copytree(run / "export", tmp_path / "moved")
    assert seen(moved, data, of(data, 0)) == Seen(0, 8, f"{moved} {apart}")
    inside = shutil.copytree(run / "export", run / "mine/of/another/run")
    assert seen(inside, data, of(data, 0)) == Seen(0, 8, f"{inside} {apart}"), "whatever lies around it"
    assert total([Seen(1, 4), Seen(0, 3)]) == {"seen": 1, "tested": 7, "unknown": ""}
    assert total([Seen(1, 4), Seen(0, 3, "why")]) == {"seen": 1, "tested": 7, "unknown": "why"}


def test_inputs_that_cannot_be_followed_leave_it_open(store, tmp_path, monkeypatch):
    """The corpus of the backbone has the first two recordings, the tokenizer's all."""
    two, all_ = (write_task_store(tmp_path / f"s{n}", n_subjects=n, labelled=False) for n in (2, 8))
    data = open_data(str(store.path))
    home, away = (tmp_path / name for name in ("home", "away"))
    for place in (home, away):
        place.mkdir()
    monkeypatch.chdir(home)
    write_run(Path("tokenizer"), data=[all_])
    write_run(Path("run"), data=[two], tokenizer=["tokenizer"])
    assert seen("run", data, of(data, 0)) == Seen(7, 8)
    monkeypatch.chdir(away)
    apart = "tokenizer is not in the folder of the run that made it"
    assert seen(home / "run", data, of(data, 0)) == Seen(1, 8, apart)
    torch.manual_seed(1)
    write_run(Path("tokenizer"), data=[two])
    other = f"tokenizer is not the tokenizer that {home / 'run'} was trained with"
    assert seen("../home/run", data, of(data, 0)) == Seen(1, 8, other), "one that has the same name here"
    monkeypatch.chdir(home)
    shutil.rmtree(all_.path)
    assert "s8: no such store" in seen("run", data, of(data, 0)).unknown
    write_task_store(tmp_path / "s8", n_subjects=3, labelled=False, seed=1)
    assert f"the store {tmp_path / 's8'} is not any more what was read there" in seen("run", data, of(data, 0)).unknown


@pytest.mark.parametrize("file", ["inputs.json", "../../corpus/store.json"])
def test_damaged_notes_are_told_and_stop_nothing(file, store, tmp_path):
    run = write_pretrained(tmp_path / "runs", write_task_store(tmp_path / "corpus", labelled=False))
    data = open_data(str(store.path))
    (run / file).write_text("{")
    assert re.search(
        rf"{Path(file).name} is damaged \(.*(Delete|codebrain-prep command again)", seen(run, data, of(data, 0)).unknown
    )
    (run / "inputs.json").unlink()
    assert seen(run, data, of(data, 0)).unknown.endswith("inputs.json, which says what was read, is not there")


def test_the_report_says_whose_signals_were_read(store, tmp_path):
    corpus = write_task_store(tmp_path / "corpus", n_subjects=8, labelled=False)
    run = write_pretrained(tmp_path / "runs", corpus)
    report = launch(store, tmp_path / "r", *PROBE, *KFOLD, ckpt=run)
    assert report["pretraining"] == {"seen": 7, "tested": 8, "unknown": ""}
    assert "Pre-training was done on 7 of the 8 test recordings, without labels" in "".join(report["cautions"])
    assert "Test recordings that pre-training was done on, without labels: 7 of 8." in said(tmp_path / "r")
    shutil.copytree(run / "export", tmp_path / "moved")
    report = launch(store, tmp_path / "unknown", *PROBE, ckpt=tmp_path / "moved")
    assert "Pre-training was" not in "".join(report["cautions"])
    assert "is not known here" in said(tmp_path / "unknown")
    assert "moved is not in the folder of the run that made it." in said(tmp_path / "unknown")
    shutil.rmtree(run.parent / "tokenizer")
    launch(store, tmp_path / "part", *PROBE, *KFOLD, ckpt=run)
    assert re.search(r"at least 7 of 8. Not all is known here: .*tokenizer is not in", said(tmp_path / "part"))
    launch(store, tmp_path / "scratch", *PROBE, ckpt="none")
    assert "pre-training" not in said(tmp_path / "scratch")


def test_without_a_test_set_the_report_speaks_of_validation(tmp_path):
    store = write_task_store(tmp_path / "task", published=[0, 0, 0, 0, 0, 1, 1, 1])
    run = write_pretrained(tmp_path / "runs", write_task_store(tmp_path / "corpus", n_subjects=6, labelled=False))
    report = launch(store, tmp_path / "r", *PROBE, ckpt=run)
    assert "Pre-training was done on 1 of the 3 validation recordings" in "".join(report["cautions"])
    assert "validation set that pre-training was done on, without labels: 1 of 3." in said(tmp_path / "r")


def test_the_pre_training_behind_a_fine_tuned_run_is_found(store, tmp_path):
    run = write_pretrained(tmp_path / "runs", write_task_store(tmp_path / "corpus", n_subjects=5, labelled=False))
    launch(store, tmp_path / "first", *PROBE, ckpt=run)
    data = open_data(str(store.path))
    assert seen(tmp_path / "first", data, of(data, 3)) == Seen(2, 5)
    torch.manual_seed(1)
    CodeBrain(**SIZES).save_pretrained(run / "export")
    unknown = seen(tmp_path / "first", data, of(data, 3)).unknown
    assert unknown == f"{run} is not any more what {tmp_path / 'first'} started from"


def test_what_is_gone_or_damaged_when_all_is_trained_costs_no_report(store, tmp_path, monkeypatch):
    corpus = write_task_store(tmp_path / "corpus", labelled=False)
    run = write_pretrained(tmp_path / "runs", corpus)
    execute = Trial.execute

    def damaging(trial):
        (corpus.path / "store.json").write_text("{")
        return execute(trial)

    monkeypatch.setattr(Trial, "execute", damaging)
    assert launch(store, tmp_path / "r", *PROBE, ckpt=run)["pretraining"]["seen"] == 2


# --- labels ----------------------------------------------------------------------------------------------------------


def test_who_taught_a_model_its_answers_does_not_test_it(store, tmp_path):
    ratio, other = (("--split.kind", "ratio", "--split.seed", seed) for seed in ("0", "1"))
    first = tmp_path / "first"
    launch(store, first, *PROBE, *ratio, ckpt="none")
    launch(store, tmp_path / "same", *PROBE, *ratio, ckpt=first)
    launch(store, tmp_path / "given", *PROBE, "--splits", str(first / "splits.json"), ckpt=first / "export")
    refused = r"was fine-tuned on \d of the subjects that test it \(S0\d.*Give it the splits"
    for ckpt in (first, tmp_path / "same"):  # itself, or what it started from
        with pytest.raises(ValueError, match=refused):
            launch(store, tmp_path / "r", *PROBE, *other, ckpt=ckpt)
    assert not (tmp_path / "r").exists()
    moved = shutil.copytree(first / "export", tmp_path / "moved")
    launch(store, tmp_path / "unknown", *PROBE, *other, ckpt=moved)
    assert "; whose labels it was fine-tuned on is not known either." in said(tmp_path / "unknown")


@pytest.fixture(scope="module")
def folds(store, tmp_path_factory):
    """A run over two folds, each of whose trials is a model."""
    run = tmp_path_factory.mktemp("runs") / "folds"
    launch(store, run, "--head=mean", *KFOLD, "--training.epochs=1", ckpt="none")
    return run


def test_a_fold_s_own_trial_is_judged_by_whom_it_has_not_learnt_from(store, folds, tmp_path):
    given = ("--splits", str(folds / "splits.json"))
    with pytest.raises(ValueError, match=r"subjects that test it in fold \d") as refused:
        launch(store, tmp_path / "r", *PROBE, *given, ckpt=folds)
    remedy = re.search(r"\(--ckpt '(\S+)' --splits (\S+)\)", str(refused.value))
    assert remedy
    assert "start from what it started from (--ckpt none)" in str(refused.value)
    launch(store, tmp_path / "own", *PROBE, "--splits", remedy[2], ckpt=remedy[1])
    launch(store, tmp_path / "export", *PROBE, *KFOLD, ckpt=folds / "fold-{fold}/seed-0/export")
    for trial in ("fold-1/seed-0", "fold-1/seed-0/export"):
        with pytest.raises(ValueError, match="that test it in fold 0"):
            launch(store, tmp_path / "r", *PROBE, *given, ckpt=folds / trial)


def test_a_probe_over_folds_has_no_models_to_advise(store, tmp_path):
    launch(store, tmp_path / "folds", *PROBE, *KFOLD, ckpt="none")
    with pytest.raises(ValueError, match=r"in fold \d \(S0.*\)\. Start from what .* from \(--ckpt none\)\.$"):
        launch(store, tmp_path / "r", *PROBE, *KFOLD, ckpt=tmp_path / "folds")


def test_while_no_fold_was_exported_all_have_taught(store, folds, tmp_path):
    run = shutil.copytree(folds, tmp_path / "folds")
    (run / "summary.json").unlink()
    (lesson,) = Origin.of(str(run)).lessons
    assert lesson.train | lesson.valid == {f"S{row:02d}" for row in range(8)}
    (run / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary.json is damaged .* launch that run again"):
        Origin.of(str(run))


def test_without_a_test_set_those_who_select_again_are_no_news(tmp_path):
    sides = [[0, 0, 0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0, 0]]
    store, turned = (write_task_store(tmp_path / f"s{n}", published=side) for n, side in enumerate(sides))
    first = tmp_path / "first"
    launch(store, first, *PROBE, ckpt="none")
    launch(store, tmp_path / "again", *PROBE, ckpt=first)
    with pytest.raises(ValueError, match="fine-tuned on 3 of the subjects that validate it"):
        launch(turned, tmp_path / "r", *PROBE, ckpt=first)


def test_relative_paths_lead_where_they_led_at_first(store, tmp_path, monkeypatch):
    """A store of another task, which is found from the run alone."""
    mine = write_task_store(tmp_path / "home/mine", seed=7)
    monkeypatch.chdir(tmp_path / "home")
    corpus = write_task_store(tmp_path / "home/corpus", labelled=False)
    write_pretrained(Path("runs"), replace(corpus, path=Path("corpus")))
    for name in ("backbone", "tokenizer"):
        config = f"{{run_dir: runs/{name}, split: {{valid_subjects: [S00]}}}}"
        (tmp_path / "home/runs" / name / "config.yaml").write_text(config)
    launch(replace(mine, path="mine"), Path("first"), *PROBE, ckpt="runs/backbone")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    origin = Origin.of("../home/first")
    assert origin.unknown == ()
    assert len(origin.recordings) == 7
    (lesson,) = origin.lessons
    assert lesson.files == provenance._files(mine)


def test_the_advice_is_that_of_the_fine_tuning_that_taught(store, tmp_path):
    """C1 learnt from S00 to S03, C2 from it and from others: those of C1 may judge what C1 started from."""
    few = write_task_store(tmp_path / "few", n_subjects=4, published=[0, 0, 1, 2])
    launch(few, tmp_path / "C1", *PROBE, ckpt="none")
    other = write_task_store(tmp_path / "other", n_subjects=3, seed=4, published=[0, 1, 2])
    renamed = tuple(replace(row, subject=f"T{row.row}", path=f"t{row.row}.edf") for row in other.recordings)
    lesson = taught(replace(other, recordings=renamed))
    before = Origin.of(str(tmp_path / "C1"))
    data = open_data(str(few.path))
    after = replace(before, ckpt="C2", lessons=(replace(lesson, train=frozenset({"T0"})), *before.lessons))
    fold = Fold(train=np.arange(8, 16), valid=np.arange(16, 24), test=np.arange(8))
    with pytest.raises(ValueError, match=r"\(S00\)\. Give it the splits .*, or start from what it .*--ckpt none\)\.$"):
        before.require_unseen_labels(data, fold, "")
    after = replace(after, lessons=(after.lessons[0], replace(after.lessons[1], again="")))
    with pytest.raises(
        ValueError, match=r"\(S00\)\. Start from what the earlier fine-tuning started from \(--ckpt none\)\.$"
    ):
        after.require_unseen_labels(data, fold, "")
    more = open_data(str(write_task_store(tmp_path / "more", seed=5).path))
    with pytest.raises(ValueError, match=r"\. Start from what it started from \(--ckpt none\)\. If these are other"):
        before.require_unseen_labels(more, fold, "")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.yaml", "{mode: probe}", "KeyError"),
        ("config.yaml", "{ckpt: 3, data: d, mode: full, seeds: [0]}", "AttributeError"),
        ("summary.json", '{"exported_fold": 7}', "IndexError"),
    ],
)
def test_notes_that_no_run_wrote_are_damage(folds, tmp_path, file, content, message):
    run = shutil.copytree(folds, tmp_path / "folds")
    (run / file).write_text(content)
    with pytest.raises(ValueError, match=rf"--ckpt {run}: what the run .* is damaged \({message}"):
        Origin.of(str(run))


def test_a_fine_tuned_run_without_its_splits_is_no_pre_training(store, folds, tmp_path):
    run = shutil.copytree(folds, tmp_path / "folds")
    (run / "splits.json").unlink()
    launch(store, tmp_path / "r", *PROBE, ckpt=run)
    assert f"{run} has lost its splits.json; whose labels it learnt from is not known either" in said(tmp_path / "r")


def taught(store, *, task=("rhythm", ""), gone=False):
    """That a model was trained on S00 and S01 of a store."""
    files = None if gone else provenance._files(store)
    return Lesson(
        train=frozenset({"S00", "S01"}),
        valid=frozenset(),
        store=store.fingerprint(),
        task=task,
        files=files,
        again="",
        subjects=frozenset({"S00", "S01"}),
        start="none",
    )


def test_the_same_people_are_known_in_another_preparation(store, tmp_path):
    """By the files of their recordings; of the literature's data sets, or where those are gone, by the task's name."""
    data = open_data(str(store.path))
    assert data.task.protocol
    again = write_task_store(tmp_path / "again", n_subjects=3, per_subject=4, seed=5)
    unrelated = write_task_store(tmp_path / "unrelated", seed=6)
    renamed = [replace(row, path=f"a{row.path}") for row in unrelated.recordings]
    unrelated = replace(unrelated, recordings=tuple(renamed))
    assert taught(store).is_about(data)
    assert taught(again, task=("another", "")).is_about(data)
    assert not taught(unrelated).is_about(data), "tasks of one's own may have the same name"
    assert taught(unrelated, task=("rhythm", "published")).is_about(data)
    assert taught(unrelated, gone=True).is_about(data)
    assert not taught(unrelated, task=("another", ""), gone=True).is_about(data)


def test_a_model_of_another_preparation_is_refused_with_a_way_out(store, tmp_path):
    launch(store, tmp_path / "first", *PROBE, ckpt="none")
    again = write_task_store(tmp_path / "again", per_subject=6, seed=5)
    with pytest.raises(ValueError, match=r"that test it .* other people under the same names, give a copy of its exp"):
        launch(again, tmp_path / "r", *PROBE, "--split.kind=ratio", "--split.seed=1", ckpt=tmp_path / "first")
    splits = ("--splits", str(tmp_path / "first/splits.json"))
    launch(again, tmp_path / "r", *PROBE, *splits, ckpt=tmp_path / "first")


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
