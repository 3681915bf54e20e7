"""Resample, band-pass, notch: linear filters that can be applied to any stretch of a recording.

Each stage knows which samples of its input it needs for a stretch of its output, so that a day-long recording is
cleaned in pieces with the result of cleaning it whole. Filters are zero-phase FIR filters of MNE's design; band-pass
and notch are one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Literal, Protocol

import mne
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import irfft, rfft
from scipy.signal import firwin

Samples = npt.NDArray[np.floating]
"""(C, T) microvolts."""

# Most pairs of sampling rates are quotients of small integers. A ratio that is off by 1e-9 drifts by 0.1 ms in a day.
_MAX_DENOMINATOR = 10_000
_EXACT = 1e-9
_ZERO_CROSSINGS = 16
_KAISER_BETA = 8.0  # images and aliases 80 dB down, so that millivolts of offset leave no trace
_MAX_WEIGHTS = 1_000_000  # of the resampling matrix; 512 to 200 Hz takes 10 000
_TABLE_STEPS = 4096  # of the interpolation kernel, per input sample: linear interpolation is right to 1e-7
_AT_ONCE = 1024  # outputs that are interpolated together: 20 MB of float32 for 64 channels
_NOTCH_TRANSITION = 0.5  # Hz


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Sampling rate and filters."""

    sfreq: float = 200.0
    """Sampling rate of the windows in Hz."""
    l_freq: float | None = 0.3
    """Lower edge of the pass band in Hz; null for none."""
    h_freq: float | None = 75.0
    """Upper edge of the pass band in Hz; null for none."""
    notch: float | Literal["auto"] | None = 60.0
    """Line frequency to remove in Hz; `auto` looks for 50 or 60 Hz in each recording; null for none."""
    order: Literal["resample_first", "filter_first"] = "resample_first"
    """Whether the filters run at the new sampling rate (less work) or at the recording's."""

    def __post_init__(self) -> None:
        if self.sfreq <= 0:
            raise ValueError(f"clean.sfreq is {self.sfreq:g} Hz; it must be positive")
        for name in ("l_freq", "h_freq", "notch"):
            value = getattr(self, name)
            if isinstance(value, float | int) and value <= 0:
                raise ValueError(f"clean.{name} is {value:g} Hz; it must be positive, or null for none")
        if self.h_freq is not None and self.h_freq >= self.sfreq / 2:
            raise ValueError(
                f"clean.h_freq {self.h_freq:g} Hz must be below {self.sfreq / 2:g} Hz, half of clean.sfreq"
            )
        if self.l_freq is not None and self.h_freq is not None and self.l_freq >= self.h_freq:
            raise ValueError(f"clean.l_freq {self.l_freq:g} Hz must be below clean.h_freq {self.h_freq:g} Hz")


