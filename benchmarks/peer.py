"""braindecode's class, which the backbone is measured and tested beside."""

import sys
import warnings
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

from torch import nn


def braindecode_class() -> type[nn.Module]:
    """`braindecode.models.CodeBrain`, also where no torchaudio fits the torch that is installed."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):
        # A torchaudio built for CUDA does not load beside a CPU torch; CodeBrain does not need it.
        for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):
            sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None), __name__=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from braindecode.models import CodeBrain as Braindecode
    return Braindecode
