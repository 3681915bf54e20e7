"""The training loop. Stages 1 and 2 and fine-tuning call `fit` and nothing else.

Everything random is a function of (seed, step, micro-batch, process): the order of the windows, the generator that
`loss_fn` gets, torch's own generators. A run that was killed and taken up again therefore ends with the same bits.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from codebrain.data.windows import Batch, WindowDataset
from codebrain.training import checkpoint, sigterm
from codebrain.training.launch import Run
from codebrain.training.logging import TIME_PREFIX, Progress
from codebrain.training.optim import OptimConfig, adamw, learning_rate, set_learning_rate
from codebrain.training.sampling import StepRequests, train_loader

LossFn = Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, dict[str, Any]]]
EvaluateFn = Callable[[nn.Module], dict[str, float]]
AfterUpdateFn = Callable[[int, torch.Generator], dict[str, float]]

_LEAST_SCALE = 2.0**-14
"""Of float16's loss scaling, which halves at every gradient that is not finite and starts at 2^16."""

# What a random draw is for: the last part of its key.
_DRAW_STEP, _DRAW_TORCH, _DRAW_EVALUATE = 0, 1, 2


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
    trainer = _Trainer(run, wrapped, prepared, _batches(run, train, state.step), loss_fn, after_update, train, optim)
    windows_per_step = run.loop.batch_size * run.loop.accumulation * run.world
    stop = False
    bar = Progress(first=state.step, total=run.loop.total_steps, windows_per_step=windows_per_step, shown=run.is_main)
    with sigterm.noted() as asked_to_stop, bar as progress:
        if state.step == 0:
            _validate(run, model, evaluate, state, best)
        clock = _Clock()
        while state.step < run.loop.total_steps and not (patience and state.since_best >= patience):
            scalars = trainer.step(state)
            last = state.step == run.loop.total_steps
            stop = _accumulate(run, state, scalars, asked_to_stop.is_set())
            progress.step(state.sums["train/loss"] / state.n_summed)
            clock.step()

            if state.step % run.loop.log_every == 0 or last:
                _log_training(run, state, trainer.rate, clock.read(windows_per_step))
            improved = (state.step % run.loop.eval_every == 0 or last) and _validate(run, model, evaluate, state, best)
            if improved or last or stop or state.step % run.loop.save_every == 0:
                _save(run, model, optimizer, state)
            if stop:
                break
            clock.restart()
    if stop:
        run.say(f"stopped by SIGTERM after step {state.step}, which is saved; launch again to go on from it.")
        raise SystemExit(sigterm.INTERRUPTED)
    if asked_to_stop.is_set():  # since the last step was made; it is saved
        sigterm.end(speaks=run.is_main)
    assert state.best_value is not None, "the last step is always validated"
    return FitResult(state.step, state.best_step, state.best_value, state.last)


