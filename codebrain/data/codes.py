"""Cached codes of a store: where a tokenizer's codes of each window lie, and how they are read.

    STORE/codes/HASH/SHARD.npy    uint16 (n, 2, C, P): temporal and frequency codes of the shard's windows, then a seal
                     about.json   which tokenizer and store they are of

HASH names the tokenizer's weights, the store's contents and the version of this format together, so that none of them
can change under the codes. The seal, 32 bytes behind the array, is a SHA-256 over the array and what it belongs to: it
is compared whenever a process opens the file. Which codes a window has is the tokenizer's business (`tokenizer.cache`
writes these files); reading needs numpy only.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codebrain.data.format import Shard

VERSION = 2
"""Of the files' format. Those of version 1, which had no seal, lie under other names."""

DTYPE = np.dtype("<u2")

Codes = npt.NDArray[np.uint16]
"""Codes (n, 2, C, P): temporal, then frequency."""

_SEAL = hashlib.sha256().digest_size


@dataclass(frozen=True)
class CodeFiles:
    """The code files of one store under one tokenizer."""

    folder: Path
    patch_size: int
    """Samples that a pair of codes stands for."""
    n_codes: tuple[int, int]
    """Codes of the temporal and of the frequency codebook."""

    def path(self, shard: Shard) -> Path:
        """File that holds the codes of a shard."""
        return self.folder / f"{Path(shard.file).stem}.npy"

    def has(self, shard: Shard) -> bool:
        """Whether the codes of a shard are there, to the last byte; what the bytes are `fault` knows."""
        try:
            return self.path(shard).stat().st_size == self._size(shard)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def fault(self, shard: Shard) -> str:
        """What is wrong with the codes of a shard, in words; "" if nothing is. Reads all of them."""
        try:
            self._open(shard)
        except (OSError, ValueError, EOFError) as error:
            return str(error)
        return ""

    def open(self, shard: Shard) -> Codes:
        """Codes of a shard, compared with their seal; they stay on the disk until they are used.

        Raises
        ------
        ValueError
            The file is damaged, or gone, or has codes that the codebooks have not.
        """
        try:
            return self._open(shard)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"the cached codes {self.path(shard)} cannot be used: {error}. Launch again: codes that are damaged or "
                "missing are computed again before the training."
            ) from error

    def content(self, shard: Shard, codes: Codes) -> bytes:
        """What the file of a shard's codes is to hold."""
        file = io.BytesIO()
        np.save(file, codes.astype(DTYPE, copy=False))
        return file.getvalue() + self._seal(shard, file.getvalue())

    def _open(self, shard: Shard) -> Codes:
        path = self.path(shard)
        if not path.exists():
            raise FileNotFoundError("it is missing")
        data = np.memmap(path, np.uint8, mode="r")
        if len(data) != self._size(shard) or data[-_SEAL:].tobytes() != self._seal(shard, data[:-_SEAL].data):
            raise ValueError("it does not hold what was written")
        codes = np.load(path, mmap_mode="r")
        for place, (which, size) in enumerate(zip(("temporal", "frequency"), self.n_codes, strict=True)):
            if (highest := int(codes[:, place].max())) >= size:
                raise ValueError(f"it has the {which} code {highest}, the codebook has {size} codes")
        return codes

    def _seal(self, shard: Shard, content: bytes | memoryview) -> bytes:
        # With what they belong to: codes of another shard, or under another tokenizer, are none of these.
        seal = hashlib.sha256(f"{self.folder.name} {shard.digest}\n".encode())
        seal.update(content)
        return seal.digest()

    def _size(self, shard: Shard) -> int:
        """Bytes of a file: numpy's header, the codes, the seal."""
        shape = (shard.n, 2, len(shard.ch_names), shard.n_times // self.patch_size)
        header = io.BytesIO()
        described = {"descr": DTYPE.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        return len(header.getvalue()) + DTYPE.itemsize * math.prod(shape) + _SEAL
