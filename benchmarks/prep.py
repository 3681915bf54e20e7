"""Preparation against the published way of doing it, on the same recordings in one run.

    python benchmarks/prep.py FOLDER [--config data_prep/configs/pretrain.yaml] [flags of codebrain-prep corpus]

The other way is CBraMod's: MNE's FFT resampling, FIR filter and notch on the whole recording, windows as pickled
float64 in an LMDB, one transaction each, one process. Prints seconds by the clock and of the processors (which other
programs on the machine disturb less), bytes and how far the spectra differ.
Needs the package lmdb.
"""

import dataclasses
import os
import pickle
import shutil
import sys
import tempfile
import time
from pathlib import Path

import lmdb
import mne
import numpy as np
from scipy.signal import welch

from codebrain.channels import canonical_name
from codebrain.config import parse, to_dict
from codebrain.data.format import Store
from codebrain.data.shards import open_shard
from data_prep.cli import CorpusCommand
from data_prep.corpora import find_recordings
from data_prep.engine import EngineConfig
from data_prep.output import Preparation
from data_prep.recipe import Recipe


def published(sources, recipe: Recipe, folder: Path) -> None:
    """The steps of CBraMod's script with the recipe's constants."""
    database = lmdb.open(str(folder), map_size=1 << 36)
    keys = []
    length = round(recipe.windows.seconds * recipe.clean.sfreq)
    for source in sources:
        raw = mne.io.read_raw(source.file, preload=True, verbose="error")
        at = {canonical_name(label): label for label in reversed(raw.ch_names)}
        raw.pick([at[canonical_name(name)] for name in recipe.channels.names])
        raw.reorder_channels([at[canonical_name(name)] for name in recipe.channels.names])
        raw.resample(recipe.clean.sfreq, verbose="error")
        raw.filter(recipe.clean.l_freq, recipe.clean.h_freq, verbose="error")
        if isinstance(recipe.clean.notch, float):
            raw.notch_filter(recipe.clean.notch, verbose="error")
        x = raw.get_data(units="uV")
        first, last = (round(s * recipe.clean.sfreq) for s in (recipe.windows.drop_first, recipe.windows.drop_last))
        if x.shape[1] < recipe.windows.min_recording * recipe.clean.sfreq:
            continue
        for index, begin in enumerate(range(first, x.shape[1] - last - length + 1, length)):
            window = x[:, begin : begin + length]
            if np.abs(window).max() < (recipe.windows.max_uv or np.inf):
                key = f"{source.key}_{index}"  # its stem alone need not be unique
                with database.begin(write=True) as transaction:
                    transaction.put(key.encode(), pickle.dumps(window.reshape(len(window), -1, 200)))
                keys.append(key)
    with database.begin(write=True) as transaction:
        transaction.put(b"__keys__", pickle.dumps(keys))
    database.close()


def ours(sources, recipe: Recipe, folder: Path, workers: int) -> None:
    Preparation(store=str(folder), recipe=recipe, sources=sources, constants=to_dict(recipe)).run(
        EngineConfig(workers=workers)
    )


def mean_spectrum(windows, sfreq: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean power spectral density over windows (C, T) and channels."""
    spectra = []
    for window in windows:
        freqs, power = welch(window, sfreq, nperseg=round(2 * sfreq))
        spectra.append(power.mean(axis=0))
    return freqs, np.mean(spectra, axis=0)


def windows_of_lmdb(folder: Path):
    with lmdb.open(str(folder), readonly=True).begin() as transaction:
        for key in pickle.loads(transaction.get(b"__keys__")):
            window = pickle.loads(transaction.get(key.encode()))
            yield window.reshape(len(window), -1)


def windows_of_store(folder: Path):
    store = Store.open(folder)
    for shard in store.shards:
        with open_shard(store, shard) as opened:
            yield from map(opened.microvolts, range(shard.n))


def disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def timed(function, *arguments) -> tuple[float, float]:
    """Seconds by the clock, and of the processors in this process and those that it started."""
    began, before = time.perf_counter(), sum(os.times()[:4])
    function(*arguments)
    return time.perf_counter() - began, sum(os.times()[:4]) - before


def main() -> None:
    arguments = [*sys.argv[1:], "--output", "unused"]
    given = parse(CorpusCommand, arguments, prog="benchmarks/prep.py", description="", positional=["paths"])
    recipe = Recipe(**{name: getattr(given, name) for name in Recipe.__dataclass_fields__})
    # Copies of a recording serve as well as others here.
    sources = [dataclasses.replace(source, unusable="") for source in find_recordings(given.paths)]
    root = Path(tempfile.mkdtemp())
    for source in sources:
        Path(source.file).read_bytes()  # all from a warm cache
    timed(ours, sources[:1], recipe, root / "warm", 1)
    seconds = {
        "published": timed(published, sources, recipe, root / "published"),
        "ours, 1 process": timed(ours, sources, recipe, root / "one", 1),
        "ours, 2 processes": timed(ours, sources, recipe, root / "two", 2),
    }
    freqs, theirs = mean_spectrum(windows_of_lmdb(root / "published"), recipe.clean.sfreq)
    _, mine = mean_spectrum(windows_of_store(root / "one"), recipe.clean.sfreq)
    band = (freqs >= 1) & (freqs <= 40)
    hours = sum(recording.hours for recording in Store.open(root / "one").recordings)
    print(f"\n{len(sources)} recordings, {hours:.1f} hours")
    for name, (clock, processors) in seconds.items():
        times = [seconds[other][0] / clock for other in ("published", "ours, 1 process")]
        print(
            f"{name:20} {clock:6.1f} s, {times[0]:5.2f} x the published way, {times[1]:5.2f} x one process;"
            f" {processors:6.1f} s of the processors, {seconds['published'][1] / processors:5.2f} x"
        )
    bytes_each = {
        name: disk(root / name) / sum(1 for _ in windows(root / name))
        for name, windows in (("published", windows_of_lmdb), ("one", windows_of_store))
    }
    print(f"disk per window      {bytes_each['published'] / bytes_each['one']:8.2f} x less")
    print(f"spectra, 1 to 40 Hz  {np.abs(10 * np.log10(mine / theirs))[band].max():8.3f} dB at most")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
