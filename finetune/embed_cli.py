"""codebrain-embed: features of every window of recordings or stores, with their times (NPZ).

codebrain-embed RECORDING|STORE [...] --ckpt RUN --output features.npz

Recordings are prepared as the windows were that the model was trained on: its config.json says how.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codebrain.backbone import EEGSSM, BackboneConfig
from codebrain.config import USER_MISTAKE, command, parse
from codebrain.data.format import Store, require_output, whole
from codebrain.data.windows import Batch, WindowDataset
from codebrain.device import find_device
from codebrain.training.sampling import eval_batches
from data_prep.clean import CleanConfig
from data_prep.cut import EverywhereCutter
from data_prep.inherit import departures, training_flags
from data_prep.montage import MontageConfig
from data_prep.read import Unit
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig
from finetune.classifier import backbone_features, contract_of, freeze, load_backbone, record_of
from finetune.predict import LARGE_SAMPLES, Outputs
from finetune.recordings import Prepared, cutter_for, prepared, recipe_for

_LARGEST = 8 << 30
"""Bytes of features that are held in memory before they are written."""

_PATCH_SECONDS = 1.0
"""Length of a patch, whatever the sampling rate of the model."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What is read, by which model, and where the features go.

    Unit, window length, reference and filters are those of the model's training where it recorded them (every stage-2
    run does); the defaults that stand here hold where it did not.
    """

    sources: list[str]
    """Recordings that MNE reads, or stores of codebrain-prep."""
    ckpt: str
    """Pre-trained or fine-tuned model: run folder, export folder, Hub id, .pth or .safetensors."""
    output: str
    """File to write, ending in .npz."""
    features: Literal["window", "patch"] = "window"
    """`window`: mean over the channels and patches of a window (n, D); `patch`: those of every patch (n, C, P, D)."""
    window_seconds: float = 30.0
    """Length of the windows that recordings are cut into: what the model sees at a time; the model's own where it
    recorded it."""
    unit: Unit = "auto"
    """Unit of the numbers in recordings; `auto` believes their headers. The model's own where it recorded it."""
    channels: MontageConfig = field(default_factory=MontageConfig)
    """Which channels of recordings are used; by default every scalp electrode. A fine-tuned model brings its own. The
    reference is the model's where it recorded it."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Filters for recordings, the model's own where it recorded them."""
    batch_size: int = 32
    """Windows at a time."""
    device: str = "auto"
    """Where the model runs: cpu, cuda, ...; `auto` takes a GPU where there is one."""


def main() -> None:
    """Console script."""
    command(run_command)


def run_command(argv: list[str] | None = None) -> int:
    """Do what the command line asks; 0, or 2 if a recording could not be used."""
    said = (__doc__ or "").splitlines()[0]
    read = partial(parse, EmbedConfig, argv, prog="codebrain-embed", description=said, positional=["sources"])
    config = read()
    output = Path(config.output)
    if output.suffix != ".npz":
        raise ValueError(f"--output {output} must end in .npz")
    require_output(output)
    if config.batch_size < 1:
        raise ValueError(f"--batch_size is {config.batch_size}; it must be at least 1")
    device = find_device(config.device)
    backbone = load_backbone(config.ckpt, BackboneConfig()).to(device)
    if contract_of(config.ckpt) is None and not _are_stores(config.sources):
        trained = training_flags(record_of(config.ckpt))
        config = read(defaults=trained)
        for line in departures(config, trained, config.ckpt, "features"):
            print(line, file=sys.stderr)
    with _windows(config, float(backbone.config.patch_size)) as (stores, found):
        dataset = WindowDataset(stores)
        _check_size(dataset, config, backbone.config)
        if unseen := dataset.unseen(backbone.config.patch_size):
            print(f"WARNING: {unseen}.", file=sys.stderr)
        values = embed(backbone, dataset, config, device).require_finite(dataset.describe, LARGE_SAMPLES)
        _write(output, values, dataset, backbone.config)
    shape = " x ".join(str(size) for size in values.values.shape)
    print(f"{output}: {shape} features")
    if found is None:
        return 0
    found.tell()
    if found.unnamed and len(config.sources) > 1:
        print(
            f"{found.unnamed} of {len(config.sources)} recordings name no subject in a known way: `subject` takes each "
            "of these for a person of its own",
            file=sys.stderr,
        )
    return USER_MISTAKE if found.refused else 0


def embed(backbone: EEGSSM, dataset: WindowDataset, config: EmbedConfig, device: torch.device) -> Outputs:
    """Features of every window of a dataset, in its order; with a progress bar where somebody is looking."""
    freeze(backbone)
    with tqdm(total=len(dataset), desc="embedding", unit=" windows", leave=False, disable=None) as bar:

        def compute(batch: Batch) -> Tensor:
            bar.update(len(batch))
            with torch.inference_mode():
                features = backbone_features(backbone, batch.x)
            return features.mean((1, 2)) if config.features == "window" else features

        return Outputs.of(eval_batches(dataset, config.batch_size), compute, device)


