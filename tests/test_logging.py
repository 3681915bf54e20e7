"""What a run says of itself: figures that every reader of JSON takes, progress in a log file, no step twice."""

import errno
import json
import logging
import math
import time
from pathlib import Path

import pytest

from codebrain.progress import Bar
from codebrain.training import folder, launch
from codebrain.training.launch import LoopConfig
from codebrain.training.logging import MetricsFile, Progress, read_metrics


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_numbers_that_are_not_finite_are_null_in_the_file(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "metrics.jsonl").write(3, {"valid/loss": math.nan, "valid/bits": math.inf, "lr": 0.5})
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert line == {"step": 3, "valid/loss": None, "valid/bits": None, "lr": 0.5}
    (found,) = read_metrics(tmp_path)
    assert math.isnan(found["valid/loss"])
    assert (found["step"], found["lr"]) == (3, 0.5)


def test_a_summary_may_hold_figures_without_a_value(tmp_path: Path) -> None:
    config = LoopConfig(total_steps=1, trackers=[])
    run = launch.start(tmp_path / "run", config, config)
    assert run.summary is None
    run.finish({"final_step": 5, "last": {"valid/loss": math.nan}})
    json.loads((tmp_path / "run/summary.json").read_text(), parse_constant=refuse)
    assert run.summary is not None
    assert run.summary["final_step"] == 5
    assert math.isnan(run.summary["last"]["valid/loss"])


def test_a_log_file_gets_lines_and_the_rate_of_this_launch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codebrain.progress._LOG_FILE_S", 0.0)
    now = [1000.0]
    with Progress(first=10, total=14, windows_per_step=8, shown=True) as bar:
        with Bar(total=2, unit="batch", desc="validation", leave=False) as inner:
            inner.update(2)
        bar._time = lambda: now[0]
        bar.start_t = bar.last_print_t = now[0]
        for loss in (4.0, 2.0, 1.0, 0.5):
            now[0] += 2.0
            bar.step(loss)
    lines = capsys.readouterr().err.splitlines()
    assert all(line.isprintable() and line for line in lines)
    training = [line for line in lines if "validation" not in line]
    assert len(training) == len(lines) - 2
    assert "starting" in training[0]
    assert "11/14" in training[1]
    assert "loss 4, 4 windows/s" in training[1]
    assert "loss 0.5, 4 windows/s" in lines[-1]
    assert "14/14" in lines[-1]


def test_a_bar_that_is_not_shown_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(total=3, unit="window", shown=False) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_tensorboard_shows_no_step_twice(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = LoopConfig(total_steps=6)
    for first in (1, 4):
        run = launch.start(tmp_path / "run", config, config)
        for step in range(first, 7):
            run.log(step, {"loss": first + step / 10})
        run.checkpoints.joinpath("step-00000003").mkdir(parents=True, exist_ok=True)
        run.accelerator.end_training()
        assert run.lock is not None
        run.lock.release()
        time.sleep(1.1)  # TensorBoard reads its files in the order of their names, which have whole seconds
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    found = [(event.step, round(event.value, 1)) for event in events.Scalars("loss")]
    assert found == [(1, 1.1), (2, 1.2), (3, 1.3), (4, 4.4), (5, 4.5), (6, 4.6)]


def test_what_killed_launches_left_unfinished_is_removed(tmp_path: Path) -> None:
    config = LoopConfig(total_steps=1)
    left = [tmp_path / "run" / name for name in ("config.yaml.12-0a1b.partial", "seed-0/summary.json.12-0a1b.partial")]
    unfinished = tmp_path / "run/checkpoints/step-00000001.partial/state.json"
    for path in (*left, unfinished):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    lock = folder.claim(tmp_path / "run", config, ())
    assert lock is not None
    lock.release()
    assert [path.exists() for path in (*left, unfinished)] == [False, False, True]


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", without)
    with caplog.at_level(logging.WARNING):
        assert folder.claim(tmp_path / "run", LoopConfig(total_steps=1), ()) is None
    assert "cannot be locked" in caplog.text
    assert (tmp_path / "run/config.yaml").exists()
