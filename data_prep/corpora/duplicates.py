"""The same recording twice: copies and links, which a split could put on both of its sides."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_prep.corpora.files import files_of
from data_prep.corpora.source import Source

_READERS = 16  # files opened at a time: what takes long is the answer of a file server


def mark_duplicates(sources: Sequence[Source]) -> list[Source]:
    """The same sources; those that are the recording of another one say of which they are a copy.

    Recordings are the same if their sizes and the first and last 64 KiB of their files are. The first by its path
    stays, a file before a link.
    """
    by_size: dict[int, list[Source]] = defaultdict(list)
    for source in sources:
        if source.size and not source.unusable:
            by_size[source.size].append(source)
    alike = [source for group in by_size.values() if len(group) > 1 for source in group]
    with ThreadPoolExecutor(_READERS) as pool:
        digests = dict(zip((source.key for source in alike), pool.map(_digest, alike), strict=True))
    first: dict[tuple[int, str], str] = {}
    copies: dict[str, str] = {}
    for source in sorted(alike, key=lambda source: (os.path.islink(source.file), source.key)):
        if digests[source.key]:
            original = first.setdefault((source.size, digests[source.key]), source.key)
            if original != source.key:
                copies[source.key] = original
    return [
        dataclasses.replace(source, unusable=f"the same recording as {copies[source.key]}")
        if source.key in copies
        else source
        for source in sources
    ]


def _digest(source: Source) -> str:
    return files_of(Path(source.file)).digest()
