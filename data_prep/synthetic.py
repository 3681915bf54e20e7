"""Simulated EEG in EDF files, with eyes open and eyes closed: something to run the whole chain on without any data.

The signal at each electrode is a sum: a background with a 1/f spectrum, rhythms from a few places (posterior alpha that
grows when the eyes close, mu and beta over the motor strip, frontal theta), blinks, muscle bursts, line noise and the
amplifier's own, all spread over neighbouring electrodes as the head spreads them. Persons differ in the frequency and
strength of their rhythms, and in how much their alpha cares about their eyes: as in people, some have hardly any. It is
made to look like EEG and to exercise every step; nothing about the brain can be learned from it.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from edfio import Edf, EdfAnnotation, EdfSignal, Patient
from edfio import Recording as EdfRecording

from codebrain.channels import TEN_TWENTY_19, positions
from codebrain.data.format import whole

Signal = npt.NDArray[np.float64]
"""(T,) or (C, T) microvolts."""

CONDITIONS = ("eyes open", "eyes closed")
_OLD_NAMES = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """How long the simulated recordings are."""

    minutes: float = 4.0
    """Length of each file in minutes."""
    block_seconds: float = 30.0
    """Length of a stretch with the eyes open or closed, in seconds."""
    sfreq: float = 250.0
    """Sampling rate of the files in Hz."""
    line_hz: float = 50.0
    """Frequency of the line noise in Hz."""

    def __post_init__(self) -> None:
        if self.minutes * 60 < 2 * self.block_seconds:
            least = 2 * self.block_seconds / 60
            raise ValueError(f"--minutes is {self.minutes:g}; at least {least:g} are needed for both conditions")

    @property
    def n_times(self) -> int:
        """Samples per file: whole seconds, the length of an EDF data record."""
        return round(self.minutes * 60) * round(self.sfreq)


@dataclass(frozen=True, kw_only=True)
class Person:
    """What makes one simulated person's EEG their own."""

    exponent: float
    """Slope of the background: power falls with frequency to this power."""
    background_uv: float
    """Standard deviation of the background in microvolts."""
    alpha_hz: float
    """Frequency of the posterior alpha rhythm."""
    alpha_uv: float
    """Its amplitude with the eyes open, in microvolts at the strongest electrode."""
    alpha_gain: float
    """How many times larger it is with the eyes closed."""
    mu_uv: float
    """Amplitude of the mu rhythm in microvolts."""
    beta_uv: float
    """Amplitude of the beta rhythm in microvolts."""
    blink_uv: float
    """Size of a blink at Fp1 and Fp2 in microvolts."""
    blinks_per_minute: float
    """With the eyes open."""
    muscle_uv: float
    """Size of muscle bursts in microvolts."""
    line_uv: float
    """Amplitude of the line noise in microvolts."""
    closed_first: bool = field(default=False)
    """Whether the first block is with the eyes closed."""


def write_recordings(folder: str | Path, config: SyntheticConfig, *, subjects: int, seed: int) -> list[Path]:
    """Write one EDF+ file per simulated person, with its conditions as annotations.

    A person's file depends on `seed`, the person's number and `config` alone.

    Returns
    -------
    list of Path
        `sub-001_task-eyes_eeg.edf` and so on.
    """
    if subjects < 1:
        raise ValueError(f"--subjects is {subjects}; at least one is needed")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(1, subjects + 1):
        rng = np.random.default_rng([seed, number])
        person = draw_person(rng)
        x, is_closed = simulate(person, config, rng)
        file = target / f"sub-{number:03d}_task-eyes_eeg.edf"
        with whole(file) as partial:
            _edf(x, is_closed, config, rng).write(partial)
        files.append(file)
    return files


def draw_person(rng: np.random.Generator) -> Person:
    """Draw a person; the spreads are those that are told of healthy adults at rest."""
    return Person(
        exponent=rng.uniform(1.0, 1.6),
        background_uv=rng.uniform(7.0, 12.0),
        alpha_hz=rng.normal(10.0, 0.9),
        alpha_uv=4.0 * rng.lognormal(0.0, 0.5),
        alpha_gain=1.0 + 1.8 * rng.lognormal(0.0, 0.5),
        mu_uv=3.0 * rng.lognormal(0.0, 0.5),
        beta_uv=1.5 * rng.lognormal(0.0, 0.3),
        blink_uv=rng.uniform(45.0, 120.0),
        blinks_per_minute=rng.uniform(3.0, 9.0),
        muscle_uv=rng.uniform(4.0, 15.0),
        line_uv=rng.uniform(0.5, 5.0),
        closed_first=bool(rng.integers(2)),
    )


