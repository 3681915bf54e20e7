"""Codes of a whole store, computed once.

A frozen tokenizer's codes never change, so stage 2 reads them instead of running the encoder at every step. They lie
beside the store as uint16, 2.3 kB for a window of 19 x 30 patches, under a hash of the tokenizer's weights and of the
store's contents: a changed tokenizer or store cannot meet old codes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from codebrain.data.codes import CodeFiles
from codebrain.data.format import PARTIAL_SUFFIX, Shard, Store, publish
from codebrain.data.windows import Request, WindowDataset
from tokenizer.model import DualTokenizer

_MOST_CODES = 2**16


def code_files(store: Store, tokenizer: DualTokenizer) -> CodeFiles:
    """Where the codes of a store under a tokenizer belong, whether or not they are there."""
    key = hashlib.sha256(f"{fingerprint(tokenizer)}:{store.fingerprint()}".encode()).hexdigest()
    return CodeFiles(store.path / "codes" / key[:16])


def fingerprint(tokenizer: DualTokenizer) -> str:
    """Hash of a tokenizer's sizes and weights."""
    digest = hashlib.sha256(repr(tokenizer.config).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_writable(stores: Sequence[Store], tokenizer: DualTokenizer) -> None:
    """Raise ValueError if codes are missing and may not be written beside the store, as in a read-only shared corpus.

    Trying is the only test that knows of mounts, quotas and servers.
    """
    for store in stores:
        files = code_files(store, tokenizer)
        if all(files.has(shard) for shard in store.shards):
            continue
        try:
            files.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=files.folder).close()
        except OSError as error:
            raise ValueError(
                f"the codes of {store.path} cannot be kept in {files.folder.parent} ({error.strerror}). Make that "
                "folder writable, or compute codes at every step with --token_cache off."
            ) from error


def ensure_codes(
    stores: Sequence[Store], tokenizer: DualTokenizer, accelerator: Accelerator, *, batch_size: int
) -> list[CodeFiles]:
    """Compute what is missing of the stores' codes. Collective: every process takes its share of the shards.

    Each shard's codes appear at once and whole, so an interrupted run is taken up where it stopped.

    Raises
    ------
    ValueError
        A codebook has more codes than uint16 can name.
    """
    config = tokenizer.config
    if max(config.n_codes_t, config.n_codes_f) > _MOST_CODES:
        raise ValueError(
            f"codebooks of {config.n_codes_t} and {config.n_codes_f} codes do not fit the cache, which names at most "
            f"{_MOST_CODES}; use --token_cache off"
        )
    files = [code_files(store, tokenizer) for store in stores]
    missing = [
        (store, shard, target)
        for store, target in zip(stores, files, strict=True)
        for shard in store.shards
        if not target.has(shard)
    ]
    # Every process must have looked before the first one writes, or they would share the work differently.
    accelerator.wait_for_everyone()
    total = sum(shard.n for _, shard, _ in missing)
    datasets = {store.path: WindowDataset([store]) for store, _, _ in missing}
    with tqdm(total=total, unit="window", desc="codes", disable=not (accelerator.is_main_process and total)) as bar:
        for store, shard, target in missing[accelerator.process_index :: accelerator.num_processes]:
            _write(datasets[store.path], shard, target.path(shard), tokenizer, batch_size)
            bar.update(shard.n * accelerator.num_processes)
    accelerator.wait_for_everyone()
    return files


def _write(dataset: WindowDataset, shard: Shard, path: Path, tokenizer: DualTokenizer, batch_size: int) -> None:
    windows = dataset.of_shard(shard)
    device = next(tokenizer.parameters()).device
    parts = []
    for start in range(0, shard.n, batch_size):
        batch = dataset[Request(windows[start : start + batch_size])].to(device)
        codes = tokenizer.encode(batch.x, batch.ch_names)
        parts.append(torch.stack([codes.t, codes.f], dim=1).cpu().numpy().astype(np.uint16))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two runs on one store may compute the same codes at once.
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    with partial.open("wb") as file:
        np.save(file, np.concatenate(parts))
    publish(partial, path)
