"""A recipe: every constant between a recording and its windows.

Commands and tasks inherit its fields, across modules: annotations here and there are types, not strings, so that the
command line can see them.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data_prep.clean import CleanConfig
from data_prep.montage import MontageConfig
from data_prep.probe import GuardConfig
from data_prep.read import Unit
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

    def __post_init__(self) -> None:
        if self.windows.seconds * self.clean.sfreq < 2:
            raise ValueError(
                f"windows.seconds {self.windows.seconds:g} are fewer than two samples at {self.clean.sfreq:g} Hz"
            )


def recipe_of(constants: Mapping[str, Any]) -> Recipe:
    """The recipe among the constants of a preparation, as a store records them.

    Raises
    ------
    ValueError
        They name no recipe of this version.
    """
    parts = {"guard": GuardConfig, "channels": MontageConfig, "clean": CleanConfig, "windows": WindowConfig}
    names = [entry.name for entry in dataclasses.fields(Recipe)]
    try:
        return Recipe(**{name: parts[name](**constants[name]) if name in parts else constants[name] for name in names})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the preparation {dict(constants)} is no recipe of this version ({type(error).__name__}: {error}): no new "
            "recording can be prepared like that. Prepare the store again and train on it."
        ) from error
