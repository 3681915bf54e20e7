"""Where the windows of a recording lie, and which of them are usable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.clean import Chain
from data_prep.read import BIOSEMI_JOINT, Annotation, Readable, UnusableError

# How programs mark the place at which two pieces of signal were put together: EEGLAB and its MFF import, MNE and its
# readers (of FIF, EGI, MEF; of ANT), BrainVision, GDF's code for a new segment, and BioSemi's for a new epoch.
_JOINTS = (
    *("boundary", "break cnt", "bad boundary", "edge boundary", "bad_acq_skip", "bad_disconnection"),
    *("new segment", "lostsamples", "lost samples", "32766", BIOSEMI_JOINT.lower()),
)
_BAD = ("bad", "edge")

# Decimal fractions of seconds: a nanosecond of tolerance.
_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Length of the windows and what makes one unusable."""

    seconds: float = 30.0
    """Length of a window in seconds; windows do not overlap."""
    min_recording: float = 300.0
    """Recordings shorter than this many seconds are left out."""
    drop_first: float = 60.0
    """Seconds at a recording's start that are not used (electrodes being fixed)."""
    drop_last: float = 60.0
    """Seconds at its end that are not used."""
    keep_edges: bool = False
    """Whether windows may reach into the first and last seconds that the filters distort."""
    max_uv: float | None = 100.0
    """A window in which any sample reaches this many microvolts is rejected; null for no limit."""
    min_swing_uv: float | None = 0.5
    """A window in which any channel moves by less than this many microvolts for a second is rejected as flat; null for
    no limit."""
    skip_bad: bool = True
    """Whether windows that overlap an annotation beginning with BAD or a gap in the recording are rejected."""

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError(f"windows.seconds is {self.seconds:g}; a window must have a length")
        for name in ("min_recording", "drop_first", "drop_last"):
            if getattr(self, name) < 0:
                raise ValueError(f"windows.{name} is {getattr(self, name):g} seconds; it cannot be negative")
        for name in ("max_uv", "min_swing_uv"):
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                raise ValueError(f"windows.{name} is {limit:g} microvolts; give a positive limit, or null for none")


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """The windows of a recording before anything is known about their content."""

    start: npt.NDArray[np.int64]
    """(n,) first sample of each window at the store's sampling rate, ascending; trials lie end to end. A window that
    reaches beyond either end of the recording goes on at the other."""
    label: npt.NDArray[np.int64] | npt.NDArray[np.float64] | None = None
    """(n,) class of each window, or number to learn, in a task."""
    split: npt.NDArray[np.int8] | None = None
    """(n,) 0 train, 1 valid, 2 test, in a task that fixes it."""
    length: npt.NDArray[np.int64] | None = None
    """(n,) samples that each window covers; another number than a window has is resampled to it. None: all alike."""
    note: str = ""
    """What could not be had, for the recording's row."""


def usable_span(config: WindowConfig, *, sfreq: float, n_times: int, edge: int) -> tuple[int, int]:
    """First samples that the earliest and the latest window of a recording can have.

    Parameters
    ----------
    sfreq : float
        Sampling rate after resampling in Hz.
    n_times : int
        Samples after resampling.
    edge : int
        Samples at either end that the filters distort.

    Raises
    ------
    UnusableError
        The recording is too short for one window.
    """
    seconds = n_times / sfreq
    if seconds < config.min_recording:
        raise UnusableError(
            f"too short: {seconds:.0f} s, where at least {config.min_recording:g} s are wanted",
            "The limit is --windows.min_recording",
            flag="--windows.min_recording",
        )
    length = round(config.seconds * sfreq)
    margin = 0 if config.keep_edges else edge
    first = max(round(config.drop_first * sfreq), margin)
    last = n_times - max(round(config.drop_last * sfreq), margin) - length
    if last < first:
        raise UnusableError(
            f"too short: {seconds:.1f} s leave no window of {config.seconds:g} s after dropping {first / sfreq:.1f} s "
            f"at the start and {(n_times - last - length) / sfreq:.1f} s at the end"
        )
    return first, last


def grid(config: WindowConfig, *, sfreq: float, n_times: int, edge: int) -> npt.NDArray[np.int64]:
    """First samples of consecutive windows that fill a recording; arguments and errors are those of `usable_span`."""
    first, last = usable_span(config, sfreq=sfreq, n_times=n_times, edge=edge)
    return np.arange(first, last + 1, round(config.seconds * sfreq), dtype=np.int64)


