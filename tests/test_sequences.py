"""Sequences of windows: where they lie, and what a head makes of them."""

import csv
import json

import numpy as np
import pytest
import torch

import finetune.figures
from codebrain.data.windows import Request, WindowDataset
from codebrain.training.sampling import eval_batches
from finetune import classifier, cli
from finetune.heads import Head, HeadConfig
from finetune.metrics import Predictions
from finetune.sequences import SequenceDataset
from tests.reference_finetune import TINY, write_task_store

PER_SUBJECT = 8
SIZES = {"kind": "sequence", "n_chans": 3, "n_patches": 2, "width": 8, "n_outputs": 5, "hidden": 16}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_task_store(
        tmp_path_factory.mktemp("data") / "store", class_names=("a", "b"), published=[0, 0, 0, 0, 1, 1, 2, 2]
    )


def windows_of(dataset):
    return [row for batch in eval_batches(dataset, 2) for row in batch.window.tolist()]


def test_sequences_stay_within_a_recording_and_a_side(store):
    windows = WindowDataset([store]).subset([*range(16), *range(17, 24)])
    found = windows_of(SequenceDataset(windows, 3, only_whole=False))
    assert sorted(index for row in found for index in row) == [*range(16), *range(17, 24)], "every window once"
    for row in found:
        assert row == list(range(row[0], row[0] + len(row))), "in the order of the store"
        assert row[0] // PER_SUBJECT == row[-1] // PER_SUBJECT, "of one recording"
    assert not [row for row in found if 16 in row]
    whole = SequenceDataset(windows, 3, only_whole=True)
    assert windows_of(whole) == [[0, 1, 2], [3, 4, 5], [8, 9, 10], [11, 12, 13], [17, 18, 19], [20, 21, 22]]
    assert (len(whole), len(whole.covered())) == (6, 18)


def test_a_batch_has_the_windows_and_labels_of_the_store(store):
    windows = WindowDataset([store])
    batch = SequenceDataset(windows, 4, only_whole=True)[Request(np.array([12, 0]), 5, 9)]
    assert batch.x.shape == (2, 4, 3, 400)
    flat = windows[Request(np.array([12, 13, 14, 15, 0, 1, 2, 3]))]
    assert torch.equal(batch.x.flatten(0, 1), flat.x)
    assert torch.equal(batch.label.flatten(), flat.label)
    assert (batch.offset, batch.global_size) == (5, 9)


def test_a_gap_in_time_divides(tmp_path):
    """What a rejected window lay between are no neighbours."""
    starts = np.array([0.0, 2.0, 4.0, 8.0, 10.0, 12.0, 3600.0, 3602.005])
    store = write_task_store(tmp_path / "gaps", class_names=("a", "b"), n_subjects=1, starts=starts)
    found = windows_of(SequenceDataset(WindowDataset([store]), 5, only_whole=False))
    assert sorted(found) == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_a_class_in_no_sequence_is_refused(tmp_path):
    """Only the last window of each recording, which fills no sequence of three, is of the second class."""
    store = write_task_store(tmp_path / "s", class_names=("a", "b"), per_subject=7, labels=[0] * 6 + [1])
    line = [
        *("--ckpt=none", f"--data={store.path}", f"--run_dir={tmp_path / 'r'}", *TINY, "--head", "sequence"),
        *("--training.sequence_length", "3", "--training.hidden", "8"),
    ]
    with pytest.raises(ValueError, match="no training sequence of fold 0 holds a window of class 'b'"):
        cli.run_command(line)


def make_head(**options):
    torch.manual_seed(0)
    return Head(HeadConfig(**(SIZES | options))).eval()


def test_the_answer_for_a_window_depends_on_its_neighbours_and_their_order():
    head = make_head(sequence_length=4)
    features = torch.randn(2, 4, 3, 2, 8)
    logits = head(features)
    assert logits.shape == (2, 4, 5)
    changed = features.clone()
    changed[0, 3] += 1
    assert not torch.allclose(head(changed)[0, 0], logits[0, 0])
    assert torch.allclose(head(changed)[1], logits[1]), "other sequences do not matter"
    backwards = features.flip(1)
    torch.testing.assert_close(head(backwards).flip(1), logits)
    torch.nn.init.normal_(head.classify[2].place)
    assert not torch.allclose(head(backwards).flip(1), head(features)), "a learnt place tells before from after"
    assert head(features[:, :1]).shape == (2, 1, 5), "a shorter sequence is one too"


def test_impossible_sequences_are_refused():
    with pytest.raises(ValueError, match="up to 4 windows"):
        make_head(sequence_length=4)(torch.randn(1, 5, 3, 2, 8))
    with pytest.raises(ValueError, match="up to 4 windows"):
        make_head(sequence_length=4)(torch.randn(5, 3, 2, 8))
    with pytest.raises(ValueError, match="must divide by its 4 attention heads"):
        make_head(hidden=30)


@pytest.mark.parametrize("mode", ["full", "probe_then_full"])
def test_a_run_classifies_every_window_once_and_in_context(store, tmp_path, monkeypatch, capsys, mode):
    monkeypatch.setattr(finetune.figures, "save", lambda figure, target: None)
    line = [
        *("--ckpt=none", f"--data={store.path}", f"--run_dir={tmp_path / 'r'}", *TINY, "--mode", mode),
        *("--head", "sequence", "--training.sequence_length", "3", "--training.hidden", "16"),
    ]
    assert cli.run_command([*line, "--training.batch_size", "4"]) == 0
    assert "training sequences of 3 windows, by fold: 8 (8 windows fill none)" in capsys.readouterr().out
    report = json.loads((tmp_path / "r/report.json").read_text())
    assert report["arms"]["codebrain"]["test"]["windows"] == 2 * PER_SUBJECT
    found = Predictions.load(tmp_path / "r/seed-0/predictions/test.npz")
    assert found.window.tolist() == list(range(48, 64))
    assert "8 (8 windows fill none)" in (tmp_path / "r/report.md").read_text()
    rows = list(csv.DictReader((tmp_path / "r/predictions.csv").open()))
    assert [(row["recording"], row["start_s"]) for row in rows[:2]] == [("6.edf", "0"), ("6.edf", "2")]
    assert [float(row["p_b"]) for row in rows] == pytest.approx(found.score[:, 1].tolist(), abs=1e-6)
    assert {(row["model"], row["fold"], row["seed"], row["subject"]) for row in rows} == {
        ("codebrain", "0", "0", "S06"),
        ("codebrain", "0", "0", "S07"),
    }
    model, contract = classifier.load(tmp_path / "r")
    x = WindowDataset([store])[Request(np.arange(48, 51))].x
    with torch.no_grad():
        again = contract.task.scores(model(x[None])[0])
    np.testing.assert_allclose(found.score[:3], again, atol=1e-6)


def test_too_long_a_sequence_is_refused_before_there_is_a_folder(store, tmp_path):
    line = [f"--data={store.path}", f"--run_dir={tmp_path / 'r'}", "--head", "sequence", *TINY]
    with pytest.raises(ValueError, match="no training recording of fold 0 has 20 consecutive windows"):
        cli.run_command(["--ckpt=none", *line])
    assert not (tmp_path / "r").exists()
