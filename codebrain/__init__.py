"""CodeBrain: an EEG foundation model that learns two vocabularies of EEG patches and a backbone that predicts them.

Names are loaded on first use (PEP 562), so that `import codebrain` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codebrain.backbone import EEGSSM, BackboneConfig
    from codebrain.model import CodeBrain, MaskedTokenModel

__all__ = ["EEGSSM", "BackboneConfig", "CodeBrain", "MaskedTokenModel"]

_HOME = {
    "CodeBrain": "codebrain.model",
    "MaskedTokenModel": "codebrain.model",
    "EEGSSM": "codebrain.backbone",
    "BackboneConfig": "codebrain.backbone",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'codebrain' has no attribute {name!r}; it exposes {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
