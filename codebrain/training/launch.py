"""Start of a run: the processes, the folder, the log."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import logging
import os
import secrets
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Literal

import psutil
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from codebrain.config import to_dict, to_yaml
from codebrain.data.format import PARTIAL_SUFFIX, write_text
from codebrain.training import sigterm
from codebrain.training.logging import MetricsFile

_log = logging.getLogger(__name__)

TRACKERS = ("tensorboard", "wandb", "mlflow")

RESUMABLE = ("run_dir", "loop.num_workers", "loop.keep_last", "loop.trackers")
"""What may differ between a run and the launch that takes it up again: nothing that the result depends on."""

_NAMED = 8
"""Differences from an earlier launch that a message lists."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long to train, on how much at a time, and what to keep."""

    total_steps: int
    """Optimizer updates in the whole run."""
    batch_size: int = 32
    """Windows per process and micro-batch; a step trains on batch_size x accumulation x processes."""
    accumulation: int = 1
    """Micro-batches per optimizer update."""
    eval_batch_size: int = 0
    """Windows per batch of a validation; 0 means batch_size."""
    log_every: int = 20
    """Steps between two lines of training figures."""
    eval_every: int = 500
    """Steps between two validations; the last step is always validated."""
    save_every: int = 500
    """Steps between two checkpoints; the last step and the best validation are always saved."""
    keep_last: int = 2
    """Checkpoints to keep besides the best one."""
    seed: int = 0
    """Seed of the weights, the data order and every random draw."""
    num_workers: int = 0
    """Processes that read windows ahead; 0 reads in the training process."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the forward pass; FFTs, norms and codebooks stay float32."""
    compile: bool = False
    """Whether to run the model through torch.compile."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where to send scalars besides metrics.jsonl: tensorboard, wandb, mlflow (the latter two must be installed)."""

    def __post_init__(self) -> None:
        least = {"eval_batch_size": 0, "num_workers": 0}
        for name in (
            *("total_steps", "batch_size", "accumulation", "eval_batch_size", "log_every", "eval_every"),
            *("save_every", "keep_last", "num_workers"),
        ):
            if (value := getattr(self, name)) < least.get(name, 1):
                raise ValueError(f"--loop.{name} is {value}; it must be at least {least.get(name, 1)}")


