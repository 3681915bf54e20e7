"""One trial: one fold of the splits, one seed, trained and judged. Its folder is a run of its own.

    RUN/seed-0/  metrics.jsonl  predictions/{valid,test}.npz  summary.json, when it is finished
        checkpoints/      while it trains
        export/           the model; of a probe head.safetensors alone, since its backbone is the one it started from
        probe/            the first phase of `probe_then_full`

The weights of the best validation are put back before anything is predicted, and only then is the test set looked at.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from codebrain.backbone import EEGSSM, BackboneConfig
from codebrain.data.windows import Batch, WindowDataset
from codebrain.training import checkpoint, folder
from codebrain.training.launch import LoopConfig, Run
from codebrain.training.loop import FitResult, fit
from codebrain.training.optim import OptimConfig, parameter_groups
from codebrain.training.sampling import eval_batches
from finetune import classifier, metrics
from finetune.card import model_card
from finetune.classifier import Classifier, layer_scale, n_parameters
from finetune.config import FinetuneConfig
from finetune.data import Data
from finetune.heads import Head, HeadConfig
from finetune.metrics import Predictions
from finetune.predict import FrozenFeatures, Outputs, moments, outputs
from finetune.sequences import SequenceDataset
from finetune.splits import Fold

_SELECTION = "valid/selection"
"""Name of the figure that weights are selected by: the task's own, and among equals the smaller loss."""

HEAD_FILE = "head.safetensors"
"""Weights of a probe's head, in the trial's folder."""

_TRAINS_ANEW = "launch again: this trial trains anew."
"""What helps where a trial's files are damaged."""

_CALMER = "Lower --optim.lr and --training.head_lr, train in float32"
"""What helps against outputs that are NaN or infinite."""

_PROBE = "probe"
"""Folder of the first phase of `probe_then_full`, inside the trial's."""

_TIE = 1e-6
"""Weight of the loss in it. On few subjects an AUROC of 1 is soon reached, long before the probabilities are good."""


@dataclass(frozen=True)
class Result:
    """What came of a trial."""

    fold: int
    seed: int
    predictions: dict[str, Predictions]
    """For `valid`, and `test` where there is one."""
    facts: dict[str, Any]
    """Steps, best step, seconds, numbers of weights."""
    path: Path
    """The trial's folder."""

    @classmethod
    def read(cls, path: Path, fold: int, seed: int, sides: Iterable[str]) -> Result:
        """What a finished trial wrote into its folder."""
        summary = path / "summary.json"
        facts = folder.read_json(summary, _TRAINS_ANEW)
        try:
            predictions = {side: Predictions.load(predictions_file(path, side)) for side in sides}
        except ValueError as error:
            raise ValueError(f"{error} Delete {summary} and {_TRAINS_ANEW}") from error
        return cls(fold, seed, predictions, facts, path)


def predictions_file(trial: Path, side: str) -> Path:
    """Where a trial's predictions for a side of the splits lie."""
    return trial / "predictions" / f"{side}.npz"


