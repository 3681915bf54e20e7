"""Open a recording of any vendor through MNE, in microvolts, with a reason when it cannot be used.

MNE returns volts. Whether a file's numbers are what its header says is another matter: see `data_prep/probe.py`.
"""

from __future__ import annotations

import contextlib
import errno
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import mne
import numpy as np
import numpy.typing as npt
from mne.io.edf.edf import RawEDF

from data_prep.clean import Chain, CleanConfig
from data_prep.edf import age_in_header, gaps, new_epochs, promised_bytes, record_seconds, unlike_volts

Unit = Literal["auto", "V", "mV", "uV", "nV"]
_VOLTS: dict[str, float] = {"V": 1.0, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9}
_EDF = (".edf", ".rec", ".bdf")
_RECORDS = (*_EDF, ".gdf")  # in whose data records each channel has a number of samples of its own
_MIN_SFREQ, _MAX_SFREQ = 20.0, 200_000.0

# What the system says to places that only a damaged header can name; all else may go better another time.
_ERRORS_OF_FILE = (None, errno.EINVAL, errno.EOVERFLOW)

_HELD_BYTES = 64 << 20  # an hour of 19 channels at 100 Hz
BIOSEMI_JOINT = "BioSemi new epoch"
"""Text of the mark where a BioSemi amplifier began anew."""

_SHOWN = 200  # characters of a message of a reader
_SAID_HERE = "Channel names are not unique"  # by plan_montage, of those that matter
_ABOUT_DATA = (RuntimeWarning, UserWarning)  # and no deprecation of its own code


class UnusableError(Exception):
    """A recording cannot be used. The message is the reason that its row gives, in words that a person understands.

    Parameters
    ----------
    reason : str
    remedy : str
        A sentence on a flag with which it could be used.
    flag : str
        That flag, for not every command has it.
    """

    def __init__(self, reason: str, remedy: str = "", flag: str = "") -> None:
        super().__init__(f"{reason}. {remedy}" if remedy else reason)
        self.reason = reason
        self.flag = flag

    def told(self, flags: tuple[str, ...]) -> str:
        """What to say to the user of a command whose flags begin with one of `flags`."""
        return str(self) if self.flag.startswith(flags) else self.reason


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """A marked stretch of a recording."""

    onset: float
    """Seconds from the recording's first sample."""
    duration: float
    """Seconds; 0 for an instant."""
    text: str
    """What the file says about it."""


class Readable(Protocol):
    """What preparation needs of a recording: of a file that MNE reads, or of an array of trials."""

    path: Path
    labels: tuple[str, ...]
    eeg_labels: tuple[str, ...]
    bad_labels: tuple[str, ...]
    sfreq: float
    n_times: int
    note: str
    taken_for: str

    @property
    def trial_times(self) -> int:
        """Samples after which another trial begins, that no filter may mix with this one."""

    @property
    def seconds(self) -> float:
        """Length of the recording."""

    def restrict(self, labels: Sequence[str]) -> None:
        """Forget the other channels; `labels`, `sfreq`, `n_times` and `note` may change."""

    def read(self, picks: Sequence[int], start: int, stop: int) -> npt.NDArray[np.floating]:
        """Samples `start` to `stop` of the channels `picks`: (C, stop - start) microvolts."""

    def annotations(self) -> tuple[Annotation, ...]:
        """The recording's annotations in the order of their onsets."""

    def person(self) -> tuple[str, str]:
        """Age in years and sex, "" where they are not known."""


