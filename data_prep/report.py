"""A page to look at: what a store holds, and for a few recordings what became of the signal and why.

The recordings are read and cleaned again for it, which takes seconds; so a report can also be had of a store that was
finished long ago, by giving the command that made it once more with `--report`.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import mne
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.signal import welch

from codebrain.data.format import Store
from codebrain.data.shards import open_shard
from data_prep.cut import Opened, Tally, Windows, open_recording
from data_prep.info import BANDS, band_powers, describe, rejections, some_windows
from data_prep.write import Job

_N_RECORDINGS = 4
_SHOWN_SECONDS = 10.0
_LOOKED_AT_SECONDS = 3600.0  # of a recording
_MAX_CHANNELS = 19  # more are not legible
_MAX_HZ = 100.0
_COLOURS = {"kept": "C2", "amplitude": "C3", "flat": "C1", "marked bad": "C4", "gap": "C5", "not a number": "k"}


def write_report(path: str | Path, store: Store, jobs: Sequence[Job]) -> list[str]:
    """Write a report as one HTML file.

    Parameters
    ----------
    path : path
        The file; its folder is made.
    store : Store
    jobs : sequence of Job
        The units of work whose recordings may be shown.

    Returns
    -------
    list of str
        The recordings that are shown.
    """
    report = mne.Report(title=f"Preparation of {store.path.name}", verbose="error")
    report.add_html(f"<pre>{html.escape(describe(store))}</pre>", title="Store", section="Store")
    report.add_figure(
        _store_figure(store),
        title="Windows of the store",
        caption="Rejected windows by reason; the largest value in each of some kept windows; power of these windows by "
        "frequency band, mean over channels.",
        section="Store",
    )
    shown = _chosen(store, jobs)
    for job in shown:
        for figure, title, caption in _recording_figures(store, job):
            report.add_figure(figure, title=title, caption=caption, section=job.source.key)
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    report.save(path, overwrite=True, open_browser=False, verbose="error")
    return [job.source.key for job in shown]


def _chosen(store: Store, jobs: Sequence[Job]) -> list[Job]:
    """The used recording with most rejected windows, and some others, evenly spread."""
    used = [job for job in jobs if store.recording(job.row).status == "ok"]
    if not used:
        return []
    worst = max(used, key=lambda job: store.recording(job.row).rejected)
    places = np.unique(np.linspace(0, len(used) - 1, _N_RECORDINGS - 1).astype(int))
    rows = {worst.row, *(used[place].row for place in places)}
    return [job for job in used if job.row in rows]


def _store_figure(store: Store) -> Figure:
    windows = some_windows(store)
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    why, amplitude, power = figure.subplots(1, 3)
    reasons = rejections(store)
    names = ["kept", *reasons]
    why.barh(names, [store.n_windows, *reasons.values()], color=[_COLOURS.get(name, "C7") for name in names])
    why.invert_yaxis()
    why.set(xlabel="windows", title="kept and rejected")
    amplitude.hist([np.abs(window).max() for window in windows], bins=30)
    amplitude.set(xlabel="largest value (microvolts)", ylabel="windows", title=f"{len(windows)} kept windows")
    powers = band_powers(windows, store.info.sfreq)
    power.bar(list(BANDS), [100 * value / sum(powers.values()) for value in powers.values()])
    power.set(ylabel="% of 1 to 45 Hz", title="power by band")
    return figure


def _recording_figures(store: Store, job: Job) -> list[tuple[Figure, str, str]]:
    """Figures of one recording with titles and captions."""
    opened = open_recording(job.source, job.cutter, job.recipe)
    row = store.recording(job.row)
    starts, window = _kept(store, job.row)
    title = f"{row.subject}: {row.kept} windows kept, {row.rejected} rejected"
    figures = [
        (
            _spans_figure(opened, job, starts, store.info.window_seconds),
            title,
            f"Which stretches of the recording became windows, and why others did not, in its first "
            f"{min(_LOOKED_AT_SECONDS, opened.recording.seconds) / 60:.0f} minutes. {row.reason}",
        )
    ]
    first = float(starts[0])
    seconds = window.shape[1] / store.info.sfreq
    raw = _raw(opened, first, seconds)
    figures.append(
        (
            _traces_figure(raw, window, opened, store.info.sfreq),
            "Before and after",
            f"The beginning of the first window that was kept, {first:.1f} s into the recording: as it was recorded "
            "without its offset (grey), and in the store (blue).",
        )
    )
    figures.append(
        (
            _spectra_figure(raw, window, opened.recording.sfreq, store.info.sfreq),
            "Spectra before and after",
            "Power spectral density of the same window, median over channels and the range of all of them.",
        )
    )
    return figures


def _kept(store: Store, row: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Starts (n,) in seconds of a recording's windows in the store, and the first of them (C, T)."""
    shard = next(shard for shard in store.shards if row in dict(shard.runs))
    with open_shard(store, shard) as opened:
        own = np.flatnonzero(opened.column("recording") == row)
        return opened.column("start")[own], opened.microvolts(int(own[0]))