@dataclass
class Run:
    """One training run on all its processes."""

    path: Path
    """The run's folder."""
    accelerator: Accelerator
    loop: LoopConfig
    metrics: MetricsFile
    prefix: str = ""
    """Put before the names that the trackers see; a run inside another one has its own."""
    lock: IO[str] | None = None
    """Held by the main process as long as the run lives, so that no second launch writes into the folder."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.accelerator.device

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.accelerator.is_main_process

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        """Folder of the run's pictures."""
        return self.path / "figures"

    @property
    def export(self) -> Path:
        """Folder of the finished model."""
        return self.path / "export"

    @property
    def has_checkpoint(self) -> bool:
        """Whether something was trained here that can be taken up."""
        return has_checkpoint(self.path)

    @property
    def summary(self) -> dict[str, Any] | None:
        """What `finish` was given, or None while the run is not finished."""
        path = self.path / "summary.json"
        return _read_json(path, "launch again: what was trained is taken up at its end.") if path.exists() else None

    def keep_to(self, inputs: dict[str, str]) -> None:
        """Note the fingerprints of what the run reads, and refuse to take it up with others. Collective.

        Parameters
        ----------
        inputs : dict
            Name of each input (a store, a tokenizer) and the hash of its contents.

        Raises
        ------
        ValueError
            Something was trained here already, on inputs of other contents.
        """
        path, problem = self.path / "inputs.json", [""]
        if self.is_main:
            try:
                problem = [self._changed(path, inputs)]
            except ValueError as error:
                problem = [str(error)]
            if not problem[0]:
                write_text(path, json.dumps(inputs, indent=1) + "\n")
        broadcast_object_list(problem)
        if problem[0]:
            raise ValueError(problem[0])

    def _changed(self, path: Path, inputs: dict[str, str]) -> str:
        """What is wrong with the inputs, measured by those noted in a file; empty if nothing is."""
        if not (self.has_checkpoint and path.exists()):
            return ""
        before = _read_json(path, "launch again with the very stores and tokenizer that the run was started with.")
        changed = [name for name, fingerprint in inputs.items() if before.get(name) != fingerprint]
        if not changed:
            return ""
        return (
            f"{self.path} was trained with other contents of {', '.join(changed)}. Give what it was started with, or "
            "another --run_dir."
        )

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished. Collective."""
        if self.is_main:
            write_text(self.path / "summary.json", json.dumps(summary, indent=1) + "\n")
        self.accelerator.wait_for_everyone()
        if not self.prefix:
            self.accelerator.end_training()

    def sub_run(self, name: str, loop: LoopConfig) -> Run:
        """A run inside this one, with a folder and a loop of its own, on the same processes."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return Run(path, self.accelerator, loop, MetricsFile(path / "metrics.jsonl"), prefix=f"{name}/")

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Write scalars to metrics.jsonl and the trackers; on the main process only."""
        if self.is_main:
            self.metrics.write(step, scalars)
            self.accelerator.log({self.prefix + name: value for name, value in scalars.items()}, step=step)

    def say(self, text: str) -> None:
        """Print on the main process."""
        self.accelerator.print(text, flush=True)


def start(run_dir: str | os.PathLike[str], loop: LoopConfig, config: Any) -> Run:
    """Set up processes and folder. Collective; call it before any model is built.

    A quantiser that is built before the process group exists never synchronises its codebook. From here on SIGTERM ends
    the process with exit code 75: at once, or in `loop.fit` once the run is saved.

    Raises
    ------
    ValueError
        The folder holds a run of another configuration or is in use, or the launcher started other processes than
        it says.
    """
    _require_trackers(loop.trackers)
    sigterm.end_at_once(speaks=os.environ.get("RANK", "0") == "0")
    warnings.filterwarnings("ignore", message=".*use_reentrant.*")
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=loop.mixed_precision,
        log_with=list(loop.trackers) or None,
        project_dir=str(run_dir),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=30))],
    )
    check_world(accelerator.num_processes)
    if accelerator.device.type == "cpu":
        _use_all_cores()
    logging.basicConfig(
        level=logging.INFO if accelerator.is_main_process else logging.ERROR, format="%(message)s", stream=sys.stderr
    )
    path = Path(run_dir)
    run = Run(path, accelerator, loop, MetricsFile(path / "metrics.jsonl"))
    problem = [None]
    if run.is_main:
        problem[0], run.lock = _open_folder(path, config)
    broadcast_object_list(problem)
    if problem[0]:
        raise ValueError(problem[0])
    _start_trackers(run, config)
    torch.manual_seed(loop.seed)
    return run


def _start_trackers(run: Run, config: Any) -> None:
    """Tell the trackers of the run and its configuration."""
    wandb = {"dir": str(run.path), "resume": "allow"}
    if run.is_main and "wandb" in run.loop.trackers:
        wandb["id"] = _wandb_id(run.path / "wandb_id")
    # Numbers as they are, the rest as text: no tracker takes lists, and not all of them None.
    flat = _flat(to_dict(config)).items()
    run.accelerator.init_trackers(
        "tensorboard" if run.loop.trackers == ["tensorboard"] else run.path.name,
        config={key: value if isinstance(value, int | float) else str(value) for key, value in flat},
        init_kwargs={"wandb": wandb},
    )


def _wandb_id(path: Path) -> str:
    """The name that W&B knows a run by; written once, so that it goes on in the same place when taken up again."""
    if not path.exists():
        write_text(path, secrets.token_hex(8) + "\n")
    return path.read_text().strip()


def check_world(num_processes: int) -> None:
    """Raise ValueError unless as many processes see each other as were launched.

    On CPUs they need `cpu=True`, or each believes that it is alone.
    """
    meant = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes != meant:
        raise ValueError(
            f"{meant} processes were meant to run, but this one sees {num_processes}. On CPUs launch with "
            "`accelerate launch --multi_gpu --num_processes N --num_machines 1 --mixed_precision no "
            "--dynamo_backend no --main_process_port 0 SCRIPT ...`."
        )


def _use_all_cores() -> None:
    """Undo `accelerate launch`'s OMP_NUM_THREADS=1, which leaves all cores but one idle when training on a CPU."""
    if os.environ.get("OMP_NUM_THREADS") == "1" and _set_by_accelerate():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _set_by_accelerate() -> bool:
    """Whether this process was started by `accelerate launch` and the user named no number of threads.

    The launcher hands its one thread on as if it had been asked for; only its own environment and arguments tell.
    """
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return False
    try:
        launcher = psutil.Process().parent()
        if launcher is None:
            return True
        asked = any(word.startswith("--num_cpu_threads_per_process") for word in launcher.cmdline())
        return not asked and "OMP_NUM_THREADS" not in launcher.environ()
    except psutil.Error:
        return True


def _require_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for a tracker that is not known, or whose library is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"--loop.trackers {name}: no such tracker; known are {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"--loop.trackers {name}: the package {name} is not installed. `pip install {name}`, or leave it out: "
                "metrics.jsonl is written in any case."
            )


def _open_folder(path: Path, config: Any) -> tuple[Any, IO[str] | None]:
    """Make or check the run's folder; return what is wrong with it, and the lock."""
    for what, is_it in (("a store", (path / "store.json").exists()), ("a file", path.is_file())):
        if is_it:
            return f"--run_dir {path} is {what}; give a run a folder of its own, which need not exist.", None
    path.mkdir(parents=True, exist_ok=True)
    lock = (path / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return f"another process is training in {path}; wait for it, or give another --run_dir.", None
    saved = path / "config.yaml"
    # Until something was trained, a mistake in the first command may be mended in the same folder.
    if not saved.exists() or not has_checkpoint(path):
        write_text(saved, to_yaml(config))
        return None, lock
    try:
        changed = _differences(yaml.safe_load(saved.read_text()), to_dict(config))
    except (yaml.YAMLError, AttributeError):
        return f"{saved} is damaged, so that nobody can say what was trained there. Give another --run_dir.", lock
    if changed:
        listed = "; ".join(f"{key} was {old!r}, now {new!r}" for key, (old, new) in list(changed.items())[:_NAMED])
        listed += f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        return (
            f"{path} holds a run of another configuration ({listed}). Give another --run_dir, or launch with the "
            "values it was started with to take it up again.",
            lock,
        )
    return None, lock


def _read_json(path: Path, then: str) -> dict[str, Any]:
    """A JSON object that a run wrote for itself.

    Raises
    ------
    ValueError
        The file is damaged; it names the file, and says to delete it and what to do `then`.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Delete that file and {then}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (no JSON object). Delete that file and {then}")
    return found


def has_checkpoint(path: Path) -> bool:
    """Whether a run's folder, or one inside it, holds a checkpoint."""
    return any(not found.name.endswith(PARTIAL_SUFFIX) for found in path.rglob("checkpoints/step-*"))


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    before, after = _flat(old), _flat(new)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in RESUMABLE
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
