"""Corpus stores as both stages open them: checked against the tokenizer before any long work, subjects held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codebrain.data.windows import SplitConfig, WindowDataset, split_subjects
from tokenizer.model import TokenizerConfig


def open_corpus(
    stores: Sequence[str], sizes: TokenizerConfig, split: SplitConfig
) -> tuple[WindowDataset, WindowDataset, str]:
    """Windows to train on, windows of held-out subjects, and a line that says how many.

    Raises
    ------
    FileNotFoundError, ValueError
        A store is missing, incomplete or of another sampling rate, has electrodes or lengths that the tokenizer cannot
        name or hold, or too few subjects to hold one out.
    """
    dataset = WindowDataset(stores)
    if len({store.path.resolve() for store in dataset.stores}) < len(stores):
        raise ValueError(f"--data {' '.join(map(str, stores))}: a store is named twice")
    for store in dataset.stores:
        store.require(sfreq=sizes.sfreq, patch_seconds=sizes.patch_size / sizes.sfreq)
        present = {path.name for path in (store.path / "shards").glob("*.h5")}
        if missing := [shard.file for shard in store.shards if Path(shard.file).name not in present]:
            raise FileNotFoundError(
                f"{store.path}: {len(missing)} of {len(store.shards)} shards are missing ({', '.join(missing[:4])}). "
                "Run the same codebrain-prep command again: it makes what is missing."
            )
    for montage in dataset.montages:
        sizes.check(montage.ch_names, montage.n_times)
    train, valid = split_subjects(dataset, split)
    summary = (
        f"{len(train)} windows of {len(train.subject_names)} subjects to train on, {len(valid)} windows of "
        f"{len(valid.subject_names)} subjects held out; {', '.join(map(str, dataset.montages))}"
    )
    return train, valid, summary
