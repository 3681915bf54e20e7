"""The store: EEG windows on disk, as `codebrain-prep` writes them and training reads them.

    STORE/store.json            what the windows are and where they lie (written last: its presence says "complete")
          recordings.csv        one row per source recording, the unusable ones with the reason
          shards/NAME.h5        windows of one channel set

    A shard:  /windows   int16   (n, C, T)  one chunk per window     microvolts = count * scale (+ offset)
              /scale     float32 (n,)       microvolts per count, per window
              /offset    float32 (n, C)     microvolts; only where int16 counts would be too coarse without
              /recording int32   (n,)       row of recordings.csv, ascending
              /start     float64 (n,)       seconds from the start of the recording
              /label     int64 or float64 (n,)  task stores only: class index, or the value to regress
              /split     int8    (n,)       task stores whose protocol fixes it: 0 train, 1 valid, 2 test
              attrs: format_version, ch_names, sfreq, digest

The format version of a shard with /offset, and of a store with such a shard, is 2, that of every other is 1: what does
not need offsets stays as it was, and a program that knows none refuses what does.

Only numpy and h5py are needed here, so that preparation runs on machines without torch.
Shape letters: n windows, C channels, T samples.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import secrets
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, NoReturn

import h5py
import numpy as np
import numpy.typing as npt

FORMAT_VERSION = 2
PREPARATION_VERSION = 1
"""Version of the code that makes windows of recordings; stores without one have 0.

Raise it whenever the same recording and recipe may now give other windows, labels or rows than before. Recordings that
an earlier version prepared then count as not done: the command that made a store, given again, prepares them again.
List in CHANGELOG.md which recordings are affected.
"""
UNIT = "uV"
SPLITS = ("train", "valid", "test")
PARTIAL_SUFFIX = ".partial"
RESOLUTION_UV = 0.01
"""Largest error of a stored value in microvolts, wherever int16 allows it."""
REMEDY = "Delete that file, if it is there, and run the same codebrain-prep command again: it makes what is missing."
"""What to do about a shard that cannot be used."""
_WRITTEN_AGAIN = "Run the same codebrain-prep command again: it writes that file again, and finished shards are kept."
_COUNTS = 32767
_FLUSHED_AT_ONCE = 16
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk that is full, or full for this user."""
HDF5_HEAD = 36
"""Bytes at the start of an HDF5 file of superblock version 3, as ShardWriter writes it, up to its length."""
_HDF5_OWN, _HDF5_OWN_PER_WINDOW = 1 << 16, 64
"""Bytes that HDF5 needs for itself, at most."""
_SHARD_FILE = re.compile(r"shards/[^/\\]+\.h5")


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What the labels of a task store mean."""

    name: str
    """Name of the task, such as `mental_arithmetic`."""
    protocol: str
    """`published` (as the literature prepared it) or `corrected`."""
    class_names: tuple[str, ...] = ()
    """Name of each class index; empty for a regression."""
    has_split: bool = False
    """Whether the protocol fixes which windows train, validate and test."""

    @property
    def n_outputs(self) -> int:
        """Number of classes, or 1 for a regression."""
        return len(self.class_names) or 1


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """What all windows of a store have in common."""

    sfreq: float
    """Sampling rate in Hz."""
    window_seconds: float
    """Length of a window in seconds."""
    preparation: dict[str, Any] = field(default_factory=dict)
    """Every constant of the preparation, so that the same can be done to a new recording."""
    task: TaskInfo | None = None
    """Present in a task store only."""
    preparation_version: int = PREPARATION_VERSION
    """Version of the code that prepared it; of several, the earliest."""


Status = Literal["ok", "rejected", "failed"]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One row of recordings.csv."""

    row: int
    """Number of the row, which /recording refers to."""
    path: str
    """Path relative to the folder that was given, with forward slashes."""
    subject: str
    """Whom it was recorded from; a split never cuts through a subject."""
    session: str = ""
    """Session or run within the subject, where known."""
    hours: float = 0.0
    """Length of the recording in hours."""
    kept: int = 0
    """Windows kept."""
    rejected: int = 0
    """Windows rejected."""
    status: Status = "ok"
    """`ok`; `rejected`: readable but no window was usable; `failed`: could not be used."""
    reason: str = ""
    """Why windows or the whole recording were left out, in words."""
    age: str = ""
    """Age in years, where the header says so."""
    sex: str = ""
    """Sex, where the header says so."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One entry of the store's index: a shard can be planned with without opening it."""

    file: str
    """Path relative to the store."""
    ch_names: tuple[str, ...]
    """Channels of its windows."""
    n: int
    """Number of windows."""
    n_times: int
    """Samples per window."""
    runs: tuple[tuple[int, int], ...]
    """(row of recordings.csv, number of windows), in the order in which they lie."""
    digest: str
    """SHA-256 over all that the shard holds."""
    has_offset: bool = False
    """Whether its channels have offsets of their own."""

    @property
    def format_version(self) -> int:
        """Format version of the shard."""
        return 2 if self.has_offset else 1


