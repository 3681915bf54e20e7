"""Which channels the windows hold, and how each is made from the file's: one matrix for all of it.

Selecting, subtracting for a bipolar derivation, interpolating and re-referencing are linear and do not mix times, so
they are one (C_out, C_in) matrix, applied before the filters to whatever piece of the recording is at hand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import mne
import numpy as np
import numpy.typing as npt

from codebrain.channels import ELECTRODES, bare_label, bipolar_pair, canonical_name, positions
from data_prep.read import UnusableError

_MASTOIDS = (("A1", "A2"), ("M1", "M2"))
# BioSemi's caps count A1..A32, B1..B32, ...: their C3 is not where the 10-20 system's is.
_BIOSEMI = re.compile(r"^[ABD]\d+$")
_MANY_FOREIGN = 8
_RENAME = "--channels.rename"
_IF_KNOWN = f"If you know which electrodes these are, say so with {_RENAME}"
_HEAD_RADIUS = 0.095  # metres
_MIN_TO_INTERPOLATE = 4
_FEW = 0.2  # of the wanted channels; more are not offered to be filled in: splines add nothing to what is there
_LISTED = 8


@dataclass(frozen=True, kw_only=True)
class MontageConfig:
    """Which channels the windows hold."""

    names: list[str] = field(default_factory=list)
    """Electrodes ("Fp1"), bipolar pairs ("Fp1-F7") or other channels of the file, in this order; empty: every scalp
    electrode that the recording has."""
    min_channels: int = 1
    """With empty `names`: recordings with fewer scalp electrodes are left out."""
    rename: dict[str, str] = field(default_factory=dict)
    """Electrode that a label of the files stands for, where no naming scheme tells: {"E36": C3, "Fp1-Cz": Fp1}."""
    max_interpolated: int = 0
    """How many missing electrodes may be filled in by spherical splines; with more the recording is left out."""
    reference: Literal["as_recorded", "average", "linked_mastoids"] = "as_recorded"
    """Potential to which the channels refer."""

    def __post_init__(self) -> None:
        names = Counter(_canonical(name) for name in self.names)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"channels.names {self.names} names {', '.join(twice)} more than once")
        if self.max_interpolated < 0:
            raise ValueError(f"channels.max_interpolated is {self.max_interpolated}; it cannot be negative")


@dataclass(frozen=True, kw_only=True)
class Montage:
    """How the channels of the windows are made from those of one recording."""

    ch_names: tuple[str, ...]
    """Canonical names of the C_out channels."""
    labels: tuple[str, ...]
    """Labels of the C_in channels of the file that are needed."""
    matrix: npt.NDArray[np.float64] | None
    """(C_out, C_in); None if the channels are the file's own, in this order."""
    note: str = ""
    """What had to be done, for the recording's row."""

    def __call__(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """(C_in, T) samples of the file's channels to (C_out, T)."""
        return x if self.matrix is None else self.matrix.astype(x.dtype) @ x


def plan_montage(labels: Sequence[str], config: MontageConfig) -> Montage:
    """Find the wanted channels among a recording's labels.

    Raises
    ------
    UnusableError
        Wanted channels are missing; the message names them.
    """
    at = _index([config.rename.get(label, label) for label in labels])
    electrodes = [name for name in ELECTRODES if name in at]
    wanted = [_canonical(name) for name in config.names] or electrodes
    if not wanted or len(electrodes) < (0 if config.names else config.min_channels):
        reason = f"{len(electrodes)} scalp electrodes among its channels: {_listed(labels)}"
        raise UnusableError(reason, _IF_KNOWN, flag=_RENAME)
    rows = {name: row for name in wanted if (row := _row(name, at)) is not None}
    missing = [name for name in wanted if name not in rows]
    if missing:
        _check_missing(missing, wanted, labels, config.max_interpolated, n_known=len(electrodes))
        rows |= _interpolated(missing, {name: at[name] for name in electrodes})
    matrix = np.zeros((len(wanted), len(labels)))
    for index, name in enumerate(wanted):
        for source, weight in rows[name].items():
            matrix[index, source] += weight
    matrix = _rereference(matrix, at, config.reference)
    return _montage(wanted, labels, matrix, note=f"interpolated {', '.join(missing)}" if missing else "")


def missing_channels(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of the named channels that a recording with these labels neither has nor gives as a difference."""
    at = _index(labels)
    return [name for name in names if _row(_canonical(name), at) is None]


def _montage(wanted: list[str], labels: Sequence[str], matrix: npt.NDArray[np.float64], note: str) -> Montage:
    choice = matrix.argmax(axis=1)
    is_choice = np.array_equal(matrix, np.eye(len(labels))[choice])
    used = choice if is_choice else np.flatnonzero(matrix.any(axis=0))
    return Montage(
        ch_names=tuple(wanted),
        labels=tuple(labels[index] for index in used.tolist()),
        matrix=None if is_choice else matrix[:, used],
        note=note,
    )


def _index(labels: Sequence[str]) -> dict[str, int]:
    """Where each electrode, bipolar pair and other channel is; of duplicates the first counts."""
    foreign = sum(bool(_BIOSEMI.match(bare_label(label))) for label in labels)
    at: dict[str, int] = {}
    for index, label in enumerate(labels):
        if foreign >= _MANY_FOREIGN and canonical_name(label):
            continue
        at.setdefault(bare_label(label), index)
        at.setdefault(_canonical(label), index)
    return at


def _canonical(label: str) -> str:
    """Name under which a channel is known here: "FP1-F7" is "Fp1-F7", "EEG A2-A1" is "A2-A1"."""
    pair = bipolar_pair(label)
    return canonical_name(label) or ("-".join(pair) if pair else bare_label(label))


def _row(name: str, at: dict[str, int]) -> dict[int, float] | None:
    """Weights of the file's channels in one wanted channel, or None if they are not there."""
    if name in at:
        return {at[name]: 1.0}
    pair = bipolar_pair(name)
    if pair and pair[0] in at and pair[1] in at:
        return {at[pair[0]]: 1.0, at[pair[1]]: -1.0}
    return None


def _check_missing(
    missing: list[str], wanted: list[str], labels: Sequence[str], max_interpolated: int, n_known: int
) -> None:
    if len(missing) == len(wanted):
        raise UnusableError(f"none of the wanted channels; it has {_listed(labels)}", _IF_KNOWN, flag=_RENAME)
    fillable = [name for name in missing if canonical_name(name) and bipolar_pair(name) is None]
    could = len(fillable) == len(missing) and n_known >= _MIN_TO_INTERPOLATE
    if len(missing) > max_interpolated or not could:
        reason = f"lacks {len(missing)} of {len(wanted)} wanted channels: {_listed(missing)}"
        if not could or len(missing) > _FEW * len(wanted):
            raise UnusableError(reason)
        flag = "--channels.max_interpolated"
        raise UnusableError(reason, f"{flag} {len(missing)} would fill them in", flag=flag)


def _interpolated(missing: list[str], at: dict[str, int]) -> dict[str, dict[int, float]]:
    """Spherical-spline weights (Perrin et al. 1989) of the electrodes that are there.

    Interpolation is linear, so MNE's answer to the identity is its matrix.
    """
    names = [*at, *missing]
    info = mne.create_info(names, sfreq=1.0, ch_types="eeg")
    places = dict(zip(names, positions(names) * _HEAD_RADIUS, strict=True))
    info.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))
    info["bads"] = missing
    identity = np.eye(len(names), len(at))
    raw = mne.io.RawArray(identity, info, verbose="error").interpolate_bads(origin=(0, 0, 0), verbose="error")
    weights = raw.get_data()[len(at) :]
    return {name: dict(zip(at.values(), row.tolist(), strict=True)) for name, row in zip(missing, weights, strict=True)}


def _rereference(matrix: npt.NDArray[np.float64], at: dict[str, int], reference: str) -> npt.NDArray[np.float64]:
    if reference == "average":
        return matrix - matrix.mean(axis=0)
    if reference == "linked_mastoids":
        ears = next(([at[left], at[right]] for left, right in _MASTOIDS if left in at and right in at), None)
        if ears is None:
            raise UnusableError("linked mastoids wanted, but it has neither A1 and A2 nor M1 and M2")
        matrix = matrix.copy()
        matrix[:, ears] -= 0.5
    return matrix


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
