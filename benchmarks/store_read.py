"""Reading a store beside LMDB with pickled float64 arrays (CBraMod's way), on the same windows in one run.

    python benchmarks/store_read.py --output build/store_read              # two minutes, 4 GB of disk for its length

Simulated windows of 19 channels x 30 s at 200 Hz are written both ways; the store has one shard per recording, as
codebrain-prep writes it. Both sides hand over what a model trains on, float32 tensors. Each measurement has a process
of its own; rounds of the two sides alternate.

cold: windows one by one in random order, after the files have left the page cache (posix_fadvise DONTNEED; what the
disk itself or a host below a virtual machine keeps is out of reach). loader: batches of 32 through a DataLoader with
two workers, in the order of training, windows a second after the first batches have come; from a cold and from a warm
page cache.
"""

import argparse
import multiprocessing
import os
import pickle
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import measure
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from codebrain.channels import TEN_TWENTY_19
from codebrain.data.format import Recording, ShardWriter, StoreInfo, write_store
from codebrain.data.windows import Request, WindowDataset
from codebrain.patches import to_model_units
from codebrain.training.sampling import StepRequests, train_loader

SFREQ, SECONDS, PATCH = 200, 30, 200
BATCH, WORKERS, WARM_UP_BATCHES = 32, 2, 10


def main() -> None:
    options = parse()
    root = Path(tempfile.mkdtemp(dir=options.scratch))
    try:
        write(root, options.windows, options.windows_per_recording)
        sizes = {side: disk(root / side) / options.windows for side in SIDES}
        results = [compare(what, root, options) for what in ("cold", "cold loader", "warm loader")]
    finally:
        shutil.rmtree(root)
    report = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__},
        "windows": options.windows,
        "bytes_per_window": sizes,
        "windows_per_second": results,
    }
    measure.write(options.output, report)
    print(table(sizes, results))


def parse() -> argparse.Namespace:
    parser = measure.parser(__doc__, "store_read")
    parser.add_argument("--windows", type=int, default=3000)
    parser.add_argument("--windows_per_recording", type=int, default=40, help="windows of one shard")
    parser.add_argument("--reads", type=int, default=600, help="windows of a round of cold reads")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side, alternating")
    parser.add_argument("--scratch", type=Path, default=None, help="folder on the disk to measure")
    return parser.parse_args()


