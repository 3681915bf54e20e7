"""Which subjects are held out: no subject has windows on both sides."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from codebrain.data.windows import WindowDataset


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Which subjects are held out to validate on."""

    valid_fraction: float = 0.1
    """Share of the subjects to hold out, at least one. A subject's side follows from a hash of the name, the same in
    every store and whatever stores are added; the share is met on average."""
    valid_subjects: list[str] = field(default_factory=list)
    """Names of the subjects to hold out, instead of a share; wildcards such as `Subject3*` are understood."""
    seed: int = 0
    """Which draw of subjects."""


def split_subjects(dataset: WindowDataset, config: SplitConfig) -> tuple[WindowDataset, WindowDataset]:
    """Training and validation windows, no subject in both.

    Raises
    ------
    ValueError
        A name that matches no subject, or a side left empty.
    """
    names = dataset.subject_names
    left_out = held_out(names, config)
    training = [name for name in names if name not in left_out]
    if not left_out or not training:
        raise ValueError(
            f"{len(left_out)} of {len(names)} subjects would be held out, which leaves {len(training)} to train on; "
            "both sides need at least one. Change --split.valid_fraction or --split.valid_subjects, or add recordings."
        )
    return dataset.of_subjects(training), dataset.of_subjects(sorted(left_out))


def held_out(names: Sequence[str], config: SplitConfig) -> set[str]:
    """Subjects on the validation side; ValueError for a name that matches none."""
    return _matching(names, config.valid_subjects) if config.valid_subjects else _drawn(names, config)


def _drawn(names: Sequence[str], config: SplitConfig) -> set[str]:
    if not 0 < config.valid_fraction < 1:
        raise ValueError(f"--split.valid_fraction is {config.valid_fraction}; it must lie between 0 and 1.")
    place = {name: _place(name, config.seed) for name in names}
    # The lowest subject is held out in any case: some must be.
    return {min(place, key=place.__getitem__)} | {name for name in names if place[name] < config.valid_fraction}


def _place(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on the subject's name and the seed alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7]) / 2**56


def _matching(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ValueError(
                f"--split.valid_subjects: no subject matches {pattern!r}; subjects are {', '.join(names[:8])} ..."
            )
        chosen.update(matched)
    return chosen