@dataclass(frozen=True)
class Trial:
    """One fold and one seed of an arm of the comparison."""

    run: Run
    """The whole run."""
    config: FinetuneConfig
    data: Data
    fold: Fold
    number: int
    """Number of the fold."""
    seed: int
    name: str
    """Folder within the run, such as `seed-0` or `fold-2/seed-1`."""
    backbone: Callable[[int], EEGSSM]
    """Makes the backbone of a seed, anew at each call."""
    frozen: Callable[[int], FrozenFeatures]
    """Features of that backbone as it is before training."""

    def execute(self) -> Result:
        """Train, judge and export, or take up where a killed launch stood. Collective."""
        sub = self.run.sub_run(self.name, self._loop())
        if sub.summary is None:
            started = time.monotonic()
            model, fitted = self._train(sub)
            facts = self._judge(sub, model, fitted) | {"seconds": round(time.monotonic() - started, 2)}
            sub.finish(facts)
        if sub.is_main:
            # The best weights are in the export. Left where they are, the checkpoints of a hundred trials fill a disk.
            for checkpoints in (sub.checkpoints, sub.path / _PROBE / "checkpoints"):
                shutil.rmtree(checkpoints, ignore_errors=True)
        return Result.read(sub.path, self.number, self.seed, self.fold.judged)

    # --- training --------------------------------------------------------------------------------------------------

    def _train(self, sub: Run) -> tuple[Classifier, FitResult]:
        """The classifier with its best weights."""
        torch.manual_seed(self.seed)
        backbone = self.backbone(self.seed)
        head = Head(head_config(self.config, self.data, backbone.config))
        if self.data.task.kind == "regression":
            values = self.data.windows.label[self.fold.train]
            head.answer_like(float(values.mean()), float(values.std()) or 1.0)
        model = Classifier(backbone, head).to(self.run.device)
        mode = self.config.mode
        fitted = None
        if mode != "full":
            phase = sub if mode == "probe" else self.run.sub_run(f"{self.name}/{_PROBE}", self._loop())
            fitted = self._fit_probe(phase, head)
        if mode != "probe":
            fitted = self._fit_full(sub, model)
        assert fitted is not None
        return model.eval(), fitted

    def _fit_probe(self, phase: Run, head: Head) -> FitResult:
        """Train the head on features of the frozen backbone."""
        frozen = self.frozen(self.seed)

        def side(name: str) -> WindowDataset:
            return frozen.windows(self._side(name), self.data.windows.label)

        share = eval_batches(side("train"), phase.loop.batch_size, rank=phase.rank, world=phase.world)
        with torch.no_grad():
            pooled = (head.pool(frozen(batch.to(phase.device))) for batch in share)
            mean, spread = moments(phase, pooled, head.config.n_inputs)
        head.standardise(mean, spread)
        optim = self.config.optim
        scale = self._head_rate(head)
        return self._fit(
            phase,
            head,
            side,
            parameter_groups(head, optim.weight_decay),
            dataclasses.replace(optim, lr=optim.lr * scale, min_lr=optim.min_lr * scale),
            lambda module, batch: module(frozen(batch)),
        )

    def _fit_full(self, phase: Run, model: Classifier) -> FitResult:
        """Train backbone and head."""
        training, optim = self.config.training, self.config.optim
        n_layers = model.backbone.config.num_res_layers

        def scale(name: str) -> float:
            part, _, rest = name.partition(".")
            return self._head_rate(model.head) if part == "head" else layer_scale(rest, n_layers, training.layer_decay)

        groups = parameter_groups(model, optim.weight_decay, scale)
        # What the probe has reached is not given up for less.
        probed = self.config.mode == "probe_then_full"
        return self._fit(phase, model, self._side, groups, optim, lambda module, batch: module(batch.x), probed)

    def _head_rate(self, head: Head) -> float:
        """Factor from the backbone's learning rate to the head's."""
        return self.config.training.head_lr / self.config.optim.lr * head.config.rate

    def _fit(
        self,
        phase: Run,
        model: nn.Module,
        side: Callable[[str], WindowDataset],
        groups: list[dict[str, Any]],
        optim: OptimConfig,
        compute: Callable[[nn.Module, Batch], Tensor],
        from_start: bool = False,
    ) -> FitResult:
        task, training = self.data.task, self.config.training
        train, valid = self._items(side("train"), for_training=True), self._items(side("valid"))
        labels = self.data.windows.label
        seen = train.covered() if isinstance(train, SequenceDataset) else self.fold.train
        weights = task.weights(labels[seen], training.class_weights)
        on_device = weights.to(phase.device)

        def loss_fn(module: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
            assert batch.label is not None
            label = batch.label.flatten()
            logits = compute(module, batch).reshape(len(label), -1)
            return task.loss(logits, label, weights=on_device, smoothing=training.label_smoothing), {}

        def evaluate(module: nn.Module) -> dict[str, float]:
            found = outputs(phase, valid, lambda batch: compute(module, batch), phase.loop.batch_size)
            found.require_finite(self.data.dataset.describe, _CALMER)
            label = torch.from_numpy(labels[found.window])
            loss = task.loss(found.values, label, weights=weights, smoothing=training.label_smoothing)
            scores = metrics.score(task.kind, found.predictions(task, self.data.windows))
            figures = {f"valid/{name}": value for name, value in scores.items()}
            return {"valid/loss": loss.item(), **figures, _SELECTION: worth(scores[task.selection], loss.item())}

        result = fit(
            phase,
            model=model,
            groups=groups,
            loss_fn=loss_fn,
            evaluate=evaluate,
            train=train,
            optim=optim,
            best=(_SELECTION, "max"),
            from_start=from_start,
            patience=training.patience,
        )
        model.load_state_dict(checkpoint.at_step(phase.checkpoints, result.best_step).weights())
        # Under float16 the accelerator unscales the gradients of every optimizer it knows; this one has none any more.
        phase.accelerator.free_memory()
        return result

    # --- judging ---------------------------------------------------------------------------------------------------

    def _judge(self, sub: Run, model: Classifier, fitted: FitResult) -> dict[str, Any]:
        """Predict with the best weights, write predictions and the model."""
        task, judged = self.data.task, {}
        for side in self.fold.judged:
            found = self._predict(sub, model, side).require_finite(self.data.dataset.describe, _CALMER)
            predictions = found.predictions(task, self.data.windows)
            judged[side] = metrics.score(task.kind, predictions)
            if sub.is_main:
                predictions.save(predictions_file(sub.path, side))
        facts = {
            "final_step": fitted.final_step,
            "best_step": fitted.best_step,
            f"valid_{task.selection}": judged["valid"][task.selection],
            "n_parameters": n_parameters(model),
            "n_trained": n_parameters(model.head if self.config.mode == "probe" else model),
        }
        if sub.is_main and self.config.mode == "probe":
            save_file(model.head.state_dict(), sub.path / HEAD_FILE)
        elif sub.is_main:
            card = model_card(self.config, self.data.contract, facts)
            classifier.save(sub.export, model, self.data.contract, card=card)
        sub.accelerator.wait_for_everyone()
        return facts

    def _predict(self, sub: Run, model: Classifier, side: str) -> Outputs:
        """Outputs for the windows of a side; a probe has the features of its backbone already."""
        dataset = self._side(side)
        with torch.no_grad(), sub.accelerator.autocast():
            if self.config.mode != "probe":
                return outputs(sub, self._items(dataset), lambda batch: model(batch.x), sub.loop.batch_size)
            frozen = self.frozen(self.seed)
            unread = self._items(frozen.windows(dataset, self.data.windows.label))
            return outputs(sub, unread, lambda batch: model.head(frozen(batch)), sub.loop.batch_size)

    def _side(self, side: str) -> WindowDataset:
        return self.data.dataset.subset(getattr(self.fold, side))

    def _items(self, windows: WindowDataset, *, for_training: bool = False) -> WindowDataset:
        """What the head takes at a time: windows, or sequences of them."""
        if self.config.head != "sequence":
            return windows
        return SequenceDataset(windows, self.config.training.sequence_length, only_whole=for_training)

    def _loop(self) -> LoopConfig:
        """Epochs as steps. The batch is divided over the processes, so that their number changes no result."""
        training = self.config.training
        micro, accumulation = micro_batches(training.batch_size, training.micro_batch, self.run.world)
        per_epoch = max(1, round(len(self._items(self._side("train"), for_training=True)) / training.batch_size))
        return LoopConfig(
            total_steps=training.epochs * per_epoch,
            batch_size=micro,
            accumulation=accumulation,
            log_every=min(20, per_epoch),
            eval_every=per_epoch,
            save_every=per_epoch,
            keep_last=1,
            seed=self.seed,
            num_workers=training.num_workers,
            mixed_precision=training.mixed_precision,
        )


def head_config(config: FinetuneConfig, data: Data, sizes: BackboneConfig) -> HeadConfig:
    """Sizes of the head that fits a backbone and the windows.

    Raises
    ------
    ValueError
        There is no such head.
    """
    contract, training = data.contract, config.training
    return HeadConfig(
        kind=config.head,
        n_chans=len(contract.ch_names),
        n_patches=contract.n_times // sizes.patch_size,
        width=sizes.out_channels,
        n_outputs=data.task.n_logits,
        hidden=training.hidden,
        sequence_length=training.sequence_length,
        dropout=training.dropout,
    )


def worth(score: float, loss: float) -> float:
    """What weights are selected by: a figure of merit, and among equals the smaller loss, of whatever size."""
    return score - _TIE * loss / (1 + loss)


def micro_batches(batch_size: int, micro_batch: int, world: int) -> tuple[int, int]:
    """Windows of a micro-batch, and how many of them each process computes for an update.

    As large as divides a process's share and `micro_batch` allows.
    """
    share, rest = divmod(batch_size, world)
    if rest:
        raise ValueError(
            f"--training.batch_size {batch_size} does not divide by {world} processes, which share every batch. Give "
            f"{max(1, batch_size // world) * world} or another multiple of {world}."
        )
    size = max(n for n in range(1, min(share, micro_batch) + 1) if share % n == 0)
    return size, share // size
