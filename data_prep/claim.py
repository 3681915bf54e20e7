"""Which processes may prepare a store at the same time: one command, or the parts of one job array.

    STORE/progress/.lock          held while a command looks who else is there, and plans
                   whole.lock     held by a command without --shard, for as long as it works
                   1-of-4.lock    held by the part --shard 1/4, likewise

The parts of an array work beside each other, on one machine or on several; everybody else has to wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codebrain.lock import hold

_PATIENCE_S = 120.0
"""Seconds to wait for the parts of an array that began a moment earlier: each reads and writes the plan."""


@contextmanager
def planning(progress: Path) -> Iterator[None]:
    """Let no other process plan meanwhile."""
    with _held(progress / ".lock", "planning", progress, _PATIENCE_S):
        yield


@contextmanager
def preparing(progress: Path, part: int, parts: int) -> Iterator[bool]:
    """Hold a part of the preparation, number `part` (from 0) of `parts`; to be entered while `planning`.

    Yields whether it is held, which it is not where the file system has no locks.

    Raises
    ------
    ValueError
        Another process prepares the whole, the same part, or a part of an array that divides the store otherwise.
    """
    own = progress / ("whole.lock" if parts == 1 else f"{part + 1}-of-{parts}.lock")
    for other in sorted(progress.glob("*.lock")):
        is_beside = parts > 1 and other.stem.endswith(f"-of-{parts}")
        if other not in (own, progress / ".lock") and not is_beside:
            with _held(other, _in_words(other), progress):
                pass
    with _held(own, _in_words(own), progress) as is_held:
        yield is_held


def _in_words(lock: Path) -> str:
    number, _, parts = lock.stem.partition("-of-")
    return f"preparing part {number}/{parts} of" if parts else "preparing"


@contextmanager
def _held(path: Path, doing: str, progress: Path, patience: float = 0.0) -> Iterator[bool]:
    remedy = "wait for its end, or give another --output"
    lock = hold(path, f"{doing} {progress.parent}", remedy, patience=patience)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()
