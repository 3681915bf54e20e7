"""Configuration of a fine-tuning run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from codebrain.backbone import BackboneConfig
from codebrain.training.optim import OptimConfig
from finetune.heads import HeadKind
from finetune.splits import SplitConfig
from finetune.task import ClassWeights

Mode = Literal["full", "probe", "probe_then_full"]
Baseline = Literal["band_power", "tangent_space", "untrained"]

FROM_SCRATCH = "none"
"""Value of --ckpt for a backbone with random weights."""

FOLD = "{fold}"
"""Stands in --ckpt for the number of the fold."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a head, and in full fine-tuning the backbone below it, is trained."""

    epochs: int = 10
    """Passes over the training windows (the paper: 50, without early stopping)."""
    patience: int = 4
    """Stop after as many epochs without a better validation; 0 never does."""
    batch_size: int = 64
    """Windows per optimizer update, over all processes together."""
    micro_batch: int = 32
    """Most windows that a process computes at a time. Dropout is drawn for each such part of a batch, so that one
    process and two (with a batch of two parts or more) give the same result."""
    head_lr: float = 5e-4
    """Peak learning rate of the head; the backbone's is `optim.lr`. That of a `linear` head, which sums over all
    patches, is divided by the square root of their number."""
    layer_decay: float = 1.0
    """Factor on the backbone's rate from one layer to the one below it; 1 gives all layers the same rate."""
    dropout: float = 0.1
    """Dropout of the head; the backbone keeps its own."""
    hidden: int = 0
    """First layer of an `mlp` head, 0 for that of `codebrain.CodeBrain`, 4 times the width of the features; width of a
    `sequence` head, 0 for 512."""
    sequence_length: int = 20
    """Consecutive windows of a recording that a `sequence` head classifies together. A batch then counts sequences."""
    label_smoothing: float = 0.1
    """Label smoothing for more than two classes."""
    class_weights: ClassWeights = "balanced"
    """`balanced` weighs classes by the inverse of their share of the training windows; `none` is the paper's."""
    num_workers: int = 0
    """Processes that read windows ahead."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the forward pass."""

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("epochs", "batch_size", "micro_batch", "sequence_length"), 1)
        for name, least in {**counts, "patience": 0, "hidden": 0, "num_workers": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"--training.{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--training.{name} is {getattr(self, name)}; it must be 0 or more, and below 1")
        if self.head_lr <= 0:
            raise ValueError(f"--training.head_lr is {self.head_lr}; it must be above 0")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"--training.layer_decay is {self.layer_decay}; it must lie above 0 and not above 1")


def _paper_optim() -> OptimConfig:
    return OptimConfig(lr=1e-4, min_lr=1e-6, weight_decay=5e-4, grad_clip=5.0)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """A fine-tuning run."""

    ckpt: str
    """Pre-trained backbone: a stage-2 run or export folder, a Hub id, a .pth or .safetensors; `none` starts from random
    weights of the sizes in `backbone`. With `{fold}` in it each fold starts from a backbone of its own, such as one
    that was pre-trained without that fold's subjects."""
    data: str
    """Task store, from `codebrain-prep task`."""
    run_dir: str
    """Folder of the run; launching again with the same one takes it up."""
    recipe: str | None = None
    """The paper's settings for a data set, by its name in `codebrain-prep task` (faced, tuab, ...). They come before
    all that you give: your --config and your flags win."""
    mode: Mode = "full"
    """`full` trains everything; `probe` the head only, on features of the frozen backbone; `probe_then_full` one after
    the other."""
    head: HeadKind = "mlp"
    """`mlp`: the paper's three layers on all patches; `linear`: one layer on all patches; `channel`: one layer on the
    mean over each channel's patches; `mean`: one layer on the mean over all patches; `attention`: one layer on a learnt
    weighted mean; `sequence`: a transformer over consecutive windows, for sleep."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """One model is trained per seed (weights, order of the data, dropout); the report has their mean and spread."""
    baseline: list[Baseline] = field(default_factory=lambda: ["band_power"])
    """What to compare with on the same splits, `[]` for nothing. `band_power`: log band power and logistic regression;
    `tangent_space`: Riemannian tangent space and logistic regression (needs pyriemann); `untrained`: the same training
    on a backbone of the same sizes with random weights."""
    splits: str | None = None
    """A splits.json of another run, to use the same splits; otherwise they are made as `split` says."""
    split: SplitConfig = field(default_factory=SplitConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optim: OptimConfig = field(default_factory=_paper_optim)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Sizes of the backbone of `--ckpt none`; any other checkpoint brings its own."""

    def __post_init__(self) -> None:
        if min(self.seeds, default=0) < 0:
            raise ValueError(f"--seeds is {self.seeds}; a seed is a whole number, 0 or more")
        if self.splits is not None and replace(self.split, within_subject=False) != SplitConfig():
            raise ValueError(f"--splits {self.splits} brings its own split: leave --split.* out")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"--seeds is {self.seeds}; give one or more different numbers")
        if "untrained" in self.baseline and self.ckpt == FROM_SCRATCH:
            raise ValueError("--baseline untrained compares with random weights, and --ckpt none has them already")
