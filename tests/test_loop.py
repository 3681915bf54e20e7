"""The training loop as its users meet it: killed, doubled, fed with faults. Every run is a real process."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from codebrain.data.format import Store
from codebrain.training import checkpoint, launch
from codebrain.training.launch import LoopConfig, check_world
from tests.conftest import write_toy_store
from tests.processes import ROOT, environment, launch_line, run

TOY = ROOT / "tests" / "toy_training.py"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_toy_store(tmp_path_factory.mktemp("loop") / "store")


def arguments(store: Store, run_dir: Path, **overrides: object) -> list[str]:
    values = {"loop.log_every": 3, "loop.eval_every": 6, "loop.save_every": 2, **overrides}
    flags = [f"--{key}={value}" for key, value in values.items()]
    return ["--data", str(store.path), "--run_dir", str(run_dir), *flags]


def train(store: Store, run_dir: Path, processes: int = 1, **overrides: object) -> Path:
    result = run(TOY, *arguments(store, run_dir, **overrides), processes=processes)
    assert result.returncode == 0, result.stderr
    return run_dir


def metrics(run_dir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def end_of(run_dir: Path, step: int = 12) -> dict[str, torch.Tensor]:
    """Weights, buffers and optimizer state of the last checkpoint."""
    folder = run_dir / "checkpoints" / f"step-{step:08d}"
    optimizer = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    moments = {f"{i}.{name}": value for i, entry in optimizer.items() for name, value in entry.items()}
    return load_file(folder / "model.safetensors") | moments


def assert_same_end(one: Path, other: Path) -> None:
    left, right = end_of(one), end_of(other)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    assert metrics(one) == metrics(other)


def kill_after(store: Store, run_dir: Path, step: int, delay: float, processes: int = 1) -> None:
    """Start a slowed-down run and end all its processes with SIGKILL `delay` seconds after a checkpoint appeared."""
    command = launch_line(TOY, *arguments(store, run_dir, fault="slow"), processes=processes)
    child = subprocess.Popen(
        command, env=environment(), cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (run_dir / "checkpoints" / f"step-{step:08d}").exists():
        assert child.poll() is None, child.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stderr.close()
    assert not (run_dir / "summary.json").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_runs_end_with_the_same_bits(store: Store, tmp_path: Path, processes: int) -> None:
    whole = train(store, tmp_path / "whole", processes, fault="slow")
    broken = tmp_path / "broken"
    rng = random.Random(processes)
    for step in (2, 6, 8):
        kill_after(store, broken, step, rng.uniform(0.0, 0.35), processes)
    train(store, broken, processes, fault="slow")
    assert_same_end(whole, broken)


def test_sigterm_saves_and_has_its_own_code(store: Store, tmp_path: Path) -> None:
    first = run(TOY, *arguments(store, tmp_path / "run", **{"fault": "sigterm", "loop.save_every": 100}))
    assert first.returncode == 75
    assert "stopped by SIGTERM after step 5" in first.stdout
    train(store, tmp_path / "run", **{"fault": "sigterm", "loop.save_every": 100})
    whole = train(store, tmp_path / "whole", **{"loop.save_every": 100})
    assert_same_end(whole, tmp_path / "run")


@pytest.mark.parametrize(
    ("processes", "overrides"),
    [(1, {"loop.batch_size": 2, "loop.accumulation": 2}), (2, {"loop.batch_size": 2})],
    ids=["accumulation", "two processes"],
)
def test_one_batch_in_parts_is_the_same_step(store: Store, tmp_path: Path, processes: int, overrides: dict) -> None:
    whole = train(store, tmp_path / "whole", dropout=0)
    parts = train(store, tmp_path / "parts", processes, dropout=0, **overrides)
    left, right = end_of(whole), end_of(parts)
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=2e-4, atol=1e-7, msg=name)
    for one, other in zip(metrics(whole), metrics(parts), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize(
    ("fault", "message"),
    [("nan", "the loss of step 6 is not finite"), ("raise", "this process was told to fail")],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_faults_end_every_process(store: Store, tmp_path: Path, processes: int, fault: str, message: str) -> None:
    started = time.monotonic()
    result = run(TOY, *arguments(store, tmp_path / "run", fault=fault), processes=processes)
    assert result.returncode != 0
    assert time.monotonic() - started < 60
    assert message in result.stderr
    if fault == "nan":
        assert "Last good checkpoint" in result.stderr
        assert "rec-00" in result.stderr
    assert (tmp_path / "run/checkpoints/step-00000004/state.json").exists()


def test_truncated_checkpoint_is_passed_over(store: Store, tmp_path: Path) -> None:
    whole = train(store, tmp_path / "whole")
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    (broken / "summary.json").unlink()
    weights = broken / "checkpoints/step-00000012/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    result = run(TOY, *arguments(store, broken))
    assert result.returncode == 0
    assert "step-00000012 is damaged (model.safetensors) and passed over" in result.stderr
    assert_same_end(whole, broken)


def test_changed_configuration_is_refused(store: Store, tmp_path: Path) -> None:
    train(store, tmp_path / "run")
    result = run(TOY, *arguments(store, tmp_path / "run", **{"optim.lr": 0.5}))
    assert result.returncode == 2
    assert "optim.lr was 0.01, now 0.5" in result.stderr
    assert "Traceback" not in result.stderr


def test_changed_number_of_processes_is_refused(store: Store, tmp_path: Path) -> None:
    train(store, tmp_path / "run")
    result = run(TOY, *arguments(store, tmp_path / "run"), processes=2)
    assert result.returncode != 0
    assert "was trained by 1 processes, now there are 2" in result.stderr


def test_fewer_processes_than_meant_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `cpu=True` and without a GPU, two launched processes both believe that they are alone."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were meant to run, but this one sees 1"):
        check_world(num_processes=1)


def test_a_second_launch_into_a_folder_in_use_is_refused(store: Store, tmp_path: Path) -> None:
    first = launch.start(tmp_path / "run", LoopConfig(total_steps=1, trackers=[]), LoopConfig(total_steps=1))
    result = run(TOY, *arguments(store, tmp_path / "run"))
    assert result.returncode == 2
    assert "another process is training in" in result.stderr
    first.lock.close()


def test_a_mistake_in_the_first_command_may_be_mended(store: Store, tmp_path: Path) -> None:
    result = run(TOY, *arguments(store, tmp_path / "run", **{"split.valid_subjects": "[nobody]"}))
    assert result.returncode == 2
    assert "no subject matches 'nobody'" in result.stderr
    train(store, tmp_path / "run")


@pytest.mark.parametrize("keep_last", [1, 2, 3, 5, 20])
def test_the_last_checkpoints_and_the_best_are_kept(tmp_path: Path, keep_last: int) -> None:
    for step in range(1, 11):
        (tmp_path / f"step-{step:08d}").mkdir()
        checkpoint.prune(tmp_path, keep_last, best_step=2)
    kept = sorted(int(path.name.removeprefix("step-")) for path in tmp_path.iterdir())
    last = list(range(max(1, 11 - keep_last), 11))
    assert kept == sorted({2, *last})


@pytest.mark.parametrize(
    ("writer", "error"),
    [("save_file", SafetensorError("No space left on device")), ("publish", OSError(28, "No space left on device"))],
)
def test_full_disk_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, error: Exception
) -> None:
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.save(tmp_path, model, optimizer, {"step": 1})

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint, writer, full)
    with pytest.raises(OSError, match=r"No space left.*The last good one is step-00000001"):
        checkpoint.save(tmp_path, model, optimizer, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.latest(tmp_path).step == 1
