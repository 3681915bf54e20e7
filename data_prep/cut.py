"""From a recording to its clean windows: open, choose channels, clean a piece at a time, cut, reject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from scipy.signal import resample

from codebrain.channels import canonical_name
from data_prep.clean import Chain
from data_prep.corpora import Source, bids
from data_prep.montage import Montage, average_reference, known_as, plan_montage
from data_prep.probe import Probe, check_amplitude, probe
from data_prep.read import Annotation, OpenRecording, Readable, UnusableError
from data_prep.recipe import Recipe
from data_prep.windows import Marks, WindowPlan, flat_channels, grid, loud_channels, seconds_at

# A piece of a recording in memory: 64 channels at 512 Hz make 160 MB of float64.
_PIECE_SECONDS = 300.0
_LISTED = 8


class Cutter(Protocol):
    """Decides where the windows of a recording lie, and in a task how they are labelled."""

    is_fixed: ClassVar[bool]
    """Whether it knows its recordings: neither flags nor the BIDS tables beside them change how they are read."""

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """Open one recording; UnusableError if it cannot be used."""

    def cut(self, source: Source, recording: Readable, chain: Chain, recipe: Recipe) -> WindowPlan:
        """Plan the windows of one recording; UnusableError if it has none."""

    def finish(self, window_uv: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """What is done to each clean window (C, T) at the very end."""

    def takes_any_amplitude(self) -> bool:
        """Whether amplitudes that EEG cannot have are only noted in the recording's row, and no reason to refuse it."""


