"""The training loop as its users meet it: killed, doubled, fed with faults. Every run is a real process."""

import json
import os
import random
import re
import resource
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import psutil
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from codebrain.data.format import Store
from codebrain.training import checkpoint, launch, loop, processes
from codebrain.training.launch import LoopConfig
from tests.conftest import write_toy_store
from tests.processes import ROOT, environment, kill, launch_line, run

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


def wait_for(path: Path, child: subprocess.Popen) -> None:
    """Until a running program has made a file or folder."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert child.poll() is None, child.stderr and child.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_after(store: Store, run_dir: Path, step: int, delay: float, processes: int = 1) -> None:
    """Start a slowed-down run and end all its processes with SIGKILL `delay` seconds after a checkpoint appeared."""
    command = launch_line(TOY, *arguments(store, run_dir, fault="slow"), processes=processes)
    child = subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(run_dir / "checkpoints" / f"step-{step:08d}", child)
    time.sleep(delay)
    kill(child)
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


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_after_the_training_ends_every_process_at_once(store: Store, tmp_path: Path, processes: int) -> None:
    """The main process is busy, the other one waits for it; nothing that was trained is lost."""
    command = launch_line(TOY, *arguments(store, tmp_path / "run", fault="export"), processes=processes)
    child = subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(tmp_path / "run/exporting", child)
    child.terminate()
    _, said = child.communicate(timeout=25)  # the launcher kills after 30 s
    assert child.returncode == (75 if processes == 1 else 1)
    assert said.count(b"stopped by SIGTERM; nothing is lost: launch again to go on.") == 1
    assert b"peer" not in said
    assert (tmp_path / "run/checkpoints/step-00000012/state.json").exists()
    assert not (tmp_path / "run/summary.json").exists()


def test_sigterm_in_the_last_validation_is_not_forgotten(store: Store, tmp_path: Path) -> None:
    result = run(TOY, *arguments(store, tmp_path / "run", fault="last"))
    assert result.returncode == 75
    assert "stopped by SIGTERM after step 12, which is saved" in result.stdout
    train(store, tmp_path / "run", fault="last")
    assert_same_end(train(store, tmp_path / "whole"), tmp_path / "run")


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


FAULTS = {
    "nan": "the loss of step 6 is not finite",
    "infinite": "the loss of step 6 is not finite",
    "gradient": "the gradient of step 6 is not finite",
    "raise": "RuntimeError: this process was told to fail",
    "worker": "a process that reads windows ahead died",
    "corrupt": r"window \d+ of .*rec-002.h5 \(s2.edf\) cannot be read",
}


@pytest.mark.parametrize(
    ("fault", "processes"),
    [
        ("nan", 1),
        ("infinite", 1),
        ("infinite", 2),
        ("worker", 1),
        ("gradient", 2),
        ("raise", 2),
        ("corrupt", 2),
        *(
            pytest.param(fault, processes, marks=pytest.mark.slow)
            for fault, processes in [
                ("infinite", 1),
                ("gradient", 1),
                ("raise", 1),
                ("corrupt", 1),
                ("nan", 2),
                ("worker", 2),
            ]
        ),
    ],
)
def test_faults_end_every_process_with_one_message(store: Store, tmp_path: Path, fault: str, processes: int) -> None:
    if fault == "corrupt":
        store = damaged(store, tmp_path / "store")
    workers = 1 if fault in ("worker", "corrupt") else 0
    started = time.monotonic()
    given = arguments(store, tmp_path / "run", **{"fault": fault, "loop.num_workers": workers})
    result = run(TOY, *given, processes=processes)
    assert result.returncode != 0
    assert time.monotonic() - started < 60
    # `accelerate launch` adds a traceback of its own, the program's part comes before it.
    said = result.stderr.partition("torch.distributed.elastic")[0]
    assert len(re.findall(FAULTS[fault], said)) == 1, result.stderr
    if fault != "raise":  # which stands for a bug: its traceback is wanted
        assert len(re.findall(r"\berror: ", said)) == 1
        assert "Error: " not in said
    if fault in ("nan", "infinite", "gradient"):
        assert "Last good checkpoint" in result.stderr
        assert (fault != "gradient") == ("rec-00" in result.stderr)
    if fault != "corrupt":
        assert (tmp_path / "run/checkpoints/step-00000004/state.json").exists()


def damaged(store: Store, path: Path) -> Store:
    """A copy of a store with a shard that ends before its windows do."""
    shutil.copytree(store.path, path)
    shard = path / store.shards[2].file
    with h5py.File(shard) as h5:
        first = h5["windows"].id.get_chunk_info_by_coord((0, 0, 0)).byte_offset
    with shard.open("r+b") as file:
        file.seek(first)
        file.truncate()
    return Store.open(path)


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_two_processes(store: Store, tmp_path: Path) -> None:
    """A cluster's signal reaches the launcher, which hands it on and waits."""
    command = launch_line(TOY, *arguments(store, tmp_path / "run", fault="slow"), processes=2)
    child = subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "run/checkpoints/step-00000002", child)
    child.terminate()
    said, _ = child.communicate(timeout=60)
    assert b"stopped by SIGTERM after step" in said
    assert child.returncode != 0
    train(store, tmp_path / "run", 2, fault="slow")
    assert_same_end(train(store, tmp_path / "whole", 2, fault="slow"), tmp_path / "run")


