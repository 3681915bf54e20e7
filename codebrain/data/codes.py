"""Cached codes of a store: where a tokenizer's codes of each window lie, and how they are read.

    STORE/codes/HASH/SHARD.npy    uint16 (n, 2, C, P): temporal and frequency codes of the shard's n windows
                     about.json   which tokenizer and store they are of, for people

HASH names the tokenizer's weights and the store's contents together, so that neither can change under the codes.
Which codes a window has is the tokenizer's business (`tokenizer.cache` writes these files); reading needs numpy only.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codebrain.data.format import Shard

DTYPE = np.dtype("<u2")


@dataclass(frozen=True)
class CodeFiles:
    """The code files of one store under one tokenizer."""

    folder: Path
    patch_size: int
    """Samples that a pair of codes stands for."""

    def path(self, shard: Shard) -> Path:
        """File that holds the codes of a shard."""
        return self.folder / f"{Path(shard.file).stem}.npy"

    def has(self, shard: Shard) -> bool:
        """Whether the codes of a shard are there, to the last byte."""
        try:
            return self.path(shard).stat().st_size == self._size(shard)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def read(self, shard: Shard, row: int) -> npt.NDArray[np.uint16]:
        """Codes (2, C, P) of one window: temporal, then frequency.

        Raises
        ------
        ValueError
            The file is damaged or gone.
        """
        path = self.path(shard)
        try:
            return np.load(path, mmap_mode="r")[row]
        except (OSError, ValueError, EOFError, IndexError) as error:
            raise ValueError(
                f"the cached codes {path} cannot be read ({error}). Delete that file, if it is there, and launch "
                "again: its codes are computed anew."
            ) from error

    def _size(self, shard: Shard) -> int:
        """Bytes of a file: numpy's header, then the codes."""
        shape = (shard.n, 2, len(shard.ch_names), shard.n_times // self.patch_size)
        header = io.BytesIO()
        described = {"descr": DTYPE.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        return len(header.getvalue()) + DTYPE.itemsize * math.prod(shape)
