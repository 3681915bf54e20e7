"""The folder that a preparation fills: what is to be done, what has been done, and the finished store.

STORE/progress/plan.json        constants of the preparation and the recordings in the order of their rows
progress/000012.json      what became of the recording of row 12
shards/000012.h5          its windows
recordings.csv store.json written last, by `codebrain.data.format`
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codebrain.data.format import (
    FORMAT_VERSION,
    PARTIAL_SUFFIX,
    Store,
    StoreInfo,
    publish,
    write_recordings,
    write_store,
)
from data_prep.corpora import Source, counted
from data_prep.cut import EverywhereCutter
from data_prep.engine import EngineConfig, run
from data_prep.info import labels_in_words, windows_by_class
from data_prep.recipe import Recipe
from data_prep.tasks.base import Task
from data_prep.write import ALL_FLAGS, Job, Result, is_another, read_record, read_result

NOTHING_USABLE = 1
"""Exit code when not one window came out."""


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
        keys = self._plan(folder)
        known = {source.key: source for source in self.sources}
        gone = [row for row, key in enumerate(keys) if key not in known]
        jobs = [self._job(row, known[key]) for row, key in enumerate(keys) if key in known]
        results = {job.row: result for job in jobs if (result := read_result(job)) is not None}
        to_do = [
            job for job in jobs if job.row % parts == part and (job.row not in results or not results[job.row].is_final)
        ]
        if any(job.row not in results for job in to_do):
            # From here until the end the index would not fit what lies beside it.
            (folder / "store.json").unlink(missing_ok=True)
        began = time.monotonic()
        fresh = {result.recording.row: result for result in run(to_do, engine)}
        minutes = (time.monotonic() - began) / 60
        kept = {row: result for row in gone if (result := read_record(self.store, row)) is not None}
        results = dict(sorted({**results, **fresh, **kept}.items()))
        if kept:
            print(f"kept        {len(kept)} of an earlier run that are not among the recordings given now")
        if self.recipe.unit != "auto":
            print(f"unit        the numbers of all files were taken for {self.recipe.unit}, whatever their headers say")
        print(_summary(list(results.values()), self.recipe.clean.sfreq))
        print(_throughput(list(fresh.values()), minutes))
        if parts > 1:
            print(f"part {shard} is done; when all are, run the same command without --shard to complete the store")
            return 0
        return self._complete(folder, list(results.values()), jobs)

    def _complete(self, folder: Path, results: Sequence[Result], jobs: Sequence[Job]) -> int:
        """Write the store, if there is anything to write, and the report."""
        if not any(result.shard for result in results):
            write_recordings(folder / "recordings.csv", [result.recording for result in results])
            print(f"no window was usable: there is no store. {folder / 'recordings.csv'} says why of each recording")
            return NOTHING_USABLE
        store = self._finish(folder, results)
        print(f"{store.path}: {store.n_windows:,} windows, {store.hours:.2f} hours")
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

    def _plan(self, folder: Path) -> list[str]:
        """Recordings in the order of their rows: those of an earlier run keep theirs, new ones follow."""
        path = folder / "progress" / "plan.json"
        identity = {"format_version": FORMAT_VERSION, **self.constants, **self._split_of_files()}
        rows: list[str] = []
        # Looked at first: a part of a job array that began at the same time may be writing the plan.
        is_foreign = folder.exists() and any(entry.name != path.parent.name for entry in folder.iterdir())
        if path.exists():
            plan = json.loads(path.read_text(encoding="utf-8"))
            _check_same(folder, plan["constants"], json.loads(json.dumps(identity)))
            rows = plan["recordings"]
        elif is_foreign:
            raise ValueError(f"{folder} holds files but no preparation of this program: give another --output")
        known = set(rows)
        given = {source.key: source for source in self.sources}
        added = [key for key in given if key not in known]
        _check_not_renamed(folder, known - set(given), added)
        _check_not_others(folder, [self._job(row, given[key]) for row, key in enumerate(rows) if key in given])
        if added or not rows:
            rows = [*rows, *added]
            path.parent.mkdir(parents=True, exist_ok=True)
            # The parts of a job array write the same plan at the same time.
            partial = path.with_name(f"plan.{os.getpid()}{PARTIAL_SUFFIX}")
            partial.write_text(json.dumps({"constants": identity, "recordings": rows}, indent=1), encoding="utf-8")
            publish(partial, path)
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
        for left_over in folder.glob(f"*/*{PARTIAL_SUFFIX}"):
            left_over.unlink()
        info = StoreInfo(
            sfreq=self.recipe.clean.sfreq,
            window_seconds=self.recipe.windows.seconds,
            preparation=self.constants,
            task=self.task.info() if self.task else None,
        )
        shards = [result.shard for result in results if result.shard]
        return write_store(folder, info, shards, [result.recording for result in results])


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


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to continue a preparation under other constants."""
    old, new = dict(_flat(before)), dict(_flat(now))
    changed = [
        f"{key}: {old.get(key)} there, {new.get(key)} now" for key in sorted(old | new) if old.get(key) != new.get(key)
    ]
    if changed:
        raise ValueError(
            f"{folder} was begun with another configuration ({'; '.join(changed)}). "
            "Give another --output, or delete that folder to prepare it anew."
        )


