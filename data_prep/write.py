"""One recording, one unit of work: read, clean, cut, reject, and leave a shard and a small record of the result.

A unit depends on nothing but its recording and the recipe, so doing it again gives the same shard; its record appears
after its shard, so a unit that was killed is simply done again.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.signal import resample

from codebrain.data.format import PARTIAL_SUFFIX, Recording, Shard, ShardWriter
from data_prep.clean import Chain
from data_prep.corpora import Source, bids
from data_prep.montage import Montage, plan_montage
from data_prep.read import OpenRecording, Readable, UnusableError, check_amplitude, probe
from data_prep.recipe import Recipe
from data_prep.windows import WindowPlan, fault, grid, is_marked_bad

# A piece of a recording in memory: 64 channels at 512 Hz make 160 MB of float64.
_PIECE_SECONDS = 300.0


class Cutter(Protocol):
    """Decides where the windows of a recording lie, and in a task how they are labelled."""

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """Open one recording; UnusableError if it cannot be used."""

    def cut(self, source: Source, recording: Readable, chain: Chain, recipe: Recipe) -> WindowPlan:
        """Plan the windows of one recording; UnusableError if it has none."""

    def finish(self, window_uv: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """What is done to each clean window (C, T) at the very end."""


class FileCutter:
    """Recordings that are files, whose windows are kept as they are."""

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """Open the file through MNE."""
        return OpenRecording(Path(source.file), unit=recipe.unit, truncated=recipe.truncated)

    def finish(self, window_uv: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Nothing."""
        return window_uv


class EverywhereCutter(FileCutter):
    """Consecutive windows over the whole recording: a corpus."""

    def cut(self, source: Source, recording: Readable, chain: Chain, recipe: Recipe) -> WindowPlan:
        """Fill the recording with windows."""
        return WindowPlan(start=grid(recipe.windows, sfreq=recipe.clean.sfreq, n_times=chain.n_out, edge=chain.edge))


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a worker needs to know; small, for it is sent to another process."""

    store: str
    """Folder of the store."""
    row: int
    """Row of recordings.csv."""
    source: Source
    """The recording."""
    recipe: Recipe
    """What to do to it."""
    cutter: Cutter = EverywhereCutter()
    """Where its windows lie."""
    is_labelled: bool = False
    """Whether the cutter gives labels."""
    has_split: bool = False
    """Whether the cutter gives splits."""

    @property
    def record(self) -> Path:
        """Where the result is noted down."""
        return _record(self.store, self.row)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one recording."""

    recording: Recording
    """Its row."""
    shard: Shard | None
    """Its windows."""
    rejected: dict[str, int]
    """Windows rejected, by reason; for a recording that could not be used {"recording": 0}."""
    size: int
    """Size of the source in bytes: a file of another size is prepared again."""
    is_final: bool
    """False for what may go better another time: a file that could not be read."""


def prepare(job: Job) -> Result:
    """Do one unit of work, unless its record shows that it has been done."""
    done = read_result(job)
    if done is not None and done.is_final:
        return done
    try:
        result = _prepare(job)
    except UnusableError as error:
        result = _failure(job, str(error), is_final=True)
    except MemoryError:
        result = _failure(job, "more memory was needed than there is", is_final=False)
    except OSError as error:
        if _is_about_store(error, job.store):
            raise
        result = _failure(job, f"cannot be read: {error}", is_final=False)
    except Exception as error:
        # Readers raise anything on damaged files; one file must never end the run.
        result = _failure(job, f"cannot be prepared ({type(error).__name__}: {str(error)[:200]})", is_final=False)
    _write_result(job, result)
    return result


def give_up(job: Job, reason: str) -> Result:
    """Note down a recording that no worker survives."""
    result = _failure(job, reason, is_final=True)
    _write_result(job, result)
    return result


def read_result(job: Job) -> Result | None:
    """The noted result of a unit, or None if it has none or its source is another file by now."""
    result = read_record(job.store, job.row)
    return result if result is not None and result.size == job.source.size else None