def sample_at(onset: float, recording: Readable, chain: Chain) -> int:
    """Sample after cleaning at which a time of the recording lies.

    Parameters
    ----------
    onset : float
        Seconds from the recording's first sample. Trials lie end to end, each with a whole number of samples after
        resampling.
    """
    per_trial = recording.trial_times / recording.sfreq
    n_trials = recording.n_times // recording.trial_times
    trial = min(max(math.floor(onset / per_trial + _TOLERANCE), 0), n_trials - 1)
    return trial * chain.n_out + round((onset - trial * per_trial) * chain.sfreq)


def seconds_at(sample: npt.NDArray[np.int64], recording: Readable, chain: Chain) -> npt.NDArray[np.float64]:
    """Seconds from the recording's first sample at which samples after cleaning lie: the inverse of `sample_at`."""
    n_trials = recording.n_times // recording.trial_times
    trial = np.clip(sample // chain.n_out, 0, n_trials - 1)
    return trial * (recording.trial_times / recording.sfreq) + (sample - trial * chain.n_out) / chain.sfreq


class Marks:
    """Stretches that somebody marked as bad, and the places where the recording was interrupted.

    Parameters
    ----------
    annotations : sequence of Annotation
    reach : float
        Seconds that the filters reach: so far on either side of an interruption they mix what was recorded before it
        with what was recorded after it.
    """

    def __init__(self, annotations: Sequence[Annotation], reach: float) -> None:
        joints = [mark for mark in annotations if _is_joint(mark)]
        bad = [mark for mark in annotations if mark.text.lower().startswith(_BAD) and not _is_joint(mark)]
        begin, end = _spans(bad)
        self._bad = np.sort(begin), np.sort(np.maximum(end, np.nextafter(begin, np.inf)))  # an instant is bad, too
        # BrainVision and BioSemi mark the beginning of the recording like an interruption.
        begin, end = _spans([mark for mark in joints if mark.onset + mark.duration > 0])
        self._gaps = np.sort(begin - reach), np.sort(end + reach)

    def reasons(self, start: npt.NDArray[np.float64], stop: npt.NDArray[np.float64]) -> list[str]:
        """Why each of the windows (n,) from `start` to `stop` seconds cannot be used: "marked bad", "gap", or ""."""
        is_bad, is_at_gap = (_overlap(spans, start, stop) for spans in (self._bad, self._gaps))
        return ["marked bad" if bad else "gap" if gap else "" for bad, gap in zip(is_bad, is_at_gap, strict=True)]


def _is_joint(mark: Annotation) -> bool:
    return mark.text.lower().startswith(_JOINTS)


def _spans(marks: Sequence[Annotation]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Beginnings and ends (n,) of marks in seconds."""
    begin = np.array([mark.onset for mark in marks], dtype=np.float64)
    return begin, begin + [mark.duration for mark in marks]


def _overlap(
    spans: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    start: npt.NDArray[np.float64],
    stop: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Whether windows (n,) overlap any of the spans, whose beginnings and ends are ascending.

    They do if more spans have begun before a window's end than had ended by its start.
    """
    begin, end = spans
    return np.searchsorted(begin, stop, side="left") > np.searchsorted(end, start, side="right")


def flat_channels(window: npt.NDArray[np.floating], config: WindowConfig, sfreq: float) -> npt.NDArray[np.intp]:
    """Channels of a window (C, T) in microvolts that stand still for a second."""
    if config.min_swing_uv is None:
        return np.empty(0, dtype=np.intp)
    second = min(round(sfreq), window.shape[1])
    pieces = window[:, : window.shape[1] // second * second].reshape(len(window), -1, second)
    return np.flatnonzero((pieces.max(axis=2) - pieces.min(axis=2) < config.min_swing_uv).any(axis=1))


def loud_channels(window: npt.NDArray[np.floating], config: WindowConfig) -> npt.NDArray[np.intp]:
    """Channels of a window (C, T) in microvolts that reach the largest amplitude."""
    if config.max_uv is None:
        return np.empty(0, dtype=np.intp)
    return np.flatnonzero(np.maximum(window.max(axis=1), -window.min(axis=1)) >= config.max_uv)