def _check_not_renamed(folder: Path, gone: Iterable[str], added: Iterable[str]) -> None:
    """Refuse recordings that the store holds under another path: they would be in it twice."""
    by_ending = {ending: key for key in gone for ending in _endings(key)}
    full = set(by_ending.values())
    for key in added:
        before = by_ending.get(key) or next((ending for ending in _endings(key) if ending in full), None)
        if before is not None:
            raise ValueError(
                f"{folder} has a recording {before} that is not there now, and {key} looks like the same: paths in a "
                "store are relative to what is given. Give the same folders as before (new recordings may lie in "
                "them), or another --output."
            )


def _check_not_others(folder: Path, jobs: Sequence[Job]) -> None:
    """Refuse recordings under a name that the store has for another recording, of another folder."""
    for job in jobs:
        if is_another(job):
            raise ValueError(
                f"{job.source.file} is another recording than the {job.source.key} that {folder} holds. To have both "
                "folders in a store give them together (corpus A B), and another --output."
            )


def _endings(key: str) -> list[str]:
    """For a/b/c: a/b/c, b/c and c."""
    parts = key.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        leaves += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return leaves


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
        lines.append("left out\n" + _reasons(results))
    return "\n".join(lines)


def _labels(store: Store, task: Task) -> str:
    """Windows of each class, or the numbers to learn; a class without any is loud."""
    counts = windows_by_class(store)
    lines = [f"{'classes' if counts else 'labels'}".ljust(12) + labels_in_words(store)]
    if empty := [name for name, count in counts.items() if not count]:
        lines.append(f"WARNING: no window is of class {' or '.join(empty)}. {task.why_no_window()}")
    return "\n".join(lines)


def _reasons(results: Sequence[Result]) -> str:
    """Counts of the reasons for which recordings were left out, each with an example."""
    reasons: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for result in results:
        row = result.recording
        if row.status != "ok":
            kind = _kind(row.reason)
            reasons[kind] += 1
            examples.setdefault(kind, f"{row.path}: {row.reason}")
    return "\n".join(f"  {count:>6,} x {kind}   e.g. {examples[kind]}" for kind, count in reasons.most_common())


def _kind(reason: str) -> str:
    """What reasons of the same kind have in common: the words before the details, whatever the numbers in them."""
    if "no usable window" in reason:
        return "no usable window"
    return re.sub(r"\d[\d,.]*", "...", re.split(r"[:;?(]", reason, maxsplit=1)[0].strip())
