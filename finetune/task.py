"""What is predicted: the kind of task, its loss, and how logits become probabilities.

Shape letters: B batch, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from codebrain.data.format import Store

TaskKind = Literal["binary", "multiclass", "regression"]
ClassWeights = Literal["balanced", "none"]

# The figure of merit on validation data by which weights are selected, as in CBraMod and CodeBrain.
SELECTION: dict[TaskKind, str] = {"binary": "auroc", "multiclass": "kappa", "regression": "r2"}

_SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the labels of a task store mean for a model."""

    name: str
    """Name of the task, such as `mental_arithmetic`."""
    protocol: str
    """`published` or `corrected`; "" of a task that a user made."""
    kind: TaskKind
    """Two classes, more than two, or a number."""
    class_names: tuple[str, ...]
    """Name of each class index; empty for a regression."""

    @classmethod
    def of(cls, store: Store) -> Task:
        """Task of a store.

        Raises
        ------
        ValueError
            The store has no labels, or fewer than two classes.
        """
        info = store.info.task
        if info is None:
            raise ValueError(
                f"{store.path} has no labels: it is a corpus to pre-train on. `codebrain-prep task NAME PATH --output "
                "STORE` makes a task store."
            )
        if len(info.class_names) == 1:
            raise ValueError(
                f"{store.path} has only one class, {info.class_names[0]!r}: there is nothing to tell apart"
            )
        kinds: dict[int, TaskKind] = {0: "regression", 2: "binary"}
        kind = kinds.get(len(info.class_names), "multiclass")
        return cls(name=info.name, protocol=info.protocol, kind=kind, class_names=tuple(info.class_names))

    @property
    def title(self) -> str:
        """Name, and protocol where there is one."""
        return f"{self.name} ({self.protocol})" if self.protocol else self.name

    @property
    def n_logits(self) -> int:
        """Outputs of the head: one logit for two classes (binary cross-entropy) and one number for a regression."""
        return len(self.class_names) if self.kind == "multiclass" else 1

    @property
    def selection(self) -> str:
        """Name of the validation metric, the larger the better, that selects weights."""
        return SELECTION[self.kind]

    def weights(self, labels: npt.NDArray[Any], mode: ClassWeights) -> Tensor:
        """What the loss weighs windows by: one weight per class (K,), or for a regression one for all (1,).

        `balanced` weighs a class by the inverse of its share of the training windows, scikit-learn's rule
        n / (K * n_class), so that a model gains nothing from guessing the frequent class. A regression's squared error
        is weighed by the inverse of the labels' variance: it becomes 1 - R2, whatever their unit.
        """
        n_classes = len(self.class_names)
        if self.kind == "regression":
            return torch.tensor([1 / max(float(np.var(labels)), _SMALLEST_VARIANCE)])
        if mode == "none":
            return torch.ones(n_classes)
        counts = np.bincount(labels, minlength=n_classes)
        return torch.from_numpy(len(labels) / (n_classes * counts)).float()

    def loss(self, logits: Tensor, label: Tensor, *, weights: Tensor, smoothing: float) -> Tensor:
        """Mean loss of a batch.

        Binary cross-entropy on one logit for two classes (the paper's, without smoothing), cross-entropy with label
        smoothing for more, squared error for a regression.

        Parameters
        ----------
        logits : (B, n_logits) float
        label : (B,) int64, or float for a regression
        weights : (K,) float, or (1,) for a regression
            From the method of that name. The mean is over windows, not over weights, so that the size of a loss does
            not depend on which classes a batch happens to hold.
        smoothing : float
            Label smoothing for more than two classes.
        """
        logits = logits.float()
        if self.kind == "regression":
            return weights[0] * F.mse_loss(logits[:, 0], label.float())
        if self.kind == "binary":
            losses = F.binary_cross_entropy_with_logits(logits[:, 0], label.float(), reduction="none")
        else:
            losses = F.cross_entropy(logits, label, label_smoothing=smoothing, reduction="none")
        return (losses * weights[label]).mean()

    def scores(self, logits: Tensor) -> Tensor:
        """Class probabilities (B, K) of logits; a regression's values (B, 1)."""
        logits = logits.double()
        if self.kind == "regression":
            return logits
        if self.kind == "binary":
            return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)
        return logits.softmax(dim=1)
