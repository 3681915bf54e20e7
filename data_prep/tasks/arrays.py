"""Data sets that come as arrays of trials: pickles, MATLAB files, a spreadsheet of labels.

A pickle is a program: whoever loads one runs what is in it. `load_pickle` builds numpy arrays and refuses all else.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import numpy.typing as npt
import scipy.io

from data_prep.read import Annotation, UnusableError, faults_of

# What numpy's own pickles name: how an array, its type and its bytes are put together.
_ARRAY_PARTS = re.compile(
    r"numpy(\.(_?core\.(multiarray|numeric)))?\.(_reconstruct|ndarray|dtype|scalar|_frombuffer)|_codecs\.encode"
)


class ArrayRecording:
    """A recording in memory, continuous or of trials that lie end to end; see `data_prep.read.Readable`.

    Parameters
    ----------
    path : Path
        Where it came from.
    x_uv : (C, T) or (trials, C, T) float array
        Microvolts.
    labels : sequence of str
        Channel labels.
    sfreq : float
        Sampling rate in Hz.
    marks : sequence of Annotation
    note : str
        What had to be assumed, for the recording's row.
    """

    def __init__(
        self,
        path: Path,
        x_uv: npt.NDArray[np.floating],
        *,
        labels: Sequence[str],
        sfreq: float,
        marks: Sequence[Annotation] = (),
        note: str = "",
    ) -> None:
        self.path = path
        self.note = note
        self.taken_for = "its numbers taken for microvolts"
        self.labels = self.eeg_labels = tuple(labels)
        self.bad_labels: tuple[str, ...] = ()
        self.sfreq = float(sfreq)
        self._trials = x_uv if x_uv.ndim == 3 else x_uv[None]
        self._marks = tuple(marks)
        self.n_times = self._trials.shape[0] * self._trials.shape[2]

    @property
    def trial_times(self) -> int:
        """Samples of a trial."""
        return self._trials.shape[2]

    @property
    def seconds(self) -> float:
        """Length of all trials together."""
        return self.n_times / self.sfreq

    def restrict(self, labels: Sequence[str]) -> None:
        """Nothing: all channels are in memory and have one sampling rate."""

    def read(self, picks: Sequence[int], start: int, stop: int) -> npt.NDArray[np.floating]:
        """Samples `start` to `stop` of the channels `picks`: (C, stop - start) microvolts."""
        first, last = start // self.trial_times, -(-stop // self.trial_times)
        x = np.concatenate(self._trials[first:last, list(picks)], axis=1)
        offset = first * self.trial_times
        return x[:, start - offset : stop - offset].astype(np.float64)

    def annotations(self) -> tuple[Annotation, ...]:
        """Marks in the order of their onsets."""
        return self._marks

    def person(self) -> tuple[str, str]:
        """Nothing is known of the person."""
        return "", ""


def check_shape(x: npt.NDArray[Any], shape: tuple[int | None, ...], what: str) -> npt.NDArray[Any]:
    """Return an array that has the expected shape (None: any number), otherwise say what was expected."""
    fits = len(shape) == x.ndim and all(n is None or n == m for n, m in zip(shape, x.shape, strict=True))
    if not fits:
        expected = " x ".join("any" if n is None else str(n) for n in shape)
        raise UnusableError(f"an array of shape {x.shape} where {expected} was expected ({what})")
    return x


def load_pickle(path: Path) -> npt.NDArray[Any]:
    """The numpy array of a pickle; anything else in it is refused unread."""
    with path.open("rb") as file, faults_of(path, "cannot be read as a pickle of an array"):
        content = _ArraysOnly(file).load()
    if not isinstance(content, np.ndarray):
        raise UnusableError(f"a pickle of {type(content).__name__}, not of a numpy array")
    return content


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if not _ARRAY_PARTS.fullmatch(f"{module}.{name}"):
            raise UnusableError(f"its pickle asks for {module}.{name}: a numpy array needs none, so it is not loaded")
        return super().find_class(module, name)


def load_mat(path: Path, *names: str) -> list[Any]:
    """Variables of a MATLAB file of version 7 or older; its structures have their fields as attributes."""
    with faults_of(path, "cannot be read as a MATLAB file"):
        content = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)
    _check_names(names, [name for name in content if not name.startswith("__")])
    return [content[name] for name in names]


def load_mat_73(path: Path, group: str, *names: str) -> list[npt.NDArray[Any]]:
    """Arrays of a structure in a MATLAB file of version 7.3, which is HDF5: their axes are in reverse order."""
    with faults_of(path, "cannot be read as a MATLAB 7.3 file"), h5py.File(path, "r") as h5:
        _check_names([group], list(h5))
        _check_names(names, list(h5[group]))
        return [h5[group][name][()] for name in names]


def texts_of_mat_73(path: Path, group: str, name: str) -> list[str]:
    """A cell array of texts in a structure of such a file, which refers to an array of letters for each; [] if none."""
    with faults_of(path, f"its {group}.{name} cannot be read"), h5py.File(path, "r") as h5:
        cells = h5[group].get(name)
        if cells is None or h5py.check_ref_dtype(cells.dtype) is None:
            return []
        return ["".join(map(chr, np.ravel(h5[cell][()]))) for cell in np.ravel(cells[()])]


def _check_names(wanted: Sequence[str], found: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UnusableError(f"no variable {', '.join(missing)} in it, only {', '.join(found) or 'none'}")


def load_numbers(path: Path) -> dict[tuple[int, int], float]:
    """The numbers of the first sheet of an .xlsx file by (row, column), counted from 0."""
    cells: dict[tuple[int, int], float] = {}
    with faults_of(path, "cannot be read as an .xlsx file"), zipfile.ZipFile(path) as book:
        sheet = min(name for name in book.namelist() if name.startswith("xl/worksheets/sheet"))
        for cell in ElementTree.fromstring(book.read(sheet)).iterfind(".//{*}c"):
            value = cell.find("{*}v")
            place = re.fullmatch(r"([A-Z]+)(\d+)", cell.get("r", ""))
            # A cell of type "s" holds the number of a text in another table.
            if value is not None and value.text and place and cell.get("t", "n") == "n":
                cells[int(place[2]) - 1, _column(place[1])] = float(value.text)
    return cells


def _column(letters: str) -> int:
    """A is 0, Z 25, AA 26."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1
