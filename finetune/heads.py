"""Heads: from the backbone's features of a window to its logits.

Shape letters: B batch, L windows of a sequence, C channels, P patches per channel, D width of the features, H width of
a sequence head, K outputs.

| head        | what it sees                            | montage | layers                                          |
|-------------|-----------------------------------------|---------|-------------------------------------------------|
| `mlp`       | every feature of every patch, in place  | fixed   | the paper's three: C * P * D -> 4 * D -> D -> K |
| `linear`    | every feature of every patch, in place  | fixed   | one: C * P * D -> K                             |
| `channel`   | the mean feature of each channel        | fixed   | one: C * D -> K, any length of window           |
| `mean`      | the mean feature of all patches         | any     | one: D -> K                                     |
| `attention` | a weighted mean, the weights learnt     | any     | one that weighs patches, one: D -> K            |
| `sequence`  | every feature of up to L windows in row | fixed   | C * P * D -> H, a transformer layer, H -> K     |
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

HeadKind = Literal["mlp", "linear", "channel", "mean", "attention", "sequence"]

_DEAD = 1e-3
"""Share of the usual spread below which an input counts as one that does not move."""

_SEQUENCE_WIDTH = 512
_SEQUENCE_HEADS = 4


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Shape of a head, all of it: what is needed to build it again."""

    kind: HeadKind = "mlp"
    """`mlp`: the paper's three layers on all patches; `linear`: one layer on all patches; `channel`: one layer on the
    mean over each channel's patches; `mean`: one layer on the mean over all patches; `attention`: one layer on a learnt
    weighted mean; `sequence`: neighbouring windows together."""
    n_chans: int
    """Channels of a window. `mlp`, `linear`, `channel` and `sequence` are bound to it."""
    n_patches: int
    """Patches per channel. `mlp`, `linear` and `sequence` are bound to it."""
    width: int
    """Features per patch."""
    n_outputs: int
    """Logits: 1 for two classes and for a regression, otherwise one per class."""
    hidden: int = 0
    """First layer of `mlp`, 0 for that of `codebrain.CodeBrain`, 4 * width; width of `sequence`, 0 for 512."""
    sequence_length: int = 20
    """Most windows that `sequence` looks at together."""
    n_queries: int = 4
    """Learnt queries of `attention`, each with weights of its own; they must divide the width."""
    dropout: float = 0.1
    """Share of values dropped before the second and third layer of `mlp`, within the transformer of `sequence`, and of
    the pooled features of the others."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is no fraction; allowed are 0 to below 1")
        if self.kind == "attention" and self.width % self.n_queries:
            raise ValueError(
                f"an attention head needs as many features per patch as its {self.n_queries} queries divide, and the "
                f"backbone gives {self.width} (--backbone.out_channels); take another head (--head) or backbone"
            )
        if self.kind == "sequence" and (self.hidden % _SEQUENCE_HEADS or self.sequence_length < 1):
            raise ValueError(
                f"a sequence head of width {self.hidden} over {self.sequence_length} windows is impossible: the width "
                f"(--training.hidden) must divide by its {_SEQUENCE_HEADS} attention heads, and there must be a "
                "window (--training.sequence_length)"
            )

    @property
    def any_montage(self) -> bool:
        """Whether the head takes any number of channels."""
        return self.kind in ("mean", "attention")

    @property
    def any_length(self) -> bool:
        """Whether the head takes any number of patches per channel."""
        return self.any_montage or self.kind == "channel"

    @property
    def first_layer(self) -> int:
        """Width of the first layer of `mlp`."""
        return self.hidden or 4 * self.width

    @property
    def n_inputs(self) -> int:
        """Inputs of the classifier, after pooling or flattening."""
        return self._n_parts * self.width

    @property
    def rate(self) -> float:
        """Factor on the learning rate.

        `linear` sums over all patches at once: at the rate of a head that sees their mean it fits the training windows
        within an epoch. Below 1 by the square root of their number, it learns as gradually whatever the montage.
        """
        return self._n_parts**-0.5 if self.kind == "linear" else 1.0

    @property
    def _n_parts(self) -> int:
        """Patches, channels or means that the classifier sees side by side."""
        return (1 if self.any_montage else self.n_chans) * (1 if self.any_length else self.n_patches)

    def check(self, shape: torch.Size) -> None:
        """Raise ValueError unless the head takes features of this shape (..., C, P, D)."""
        n_chans, n_patches, width = shape[-3:]
        if width != self.width:
            raise ValueError(f"the head takes features of width {self.width}, the backbone gives {width}")
        fits = (self.any_montage or n_chans == self.n_chans) and (self.any_length or n_patches == self.n_patches)
        if not fits:
            size = f"{self.n_chans} channels" + ("" if self.any_length else f" x {self.n_patches} patches")
            raise ValueError(
                f"this `{self.kind}` head is bound to windows of {size}, these have {n_chans} x {n_patches}. Give it "
                "windows of the montage it was trained on, or train one with `--head mean` or `--head attention`, "
                "which take any."
            )


class Head(nn.Module):
    """Pool or flatten, standardise, classify.

    What the classifier sees is shifted and scaled by constants, 0 and 1 until `standardise` sets them. A probe needs
    that: features of frozen backbones differ in size, and a rate that suits one would favour it over another. Full
    fine-tuning learns its own scale and leaves them alone.

    What it answers is scaled and shifted, too: by 1 and 0 until `answer_like` sets them for a regression, whose values
    (an age, a share) a small rate would otherwise take long to reach.
    """

    shift: Tensor
    scale: Tensor
    answer_shift: Tensor
    answer_scale: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.pool = _pool(config)
        self.register_buffer("shift", torch.zeros(config.n_inputs))
        self.register_buffer("scale", torch.ones(config.n_inputs))
        self.register_buffer("answer_shift", torch.zeros(()))
        self.register_buffer("answer_scale", torch.ones(()))
        self.classify = _classifier(config)

    def standardise(self, mean: Tensor, spread: Tensor) -> None:
        """Shift and scale by the mean and the standard deviation (n_inputs,) of pooled training features."""
        self.shift.copy_(mean)
        # An input that hardly moves beside the others (a dead unit) is not blown up to their size.
        moving = spread[spread > 0]
        usual = moving.median() if len(moving) else torch.ones_like(spread[0])
        self.scale.copy_(torch.where(spread > _DEAD * usual, spread, usual))

    def answer_like(self, mean: float, spread: float) -> None:
        """Answer with values around a mean, as far from it as the training values are."""
        self.answer_shift.fill_(mean)
        self.answer_scale.fill_(spread)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, P, D) to logits (B, K); for `sequence` (B, L, C, P, D) to (B, L, K), L being at most its own.

        Raises
        ------
        ValueError
            The head is bound to another montage or window length.
        """
        self.config.check(features.shape)
        answer = self.classify((self.pool(features) - self.shift) / self.scale)
        return self.answer_shift + self.answer_scale * answer


