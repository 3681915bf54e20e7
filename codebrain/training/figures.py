"""Pictures that every run has: its training and validation curves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from codebrain.training.logging import TIME_PREFIX, read_metrics


def curves(run_dir: str | os.PathLike[str], *, names: list[str] | None = None) -> Path:
    """Draw `figures/curves.png`: one panel per figure, training and validation in the same panel.

    Parameters
    ----------
    run_dir : path
        Folder with metrics.jsonl.
    names : list of str, optional
        Figures to draw, without `train/` and `valid/`; by default all that were validated, the loss first.
    """
    lines = read_metrics(run_dir)
    known = {name for line in lines for name in line if name != "step" and not name.startswith(TIME_PREFIX)}
    validated = sorted({name.removeprefix("valid/") for name in known if name.startswith("valid/")})
    names = names or sorted(validated, key=lambda name: (name != "loss", name))
    target = Path(run_dir) / "figures" / "curves.png"
    figure, axes = _grid(len(names))
    for axis, name in zip(axes, names, strict=False):
        for side, style in (("train", "-"), ("valid", "o-")):
            points = [(line["step"], line[f"{side}/{name}"]) for line in lines if f"{side}/{name}" in line]
            if points:
                axis.plot(*zip(*points, strict=True), style, label=side, markersize=3, linewidth=1)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_xlabel("step (optimizer updates)", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7)
    save(figure, target)
    return target


def save(figure: Any, target: Path) -> None:
    """Write a figure as PNG and forget it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    # Figures made without pyplot are freed with their last reference; nothing else is held.
    figure.clear()


def _grid(n: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(4, max(1, n))
    rows = -(-n // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[n:]:
        axis.set_visible(False)
    return figure, list(axes)
