"""How long work is followed: a bar on a terminal, a line now and then in a log file. Needs no torch."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

_TERMINAL_S, _LOG_FILE_S = 0.5, 30.0
"""Seconds between two drawings of a bar, and between two lines of a log file."""

_CURSOR_UP = "\x1b[A"
"""What a bar below another one ends with."""


class _Lines:
    """A file that gets every state of a bar as a line of its own, instead of drawn over the one before."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write what is not empty as a line."""
        if text := text.replace(_CURSOR_UP, "").strip():
            self._file.write(text + "\n")

    def flush(self) -> None:
        """Hand it on."""
        self._file.flush()


class Bar(tqdm):
    """A bar on standard error.

    Parameters
    ----------
    total : int
    unit : str
        What is counted.
    shown : bool
        Whether this process shows it; a bar that is not shown costs next to nothing.
    **options
        Of tqdm: `desc`, `initial`, `leave`, `delay` ...
    """

    def __init__(self, *, total: int, unit: str, shown: bool = True, **options: Any) -> None:
        terminal = sys.stderr.isatty()
        super().__init__(
            total=total,
            unit=unit,
            disable=not shown,
            file=sys.stderr if terminal else _Lines(sys.stderr),
            dynamic_ncols=terminal,
            mininterval=_TERMINAL_S if terminal else _LOG_FILE_S,
            # A log file's lines lie far apart: the mean over all of them tells more than the last few seconds.
            smoothing=0.3 if terminal else 0.0,
            **options,
        )
