"""Whether a store's shards are all there and whole, looked at before long work: not at step 12,000.

`require_whole` looks at each file's size, `damaged_shards` reads every byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codebrain.data.format import HDF5_HEAD, Shard, Store, hdf5_size
from codebrain.data.shards import OpenShard, ShardError
from codebrain.progress import Bar

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_VERSION = 3
"""Of the superblock that ShardWriter writes, the byte after the signature."""

_NAMED = 4
"""Shards that a message lists."""

_DELAY_S = 1.0
"""Seconds after which a comparison shows how far it is."""


def require_whole(store: Store) -> None:
    """Raise ValueError unless every shard of a store is there, to its last byte.

    Finds what a copy that was cut short, a full disk or a deleted file left, at the price of opening each file once. A
    changed byte within a file is not found: that would take reading all of it, as `codebrain-prep check` does.
    """
    faults = {shard.file: fault for shard in store.shards if (fault := fault_of(store.path / shard.file))}
    if faults:
        listed = ", ".join(f"{file} {fault}" for file, fault in list(faults.items())[:_NAMED])
        raise ValueError(
            f"{store.path}: {len(faults)} of {len(store.shards)} shards cannot be used ({listed}"
            f"{', ...' if len(faults) > _NAMED else ''}). Delete those that are there and run the same codebrain-prep "
            "command again: it makes what is missing."
        )


def damaged_shards(folder: Path, sfreq: float, shards: Sequence[Shard], *, shown_as: str) -> dict[str, str]:
    """Read shards and compare them with their digests; a bar shows how far it is.

    Parameters
    ----------
    folder : Path
        Their store.
    sfreq : float
        Its sampling rate in Hz.
    shards : sequence of Shard
    shown_as : str
        Name of the bar.

    Returns
    -------
    dict of str to str
        What is wrong, by file, of those that do not hold what was written.
    """
    faults = {}
    total = sum(2 * shard.n * len(shard.ch_names) * shard.n_times for shard in shards)
    with Bar(total=total, unit="B", unit_scale=True, desc=shown_as, shown=bool(shards), delay=_DELAY_S) as bar:
        for shard in shards:
            path = folder / shard.file
            if not (fault := fault_of(path)):
                try:
                    with OpenShard(path, shard, sfreq) as opened:
                        for counts in opened.verified():
                            bar.update(counts.nbytes)
                except ShardError as error:
                    fault = f"cannot be used: {error.reason}"
            if fault:
                faults[shard.file] = fault
    return faults


def fault_of(path: Path) -> str:
    """What is wrong with a shard, in words; empty for one that is there to its last byte."""
    try:
        with path.open("rb") as file:
            head = file.read(HDF5_HEAD)
            size = file.seek(0, 2)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if len(head) < HDF5_HEAD or not head.startswith(_SIGNATURE):
        return "is no HDF5 file"
    if head[len(_SIGNATURE)] != _VERSION:
        return "was rewritten by another program"
    if size < (end := hdf5_size(head)):
        return f"has {size} of its {end} bytes"
    return ""
