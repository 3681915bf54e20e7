"""codebrain-predict: class probabilities for every window of a recording, as a table (CSV).

codebrain-predict RECORDING [RECORDING ...] --ckpt RUN [--output answers.csv]

Recordings are prepared as the store was that the model was trained on: its export folder says how.
"""

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codebrain.config import USER_MISTAKE, command, parse
from codebrain.data.format import require_output, write_text
from codebrain.data.windows import Batch, WindowDataset
from codebrain.device import find_device
from codebrain.training.sampling import eval_batches
from data_prep.read import Unit
from finetune.answers import in_seconds
from finetune.classifier import Classifier, Contract, load
from finetune.predict import LARGE_SAMPLES, Outputs
from finetune.recordings import cutter_for, prepared, recipe_for
from finetune.sequences import SequenceDataset


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What is read, by which model, and where the answers go."""

    recordings: list[str]
    """Any recordings that MNE reads (EDF, BDF, BrainVision, FIF, ...)."""
    ckpt: str
    """Fine-tuned model: run folder, export folder or Hub id."""
    output: str | None = None
    """File to write (.csv); without it the table is printed."""
    unit: Unit | None = None
    """Unit of the numbers in the files; null takes what the training recordings were taken for."""
    batch_size: int = 32
    """Windows, or sequences of windows, at a time."""
    device: str = "auto"
    """Where the model runs: cpu, cuda, ...; `auto` takes a GPU where there is one."""


def main() -> None:
    """Console script."""
    command(run_command)


def run_command(argv: list[str] | None = None) -> int:
    """Do what the command line asks; 0, or 2 if a recording could not be used."""
    config = parse(
        PredictConfig,
        argv,
        prog="codebrain-predict",
        description=(__doc__ or "").splitlines()[0],
        positional=["recordings"],
    )
    if config.batch_size < 1:
        raise ValueError(f"--batch_size is {config.batch_size}; it must be at least 1")
    if config.output is not None:
        require_output(Path(config.output))
    for path in config.recordings:
        _check_is_no_store(path)
    device = find_device(config.device)
    model, contract = load(config.ckpt)
    cutter = cutter_for(contract)
    with prepared(config.recordings, recipe_for(contract, config.unit), ("--unit",), cutter) as found:
        dataset = WindowDataset([found.store])
        said = [cutter.said, dataset.unseen(model.backbone.config.patch_size)]
        answers = predict(model.to(device), dataset, config.batch_size, device)
        answers.require_finite(dataset.describe, LARGE_SAMPLES)
        table = _table(answers, dataset, contract)
    if config.output is None:
        sys.stdout.write(table)
    else:
        Path(config.output).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(config.output), table)
        n_used = len(found.store.recordings) - len(found.refused)
        print(f"{config.output}: {len(answers.window)} windows of {n_used} recording(s)")
    for line in filter(None, said):
        print(f"NOTE: {line}.", file=sys.stderr)
    found.tell()
    return USER_MISTAKE if found.refused else 0


def _check_is_no_store(path: str) -> None:
    if any((Path(path) / name).exists() for name in ("store.json", "progress")):
        raise ValueError(
            f"{path} is a store, and codebrain-predict reads recordings. What a fine-tuned model says of the windows "
            "of its own store is in predictions.csv of the run; features of any store come from codebrain-embed"
        )


def predict(model: Classifier, dataset: WindowDataset, batch_size: int, device: torch.device) -> Outputs:
    """A model's outputs for every window of a dataset, in its order; with a progress bar where somebody is looking."""
    head = model.head.config
    items = SequenceDataset(dataset, head.sequence_length, only_whole=False) if head.kind == "sequence" else dataset
    with tqdm(total=len(dataset), desc="predicting", unit=" windows", leave=False, disable=None) as bar:

        def compute(batch: Batch) -> Tensor:
            bar.update(batch.window.numel())
            with torch.inference_mode():
                return model(batch.x, prepared=True)

        return Outputs.of(eval_batches(items, batch_size), compute, device)


def _table(answers: Outputs, dataset: WindowDataset, contract: Contract) -> str:
    """CSV: recording, start and stop in seconds, answer, a probability per class; for a regression its value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = contract.task.class_names
    answer = ["answer", *(f"p_{name}" for name in names)] if names else ["value"]
    writer.writerow(["recording", "start_s", "stop_s", *answer])
    writer.writerows(_rows(answers, dataset, contract))
    return text.getvalue()


def _rows(answers: Outputs, dataset: WindowDataset, contract: Contract) -> Iterator[list[str]]:
    names, seconds = contract.task.class_names, contract.n_times / contract.sfreq
    starts = dataset.starts(answers.window)
    scores = contract.task.scores(answers.values).numpy()
    for window, start, score in zip(answers.window, starts, scores, strict=True):
        answer = [names[int(np.argmax(score))]] if names else []
        place = [dataset.recording(int(window)).path, in_seconds(start), in_seconds(start + seconds)]
        yield [*place, *answer, *(f"{value:.6f}" for value in score)]


if __name__ == "__main__":
    main()
