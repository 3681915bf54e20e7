"""Fine-tuning as real processes: killed in the middle of a trial and taken up again, and shared by two."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import finetune.figures
from finetune import cli
from finetune.metrics import Predictions
from tests.processes import ROOT, environment, launch_line
from tests.processes import run as run_program
from tests.reference_finetune import TINY, write_task_store

FOLDS = ("--split.kind", "kfold", "--split.n_folds", "2", "--seeds", "0", "1")
CASES = {
    "binary": (("rest", "count"), ("--head", "linear")),
    "sequences": (("a", "b", "c"), ("--head", "sequence", "--training.sequence_length", "3", "--training.hidden", "8")),
    "regression": ((), ("--head", "mean", "--mode", "probe_then_full")),
}
"""Classes of the store, and flags."""

some = pytest.mark.parametrize(
    "case",
    ["binary", pytest.param("sequences", marks=pytest.mark.slow), pytest.param("regression", marks=pytest.mark.slow)],
)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    monkeypatch.setattr(finetune.figures, "save", lambda figure, target: None)


def line_of(store, run_dir: Path, *flags: str) -> list[str]:
    return ["--ckpt=none", f"--data={store.path}", f"--run_dir={run_dir}", *TINY, *flags]


def report_of(run_dir: Path) -> dict:
    """The report without what no two runs share."""
    report = json.loads((run_dir / "report.json").read_text())
    for arm in report["arms"].values():
        for trial in arm["trials"]:
            del trial["seconds"]
    del report["config"]
    return report


def in_this_process(store, run_dir: Path, *flags: str) -> dict:
    assert cli.run_command(line_of(store, run_dir, *flags)) == 0
    return report_of(run_dir)


def kill_in(trial: Path, line: list[str]) -> None:
    """Start a run and end it with SIGKILL once a trial has a checkpoint."""
    command = launch_line("-m", "finetune.cli", *line)
    child = subprocess.Popen(
        command, env=environment(), cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not list(trial.glob("checkpoints/step-*[0-9]")):
        assert child.poll() is None, child.stderr and child.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


@some
def test_a_run_that_was_killed_ends_with_the_same_report(case, tmp_path):
    """SIGKILL within the second seed of the second fold."""
    classes, flags = CASES[case]
    store = write_task_store(tmp_path / "store", class_names=classes)
    flags = (*flags, *FOLDS, "--training.epochs", "15", "--training.patience", "0")
    whole = in_this_process(store, tmp_path / "whole", *flags)
    killed = tmp_path / "killed"
    kill_in(killed / "fold-1/seed-1", line_of(store, killed, *flags))
    assert (killed / "fold-1/seed-0/summary.json").exists()
    assert not (killed / "fold-1/seed-1/summary.json").exists()
    assert in_this_process(store, killed, *flags) == whole
    for path in (tmp_path / "whole").rglob("predictions/*.npz"):
        one, other = Predictions.load(path), Predictions.load(killed / path.relative_to(tmp_path / "whole"))
        np.testing.assert_array_equal(one.score, other.score)


@some
def test_two_processes_give_the_report_of_one(case, tmp_path):
    classes, flags = CASES[case]
    store = write_task_store(tmp_path / "store", class_names=classes)
    flags = (
        *flags, *FOLDS, "--training.dropout", "0.2", "--training.micro_batch", "8",
        "--backbone.drop_prob", "0.1", "--backbone.spectral_dropout", "0.1",
    )  # fmt: skip
    one = in_this_process(store, tmp_path / "1", *flags)
    done = run_program("-m", "finetune.cli", *line_of(store, tmp_path / "2", *flags), processes=2)
    assert done.returncode == 0, done.stderr
    two = report_of(tmp_path / "2")
    assert (one["processes"], two["processes"]) == (1, 2)
    for path in (tmp_path / "1").rglob("predictions/*.npz"):
        a, b = Predictions.load(path), Predictions.load(tmp_path / "2" / path.relative_to(tmp_path / "1"))
        np.testing.assert_array_equal(a.window, b.window)
        np.testing.assert_allclose(a.score, b.score, atol=1e-4)
    arms = [report["arms"]["codebrain"] for report in (one, two)]
    for name, entry in arms[0]["test"]["metrics"].items():
        other = arms[1]["test"]["metrics"][name]
        np.testing.assert_allclose(other["by_seed"], entry["by_seed"], rtol=1e-4)
        np.testing.assert_allclose(other["interval"], entry["interval"], rtol=1e-4)
    for name, entry in arms[0]["valid"]["folds"].items():
        np.testing.assert_allclose(arms[1]["valid"]["folds"][name]["by_fold"], entry["by_fold"], rtol=1e-4)