def _are_stores(sources: Sequence[str]) -> bool:
    """Whether stores were given, and no recordings; ValueError for some of both."""
    found = [(Path(source) / "store.json").exists() for source in sources]
    if any(found) and not all(found):
        raise ValueError("recordings and stores cannot be embedded together: give the ones or the others")
    return all(found)


@contextmanager
def _windows(config: EmbedConfig, sfreq: float) -> Iterator[tuple[list[Store], Prepared | None]]:
    """The stores that were given, or one of the recordings that were."""
    if _are_stores(config.sources):
        yield [Store.open(source).require(sfreq=sfreq) for source in config.sources], None
        return
    contract = contract_of(config.ckpt)
    if contract is None:
        recipe, cutter = _recipe(config, sfreq), EverywhereCutter()
    else:
        _check_unset(config)
        recipe = recipe_for(contract, None if config.unit == "auto" else config.unit)
        cutter = cutter_for(contract)
    flags = ("--unit", "--channels.") if contract is None else ("--unit",)
    with prepared(config.sources, recipe, flags, cutter) as found:
        yield [found.store], found


def _recipe(config: EmbedConfig, sfreq: float) -> Recipe:
    """Windows over whole recordings, whatever is in them."""
    if config.window_seconds < _PATCH_SECONDS:
        raise ValueError(f"--window_seconds {config.window_seconds:g} is less than a patch of {_PATCH_SECONDS:g} s")
    everything = WindowConfig(seconds=config.window_seconds, min_recording=0.0, drop_first=0.0, drop_last=0.0)
    return Recipe(
        unit=config.unit,
        channels=config.channels,
        clean=replace(config.clean, sfreq=sfreq),
        windows=replace(everything, keep_edges=True, max_uv=None, min_swing_uv=None),
    )


def _check_unset(config: EmbedConfig) -> None:
    given = [
        name
        for name in ("window_seconds", "channels", "clean")
        if getattr(config, name) != getattr(EmbedConfig(sources=[], ckpt="", output=""), name)
    ]
    if given:
        flags = ", ".join(f"--{name}" for name in given)
        raise ValueError(f"{config.ckpt} is fine-tuned and brings its preparation: leave {flags} out")


def _check_size(dataset: WindowDataset, config: EmbedConfig, sizes: BackboneConfig) -> None:
    if config.features == "window":
        return
    if len(dataset.montages) > 1:
        kinds = "; ".join(map(str, dataset.montages))
        raise ValueError(
            f"the windows are of {len(dataset.montages)} kinds ({kinds}), whose patches fit no common table. Name the "
            "channels (--channels.names), embed one kind at a time, or take --features window"
        )
    (montage,) = dataset.montages
    n_patches = montage.n_times // sizes.patch_size
    n_bytes = 4 * len(dataset) * len(montage.ch_names) * n_patches * sizes.out_channels
    if n_bytes > _LARGEST:
        raise ValueError(
            f"the features of all patches would be {n_bytes / 2**30:.0f} GiB. Embed fewer recordings at a time, or "
            "take --features window"
        )


def _write(output: Path, values: Outputs, dataset: WindowDataset, sizes: BackboneConfig) -> None:
    """Write features, start (n,) in s, recording (n,), subject (n,) and patch_seconds; ch_names (C,) and times (n, P)
    of the patches where all windows are of one kind; label (n,) and class_names of a task store.

    The file appears under its name only when it is whole.
    """
    rows = [dataset.recording(int(window)) for window in values.window]
    info = dataset.stores[0].info
    start = dataset.starts(values.window)
    columns: dict[str, Any] = {
        "features": values.values.numpy(),
        "start": start,
        "recording": np.array([row.path for row in rows]),
        "subject": np.array([row.subject for row in rows]),
        "patch_seconds": sizes.patch_size / info.sfreq,
    }
    if len(dataset.montages) == 1:
        (montage,) = dataset.montages
        places = np.arange(montage.n_times // sizes.patch_size) * columns["patch_seconds"]
        columns |= {"ch_names": np.array(montage.ch_names), "times": start[:, None] + places}
    if all(store.info.task is not None for store in dataset.stores):
        names = info.task.class_names if info.task else ()
        columns |= {"label": dataset.labels(values.window), "class_names": np.array(names)}
    output.parent.mkdir(parents=True, exist_ok=True)
    with whole(output) as partial, partial.open("wb") as file:
        np.savez(file, **columns)


if __name__ == "__main__":
    main()
