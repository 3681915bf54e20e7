"""Shards as they are read, by every program: one function opens a file and compares it with its entry in the index.

Windows are read as the raw bytes of their chunks, so a file of another layout would be read as noise, or as what the
memory held before: whatever the bytes mean (shape, type, byte order, channels, sampling rate) is compared first.

Shape letters: n windows, C channels, T samples.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from codebrain.data.format import REMEDY, Shard, Store, begin_digest, dequantise, end_digest, runs_of

_MOST = 256
"""Files that a process holds open: about as many as a shuffling buffer of the training order reaches into."""

_COLUMNS = {
    "scale": ("<f4",),
    "recording": ("<i4",),
    "start": ("<f8",),
    "offset": ("<f4",),
    "label": ("<i8", "<f8"),
    "split": ("|i1",),
}
"""What a shard holds besides its windows, and of which type."""

_H5PY_ERRORS = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError)
"""What h5py raises on damaged files."""


class ShardError(ValueError):
    """A shard cannot be read; the message has its name and the remedy."""

    reason: str = ""
    """Why, without the rest of the message."""


class OpenShard:
    """A shard's file, open for reading; what is small is read at once, since a number costs as much as a window.

    Parameters
    ----------
    path : Path
    shard : Shard
        Its entry in the index.
    sfreq : float
        The store's sampling rate in Hz.

    Raises
    ------
    ShardError
        The file is missing or damaged, or not the one that the index describes. So do all methods that read.

    Attributes
    ----------
    label : (n,) int64 or float64 array, or None
        Labels of a task store.
    """

    def __init__(self, path: Path, shard: Shard, sfreq: float) -> None:
        self.path, self.shard = path, shard
        self._shape = (len(shard.ch_names), shard.n_times)
        with self._named():
            if not path.exists():
                raise FileNotFoundError("it is missing")
            self._file = h5py.File(path, "r")
            try:
                # h5py's own layer below File and Dataset: a quarter of the time of opening.
                self._windows = h5py.h5d.open(self._file.id, b"windows")
                self._check(sfreq)
                self._scale = self._column("scale")
                self._offset = self._column("offset") if shard.has_offset else None
                self.label = self._column("label") if b"label" in self._file.id else None
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> OpenShard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def announce(self, row: int) -> None:
        """Let the kernel fetch a window's bytes from now on, while others are still being read."""
        if hasattr(os, "posix_fadvise"):
            with self._named(row):
                chunk = self._windows.get_chunk_info_by_coord((row, 0, 0))
                handle = self._file.id.get_vfd_handle()
                os.posix_fadvise(handle, chunk.byte_offset, chunk.size, os.POSIX_FADV_WILLNEED)

    def counts(self, row: int, out: npt.NDArray[np.int16]) -> None:
        """Counts of one window into `out`, contiguous int16 (C, T)."""
        with self._named(row):
            # The bytes of the window's chunk: a third of the time that selecting a row takes.
            self._windows.read_direct_chunk((row, 0, 0), out=out.reshape(-1).view(np.uint8))

    def read(self, row: int, counts: npt.NDArray[np.int16], out: npt.NDArray[np.float32]) -> None:
        """Microvolts of one window into `out` (C, T), by way of `counts` of the same shape."""
        self.counts(row, counts)
        dequantise(counts, self._scale[row], None if self._offset is None else self._offset[row], out)

    def microvolts(self, row: int) -> npt.NDArray[np.float32]:
        """Microvolts (C, T) of one window."""
        out = np.empty(self._shape, np.float32)
        self.read(row, np.empty(self._shape, "<i2"), out)
        return out

    def column(self, name: str) -> npt.NDArray[Any]:
        """What the shard holds of each window under a name: label, split, start, recording."""
        with self._named(f"/{name}"):
            return self._column(name)

    def verified(self) -> Iterator[npt.NDArray[np.int16]]:
        """Counts (C, T) of each window in turn, in an array that is used again for the next.

        After the last one it is known whether the file holds what was written, to the last bit.

        Raises
        ------
        ShardError
            It does not.
        """
        counts = np.empty(self._shape, "<i2")
        digest = begin_digest(self.shard.ch_names, (self.shard.n, *self._shape))
        for row in range(self.shard.n):
            self.counts(row, counts)
            digest.update(counts)
            yield counts
        columns = {name: self.column(name) for name in _COLUMNS if name.encode() in self._file.id}
        if end_digest(digest, columns) != self.shard.digest or runs_of(columns["recording"]) != self.shard.runs:
            raise _error(str(self.path), "its digest is not that of the index: it does not hold what was written")

    def _check(self, sfreq: float) -> None:
        """Raise ValueError unless the file is the shard of the entry, laid out as ShardWriter does."""
        n, shard, windows = self.shard.n, self.shard, self._windows
        if (version := int(self._attribute("format_version"))) not in (1, 2):
            raise ValueError(f"it has format version {version}, this program reads 1 and 2")
        options = windows.get_create_plist()
        is_chunked = options.get_layout() == h5py.h5d.CHUNKED
        if not is_chunked or options.get_chunk() != (1, *windows.shape[1:]) or options.get_nfilters():
            raise ValueError("it was rewritten by another program: a shard has one chunk per window and no compression")
        for name, found, wanted in (
            ("format version", version, shard.format_version),
            ("shape of windows", windows.shape, (n, *self._shape)),
            ("type of windows", windows.dtype.str, "<i2"),
            ("Hz", float(self._attribute("sfreq")), sfreq),
            ("channels", tuple(name.decode() for name in self._attribute("ch_names")), shard.ch_names),
            ("digest", self._attribute("digest").item().decode(), shard.digest),
        ):
            if found != wanted:
                raise ValueError(f"it is not the shard of the index: {name} {found}, in the index {wanted}")

    def _attribute(self, name: str) -> npt.NDArray[Any]:
        attribute = h5py.h5a.open(self._file.id, name.encode())
        value = np.empty(attribute.shape, attribute.dtype)
        attribute.read(value)
        return value

    def _column(self, name: str) -> npt.NDArray[Any]:
        column = h5py.h5d.open(self._file.id, name.encode())
        n, n_channels = self.shard.n, len(self.shard.ch_names)
        shape = (n, n_channels) if name == "offset" else (n,)
        if column.shape != shape or column.dtype.str not in _COLUMNS[name]:
            raise ValueError(
                f"/{name} has the shape {column.shape} and the type {column.dtype.str}, not {shape} and "
                f"{' or '.join(_COLUMNS[name])}"
            )
        value = np.empty(column.shape, column.dtype)
        column.read(h5py.h5s.ALL, h5py.h5s.ALL, value)
        return value

    @contextmanager
    def _named(self, what: int | str = "") -> Iterator[None]:
        """Raise ShardError, with the file and the remedy, for whatever h5py raises."""
        try:
            yield
        except _H5PY_ERRORS as error:
            part = f"window {what} of " if isinstance(what, int) else f"{what} of " if what else ""
            # On one line, and without the quotes that Python puts around the text of a KeyError.
            reason = " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())
            raise _error(f"{part}{self.path}", reason) from error


def open_shard(store: Store, shard: Shard) -> OpenShard:
    """Open a shard of a store for reading; ValueError with its name and what to do if that cannot be."""
    return OpenShard(store.path / shard.file, shard, store.info.sfreq)


def _error(what: str, reason: str) -> ShardError:
    error = ShardError(f"{what} cannot be read ({reason}). {REMEDY}")
    error.reason = reason
    return error


Opened = TypeVar("Opened")


class HeldOpen(Generic[Opened]):
    """Files that are held open; of too many, the least recently used one is let go for another.

    HDF5 handles survive neither pickling nor a fork: each process opens its own.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Hashable, Opened] = OrderedDict()
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type[HeldOpen[Opened]], tuple[()]]:
        return type(self), ()

    def get(self, key: Hashable, open_it: Callable[[], Opened]) -> Opened:
        """What is held under a key; opened if nothing is."""
        if self._pid != os.getpid():
            self._open, self._pid = OrderedDict(), os.getpid()
        if key not in self._open:
            self._open[key] = open_it()
            if len(self._open) > _MOST:
                self._open.popitem(last=False)  # closed with its last reference
        self._open.move_to_end(key)
        return self._open[key]
