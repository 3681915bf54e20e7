"""Where the windows of a recording lie, and which of them are usable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.read import Annotation, UnusableError


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


def is_marked_bad(annotations: Sequence[Annotation], start: float, stop: float) -> bool:
    """Whether a stretch (in seconds) overlaps what somebody marked as bad, or a gap that MNE marked."""
    return any(
        mark.text.lower().startswith(("bad", "edge"))
        and mark.onset < stop
        and (mark.onset + mark.duration > start or (mark.duration == 0 and mark.onset >= start))
        for mark in annotations
    )


def is_at_gap(annotations: Sequence[Annotation], start: float, stop: float, reach: float) -> bool:
    """Whether filters that reach so many seconds mix a stretch with what was recorded at another time.

    EEGLAB marks the places where something was cut out, BrainVision those where the recording was taken up again.
    """
    return any(
        mark.text.lower().startswith(("boundary", "new segment"))
        and mark.onset > 0
        and start - reach < mark.onset < stop + reach
        for mark in annotations
    )


def fault(window: npt.NDArray[np.floating], config: WindowConfig, sfreq: float) -> tuple[str, npt.NDArray[np.intp]]:
    """Why a window cannot be used, and which of its channels are to blame.

    Parameters
    ----------
    window : (C, T) array
        Microvolts.

    Returns
    -------
    reason : str
        "" for a usable window, else "flat" or "amplitude".
    channels : (k,) int array
    """
    if config.min_swing_uv is not None:
        second = min(round(sfreq), window.shape[1])
        pieces = window[:, : window.shape[1] // second * second].reshape(len(window), -1, second)
        still = (pieces.max(axis=2) - pieces.min(axis=2) < config.min_swing_uv).any(axis=1)
        if still.any():
            return "flat", np.flatnonzero(still)
    if config.max_uv is not None:
        loud = np.maximum(window.max(axis=1), -window.min(axis=1)) >= config.max_uv
        if loud.any():
            return "amplitude", np.flatnonzero(loud)
    return "", np.empty(0, dtype=np.intp)
