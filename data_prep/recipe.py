"""A recipe: every constant between a recording and its windows.

Commands and tasks inherit its fields, across modules: annotations here and there are types, not strings, so that the
command line can see them.
"""

from dataclasses import dataclass, field
from typing import Literal

from data_prep.clean import CleanConfig
from data_prep.montage import MontageConfig
from data_prep.read import GuardConfig, Unit
from data_prep.windows import WindowConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to a recording, in this order: read, choose channels, clean, cut, reject."""

    unit: Unit = "auto"
    """Unit of the numbers in the files; `auto` believes their headers, anything else overrules them."""
    truncated: Literal["refuse", "keep"] = "refuse"
    """Whether a file that ends before its header says is used up to where it ends."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """Which amplitudes a recording in the right unit can have."""
    channels: MontageConfig = field(default_factory=MontageConfig)
    """Which channels the windows hold."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Sampling rate and filters."""
    windows: WindowConfig = field(default_factory=WindowConfig)
    """Length of the windows and what makes one unusable."""