class OpenRecording:
    """A recording that can be read piece by piece, in microvolts.

    Parameters
    ----------
    path : Path
    unit : str
        Unit of its numbers, if not what its header says.
    truncated : str
        Whether a file that ends too early is refused.
    **reader
        Arguments of MNE's reader of the format, where it cannot tell by itself.

    Attributes
    ----------
    labels : tuple of str
        Channel labels as in the file.
    eeg_labels : tuple of str
        Those that the reader, too, takes for EEG: a channel in microsiemens is none, whatever its name.
    bad_labels : tuple of str
        Those that the file itself marks as bad.
    sfreq : float
        Sampling rate of the fastest channel in Hz; slower ones are resampled to it.
    n_times : int
        Number of samples.
    note : str
        What had to be assumed, for the recording's row.
    taken_for : str
        Where the unit of its numbers is from, for "With ... its amplitude is".
    """

    def __init__(
        self, path: Path, *, unit: Unit = "auto", truncated: Literal["refuse", "keep"] = "refuse", **reader: Any
    ) -> None:
        self.path = path
        with faults_of(path, "cannot be read, it may be damaged"):
            length = _check_length(path, truncated)
            _check_continuous(path)
            _check_record_duration(path)
        self.taken_for = "the unit in its header" if unit == "auto" else f"--unit {unit}"
        self._unit = unit
        self._held: tuple[list[int], npt.NDArray[np.float64]] | None = None
        self._raw, warned = _open(path, **reader)
        self.note = _joined(length, "" if unit == "auto" else f"its numbers taken for {unit}", *warned)
        self.labels: tuple[str, ...] = tuple(self._raw.ch_names)
        if not self.labels:
            raise UnusableError("no signals in it, such as a file of annotations alone")
        self.eeg_labels = _eeg_labels(path, self._raw)
        self.bad_labels = tuple(self._raw.info["bads"])
        self.sfreq = float(self._raw.info["sfreq"])
        self.n_times = int(self._raw.n_times)
        self._groups: list[_Group] = []
        if not _MIN_SFREQ <= self.sfreq <= _MAX_SFREQ:
            raise UnusableError(f"sampling rate of {self.sfreq:g} Hz")
        if self.n_times < self.sfreq:
            raise UnusableError(f"empty: {self.n_times} samples, less than a second")

    @property
    def trial_times(self) -> int:
        """All of it: the recording is continuous."""
        return self.n_times

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.n_times / self.sfreq

    def restrict(self, labels: Sequence[str]) -> None:
        """Forget the other channels, so that a faster one among them no longer sets the sampling rate.

        MNE resamples slower channels of EDF, BDF and GDF piece by piece, and reads a piece of them from a wrong place.
        So the channels of each sampling rate are read by themselves, and slower ones resampled here.

        Raises
        ------
        UnusableError
            One of the channels is too slow for EEG.
        """
        rates = _native_rates(self._raw)
        if rates is None or len(set(rates.values())) == 1:
            return
        self.labels = tuple(label for label in self.labels if label in set(labels))
        self.eeg_labels = tuple(label for label in self.eeg_labels if label in self.labels)
        self._held = None
        for rate in sorted({rates[label] for label in self.labels}, reverse=True):
            own = [label for label in self.labels if rates[label] == rate]
            self._groups.append(_Group.of(self._raw, own, rate, self._groups))
        self.sfreq, self.n_times = self._groups[0].sfreq, int(self._groups[0].raw.n_times)
        slower = [f"{', '.join(group.labels)} ({group.sfreq:g} Hz)" for group in self._groups[1:]]
        self.note = _joined(self.note, f"resampled to {self.sfreq:g} Hz: {', '.join(slower)}" if slower else "")

    def read(self, picks: Sequence[int], start: int, stop: int) -> npt.NDArray[np.float64]:
        """Samples `start` to `stop` of the channels `picks`: (C, stop - start) microvolts, not to be written to.

        A short recording is read from disk once and kept.
        """
        if 8 * len(picks) * self.n_times > _HELD_BYTES:
            return self._read(picks, start, stop)
        if self._held is None or self._held[0] != list(picks):
            self._held = (list(picks), self._read(picks, 0, self.n_times))
        return self._held[1][:, start:stop]

    def _read(self, picks: Sequence[int], start: int, stop: int) -> npt.NDArray[np.float64]:
        names = [self.labels[pick] for pick in picks]
        with faults_of(self.path, f"samples {start} to {stop} cannot be read"):
            if not self._groups:
                volts = self._raw.get_data(picks=list(picks), start=start, stop=stop, verbose="error")
            else:
                volts = np.empty((len(picks), stop - start))
                for group in self._groups:
                    if rows := [row for row, name in enumerate(names) if name in group.labels]:
                        volts[rows] = group.read([names[row] for row in rows], start, stop)
        if self._unit == "auto":
            volts *= 1e6
        else:
            at = [self._raw.ch_names.index(name) for name in names]
            volts *= 1e6 * _VOLTS[self._unit] / _header_volts(self._raw)[at, None]
        volts.flags.writeable = False
        return volts

    def annotations(self) -> tuple[Annotation, ...]:
        """The recording's annotations in the order of their onsets."""
        marks = self._raw.annotations
        # MNE counts onsets from when the acquisition began, whether or not there is a date (`Raw.set_annotations`).
        own = [
            Annotation(onset=float(onset - self._raw.first_time), duration=float(duration), text=str(text))
            for onset, duration, text in zip(marks.onset, marks.duration, marks.description, strict=True)
        ]
        with faults_of(self.path, "its status channel cannot be read"):
            own += [Annotation(onset=onset, duration=0.0, text=BIOSEMI_JOINT) for onset in new_epochs(self.path)]
        return tuple(sorted(own, key=lambda mark: mark.onset))

    def person(self) -> tuple[str, str]:
        """Age in years and sex ("male", "female") as the header gives them, "" where it does not."""
        subject = self._raw.info.get("subject_info") or {}
        sex = {1: "male", 2: "female"}.get(subject.get("sex", 0), "")
        if age := age_in_header(self.path):
            return age, sex
        born, measured = subject.get("birthday"), self._raw.info.get("meas_date")
        if born is None or measured is None:
            return "", sex
        years = measured.year - born.year - ((measured.month, measured.day) < (born.month, born.day))
        return (str(years) if 0 <= years < 110 else ""), sex


