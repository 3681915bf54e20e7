"""Codes of a whole store, computed once.

A frozen tokenizer's codes never change, so stage 2 reads them instead of running the encoder at every step. They lie
beside the store as uint16, 2.3 kB for a window of 19 x 30 patches, under a hash of the tokenizer's weights and of the
store's contents: a changed tokenizer or store cannot meet old codes. Codes that are there are compared with their seals
before the training, and computed again where they are damaged.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from codebrain import weights
from codebrain.data.codes import DTYPE, VERSION, CodeFiles, Codes
from codebrain.data.format import PARTIAL_SUFFIX, Shard, Store, partial_of, publish, try_to_write
from codebrain.data.windows import Request, WindowDataset
from codebrain.progress import Bar
from tokenizer.model import DualTokenizer

_MOST_CODES = 2**16

_DELAY_S = 2.0
"""Seconds after which a comparison of codes is shown."""


def code_files(store: Store, tokenizer: DualTokenizer) -> CodeFiles:
    """Where the codes of a store under a tokenizer belong, whether or not they are there."""
    sizes = tokenizer.config
    key = hashlib.sha256(f"{VERSION}:{fingerprint(tokenizer)}:{store.fingerprint()}".encode()).hexdigest()
    return CodeFiles(store.path / "codes" / key[:16], sizes.patch_size, (sizes.n_codes_t, sizes.n_codes_f))


def fingerprint(tokenizer: DualTokenizer) -> str:
    """Hash of a tokenizer's sizes and weights."""
    return weights.fingerprint(tokenizer, tokenizer.config)


def require_writable(stores: Sequence[Store], tokenizer: DualTokenizer) -> None:
    """Raise ValueError if codes are missing and may not be written beside a store, as in a read-only shared corpus."""
    for store in stores:
        files = code_files(store, tokenizer)
        if all(files.has(shard) for shard in store.shards):
            continue
        try:
            files.folder.mkdir(parents=True, exist_ok=True)
            try_to_write(files.folder)
        except OSError as error:
            raise ValueError(
                f"the codes of {store.path} cannot be kept in {files.folder.parent} ({error.strerror}). Make that "
                "folder writable, or compute codes at every step with --token_cache off."
            ) from error


def ensure_codes(
    stores: Sequence[Store], tokenizer: DualTokenizer, accelerator: Accelerator, *, batch_size: int, name: str
) -> list[CodeFiles]:
    """Compute what is missing or damaged of the stores' codes. Collective: each process takes its share of the shards.

    Each shard's codes appear at once and whole, so an interrupted run is taken up where it stopped; several runs on one
    store do not disturb each other.

    Parameters
    ----------
    stores : sequence of Store
    tokenizer : DualTokenizer
    accelerator : Accelerator
    batch_size : int
        Windows that are encoded at a time.
    name : str
        What the tokenizer is called, noted beside the codes for people.

    Raises
    ------
    ValueError
        A codebook has more codes than uint16 can name, or a window cannot be read.
    OSError
        The codes cannot be written.
    """
    config = tokenizer.config
    if max(config.n_codes_t, config.n_codes_f) > _MOST_CODES:
        raise ValueError(
            f"codebooks of {config.n_codes_t} and {config.n_codes_f} codes do not fit the cache, which names at most "
            f"{_MOST_CODES}; use --token_cache off"
        )
    files = [code_files(store, tokenizer) for store in stores]
    datasets = [WindowDataset([store]) for store in stores]
    shards = [(number, shard) for number, store in enumerate(stores) for shard in store.shards]
    # One process looks: others might see what another run wrote in between, and share the work differently.
    missing = [_missing(files, shards) if accelerator.is_main_process else []]
    broadcast_object_list(missing)
    if accelerator.is_main_process:
        for number in sorted({shards[place][0] for place in missing[0]}):
            _describe(files[number], tokenizer, name, stores[number])
    mine = [shards[place] for place in missing[0][accelerator.process_index :: accelerator.num_processes]]
    with _bar(mine, accelerator) as bar:
        for number, shard in mine:
            if not files[number].fault(shard):  # by now, from another run
                bar.update(shard.n)
                continue
            codes = _encode(datasets[number], shard, tokenizer, batch_size, bar)
            _write(files[number].path(shard), files[number].content(shard, codes))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _sweep(files)
    return files


def _missing(files: Sequence[CodeFiles], shards: Sequence[tuple[int, Shard]]) -> list[int]:
    """Places of the shards whose codes are missing or damaged; damaged ones are reported."""
    missing = []
    with Bar(total=len(shards), unit="file", desc="comparing codes", delay=_DELAY_S) as bar:
        for place, (number, shard) in enumerate(shards):
            path = files[number].path(shard)
            if fault := files[number].fault(shard):
                missing.append(place)
                if path.exists():
                    bar.write(f"{path} cannot be used, {fault}: its codes are computed again", file=sys.stderr)
            bar.update()
    return missing


def _bar(mine: Sequence[tuple[int, Shard]], accelerator: Accelerator) -> Bar:
    """Of the windows that the main process encodes; the shares of all processes are alike."""
    world = accelerator.num_processes
    return Bar(
        total=sum(shard.n for _, shard in mine),
        unit="window",
        desc="codes" if world == 1 else f"codes, share 1 of {world}",
        shown=accelerator.is_main_process and bool(mine),
    )


def _encode(dataset: WindowDataset, shard: Shard, tokenizer: DualTokenizer, batch_size: int, bar: Bar) -> Codes:
    """Codes (n, 2, C, P) of a shard."""
    windows, device, parts = dataset.of_shard(shard), next(tokenizer.parameters()).device, []
    for start in range(0, shard.n, batch_size):
        batch = dataset[Request(windows[start : start + batch_size])].to(device)
        codes = tokenizer.encode(batch.x, batch.ch_names, prepared=True)
        parts.append(torch.stack([codes.t, codes.f], dim=1).cpu().numpy().astype(DTYPE))
        bar.update(len(batch))
    return np.concatenate(parts)


def _describe(files: CodeFiles, tokenizer: DualTokenizer, name: str, store: Store) -> None:
    content = {
        "version": VERSION,
        "tokenizer": name,
        "tokenizer_hash": fingerprint(tokenizer),
        "n_codes_t": tokenizer.config.n_codes_t,
        "n_codes_f": tokenizer.config.n_codes_f,
        "patch_size": tokenizer.config.patch_size,
        "store": str(store.path),
        "store_hash": store.fingerprint(),
        "arrays": "uint16 (windows, 2, channels, patches): temporal, then frequency codes",
    }
    _write(files.folder / "about.json", (json.dumps(content, indent=1) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    """A file that appears at once and whole, whatever other runs write beside it."""
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        publish(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError) and path.exists():  # another run had it first, and swept
            return
        raise OSError(
            f"codes could not be written to {path.parent} ({error}). Make room and launch again: the codes that are "
            "there are kept. Or compute codes at every step with --token_cache off."
        ) from error


def _sweep(stores: Sequence[CodeFiles]) -> None:
    """Remove what killed runs left; nobody needs unfinished files where all are finished."""
    for files in stores:
        for left in files.folder.glob(f"*{PARTIAL_SUFFIX}"):
            left.unlink(missing_ok=True)