def _raw(opened: Opened, start: float, seconds: float) -> npt.NDArray[np.floating]:
    """The recording's own samples of the store's channels, without their offset."""
    recording = opened.recording
    first = min(max(round(start * recording.sfreq), 0), recording.n_times - 1)
    last = min(first + round(seconds * recording.sfreq), recording.n_times)
    x = np.nan_to_num(opened.montage(recording.read(opened.picks, first, last)))
    return x - np.median(x, axis=1, keepdims=True)


def _spans_figure(opened: Opened, job: Job, starts: npt.NDArray[np.float64], seconds: float) -> Figure:
    windows = Windows(opened, job.cutter, job.recipe)
    tally = Tally(opened.montage.ch_names)
    for chosen in windows.pieces():
        if opened.plan.start[chosen[0]] > _LOOKED_AT_SECONDS * job.recipe.clean.sfreq:
            break
        windows.usable(chosen, tally)
    figure = Figure(figsize=(12, 1.6), layout="constrained")
    axes = figure.subplots()
    end = min(_LOOKED_AT_SECONDS, opened.recording.seconds)
    spans = {"kept": [(start, seconds) for start in starts if start < end]}
    for start, stop, reason in tally.spans:
        spans.setdefault(reason, []).append((start, stop - start))
    for reason, stretches in spans.items():
        axes.broken_barh(stretches, (0, 1), color=_COLOURS[reason], edgecolor="w", label=reason)
    axes.set(xlim=(0, end), yticks=[], xlabel="seconds of the recording")
    figure.legend(loc="outside right upper")
    return figure


def _traces_figure(
    raw: npt.NDArray[np.floating], window: npt.NDArray[np.float32], opened: Opened, sfreq: float
) -> Figure:
    names = opened.montage.ch_names[:_MAX_CHANNELS]
    figure = Figure(figsize=(12, 1 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    step = 6 * float(np.median(window.std(axis=1))) or 1.0
    for x, rate, colour, width in ((raw, opened.recording.sfreq, "0.7", 2.0), (window, sfreq, "C0", 0.7)):
        n_shown = round(_SHOWN_SECONDS * rate)
        for place, trace in enumerate(x[: len(names), :n_shown]):
            axes.plot(np.arange(len(trace)) / rate, trace - place * step, color=colour, linewidth=width)
    axes.set_yticks([-place * step for place in range(len(names))], names)
    axes.set(xlabel="seconds", title=f"channels are {step:.0f} microvolts apart")
    axes.margins(x=0)
    return figure


def _spectra_figure(
    raw: npt.NDArray[np.floating], window: npt.NDArray[np.float32], raw_sfreq: float, sfreq: float
) -> Figure:
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for x, rate, colour, label in ((raw, raw_sfreq, "0.5", "as recorded"), (window, sfreq, "C0", "in the store")):
        freqs, power = welch(x, rate, nperseg=min(x.shape[1], round(2 * rate)))
        level = 10 * np.log10(power + 1e-12)[:, freqs <= _MAX_HZ]
        freqs = freqs[freqs <= _MAX_HZ]
        axes.fill_between(freqs, level.min(axis=0), level.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(freqs, np.median(level, axis=0), color=colour, label=label)
    axes.set(xlabel="Hz", ylabel="dB of microvolts² / Hz")
    axes.margins(x=0)
    axes.legend()
    return figure
