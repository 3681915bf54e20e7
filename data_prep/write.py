"""One recording, one unit of work: read, clean, cut, reject, and leave a shard and a small record of the result.

A unit depends on nothing but its recording and the recipe, so doing it again gives the same shard; its record appears
after its shard, so a unit that was killed is simply done again.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from codebrain.data.format import PREPARATION_VERSION, Recording, Shard, ShardWriter, partial_of
from codebrain.data.integrity import fault_of
from data_prep.corpora import Source
from data_prep.corpora.files import files_of
from data_prep.cut import Cutter, EverywhereCutter, Opened, Tally, Windows, open_recording
from data_prep.read import UnusableError
from data_prep.recipe import Recipe
from data_prep.windows import seconds_at

ALL_FLAGS = ("--",)
"""What all flags begin with."""

_LABEL_DTYPES = {"none": None, "classes": np.int64, "numbers": np.float64}


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
    labels: Literal["none", "classes", "numbers"] = "none"
    """What the cutter gives each window."""
    has_split: bool = False
    """Whether the cutter gives splits."""
    flags: tuple[str, ...] = ALL_FLAGS
    """Beginnings of the command's flags on recordings: a reason speaks of no others."""

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
    """Windows rejected, by reason; empty for a recording that could not be used."""
    size: int
    """Size of the source in bytes."""
    state: str
    """State of the source: in another one it is prepared again."""
    file: str
    """Where the source was."""
    digest: str
    """Hash of its beginning and its end, by which it is known again elsewhere; "" if it could not be read."""
    is_final: bool
    """False for what may go better another time: a file that could not be read."""
    gave_up: bool = False
    """Whether it was given up for want of memory, or because no process survived it."""
    version: int = PREPARATION_VERSION
    """Version of the code that prepared it; 0 before there were any."""


def prepare(job: Job) -> Result:
    """Do one unit of work, unless its record shows that it has been done."""
    done = read_result(job)
    if done is not None and done.is_final:
        return done
    try:
        result = _prepare(job)
    except UnusableError as error:
        result = _failure(job, error.told(job.flags), is_final=True)
    except MemoryError:
        result = _failure(job, "more memory was needed than there is", is_final=False, gave_up=True)
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
    """Note down a recording that no worker survives; there may be more memory another time."""
    result = _failure(job, reason, is_final=False, gave_up=True)
    _write_result(job, result)
    return result


def read_result(job: Job) -> Result | None:
    """The noted result of a unit, or None if it has none, or one of an earlier version or of another file."""
    result = read_record(job.store, job.row)
    return result if result is not None and is_of(result, job) and not is_outdated(result) else None


def is_of(result: Result, job: Job) -> bool:
    """Whether a result is of the very files that a unit has now."""
    is_same = result.recording.path == job.source.key and result.state == job.source.state
    return is_same and not _is_another(result, job)


def is_outdated(result: Result) -> bool:
    """Whether an earlier version of the program came to a result, which this one may not come to."""
    return result.version < PREPARATION_VERSION


def is_another(job: Job) -> bool:
    """Whether the record of a unit is of another recording, of the same name in another folder."""
    result = read_record(job.store, job.row)
    return result is not None and _is_another(result, job)


def read_record(store: str, row: int) -> Result | None:
    """What is noted of a row, or None if nothing is, or it is damaged, or its shard is no longer there and whole."""
    try:
        content: dict[str, Any] = json.loads(_record(store, row).read_text(encoding="utf-8"))
        # Of before there were versions.
        result = Result(**{"version": 0, **content, "recording": Recording(**content["recording"])})
        if (shard := content["shard"]) is None:
            return result
        shard = Shard(**{**shard, "ch_names": tuple(shard["ch_names"]), "runs": tuple(map(tuple, shard["runs"]))})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    if shard.file != shard_file(row) or fault_of(Path(store, shard.file)):
        return None
    return dataclasses.replace(result, shard=shard)


def _is_another(result: Result, job: Job) -> bool:
    return result.file != job.source.file and result.digest != _digest(job.source)


def _digest(source: Source) -> str:
    return files_of(Path(source.file)).digest()


def _record(store: str, row: int) -> Path:
    return Path(store, "progress", f"{row:06d}.json")


def shard_file(row: int) -> str:
    """Where the windows of a row lie in the store."""
    return f"shards/{row:06d}.h5"


def _write_result(job: Job, result: Result) -> None:
    if result.shard is None:  # there may be one of another state of the recording
        Path(job.store, shard_file(job.row)).unlink(missing_ok=True)
    job.record.parent.mkdir(parents=True, exist_ok=True)
    # Not flushed to the disk, which takes longer than a filter: what a power cut leaves of it is passed over.
    partial = partial_of(job.record)
    partial.write_text(json.dumps(dataclasses.asdict(result)), encoding="utf-8")
    partial.replace(job.record)


def _failure(job: Job, reason: str, *, is_final: bool, gave_up: bool = False) -> Result:
    row = Recording(
        row=job.row,
        path=job.source.key,
        subject=job.source.subject,
        session=job.source.session,
        status="failed",
        reason=reason,
    )
    return Result(
        recording=row,
        shard=None,
        rejected={},
        size=job.source.size,
        state=job.source.state,
        file=job.source.file,
        digest=_digest(job.source),
        is_final=is_final,
        gave_up=gave_up,
    )


def _is_about_store(error: OSError, store: str) -> bool:
    """Whether the store, not the recording, is the trouble: a full disk ends the run."""
    return error.filename is None or Path(str(error.filename)).is_relative_to(store)


def _prepare(job: Job) -> Result:
    if job.source.unusable:
        raise UnusableError(job.source.unusable)
    opened = open_recording(job.source, job.cutter, job.recipe)
    windows = Windows(opened, job.cutter, job.recipe)
    tally = Tally(opened.montage.ch_names)
    plan = opened.plan
    with ShardWriter(
        job.store,
        Path(shard_file(job.row)).stem,
        ch_names=opened.montage.ch_names,
        sfreq=job.recipe.clean.sfreq,
        n_times=windows.length,
        label_dtype=_LABEL_DTYPES[job.labels],
        has_split=job.has_split,
    ) as writer:
        for chosen in windows.pieces():
            kept, uv = windows.usable(chosen, tally)
            index = chosen[kept]
            writer.append(
                uv,
                recording=job.row,
                start=seconds_at(plan.start[index], opened.recording, opened.chain),
                label=None if plan.label is None else plan.label[index],
                split=None if plan.split is None else plan.split[index],
            )
    return _result(job, opened, writer, tally)


def _result(job: Job, opened: Opened, writer: ShardWriter, tally: Tally) -> Result:
    recording = opened.recording
    told, header = (job.source.age, job.source.sex), recording.person()
    age, sex = (first or second for first, second in zip(told, header, strict=True))
    kept = writer.shard.n if writer.shard else 0
    rejected = tally.reasons.total()
    words = [note for note in (opened.note, writer.note) if note]
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
    return Result(
        recording=row,
        shard=writer.shard,
        rejected=dict(tally.reasons),
        size=job.source.size,
        state=job.source.state,
        file=job.source.file,
        digest=_digest(job.source),
        is_final=True,
    )
