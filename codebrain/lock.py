"""Locks on folders: of the processes that would write to one, the first keeps the others out. Needs no torch.

A lock is the operating system's lock on a file, which ends with the process that holds it, however that ends: a killed
process blocks nobody. Processes that are forked while it is held do not hold it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems without locks answer, some network file systems among them."""

_log = logging.getLogger(__name__)


def hold(path: Path, doing: str, remedy: str, *, patience: float = 0.0) -> FileLock | None:
    """Take the lock on a file, which stays where it is; whoever comes too late reads in it which process was first.

    Parameters
    ----------
    path : Path
        The file; it and its folder are made if they are not there.
    doing : str
        What the process that holds it does, for the message to others: "training in RUN".
    remedy : str
        What the others can do.
    patience : float
        Seconds to wait for it.

    Returns
    -------
    FileLock, or None where the file system has no locks, which is logged
        Held until `release` is called or the process ends.

    Raises
    ------
    ValueError
        Another process holds it.
    """
    lock = FileLock(path, thread_local=False, preserve_lock_file=True, on_acquired=_sign)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise ValueError(f"another process{_holder(path)} is {doing}; {remedy}.") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _log.warning(
            "%s cannot be locked (%s): see to it that no second process writes there", path.parent, error.strerror
        )
        return None
    return lock


def _sign(handle: int) -> None:
    """Write into the locked file who holds it."""
    os.ftruncate(handle, 0)
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(handle, f"{os.getpid()} on {socket.gethostname()}, since {began}".encode())


def _holder(path: Path) -> str:
    try:
        signed = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # Windows lets nobody else read a locked file
        return ""
    return f" ({signed})" if signed else ""
