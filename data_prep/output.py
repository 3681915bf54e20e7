"""The folder that a preparation fills: what is to be done, what has been done, and the finished store.

STORE/progress/plan.json        constants of the preparation and the recordings in the order of their rows
      progress/000012.json      what became of the recording of row 12
      progress/*.lock           who prepares it: `data_prep.claim`
      progress/flushed*.json    which shards are on the disk: `data_prep.flushed`
      shards/000012.h5          windows of row 12
      recordings.csv store.json written last, by `codebrain.data.format`
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codebrain.data.format import (
    PARTIAL_SUFFIX,
    Recording,
    Shard,
    Store,
    StoreInfo,
    write_recordings,
    write_store,
)
from codebrain.data.integrity import damaged_shards
from codebrain.data.shards import OpenShard, ShardError
from data_prep.claim import planning, preparing
from data_prep.corpora import Source, counted
from data_prep.cut import EverywhereCutter
from data_prep.engine import EngineConfig, run
from data_prep.flushed import flush_and_note, not_flushed
from data_prep.info import labels_in_words, windows_by_class
from data_prep.plan import check_not_others, check_not_renamed, check_same, read_plan, write_plan
from data_prep.recipe import Recipe
from data_prep.tasks.base import Task
from data_prep.write import ALL_FLAGS, Job, Result, is_of, is_outdated, read_record

NOTHING_USABLE = 1
"""Exit code when not one window came out."""

GAVE_UP = 3
"""Exit code when recordings were given up that may go well with more memory."""

_NAMED = 4
"""Shards that a message lists."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """One store in the making."""

    store: str
    """Folder of the store."""
    recipe: Recipe
    """What is done to each recording."""
    sources: Sequence[Source]
    """The recordings."""
    constants: dict[str, Any]
    """All that the content of the store depends on besides the recordings, of JSON types."""
    task: Task | None = None
    """Where the labels come from, in a task."""
    report: str | None = None
    """HTML file to be written for a person to look at."""

    def run(self, engine: EngineConfig, shard: str | None = None) -> int:
        """Do what is missing, write the store and say what came of it. Returns the exit code."""
        part, parts = _part_of(shard)
        _check_report(self.report, parts)
        folder = Path(self.store)
        progress = folder / "progress"
        self._check_place(folder)
        with ExitStack() as held:
            with planning(progress):
                is_alone = held.enter_context(preparing(progress, part, parts)) and parts == 1
                keys = self._plan(folder)
            code = self._fill(folder, keys, part, parts, engine)
            if is_alone:  # so that these are of killed runs
                for left_over in [*folder.glob(f"*{PARTIAL_SUFFIX}"), *folder.glob(f"*/*{PARTIAL_SUFFIX}")]:
                    left_over.unlink(missing_ok=True)
            return code

    def _fill(self, folder: Path, keys: Sequence[str], part: int, parts: int, engine: EngineConfig) -> int:
        """Do what is missing of one of `parts` parts, or of the whole."""
        known = {source.key: source for source in self.sources}
        jobs = [self._job(row, known[key]) for row, key in enumerate(keys) if key in known]
        mine = [job for job in jobs if job.row % parts == part]
        results = self._done(jobs, mine)
        gone = [row for row, key in enumerate(keys) if key not in known]
        kept = {row: result for row in gone if (result := read_record(self.store, row)) is not None}
        own = {job.row for job in mine} | (kept.keys() if parts == 1 else set())
        damaged = self._remove_damaged(folder, [result for row, result in {**results, **kept}.items() if row in own])
        results, kept = ({row: one[row] for row in one.keys() - damaged} for one in (results, kept))
        to_do = [job for job in mine if job.row not in results or not results[job.row].is_final]
        if any(job.row not in results for job in to_do):
            # From here until the end the index would not fit what lies beside it.
            _take_down(folder)
        began = time.monotonic()
        fresh = {result.recording.row: result for result in run(to_do, engine)}
        minutes = (time.monotonic() - began) / 60
        every = [result for _, result in sorted({**results, **fresh, **kept}.items())]
        self._say(every, kept.values())
        print(_throughput(list(fresh.values()), minutes))
        if parts == 1:
            if fresh or not (folder / "store.json").exists():
                self._check_written(folder, [result.shard for result in every if result.shard])
            completed = self._complete(folder, every, jobs)
            return completed or _gave_up(every)
        own_results = [result for result in every if result.recording.row in own]
        flush_and_note(folder, [result.shard for result in own_results if result.shard], f"{part + 1}-of-{parts}")
        then = "when all are, run the same command without --shard to complete the store"
        print(f"part {part + 1}/{parts} is done; {then}")
        return _gave_up(own_results)

    def _say(self, results: Sequence[Result], kept: Collection[Result]) -> None:
        """Print what came of the recordings, and what was assumed of all."""
        if kept:
            older = sum(map(is_outdated, kept))
            words = f"; {older} of them were prepared by an earlier version of this program" if older else ""
            print(f"kept        {len(kept)} of an earlier run that are not among the recordings given now{words}")
        if self.recipe.unit != "auto":
            print(f"unit        the numbers of all files were taken for {self.recipe.unit}, whatever their headers say")
        print(_summary(results, self.recipe.clean.sfreq))

    def _done(self, jobs: Sequence[Job], mine: Sequence[Job]) -> dict[int, Result]:
        """Valid results of all jobs, by row; prints how many of `mine` are of an earlier version, and so are not."""
        noted = ((job, read_record(self.store, job.row)) for job in jobs)
        records = {job.row: record for job, record in noted if record is not None and is_of(record, job)}
        outdated = {row for row, record in records.items() if is_outdated(record)}
        if n_again := len(outdated & {job.row for job in mine}):
            why = "prepared by an earlier version of this program, see CHANGELOG.md"
            print(f"again       {counted(n_again, 'recording')}, {why}")
        return {row: record for row, record in records.items() if row not in outdated}

    def _remove_damaged(self, folder: Path, results: Sequence[Result]) -> set[int]:
        """Remove the shards that were never flushed and do not hold what was written; their rows."""
        row_of = {result.shard.file: result.recording.row for result in results if result.shard}
        shards = not_flushed(folder, [result.shard for result in results if result.shard])
        damaged = damaged_shards(folder, self.recipe.clean.sfreq, shards, shown_as="comparing what is there")
        if damaged:
            listed = ", ".join([f"{file} {fault}" for file, fault in damaged.items()][:_NAMED])
            listed += ", ..." if len(damaged) > _NAMED else ""
            why = "of a run that did not end well, prepared again"
            print(f"damaged     {counted(len(damaged), 'shard')} {why}: {listed}")
        for file in damaged:
            (folder / file).unlink(missing_ok=True)
        return {row_of[file] for file in damaged}

    def _complete(self, folder: Path, results: Sequence[Result], jobs: Sequence[Job]) -> int:
        """Write the store, if there is anything to write, and the report."""
        if not any(result.shard for result in results):
            write_recordings(folder / "recordings.csv", [result.recording for result in results])
            print(f"no window was usable: there is no store. {folder / 'recordings.csv'} says why of each recording")
            return NOTHING_USABLE
        store = self._finish(folder, results)
        print(f"{store.path}: {store.n_windows:,} windows, {store.hours:.2f} hours")
        if (seconds := self.recipe.windows.seconds) % 1:
            unseen = f"the last {seconds % 1:g} s of each window of {seconds:g} s"
            print(f"NOTE: models read patches of a second, and will not see {unseen}")
        if self.task is not None:
            print(_labels(store, self.task))
        if self.report:
            from data_prep.report import write_report  # with matplotlib, which nothing else here needs

            shown = write_report(self.report, store, jobs)
            print(f"{self.report}: the store and {counted(len(shown), 'recording')}: {', '.join(shown)}")
        return 0

    def _job(self, row: int, source: Source) -> Job:
        info = self.task.info() if self.task else None
        cutter = self.task or EverywhereCutter()
        return Job(
            store=self.store,
            row=row,
            source=source,
            recipe=self.recipe,
            cutter=cutter,
            labels="none" if info is None else "classes" if info.class_names else "numbers",
            has_split=info is not None and info.has_split,
            flags=() if cutter.is_fixed else ALL_FLAGS,
        )

    def _check_place(self, folder: Path) -> None:
        """Refuse, before anything is written, a folder of something else or of other recordings of the same names."""
        # Looked at first: a part of a job array that began at the same time may be writing the plan.
        is_foreign = folder.exists() and any(entry.name != "progress" for entry in folder.iterdir())
        plan = read_plan(folder)
        if plan is None:
            if is_foreign:
                raise ValueError(f"{folder} holds files but no preparation of this program: give another --output")
            return
        given = {source.key: source for source in self.sources}
        check_not_others(folder, [self._job(row, given[key]) for row, key in enumerate(plan.rows) if key in given])

    def _plan(self, folder: Path) -> list[str]:
        """Recordings in the order of their rows: those of an earlier run keep theirs, new ones follow."""
        constants = json.loads(json.dumps({**self.constants, **self._split_of_files()}))
        plan = read_plan(folder)
        rows = plan.rows if plan else []
        if plan:
            check_same(folder, plan, constants)
        known = set(rows)
        given = {source.key: source for source in self.sources}
        added = [key for key in given if key not in known]
        check_not_renamed(folder, known - set(given), added)
        if plan is None or added or plan.is_older:
            rows = [*rows, *added]
            write_plan(folder, constants, rows)
        return rows

    def _split_of_files(self) -> dict[str, str]:
        """Where a data set divides its files, that is a constant: another file can move the sides of the others."""
        sides = {source.key: source.part for source in self.sources if source.part}
        return (
            {"split_of_files": hashlib.sha256(json.dumps(sides, sort_keys=True).encode()).hexdigest()[:16]}
            if sides
            else {}
        )

    def _finish(self, folder: Path, results: Sequence[Result]) -> Store:
        info = StoreInfo(
            sfreq=self.recipe.clean.sfreq,
            window_seconds=self.recipe.windows.seconds,
            preparation=self.constants,
            task=self.task.info() if self.task else None,
            preparation_version=min(result.version for result in results if result.shard),
        )
        shards = [result.shard for result in results if result.shard]
        return write_store(folder, info, shards, [result.recording for result in results])

    def _check_written(self, folder: Path, shards: Sequence[Shard]) -> None:
        """Refuse to publish shards of others: where a file system has no locks, two runs can write into one store."""
        for shard in shards:
            try:
                OpenShard(folder / shard.file, shard, self.recipe.clean.sfreq).close()
            except ShardError as error:
                (folder / "store.json").unlink(missing_ok=True)
                raise ValueError(
                    f"{folder / shard.file} is not what this command wrote ({error.reason}): does another process "
                    "prepare into that folder? End it, and run the same command again: it makes what is missing."
                ) from error


def _part_of(shard: str | None) -> tuple[int, int]:
    """(i - 1, n) of "i/n"."""
    if shard is None:
        return 0, 1
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"--shard {shard!r} is not i/n with 1 <= i <= n, such as 1/4")
    return int(match[1]) - 1, int(match[2])


def _check_report(report: str | None, parts: int) -> None:
    """Refuse, before the work, a report that could not be written after it."""
    if report is None:
        return
    if parts > 1:
        raise ValueError("--report shows a whole store: give it with the last command, the one without --shard")
    if Path(report).is_dir():
        raise ValueError(f"--report {report} is a folder: give the name of an HTML file")
    Path(report).absolute().parent.mkdir(parents=True, exist_ok=True)


def _take_down(folder: Path) -> None:
    """Remove the index of a complete store. That its shards are on the disk stays known."""
    index = folder / "store.json"
    if not index.exists():
        return
    with suppress(ValueError, OSError):  # of an index that is damaged: all shards are compared another time
        flush_and_note(folder, [shard for shard in Store.open(folder).shards if (folder / shard.file).exists()])
    index.unlink(missing_ok=True)


def _gave_up(results: Sequence[Result]) -> int:
    """Print how many recordings were given up; the exit code for that."""
    given_up = [result.recording.path for result in results if result.gave_up]
    if not given_up:
        return 0
    print(
        f"WARNING: {counted(len(given_up), 'recording')} (such as {given_up[0]}) took more memory than there is, or no "
        f"process survived reading them. The store lacks them: run the same command again with fewer --workers. "
        f"The exit code is {GAVE_UP}."
    )
    return GAVE_UP


def _throughput(done: Sequence[Result], minutes: float) -> str:
    if not done:
        return "nothing was left to do"
    rate = sum(result.recording.hours for result in done) / max(minutes, 1e-9)
    return f"throughput  {rate:.1f} recording-hours per minute over {counted(len(done), 'recording')}"


def _summary(results: Sequence[Result], sfreq: float) -> str:
    """What came of the recordings, for a person."""
    states = Counter(result.recording.status for result in results)
    rejected: Counter[str] = Counter()
    for result in results:
        rejected.update(result.rejected)
    kept = sum(result.recording.kept for result in results)
    total = kept + rejected.total()
    hours = sum(result.shard.n * result.shard.n_times for result in results if result.shard) / sfreq / 3600
    lines = [
        f"recordings  {states['ok']} used, {states['rejected']} without a usable window, {states['failed']} unusable",
        f"windows     {kept:,} of {total:,} kept, {hours:.2f} hours",
    ]
    if rejected:
        lines.append("rejected    " + ", ".join(f"{reason} {count:,}" for reason, count in rejected.most_common()))
    if 2 * rejected["amplitude"] > total:
        lines.append("            most windows were too large: --windows.max_uv sets the limit in microvolts")
    if states["failed"] + states["rejected"]:
        lines.append("left out\n" + _counted_kinds((row.path, row.reason) for row in _rows(results, used=False)))
    if notes := [(row.path, note) for row in _rows(results, used=True) for note in _notes(row)]:
        lines.append("noted of recordings that are used\n" + _counted_kinds(notes))
    return "\n".join(lines)


def _rows(results: Sequence[Result], *, used: bool) -> list[Recording]:
    return [result.recording for result in results if (result.recording.status == "ok") == used]


def _notes(row: Recording) -> list[str]:
    """What was assumed or left out of a recording, without the windows that were rejected."""
    notes = row.reason.split("; ") if row.reason else []
    return notes[:-1] if row.rejected else notes


def _labels(store: Store, task: Task) -> str:
    """Windows of each class, or the numbers to learn; a class without any is loud."""
    counts = windows_by_class(store)
    lines = [f"{'classes' if counts else 'labels'}".ljust(12) + labels_in_words(store)]
    if empty := [name for name, count in counts.items() if not count]:
        lines.append(f"WARNING: no window is of class {' or '.join(empty)}. {task.why_no_window()}")
    return "\n".join(lines)


def _counted_kinds(told: Iterable[tuple[str, str]]) -> str:
    """Counts of what is told of recordings, by kind, each with an example."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for path, text in told:
        kind = _kind(text)
        counts[kind] += 1
        examples.setdefault(kind, f"{path}: {text}")
    return "\n".join(f"  {count:>6,} x {kind}   e.g. {examples[kind]}" for kind, count in counts.most_common())


def _kind(reason: str) -> str:
    """What reasons of the same kind have in common: the words before the details, whatever the numbers in them."""
    if "no usable window" in reason:
        return "no usable window"
    return re.sub(r"\d[\d,.]*", "...", re.split(r"[:;?(]", reason, maxsplit=1)[0].strip())