@dataclass(frozen=True)
class _Group:
    """Channels of one sampling rate, read by themselves."""

    raw: mne.io.BaseRaw
    labels: tuple[str, ...]
    sfreq: float
    """Their own sampling rate in Hz."""
    chain: Chain | None
    """Brings them to the rate of the fastest group; None for that one."""

    @classmethod
    def of(cls, whole: mne.io.BaseRaw, labels: Sequence[str], per_record: int, faster: Sequence[_Group]) -> _Group:
        """The channels with these labels, which all have so many samples in a data record."""
        header = whole._raw_extras[0]
        sfreq = float(whole.info["sfreq"]) * per_record / int(header["max_samp"])
        if sfreq < _MIN_SFREQ:
            raise UnusableError(f"sampling rate of {sfreq:g} Hz of {', '.join(labels)}")
        raw = whole.copy()
        # A reader for which the file's fastest channel is one of these. MNE's `include` would read other channels of a
        # GDF file, and tells channels of EDF apart by label only.
        n_times = int(header["n_records"]) * per_record
        raw._raw_extras[0] = {**header, "max_samp": per_record, "nsamples": n_times}
        raw._last_samps = raw._first_samps + n_times - 1
        if not faster:
            return cls(raw, tuple(labels), sfreq, None)
        no_filter = CleanConfig(sfreq=faster[0].sfreq, l_freq=None, h_freq=None, notch=None)
        return cls(raw, tuple(labels), sfreq, Chain(no_filter, sfreq=sfreq, n_times=n_times))

    def read(self, labels: Sequence[str], start: int, stop: int) -> npt.NDArray[np.float64]:
        """Samples `start` to `stop` at the rate of the fastest group: (C, stop - start) volts."""

        def own(first: int, last: int) -> npt.NDArray[np.float64]:
            return self.raw.get_data(picks=list(labels), start=first, stop=last, verbose="error")

        return own(start, stop) if self.chain is None else np.asarray(self.chain.clean(own, start, stop), np.float64)


def _open(path: Path, **reader: Any) -> tuple[mne.io.BaseRaw, list[str]]:
    """Open a file and return what its reader warned of."""
    with (
        faults_of(path, "cannot be read, it may be damaged"),
        warnings.catch_warnings(record=True) as caught,
        mne.utils.use_log_level("warning"),
    ):
        warnings.simplefilter("always")
        if path.suffix.lower() == ".rec":  # polysomnographs give EDF this name, which MNE's own function refuses
            raw = RawEDF(path, **reader)
        else:
            raw = mne.io.read_raw(path, preload=False, **reader)
    told = dict.fromkeys(_one_line(str(warning.message)) for warning in caught if warning.category in _ABOUT_DATA)
    return raw, [f"the reader warns: {line}" for line in told if not line.startswith(_SAID_HERE)]


