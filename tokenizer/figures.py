"""Pictures of a tokenizer: how evenly its codes are used, what it restores, and what its codes stand for.

All are PNG files in the run's `figures/`.

Shapes: C channels, P patches per channel, L samples per patch, F = L//2 + 1 bins, K codes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codebrain.patches import SCALE_UV, patchify
from tokenizer.model import DualTokenizer
from tokenizer.outputs import Codes
from tokenizer.targets import one_sided
from tokenizer.usage import usage

TITLES = {"t": "temporal codebook", "f": "frequency codebook"}
TOP_HZ = 75.0  # right end of the frequency axes
ATLAS_CODES, ATLAS_ROWS = 32, 4
Floats = npt.NDArray[np.floating[Any]]


class CodeAtlas:
    """Sums over patches, from which follow how often a code was assigned and the mean of the patches it stands for.

    Parameters
    ----------
    model : DualTokenizer
    """

    def __init__(self, model: DualTokenizer) -> None:
        config = model.config
        self.sfreq, self.patch_size = config.sfreq, config.patch_size
        sizes = {"t": config.n_codes_t, "f": config.n_codes_f}
        self.hits = {name: torch.zeros(size) for name, size in sizes.items()}
        self._waveforms = {name: torch.zeros(size, self.patch_size) for name, size in sizes.items()}
        self._spectra = {name: torch.zeros(size, self.patch_size // 2 + 1) for name, size in sizes.items()}

    def add(self, x_uv: Tensor, codes: Codes) -> None:
        """Add windows (B, C, T) in microvolts and their codes."""
        patches = patchify(x_uv.cpu().float(), self.patch_size)
        patches = patches - patches.mean(-1, keepdim=True)
        spectra = amplitude_uv(patches)
        for name, found in (("t", codes.t), ("f", codes.f)):
            flat = found.cpu().flatten()
            self.hits[name] += torch.bincount(flat, minlength=len(self.hits[name]))
            self._waveforms[name].index_add_(0, flat, patches.flatten(0, 2))
            self._spectra[name].index_add_(0, flat, spectra.flatten(0, 2))

    def draw(self, folder: Path) -> list[Path]:
        """Write atlas_t.png and atlas_f.png: mean waveform and spectrum of the patches of the most used codes."""
        return [self._draw_codebook(name, folder / f"atlas_{name}.png") for name in TITLES]

    def _draw_codebook(self, name: str, target: Path) -> Path:
        hits = self.hits[name]
        order = hits.argsort(descending=True)[: min(ATLAS_CODES, int((hits > 0).sum()))]
        share = hits / hits.sum()
        seconds = np.arange(self.patch_size) / self.sfreq
        hertz = frequencies(self.patch_size, self.sfreq)
        shown = (hertz > 0) & (hertz <= TOP_HZ)
        figure, axes = _figure(1, 2 * ATLAS_ROWS, width=13.0, height=1.35)
        for row, codes in enumerate(order.split(ATLAS_CODES // ATLAS_ROWS)):
            above, below = axes[2 * row, 0], axes[2 * row + 1, 0]
            count = hits[codes, None]
            _draw_slots(above, seconds, self._waveforms[name][codes] / count, "C0", ticks=(0.0, 0.5))
            _draw_slots(below, hertz[shown], (self._spectra[name][codes] / count)[:, shown], "C1", ticks=(10, 30, 50))
            below.set_yscale("log")
            above.set_ylabel("µV", fontsize=8)
            below.set_ylabel("µV", fontsize=8)
            for slot, code in enumerate(codes.tolist()):
                label = f"code {code}, {share[code]:.2%}"
                above.text(slot + 0.45, 1.02, label, transform=above.get_xaxis_transform(), ha="center", fontsize=7)
        axes[-2, 0].set_xlabel("time in the patch, s", fontsize=8)
        axes[-1, 0].set_xlabel("frequency, Hz", fontsize=8)
        figure.suptitle(
            f"{TITLES[name]}: the {len(order)} most used codes on held-out windows, with their share of all patches; "
            "mean waveform (blue) and mean amplitude spectrum (orange) of the patches they stand for",
            fontsize=9,
        )
        return _save(figure, target)


def _draw_slots(axis: Any, grid: Floats, curves: Tensor, color: str, ticks: tuple[float, ...]) -> None:
    """Draw curves (n, points) side by side in one panel, each over `grid` squeezed into nine tenths of a unit."""
    width = grid[-1] - grid[0]
    inside = 0.9 * (grid - grid[0]) / width
    for slot, curve in enumerate(curves):
        axis.plot(slot + inside, curve, color=color, linewidth=0.9)
    places = [(slot + 0.9 * (tick - grid[0]) / width, tick) for slot in range(len(curves)) for tick in ticks]
    axis.set_xticks([place for place, _ in places], [f"{tick:g}" for _, tick in places], fontsize=6)
    axis.tick_params(axis="y", labelsize=6)
    axis.set_xlim(-0.05, ATLAS_CODES // ATLAS_ROWS)


def draw_usage(hits: dict[str, Tensor], target: Path) -> Path:
    """Share of patches of each code, most used first, for both codebooks."""
    figure, (axes,) = _figure(2, 1, width=4.5, height=3.2)
    for axis, (name, counts) in zip(axes, hits.items(), strict=True):
        shares = (counts / counts.sum()).sort(descending=True).values.numpy()
        found = usage(counts)
        axis.bar(np.arange(len(shares)), shares * len(shares), width=1.0, color="C0")
        axis.axhline(1.0, color="k", linewidth=0.8, linestyle="--", label="even use")
        axis.set_title(
            f"{TITLES[name]}: {found['codes_in_use']:.1%} of {len(shares)} codes in use,\n"
            f"perplexity {found['perplexity']:.0f}, ten most used {found['top10_share']:.1%} of patches",
            fontsize=9,
        )
        axis.set_xlabel("code, by rank")
        axis.set_ylabel("hits / mean hits per code")
        axis.legend(fontsize=8)
    return _save(figure, target)


def draw_reconstructions(
    model: DualTokenizer, x_uv: Tensor, ch_names: Sequence[str], target: Path, n_patches: int = 5
) -> Path:
    """A few held-out patches in time and in spectrum, as recorded and as their codes restore them."""
    config = model.config
    codes = model.encode(x_uv, ch_names, prepared=True)
    restored, targets = model.decode(codes, ch_names), model.targets(x_uv)
    places = _spread(codes.t.shape, n_patches)
    seconds = np.arange(config.patch_size) / config.sfreq
    hertz = frequencies(config.patch_size, config.sfreq)
    figure, axes = _figure(n_patches, 2, width=3.0, height=2.6)
    for column, place in enumerate(places):
        window, channel, patch = place
        above, below = axes[0, column], axes[1, column]
        for axis, grid, truth, guess in (
            (above, seconds, targets.waveform[place], restored.waveform[place]),
            (below, hertz, targets.amplitude[place], restored.amplitude[place]),
        ):
            axis.plot(grid, truth.cpu(), color="0.4", linewidth=0.9, label="recorded")
            axis.plot(grid, guess.cpu(), color="C3", linewidth=1.1, label="restored")
            axis.tick_params(labelsize=7)
        below.set_xlim(0, TOP_HZ)
        above.set_title(
            f"window {window}, {ch_names[channel]}, patch {patch}\n"
            f"codes {int(codes.t[place])} and {int(codes.f[place])}",
            fontsize=8,
        )
        above.set_xlabel("time in the patch, s", fontsize=8)
        below.set_xlabel("frequency, Hz", fontsize=8)
    waveform = "waveform, z-scored per patch" if config.waveform == "patch" else "waveform, 100 µV"
    kind = "log-amplitude" if config.amplitude == "log" else "amplitude"
    axes[0, 0].set_ylabel(waveform, fontsize=8)
    axes[1, 0].set_ylabel(f"{kind}, z-scored per window", fontsize=8)
    axes[0, 0].legend(fontsize=7)
    figure.suptitle("Held-out patches and what their two codes, and the codes around them, restore", fontsize=10)
    return _save(figure, target)


def amplitude_uv(patches_uv: Tensor) -> Tensor:
    """Amplitude (..., F) of the sinusoid in each bin of patches (..., L), in microvolts."""
    return one_sided(patches_uv / SCALE_UV).abs() * (SCALE_UV * 2 / patches_uv.shape[-1])


def frequencies(patch_size: int, sfreq: float) -> Floats:
    """Frequency of each bin in Hz, (F,)."""
    return np.arange(patch_size // 2 + 1) * (sfreq / patch_size)


def _spread(shape: torch.Size, n: int) -> list[tuple[int, int, int]]:
    """`n` places in (B, C, P), spread over windows, channels and patches."""
    steps = np.linspace(0.1, 0.9, n)
    window, channel, patch = ((steps * size).astype(int) for size in shape)
    mixed = np.roll(patch, 2)
    return list(zip(window.tolist(), channel.tolist(), mixed.tolist(), strict=True))


def _save(figure: Any, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    return target


def _figure(columns: int, rows: int, *, width: float, height: float) -> tuple[Any, Any]:
    """An empty figure of panels, each `width` x `height` inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