@pytest.mark.slow
def test_a_killed_process_takes_the_others_with_it(store: Store, tmp_path: Path) -> None:
    """As when memory runs out; the launcher's report says which one."""
    given = arguments(store, tmp_path / "run", **{"fault": "slow", "loop.total_steps": 1000})
    child = subprocess.Popen(launch_line(TOY, *given, processes=2), env=environment(), cwd=ROOT, stderr=subprocess.PIPE)
    wait_for(tmp_path / "run/checkpoints/step-00000002", child)
    workers = [process for process in psutil.Process(child.pid).children(recursive=True) if process.is_running()]
    workers[-1].kill()
    _, said = child.communicate(timeout=60)
    assert child.returncode != 0
    assert b"Signal 9 (SIGKILL) received" in said
    assert b"RuntimeError" not in said
    assert not psutil.wait_procs(workers, timeout=5)[1]


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


def test_every_run_inside_another_starts_from_the_first_loss_scale(tmp_path: Path) -> None:
    """Else a trial's updates would depend on the trials that this launch trained before it."""
    whole = launch.start(tmp_path / "run", LoopConfig(total_steps=1, trackers=[]), LoopConfig(total_steps=1))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(1))
    whole.accelerator.scaler, whole.first_scale = scaler, scaler.state_dict()
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    for name in ("seed-0", "seed-1"):
        inner = whole.sub_run(name, LoopConfig(total_steps=1, trackers=[]))
        state, _ = loop._resume(inner, model, optimizer)
        assert scaler.state_dict()["scale"] == 1024.0
        scaler.update(8.0)  # training has changed it
        loop._save(inner, model, optimizer, state)
    scaler.update(2.0)
    loop._resume(inner, model, optimizer)
    assert scaler.state_dict()["scale"] == 8.0, "what was saved is taken up"


def test_damaged_checkpoints_alone_are_no_new_start(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 4)
    for step in (1, 2):
        checkpoint.save(tmp_path, model, torch.optim.AdamW(model.parameters()), {"step": step})
        (tmp_path / f"step-{step:08d}" / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"every checkpoint in .* is damaged \(step-00000001, step-00000002\)"):
        checkpoint.resumable(tmp_path)
    assert checkpoint.resumable(tmp_path / "new") is None


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
    assert result.stderr.count("error: ") == 1
    assert "was trained by 1 processes, now there are 2" in result.stderr


def test_a_mistake_is_told_once_whatever_the_number_of_processes(store: Store, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    for given, said in [
        ({"loop.total_steps": 0}, "--loop.total_steps is 0"),  # before the processes know of each other
        ({}, "run is a file"),
    ]:
        result = run(TOY, *arguments(store, tmp_path / "run", **given), processes=2)
        assert result.returncode != 0
        assert result.stderr.count("error: ") == result.stderr.count(said) == 1, result.stderr


def test_fewer_processes_than_meant_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `cpu=True` and without a GPU, two launched processes both believe that they are alone."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were meant to run, but this one sees 1"):
        processes.check_world(num_processes=1)


def test_a_second_launch_into_a_folder_in_use_is_refused(store: Store, tmp_path: Path) -> None:
    first = launch.start(tmp_path / "run", LoopConfig(total_steps=1, trackers=[]), LoopConfig(total_steps=1))
    result = run(TOY, *arguments(store, tmp_path / "run"))
    assert result.returncode == 2
    assert re.search(rf"another process \({os.getpid()} on .*\) is training in .*run; wait for it", result.stderr)
    first.lock.release()


def test_a_mistake_in_the_first_command_may_be_mended(store: Store, tmp_path: Path) -> None:
    result = run(TOY, *arguments(store, tmp_path / "run", **{"split.valid_subjects": "[nobody]"}))
    assert result.returncode == 2
    assert "no subject matches 'nobody'" in result.stderr
    train(store, tmp_path / "run")


