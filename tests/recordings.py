"""EDF files for the tests of data preparation."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from edfio import Edf, EdfAnnotation, EdfSignal, Recording

from codebrain.channels import TEN_TWENTY_19


def noise(n_chans: int, seconds: float, sfreq: float, *, seed: int = 0, rms_uv: float = 15.0) -> np.ndarray:
    """(C, T) smooth noise of the size of EEG."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_chans, round(seconds * sfreq)))
    x[:, 2:] += x[:, 1:-1] + 0.5 * x[:, :-2]
    return rms_uv * x / x.std(axis=1, keepdims=True)


def write_edf(
    path: Path,
    x: np.ndarray | Sequence[np.ndarray],
    sfreq: float | Sequence[float],
    *,
    labels: Sequence[str] = tuple(f"EEG {name}-REF" for name in TEN_TWENTY_19),
    unit: str | Sequence[str] = "uV",
    annotations: Sequence[tuple[float, float, str]] = (),
) -> Path:
    """Write microvolts (or what `unit` says, of each channel) to an EDF+ file of one-second records."""
    rates = [sfreq] * len(labels) if isinstance(sfreq, float | int) else sfreq
    units = [unit] * len(labels) if isinstance(unit, str) else unit
    signals = []
    for label, row, rate, dimension in zip(labels, x, rates, units, strict=True):
        limit = float(np.ceil(max(np.abs(row).max(), 1e-3) * 10) / 10)
        signals.append(
            EdfSignal(
                np.asarray(row, float), rate, label=label, physical_dimension=dimension, physical_range=(-limit, limit)
            )
        )
    marks = [EdfAnnotation(onset, duration or None, text) for onset, duration, text in annotations]
    path.parent.mkdir(parents=True, exist_ok=True)
    Edf(
        signals,
        annotations=marks if marks else None,
        recording=Recording(startdate=datetime.date(2020, 1, 1)),
        data_record_duration=1.0,
    ).write(path)
    return path


def write_subjects(folder: Path, n: int, *, seconds: float = 30, sfreq: float = 250.0) -> list[Path]:
    """`n` recordings of as many subjects, with the 19 channels of clinical EEG and an ECG."""
    labels = (*(f"EEG {name}-REF" for name in TEN_TWENTY_19), "ECG")
    return [
        write_edf(folder / f"sub-{index:02d}_eeg.edf", noise(20, seconds, sfreq, seed=index), sfreq, labels=labels)
        for index in range(n)
    ]
