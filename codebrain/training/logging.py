"""What a run says: metrics.jsonl always, trackers and a progress bar on the main process."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from codebrain.progress import Bar

TIME_PREFIX = "time/"
"""Scalars that no two runs share (seconds, windows per second) are logged under this prefix."""


class MetricsFile:
    """metrics.jsonl: one JSON object per line with `step` and the scalars of that step, null for what is not finite.

    Its length is part of a checkpoint: a run that is taken up again cuts off what was written after it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Append one line and hand it to the disk."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(as_json({"step": step, **scalars}) + "\n")
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
    """All lines of a run's metrics.jsonl, in order; NaN for a number that was not finite."""
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        return []
    return [from_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_json(content: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: numbers that are not finite, which it cannot name, become null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """What `as_json` wrote; null comes back as NaN."""
    return json.loads(text, object_hook=lambda found: {k: math.nan if v is None else v for k, v in found.items()})


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return None if isinstance(content, float) and not math.isfinite(content) else content


class Progress(Bar):
    """The bar of a training, with the loss, windows per second and the time left."""

    def __init__(self, *, first: int, total: int, windows_per_step: int, shown: bool) -> None:
        self._windows, self._loss = windows_per_step, math.nan
        form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {figures}]"
        super().__init__(total=total, unit="step", shown=shown, initial=first, bar_format=form)

    def step(self, loss: float) -> None:
        """One more step."""
        self._loss = loss
        self.update()

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar shows, as it stands when it is drawn."""
        found = super().format_dict
        rate = found["rate"] or (found["n"] - found["initial"]) / max(found["elapsed"], 1e-9)
        figures = f"loss {self._loss:.4g}, {rate * self._windows:.3g} windows/s"
        return {**found, "figures": "starting" if math.isnan(self._loss) else figures}