@dataclass(frozen=True)
class Store:
    """A complete store, opened for reading. Holds the index only, no file handle."""

    path: Path
    info: StoreInfo
    shards: tuple[Shard, ...]
    recordings: tuple[Recording, ...]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Store:
        """Read the index of a store.

        Raises
        ------
        FileNotFoundError
            No such folder, or it is no complete store.
        ValueError
            The store has another format version or unit, or its index or table of recordings is damaged.
        """
        folder = Path(path)
        index = folder / "store.json"
        if not folder.exists():
            raise FileNotFoundError(
                f"{folder}: no such store. `codebrain-prep corpus PATH --output {folder}` makes one."
            )
        if not index.exists():
            hint = (
                "no window was usable; its recordings.csv says why"
                if (folder / "recordings.csv").exists() and not list(folder.glob("shards/*.h5"))
                else "its preparation has not finished; run the same codebrain-prep command again to complete it"
                if (folder / "shards").exists()
                else "a store has a file store.json; was another folder meant?"
            )
            raise FileNotFoundError(f"{folder} is not a complete store: {hint}.")
        content = _read_index(index)
        _check_identity(folder, content)
        try:
            info, shards = _info_from_json(content), tuple(_shard_from_json(entry) for entry in content["shards"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            _index_is_damaged(index, error)
        store = cls(path=folder, info=info, shards=shards, recordings=read_recordings(folder / "recordings.csv"))
        _check_rows(store)
        return store

    @property
    def n_windows(self) -> int:
        """Number of windows in all shards."""
        return sum(shard.n for shard in self.shards)

    @property
    def hours(self) -> float:
        """Hours of EEG in all windows."""
        return sum(shard.n * shard.n_times for shard in self.shards) / self.info.sfreq / 3600

    def recording(self, row: int) -> Recording:
        """The recording that /recording refers to by its row number, wherever it stands in recordings.csv."""
        return self._by_row[row]

    @cached_property
    def _by_row(self) -> dict[int, Recording]:
        return {recording.row: recording for recording in self.recordings}

    def outdated(self) -> str:
        """A warning for a store that an earlier version of this program prepared; empty for any other."""
        if self.info.preparation_version >= PREPARATION_VERSION:
            return ""
        return (
            f"{self.path} was prepared by an earlier version of this program, which may have prepared some recordings "
            "wrongly (see CHANGELOG.md). The codebrain-prep command that made it, given again, prepares what it has to."
        )

    def fingerprint(self) -> str:
        """Hash over the contents of all shards and the sampling rate: what is derived from a store is kept under it."""
        parts = [f"{self.info.sfreq}"] + [f"{shard.file}:{shard.digest}" for shard in self.shards]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def require(self, *, sfreq: float, patch_seconds: float = 1.0) -> Store:
        """Return the store itself if a model for `sfreq` Hz can read it, otherwise raise ValueError."""
        if self.info.sfreq != sfreq:
            raise ValueError(
                f"{self.path} is sampled at {self.info.sfreq:g} Hz, the model needs {sfreq:g} Hz. "
                f"Prepare it again with `--clean.sfreq {sfreq:g}`."
            )
        if self.info.window_seconds < patch_seconds:
            raise ValueError(
                f"{self.path} has windows of {self.info.window_seconds:g} s, less than a patch of {patch_seconds:g} s. "
                "Prepare it again with longer windows."
            )
        if not self.n_windows:
            raise ValueError(f"{self.path} holds no window; its recordings.csv says why.")
        return self


class ShardWriter:
    """Write one shard; it appears under its final name only when complete.

    Used as a context manager: leaving it normally finishes the shard, leaving it by an exception removes what was
    written. After a normal exit `.shard` is the index entry, or None if no window was appended (then no file is left).
    """

    def __init__(
        self,
        store: str | os.PathLike[str],
        name: str,
        *,
        ch_names: Sequence[str],
        sfreq: float,
        n_times: int,
        label_dtype: npt.DTypeLike | None = None,
        has_split: bool = False,
    ) -> None:
        self._store = Path(store)
        self._file = f"shards/{name}.h5"
        self._final = self._store / self._file
        self._partial = partial_of(self._final)
        self._ch_names = tuple(ch_names)
        self._sfreq = float(sfreq)
        self._n_times = int(n_times)
        self._label_dtype = None if label_dtype is None else np.dtype(label_dtype)
        self._has_split = has_split
        self._columns: dict[str, list[npt.NDArray[Any]]] = {}
        self._offsets: list[npt.NDArray[np.float32]] = []
        self._n = 0
        self._h5: h5py.File | None = None
        self._reserved = 0
        self.shard: Shard | None = None

    def __enter__(self) -> ShardWriter:
        self._final.parent.mkdir(parents=True, exist_ok=True)
        shape = (len(self._ch_names), self._n_times)
        with self._or_nothing():
            self._h5 = h5py.File(self._partial, "w", libver="v110")
            self._reserve(0)
            self._windows = self._h5.create_dataset(
                "windows", shape=(0, *shape), maxshape=(None, *shape), chunks=(1, *shape), dtype="<i2"
            )
        return self

    def append(
        self,
        windows_uv: npt.NDArray[np.floating],
        *,
        recording: int,
        start: npt.ArrayLike,
        label: npt.ArrayLike | None = None,
        split: npt.ArrayLike | None = None,
    ) -> None:
        """Append windows of one recording.

        Parameters
        ----------
        windows_uv : (m, C, T) float array
            Microvolts, finite.
        recording : int
            Row of recordings.csv, not below that of any window before.
        start : (m,) array
            Seconds from the start of the recording.
        label, split : (m,) arrays
            As the writer was told to hold.
        """
        m = len(windows_uv)
        if windows_uv.shape[1:] != (len(self._ch_names), self._n_times):
            raise ValueError(
                f"windows have shape {windows_uv.shape[1:]}, the shard {(len(self._ch_names), self._n_times)}"
            )
        if m == 0:
            return
        counts, scale, offset = quantise(windows_uv)
        with self._or_nothing():
            self._reserve(self._n + m)
            self._windows.resize(self._n + m, axis=0)
            self._windows[self._n :] = counts
        self._n += m
        self._put("scale", scale, "<f4", m)
        self._offsets.append(offset)
        self._put("recording", np.full(m, recording), "<i4", m)
        self._put("start", start, "<f8", m)
        if self._label_dtype is not None:
            self._put("label", label, "<f8" if self._label_dtype.kind == "f" else "<i8", m)
        if self._has_split:
            self._put("split", split, "i1", m)

    def _put(self, name: str, values: npt.ArrayLike | None, dtype: str, m: int) -> None:
        if values is None:
            raise ValueError(f"the shard holds /{name}, but none was given")
        self._columns.setdefault(name, []).append(np.broadcast_to(np.asarray(values, dtype=dtype), (m,)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self._n == 0:
            self._discard()
            return
        with self._or_nothing():
            self.shard = self._finish()

    @property
    def note(self) -> str:
        """A note on windows that int16 holds less exactly than to `RESOLUTION_UV`; empty if there are none."""
        scale = np.concatenate(self._columns.get("scale", [np.empty(0, np.float32)]))
        coarse = scale[scale > 2 * RESOLUTION_UV]
        if not len(coarse):
            return ""
        step = float(coarse.max())
        return (
            f"amplitudes up to {step * _COUNTS:,.0f} uV are stored in steps of {step:.2g} uV ({len(coarse)} "
            f"window{'s' if len(coarse) > 1 else ''})"
        )

    def _finish(self) -> Shard:
        """Write what the windows have besides their samples, and give the file its name."""
        assert self._h5 is not None
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        offset = np.concatenate(self._offsets)
        if offset.any():
            columns["offset"] = offset
        self._reserve(self._n, sum(values.nbytes for values in columns.values()))
        for name, values in columns.items():
            self._h5.create_dataset(name, data=values)
        self._h5.attrs["format_version"] = 2 if "offset" in columns else 1
        self._h5.attrs["ch_names"] = list(self._ch_names)
        self._h5.attrs["sfreq"] = self._sfreq
        shard = _index_entry(self._file, self._ch_names, self._windows, columns)
        self._h5.attrs["digest"] = shard.digest
        self._h5.close()
        with self._partial.open("r+b") as file:
            file.truncate(hdf5_size(file.read(HDF5_HEAD)))  # without what was reserved and not needed
        # Not flushed to the disk, which takes longer than a filter: `flush` does that for many at once. What a power
        # cut before that leaves of a shard is found by its size or its digest, and made again.
        os.replace(self._partial, self._final)
        return shard

    @contextlib.contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """Leave no file after an error, and raise the operating system's error where HDF5 wraps one."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            self._discard()
            raise _os_error(error, self._partial) from error
        except BaseException:
            self._discard()
            raise

    def _reserve(self, n: int, more: int = 0) -> None:
        """Take room on the disk for `n` windows and `more` bytes, and for what HDF5 adds, before HDF5 writes them.

        A full disk is met here: HDF5 cannot close a file after one, and would crash at the end of the program.
        """
        if self._h5 is None or not hasattr(os, "posix_fallocate"):
            return
        window = 2 * len(self._ch_names) * self._n_times
        end = n * (window + _HDF5_OWN_PER_WINDOW) + more + _HDF5_OWN
        try:
            os.posix_fallocate(self._h5.id.get_vfd_handle(), self._reserved, end - self._reserved)
        except OSError as error:
            if error.errno in FULL:  # others are of file systems that reserve nothing
                raise
        self._reserved = end

    def _discard(self) -> None:
        """Close the file and remove it."""
        if self._h5:
            with contextlib.suppress(OSError, RuntimeError):  # where room cannot be reserved
                self._h5.close()
        self._partial.unlink(missing_ok=True)


def hdf5_size(head: bytes) -> int:
    """Size of an HDF5 file, from its first `HDF5_HEAD` bytes."""
    return int.from_bytes(head[28:36], "little")


def _os_error(error: Exception, path: Path) -> OSError:
    """The operating system's error behind one of HDF5's."""
    named = re.search(r"errno = (\d+)", str(error))
    number = getattr(error, "errno", None) or (int(named[1]) if named else None)
    return OSError(number, os.strerror(number), str(path)) if number else OSError(f"{path}: {error}")


def write_store(
    path: str | os.PathLike[str], info: StoreInfo, shards: Iterable[Shard], recordings: Iterable[Recording]
) -> Store:
    """Flush the shards, write recordings.csv, then store.json: with the latter the store is complete."""
    folder = Path(path)
    shards = sorted(shards, key=lambda shard: shard.file)
    flush(folder, shards)
    write_recordings(folder / "recordings.csv", recordings)
    content = {
        "format_version": max((shard.format_version for shard in shards), default=1),
        "unit": UNIT,
        **dataclasses.asdict(info),
        "shards": [dataclasses.asdict(shard) for shard in shards],
    }
    write_text(folder / "store.json", json.dumps(content, indent=1) + "\n")
    return Store.open(folder)


def flush(folder: Path, shards: Iterable[Shard]) -> None:
    """Flush shards to the disk: from then on a power cut takes nothing of them."""
    with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:  # a disk flushes several files in the time of one
        deque(pool.map(_fsync, [*(folder / shard.file for shard in shards), folder / "shards"]), maxlen=0)


def write_recordings(path: Path, recordings: Iterable[Recording]) -> None:
    """Write recordings.csv at once and completely."""
    names = [column.name for column in dataclasses.fields(Recording)]
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for recording in recordings:
            writer.writerow({**dataclasses.asdict(recording), "hours": f"{recording.hours:.6f}"})


def read_recordings(path: Path) -> tuple[Recording, ...]:
    """Read recordings.csv; unknown columns are ignored.

    Raises
    ------
    FileNotFoundError, ValueError
        It is missing or damaged.
    """
    number = {"row": int, "kept": int, "rejected": int, "hours": float}
    known = {column.name for column in dataclasses.fields(Recording)}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(
                Recording(**{name: number.get(name, str)(value) for name, value in row.items() if name in known})
                for row in csv.DictReader(file)
            )
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: the store is damaged. {_WRITTEN_AGAIN}") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged ({error}). {_WRITTEN_AGAIN}") from error


class Quantised(NamedTuple):
    """Windows as a shard holds them: microvolts = counts * scale + offset."""

    counts: npt.NDArray[np.int16]
    """(m, C, T)"""
    scale: npt.NDArray[np.float32]
    """(m,) microvolts per count."""
    offset: npt.NDArray[np.float32]
    """(m, C) microvolts; zeros for a window that needs none."""


def quantise(windows_uv: npt.NDArray[np.floating]) -> Quantised:
    """Microvolts to int16 counts with one scale per window.

    The step is max|x| / 32767: 0.003 microvolts for a window that reaches 100 microvolts, below the resolution of
    clinical amplifiers. A window of zeros has the scale 1.

    Channels far from zero, as those of a DC-coupled amplifier are without a high-pass, would leave few of the counts to
    the signal. Where the step would exceed `RESOLUTION_UV` and is more than halved by it, the middle between the lowest
    and the highest value of each channel is taken off and kept as its offset. A signal that only swings far, and
    crosses zero, stays as it is.

    Parameters
    ----------
    windows_uv : (m, C, T) float array

    Raises
    ------
    ValueError
        They hold NaN or infinite values.
    """
    peak = np.abs(windows_uv).max(axis=(1, 2))
    if not np.isfinite(peak).all():
        raise ValueError("windows hold NaN or infinite values; preparation must reject them before they are stored")
    offset = np.zeros(windows_uv.shape[:2], np.float32)
    for index in np.flatnonzero(peak > RESOLUTION_UV * _COUNTS):
        low, high = windows_uv[index].min(axis=1), windows_uv[index].max(axis=1)
        middle = (low / 2 + high / 2).astype(np.float32)
        if 2 * max((high - middle).max(), (middle - low).max()) < peak[index]:
            offset[index] = middle
    if offset.any():
        windows_uv = windows_uv - offset[:, :, None]
        peak = np.abs(windows_uv).max(axis=(1, 2))
    scale = np.where(peak > 0, peak / _COUNTS, 1.0).astype(np.float32)
    counts = np.rint(windows_uv / scale[:, None, None])
    # float32 rounding of the scale can push the peak to 32768.
    return Quantised(np.clip(counts, -_COUNTS, _COUNTS).astype(np.int16), scale, offset)


def dequantise(
    counts: npt.NDArray[np.int16],
    scale: npt.ArrayLike,
    offset: npt.ArrayLike | None = None,
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Counts (..., C, T) with scale (...) and offset (..., C) to float32 microvolts, into `out` if that is given."""
    out = np.multiply(counts, np.asarray(scale, np.float32)[..., None, None], out=out, dtype=np.float32)
    if offset is not None:
        out += np.asarray(offset, np.float32)[..., None]
    return out


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def partial_of(path: Path) -> Path:
    """A name beside `path` for an unfinished file, which no other process uses."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when all is written and is gone after an error."""
    partial = partial_of(path)
    try:
        yield partial
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def try_to_write(folder: Path) -> None:
    """Raise OSError unless files can be made in a folder. Trying is the only test that knows of mounts and quotas."""
    tempfile.TemporaryFile(dir=folder).close()


def require_output(path: Path) -> None:
    """Raise ValueError, before long work, if an --output could not be written; folders on the way may be missing."""
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder; name a file")
    if not above.is_dir():
        raise ValueError(f"--output {path} lies under {above}, which is a file")
    try:
        try_to_write(above)
    except OSError as error:
        raise ValueError(f"--output {path}: {above} may not be written to ({error.strerror})") from error


def publish(partial: Path, final: Path) -> None:
    """Flush a finished file or folder to the disk and give it its final name, in one step."""
    for path in [*partial.rglob("*"), partial] if partial.is_dir() else [partial]:
        _fsync(path)
    os.replace(partial, final)
    _fsync(final.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def runs_of(recording: npt.NDArray[np.integer]) -> tuple[tuple[int, int], ...]:
    """(row of recordings.csv, number of windows) of the windows of a shard."""
    rows, counts = np.unique(recording, return_counts=True)
    return tuple((int(row), int(count)) for row, count in zip(rows, counts, strict=True))


def _index_entry(
    file: str, ch_names: tuple[str, ...], windows: h5py.Dataset, columns: dict[str, npt.NDArray[Any]]
) -> Shard:
    if np.any(np.diff(columns["recording"]) < 0):
        raise ValueError(f"{file}: windows must be appended in the order of their recordings")
    digest = begin_digest(ch_names, windows.shape)
    for index in range(windows.shape[0]):
        digest.update(windows[index].tobytes())
    return Shard(
        file=file,
        ch_names=ch_names,
        n=windows.shape[0],
        n_times=windows.shape[2],
        runs=runs_of(columns["recording"]),
        digest=end_digest(digest, columns),
        has_offset="offset" in columns,
    )


def begin_digest(ch_names: Sequence[str], shape: tuple[int, ...]) -> Any:
    """A SHA-256 that is to be updated with the counts of each window, in their order, and then ended."""
    return hashlib.sha256(json.dumps([list(ch_names), list(shape)]).encode())


def end_digest(digest: Any, columns: Mapping[str, npt.NDArray[Any]]) -> str:
    """The digest of a shard, given what it holds besides its windows."""
    for name in sorted(columns):
        digest.update(name.encode() + columns[name].tobytes())
    return digest.hexdigest()


def _read_index(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        _index_is_damaged(path, error)
    if not isinstance(content, dict):
        _index_is_damaged(path, TypeError(f"it holds a {type(content).__name__}, not an object"))
    return content


def _index_is_damaged(path: Path, error: Exception) -> NoReturn:
    raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}). {_WRITTEN_AGAIN}") from error


def _check_identity(folder: Path, content: dict[str, Any]) -> None:
    version, unit = content.get("format_version"), content.get("unit")
    if version not in range(1, FORMAT_VERSION + 1):
        raise ValueError(
            f"{folder} has store format version {version}, this program reads versions 1 to {FORMAT_VERSION}. "
            "Prepare it again with this version's codebrain-prep."
        )
    if unit != UNIT:
        raise ValueError(f"{folder} holds values in {unit!r}, but stores are in {UNIT!r}. Prepare it again.")


def _info_from_json(content: dict[str, Any]) -> StoreInfo:
    task = content["task"]
    if task is not None:
        task = TaskInfo(**{**task, "class_names": tuple(task["class_names"])})
    info = StoreInfo(
        sfreq=float(content["sfreq"]),
        window_seconds=float(content["window_seconds"]),
        preparation=content["preparation"],
        task=task,
        preparation_version=int(content.get("preparation_version", 0)),
    )
    if not (0 < info.sfreq < math.inf and 0 < info.window_seconds < math.inf):
        raise ValueError(f"windows of {info.window_seconds} s at {info.sfreq} Hz")
    return info


def _shard_from_json(entry: dict[str, Any]) -> Shard:
    shard = Shard(
        file=entry["file"],
        ch_names=tuple(entry["ch_names"]),
        n=int(entry["n"]),
        n_times=int(entry["n_times"]),
        runs=tuple((int(row), int(count)) for row, count in entry["runs"]),
        digest=entry["digest"],
        has_offset=bool(entry.get("has_offset", False)),
    )
    if not isinstance(shard.file, str) or not _SHARD_FILE.fullmatch(shard.file):
        raise ValueError(f"a shard's file is {shard.file!r}, not shards/NAME.h5")
    if not shard.ch_names or not all(isinstance(name, str) for name in shard.ch_names):
        raise ValueError(f"{shard.file} has the channels {shard.ch_names}")
    counts = [count for _, count in shard.runs]
    if min([shard.n, shard.n_times, *counts]) < 1 or sum(counts) != shard.n:
        raise ValueError(f"{shard.file} has {shard.n} windows of {shard.n_times} samples in runs of {counts}")
    return shard


def _check_rows(store: Store) -> None:
    """Raise ValueError unless recordings.csv has a row for every recording that has windows, and each row once."""
    path, rows = store.path / "recordings.csv", Counter(recording.row for recording in store.recordings)
    if twice := [row for row, count in rows.items() if count > 1]:
        raise ValueError(f"{path} is damaged: it has row {twice[0]} more than once. {_WRITTEN_AGAIN}")
    for shard in store.shards:
        if lacking := [row for row, _ in shard.runs if row not in rows]:
            raise ValueError(
                f"{path} is damaged: it lacks row {lacking[0]}, whose windows {shard.file} holds. {_WRITTEN_AGAIN}"
            )
