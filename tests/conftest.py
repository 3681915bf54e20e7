"""What all tests share: where real material lies, and small stores."""

import os
from pathlib import Path

# Before anything imports huggingface_hub: without it a missing network costs five retries.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Before anything imports torch. Workers beside each other have one core each, and what a test does itself is compared
# to the last bit with what its child processes do on one thread (tests/processes.py).
os.environ.setdefault("OMP_NUM_THREADS", "1")

import dataclasses
import json
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from codebrain.data.format import (
    Recording,
    ShardWriter,
    Store,
    StoreInfo,
    TaskInfo,
    begin_digest,
    end_digest,
    write_store,
)

MONTAGE = ("Fp1", "Fp2", "C3", "C4", "O1", "O2")


def _material(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{variable} does not name a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def eeg_folder() -> Path:
    """Real recordings."""
    return _material("CODEBRAIN_EEG")


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Numbers made with braindecode's implementation."""
    return _material("CODEBRAIN_GOLDEN")


def write_toy_store(
    path: Path,
    *,
    n_subjects: int = 5,
    windows_per_subject: int = 12,
    seconds: int = 4,
    sfreq: float = 200.0,
    ch_names: tuple[str, ...] = MONTAGE,
    classes: tuple[str, ...] = (),
    seed: int = 0,
) -> Store:
    """A store of band-limited noise; with classes, class 1 has more alpha at the last two electrodes."""
    rng = np.random.default_rng(seed)
    n_times = int(seconds * sfreq)
    time = np.arange(n_times) / sfreq
    shards, recordings = [], []
    for row in range(n_subjects):
        shape = (windows_per_subject, len(ch_names), n_times)
        windows = np.cumsum(rng.standard_normal(shape), axis=-1)
        windows = 8 * (windows - windows.mean(-1, keepdims=True)) / windows.std(-1, keepdims=True)
        label = rng.integers(0, max(1, len(classes)), windows_per_subject)
        phase = rng.uniform(0, 2 * np.pi, (windows_per_subject, 1, 1))
        windows[:, -2:] += (3 + 17 * label[:, None, None]) * np.sin(2 * np.pi * 10 * time + phase)
        with ShardWriter(
            path,
            f"rec-{row:03d}",
            ch_names=ch_names,
            sfreq=sfreq,
            n_times=n_times,
            label_dtype=np.int64 if classes else None,
        ) as writer:
            start = np.arange(windows_per_subject) * float(seconds)
            writer.append(windows, recording=row, start=start, label=label if classes else None)
        assert writer.shard is not None
        shards.append(writer.shard)
        recordings.append(Recording(row=row, path=f"s{row}.edf", subject=f"s{row}", kept=windows_per_subject))
    task = TaskInfo(name="toy", protocol="corrected", class_names=classes) if classes else None
    return write_store(path, StoreInfo(sfreq=sfreq, window_seconds=seconds, task=task), shards, recordings)


def edit_index(store: Store, **changes: object) -> None:
    """Change keys of a store's index."""
    path = store.path / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(store: Store, number: int, change: Callable[[h5py.File], None]) -> Store:
    """The store with another content of a shard, which its digest fits."""
    shard = store.shards[number]
    with h5py.File(store.path / shard.file, "r+") as h5:
        change(h5)
        digest = begin_digest(shard.ch_names, h5["windows"].shape)
        digest.update(h5["windows"][:].tobytes())
        ended = end_digest(digest, {name: h5[name][:] for name in h5 if name != "windows"})
        h5.attrs["digest"] = ended
    shards = [*store.shards]
    shards[number] = dataclasses.replace(shard, digest=ended)
    edit_index(store, shards=[dataclasses.asdict(shard) for shard in shards])
    return Store.open(store.path)
