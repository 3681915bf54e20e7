"""Pictures that every run has: its training and validation curves."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codebrain.channels import canonical_name, positions
from codebrain.training.logging import read_metrics

_CODES = ("temporal codes", "frequency codes")
_FIRST_GUESS = "named at first guess (%)"


@dataclass(frozen=True)
class Panel:
    """One panel of the curves."""

    name: str
    """The figure, without `train/` and `valid/`."""
    label: str
    """What it is, with its unit."""
    reference: str | None = None
    """A validated figure to compare with, drawn as a dashed line."""
    reference_label: str = ""
    """What that is."""
    limits: tuple[float, float] | None = None
    """Ends of the axis; otherwise those of the data."""


def curves(
    run_dir: str | os.PathLike[str], panels: Sequence[Panel] | None = None, marks: Mapping[int, str] | None = None
) -> Path:
    """Draw `figures/curves.png`: one panel per figure, training and validation in the same panel.

    Parameters
    ----------
    run_dir : path
        Folder with metrics.jsonl.
    panels : sequence of Panel, optional
        By default all figures that were validated, the loss first.
    marks : mapping of int to str, optional
        Steps at which something began, and what: vertical lines in every panel.
    """
    lines = read_metrics(run_dir)
    if panels is None:
        known = {name.removeprefix("valid/") for line in lines for name in line if name.startswith("valid/")}
        panels = [
            Panel(name, name.replace("_", " ")) for name in sorted(known, key=lambda name: (name != "loss", name))
        ]
    figure, axes = _grid(len(panels))
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, lines, f"train/{panel.name}", "training", ".-")
        _draw(axis, lines, f"valid/{panel.name}", "held-out subjects", "o-")
        if panel.reference:
            _draw(axis, lines, f"valid/{panel.reference}", panel.reference_label, "k.--")
        for step, event in (marks or {}).items():
            axis.axvline(step, color="0.5", linewidth=0.8, linestyle=":", label=event)
        axis.set_ylim(panel.limits)
        axis.set_ylabel(panel.label, fontsize=8)
        axis.set_xlabel("step (optimizer updates)", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7)
    target = Path(run_dir) / "figures" / "curves.png"
    save(figure, target)
    return target


def _draw(axis: Any, lines: list[dict[str, Any]], name: str, label: str, style: str) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    if points:
        axis.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)


def accuracy_by_electrode(
    run_dir: str | os.PathLike[str], ch_names: Sequence[str], temporal: Sequence[float], frequency: Sequence[float]
) -> Path | None:
    """Draw `figures/accuracy_by_electrode.png`: two scalp maps of the share of hidden codes named at first guess.

    Parameters
    ----------
    run_dir : path
    ch_names : sequence of str
        The C electrodes; those that are none (bipolar pairs) are left out.
    temporal, frequency : sequences of C floats
        Shares, 0 to 1.

    Returns
    -------
    path, or None if fewer than four electrodes have a place on the scalp.
    """
    import mne
    from matplotlib.figure import Figure

    placed = [
        row for row, name in enumerate(ch_names) if canonical_name(name) is not None and not math.isnan(temporal[row])
    ]
    if len(placed) < 4:
        return None
    names = [ch_names[row] for row in placed]
    info = mne.create_info(names, 1.0, "eeg")
    head = 0.095 * positions(names)
    info.set_montage(mne.channels.make_dig_montage(dict(zip(names, head, strict=True)), coord_frame="head"))
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, values, title in zip(axes, (temporal, frequency), _CODES, strict=True):
        percent = np.array([100 * values[row] for row in placed])
        image, _ = mne.viz.plot_topomap(percent, info, axes=axis, show=False, names=names, sensors=True)
        for name in axis.texts:  # above its dot, not on it
            name.set_verticalalignment("bottom")
        axis.set_title(title)
        figure.colorbar(image, ax=axis, shrink=0.7, label=_FIRST_GUESS)
    figure.suptitle("Hidden patches on held-out subjects, by electrode")
    target = Path(run_dir) / "figures" / "accuracy_by_electrode.png"
    save(figure, target)
    return target


def accuracy_by_band(
    run_dir: str | os.PathLike[str],
    bands_hz: Mapping[str, tuple[float, float]],
    temporal: Sequence[float],
    frequency: Sequence[float],
) -> Path:
    """Draw `figures/accuracy_by_band.png`: the same share by the frequency band that stands out in a patch.

    Parameters
    ----------
    run_dir : path
    bands_hz : mapping of str to (low, high)
        The bands.
    temporal, frequency : sequences of one float per band
        Shares, 0 to 1; NaN for a band that stands out in no patch.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    place = np.arange(len(bands_hz))
    for shift, values, label in zip((-0.2, 0.2), (temporal, frequency), _CODES, strict=True):
        axis.bar(place + shift, 100 * np.array(values), width=0.4, label=label)
    axis.set_xticks(place, [f"{name}\n{low:g}-{high:g} Hz" for name, (low, high) in bands_hz.items()])
    axis.set_xlabel("frequency band that stands out in the patch")
    axis.set_ylabel(_FIRST_GUESS)
    axis.set_title("Hidden patches on held-out subjects, by band")
    axis.legend()
    target = Path(run_dir) / "figures" / "accuracy_by_band.png"
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