class FileCutter:
    """Recordings that are files, whose windows are kept as they are."""

    is_fixed: ClassVar[bool] = False

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """Open the file through MNE."""
        return OpenRecording(Path(source.file), unit=recipe.unit, truncated=recipe.truncated)

    def finish(self, window_uv: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Nothing."""
        return window_uv

    def takes_any_amplitude(self) -> bool:
        """No: the header of a file may be wrong about its unit."""
        return False


class EverywhereCutter(FileCutter):
    """Consecutive windows over the whole recording: a corpus."""

    said: ClassVar[str] = ""
    """What a user should know of where the windows lie."""

    def cut(self, source: Source, recording: Readable, chain: Chain, recipe: Recipe) -> WindowPlan:
        """Fill the recording with windows."""
        return WindowPlan(start=grid(recipe.windows, sfreq=recipe.clean.sfreq, n_times=chain.n_out, edge=chain.edge))


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A recording and what was decided about it before it is cleaned."""

    recording: Readable
    montage: Montage
    """How the C channels of the windows are made."""
    picks: Sequence[int]
    """Where the channels that the montage needs are among the recording's."""
    found: Probe
    """What a few stretches told."""
    still: npt.NDArray[np.bool_]
    """(C,) channels in which nothing moves, which no average reference may include."""
    chain: Chain
    """The filters."""
    events: bids.EventsTable
    """What the table of events beside it says."""
    plan: WindowPlan
    """Where the windows lie."""
    note: str
    """What had to be assumed or done, for the recording's row."""

    def referred(self, window: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """A clean window (C, T) as it refers to the average, if that is wanted."""
        return average_reference(window, self.still) if self.montage.is_averaged else window


def open_recording(source: Source, cutter: Cutter, recipe: Recipe) -> Opened:
    """Open a recording and decide all that can be decided without reading the whole of it.

    Raises
    ------
    UnusableError
        Why it cannot be used.
    """
    recording = cutter.open(source, recipe)
    unfit, said = ({}, "") if cutter.is_fixed else _unfit(recording)
    events = bids.EventsTable() if cutter.is_fixed else bids.events(recording.path)
    no_eeg = _said_of_types(recording)
    montage = plan_montage(recording.eeg_labels, recipe.channels, unfit)
    recording.restrict(montage.labels)
    picks = [recording.labels.index(label) for label in montage.labels]
    found = probe(recording, picks, find_line=recipe.clean.notch == "auto")
    odd = _check_amplitude(recording, found, montage, cutter, recipe)
    still, left_out = _still(found, montage, cutter)
    chain = Chain(recipe.clean, sfreq=recording.sfreq, n_times=recording.trial_times, line_hz=found.line_hz)
    plan = cutter.cut(source, recording, chain, recipe)
    notes = (recording.note, no_eeg, said, montage.note, odd, left_out, events.said(recording.seconds), plan.note)
    return Opened(
        recording=recording,
        montage=montage,
        picks=picks,
        found=found,
        still=still,
        chain=chain,
        events=events,
        plan=plan,
        note="; ".join(note for note in notes if note),
    )


def _unfit(recording: Readable) -> tuple[dict[str, str], str]:
    """Labels of channels that must not be used, with the reason, and what the table beside the recording got wrong."""
    unfit = dict.fromkeys(recording.bad_labels, "marked bad in the file")
    table = bids.channels(recording.path)
    strange = []
    for name, reason in table.rows.items():
        # As it is spelt in the file, or else another spelling of the same electrode.
        same = [label for label in recording.labels if label == name]
        same = same or [label for label in recording.labels if known_as(label).lower() == known_as(name).lower()]
        if reason:
            unfit |= dict.fromkeys(same, f"{reason} in {table.name}")
        if not same:
            strange.append((name, reason))
    if strange and len(strange) == len(table.rows):
        return unfit, f"no row of {table.name} is about a channel of it: {_listed([name for name, _ in strange])}"
    bad = [name for name, reason in strange if reason == bids.BAD]
    return unfit, f"{table.name} calls channels bad that it does not have: {_listed(bad)}" if bad else ""


def _said_of_types(recording: Readable) -> str:
    """Channels that have an electrode's name and are no EEG by their type or unit in the file."""
    others = [
        label
        for label in recording.labels
        if label not in recording.eeg_labels and label not in recording.bad_labels and canonical_name(label)
    ]
    return f"no EEG by type or unit in the file, not used: {_listed(others)}" if others else ""


def _still(found: Probe, montage: Montage, cutter: Cutter) -> tuple[npt.NDArray[np.bool_], str]:
    """Channels (C,) of the windows that are kept out of an average reference, and what the row says of it."""
    dead = np.isnan(found.amplitude_uv)
    if silent := [label for label in montage.reference_labels if dead[montage.labels.index(label)]]:
        raise UnusableError(f"linked mastoids wanted, but nothing moves in {', '.join(silent)}")
    still = montage.made_from(dead)
    if not montage.is_averaged or not still.any() or cutter.takes_any_amplitude():
        return np.zeros(len(montage.ch_names), dtype=bool), ""
    names = [name for name, is_still in zip(montage.ch_names, still, strict=True) if is_still]
    return still, f"average reference without {_listed(names)}"


def _check_amplitude(recording: Readable, found: Probe, montage: Montage, cutter: Cutter, recipe: Recipe) -> str:
    """What is to be noted of a recording's amplitudes; UnusableError if they are a reason to refuse it."""
    try:
        return check_amplitude(found.amplitude_uv, montage.labels, recipe.guard, recording.taken_for)
    except UnusableError as error:
        if not cutter.takes_any_amplitude():
            raise
        return error.reason


class Tally:
    """Rejected windows: how many for which reason, through which channels, and where they lie.

    Attributes
    ----------
    reasons : Counter
        Windows by reason.
    spans : list of (start, stop, reason)
        Each rejected window, in seconds.
    """

    def __init__(self, ch_names: Sequence[str]) -> None:
        self.ch_names = ch_names
        self.reasons: Counter[str] = Counter()
        self.channels: dict[str, Counter[str]] = {}
        self.spans: list[tuple[float, float, str]] = []

    def add(self, reason: str, channels: npt.NDArray[np.intp], start: float, stop: float) -> None:
        """Count the window from `start` to `stop` seconds, of which `channels` are to blame."""
        self.reasons[reason] += 1
        self.spans.append((start, stop, reason))
        blamed = self.channels.setdefault(reason, Counter())
        blamed.update(self.ch_names[index] for index in channels)

    def in_words(self) -> str:
        """Such as "flat 6 (T7 6), amplitude 2 (Fp1 2, Fp2 1)"."""
        words = []
        for reason, count in self.reasons.most_common():
            worst = ", ".join(f"{name} {n}" for name, n in self.channels[reason].most_common(3))
            words.append(f"{reason} {count}" + (f" ({worst})" if worst else ""))
        return ", ".join(words)


class Windows:
    """Clean windows of one recording, made a piece at a time."""

    def __init__(self, opened: Opened, cutter: Cutter, recipe: Recipe) -> None:
        self._opened = opened
        self._recording, self._montage, self._picks = opened.recording, opened.montage, opened.picks
        self._chain, self._plan = opened.chain, opened.plan
        # With a high-pass the offset is no signal, and float32 keeps more digits without it.
        offset = opened.found.offset_uv if recipe.clean.l_freq is not None else np.zeros(len(opened.picks))
        self._offset = offset[:, None]
        self._recipe, self._finish = recipe, cutter.finish
        marks: tuple[Annotation, ...] = ()
        if recipe.windows.skip_bad:
            marks = (*opened.recording.annotations(), *opened.events.marks)
        reach = 0.0 if recipe.windows.keep_edges else opened.chain.edge / recipe.clean.sfreq
        self._marks = Marks(marks, reach)
        self.length = round(recipe.windows.seconds * recipe.clean.sfreq)

    def pieces(self) -> Iterator[npt.NDArray[np.intp]]:
        """Indices of the windows that are made together: those that begin in the same stretch of the same trial."""
        starts = self._plan.start
        stretch = np.floor(starts / (_PIECE_SECONDS * self._recipe.clean.sfreq)).astype(int)
        stretches, which = np.unique(np.stack([self._trial(starts), stretch]), axis=1, return_inverse=True)
        for number in range(stretches.shape[1]):
            yield np.flatnonzero(which == number)

    def usable(self, chosen: npt.NDArray[np.intp], tally: Tally) -> tuple[list[int], npt.NDArray[np.floating]]:
        """Those of the chosen windows that nothing is wrong with: their indices and (m, C, T) microvolts."""
        starts, lengths = self._plan.start[chosen], self._plan.length
        stops = starts + (self.length if lengths is None else lengths[chosen])
        begins = seconds_at(starts, self._recording, self._chain)
        ends = begins + (stops - starts) / self._chain.sfreq
        first = int(starts.min())
        broken = _Broken(self._recording, self._chain)
        x = self._clean(first, int(stops.max()), broken)
        kept: list[int] = []
        windows: list[npt.NDArray[np.floating]] = []
        for index, marked in enumerate(self._marks.reasons(begins, ends)):
            window = x[:, starts[index] - first : stops[index] - first]
            begin, end = float(begins[index]), float(ends[index])
            if marked:
                reason, blamed = marked, np.empty(0, dtype=np.intp)
            else:
                reason, blamed, window = self._judged(window, broken.channels(begin, end))
            if reason:
                tally.add(reason, blamed, begin, end)
            else:
                kept.append(index)
                whole = window if window.shape[1] == self.length else resample(window, self.length, axis=1)
                windows.append(self._finish(whole))
        return kept, np.stack(windows) if windows else np.empty((0, len(x), self.length))

    def _judged(
        self, window: npt.NDArray[np.floating], broken: npt.NDArray[np.intp]
    ) -> tuple[str, npt.NDArray[np.intp], npt.NDArray[np.floating]]:
        """Why a window (C, T) cannot be used, through which channels, and the window at its final reference."""
        config = self._recipe.windows
        if broken.size:
            return "not a number", broken, window
        if (flat := flat_channels(window, config, self._chain.sfreq)).size:
            return "flat", flat, window
        window = self._opened.referred(window)
        loud = loud_channels(window, config)
        return "amplitude" if loud.size else "", loud, window

    def _trial(self, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Number of the trial in which each window begins."""
        n_trials = self._recording.n_times // self._recording.trial_times
        return np.clip(starts // self._chain.n_out, 0, n_trials - 1)

    def _clean(self, first: int, last: int, broken: _Broken) -> npt.NDArray[np.floating]:
        """Clean samples `first` to `last` of one trial, which goes on at its other end beyond either."""
        trial = int(self._trial(np.array([first]))[0])
        n_out, offset = self._chain.n_out, trial * self._recording.trial_times
        first, last = first - trial * n_out, last - trial * n_out
        spans = [(first + n_out, n_out), (max(first, 0), min(last, n_out)), (0, last - n_out)]
        parts = [
            self._chain.clean(lambda start, stop: self._read(start + offset, stop + offset, broken), start, stop)
            for start, stop in spans
            if 0 <= start < stop <= n_out
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _read(self, start: int, stop: int, broken: _Broken) -> npt.NDArray[np.floating]:
        """(C, stop - start) microvolts of the store's channels, finite: where it was not is noted in `broken`."""
        recorded = self._recording.read(self._picks, start, stop)
        x = np.subtract(recorded, self._offset, out=np.empty(recorded.shape, np.float32), casting="same_kind")
        if not np.isfinite(x).all():
            bad = ~np.isfinite(x)
            broken.note(self._montage.made_from(bad), start)
            x = np.where(bad, np.float32(0), x)
        return self._montage(x)


class _Broken:
    """Where the recording holds no numbers; the filters carry each such sample as far as they reach."""

    def __init__(self, recording: Readable, chain: Chain) -> None:
        self._rate = recording.sfreq
        self._reach = chain.edge / chain.sfreq
        self._spans: list[tuple[int, float, float]] = []

    def note(self, bad: npt.NDArray[np.bool_], start: int) -> None:
        for channel in np.flatnonzero(bad.any(axis=1)):
            padded = np.diff(np.concatenate([[0], bad[channel].astype(np.int8), [0]]))
            for begin, end in zip(np.flatnonzero(padded == 1), np.flatnonzero(padded == -1), strict=True):
                self._spans.append((int(channel), (start + begin) / self._rate, (start + end) / self._rate))

    def channels(self, begin: float, end: float) -> npt.NDArray[np.intp]:
        """Channels that the stretch from `begin` to `end` (in seconds) cannot be trusted in."""
        near = {c for c, first, last in self._spans if first - self._reach < end and last + self._reach > begin}
        return np.array(sorted(near), dtype=np.intp)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
