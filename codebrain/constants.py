"""Tensors that depend on nothing but sizes: built once per size and device, then shared by every layer."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")

MAX_ENTRIES = 64
"""Constants kept of each kind; more sizes than this in one process rebuild the oldest."""


def constant(build: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Cache the tensor that a function of hashable sizes and a device returns.

    A tracer (torch.compile, torch.export) sees the plain function: a cached tensor would be an input of the graph, and
    one made while tracing would be a fake. A constant built under inference mode could not be used in training, hence
    the guard.
    """

    @lru_cache(maxsize=MAX_ENTRIES)
    def cached(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return build(*args, **kwargs)

    @wraps(build)
    def lookup(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        return build(*args, **kwargs) if torch.compiler.is_compiling() else cached(*args, **kwargs)  # type: ignore[arg-type]

    return lookup
