"""Which shards are known to be on the disk: a power cut can take from the others what a process wrote and closed.

    STORE/store.json                     written after all its shards were flushed
          progress/flushed.json          what it listed, once it is taken down for more recordings
          progress/flushed-1-of-4.json   what the part --shard 1/4 flushed at its end

The next run compares the shards that stand in none of them with their digests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from codebrain.data.format import Shard, flush, write_text


def flush_and_note(folder: Path, shards: Iterable[Shard], part: str = "") -> None:
    """Flush shards, and note that they were; `part` is such as "1-of-4"."""
    shards = list(shards)
    if not shards:
        return
    flush(folder, shards)
    noted = {shard.file: [shard.digest, _written(folder / shard.file)] for shard in shards}
    write_text(folder / "progress" / f"flushed{'-' if part else ''}{part}.json", json.dumps(noted))


def not_flushed(folder: Path, shards: Iterable[Shard]) -> list[Shard]:
    """Those of the shards that a power cut may have damaged: written since the last flush."""
    listed = {(shard["file"], shard["digest"]) for shard in _read(folder / "store.json").get("shards", [])}
    noted: set[tuple[str, str, int]] = set()
    for path in (folder / "progress").glob("flushed*.json"):
        noted |= {(file, *note) for file, note in _read(path).items()}
    return [
        shard
        for shard in shards
        if (shard.file, shard.digest) not in listed
        and (shard.file, shard.digest, _written(folder / shard.file)) not in noted
    ]


def _written(path: Path) -> int:
    """When a file was written: one that was written again is another."""
    return path.stat().st_mtime_ns


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is none, or a damaged one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
