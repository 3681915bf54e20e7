"""The training loop. Stages 1 and 2 and fine-tuning call `fit` and nothing else.

Everything random is a function of (seed, step, micro-batch, process): the order of the windows, the generator that
`loss_fn` gets, torch's own generators. A run that was killed and taken up again therefore ends with the same bits.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from codebrain.data.windows import Batch, WindowDataset
from codebrain.training import checkpoint, sigterm
from codebrain.training.launch import Run
from codebrain.training.logging import TIME_PREFIX, Progress
from codebrain.training.optim import OptimConfig, adamw
from codebrain.training.sampling import StepRequests, train_loader
from codebrain.training.update import DRAW_EVALUATE, AfterUpdateFn, LossFn, Updater, draw_key

EvaluateFn = Callable[[nn.Module], dict[str, float]]

_ASKED_TO_STOP = "asked to stop"
"""Stands among the figures of a step that are averaged over processes, and is taken out again."""


@dataclass(frozen=True)
class FitResult:
    """How a run ended."""

    final_step: int
    """Optimizer updates made."""
    best_step: int
    """Step of the best validation."""
    best_value: float
    """Its value."""
    last: dict[str, float]
    """Figures of the last validation."""


@dataclass
class _State:
    """What a checkpoint carries besides weights and optimizer state."""

    step: int = 0
    best_step: int = 0
    best_value: float | None = None
    since_best: int = 0
    """Validations since the best one."""
    last: dict[str, float] = field(default_factory=dict)
    """Figures of the last validation."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums of the training figures since they were last logged."""
    n_summed: int = 0

    def count(self, figures: dict[str, float]) -> None:
        """One more step, with its figures."""
        self.step += 1
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.n_summed += 1


class _Clock:
    """Time that steps take, validations and saves left out."""

    def __init__(self) -> None:
        self._seconds, self._steps = 0.0, 0
        self.restart()

    def restart(self) -> None:
        """A step begins."""
        self._started = time.monotonic()

    def step(self) -> None:
        """A step ends."""
        self._seconds += time.monotonic() - self._started
        self._steps += 1

    def read(self, windows_per_step: int) -> dict[str, float]:
        """Mean over the steps since this was last called."""
        seconds = self._seconds / self._steps
        self._seconds, self._steps = 0.0, 0
        return {"seconds_per_step": seconds, "windows_per_s": windows_per_step / seconds}


def fit(
    run: Run,
    *,
    model: nn.Module,
    groups: list[dict[str, Any]],
    loss_fn: LossFn,
    evaluate: EvaluateFn,
    train: WindowDataset,
    optim: OptimConfig,
    after_update: AfterUpdateFn | None = None,
    best: tuple[str, str] = ("valid/loss", "min"),
    from_start: bool = False,
    patience: int = 0,
) -> FitResult:
    """Train a model to `run.loop.total_steps`, from the run's last checkpoint if there is one. Collective.

    Parameters
    ----------
    run : Run
        From `launch.start`, called before the model was built.
    model : nn.Module
        On the run's device; neither compiled nor distributed.
    groups : list of dict
        From `optim.parameter_groups`.
    loss_fn : callable
        ``(model, batch, generator) -> (loss, scalars)``. The model is the wrapped one: only call it. The generator
        (on the CPU) is the same on all processes and micro-batches of a step: draw for `batch.global_size` windows
        and use the rows from `batch.offset` on. The loss is averaged over processes and micro-batches.
    evaluate : callable
        ``model -> scalars`` on held-out windows, the same on every process; collective. The model is the bare one, in
        evaluation mode, under no_grad.
    after_update : callable, optional
        ``(step, generator) -> scalars`` after every update on every process; collective.
    best : (str, "min" or "max")
        Which validation figure the best checkpoint is chosen by.
    from_start : bool
        Whether the model as it is given may be the best, having been trained before.
    patience : int
        Stop after as many validations without a new best; 0 never does.

    Returns
    -------
    FitResult
        The model holds the weights of the last step; `checkpoint.at_step(run.checkpoints, result.best_step)` has
        the best ones.

    Raises
    ------
    FloatingPointError
        A loss or gradient that is not finite, before it reaches the weights.
    SystemExit
        With code 75 after SIGTERM, once the run is saved.
    """
    state, optimizer = _resume(run, model, adamw(groups, optim))
    wrapped, prepared = _wrap(run, model, optimizer)
    updater = Updater(run, wrapped, prepared, _batches(run, train, state.step), loss_fn, after_update, train, optim)
    windows_per_step = run.loop.batch_size * run.loop.accumulation * run.world
    stop = False
    bar = Progress(first=state.step, total=run.loop.total_steps, windows_per_step=windows_per_step, shown=run.is_main)
    with sigterm.noted() as asked_to_stop, bar as progress:
        if not state.last and _validate(run, model, evaluate, state, best, from_start=from_start):
            _save(run, model, optimizer, state)
        clock = _Clock()
        while not stop and state.step < run.loop.total_steps and not (patience and state.since_best >= patience):
            scalars = updater.update(state.step)
            means = _mean_over_processes(run, {**scalars, _ASKED_TO_STOP: float(asked_to_stop.is_set())})
            stop = means.pop(_ASKED_TO_STOP) > 0  # any process was
            state.count(means)
            last = state.step == run.loop.total_steps
            progress.step(state.sums["train/loss"] / state.n_summed)
            clock.step()

            if state.step % run.loop.log_every == 0 or last:
                _log_training(run, state, updater.rate, clock.read(windows_per_step))
            judged = state.step % run.loop.eval_every == 0 or last
            improved = judged and _validate(run, model, evaluate, state, best)
            if improved or last or stop or state.step % run.loop.save_every == 0:
                _save(run, model, optimizer, state)
            clock.restart()
    if stop or asked_to_stop.is_set():  # which may come after the last step as well
        run.say(f"stopped by SIGTERM after step {state.step}, which is saved; launch again to go on from it.")
        run.accelerator.end_training()  # or the trackers lose what they have not written yet
        raise SystemExit(sigterm.INTERRUPTED)
    assert state.best_value is not None, "the last step is always validated"
    return FitResult(state.step, state.best_step, state.best_value, state.last)