def simulate(person: Person, config: SyntheticConfig, rng: np.random.Generator) -> tuple[Signal, npt.NDArray[np.bool_]]:
    """Simulate one recording.

    Returns
    -------
    x : (19, T) float64
        Microvolts at the electrodes of `TEN_TWENTY_19`.
    is_closed : (T,) bool
        Whether the eyes are closed.
    """
    n_times, sfreq = config.n_times, config.sfreq
    block = (np.arange(n_times) / sfreq // config.block_seconds).astype(int)
    is_closed = (block + person.closed_first) % 2 == 1
    x = _background(person, config, rng)
    x += _rhythms(person, block, is_closed, config, rng)
    x += _blinks(person, is_closed, sfreq, rng)
    x += _muscle(person, n_times, sfreq, rng)
    x += _line(person, n_times, config, rng)
    x += rng.normal(0.0, 0.6, x.shape)  # the amplifier's own noise
    return x, is_closed


def topography(centre: str, width: float = 0.45) -> Signal:
    """(19,) weights of a source under an electrode: one there, falling with distance on the unit sphere."""
    distance = np.linalg.norm(positions(TEN_TWENTY_19) - positions([centre]), axis=1)
    return np.exp(-0.5 * (distance / width) ** 2)


def coloured_noise(n_times: int, sfreq: float, gain: Signal, rng: np.random.Generator) -> Signal:
    """(T,) Gaussian noise of unit variance whose amplitude spectrum is `gain`, given at the frequencies of an rfft."""
    spectrum = gain * (rng.normal(size=len(gain)) + 1j * rng.normal(size=len(gain)))
    noise = np.fft.irfft(spectrum, n_times)
    return noise / noise.std()


def _background(person: Person, config: SyntheticConfig, rng: np.random.Generator) -> Signal:
    """1/f noise, one source under each electrode, mixed among neighbours."""
    freqs = np.fft.rfftfreq(config.n_times, 1 / config.sfreq)
    # Flat below 1 Hz and gone below 0.1 Hz, as behind an amplifier's high-pass.
    gain = np.maximum(freqs, 1.0) ** (-person.exponent / 2) * freqs / np.hypot(freqs, 0.1)
    sources = np.stack([coloured_noise(config.n_times, config.sfreq, gain, rng) for _ in TEN_TWENTY_19])
    mixing = np.stack([topography(name, width=0.55) for name in TEN_TWENTY_19])
    mixing /= np.linalg.norm(mixing, axis=1, keepdims=True)
    return person.background_uv * mixing @ sources


def _rhythms(
    person: Person,
    block: npt.NDArray[np.int_],
    is_closed: npt.NDArray[np.bool_],
    config: SyntheticConfig,
    rng: np.random.Generator,
) -> Signal:
    """Alpha, mu, beta and theta, each waxing and waning at its own places."""
    n_times, sfreq = config.n_times, config.sfreq
    x = np.zeros((len(TEN_TWENTY_19), n_times))
    # Attention and drowsiness differ from block to block, whatever the eyes do.
    mood = rng.lognormal(0.0, 0.2, size=block[-1] + 1)[block]
    alpha = _smooth(np.where(is_closed, person.alpha_gain, 1.0) * mood, sfreq)
    for place, share in (("O1", 1.0), ("O2", 1.0), ("Pz", 0.7)):
        wave = _oscillation(person.alpha_hz, 1.2, n_times, sfreq, rng)
        x += topography(place, 0.6)[:, None] * (person.alpha_uv * share * alpha * wave)
    for place in ("C3", "C4"):
        # A second harmonic in step with the first gives mu its arches.
        phase_wave = _oscillation(person.alpha_hz + 0.8, 1.5, n_times, sfreq, rng)
        arch = phase_wave + 0.35 * (phase_wave**2 - np.mean(phase_wave**2))
        beta = _oscillation(2 * person.alpha_hz + 1.5, 3.0, n_times, sfreq, rng)
        x += topography(place)[:, None] * (person.mu_uv * arch + person.beta_uv * beta)
    theta = _oscillation(6.0, 1.5, n_times, sfreq, rng)
    return x + topography("Fz")[:, None] * (2.0 * theta)


def _oscillation(centre_hz: float, width_hz: float, n_times: int, sfreq: float, rng: np.random.Generator) -> Signal:
    """(T,) rhythm of unit variance that comes in spindles."""
    freqs = np.fft.rfftfreq(n_times, 1 / sfreq)
    carrier = coloured_noise(n_times, sfreq, np.exp(-0.5 * ((freqs - centre_hz) / (width_hz / 2)) ** 2), rng)
    slow = coloured_noise(n_times, sfreq, (freqs > 0) * np.exp(-0.5 * (freqs / 0.25) ** 2), rng)
    wave = carrier * np.exp(0.4 * slow)
    return wave / wave.std()


def _blinks(person: Person, is_closed: npt.NDArray[np.bool_], sfreq: float, rng: np.random.Generator) -> Signal:
    """Blinks with the eyes open; with the eyes closed smaller and rarer movements of the lids."""
    n_times = len(is_closed)
    trace = np.zeros(n_times)
    length = round(0.4 * sfreq)
    # A third of a second up and down, with the slower return and overshoot of real blinks.
    t = np.linspace(0, 1, length)
    shape = np.sin(np.pi * t**0.7) ** 2 - 0.12 * np.sin(np.pi * np.clip(2 * t - 1, 0, 1))
    onset = 0
    while (onset := onset + round(sfreq * (0.8 + rng.exponential(60 / person.blinks_per_minute)))) < n_times - length:
        closed = is_closed[onset]
        if closed and rng.random() < 0.5:
            continue
        size = person.blink_uv * rng.uniform(0.7, 1.15) * (0.35 if closed else 1.0)
        trace[onset : onset + length] += size * shape
    return topography("Fpz", 0.5)[:, None] * trace


def _muscle(person: Person, n_times: int, sfreq: float, rng: np.random.Generator) -> Signal:
    """Bursts of high-frequency activity of the temporal and frontal muscles."""
    freqs = np.fft.rfftfreq(n_times, 1 / sfreq)
    gain = (freqs / 30) ** 2 / (1 + (freqs / 30) ** 2) * np.exp(-freqs / 80)
    x = np.zeros((len(TEN_TWENTY_19), n_times))
    for place in ("T7", "T8", "F7", "F8"):
        envelope = np.full(n_times, 0.06)
        for _ in range(rng.poisson(1.2 * n_times / sfreq / 60)):
            length = round(rng.uniform(0.4, 2.0) * sfreq)
            start = rng.integers(max(n_times - length, 1))
            envelope[start : start + length] += np.hanning(length)[: n_times - start]
        x += topography(place, 0.3)[:, None] * (person.muscle_uv * envelope * coloured_noise(n_times, sfreq, gain, rng))
    return x


def _line(person: Person, n_times: int, config: SyntheticConfig, rng: np.random.Generator) -> Signal:
    """Line noise, stronger where an electrode sits worse."""
    t = np.arange(n_times) / config.sfreq
    wave = np.sin(2 * np.pi * config.line_hz * t + rng.uniform(0, 2 * np.pi))
    return person.line_uv * rng.lognormal(-0.5, 0.6, size=(len(TEN_TWENTY_19), 1)) * wave


def _smooth(level: Signal, sfreq: float) -> Signal:
    """A level that changes within about a second instead of at once."""
    length = round(sfreq)
    window = np.hanning(length)
    padded = np.pad(level, (length // 2, length - 1 - length // 2), mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _edf(x: Signal, is_closed: npt.NDArray[np.bool_], config: SyntheticConfig, rng: np.random.Generator) -> Edf:
    """The recording as clinical systems write it: old electrode names, a common reference, an ECG beside."""
    signals = [
        _signal(f"EEG {_OLD_NAMES.get(name, name)}-REF", row, config.sfreq)
        for name, row in zip(TEN_TWENTY_19, x, strict=True)
    ]
    signals.append(_signal("ECG", _heart(config, rng), config.sfreq))
    return Edf(
        signals,
        annotations=_annotations(is_closed, config.sfreq),
        patient=Patient(),
        recording=EdfRecording(startdate=datetime.date(2000, 1, 1)),
        starttime=datetime.time(0, 0, 0),
        data_record_duration=1.0,
    )


def _signal(label: str, x: Signal, sfreq: float) -> EdfSignal:
    limit = max(float(np.ceil(np.abs(x).max())), 1.0)
    return EdfSignal(x, sfreq, label=label, physical_dimension="uV", physical_range=(-limit, limit))


def _heart(config: SyntheticConfig, rng: np.random.Generator) -> Signal:
    """A crude electrocardiogram, there to be told apart from the EEG."""
    t = np.arange(config.n_times) / config.sfreq
    beats = np.cumsum(rng.normal(0.85, 0.04, size=int(t[-1] / 0.6) + 2))
    phase = t - beats[np.clip(np.searchsorted(beats, t) - 1, 0, None)]
    return 900 * np.exp(-0.5 * ((phase - 0.2) / 0.012) ** 2) + 150 * np.exp(-0.5 * ((phase - 0.45) / 0.04) ** 2)


def _annotations(is_closed: npt.NDArray[np.bool_], sfreq: float) -> Sequence[EdfAnnotation]:
    """One annotation per block."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(is_closed)) + 1, [len(is_closed)]])
    return [
        EdfAnnotation(float(start / sfreq), float((stop - start) / sfreq), CONDITIONS[int(is_closed[start])])
        for start, stop in itertools.pairwise(edges)
    ]
