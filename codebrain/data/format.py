"""The store: EEG windows on disk, as `codebrain-prep` writes them and training reads them.

    STORE/store.json            what the windows are and where they lie (written last: its presence says "complete")
          recordings.csv        one row per source recording, the unusable ones with the reason
          shards/NAME.h5        windows of one channel set

    A shard:  /windows   int16   (n, C, T)  one chunk per window     microvolts = count * scale
              /scale     float32 (n,)       microvolts per count, per window
              /recording int32   (n,)       row of recordings.csv, ascending
              /start     float64 (n,)       seconds from the start of the recording
              /label     int64 or float64 (n,)  task stores only: class index, or the value to regress
              /split     int8    (n,)       task stores whose protocol fixes it: 0 train, 1 valid, 2 test
              attrs: format_version, ch_names, sfreq

Only numpy and h5py are needed here, so that preparation runs on machines without torch.
Shape letters: n windows, C channels, T samples.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

FORMAT_VERSION = 1
UNIT = "uV"
SPLITS = ("train", "valid", "test")
PARTIAL_SUFFIX = ".partial"
_COUNTS = 32767
_FLUSHED_AT_ONCE = 16


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
            The store has another format version or unit, or its index is damaged.
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
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
            _check_identity(folder, content)
            return cls(
                path=folder,
                info=_info_from_json(content),
                shards=tuple(_shard_from_json(entry) for entry in content["shards"]),
                recordings=read_recordings(folder / "recordings.csv"),
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{index} is damaged ({type(error).__name__}: {error}). Delete it and run codebrain-prep again: "
                "finished shards are kept."
            ) from error

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
        self._partial = self._final.with_name(self._final.name + PARTIAL_SUFFIX)
        self._ch_names = tuple(ch_names)
        self._sfreq = float(sfreq)
        self._n_times = int(n_times)
        self._label_dtype = None if label_dtype is None else np.dtype(label_dtype)
        self._has_split = has_split
        self._columns: dict[str, list[npt.NDArray[Any]]] = {}
        self._n = 0
        self.shard: Shard | None = None

    def __enter__(self) -> ShardWriter:
        self._final.parent.mkdir(parents=True, exist_ok=True)
        self._h5 = h5py.File(self._partial, "w", libver="v110")
        shape = (len(self._ch_names), self._n_times)
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
        counts, scale = quantise(windows_uv)
        self._windows.resize(self._n + m, axis=0)
        self._windows[self._n :] = counts
        self._n += m
        self._put("scale", scale, "<f4", m)
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
            self._h5.close()
            self._partial.unlink(missing_ok=True)
            return
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        for name, values in columns.items():
            self._h5.create_dataset(name, data=values)
        self._h5.attrs["format_version"] = FORMAT_VERSION
        self._h5.attrs["ch_names"] = list(self._ch_names)
        self._h5.attrs["sfreq"] = self._sfreq
        self.shard = _index_entry(self._file, self._ch_names, self._windows, columns)
        self._h5.attrs["digest"] = self.shard.digest
        self._h5.close()
        # Not flushed to the disk, which takes longer than a filter: `write_store` flushes all of them. What a power cut
        # before that leaves of a shard is found by its size, and made again.
        os.replace(self._partial, self._final)


def check_shard(h5: h5py.File, path: Path) -> None:
    """Raise ValueError unless the open file is a shard of this format version, laid out as ShardWriter does."""
    version = h5.attrs.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}. Prepare the store again."
        )
    windows = h5["windows"]
    # Windows are read as the raw bytes of their chunks.
    if windows.chunks != (1, *windows.shape[1:]) or windows.id.get_create_plist().get_nfilters():
        raise ValueError(
            f"{path} was packed anew by another program: a shard has one chunk per window and no compression. "
            "Delete it and run codebrain-prep again: it makes what is missing."
        )


def write_store(
    path: str | os.PathLike[str], info: StoreInfo, shards: Iterable[Shard], recordings: Iterable[Recording]
) -> Store:
    """Flush the shards, write recordings.csv, then store.json: with the latter the store is complete."""
    folder = Path(path)
    shards = sorted(shards, key=lambda shard: shard.file)
    with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:  # a disk flushes several files in the time of one
        deque(pool.map(_fsync, [*(folder / shard.file for shard in shards), folder / "shards"]), maxlen=0)
    write_recordings(folder / "recordings.csv", recordings)
    content = {
        "format_version": FORMAT_VERSION,
        "unit": UNIT,
        **dataclasses.asdict(info),
        "shards": [dataclasses.asdict(shard) for shard in shards],
    }
    write_text(folder / "store.json", json.dumps(content, indent=1) + "\n")
    return Store.open(folder)


def write_recordings(path: Path, recordings: Iterable[Recording]) -> None:
    """Write recordings.csv at once and completely."""
    names = [column.name for column in dataclasses.fields(Recording)]
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for recording in recordings:
            writer.writerow({**dataclasses.asdict(recording), "hours": f"{recording.hours:.6f}"})


def read_recordings(path: Path) -> tuple[Recording, ...]:
    """Read recordings.csv; columns that are not known here are passed over."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: the store is damaged. Run codebrain-prep again.")
    number = {"row": int, "kept": int, "rejected": int, "hours": float}
    known = {column.name for column in dataclasses.fields(Recording)}
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(
            Recording(**{name: number.get(name, str)(value) for name, value in row.items() if name in known})
            for row in csv.DictReader(file)
        )