@pytest.mark.parametrize("keep_last", [1, 2, 3, 5, 20])
def test_the_last_checkpoints_and_the_best_are_kept(tmp_path: Path, keep_last: int) -> None:
    for step in range(1, 11):
        (tmp_path / f"step-{step:08d}").mkdir()
        checkpoint.prune(tmp_path, keep_last, best_step=2, step=step)
    kept = sorted(int(path.name.removeprefix("step-")) for path in tmp_path.iterdir())
    last = list(range(max(1, 11 - keep_last), 11))
    assert kept == sorted({2, *last})


def test_a_damaged_checkpoint_ahead_takes_no_place(tmp_path: Path) -> None:
    for step in (5, 7, 10):
        (tmp_path / f"step-{step:08d}").mkdir()
    checkpoint.prune(tmp_path, keep_last=1, best_step=None, step=7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000007", "step-00000010"]


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


@pytest.mark.parametrize("room", [10_000, 30_000], ids=["weights", "optimizer"])
def test_a_disk_that_is_really_full(tmp_path: Path, room: int) -> None:
    """Files may not grow beyond `room` bytes: the weights take 17 kB, the optimizer's state twice as much."""
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path, model, optimizer, {"step": 1})
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match=r"could not be written.*The last good one is step-00000001"):
            checkpoint.save(tmp_path, model, optimizer, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoint.latest(tmp_path).step == 1


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("wandb", "the package wandb is not installed. `pip install wandb`"),
        ("wand", "known are tensorboard, wandb, mlflow"),
    ],
)
def test_a_tracker_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, message: str
) -> None:
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    config = LoopConfig(total_steps=1, trackers=[tracker])
    with pytest.raises(ValueError, match=message):
        launch.start(tmp_path / "run", config, config)
    assert not (tmp_path / "run").exists()


RECORDER = '''
import json, os

class Recorder:
    """Writes every call to a file and returns another recorder."""
    def __init__(self, name): self._name = name
    def __getattr__(self, name):
        return 100 if name.startswith("MAX_") else Recorder(f"{self._name}.{name}")
    def __iter__(self): return iter(())
    def __len__(self): return 0
    def __call__(self, *args, **kwargs):
        with open(os.environ["CALLS"], "a") as file:
            file.write(json.dumps([self._name, *map(str, args), {k: str(v) for k, v in kwargs.items()}]) + "\\n")
        return Recorder(self._name)

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(Recorder(__name__), name)
'''


def test_scalars_reach_wandb_and_mlflow(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through accelerate, with libraries that only write down what they are asked."""
    for name in ("wandb", "mlflow"):
        (tmp_path / "lib" / name).mkdir(parents=True)
        (tmp_path / "lib" / name / "__init__.py").write_text(RECORDER)
        described = tmp_path / "lib" / f"{name}-1.0.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    given = {"loop.trackers": "[wandb, mlflow]", "loop.total_steps": 3}
    train(store, tmp_path / "run", **given)
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    for library, start in (("wandb", "wandb.init"), ("mlflow", "mlflow.start_run")):
        assert [call for call in calls if call[0] == start], calls
        logged = [call for call in calls if call[0].startswith(library) and "valid/loss" in str(call)]
        assert [call[-1].get("step") for call in logged] == ["0", "3"]
    told = next(call for call in calls if call[0].startswith("wandb") and "config.update" in call[0])
    assert "'optim.lr': 0.01" in told[1]
    assert "'loop.trackers': \"['wandb', 'mlflow']\"" in told[1]

    def wandb_id() -> str:
        found = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        return [call for call in found if call[0] == "wandb.init"][-1][-1]["id"]

    first = wandb_id()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename(tmp_path / "elsewhere/run")
    train(store, tmp_path / "elsewhere/run", **given)
    assert wandb_id() == first
    train(store, tmp_path / "run", **given)
    assert wandb_id() != first


@pytest.mark.parametrize(
    ("launcher_environment", "launcher_line", "threads"),
    [
        ({}, ["accelerate", "launch", "stage2.py"], [4]),
        ({"OMP_NUM_THREADS": "1"}, ["accelerate", "launch", "stage2.py"], []),
        ({}, ["accelerate", "launch", "--num_cpu_threads_per_process=1", "stage2.py"], []),
    ],
    ids=["nothing was said", "by the environment", "by a flag"],
)
def test_one_thread_is_kept_only_if_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, launcher_environment: dict, launcher_line: list, threads: list
) -> None:
    """`accelerate launch` gives each process one; two processes share the eight cores that they may use."""
    for name, value in {"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    parent = SimpleNamespace(environ=lambda: launcher_environment, cmdline=lambda: launcher_line)
    monkeypatch.setattr(processes.psutil, "Process", lambda: SimpleNamespace(parent=lambda: parent))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    found: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    processes.use_all_cores()
    assert found == threads
