"""Start the project's programs as a user does: one process, or several through accelerate's launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """One thread per process: two cores are shared by the tests."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def launch_line(script: str | Path, *arguments: str, processes: int = 1) -> list[str]:
    """The command line of a script on one process, or of `accelerate launch` on several CPU processes."""
    if processes == 1:
        return [sys.executable, str(script), *arguments]
    start = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    options = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [*start, *options, "--num_processes", str(processes), str(script), *arguments]


def run(
    script: str | Path, *arguments: str, processes: int = 1, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run to the end, or fail at the deadline."""
    return subprocess.run(
        launch_line(script, *arguments, processes=processes),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        cwd=ROOT,
        check=False,
    )


def kill(child: subprocess.Popen) -> None:
    """End a program and all that it started with SIGKILL; the launcher's processes are in sessions of their own."""
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=30)
    child.wait()
