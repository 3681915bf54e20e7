"""Run the units of work: on one process, on all cores, or on a Dask cluster; and take up again what was interrupted.

On Linux the processes are forked: they begin with MNE and SciPy imported, which takes each of joblib's loky, that the
other systems get, a second or two. A worker that dies (out of memory, a reader's crash) breaks its pool. What was under
way is then done one recording at a time, each in a process of its own; the one that dies again is given up, and a new
pool goes on with the rest.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Literal

from joblib.externals import loky
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from data_prep.write import Job, Result, give_up, prepare

Backend = Literal["loky", "dask"]

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


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


def run(jobs: Sequence[Job], config: EngineConfig) -> Iterator[Result]:
    """Do the jobs and show how far it is; results come in the order in which they are done."""
    # Bytes tell the time that is left better than recordings do: some last a minute, some a day.
    total = sum(job.source.size for job in jobs)
    results = _results(jobs, config)
    with tqdm(total=total, unit="B", unit_scale=True, desc="preparing", disable=not jobs) as bar:
        for number, result in enumerate(results, start=1):
            bar.update(result.size)
            bar.set_postfix_str(f"{number}/{len(jobs)} recordings", refresh=False)
            yield result


def _results(jobs: Sequence[Job], config: EngineConfig) -> Iterator[Result]:
    if config.scheduler is not None:
        return _on_dask(jobs, config.scheduler)
    workers = min(config.workers or _cores(), len(jobs))
    return _here(jobs) if workers <= 1 else _in_processes(jobs, workers)


def _here(jobs: Sequence[Job]) -> Iterator[Result]:
    # As in the workers: sums of matrix products depend on the number of threads, in their last digit.
    with threadpool_limits(1):
        yield from map(prepare, jobs)


def _in_processes(jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Do the jobs in a pool, and in another one if it breaks."""
    waiting = deque(jobs)
    while waiting:
        under_way: dict[Future[Result], Job] = {}
        try:
            with _pool(workers) as pool:
                yield from _fed(pool, waiting, under_way, n_at_once=2 * workers)
        except BrokenExecutor:
            tqdm.write(f"a worker died; {len(under_way)} recordings are tried again, one at a time")
        for job in under_way.values():
            yield _alone(job)


def _fed(pool: Executor, waiting: deque[Job], under_way: dict[Future[Result], Job], n_at_once: int) -> Iterator[Result]:
    """Keep a pool busy; `under_way` holds the jobs whose result has not been given out."""
    while waiting or under_way:
        while waiting and len(under_way) < n_at_once:
            # A broken pool refuses: the job must not be lost.
            future = pool.submit(prepare, waiting[0])
            under_way[future] = waiting.popleft()
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            result = future.result()
            del under_way[future]
            yield result


def _pool(workers: int) -> Executor:
    if sys.platform == "linux":
        return ProcessPoolExecutor(workers, get_context("fork"), initializer=_begin_forked, initargs=(os.getpid(),))
    return loky.ProcessPoolExecutor(workers, initializer=threadpool_limits, initargs=(1,))


def _begin_forked(parent: int) -> None:
    """Set up a forked worker: one thread, and an end with its parent, whose SIGKILL would leave it to wait for ever."""
    threadpool_limits(1)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # gone before it was asked for
        os._exit(1)


def _alone(job: Job) -> Result:
    """Do one job in a process that may die."""
    try:
        with _pool(1) as pool:
            return pool.submit(prepare, job).result()
    except BrokenExecutor:
        return give_up(job, "the process that read it died: out of memory, or its file crashes the reader")


def _on_dask(jobs: Sequence[Job], scheduler: str) -> Iterator[Result]:
    """Do the jobs on a running cluster, which itself tries again those whose worker died."""
    try:
        from dask.distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise ValueError("--backend dask needs Dask: install codebrain-eeg[dask]") from None
    try:
        client = Client(scheduler)
    except OSError as error:
        raise ValueError(f"--scheduler {scheduler}: no Dask scheduler answers there ({error})") from None
    with client:
        job_of = dict(zip(client.map(prepare, jobs, pure=False), jobs, strict=True))
        for future in as_completed(list(job_of)):
            job = job_of.pop(future)
            try:
                yield future.result()
            except KilledWorker:
                yield give_up(job, "the workers that read it died: out of memory, or its file crashes the reader")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
