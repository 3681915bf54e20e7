"""codebrain-tokenize: both token sequences of a recording, with times and channel names.

codebrain-tokenize RECORDING --tokenizer RUN1 --output codes.npz

The recording is prepared as the windows were that the tokenizer was trained on: its config.json says how.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codebrain.config import command, parse
from codebrain.data.format import require_output
from codebrain.device import find_device
from codebrain.patches import patchify
from data_prep.clean import Chain, CleanConfig
from data_prep.corpora import Source
from data_prep.cut import FileCutter, open_recording
from data_prep.inherit import departures, training_flags
from data_prep.montage import MontageConfig
from data_prep.read import Readable, Unit, UnusableError
from data_prep.recipe import Recipe
from data_prep.windows import WindowPlan
from tokenizer.cache import fingerprint
from tokenizer.model import DualTokenizer
from tokenizer.outputs import Codes
from tokenizer.sequences import TokenSequences, require_format, smallest_dtype

FLAT_UV = 0.5  # swing from lowest to highest below which a patch counts as flat


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """What is read, with which tokenizer, and where the codes go.

    Unit, window length, reference and filters are those of the tokenizer's training where it recorded them (every
    stage-1 run does); the defaults that stand here hold where it did not.
    """

    recording: str
    """Any recording that MNE reads (EDF, BDF, BrainVision, FIF, ...)."""
    tokenizer: str
    """Stage-1 run folder, export folder or Hub id."""
    output: str
    """File to write, ending in .npz (arrays) or .parquet (a table, needs pyarrow)."""
    window_seconds: float = 30.0
    """Seconds that the tokenizer sees at a time, its context; the tokenizer's own where it recorded them."""
    unit: Unit = "auto"
    """Unit of the numbers in the file; `auto` believes its header. The tokenizer's own where it recorded it."""
    truncated: Literal["refuse", "keep"] = "refuse"
    """Whether a file that ends before its header says is tokenized up to where it ends."""
    channels: MontageConfig = MontageConfig()
    """Which channels are tokenized; by default every scalp electrode. The reference is the tokenizer's own where it
    recorded it."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Filters, the tokenizer's own where it recorded them; the sampling rate always is."""
    device: str = "auto"
    """Where the tokenizer runs: cpu, cuda, ...; `auto` takes a GPU where there is one."""


def main() -> None:
    """Console script."""
    command(run_command)


def run_command(argv: list[str] | None = None) -> int:
    """Do what the command line asks."""
    read_flags = partial(
        parse,
        TokenizeConfig,
        argv,
        prog="codebrain-tokenize",
        description=(__doc__ or "").splitlines()[0],
        positional=["recording"],
    )
    config = read_flags()
    output = Path(config.output)
    require_format(output)
    require_output(output)
    _require_recording(Path(config.recording))
    device = find_device(config.device)
    tokenizer = DualTokenizer.from_pretrained(config.tokenizer).to(device)
    trained = training_flags(tokenizer.record)
    config = read_flags(defaults=trained)
    for line in departures(config, trained, config.tokenizer, "codes"):
        print(line, file=sys.stderr)
    try:
        codes, ch_names, notes = tokenize(config, tokenizer)
    except UnusableError as error:
        told = error.told(("--unit", "--truncated", "--channels."))
        raise ValueError(f"{config.recording} cannot be used: {told}") from error
    sizes = tokenizer.config
    sequences = TokenSequences(
        codes_t=codes.t.numpy().astype(smallest_dtype(sizes.n_codes_t)),
        codes_f=codes.f.numpy().astype(smallest_dtype(sizes.n_codes_f)),
        ch_names=ch_names,
        tokenizer=config.tokenizer,
        tokenizer_hash=fingerprint(tokenizer),
        window_seconds=config.window_seconds,
        sfreq=sizes.sfreq,
        patch_size=sizes.patch_size,
    )
    sequences.write(output)
    print("; ".join([f"{output}: {codes.t.shape[0]} channels x {codes.t.shape[1]} patches", *notes]))
    return 0