@contextlib.contextmanager
def faults_of(path: Path, what: str) -> Iterator[None]:
    """Turn the file's faults into UnusableError; those of memory and disk stay, the disk's with the file's name."""
    try:
        yield
    except (UnusableError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _ERRORS_OF_FILE:
            raise OSError(error.errno, error.strerror, error.filename or str(path)) from error
        raise UnusableError(f"{what} ({_in_words(error)})") from error


def _in_words(error: Exception) -> str:
    """First line of an error, with its kind where the line alone says little."""
    first = _one_line(str(error).strip().partition("\n")[0])
    if not first:
        return f"the reader stopped with {type(error).__name__}: what the file says contradicts itself"
    return first if " " in first else f"{type(error).__name__} {first}"


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_SHOWN].rstrip(" .")


def _check_record_duration(path: Path) -> None:
    """Refuse records of no length: MNE takes them for a second, and the sampling rate would be made up."""
    if path.suffix.lower() in _RECORDS and (seconds := record_seconds(path)) is not None and not 0 < seconds < math.inf:
        raise UnusableError(f"its header says that a data record lasts {seconds:g} s: its sampling rate is not known")


def _check_length(path: Path, truncated: Literal["refuse", "keep"]) -> str:
    """Compare a file's size with what its header promises; the note says what was kept."""
    if path.is_file() and path.stat().st_size == 0:
        raise UnusableError("empty file")
    if path.suffix.lower() not in _EDF:
        return ""
    promised = promised_bytes(path)
    size = path.stat().st_size
    if promised is None or size >= promised:
        return ""
    what = f"truncated: {size:,} of {promised:,} bytes that its header promises"
    if truncated == "refuse":
        remedy = "What is there is used with --truncated keep"
        raise UnusableError(f"{what}; copy it again", remedy, flag="--truncated")
    return what


def _check_continuous(path: Path) -> None:
    """Refuse an EDF+ file with gaps: filters would join what does not belong together, and times would be wrong."""
    if path.suffix.lower() in _EDF and (found := gaps(path)):
        onset, length = found[0]
        raise UnusableError(
            f"discontinuous (EDF+D): gaps at {len(found)} places, the first of {length:.4g} s at {onset:.4g} s. "
            "Write its stretches to files of their own"
        )


def _eeg_labels(path: Path, raw: mne.io.BaseRaw) -> tuple[str, ...]:
    """Labels of the channels that the reader takes for EEG and that the header does not give in another unit."""
    types = raw.get_channel_types()
    header = _record_headers(raw)
    if header is not None and path.suffix.lower() in _EDF:
        others = unlike_volts(path)
        types = ["misc" if place in others else kind for place, kind in zip(header["sel"], types, strict=True)]
    return tuple(label for label, kind in zip(raw.ch_names, types, strict=True) if kind == "eeg")


def _record_headers(raw: mne.io.BaseRaw) -> dict[str, Any] | None:
    """Per-channel facts of EDF, BDF and GDF headers that MNE keeps without a public name."""
    extras = raw._raw_extras[0] if getattr(raw, "_raw_extras", None) else None
    return extras if isinstance(extras, dict) and "units" in extras and "n_samps" in extras else None


def _native_rates(raw: mne.io.BaseRaw) -> dict[str, int] | None:
    """Samples per data record of each channel, where channels may differ."""
    header = _record_headers(raw)
    if header is None:
        return None
    samples = np.asarray(header["n_samps"])[np.asarray(header["sel"])]
    return dict(zip(raw.ch_names, samples.tolist(), strict=True)) if len(samples) == len(raw.ch_names) else None


def _header_volts(raw: mne.io.BaseRaw) -> npt.NDArray[np.float64]:
    """(C,) volts that the reader took one unit of each channel's stored numbers for."""
    header = _record_headers(raw)
    if header is not None:
        return np.asarray(header["units"], dtype=float)[: len(raw.ch_names)]
    if type(raw).__name__ == "RawBrainVision":
        return np.array([_VOLTS.get(raw._orig_units[name].replace("µ", "u"), 1.0) for name in raw.ch_names])
    if type(raw).__name__ == "RawEEGLAB":
        return np.full(len(raw.ch_names), 1e-6)
    return np.ones(len(raw.ch_names))
