"""What a run says: metrics.jsonl always, trackers and a progress bar on the main process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

TIME_PREFIX = "time/"
"""Scalars that no two runs share (seconds, windows per second) are logged under this prefix."""


class MetricsFile:
    """metrics.jsonl: one JSON object per line with `step` and the scalars of that step.

    Its length is part of a checkpoint: a run that is taken up again cuts off what was written after it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Append one line and hand it to the disk."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")
            file.flush()

    def size(self) -> int:
        """Bytes written so far, all on the disk."""
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        return self._path.stat().st_size

    def truncate(self, size: int) -> None:
        """Forget what was written after a checkpoint."""
        if self._path.exists():
            os.truncate(self._path, size)


def read_metrics(run_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All lines of a run's metrics.jsonl, in order."""
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Progress:
    """A bar with the loss, windows per second and the time left; silent on every process but the main one."""

    def __init__(self, *, first: int, total: int, windows_per_step: int, shown: bool) -> None:
        self._windows = windows_per_step
        # A log file gets a line now and then, a terminal a bar that moves.
        pause = 0.5 if sys.stderr.isatty() else 30
        self._bar = tqdm(
            total=total, initial=first, unit="step", disable=not shown, dynamic_ncols=True, mininterval=pause
        )

    def update(self, loss: float) -> None:
        """One more step."""
        if self._bar.disable:  # and then knows no figures
            return
        bar = self._bar.format_dict
        # tqdm knows its own rate only once it was drawn.
        rate = bar["rate"] or (bar["n"] + 1 - bar["initial"]) / max(bar["elapsed"], 1e-9)
        self._bar.set_postfix_str(f"loss {loss:.4g}, {rate * self._windows:.3g} windows/s", refresh=False)
        self._bar.update()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        # Leaves the bar as it stands and begins a new line, for whatever message comes next.
        self._bar.close()