def tokenize(config: TokenizeConfig, tokenizer: DualTokenizer) -> tuple[Codes, tuple[str, ...], list[str]]:
    """Codes (C, P) of a whole recording, the names of its C channels, and what a user should know of the file."""
    sizes = tokenizer.config
    n_patches = int(config.window_seconds * sizes.sfreq / sizes.patch_size)
    if not 1 <= n_patches <= sizes.max_patches:
        longest = sizes.max_patches * sizes.patch_size / sizes.sfreq
        raise ValueError(f"--window_seconds {config.window_seconds:g}: this tokenizer takes up to {longest:g} s")
    recipe = Recipe(
        unit=config.unit,
        truncated=config.truncated,
        channels=config.channels,
        clean=dataclasses.replace(config.clean, sfreq=sizes.sfreq),
    )
    source = Source(file=config.recording, key=config.recording, subject=Path(config.recording).stem)
    opened = open_recording(source, _WholeCutter(n_patches, sizes.patch_size), recipe)
    recording, montage = opened.recording, opened.montage
    # As in the preparation: without a high-pass the offset is part of the signal.
    offset = opened.found.offset_uv[:, None] if recipe.clean.l_freq is not None else 0.0

    def read(start: int, stop: int) -> npt.NDArray[np.floating]:
        x = recording.read(opened.picks, start, stop) - offset
        _check_finite(x, montage.labels, start / recording.sfreq, recording.sfreq)
        return montage(x)

    parts, flat = [], []
    assert opened.plan.length is not None, "windows of a whole recording have lengths of their own"
    for start, length in zip(opened.plan.start.tolist(), opened.plan.length.tolist(), strict=True):
        window = opened.chain.clean(read, start, start + length)
        flat.append(_flat_patches(torch.from_numpy(window).float()[None], sizes.patch_size))
        x = torch.from_numpy(opened.referred(window)).float()[None].to(next(tokenizer.parameters()).device)
        parts.append(tokenizer.encode(x, montage.ch_names, prepared=True))
    whole = (torch.cat([window[0] for window in sequence], dim=-1).cpu() for sequence in zip(*parts, strict=True))
    notes = [opened.note, _flat_note(torch.cat(flat, dim=-1), montage.ch_names)]
    return Codes(*whole), montage.ch_names, [note for note in notes if note]


class _WholeCutter(FileCutter):
    """Windows of `n_patches` patches that follow one another; the last one ends with the last whole patch."""

    def __init__(self, n_patches: int, patch_size: int) -> None:
        self._n_patches, self._patch_size = n_patches, patch_size

    def cut(self, source: Source, recording: Readable, chain: Chain, recipe: Recipe) -> WindowPlan:
        n_total = chain.n_out // self._patch_size
        if not n_total:
            raise UnusableError(f"it is shorter than one patch of {self._patch_size / recipe.clean.sfreq:g} s")
        first = np.arange(0, n_total, self._n_patches)
        length = np.minimum(self._n_patches, n_total - first)
        return WindowPlan(start=first * self._patch_size, length=length * self._patch_size)


def _require_recording(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such recording")
    if path.is_dir() and not path.suffix:  # MNE reads folders too, such as a CTF recording NAME.ds
        raise ValueError(f"{path} is a folder: give one recording in it, and call again for the next")


def _flat_patches(x_uv: Tensor, patch_size: int) -> Tensor:
    """Whether nothing moves in each patch, (C, P), of one window (1, C, T) in microvolts."""
    patches = patchify(x_uv, patch_size)[0]
    return patches.amax(-1) - patches.amin(-1) < FLAT_UV


def _flat_note(flat: Tensor, ch_names: Sequence[str]) -> str:
    """Name the channels whose codes stand for silence, of flat patches (C, P)."""
    share = flat.double().mean(-1)
    found = [f"{name} {part:.0%}" for name, part in zip(ch_names, share.tolist(), strict=True) if part > 0]
    return f"flat patches, whose codes stand for silence: {', '.join(found)}" if found else ""


def _check_finite(x: npt.NDArray[np.floating], labels: Sequence[str], begin: float, sfreq: float) -> None:
    """Refuse samples (C, T) that are no numbers: the filters would spread them, and any code could come of them."""
    bad = ~np.isfinite(x)
    if bad.any():
        where = begin + int(bad.any(axis=0).argmax()) / sfreq
        names = ", ".join(labels[channel] for channel in np.flatnonzero(bad.any(axis=1)).tolist())
        raise UnusableError(f"not a number at {where:g} s in {names}. Cut that stretch out, or choose other channels")


if __name__ == "__main__":
    main()