def _resume(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[_State, torch.optim.Optimizer]:
    saved = checkpoint.resumable(run.checkpoints)
    if saved is None:
        if run.is_main:
            run.metrics.truncate(0)
        return _State(), optimizer
    if saved.state["processes"] != run.world:
        raise ValueError(
            f"{run.path} was trained by {saved.state['processes']} processes, now there are {run.world}. A run is "
            "taken up exactly where it stood, which needs the same number; or start a new --run_dir."
        )
    saved.load(model, optimizer)
    if run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(saved.state["scaler"])
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


@dataclass
class _Trainer:
    """Makes one optimizer update after the other."""

    run: Run
    model: nn.Module
    """Compiled and distributed."""
    optimizer: Any
    """As accelerate prepared it."""
    batches: Iterator[Batch]
    loss_fn: LossFn
    after_update: AfterUpdateFn | None
    train: WindowDataset
    optim: OptimConfig
    rate: float = 0.0
    """Learning rate of the last update."""

    def step(self, state: _State) -> dict[str, Any]:
        """Make one update and count it; the scalars are this process's means over the micro-batches."""
        seed = self.run.loop.seed
        self.rate = learning_rate(state.step, self.optim, self.run.loop.total_steps)
        set_learning_rate(self.optimizer, self.rate)
        generator = torch.Generator().manual_seed(_key(seed, state.step, 0, 0, _DRAW_STEP))
        scalars, windows = self._gradient(state, generator)
        scalars["train/grad_norm"] = self._clip()
        _require_finite(self.run, scalars, windows, state, self.train)
        scalars |= self._update()
        if self.after_update is not None:
            found = self.after_update(state.step, generator)
            scalars |= {f"train/{name}": value for name, value in found.items()}
        state.step += 1
        return scalars

    def _gradient(self, state: _State, generator: torch.Generator) -> tuple[dict[str, Any], list[int]]:
        """Add up the gradients of the micro-batches; return the means of their scalars, and their windows."""
        run, loop = self.run, self.run.loop
        start = generator.get_state()
        sums: dict[str, Any] = {}
        windows: list[int] = []
        for micro in range(loop.accumulation):
            batch = next(self.batches).to(run.device)
            windows += batch.window.tolist()
            generator.set_state(start)
            # By the place in the global batch: one process with two micro-batches draws what two with one each do.
            torch.manual_seed(_key(loop.seed, state.step, micro * run.world + run.rank, 0, _DRAW_TORCH))
            last = micro == loop.accumulation - 1
            with nullcontext() if last else run.accelerator.no_sync(self.model):
                with run.accelerator.autocast():
                    loss, scalars = self.loss_fn(self.model, batch, generator)
                run.accelerator.backward(loss / loop.accumulation)
            for name, value in {"loss": loss, **scalars}.items():
                sums[f"train/{name}"] = sums.get(f"train/{name}", 0.0) + _detached(value) / loop.accumulation
        return sums, windows

    def _clip(self) -> Tensor:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return self.run.accelerator.clip_grad_norm_(parameters, self.optim.grad_clip or math.inf).detach()

    def _update(self) -> dict[str, float]:
        """Move the weights, unless float16's scaler finds the gradient too large for its present scale."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        accelerator = self.run.accelerator
        if accelerator.scaler is None:
            return {}
        skipped = accelerator.optimizer_step_was_skipped
        if skipped and accelerator.scaler.get_scale() < _LEAST_SCALE:
            raise FloatingPointError(
                f"float16 skipped updates until its scale fell below {_LEAST_SCALE:g}: the gradient is not finite at "
                "any scale. Train with --loop.mixed_precision bf16 or no."
            )
        return {"train/skipped_updates": float(skipped)} | ({"train/grad_norm": 0.0} if skipped else {})


def _require_finite(run: Run, sums: dict[str, Any], windows: list[int], state: _State, train: WindowDataset) -> None:
    """End all processes together, with one message, before a non-finite number reaches the weights.

    Under float16 the scaler skips updates whose gradient is not finite by itself; there only the loss counts.
    """
    # An infinite loss may have a finite gradient; times nought, either one spoils the sum.
    judged = sums["train/loss"].double() * 0.0
    if run.accelerator.scaler is None:
        judged = judged + sums["train/grad_norm"].double() * 0.0
    if run.world > 1:
        judged = run.accelerator.reduce(judged, reduction="sum")
    if bool(torch.isfinite(judged)):
        return
    loss = float(sums["train/loss"])
    culprits = gather_object([] if math.isfinite(loss) else [train.describe(window) for window in windows])
    if not run.is_main:
        raise SystemExit(1)
    saved = checkpoint.latest(run.checkpoints)
    raise FloatingPointError(
        f"the {'loss' if culprits else 'gradient'} of step {state.step + 1} is not finite, so the run stops before "
        "the update. "
        + (
            f"Windows of the batch: {', '.join(culprits[:8])}{' ...' if len(culprits) > 8 else ''}. "
            if culprits
            else ""
        )
        + (f"Last good checkpoint: {saved.path}. " if saved else "")
        + "Lower --optim.lr or --optim.grad_clip, train in float32, or look at those windows."
    )


def _accumulate(run: Run, state: _State, scalars: dict[str, Any], asked_to_stop: bool) -> bool:
    """Add a step's figures, averaged over processes, to the running sums; say whether any process was asked to stop."""
    names = sorted(scalars)
    values = torch.stack(
        [torch.as_tensor(scalars[name], dtype=torch.float64, device=run.device).mean() for name in names]
        + [torch.tensor(float(asked_to_stop), dtype=torch.float64, device=run.device)]
    )
    if run.world > 1:
        values = run.accelerator.reduce(values, reduction="mean")
    *means, stop = values.tolist()
    for name, mean in zip(names, means, strict=True):
        state.sums[name] = state.sums.get(name, 0.0) + mean
    state.n_summed += 1
    return stop > 0


def _log_training(run: Run, state: _State, rate: float, timing: dict[str, float]) -> None:
    means = {name: total / state.n_summed for name, total in state.sums.items()}
    times = {TIME_PREFIX + name: value for name, value in timing.items()}
    run.log(state.step, {**means, "train/lr": rate, **times})
    state.sums, state.n_summed = {}, 0


def _validate(run: Run, model: nn.Module, evaluate: EvaluateFn, state: _State, best: tuple[str, str]) -> bool:
    """Validate and log; say whether it is the best so far."""
    key, mode = best
    torch.manual_seed(_key(run.loop.seed, state.step, 0, run.rank, _DRAW_EVALUATE))
    model.eval()
    with torch.no_grad(), run.accelerator.autocast():
        state.last = evaluate(model)
    model.train()
    run.log(state.step, state.last)
    value = state.last[key]
    if state.step == 0:
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


def _key(*parts: int) -> int:
    """A 63-bit seed from a draw's coordinates."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
