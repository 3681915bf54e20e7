"""Which channels the windows hold, and how each is made from the file's.

Selecting, subtracting for a bipolar derivation, interpolating and linking mastoids are linear and do not mix times, so
they are one (C_out, C_in) matrix, applied before the filters to whatever piece of the recording is at hand. The average
reference comes last, on windows whose channels were seen to move: after it a dead channel would look alive.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import mne
import numpy as np
import numpy.typing as npt

from codebrain.channels import ELECTRODES, bare_label, bipolar_pair, canonical_name, channel_type, positions
from data_prep.read import UnusableError

_MASTOIDS = (("A1", "A2"), ("M1", "M2"))
# BioSemi's caps count A1..A32, B1..B32, ...: their C3 is not where the 10-20 system's is.
_BIOSEMI = re.compile(r"^[ABD]\d+$")
_NET = re.compile(r"^[A-H]\d+$")  # EGI counts E1 to E256, BioSemi A1 to H32
_MANY_FOREIGN = 8
_RENAME = "--channels.rename"
_WHICH = f"{_RENAME} says which they are"
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
    """Potential to which the channels refer. The average is that of the channels of the windows, without those in which
    nothing moves."""

    def __post_init__(self) -> None:
        names = Counter(known_as(name) for name in self.names)
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
    is_averaged: bool = False
    """Whether the windows refer to the average of their channels, see `average_reference`."""
    reference_labels: tuple[str, ...] = ()
    """Labels of the electrodes that the matrix refers all channels to."""
    note: str = ""
    """What was left out, chosen or filled in, for the recording's row."""

    def __call__(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """(C_in, T) samples of the file's channels to (C_out, T)."""
        return x if self.matrix is None else self.matrix.astype(x.dtype) @ x

    def made_from(self, unusable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which channels (C_out, ...) are made from some that cannot be used (C_in, ...)."""
        return unusable if self.matrix is None else (self.matrix != 0).astype(int) @ unusable > 0


def average_reference(x: npt.NDArray[np.floating], left_out: npt.NDArray[np.bool_]) -> npt.NDArray[np.floating]:
    """(C, T) channels less the mean of those that are not left out (C,)."""
    return x - x[~left_out].mean(axis=0)


def plan_montage(labels: Sequence[str], config: MontageConfig, unfit: Mapping[str, str] | None = None) -> Montage:
    """Find the wanted channels among a recording's labels.

    Parameters
    ----------
    labels : sequence of str
        Of the channels that the reader takes for EEG.
    config : MontageConfig
    unfit : mapping, optional
        Labels of channels that must not be used, with the reason: {"EEG T3": "marked bad in the file"}.

    Raises
    ------
    UnusableError
        Wanted channels are missing; the message names them.
    """
    reasons = {known_as(config.rename.get(label, label)): reason for label, reason in (unfit or {}).items()}
    fit = [label for label in labels if label not in (unfit or {})]
    at, rivals = _index(fit, config.rename)
    electrodes = [name for name in ELECTRODES if name in at]
    wanted = [known_as(name) for name in config.names] or electrodes
    if not wanted or len(electrodes) < (0 if config.names else config.min_channels):
        reason = f"{len(electrodes)} scalp electrodes among its channels: {_listed(labels)}"
        raise UnusableError(reason, _IF_KNOWN, flag=_RENAME)
    rows = {name: row for name in wanted if (row := _row(name, at)) is not None}
    missing = [name for name in wanted if name not in rows]
    if missing:
        _check_missing(missing, wanted, fit, config.max_interpolated, n_known=len(electrodes), reasons=reasons)
        rows |= _interpolated(missing, {name: at[name] for name in electrodes})
    matrix = np.zeros((len(wanted), len(fit)))
    for index, name in enumerate(wanted):
        for source, weight in rows[name].items():
            matrix[index, source] += weight
    ears: list[int] = []
    if config.reference == "linked_mastoids":
        ears = _ears(at, reasons)
        matrix[:, ears] -= 0.5
    used = np.flatnonzero(matrix.any(axis=0)).tolist()
    used_labels = [fit[column] for column in used]
    known = {*used_labels, *(fit[other] for column in used for other in rivals.get(column, []))}
    notes = [
        _said_unfit(reasons, wanted if config.names else ELECTRODES),
        *_said_rivals(fit, {column: rivals[column] for column in used if column in rivals}),
        f"interpolated {', '.join(missing)}" if missing else "",
        "" if config.names else _said_unknown(used_labels, [label for label in fit if label not in known]),
    ]
    choice = matrix.argmax(axis=1)
    is_choice = np.array_equal(matrix, np.eye(len(fit))[choice])
    used = choice.tolist() if is_choice else used
    return Montage(
        ch_names=tuple(wanted),
        labels=tuple(fit[column] for column in used),
        matrix=None if is_choice else matrix[:, used],
        is_averaged=config.reference == "average",
        reference_labels=tuple(fit[column] for column in ears),
        note="; ".join(note for note in notes if note),
    )


def missing_channels(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of the named channels that a recording with these labels neither has nor gives as a difference."""
    at, _ = _index(labels, {})
    return [name for name in names if _row(known_as(name), at) is None]


def known_as(label: str) -> str:
    """Name under which a channel is known here: "FP1-F7" is "Fp1-F7", "EEG A2-A1" is "A2-A1"."""
    pair = bipolar_pair(label)
    return canonical_name(label) or ("-".join(pair) if pair else bare_label(label))


def _index(labels: Sequence[str], rename: Mapping[str, str]) -> tuple[dict[str, int], dict[int, list[int]]]:
    """Where each electrode, bipolar pair and other channel is, and which others have the same name as one of these."""
    foreign = {label for label in labels if label not in rename and _BIOSEMI.match(bare_label(label))}
    found: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        if len(foreign) >= _MANY_FOREIGN and label not in rename and canonical_name(label):
            continue
        name = rename.get(label, label)
        for key in {bare_label(name), known_as(name)}:
            found.setdefault(key, []).append(index)

    def rank(name: str, index: int) -> tuple[bool, ...]:
        label = labels[index]
        bare = bare_label(label)
        return (label not in rename, label.strip().lower() != name.lower(), bare.lower() != name.lower(), "-" in bare)

    ranked = {name: sorted(places, key=lambda index: rank(name, index)) for name, places in found.items()}
    at = {name: places[0] for name, places in ranked.items()}
    return at, {places[0]: places[1:] for places in ranked.values() if len(places) > 1}


def _row(name: str, at: dict[str, int]) -> dict[int, float] | None:
    """Weights of the file's channels in one wanted channel, or None if they are not there."""
    if name in at:
        return {at[name]: 1.0}
    pair = bipolar_pair(name)
    if pair and pair[0] in at and pair[1] in at:
        return {at[pair[0]]: 1.0, at[pair[1]]: -1.0}
    return None


def _check_missing(
    missing: list[str],
    wanted: list[str],
    labels: Sequence[str],
    max_interpolated: int,
    *,
    n_known: int,
    reasons: Mapping[str, str],
) -> None:
    if len(missing) == len(wanted):
        raise UnusableError(f"none of the wanted channels; it has {_listed(labels)}", _IF_KNOWN, flag=_RENAME)
    fillable = [name for name in missing if canonical_name(name) and bipolar_pair(name) is None]
    could = len(fillable) == len(missing) and n_known >= _MIN_TO_INTERPOLATE
    if len(missing) > max_interpolated or not could:
        named = [f"{name} ({reasons[name]})" if name in reasons else name for name in missing]
        reason = f"lacks {len(missing)} of {len(wanted)} wanted channels: {_listed(named)}"
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


def _ears(at: Mapping[str, int], reasons: Mapping[str, str]) -> list[int]:
    """Where the two mastoids or ear lobes are."""
    ears = next(([at[left], at[right]] for left, right in _MASTOIDS if left in at and right in at), None)
    if ears is None:
        bad = [f"{name} ({reasons[name]})" for pair in _MASTOIDS for name in pair if name in reasons]
        why = f"; left out: {', '.join(bad)}" if bad else ""
        raise UnusableError(f"linked mastoids wanted, but it has neither A1 and A2 nor M1 and M2{why}")
    return ears


def _said_unfit(reasons: Mapping[str, str], wanted: Iterable[str]) -> str:
    """Channels that would be used and must not be."""
    names = set(wanted)
    unfit = [f"{name} ({reason})" for name, reason in reasons.items() if name in names]
    return f"left out: {_listed(unfit)}" if unfit else ""


def _said_rivals(labels: Sequence[str], rivals: Mapping[int, Sequence[int]]) -> list[str]:
    """Channels of one name, of which one is taken."""
    return [
        f"several channels of one electrode: {labels[column]} used, not {', '.join(labels[other] for other in others)}"
        for column, others in rivals.items()
    ]


def _said_unknown(used: Sequence[str], others: Sequence[str]) -> str:
    """Channels that no electrode's name leads to; one whose name says that it is an ECG is none of them."""
    # Of a net that counts its electrodes from E1 on, E1 and E2 are not the eyes.
    is_net = sum(bool(_NET.match(label)) for label in others) > _MANY_FOREIGN
    unknown = [label for label in others if channel_type(label) in ("eeg", "bipolar", "misc") or is_net]
    if not unknown:
        return ""
    names = _listed(unknown)
    if len(used) < len(unknown):
        n_eeg = len(used) + len(unknown)
        return f"ONLY {len(used)} of {n_eeg} EEG channels used: no electrodes have the names {names}. {_WHICH}"
    return f"no known electrodes, not used: {names}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
