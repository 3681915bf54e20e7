"""The files that a recording consists of: its signal, and the texts beside it that say more of it.

BrainVision keeps samples and marks beside its header, EEGLAB its samples, Nihon Kohden its electrodes; a BIDS data set
has tables, TUEV its labels.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpora import bids

_DIGESTED = 1 << 16  # bytes at either end: header and samples
_BRAINVISION = (".vhdr", ".ahdr")
_SAMPLES_BESIDE = {
    ".set": (".fdt",),
    ".cdt": (".cdt.dpa", ".cdt.dpo", ".cdt.ceo", ".cdt.cef"),
    ".eeg": (".pnt", ".21e", ".log"),
    ".lay": (".dat",),
    ".fif": tuple(f"-{number}.fif" for number in range(1, 10)),  # a FIF file of more than 2 GB is split
}
_TEXTS_BESIDE = {".edf": (".rec",)}
_NAMED = re.compile(r"^\s*(DataFile|MarkerFile)\s*=\s*(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Files:
    """What a recording consists of."""

    signal: tuple[Path, ...]
    """Header and samples; the file that the recording is named by comes first."""
    texts: tuple[Path, ...]
    """Headers in plain text, marks, labels, tables: small files that can change without changing in size."""

    @property
    def size(self) -> int:
        """Bytes of header and samples."""
        return sum(_size(file) for file in self.signal)

    def hash(self) -> str:
        """Hash of the sizes of the signal's files and of what the texts say."""
        found = hashlib.sha256()
        for file in self.signal:
            found.update(os.fsencode(f"{file.name} {_size(file)}\n"))
        for file in self.texts:
            found.update(os.fsencode(f"{file.name}\n") + _text(file))
        return found.hexdigest()[:16]

    def digest(self) -> str:
        """Hash of the beginning and the end of each file of the signal; "" if one cannot be read."""
        found = hashlib.sha256()
        try:
            for path in self.signal:
                with path.open("rb") as file:
                    found.update(file.read(_DIGESTED))
                    file.seek(max(os.fstat(file.fileno()).st_size - _DIGESTED, 0))
                    found.update(file.read(_DIGESTED))
        except OSError:
            return ""
        return found.hexdigest()

    def not_there(self) -> str:
        """Why a file is missing, if it is a link to nothing: so datalad keeps what has not been fetched; else ""."""
        for file in (*self.signal, *self.texts):
            if file.is_symlink() and not file.exists():
                target = os.readlink(file)
                return (
                    f"{file.name} is not there: a link to {target}, which does not exist. In a datalad or git-annex "
                    f"data set it has not been fetched: datalad get {file.name}"
                )
        return ""


def files_of(recording: Path, labels: Iterable[Path] = ()) -> Files:
    """The files of a recording that are there, dangling links among them; `labels` are further texts, if there."""
    suffix = recording.suffix.lower()
    texts = (*bids.tables(recording), *_there(labels))
    if recording.is_dir():
        inside = sorted(Path(folder, name) for folder, _, names in os.walk(recording) for name in names)
        return Files(signal=tuple(inside), texts=texts)
    if suffix in _BRAINVISION:
        samples, marks = brainvision_files(recording)
        return Files(signal=(recording, *_there(samples)), texts=(recording, *_there(marks), *texts))
    stem = recording.with_suffix("")
    return Files(
        signal=(recording, *_there(Path(f"{stem}{ending}") for ending in _SAMPLES_BESIDE.get(suffix, ()))),
        texts=(*_there(Path(f"{stem}{ending}") for ending in _TEXTS_BESIDE.get(suffix, ())), *texts),
    )


def brainvision_files(header: Path) -> tuple[list[Path], list[Path]]:
    """The files of samples and of marks that a BrainVision header names."""
    content = _text(header)
    try:
        named = _NAMED.findall(content.decode("utf-8"))
    except UnicodeDecodeError:  # headers of before 2007
        named = _NAMED.findall(content.decode("latin-1"))
    beside = [(kind, Path(name.replace("$b", header.stem)).name) for kind, name in named]
    samples, marks = (
        [header.with_name(name) for kind, name in beside if kind == wanted and name]
        for wanted in ("DataFile", "MarkerFile")
    )
    return samples, marks


def _there(files: Iterable[Path]) -> list[Path]:
    return [file for file in files if os.path.lexists(file)]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # a dangling link, or a folder that may not be entered
        return 0


def _text(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