def shrink(kind: HeadKind) -> Callable[[Tensor], Tensor]:
    """What may be done to features (B, C, P, D) before they are kept for such a head, which answers to both alike.

    The mean of a mean is the mean: hundreds of numbers of a window instead of thousands.
    """
    axes = {"mean": (1, 2), "channel": (2,)}.get(kind)
    return (lambda features: features.mean(dim=axes, keepdim=True)) if axes else (lambda features: features)


class MeanPool(nn.Module):
    """Mean over channels and patches, (B, C, P, D) to (B, D), or over patches alone, to (B, C * D)."""

    def __init__(self, *, of_each_channel: bool) -> None:
        super().__init__()
        self.of_each_channel = of_each_channel

    def forward(self, features: Tensor) -> Tensor:
        """Pool."""
        return features.mean(dim=2).flatten(1) if self.of_each_channel else features.mean(dim=(1, 2))


class AttentionPool(nn.Module):
    """Weighted mean over channels and patches, each group of features with weights of its own.

    The D features fall into Q groups; a learnt query scores every patch for each group, a softmax over all patches of
    the window makes weights of the scores: multi-head attention with learnt queries and the features as values.
    """

    def __init__(self, width: int, n_queries: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, n_queries)
        # Equal weights at the start: training departs from the mean pool.
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, P, D) to (B, D)."""
        tokens = features.flatten(1, 2)
        weights = self.weights(features).flatten(1, 2)
        grouped = tokens.unflatten(-1, (self.score.out_features, -1))
        return torch.einsum("bnq,bnqd->bqd", weights, grouped).flatten(1)

    def weights(self, features: Tensor) -> Tensor:
        """(B, C, P, Q): how much each patch counts for each query; they sum to 1 over the window."""
        scores = self.score(features)
        return scores.flatten(1, 2).softmax(dim=1).reshape(scores.shape)


def _pool(config: HeadConfig) -> nn.Module:
    if config.kind in ("mean", "channel"):
        return MeanPool(of_each_channel=config.kind == "channel")
    if config.kind == "attention":
        return AttentionPool(config.width, config.n_queries)
    return nn.Flatten(-3)


class Context(nn.Module):
    """Let each window of a sequence see its neighbours: a place in the row, and a pre-norm transformer layer.

    The layer is CBraMod's for sleep. The place is learnt from zero: without one, a layer of attention does not know
    which window comes before which.
    """

    def __init__(self, width: int, length: int, dropout: float) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(length, width))
        self.layer = nn.TransformerEncoderLayer(
            width, _SEQUENCE_HEADS, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) to (B, L, H).

        Raises
        ------
        ValueError
            The sequences are longer than the head was made for.
        """
        if x.ndim != 3 or x.shape[1] > len(self.place):
            raise ValueError(
                f"a sequence head takes (sequences, windows, ...) of up to {len(self.place)} windows, "
                f"not {tuple(x.shape)}"
            )
        return self.layer(x + self.place[: x.shape[1]])


def _classifier(config: HeadConfig) -> nn.Sequential:
    if config.kind == "sequence":
        width = config.hidden or _SEQUENCE_WIDTH
        return nn.Sequential(
            nn.Linear(config.n_inputs, width),
            nn.GELU(),
            Context(width, config.sequence_length, config.dropout),
            nn.Linear(width, config.n_outputs),
        )
    if config.kind != "mlp":
        return nn.Sequential(nn.Dropout(config.dropout), _start_at_zero(nn.Linear(config.n_inputs, config.n_outputs)))
    sizes = [config.n_inputs, config.first_layer, config.width]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ELU(), nn.Dropout(config.dropout)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], config.n_outputs))


def _start_at_zero(layer: nn.Linear) -> nn.Linear:
    """Begin a linear classifier at equal odds: on thousands of inputs the usual start is a confident random guess."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(cast(Tensor, layer.bias))
    return layer
