"""What SIGTERM does, which clusters send some time before they take a machine away.

A run ends at it with a code of its own, so that the script that launched it knows to launch it again: in the training
loop once the step is saved, anywhere else at once, since caches, checkpoints and exports appear whole or not at all.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 75
"""Exit code after SIGTERM: the run can be launched again (EX_TEMPFAIL of sysexits.h)."""


def end_at_once(*, speaks: bool) -> None:
    """From here on SIGTERM ends this process without delay; outside the main thread nothing changes.

    Parameters
    ----------
    speaks : bool
        Whether this process says so.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: _end(speaks=speaks))


def _end(*, speaks: bool) -> None:
    """Leave by the shortest way: an exception might be caught, an orderly end wait for others."""
    if speaks:
        os.write(2, b"\nstopped by SIGTERM; nothing is lost: launch again to go on.\n")
    os._exit(INTERRUPTED)


@contextmanager
def noted() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of what it did before."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