def quantise(windows_uv: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """Microvolts to int16 counts with one scale per window.

    The step is max|x| / 32767: 0.003 microvolts for a window that reaches 100 microvolts, below the resolution of
    clinical amplifiers. A window of zeros has the scale 1.

    Returns
    -------
    counts : (m, C, T) int16
    scale : (m,) float32
        Microvolts per count.
    """
    peak = np.abs(windows_uv).max(axis=(1, 2))
    if not np.isfinite(peak).all():
        raise ValueError("windows hold NaN or infinite values; preparation must reject them before they are stored")
    scale = np.where(peak > 0, peak / _COUNTS, 1.0).astype(np.float32)
    counts = np.rint(windows_uv / scale[:, None, None])
    # float32 rounding of the scale can push the peak to 32768.
    return np.clip(counts, -_COUNTS, _COUNTS).astype(np.int16), scale


def dequantise(
    counts: npt.NDArray[np.int16], scale: npt.ArrayLike, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Counts (..., C, T) with scale (...) to float32 microvolts, into `out` if that is given."""
    return np.multiply(counts, np.asarray(scale, np.float32)[..., None, None], out=out, dtype=np.float32)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when all is written and is gone after an error."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
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


def _runs(recording: npt.NDArray[np.integer]) -> tuple[tuple[int, int], ...]:
    rows, counts = np.unique(recording, return_counts=True)
    return tuple((int(row), int(count)) for row, count in zip(rows, counts, strict=True))


def _index_entry(
    file: str, ch_names: tuple[str, ...], windows: h5py.Dataset, columns: dict[str, npt.NDArray[Any]]
) -> Shard:
    if np.any(np.diff(columns["recording"]) < 0):
        raise ValueError(f"{file}: windows must be appended in the order of their recordings")
    digest = hashlib.sha256(json.dumps([ch_names, windows.shape]).encode())
    for index in range(windows.shape[0]):
        digest.update(windows[index].tobytes())
    for name in sorted(columns):
        digest.update(name.encode() + columns[name].tobytes())
    return Shard(
        file=file,
        ch_names=ch_names,
        n=windows.shape[0],
        n_times=windows.shape[2],
        runs=_runs(columns["recording"]),
        digest=digest.hexdigest(),
    )


def _check_identity(folder: Path, content: dict[str, Any]) -> None:
    version, unit = content.get("format_version"), content.get("unit")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has store format version {version}, this program reads version {FORMAT_VERSION}. "
            "Prepare it again with this version's codebrain-prep."
        )
    if unit != UNIT:
        raise ValueError(f"{folder} holds values in {unit!r}, but stores are in {UNIT!r}. Prepare it again.")


def _info_from_json(content: dict[str, Any]) -> StoreInfo:
    task = content["task"]
    if task is not None:
        task = TaskInfo(**{**task, "class_names": tuple(task["class_names"])})
    return StoreInfo(
        sfreq=float(content["sfreq"]),
        window_seconds=float(content["window_seconds"]),
        preparation=content["preparation"],
        task=task,
    )


def _shard_from_json(entry: dict[str, Any]) -> Shard:
    return Shard(
        file=entry["file"],
        ch_names=tuple(entry["ch_names"]),
        n=int(entry["n"]),
        n_times=int(entry["n_times"]),
        runs=tuple((int(row), int(count)) for row, count in entry["runs"]),
        digest=entry["digest"],
    )
