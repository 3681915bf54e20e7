"""codebrain-tokenize: both token sequences of a recording, with times and channel names.

codebrain-tokenize RECORDING --tokenizer RUN1 --output codes.npz
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codebrain.config import command, parse
from codebrain.device import find_device
from codebrain.patches import patchify
from data_prep.clean import Chain, CleanConfig
from data_prep.montage import MontageConfig, plan_montage
from data_prep.read import GuardConfig, OpenRecording, Unit, UnusableError, check_amplitude, probe
from tokenizer.model import Codes, DualTokenizer

FLAT_UV = 0.5  # swing from lowest to highest below which a patch counts as flat


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """What is read, with which tokenizer, and where the codes go."""

    recording: str
    """Any recording that MNE reads (EDF, BDF, BrainVision, FIF, ...)."""
    tokenizer: str
    """Stage-1 run folder, export folder or Hub id."""
    output: str
    """File to write, ending in .npz."""
    window_seconds: float = 30.0
    """Seconds that the tokenizer sees at a time: its context, best as long as in its training."""
    unit: Unit = "auto"
    """Unit of the numbers in the file; `auto` believes its header."""
    truncated: Literal["refuse", "keep"] = "refuse"
    """Whether a file that ends before its header says is tokenized up to where it ends."""
    channels: MontageConfig = MontageConfig()
    """Which channels are tokenized; by default every scalp electrode."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Filters, best those of the stores that the tokenizer was trained on; the sampling rate is the tokenizer's."""
    device: str = "cpu"
    """Where the tokenizer runs: cpu, cuda, ..."""


def main() -> None:
    """Console script."""
    command(_main)


def _main() -> int:
    config = parse(
        TokenizeConfig,
        prog="codebrain-tokenize",
        description=(__doc__ or "").splitlines()[0],
        positional=["recording"],
    )
    output = Path(config.output)
    if output.suffix != ".npz":
        raise ValueError(f"--output {output} must end in .npz")
    if not Path(config.recording).exists():
        raise FileNotFoundError(f"{config.recording}: no such recording")
    device = find_device(config.device)
    tokenizer = DualTokenizer.from_pretrained(config.tokenizer).to(device)
    try:
        codes, ch_names, notes = tokenize(config, tokenizer)
    except UnusableError as error:
        raise ValueError(f"{config.recording} cannot be used: {error}") from error
    _write(output, codes, ch_names, tokenizer)
    print("; ".join([f"{output}: {codes.t.shape[0]} channels x {codes.t.shape[1]} patches", *notes]))
    return 0


def tokenize(config: TokenizeConfig, tokenizer: DualTokenizer) -> tuple[Codes, tuple[str, ...], list[str]]:
    """Codes (C, P) of a whole recording, the names of its C channels, and what a user should know of the file."""
    sizes = tokenizer.config
    n_patches = int(config.window_seconds * sizes.sfreq / sizes.patch_size)
    if not 1 <= n_patches <= sizes.max_patches:
        longest = sizes.max_patches * sizes.patch_size / sizes.sfreq
        raise ValueError(f"--window_seconds {config.window_seconds:g}: this tokenizer takes up to {longest:g} s")
    recording = OpenRecording(Path(config.recording), unit=config.unit, truncated=config.truncated)
    montage = plan_montage(recording.eeg_labels, config.channels)
    recording.restrict(montage.labels)
    picks = [recording.labels.index(label) for label in montage.labels]
    found = probe(recording, picks, find_line=config.clean.notch == "auto")
    check_amplitude(found.amplitude_uv, GuardConfig(), config.unit)
    clean = dataclasses.replace(config.clean, sfreq=sizes.sfreq)
    chain = Chain(clean, sfreq=recording.sfreq, n_times=recording.n_times, line_hz=found.line_hz)

    # As in the preparation: without a high-pass the offset is part of the signal.
    offset = found.offset_uv[:, None] if clean.l_freq is not None else 0.0

    def read(start: int, stop: int) -> npt.NDArray[np.floating]:
        x = recording.read(picks, start, stop) - offset
        _check_finite(x, montage.labels, start / recording.sfreq, recording.sfreq)
        return montage(x)

    parts, flat = [], []
    for start, stop in _windows(chain.n_out // sizes.patch_size, n_patches, sizes.patch_size):
        x_uv = torch.from_numpy(chain.clean(read, start, stop)).float()[None]
        parts.append(tokenizer.encode(x_uv.to(config.device), montage.ch_names))
        flat.append(_flat_patches(x_uv, sizes.patch_size))
    whole = (torch.cat([window[0] for window in sequence], dim=-1).cpu() for sequence in zip(*parts, strict=True))
    codes = Codes(*whole)
    notes = [recording.note, _flat_note(torch.cat(flat, dim=-1), montage.ch_names)]
    return codes, montage.ch_names, [note for note in notes if note]


def _flat_patches(x_uv: Tensor, patch_size: int) -> Tensor:
    """Whether nothing moves in each patch, (C, P), of one window (1, C, T) in microvolts."""
    patches = patchify(x_uv, patch_size)[0]
    return patches.amax(-1) - patches.amin(-1) < FLAT_UV


def _flat_note(flat: Tensor, ch_names: Sequence[str]) -> str:
    """Name the channels whose codes stand for silence, of flat patches (C, P)."""
    share = flat.double().mean(-1)
    found = [f"{name} {part:.0%}" for name, part in zip(ch_names, share.tolist(), strict=True) if part > 0]
    return f"flat patches, whose codes stand for silence: {', '.join(found)}" if found else ""


def _check_finite(x: npt.NDArray[np.float64], labels: Sequence[str], begin: float, sfreq: float) -> None:
    """Refuse samples (C, T) that are no numbers: the filters would spread them, and any code could come of them."""
    bad = ~np.isfinite(x)
    if bad.any():
        where = begin + int(bad.any(axis=0).argmax()) / sfreq
        names = ", ".join(labels[channel] for channel in np.flatnonzero(bad.any(axis=1)).tolist())
        raise UnusableError(f"not a number at {where:g} s in {names}. Cut that stretch out, or choose other channels")


def _windows(n_total: int, n_patches: int, patch_size: int) -> Iterator[tuple[int, int]]:
    """Samples of windows of `n_patches` that follow one another; the last one ends with the last whole patch."""
    for first in range(0, n_total, n_patches):
        yield first * patch_size, min(first + n_patches, n_total) * patch_size


def _write(output: Path, codes: Codes, ch_names: tuple[str, ...], tokenizer: DualTokenizer) -> None:
    """Write codes_t and codes_f (C, P), times (P,) of their starts in s, ch_names, sfreq, patch_size.

    The file appears under its name only when it is whole.
    """
    sizes = tokenizer.config
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".npz.partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            codes_t=codes.t.numpy().astype(_dtype(sizes.n_codes_t)),
            codes_f=codes.f.numpy().astype(_dtype(sizes.n_codes_f)),
            times=np.arange(codes.t.shape[1]) * (sizes.patch_size / sizes.sfreq),
            ch_names=np.array(ch_names),
            sfreq=sizes.sfreq,
            patch_size=sizes.patch_size,
        )
    os.replace(partial, output)


def _dtype(n_codes: int) -> type[np.unsignedinteger]:
    """Of codes in a file: uint16, unless the codebook needs more."""
    return np.uint16 if n_codes <= 2**16 else np.uint32


if __name__ == "__main__":
    main()
