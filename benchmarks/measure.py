"""What the benchmarks share: seconds and memory of a step, processes of their own, the report."""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """A parser whose help is the benchmark's docstring, with the flag --output."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output", type=Path, default=Path("build") / name, help="folder for results.json")
    return made


def write(folder: Path, report: Any) -> None:
    """Keep a report as results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(report, indent=2) + "\n")


def timed(function: Callable[..., Value], *arguments: Any, **named: Any) -> tuple[Value, float]:
    """What a call returns, and its seconds."""
    began = time.perf_counter()
    result = function(*arguments, **named)
    return result, time.perf_counter() - began


def in_a_process(function: Callable[..., Value], *arguments: Any) -> Value:
    """What a call returns that is made in a new process, whose memory nothing has touched before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def forget_peak() -> None:
    """Set this process's peak of memory to what is in use now; a new process starts with its parent's."""
    Path("/proc/self/clear_refs").write_text("5")


def memory_gb(field: str) -> float:
    """Memory of this process in GB: in use (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024 / 1e9
