"""Start of a run: its processes, its folder, its trackers."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from filelock import FileLock

from codebrain.config import to_dict
from codebrain.data.format import write_text
from codebrain.training import checkpoint, folder, processes, sigterm
from codebrain.training.logging import MetricsFile, as_json

Value = TypeVar("Value")

TRACKERS = ("tensorboard", "wandb", "mlflow")


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
    config: Any = None
    """All that it depends on; None of a run inside another one."""
    lock: FileLock | None = None
    """Held by the main process as long as the run lives, so that no second launch writes into the folder."""
    first_scale: dict[str, Any] | None = None
    """State of float16's loss scaler before any training, which every run inside this one starts from."""

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
    def was_trained(self) -> bool:
        """Whether something was trained here that can be taken up."""
        return folder.was_trained(self.path)

    @property
    def summary(self) -> dict[str, Any] | None:
        """What `finish` was given, or None while the run is not finished."""
        path = self.path / "summary.json"
        then = "launch again: the run goes on from what is left of it."
        return folder.read_json(path, then) if path.exists() else None

    def on_main(self, compute: Callable[[], Value]) -> Value:
        """What `compute` returns on the main process, on every process; so is a user's mistake that it raises.

        Collective.
        """
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = compute()
            except (ValueError, OSError) as error:
                outcome[1] = error
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def keep_to(self, inputs: folder.Inputs) -> None:
        """Note what the run reads and its configuration, and refuse to take it up with other contents. Collective.

        Parameters
        ----------
        inputs : dict of dict
            By flag, in their order: where each input (a store, a tokenizer) lies, and the hash of its contents.

        Raises
        ------
        ValueError
            Something was trained here already, on inputs of other contents, or the note of them is damaged.
        """
        self.on_main(lambda: folder.keep_to(self.path, inputs, self.config))

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished. Collective."""
        if self.is_main:
            self.mark_finished(summary)
        self.accelerator.wait_for_everyone()
        if not self.prefix:
            self.accelerator.end_training()

    def mark_finished(self, summary: dict[str, Any]) -> None:
        """Write down how the run ended; of several processes the main one does."""
        write_text(self.path / "summary.json", as_json(summary, indent=1) + "\n")

    def part(self) -> bool:
        """End what the processes do together; whether this one goes on, alone. Collective.

        For work at the end of a run that one process does, however long: those that wait for it in an exchange give up
        after a while, and the launcher then ends all of them.
        """
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.is_main

    def sub_run(self, name: str, loop: LoopConfig) -> Run:
        """A run inside this one, with a folder and a loop of its own, on the same processes."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        metrics = MetricsFile(path / "metrics.jsonl")
        return Run(path, self.accelerator, loop, metrics, prefix=f"{name}/", first_scale=self.first_scale)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Write scalars to metrics.jsonl and the trackers; on the main process only."""
        if self.is_main:
            self.metrics.write(step, scalars)
            self.accelerator.log({self.prefix + name: value for name, value in scalars.items()}, step=step)

    def say(self, text: str) -> None:
        """Print on the main process."""
        self.accelerator.print(text, flush=True)


def start(run_dir: str | os.PathLike[str], loop: LoopConfig, config: Any, *, changeable: Collection[str] = ()) -> Run:
    """Set up processes and folder. Collective; call it before any model is built.

    A quantiser that is built before the process group exists never synchronises its codebook. From here on SIGTERM ends
    the process with exit code 75: at once, or in `loop.fit` once the run is saved.

    Parameters
    ----------
    run_dir : path
    loop : LoopConfig
    config : dataclass
        All that the run depends on; launched again it must be the same.
    changeable : collection of str
        Keys of it that may differ all the same: those that say where an input lies, if the program gives what it is to
        `Run.keep_to`, and those of which it sees by itself what is done and what is not.

    Raises
    ------
    ValueError
        The folder holds a run of another configuration or is in use, this machine cannot do what the loop asks for, or
        the launcher started other processes than it says.
    """
    _require_trackers(loop.trackers)
    if loop.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ValueError("mixed_precision fp16 needs a GPU, and there is none here; bf16 and no do without.")
    sigterm.end_at_once(speaks=os.environ.get("RANK", "0") == "0")
    warnings.filterwarnings("ignore", message=".*use_reentrant.*")
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=loop.mixed_precision,
        log_with=list(loop.trackers) or None,
        project_dir=str(run_dir),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=30))],
    )
    processes.check_world(accelerator.num_processes)
    if accelerator.num_processes > 1:
        processes.leave_the_word_to_the_failing_one()
    if accelerator.device.type == "cpu":
        processes.use_all_cores()
    logging.basicConfig(
        level=logging.INFO if accelerator.is_main_process else logging.ERROR, format="%(message)s", stream=sys.stderr
    )
    path = Path(run_dir)
    run = Run(path, accelerator, loop, MetricsFile(path / "metrics.jsonl"), config=config)
    run.first_scale = None if accelerator.scaler is None else accelerator.scaler.state_dict()

    def claim() -> None:
        run.lock = folder.claim(path, config, changeable)

    run.on_main(claim)
    _start_trackers(run, config)
    torch.manual_seed(loop.seed)
    return run


def _start_trackers(run: Run, config: Any) -> None:
    """Tell the trackers of the run and its configuration."""
    of_tracker: dict[str, dict[str, Any]] = {"wandb": {"dir": str(run.path), "resume": "allow"}}
    if run.is_main and "wandb" in run.loop.trackers:
        of_tracker["wandb"]["id"] = _wandb_id(run.path / "wandb_id")
    if (step := checkpoint.newest_step(run.checkpoints)) is not None:
        # What was logged after the checkpoint comes once more; TensorBoard would draw it twice.
        of_tracker["tensorboard"] = {"purge_step": step + 1}
    # Numbers as they are, the rest as text: no tracker takes lists, and not all of them None.
    flat = folder.flat(to_dict(config)).items()
    run.accelerator.init_trackers(
        "tensorboard" if run.loop.trackers == ["tensorboard"] else run.path.name,
        config={key: value if isinstance(value, int | float) else str(value) for key, value in flat},
        init_kwargs=of_tracker,
    )


def _wandb_id(path: Path) -> str:
    """The name that W&B knows a run by; written once, so that it goes on in the same place when taken up again."""
    if not path.exists():
        write_text(path, secrets.token_hex(8) + "\n")
    return path.read_text().strip()


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