def write(root: Path, n: int, per_recording: int) -> None:
    """The same windows as a store and as an LMDB, in one pass."""
    rng = np.random.default_rng(0)
    n_times = SECONDS * SFREQ
    database = lmdb.open(str(root / "lmdb"), map_size=1 << 40)
    shards, keys = [], []
    recordings = [Recording(row=row, path=f"{row}.edf", subject=f"s{row}") for row in range(-(-n // per_recording))]
    for recording in recordings:
        windows = rng.standard_normal((min(per_recording, n - len(keys)), len(TEN_TWENTY_19), n_times))
        # Brown noise of 30 microvolts: neighbouring samples resemble each other as in EEG.
        windows = np.cumsum(windows, axis=-1)
        windows = 30 * (windows - windows.mean(-1, keepdims=True)) / windows.std(-1, keepdims=True)
        name = f"{recording.row:05d}"
        with ShardWriter(root / "store", name, ch_names=TEN_TWENTY_19, sfreq=SFREQ, n_times=n_times) as writer:
            writer.append(windows, recording=recording.row, start=np.arange(len(windows)) * float(SECONDS))
        shards.append(writer.shard)
        for window in windows:
            keys.append(f"{name}_{len(keys)}")
            with database.begin(write=True) as transaction:
                transaction.put(keys[-1].encode(), pickle.dumps(window.reshape(len(window), -1, PATCH)))
    with database.begin(write=True) as transaction:
        transaction.put(b"__keys__", pickle.dumps(keys))
    database.close()
    write_store(root / "store", StoreInfo(sfreq=SFREQ, window_seconds=SECONDS), shards, recordings)


class PickledWindows(Dataset[torch.Tensor]):
    """CBraMod's dataset: one pickled float64 array per key."""

    def __init__(self, folder: Path) -> None:
        self._database = lmdb.open(str(folder), readonly=True, lock=False, readahead=True, meminit=False)
        with self._database.begin() as transaction:
            self._keys = pickle.loads(transaction.get(b"__keys__"))

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> torch.Tensor:
        with self._database.begin(write=False) as transaction:
            window = pickle.loads(transaction.get(self._keys[index].encode()))
        return torch.from_numpy(window).float() / 100


def one_by_one_store(folder: Path) -> Callable[[int], torch.Tensor]:
    dataset = WindowDataset([folder])
    return lambda index: to_model_units(dataset[Request(np.array([index]))].x)


def one_by_one_lmdb(folder: Path) -> Callable[[int], torch.Tensor]:
    return PickledWindows(folder).__getitem__


def loader_store(folder: Path) -> Iterator[torch.Tensor]:
    dataset = WindowDataset([folder])
    steps = range(len(dataset) // BATCH)
    requests = StepRequests(dataset, batch_size=BATCH, accumulation=1, steps=steps, seed=0)
    return (to_model_units(batch.x) for batch in train_loader(requests, dataset, num_workers=WORKERS, pin=False))


def loader_lmdb(folder: Path) -> Iterator[torch.Tensor]:
    # Forked: an LMDB environment cannot be pickled.
    loader = DataLoader(
        PickledWindows(folder), BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, multiprocessing_context="fork"
    )
    return iter(loader)


SIDES = {"store": (one_by_one_store, loader_store), "lmdb": (one_by_one_lmdb, loader_lmdb)}


def compare(what: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Windows a second of both sides: the median of rounds that alternate, each in a process of its own."""
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    context = multiprocessing.get_context("spawn")
    for number in range(options.rounds):
        for side, rates in found.items():
            (forget if "cold" in what else load)(root / side)
            # No daemon: its DataLoader has processes of its own.
            parent, child = context.Pipe()
            process = context.Process(target=rate, args=(child, what, side, root / side, options, number))
            process.start()
            child.close()
            rates.append(parent.recv())
            process.join()
    return {"what": what, **{side: statistics.median(rates) for side, rates in found.items()}, "rounds": found}


def rate(answer: Any, what: str, side: str, folder: Path, options: argparse.Namespace, seed: int) -> None:
    """Send windows a second."""
    torch.set_num_threads(1)
    one_by_one, loader = SIDES[side]
    n = options.windows
    if what == "cold":
        read = one_by_one(folder)
        order = np.random.default_rng(seed).permutation(n)[: options.reads].tolist()
        began = time.perf_counter()
        for index in order:
            read(index)
        answer.send(len(order) / (time.perf_counter() - began))
        return
    batches = loader(folder)
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    # The end of the workers is not waited for.
    n_batches = n // BATCH - WARM_UP_BATCHES
    began = time.perf_counter()
    for _ in range(n_batches):
        next(batches)
    answer.send(n_batches * BATCH / (time.perf_counter() - began))


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def forget(folder: Path) -> None:
    """Drop the files from the page cache."""
    for path in files(folder):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def load(folder: Path) -> None:
    """Bring the files into the page cache."""
    for path in files(folder):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def disk(folder: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in files(folder))


def table(sizes: dict[str, float], results: list[dict[str, Any]]) -> str:
    lines = ["| what | store | LMDB, pickled float64 | ratio |", "|---|---|---|---|"]
    names = {"cold": "cold random reads, windows/s", "cold loader": "DataLoader, 2 workers, cold, windows/s"}
    for row in results:
        name = names.get(row["what"], "DataLoader, 2 workers, warm, windows/s")
        rates = [f"{row[side]:.0f} ({min(found):.0f}-{max(found):.0f})" for side, found in row["rounds"].items()]
        lines.append(f"| {name} | {' | '.join(rates)} | {row['store'] / row['lmdb']:.2f} |")
    kb = {side: size / 1e3 for side, size in sizes.items()}
    lines.append(f"| disk, kB per window | {kb['store']:.1f} | {kb['lmdb']:.1f} | {kb['store'] / kb['lmdb']:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
