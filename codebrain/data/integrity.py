"""Whether a store's shards are all there and whole, looked at before long work: not at step 12,000."""

from __future__ import annotations

from pathlib import Path

from codebrain.data.format import Store

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_VERSION = 3
"""Of the superblock that ShardWriter writes, the byte after the signature; its addresses have 8 bytes."""

_SUPERBLOCK = slice(28, 36)
"""Where it has the address of the file's end."""

_NAMED = 4
"""Shards that a message lists."""


def require_whole(store: Store) -> None:
    """Raise ValueError unless every shard of a store is there, to its last byte.

    Finds what a copy that was cut short, a full disk or a deleted file left, at the price of opening each file once. A
    changed byte within a file is not found: that would take reading all of it.
    """
    faults = {shard.file: fault for shard in store.shards if (fault := fault_of(store.path / shard.file))}
    if faults:
        listed = ", ".join(f"{file} {fault}" for file, fault in list(faults.items())[:_NAMED])
        raise ValueError(
            f"{store.path}: {len(faults)} of {len(store.shards)} shards cannot be used ({listed}"
            f"{', ...' if len(faults) > _NAMED else ''}). Delete those that are there and run the same codebrain-prep "
            "command again: it makes what is missing."
        )


def fault_of(path: Path) -> str:
    """What is wrong with a shard, in words; empty for one that is there to its last byte."""
    try:
        with path.open("rb") as file:
            head = file.read(_SUPERBLOCK.stop)
            size = file.seek(0, 2)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if len(head) < _SUPERBLOCK.stop or not head.startswith(_SIGNATURE):
        return "is no HDF5 file"
    if head[len(_SIGNATURE)] != _VERSION:
        return "was packed anew by another program"
    if size < (end := int.from_bytes(head[_SUPERBLOCK], "little")):
        return f"has {size} of its {end} bytes"
    return ""