class Stage(Protocol):
    """A linear map of samples that knows its reach."""

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Stretch of the input that the output samples `start` to `stop` depend on; it may exceed the recording."""

    def __call__(self, x: Samples, start: int, stop: int) -> Samples:
        """Output samples `start` to `stop` from exactly the input that they need."""


class Fir:
    """Zero-phase filter with a symmetric kernel of odd length, by overlap-save.

    One for all recordings: the kernel's spectrum is kept, and blocks are of a size that stays in the cache, which has
    taken half of the time of `scipy.signal.oaconvolve`.
    """

    def __init__(self, kernel: npt.NDArray[np.float64]) -> None:
        self.kernel = kernel
        self.reach = len(kernel) // 2
        self.size = 1 << (4 * len(kernel) - 1).bit_length()  # samples of a block: a power of two, 4 to 8 kernels
        self.spectrum = rfft(kernel, self.size)

    def needs(self, start: int, stop: int) -> tuple[int, int]:  # noqa: D102
        return start - self.reach, stop + self.reach

    def __call__(self, x: Samples, start: int, stop: int) -> Samples:  # noqa: D102
        n_out, lost = x.shape[1] - 2 * self.reach, 2 * self.reach
        spectrum = self.spectrum.astype(np.result_type(x.dtype, np.complex64))
        y = np.empty((len(x), n_out), x.dtype)
        step = self.size - lost
        for begin in range(0, n_out, step):
            # The last block is a whole one too, if there are so many samples.
            first = min(begin, max(n_out - step, 0))
            block = irfft(rfft(x[:, first : first + self.size], self.size) * spectrum, self.size)
            y[:, first : first + step] = block[:, lost : lost + n_out - first]
        return y


class Resampler:
    """Polyphase change of the sampling rate by `up / down`, a quotient of small integers.

    `up` outputs further on, the same weights meet the inputs `down` further on: some such rounds together are one
    matrix product, which BLAS has done in a fifth of the time that `scipy.signal.resample_poly` takes.
    """

    def __init__(self, ratio: Fraction) -> None:
        self.up, self.down = ratio.numerator, ratio.denominator
        faster = max(self.up, self.down)
        self.half = _ZERO_CROSSINGS * faster
        self.reach = math.ceil(self.half / self.up)
        # A block takes in about as many samples as it shares with its neighbours.
        rounds = math.ceil(2 * self.reach / self.down)
        self.step, self.block = rounds * self.down, rounds * self.up

    @property
    def n_weights(self) -> int:
        """Size of the matrix."""
        return (self.step + 2 * self.reach) * self.block

    def needs(self, start: int, stop: int) -> tuple[int, int]:  # noqa: D102
        # From a multiple of `down`, so that the piece's first sample falls on a sample of the output.
        first = start // self.up * self.down
        n_blocks = -(-(stop - start // self.up * self.up) // self.block)
        return first - self.reach, first + n_blocks * self.step + self.reach

    def __call__(self, x: Samples, start: int, stop: int) -> Samples:  # noqa: D102
        skipped = start % self.up
        seen = sliding_window_view(x, len(self.weights), axis=1)[:, :: self.step]
        y = (np.ascontiguousarray(seen) @ self.weights.astype(x.dtype)).reshape(len(x), -1)
        return y[:, skipped : skipped + stop - start]

    @cached_property
    def weights(self) -> npt.NDArray[np.float64]:
        """(inputs, outputs) weight of each sample that a block sees in each that it makes."""
        kernel = firwin(2 * self.half + 1, _ZERO_CROSSINGS / self.half, window=("kaiser", _KAISER_BETA))
        inputs, outputs = np.arange(-self.reach, self.step + self.reach)[:, None], np.arange(self.block)
        lag = outputs * self.down - inputs * self.up  # at the common multiple of both rates
        inside = np.clip(lag + self.half, 0, 2 * self.half)
        return np.where(abs(lag) <= self.half, self.up * kernel[inside], 0.0)


class Interpolator:
    """Change of the sampling rate by any ratio: each output is a windowed sinc around its own place in the input.

    For rates such as 200.01 Hz, whose nearest quotient of small integers would drift by seconds in a day.

    Parameters
    ----------
    ratio : float
        New sampling rate by old.
    """

    def __init__(self, ratio: float) -> None:
        self.step = 1 / ratio  # inputs per output
        cutoff = min(1.0, ratio)
        self.reach = math.ceil(_ZERO_CROSSINGS / cutoff)
        lag = np.arange(self.reach * _TABLE_STEPS + 1) / _TABLE_STEPS
        window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1 - (lag * cutoff / _ZERO_CROSSINGS) ** 2, 0, None)))
        half = np.sinc(cutoff * lag) * np.where(lag * cutoff <= _ZERO_CROSSINGS, window, 0)
        self.table = np.concatenate([half[:0:-1], half])
        self.table *= _TABLE_STEPS / self.table.sum()  # a constant stays what it is

    def needs(self, start: int, stop: int) -> tuple[int, int]:  # noqa: D102
        return math.floor(start * self.step) - self.reach, math.floor((stop - 1) * self.step) + self.reach + 2

    def __call__(self, x: Samples, start: int, stop: int) -> Samples:  # noqa: D102
        first = self.needs(start, stop)[0]
        taps = np.arange(2 * self.reach + 2)
        y = np.empty((len(x), stop - start), x.dtype)
        for begin in range(start, stop, _AT_ONCE):
            place = np.arange(begin, min(begin + _AT_ONCE, stop)) * self.step
            # The inputs that an output sees begin `reach` before the one that it follows.
            nearest = np.floor(place).astype(np.int64)
            weights = self._kernel((taps - self.reach) - (place - nearest)[:, None]).astype(x.dtype)
            seen = x[:, (nearest - self.reach - first)[:, None] + taps]
            y[:, begin - start : begin - start + len(place)] = np.einsum("cnt,nt->cn", seen, weights)
        return y

    def _kernel(self, lag: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Weights at lags in input samples, between two values of the table."""
        place = np.clip((lag + self.reach) * _TABLE_STEPS, 0, len(self.table) - 1)
        low = np.minimum(place.astype(np.int64), len(self.table) - 2)
        part = place - low
        return self.table[low] * (1 - part) + self.table[low + 1] * part


