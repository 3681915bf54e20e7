"""What a store holds, for a person."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from codebrain.data.format import Store
from codebrain.data.shards import open_shard

BANDS = {"delta": (1, 4), "theta": (4, 8), "alpha": (8, 13), "beta": (13, 30), "gamma": (30, 45)}
"""Frequency bands in Hz."""
_N_LOOKED_AT = 200
_LISTED = 20


def describe(store: Store) -> str:
    """Hours, subjects, channels, amplitudes, and what was left out and why."""
    info = store.info
    usable = [recording for recording in store.recordings if recording.status == "ok"]
    lines = [
        f"{store.path}",
        f"windows     {store.n_windows:,} of {info.window_seconds:g} s at {info.sfreq:g} Hz, {store.hours:.2f} hours",
        f"subjects    {len({recording.subject for recording in usable}):,} in {len(usable):,} recordings",
    ]
    sets = Counter(shard.ch_names for shard in store.shards)
    for names, count in sets.most_common(5):
        lines.append(f"channels    {len(names)} in {count:,} recordings: {' '.join(names)}")
    if info.task:
        protocol = f" ({info.task.protocol})" if info.task.protocol else ""
        lines.append(f"task        {info.task.name}{protocol}: {labels_in_words(store)}")
    lines += _signal(store)
    lines.append(f"rejected    {sum(recording.rejected for recording in store.recordings):,} windows{_why(store)}")
    left_out = [recording for recording in store.recordings if recording.status != "ok"]
    lines += [f"left out    {recording.path}: {recording.reason}" for recording in left_out[:_LISTED]]
    if len(left_out) > _LISTED:
        lines.append(f"            and {len(left_out) - _LISTED:,} more: see recordings.csv")
    if warning := store.outdated():
        lines.append(f"WARNING: {warning}")
    return "\n".join(lines)


def _signal(store: Store) -> list[str]:
    """Amplitudes and band powers of some windows, evenly spread over the store."""
    looked_at = some_windows(store)
    if not looked_at:
        return []
    peaks = np.array([np.abs(window).max() for window in looked_at])
    spread = np.array([window.std() for window in looked_at])
    power = band_powers(looked_at, store.info.sfreq)
    total = sum(power.values())
    shares = ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in power.items())
    low, middle, high = np.percentile(peaks, [5, 50, 95])
    return [
        f"amplitude   standard deviation {np.median(spread):.1f} microvolts; "
        f"largest value of a window {low:.0f}, {middle:.0f}, {high:.0f} (5, 50, 95 % of windows)",
        f"power       {shares} of 1 to 45 Hz",
    ]


def some_windows(store: Store) -> list[npt.NDArray[np.float32]]:
    """Up to `_N_LOOKED_AT` windows (C, T) in microvolts."""
    chosen = np.unique(np.linspace(0, max(store.n_windows - 1, 0), _N_LOOKED_AT).astype(int))
    windows, first = [], 0
    for shard in store.shards:
        inside = chosen[(chosen >= first) & (chosen < first + shard.n)] - first
        if inside.size:
            with open_shard(store, shard) as opened:
                windows += [opened.microvolts(index) for index in inside.tolist()]
        first += shard.n
    return windows


def band_powers(windows: list[npt.NDArray[np.float32]], sfreq: float) -> dict[str, float]:
    """Power of windows (C, T) in each of `BANDS`, mean over windows and channels."""
    return {
        name: float(np.mean([_band_power(window, sfreq, low, high) for window in windows]))
        for name, (low, high) in BANDS.items()
    }


def _band_power(window: npt.NDArray[np.float32], sfreq: float, low: float, high: float) -> float:
    freqs = np.fft.rfftfreq(window.shape[1], 1 / sfreq)
    power = np.abs(np.fft.rfft(window * np.hanning(window.shape[1]), axis=1)) ** 2
    return float(power[:, (freqs >= low) & (freqs < high)].sum(axis=1).mean())


def labels_in_words(store: Store) -> str:
    """Windows of each class of a task, or the range of its numbers."""
    if not store.shards:
        return "no window"
    if counts := windows_by_class(store):
        return ", ".join(f"{name} {count:,}" for name, count in counts.items())
    numbers = np.concatenate(list(_labels(store)))
    return f"numbers from {numbers.min():g} to {numbers.max():g}, mean {numbers.mean():.4g}"


def windows_by_class(store: Store) -> dict[str, int]:
    """Names of a task's classes with the number of their windows; none of a regression."""
    assert store.info.task is not None
    names = store.info.task.class_names
    if not names or not store.shards:
        return dict.fromkeys(names, 0)
    counts = np.sum([np.bincount(labels, minlength=len(names)) for labels in _labels(store)], axis=0)
    return dict(zip(names, counts.tolist(), strict=True))


def _labels(store: Store) -> Iterator[npt.NDArray[np.integer] | npt.NDArray[np.floating]]:
    """(n,) labels of each shard."""
    for shard in store.shards:
        with open_shard(store, shard) as opened:
            yield opened.column("label")


def rejections(store: Store) -> Counter[str]:
    """Rejected windows by reason, from the rows."""
    reasons: Counter[str] = Counter()
    for recording in store.recordings:
        for reason, count in re.findall(r"(amplitude|flat|marked bad|gap|not a number) (\d+)(?! \w)", recording.reason):
            reasons[reason] += int(count)
    return reasons


def _why(store: Store) -> str:
    reasons = rejections(store)
    return ": " + ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common()) if reasons else ""
