"""What a few stretches of a recording tell of the whole: how large its signals are, and whether a line hums in them.

A header can be wrong about the unit of the numbers: `check_amplitude` refuses what EEG cannot be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import rfft, rfftfreq
from scipy.signal.windows import hann

from codebrain.units import EEG_UV
from data_prep.read import Readable, UnusableError

_N_PROBES = 8
_PROBE_SECONDS = 5.0
_EVERY = 8  # so many samples tell a median well enough
_LINE_FREQUENCIES = (50.0, 60.0)
_LINE_EXCESS_DB = 6.0
_NAMED = 5  # channels in a message


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """What the amplitude of EEG can be: the median standard deviation of a channel within a second."""

    min_uv: float = EEG_UV[0]
    """Smallest amplitude of half of the channels that move, in microvolts; amplifier noise alone is above it."""
    max_uv: float = EEG_UV[1]
    """Largest amplitude of any channel in microvolts; high, so that an unconnected electrode's line noise passes."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_uv < self.max_uv:
            raise ValueError(
                f"guard.min_uv {self.min_uv:g} and guard.max_uv {self.max_uv:g} microvolts leave nothing between them"
            )


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a few stretches of a recording tell about the whole."""

    amplitude_uv: npt.NDArray[np.float64]
    """(C,) median over seconds of each channel's standard deviation within a second; nan if it does not move."""
    offset_uv: npt.NDArray[np.float64]
    """(C,) median of each channel: amplifiers with direct-current coupling drift by millivolts."""
    line_hz: float | None
    """Frequency of the line noise, if a line stands out."""


def probe(recording: Readable, picks: Sequence[int], *, find_line: bool = False) -> Probe:
    """Look at a few stretches of a recording, evenly spread; for line noise only if asked to."""
    length = min(recording.n_times, round(_PROBE_SECONDS * recording.sfreq))
    starts = np.unique(np.linspace(0, recording.n_times - length, _N_PROBES).astype(int))
    pieces = [recording.read(picks, int(start), int(start) + length) for start in starts]
    offset = _median(np.concatenate([piece[:, ::_EVERY] for piece in pieces], axis=1))
    x = np.empty((len(picks), len(pieces), length), np.float32)
    for number, piece in enumerate(pieces):
        np.subtract(piece, offset[:, None], out=x[:, number], casting="same_kind")
    if not np.isfinite(x).all():
        x[~np.isfinite(x)] = np.nan
    second = math.floor(recording.sfreq)
    per_second = x[..., : length // second * second].reshape(*x.shape[:2], -1, second).std(axis=-1)
    return Probe(
        amplitude_uv=np.array([_typical(row[row > 0]) for row in per_second]),
        offset_uv=offset,
        line_hz=_line_frequency(np.nan_to_num(x), recording.sfreq) if find_line else None,
    )


def _median(x: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """(C,) median of the finite samples of each channel; 0 for a channel without any."""
    if np.isfinite(x).all():
        return np.median(x, axis=1)
    return np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else 0.0 for row in x])


def _typical(moving: npt.NDArray[np.float32]) -> float:
    return float(np.median(moving)) if moving.size else math.nan


def check_amplitude(
    amplitude_uv: npt.NDArray[np.float64], labels: Sequence[str], limits: GuardConfig, taken_for: str
) -> str:
    """Refuse amplitudes (C,) that cannot be EEG, and name channels that hardly move or not at all.

    Parameters
    ----------
    amplitude_uv : (C,) array
        From `Probe`; half of the channels that move must lie within the limits.
    labels : sequence of str
    limits : GuardConfig
    taken_for : str
        Where the unit of the numbers is from, as `Readable.taken_for`.

    Returns
    -------
    str
        A note for the recording's row; "" for none.

    Raises
    ------
    UnusableError
        The message says what would explain the amplitudes.
    """
    if np.isnan(amplitude_uv).all():
        raise UnusableError("flat or not a number: nothing moves in any of the wanted channels")
    middle = float(np.nanmedian(amplitude_uv))
    if not limits.min_uv <= middle <= limits.max_uv:
        side, limit = ("above", limits.max_uv) if middle > limits.max_uv else ("below", limits.min_uv)
        raise UnusableError(
            f"wrong unit? With {taken_for} its amplitude is {middle:.4g} microvolts, {side} the {limit:g} that EEG can "
            "have",
            "If you know what the file's numbers are, say so with --unit V, mV, uV or nV",
            flag="--unit",
        )
    loud = [
        f"{labels[place]} {amplitude_uv[place]:.4g}" for place in np.flatnonzero(amplitude_uv > limits.max_uv).tolist()
    ]
    if loud:
        raise UnusableError(
            f"wrong unit of {len(loud)} of {len(labels)} channels? Amplitudes in microvolts above the "
            f"{limits.max_uv:g} that EEG can have: {_listed(loud)}",
            "The limit is --guard.max_uv",
            flag="--guard.max_uv",
        )
    still = [labels[place] for place in np.flatnonzero(np.isnan(amplitude_uv)).tolist()]
    weak = [labels[place] for place in np.flatnonzero(amplitude_uv < limits.min_uv).tolist()]
    notes = [f"nothing moves in {_listed(still)}"] if still else []
    notes += [f"hardly moving, or in another unit: {_listed(weak)}"] if weak else []
    return "; ".join(notes)


def _listed(channels: Sequence[str]) -> str:
    more = f" and {len(channels) - _NAMED} more" if len(channels) > _NAMED else ""
    return ", ".join(channels[:_NAMED]) + more


def _line_frequency(x: npt.NDArray[np.float32], sfreq: float) -> float | None:
    """50 or 60 Hz if that line stands out of its surroundings in the mean spectrum of (..., T) samples."""
    length = min(x.shape[-1], round(2 * sfreq))
    pieces = x[..., : x.shape[-1] // length * length].reshape(-1, length)
    spectrum = rfft(pieces * hann(length).astype(np.float32), axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    freqs = rfftfreq(length, 1 / sfreq)
    level = 10 * np.log10(power.mean(axis=0) + 1e-20)
    excess = {}
    for line in _LINE_FREQUENCIES:
        beside = (abs(freqs - line) >= 2) & (abs(freqs - line) <= 5)
        if line + 5 < sfreq / 2 and beside.any():
            excess[line] = level[np.argmin(abs(freqs - line))] - np.median(level[beside])
    best = max(excess, key=lambda line: excess[line], default=None)
    return best if best is not None and excess[best] > _LINE_EXCESS_DB else None