def read_record(store: str, row: int) -> Result | None:
    """What is noted of a row, or None if nothing is or its shard has been deleted since."""
    try:
        content: dict[str, Any] = json.loads(_record(store, row).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    shard = content["shard"]
    if shard is not None:
        shard = Shard(**{**shard, "ch_names": tuple(shard["ch_names"]), "runs": tuple(map(tuple, shard["runs"]))})
        if not Path(store, shard.file).exists():
            return None
    return Result(**{**content, "recording": Recording(**content["recording"]), "shard": shard})


def _record(store: str, row: int) -> Path:
    return Path(store, "progress", f"{row:06d}.json")


def _write_result(job: Job, result: Result) -> None:
    job.record.parent.mkdir(parents=True, exist_ok=True)
    # Not flushed to the disk, which takes longer than a filter: what a power cut leaves of it is passed over.
    partial = job.record.with_name(job.record.name + PARTIAL_SUFFIX)
    partial.write_text(json.dumps(dataclasses.asdict(result)), encoding="utf-8")
    partial.replace(job.record)


def _failure(job: Job, reason: str, *, is_final: bool) -> Result:
    row = Recording(
        row=job.row,
        path=job.source.key,
        subject=job.source.subject,
        session=job.source.session,
        status="failed",
        reason=reason,
    )
    return Result(recording=row, shard=None, rejected={}, size=job.source.size, is_final=is_final)


def _is_about_store(error: OSError, store: str) -> bool:
    """Whether the store, not the recording, is the trouble: a full disk ends the run."""
    return error.filename is None or Path(str(error.filename)).is_relative_to(store)


def _prepare(job: Job) -> Result:
    recipe = job.recipe
    recording = job.cutter.open(job.source, recipe)
    unfit = bids.unfit_channels(recording.path)
    montage = plan_montage([label for label in recording.eeg_labels if label not in unfit], recipe.channels)
    recording.restrict(montage.labels)
    picks = [recording.labels.index(label) for label in montage.labels]
    found = probe(recording, picks, find_line=recipe.clean.notch == "auto")
    check_amplitude(found.amplitude_uv, recipe.guard, recipe.unit)
    chain = Chain(recipe.clean, sfreq=recording.sfreq, n_times=recording.trial_times, line_hz=found.line_hz)
    plan = job.cutter.cut(job.source, recording, chain, recipe)
    offset = found.offset_uv if recipe.clean.l_freq is not None else np.zeros(len(picks))
    windows = _Windows(recording, montage, picks, chain, offset, job)
    tally = _Tally(montage.ch_names)
    with ShardWriter(
        job.store,
        f"{job.row:06d}",
        ch_names=montage.ch_names,
        sfreq=recipe.clean.sfreq,
        n_times=windows.length,
        label_dtype=np.int64 if job.is_labelled else None,
        has_split=job.has_split,
    ) as writer:
        for chosen in windows.pieces(plan.start):
            kept, uv = windows.usable(plan, chosen, tally)
            index = chosen[kept]
            writer.append(
                uv,
                recording=job.row,
                start=plan.start[index] / recipe.clean.sfreq,
                label=None if plan.label is None else plan.label[index],
                split=None if plan.split is None else plan.split[index],
            )
    return _result(job, recording, montage, writer.shard, tally)


class _Tally:
    """Counts of rejected windows by reason and by channel."""

    def __init__(self, ch_names: Sequence[str]) -> None:
        self.ch_names = ch_names
        self.reasons: Counter[str] = Counter()
        self.channels: dict[str, Counter[str]] = {}

    def add(self, reason: str, channels: npt.NDArray[np.intp]) -> None:
        self.reasons[reason] += 1
        blamed = self.channels.setdefault(reason, Counter())
        blamed.update(self.ch_names[index] for index in channels)

    def in_words(self) -> str:
        """Such as "flat 6 (T7 6), amplitude 2 (Fp1 2, Fp2 1)"."""
        words = []
        for reason, count in self.reasons.most_common():
            worst = ", ".join(f"{name} {n}" for name, n in self.channels[reason].most_common(3))
            words.append(f"{reason} {count}" + (f" ({worst})" if worst else ""))
        return ", ".join(words)


class _Windows:
    """Clean windows of one recording, made a piece at a time."""

    def __init__(
        self,
        recording: Readable,
        montage: Montage,
        picks: Sequence[int],
        chain: Chain,
        offset_uv: npt.NDArray[np.float64],
        job: Job,
    ) -> None:
        self._recording, self._montage, self._picks, self._chain = recording, montage, picks, chain
        self._offset = offset_uv[:, None]
        self._recipe = recipe = job.recipe
        self._finish = job.cutter.finish
        self._marks = recording.annotations() if recipe.windows.skip_bad else ()
        self.length = round(recipe.windows.seconds * recipe.clean.sfreq)

    def pieces(self, starts: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.intp]]:
        """Indices of the windows that are made together: those that begin in the same stretch of the same trial."""
        stretch = np.floor(starts / (_PIECE_SECONDS * self._recipe.clean.sfreq)).astype(int)
        stretches, which = np.unique(np.stack([self._trial(starts), stretch]), axis=1, return_inverse=True)
        for number in range(stretches.shape[1]):
            yield np.flatnonzero(which == number)

    def usable(
        self, plan: WindowPlan, chosen: npt.NDArray[np.intp], tally: _Tally
    ) -> tuple[list[int], npt.NDArray[np.floating]]:
        """Those of the chosen windows that nothing is wrong with: their indices and (m, C, T) microvolts."""
        config, sfreq = self._recipe.windows, self._recipe.clean.sfreq
        starts = plan.start[chosen]
        stops = starts + (self.length if plan.length is None else plan.length[chosen])
        first = int(starts.min())
        broken = _Broken(self._recording, self._chain, sfreq)
        x = self._clean(first, int(stops.max()), broken)
        kept: list[int] = []
        windows: list[npt.NDArray[np.floating]] = []
        for index, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            window = x[:, start - first : stop - first]
            begin, end = start / sfreq, stop / sfreq
            if is_marked_bad(self._marks, begin, end):
                reason, channels = "marked bad", np.empty(0, dtype=np.intp)
            elif (channels := broken.channels(begin, end)).size:
                reason = "not a number"
            else:
                reason, channels = fault(window, config, sfreq)
            if reason:
                tally.add(reason, channels)
            else:
                kept.append(index)
                whole = window if stop - start == self.length else resample(window, self.length, axis=1)
                windows.append(self._finish(whole))
        return kept, np.stack(windows) if windows else np.empty((0, len(x), self.length))

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
        return np.concatenate(
            [
                self._chain.clean(lambda start, stop: self._read(start + offset, stop + offset, broken), start, stop)
                for start, stop in spans
                if 0 <= start < stop <= n_out
            ],
            axis=1,
        )

    def _read(self, start: int, stop: int, broken: _Broken) -> npt.NDArray[np.floating]:
        """(C, stop - start) microvolts of the store's channels, finite: where it was not is noted in `broken`."""
        recorded = self._recording.read(self._picks, start, stop)
        x = np.subtract(recorded, self._offset, out=np.empty(recorded.shape, np.float32), casting="same_kind")
        if not np.isfinite(x).all():
            bad = ~np.isfinite(x)
            mixed = bad if self._montage.matrix is None else (self._montage.matrix != 0).astype(int) @ bad > 0
            broken.note(mixed, start)
            x = np.where(bad, np.float32(0), x)
        return self._montage(x)


class _Broken:
    """Where the recording holds no numbers; the filters carry each such sample as far as they reach."""

    def __init__(self, recording: Readable, chain: Chain, sfreq: float) -> None:
        self._rate = recording.sfreq
        self._reach = chain.edge / sfreq
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


def _result(job: Job, recording: Readable, montage: Montage, shard: Shard | None, tally: _Tally) -> Result:
    told, header = bids.participant(recording.path, job.source.subject), recording.person()
    age, sex = (first or second for first, second in zip(told, header, strict=True))
    kept = shard.n if shard else 0
    rejected = tally.reasons.total()
    words = [note for note in (recording.note, montage.note) if note]
    if rejected:
        words.append(("" if kept else "no usable window: ") + tally.in_words())
    row = Recording(
        row=job.row,
        path=job.source.key,
        subject=job.source.subject,
        session=job.source.session,
        hours=recording.seconds / 3600,
        kept=kept,
        rejected=rejected,
        status="ok" if kept else "rejected",
        reason="; ".join(words),
        age=age,
        sex=sex,
    )
    return Result(recording=row, shard=shard, rejected=dict(tally.reasons), size=job.source.size, is_final=True)
