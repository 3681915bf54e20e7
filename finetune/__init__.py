"""Fine-tuning: a classifier on the backbone, with splits, seeds, baselines and a report that can be redone.

`CodeBrainFeatures` is loaded on first use (PEP 562), so that `import finetune` does not import torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.features import CodeBrainFeatures

__all__ = ["CodeBrainFeatures"]


def __getattr__(name: str) -> Any:
    if name == "CodeBrainFeatures":
        from finetune.features import CodeBrainFeatures

        return CodeBrainFeatures
    raise AttributeError(f"module 'finetune' has no attribute {name!r}; it exposes {', '.join(__all__)}")
