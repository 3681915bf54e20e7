"""Corpus stores as both stages open them: checked against the tokenizer before any long work, subjects held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from codebrain.data.format import Store
from codebrain.data.integrity import require_whole
from codebrain.data.subjects import SplitConfig, split_subjects
from codebrain.data.windows import WindowDataset
from tokenizer.config import TokenizerConfig


def open_corpus(
    stores: Sequence[str], sizes: TokenizerConfig, split: SplitConfig
) -> tuple[WindowDataset, WindowDataset, str]:
    """Windows to train on, windows of held-out subjects, and a summary: how many, and which stores are older.

    Raises
    ------
    FileNotFoundError, ValueError
        A store is missing, incomplete, cut short or of another sampling rate, has electrodes or lengths that the
        tokenizer cannot name or hold, or too few subjects to hold one out.
    """
    dataset = WindowDataset(stores)
    if len({store.path.resolve() for store in dataset.stores}) < len(stores):
        raise ValueError(f"--data {' '.join(map(str, stores))}: a store is named twice")
    for store in dataset.stores:
        store.require(sfreq=sizes.sfreq, patch_seconds=sizes.patch_size / sizes.sfreq)
        require_whole(store)
    for montage in dataset.montages:
        sizes.check(montage.ch_names, montage.n_times)
    train, valid = split_subjects(dataset, split)
    summary = (
        f"{len(train)} windows of {len(train.subject_names)} subjects to train on, {len(valid)} windows of "
        f"{len(valid.subject_names)} subjects held out; {', '.join(map(str, dataset.montages))}"
    )
    older = [f"WARNING: {warning}" for store in dataset.stores if (warning := store.outdated())]
    unseen = [f"NOTE: {unseen}."] if (unseen := dataset.unseen(sizes.patch_size)) else []
    return train, valid, "\n".join([*older, summary, *unseen])


def preparations(stores: Sequence[Store]) -> list[dict[str, Any]]:
    """How windows were prepared, each way once and the one of most windows first.

    Each has `windows`, how many; `window_seconds`; and `preparation`, every constant of it.
    """
    ways: dict[str, dict[str, Any]] = {}
    for store in stores:
        way = {"window_seconds": store.info.window_seconds, "preparation": store.info.preparation}
        ways.setdefault(json.dumps(way, sort_keys=True), {"windows": 0, **way})["windows"] += store.n_windows
    return sorted(ways.values(), key=lambda way: -way["windows"])
