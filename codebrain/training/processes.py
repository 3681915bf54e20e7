"""The processes of a run: that all of them see each other, take the cores that are theirs, and one of them speaks."""

from __future__ import annotations

import os
import sys
from types import TracebackType

import psutil
import torch


def check_world(num_processes: int) -> None:
    """Raise ValueError unless as many processes see each other as were launched.

    On CPUs they need `cpu=True`, or each believes that it is alone.
    """
    meant = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes != meant:
        raise ValueError(
            f"{meant} processes were meant to run, but this one sees {num_processes}. On CPUs launch with "
            "`accelerate launch --multi_gpu --num_processes N --num_machines 1 --mixed_precision no "
            "--dynamo_backend no --main_process_port 0 SCRIPT ...`."
        )


def leave_the_word_to_the_failing_one() -> None:
    """From here on a process that only lost another one ends without a traceback: the one that failed says why."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not _lost_another(error):
            usual(kind, error, trace)

    sys.excepthook = hook


def _lost_another(error: BaseException) -> bool:
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and ("by peer" in str(error) or "gloo" in str(error))


def use_all_cores() -> None:
    """Undo `accelerate launch`'s OMP_NUM_THREADS=1, which leaves all cores but one idle when training on a CPU."""
    if os.environ.get("OMP_NUM_THREADS") == "1" and _set_by_accelerate():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _set_by_accelerate() -> bool:
    """Whether this process was started by `accelerate launch` and the user named no number of threads.

    The launcher hands its one thread on as if it had been asked for; only its own environment and arguments tell.
    """
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return False
    try:
        launcher = psutil.Process().parent()
        if launcher is None:
            return True
        asked = any(word.startswith("--num_cpu_threads_per_process") for word in launcher.cmdline())
        return not asked and "OMP_NUM_THREADS" not in launcher.environ()
    except psutil.Error:
        return True
