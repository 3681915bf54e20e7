"""Run the units of work: on one process, on all cores, or on a Dask cluster; and take up again what was interrupted.

joblib gives the processes. A worker that dies (out of memory, a reader's crash) breaks its whole pool, so what was
under way is then done one recording at a time, each in a process of its own: the one that dies again is given up.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from data_prep.write import Job, Result, give_up, prepare, read_result

Backend = Literal["loky", "dask"]


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where the work is done."""

    workers: int = 0
    """Number of processes; 0 for one per core that this process may use."""
    backend: Backend = "loky"
    """`loky`: processes on this machine; `dask`: a running Dask cluster."""
    scheduler: str | None = None
    """Address of the Dask scheduler, such as tcp://host:8786."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"--workers is {self.workers}; give a number of processes, or 0 for one per core")
        if (self.scheduler is None) == (self.backend == "dask"):
            raise ValueError("--backend dask needs --scheduler ADDRESS, and --scheduler needs --backend dask")


def run(jobs: Sequence[Job], config: EngineConfig) -> tuple[int, float]:
    """Do the jobs that have no final record yet, and show how far it is.

    Returns
    -------
    n_done : int
        Recordings worked on.
    hours_per_minute : float
        Hours of recordings per minute of work.
    """
    pending = [job for job in jobs if (result := read_result(job)) is None or not result.is_final]
    began = time.monotonic()
    hours = 0.0
    # Bytes tell the time that is left better than recordings do: some last a minute, some a day.
    total = sum(job.source.size for job in pending)
    with tqdm(total=total, unit="B", unit_scale=True, desc="preparing", disable=not pending) as bar:
        for number, result in enumerate(_results(pending, config), start=1):
            hours += result.recording.hours
            bar.update(result.size)
            bar.set_postfix_str(f"{number}/{len(pending)} recordings", refresh=False)
    return len(pending), hours / max((time.monotonic() - began) / 60, 1e-9)


def _results(jobs: Sequence[Job], config: EngineConfig) -> Iterator[Result]:
    workers = config.workers or _cores()
    if config.backend == "loky" and (workers == 1 or len(jobs) == 1):
        # As in the workers: sums of matrix products depend on the number of threads, in their last digit.
        with threadpool_limits(1):
            yield from map(prepare, jobs)
        return
    waiting = {job.row: job for job in jobs}
    with _pool(config, workers):
        try:
            for result in _parallel(jobs, workers):
                del waiting[result.recording.row]
                yield result
        except BrokenProcessPool:
            if config.backend == "dask":
                raise
        for job in list(waiting.values()):
            yield _alone(job)


@contextlib.contextmanager
def _pool(config: EngineConfig, workers: int) -> Iterator[None]:
    if config.backend == "loky":
        with parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1):
            yield
        return
    try:
        from dask.distributed import Client
    except ImportError:
        raise ValueError("--backend dask needs Dask: install codebrain-eeg[dask]") from None
    with Client(config.scheduler), parallel_config(backend="dask"):
        yield


def _parallel(jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    return Parallel(n_jobs=workers, return_as="generator_unordered")(delayed(prepare)(job) for job in jobs)


def _alone(job: Job) -> Result:
    """Do one job in a process that may die."""
    try:
        return next(iter(Parallel(n_jobs=2, return_as="generator")([delayed(prepare)(job)])))
    except BrokenProcessPool:
        return give_up(job, "the process that read it died: out of memory, or its file crashes the reader")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
