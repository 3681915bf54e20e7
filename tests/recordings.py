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


def write_gdf(
    path: Path,
    x: np.ndarray | Sequence[np.ndarray],
    sfreq: float | Sequence[float],
    *,
    labels: Sequence[str],
    events: Sequence[tuple[float, int]] = (),
) -> Path:
    """Write microvolts to a GDF 1.25 file (Schloegl 2006): int16 in records of a second, and a table of events."""
    n = len(labels)
    rates = [round(rate) for rate in ([sfreq] * n if isinstance(sfreq, float | int) else sfreq)]
    n_records = len(x[0]) // rates[0]
    counts = [np.rint(np.asarray(row) / 500 * 32767).astype("<i2").reshape(n_records, -1) for row in x]
    fixed = b"GDF 1.25" + b"X X".ljust(80) + b"here".ljust(80) + b"2020010112000000"
    fixed += (256 * (n + 1)).to_bytes(8, "little") + bytes(24 + 20) + n_records.to_bytes(8, "little")
    fixed += np.array([1, 1, n], "<u4").tobytes()  # a record lasts 1/1 s
    channels = b"".join(label.encode().ljust(16) for label in labels) + bytes(80 * n) + b"uV".ljust(8) * n
    for limits, kind in (((-500, 500), "<f8"), ((-32767, 32767), "<i8")):
        channels += b"".join(np.full(n, limit, kind).tobytes() for limit in limits)
    channels += bytes(80 * n) + np.array(rates, "<i4").tobytes() + np.full(n, 3, "<i4").tobytes() + bytes(32 * n)
    table = b"\1" + max(rates).to_bytes(3, "little") + np.array([len(events)], "<u4").tobytes()
    table += np.array([round(onset * max(rates)) + 1 for onset, _ in events], "<u4").tobytes()
    table += np.array([code for _, code in events], "<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fixed + channels + np.concatenate(counts, axis=1).tobytes() + table)
    return path


def write_subjects(folder: Path, n: int, *, seconds: float = 30, sfreq: float = 250.0) -> list[Path]:
    """`n` recordings of as many subjects, with the 19 channels of clinical EEG and an ECG."""
    labels = (*(f"EEG {name}-REF" for name in TEN_TWENTY_19), "ECG")
    return [
        write_edf(folder / f"sub-{index:02d}_eeg.edf", noise(20, seconds, sfreq, seed=index), sfreq, labels=labels)
        for index in range(n)
    ]
