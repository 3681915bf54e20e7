"""The task store that a run learns from, checked before anything long begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codebrain.data.format import Store
from codebrain.data.integrity import require_whole
from codebrain.data.windows import WindowDataset
from finetune.classifier import Contract
from finetune.splits import Windows
from finetune.task import Task


@dataclass(frozen=True)
class Data:
    """The task store as all trials see it."""

    store: Store
    task: Task
    dataset: WindowDataset
    windows: Windows
    contract: Contract


def open_data(path: str) -> Data:
    """Open a task store.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no such store, it is cut short, has no labels or no windows, or its windows differ in channels or
        length.
    """
    if not Path(path).is_dir():
        raise FileNotFoundError(
            f"--data {path}: no such store. `codebrain-prep task NAME PATH --output {path}` makes one."
        )
    store = Store.open(path)
    task = Task.of(store)
    require_whole(store)
    dataset = WindowDataset([store.require(sfreq=store.info.sfreq)])
    if len(dataset.montages) != 1:
        raise ValueError(
            f"{store.path} has windows of {len(dataset.montages)} kinds ({', '.join(map(str, dataset.montages))}); "
            "a task store must have one set of channels and one length. Prepare it again."
        )
    (montage,) = dataset.montages
    windows = Windows(
        subject=dataset.subjects(),
        label=dataset.labels(),
        recording=dataset.rows(),
        published=dataset.splits() if store.info.task is not None and store.info.task.has_split else None,
        class_names=task.class_names,
    )
    contract = Contract(
        task=task,
        ch_names=montage.ch_names,
        n_times=montage.n_times,
        sfreq=store.info.sfreq,
        preparation=store.info.preparation,
    )
    return Data(store, task, dataset, windows, contract)