class Chain:
    """All that happens to the samples of one recording between the file and the windows.

    Parameters
    ----------
    config : CleanConfig
    sfreq : float
        Sampling rate of the recording in Hz.
    n_times : int
        Its number of samples.
    line_hz : float, optional
        Line frequency that was found in it, for `notch: auto`.

    Attributes
    ----------
    sfreq : float
        Sampling rate after resampling in Hz.
    n_out : int
        Number of samples after resampling.
    edge : int
        Samples at either end of the output that depend on what lies beyond the recording.
    """

    def __init__(self, config: CleanConfig, *, sfreq: float, n_times: int, line_hz: float | None = None) -> None:
        ratio = config.sfreq / sfreq
        rate = config.sfreq if config.order == "resample_first" else sfreq
        resampler = design_resampler(ratio)
        fir = design_filter(config, rate, line_hz)
        stages = (resampler, fir) if config.order == "resample_first" else (fir, resampler)
        self.stages: list[Stage] = [stage for stage in stages if stage is not None]
        self.sfreq = config.sfreq
        self.n_times = n_times
        self.n_out = math.floor(n_times * ratio + 1e-6)  # of a quotient such as 200 / 250, which float64 rounds
        reach_seconds = (fir.reach / rate if fir else 0.0) + (resampler.reach / sfreq if resampler else 0.0)
        self.edge = math.ceil(reach_seconds * config.sfreq)

    def clean(self, read: Callable[[int, int], Samples], start: int, stop: int) -> Samples:
        """Output samples `start` to `stop`.

        Parameters
        ----------
        read : callable
            `read(a, b)` returns the recording's samples a to b, 0 <= a < b <= n_times, as (C, b - a).
        """
        spans = self._needs(start, stop)
        x = _read_beyond(read, *spans[0], self.n_times)
        for stage, span in zip(self.stages, spans[1:], strict=True):
            x = stage(x, *span)
        return x

    def _needs(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Stretch before the first stage, ..., after the last."""
        spans = [(start, stop)]
        for stage in reversed(self.stages):
            spans.insert(0, stage.needs(*spans[0]))
        return spans


# One for all recordings of a corpus: designing a filter takes as long as applying it to a minute.
@lru_cache(maxsize=16)
def design_resampler(ratio: float) -> Resampler | Interpolator | None:
    """Change of the sampling rate by a ratio; None if there is nothing to do."""
    simple = Fraction(ratio).limit_denominator(_MAX_DENOMINATOR)
    if abs(simple / ratio - 1) > _EXACT:
        return Interpolator(ratio)
    if simple == 1:
        return None
    # Rates without a small common multiple would need a large matrix.
    return found if (found := Resampler(simple)).n_weights <= _MAX_WEIGHTS else Interpolator(ratio)


@lru_cache(maxsize=16)
def design_filter(config: CleanConfig, rate: float, line_hz: float | None) -> Fir | None:
    """Band-pass and notch together at `rate` Hz, as MNE designs them; None if there is nothing to do.

    Edges that the rate cannot represent are left out: below 150 Hz nothing is above 75 Hz.
    """
    high = config.h_freq if config.h_freq is not None and config.h_freq < rate / 2 else None
    kernel = np.ones(1)
    if config.l_freq is not None or high is not None:
        kernel = _fir(rate, config.l_freq, high)
    line = line_hz if config.notch == "auto" else config.notch
    for frequency in _harmonics(line, min(rate, config.sfreq) / 2):
        # The widths of mne.filter.notch_filter: stopped within f / 400, passed half a hertz beyond.
        half_width = frequency / 400 + _NOTCH_TRANSITION
        stop = _fir(rate, frequency + half_width, frequency - half_width, transition=_NOTCH_TRANSITION)
        kernel = np.convolve(kernel, stop)
    return Fir(kernel) if len(kernel) > 1 else None


def _harmonics(line: float | None, nyquist: float) -> list[float]:
    if line is None:
        return []
    return [line * n for n in range(1, int(nyquist // line) + 1) if line * n + 2 < nyquist]


def _fir(
    rate: float, l_freq: float | None, h_freq: float | None, transition: float | Literal["auto"] = "auto"
) -> npt.NDArray[np.float64]:
    return mne.filter.create_filter(
        None, rate, l_freq, h_freq, l_trans_bandwidth=transition, h_trans_bandwidth=transition, verbose="error"
    )


def _read_beyond(read: Callable[[int, int], Samples], start: int, stop: int, n_times: int) -> Samples:
    """Samples `start` to `stop`; beyond the ends the recording goes on point-reflected, then constant."""
    x = read(max(start, 0), min(stop, n_times))
    before, after = max(-start, 0), max(stop - n_times, 0)
    if not before and not after:
        return x
    return np.concatenate([*_reflected(x, before, "left"), x, *_reflected(x, after, "right")], axis=1)


def _reflected(x: Samples, length: int, side: str) -> Sequence[Samples]:
    if not length:
        return []
    mirrored = x if side == "right" else x[:, ::-1]
    known = 2 * mirrored[:, -1:] - mirrored[:, -2 : -2 - length : -1]
    rest = np.repeat(known[:, -1:], length - known.shape[1], axis=1)
    outward = np.concatenate([known, rest], axis=1)
    return [outward if side == "right" else outward[:, ::-1]]