def _resume(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[_State, torch.optim.Optimizer]:
    saved = checkpoint.resumable(run.checkpoints)
    scaler = run.accelerator.scaler
    if saved is None:
        if run.is_main:
            run.metrics.truncate(0)
        if scaler is not None:  # a run inside another one would go on with the scale that the one before it ended at
            scaler.load_state_dict(run.first_scale)
        return _State(), optimizer
    if saved.state["processes"] != run.world:
        raise ValueError(
            f"{run.path} was trained by {saved.state['processes']} processes, now there are {run.world}. A run is "
            "taken up exactly where it stood, which needs the same number; or start a new --run_dir."
        )
    saved.load(model, optimizer)
    if scaler is not None:
        scaler.load_state_dict(saved.state["scaler"])
    if run.is_main:
        run.metrics.truncate(saved.state["metrics_bytes"])
    run.say(f"taking {run.path} up at step {saved.step} of {run.loop.total_steps}")
    names = {f.name for f in dataclasses.fields(_State)}
    return _State(**{name: value for name, value in saved.state.items() if name in names}), optimizer


def _wrap(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
    """Compile and distribute. `model` stays the bare one, whose names get into checkpoints."""
    model.train()
    wrapped, prepared = run.accelerator.prepare(torch.compile(model) if run.loop.compile else model, optimizer)
    if run.world > 1:
        # Buffers were synchronised when DDP was built; codebooks keep themselves in step from here on.
        wrapped.broadcast_buffers = False
    return wrapped, prepared


def _batches(run: Run, train: WindowDataset, first_step: int) -> Iterator[Batch]:
    """This process's micro-batches from a step on."""
    loop = run.loop
    requests = StepRequests(
        train,
        batch_size=loop.batch_size,
        accumulation=loop.accumulation,
        steps=range(first_step, loop.total_steps),
        seed=loop.seed,
        rank=run.rank,
        world=run.world,
    )
    return train_loader(requests, train, num_workers=loop.num_workers, pin=run.device.type == "cuda")


def _mean_over_processes(run: Run, scalars: dict[str, Any]) -> dict[str, float]:
    """Means of tensors and numbers, in one exchange. Collective."""
    names = sorted(scalars)
    values = torch.stack(
        [torch.as_tensor(scalars[name], dtype=torch.float64, device=run.device).mean() for name in names]
    )
    if run.world > 1:
        values = run.accelerator.reduce(values, reduction="mean")
    return dict(zip(names, values.tolist(), strict=True))


def _log_training(run: Run, state: _State, rate: float, timing: dict[str, float]) -> None:
    means = {name: total / state.n_summed for name, total in state.sums.items()}
    times = {TIME_PREFIX + name: value for name, value in timing.items()}
    run.log(state.step, {**means, "train/lr": rate, **times})
    state.sums, state.n_summed = {}, 0


def _validate(
    run: Run,
    model: nn.Module,
    evaluate: EvaluateFn,
    state: _State,
    best: tuple[str, str],
    *,
    from_start: bool = True,
) -> bool:
    """Validate and log; say whether it is the best so far, which step 0 is only `from_start`."""
    key, mode = best
    torch.manual_seed(draw_key(run.loop.seed, state.step, 0, run.rank, DRAW_EVALUATE))
    model.eval()
    with torch.no_grad(), run.accelerator.autocast():
        state.last = evaluate(model)
    model.train()
    run.log(state.step, state.last)
    value = state.last[key]
    if state.step == 0 and not from_start:
        return False
    record = state.best_value
    better = record is None or math.isnan(record) or (value < record if mode == "min" else value > record)
    if better:
        state.best_step, state.best_value, state.since_best = state.step, value, 0
    else:
        state.since_best += 1
    return better


def _save(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, state: _State) -> None:
    if run.is_main:
        scaler = run.accelerator.scaler
        content = {
            **dataclasses.asdict(state),
            "processes": run.world,
            "metrics_bytes": run.metrics.size(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }
        checkpoint.save(run.checkpoints, model, optimizer, content)
        checkpoint.prune(run.checkpoints, run.loop.keep_last, state.best_step, state.step)
    run.accelerator.wait_for_everyone()
