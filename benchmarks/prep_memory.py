"""Time and peak memory of preparing one long recording of 64 channels at 512 Hz.

    python benchmarks/prep_memory.py HOURS FOLDER

The recording, a minute of noise over and over, is written to FOLDER (0.24 GB per hour) and removed in the end.
"""

import datetime
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from edfio import Edf, EdfSignal, Recording

from codebrain.channels import ELECTRODES
from data_prep.corpora import find_recordings
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig
from data_prep.write import Job, prepare

SFREQ, N_CHANS, BLOCK_SECONDS = 512.0, 64, 60


def write_long(file: Path, hours: float) -> None:
    """An EDF whose data records are those of one minute, over and over."""
    x = 15 * np.random.default_rng(0).standard_normal((N_CHANS, round(BLOCK_SECONDS * SFREQ)))
    signals = [
        EdfSignal(row, SFREQ, label=name, physical_dimension="uV")
        for row, name in zip(x, ELECTRODES[:N_CHANS], strict=True)
    ]
    recording = Recording(startdate=datetime.date(2020, 1, 1))
    Edf(signals, recording=recording, data_record_duration=1.0).write(file)
    content = file.read_bytes()
    header_bytes, n_blocks = int(content[184:192]), round(hours * 3600 / BLOCK_SECONDS)
    with file.open("wb") as out:
        out.write(content[:236] + f"{n_blocks * BLOCK_SECONDS:<8}".encode() + content[244:header_bytes])
        for _ in range(n_blocks):
            out.write(content[header_bytes:])


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    hours, folder = float(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    file, store = folder / "long.edf", folder / "store"
    write_long(file, hours)
    recipe = Recipe(windows=WindowConfig(max_uv=None))
    before, began = peak_mb(), time.perf_counter()
    result = prepare(Job(store=str(store), row=0, source=find_recordings([file])[0], recipe=recipe))
    seconds = time.perf_counter() - began
    if result.recording.status != "ok":
        raise SystemExit(f"not prepared: {result.recording.reason}")
    print(f"{hours:g} hours, {file.stat().st_size / 1e9:.2f} GB: {result.recording.kept} windows in {seconds:.1f} s,")
    print(f"{peak_mb():.0f} MB at the peak, {before:.0f} MB before")
    file.unlink()
    shutil.rmtree(store)


if __name__ == "__main__":
    main()
