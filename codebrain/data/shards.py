"""Shards as a process reads them: a bounded number of files held open, each window as the bytes of its chunk.

Shape letters: C channels, T samples.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from codebrain.data.format import check_shard, dequantise

_MOST = 256
"""Files that a process holds open: about as many as a shuffling buffer of the training order reaches into."""


class OpenShard(NamedTuple):
    """A shard's file; what is small is read at once, since a read of one number costs as much as that of a window."""

    file: h5py.File
    windows: h5py.h5d.DatasetID
    scale: npt.NDArray[np.float32]
    label: npt.NDArray[Any] | None

    @classmethod
    def of(cls, path: Path) -> OpenShard:
        """Open a shard.

        Raises
        ------
        OSError, ValueError
            The file is missing or damaged, or no shard of this format version.
        """
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing")
        file = h5py.File(path, "r")
        check_shard(file, path)
        label = file["label"][:] if "label" in file else None
        return cls(file, file["windows"].id, file["scale"][:], label)

    def announce(self, row: int) -> None:
        """Let the kernel fetch a window's bytes from now on, while others are still being read."""
        if hasattr(os, "posix_fadvise"):
            chunk = self.windows.get_chunk_info_by_coord((row, 0, 0))
            handle = self.file.id.get_vfd_handle()
            os.posix_fadvise(handle, chunk.byte_offset, chunk.size, os.POSIX_FADV_WILLNEED)

    def read(self, row: int, counts: npt.NDArray[np.int16], out: npt.NDArray[np.float32]) -> None:
        """Microvolts of one window into `out` (C, T), by way of `counts` of the same shape."""
        # The bytes of the window's chunk: a third of the time that selecting a row takes.
        self.windows.read_direct_chunk((row, 0, 0), out=counts.reshape(-1).view(np.uint8))
        dequantise(counts, self.scale[row], out)


class OpenShards:
    """Shards that are held open; the least recently used one is closed for another.

    HDF5 handles survive neither pickling nor a fork: each process opens its own.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, OpenShard] = OrderedDict()
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type[OpenShards], tuple[()]]:
        return OpenShards, ()

    def __getitem__(self, path: Path) -> OpenShard:
        if self._pid != os.getpid():
            self._open, self._pid = OrderedDict(), os.getpid()
        if path not in self._open:
            self._open[path] = OpenShard.of(path)
            if len(self._open) > _MOST:
                self._open.popitem(last=False)[1].file.close()
        self._open.move_to_end(path)
        return self._open[path]
