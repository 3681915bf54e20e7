"""Stage 1: a tokenizer that turns EEG patches into two vocabularies, one of waveforms and one of spectra.

Names are loaded on first use (PEP 562), so that `import tokenizer` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizer.config import TokenizerConfig
    from tokenizer.losses import LossConfig
    from tokenizer.model import DualTokenizer
    from tokenizer.outputs import Codes, TokenizerOutput

__all__ = ["Codes", "DualTokenizer", "LossConfig", "TokenizerConfig", "TokenizerOutput"]

_HOME = {
    "Codes": "tokenizer.outputs",
    "DualTokenizer": "tokenizer.model",
    "TokenizerConfig": "tokenizer.config",
    "TokenizerOutput": "tokenizer.outputs",
    "LossConfig": "tokenizer.losses",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tokenizer' has no attribute {name!r}; it exposes {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
