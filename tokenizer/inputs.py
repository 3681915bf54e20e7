"""What users hand to a tokenizer (signals, channel names, codes), checked before any of it is computed with.

Shapes: B windows, C channels, T samples, P patches per channel, E electrodes in the table.
"""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codebrain.channels import ELECTRODES, bipolar_pair, electrode_index

Indices = Tensor | npt.NDArray[np.integer]

INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64}


def require_names(ch_names: Sequence[str]) -> None:
    """Raise ValueError if names are one text, which Python would read letter by letter."""
    if isinstance(ch_names, str):
        raise ValueError(f"ch_names={ch_names!r} is one text; pass a list of names, such as [{ch_names!r}]")


def montage_matrix(ch_names: Sequence[str]) -> Tensor:
    """Each channel as a sum of electrodes, (C, E) float32: +1 for an electrode, +1 and -1 for a bipolar pair.

    Raises
    ------
    ValueError
        A name is neither; the message gives the nearest names.
    """
    rows = torch.zeros(len(ch_names), len(ELECTRODES))
    for row, name in zip(rows, ch_names, strict=True):
        pair = bipolar_pair(name)
        for electrode, sign in zip(electrode_index(pair or [name]), (1.0, -1.0), strict=False):
            row[electrode] = sign
    return rows


def to_signal(x_uv: Tensor | npt.NDArray[np.floating], device: torch.device) -> Tensor:
    """A signal as a tensor: tensors stay where they are, an array is copied to `device`.

    Raises
    ------
    TypeError
        `x_uv` is neither, or holds no floating-point numbers: whole numbers are a recorder's counts, not microvolts.
    ValueError
        There are no windows or no channels.
    """
    if not isinstance(x_uv, Tensor | np.ndarray):
        raise TypeError(f"x_uv is a {type(x_uv).__name__}; pass a tensor or an array of floats, in microvolts")
    if isinstance(x_uv, np.ndarray) and np.issubdtype(x_uv.dtype, np.floating):
        x_uv = torch.from_numpy(np.array(x_uv, dtype=np.float32, order="C")).to(device)
    if isinstance(x_uv, np.ndarray) or not x_uv.is_floating_point():
        raise TypeError(f"x_uv holds {x_uv.dtype}; convert the signal to microvolts as float32")
    if 0 in x_uv.shape[:2]:
        raise ValueError(f"x_uv is empty, of shape {tuple(x_uv.shape)}: pass at least one window of one channel")
    return x_uv


def to_codes(indices: Indices, name: str, *, n_codes: int, n_channels: int, max_patches: int) -> Tensor:
    """Codes of one codebook as int64, (B, C, P), on the device where they are.

    Parameters
    ----------
    indices : Tensor or array, (B, C, P)
        Of any integer type: files hold uint16 or uint32.
    name : str
        Of the codebook, for messages.

    Raises
    ------
    TypeError
        They are no integers.
    ValueError
        Their shape does not fit, or a code is outside of 0 to `n_codes` - 1.
    """
    if isinstance(indices, np.ndarray) and np.issubdtype(indices.dtype, np.integer):
        indices = torch.from_numpy(np.array(indices, dtype=np.int64, order="C"))
    if not isinstance(indices, Tensor) or indices.dtype not in INTEGERS:
        kind = getattr(indices, "dtype", type(indices).__name__)
        raise TypeError(f"{name} codes are {kind}; pass a tensor or an array of integers")
    codes = indices.long()
    if codes.ndim != 3 or codes.shape[1] != n_channels or not 1 <= codes.shape[2] <= max_patches:
        raise ValueError(
            f"{name} codes have shape {tuple(codes.shape)} for {n_channels} channel names; expected (windows, "
            f"channels, patches) with 1 to {max_patches} patches; codes of one recording (channels, patches) are "
            "codes[None], cut into such windows"
        )
    wrong = codes[(codes < 0) | (codes >= n_codes)]
    if wrong.numel():
        raise ValueError(
            f"{name} code {int(wrong[0])} is not in this tokenizer's codebook of {n_codes} (0 to {n_codes - 1}): was "
            "it written by another tokenizer, or read as a signed number?"
        )
    return codes


def require_type(name: str, value: Any, kind: Any) -> None:
    """Raise TypeError if a value is not of a type, or ValueError if it is none of a Literal's."""
    if allowed := get_args(kind):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is none of {', '.join(map(repr, allowed))}")
        return
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool) is not (kind is bool):
        raise TypeError(f"{name}={value!r} must be of type {kind.__name__}")


def require_at_least(least: int, name: str, value: int) -> None:
    """Raise ValueError if a count is too small."""
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")
