"""What a run is going to do, all of it checked before there is a folder: a mistake leaves nothing behind."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from codebrain.backbone import EEGSSM
from codebrain.weights import fingerprint
from finetune import baselines, manifest, provenance, recipes, sequences, splits
from finetune.classifier import fresh_backbone, load_backbone
from finetune.config import FOLD, FROM_SCRATCH, FinetuneConfig
from finetune.data import Data, open_data
from finetune.heads import Head
from finetune.provenance import Origin
from finetune.splits import Splits
from finetune.trial import head_config, micro_batches


@dataclass(frozen=True)
class Plan:
    """Store, splits and checkpoints of a run."""

    config: FinetuneConfig
    data: Data
    splits: Splits

    @property
    def from_scratch(self) -> bool:
        """Whether there is no checkpoint."""
        return self.config.ckpt == FROM_SCRATCH

    @property
    def ckpts(self) -> list[str]:
        """The checkpoint that each fold starts from: the same for all, or each its own."""
        return [self.config.ckpt.replace(FOLD, str(number)) for number in range(len(self.splits.folds))]

    def pretrained(self, number: int) -> EEGSSM:
        """The backbone of a fold's checkpoint; of none, one with random weights of the sizes that were asked for."""
        ckpt = self.ckpts[number]
        if ckpt not in self._held:
            self._held.clear()  # a hundred folds may have a hundred
            self._held[ckpt] = load_backbone(ckpt, self.config.backbone)
        return self._held[ckpt]

    def start(self, number: int, seed: int, *, random: bool) -> EEGSSM:
        """The backbone that a trial starts from: a copy, or one of the same sizes with the random weights of a seed."""
        like = self.pretrained(number)
        torch.manual_seed(seed)
        return fresh_backbone(like) if random else copy.deepcopy(like)

    def head(self, number: int) -> Head:
        """A head that fits a fold's backbone and the windows."""
        return Head(head_config(self.config, self.data, self.pretrained(number).config))

    def fingerprints(self) -> dict[str, str]:
        """What the checkpoints are, wherever they lie; nothing of random weights, which a seed makes."""
        if self.from_scratch:
            return {}
        # In the order of the folds: so they are compared, wherever they lie.
        first = {ckpt: self.ckpts.index(ckpt) for ckpt in self.ckpts}
        return {ckpt: fingerprint(model := self.pretrained(number), model.config) for ckpt, number in first.items()}

    @cached_property
    def sequences(self) -> str:
        """What a `sequence` head trains on, in words; "" for the others."""
        if self.config.head != "sequence":
            return ""
        length, names = self.config.training.sequence_length, self.data.task.class_names
        return sequences.require(self.data.dataset, self.splits, length, names)

    @cached_property
    def origins(self) -> list[Origin]:
        """How each fold's checkpoint came about."""
        found = {ckpt: Origin.of(ckpt) for ckpt in dict.fromkeys(self.ckpts)}
        return [found[ckpt] for ckpt in self.ckpts]

    @cached_property
    def pretraining(self) -> dict[str, Any] | None:
        """How many of the recordings that judge were read in pre-training; None without any."""
        if self.from_scratch:
            return None
        folds = zip(self.origins, self.splits.folds, strict=True)
        return provenance.total([origin.seen(self.data, fold) for origin, fold in folds])

    @cached_property
    def prepared_otherwise(self) -> str:
        """In words, how the windows were prepared otherwise than those of pre-training; "" where they were not."""
        return provenance.prepared_otherwise(self.ckpts[0], self.data)

    @cached_property
    def _held(self) -> dict[str, EEGSSM]:
        return {}


def make(config: FinetuneConfig) -> Plan:
    """Open and check everything that a run needs.

    Raises
    ------
    FileNotFoundError, ValueError
        Something is not there or does not fit together.
    """
    baselines.require(config.baseline)
    # The launcher says how many processes share a batch before they have found each other.
    micro_batches(config.training.batch_size, config.training.micro_batch, int(os.environ.get("WORLD_SIZE", "1")))
    data = open_data(config.data)
    if config.recipe is not None:
        recipes.check(config.recipe, data.task)
    plan = Plan(config, data, _splits(config, data))
    for number in range(len(plan.splits.folds)):
        if number == 0 or FOLD in config.ckpt:
            data.store.require(sfreq=plan.pretrained(number).config.patch_size)  # a patch is one second
            plan.head(number)
    for number, fold in enumerate(plan.splits.folds):
        where = f" in fold {number}" if len(plan.splits.folds) > 1 else ""
        plan.origins[number].require_unseen_labels(data, fold, where)
    _ = plan.sequences  # for its errors
    _ = plan.pretraining  # as it is now: what it reads may be gone when all is trained
    return plan


def _splits(config: FinetuneConfig, data: Data) -> Splits:
    if config.splits is None:
        return splits.make(data.windows, config.split)
    return manifest.from_manifest(manifest.read_manifest(Path(config.splits)), data.windows, data.store.fingerprint())
