"""predictions.csv: what every trained model said about every window that was judged, for statistics of one's own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codebrain.data.format import write_text
from codebrain.data.windows import WindowDataset
from finetune.report import Arms


def write(path: Path, arms: Arms, dataset: WindowDataset) -> None:
    """Write a row per arm, fold, seed and window of the side that the report speaks of.

    Over several folds these are the out-of-fold predictions: each window once per seed, from a model that did not see
    its subject.
    """
    names = arms.task.class_names
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [f"p_{name}" for name in names] or ["value"]
    writer.writerow(["model", "fold", "seed", "recording", "start_s", "subject", "label", *scores])
    writer.writerows(_rows(arms, dataset))
    write_text(path, text.getvalue())


def in_seconds(time: float) -> str:
    """A time to the microsecond: a night has more milliseconds than the six digits that are usual can tell apart."""
    return f"{round(time, 6):.12g}"


def in_full(score: float) -> str:
    """A probability with digits enough that no two windows which a model ranks become equal."""
    return f"{score:.12g}"


def _rows(arms: Arms, dataset: WindowDataset) -> Iterator[list[Any]]:
    names = arms.task.class_names
    for arm, results in arms.results.items():
        for result in results:
            found = result.predictions[arms.side]
            starts = dataset.starts(found.window)
            for window, start, subject, label, score in zip(
                found.window, starts, found.subject, found.label, found.score, strict=True
            ):
                place = [dataset.recording(int(window)).path, in_seconds(start), subject]
                told = names[int(label)] if names else repr(float(label))
                yield [arm, result.fold, result.seed, *place, told, *(in_full(value) for value in score)]
