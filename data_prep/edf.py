"""What EDF, BDF and GDF files say and MNE does not: their promised size, interruptions, the person's age."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

_BYTES_PER_SAMPLE = {".edf": 2, ".rec": 2, ".bdf": 3}
_ANNOTATIONS = (b"EDF Annotations", b"BDF Annotations")
_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)\x14")  # with which every data record of EDF+ begins its annotations
_SHORTEST_GAP = 1e-3  # seconds: above the rounding of onsets


def promised_bytes(path: Path) -> int | None:
    """Size that a header announces; None if it does not (a recording that was never closed says -1)."""
    try:
        header_bytes, n_records, n_samples, _ = _layout(path)
    except (KeyError, ValueError):
        return None  # not a header of this kind: left to the reader to judge
    record = sum(n_samples) * _BYTES_PER_SAMPLE[path.suffix.lower()]
    return header_bytes + n_records * record if n_records > 0 else None


def unlike_volts(path: Path) -> dict[int, str]:
    """Signals that are no potentials, by their place in the header: {4: "%", 5: "bpm"}.

    MNE calls a saturation of oxygen EEG if its label is "O2". An empty field, or a new spelling of volts, is left to
    the guard of amplitudes.
    """
    try:
        n_signals = len(_layout(path)[2])
    except (KeyError, ValueError):
        return {}
    with path.open("rb") as file:
        file.seek(256 + 96 * n_signals)
        dimensions = [file.read(8).decode("latin-1").strip() for _ in range(n_signals)]
    return {place: text for place, text in enumerate(dimensions) if text and "v" not in text.lower()}


def gaps(path: Path) -> list[tuple[float, float]]:
    """Onset and length in seconds of the gaps in a discontinuous recording (EDF+D), whose header admits them.

    MNE reads such a file as if its data records followed one another.
    """
    with path.open("rb") as file:
        if file.read(197)[192:] not in (b"EDF+D", b"BDF+D"):
            return []
        file.seek(0)
        content = file.read(256)
    header_bytes, _, n_samples, labels = _layout(path)
    places = [place for place, label in enumerate(labels) if label in _ANNOTATIONS]
    if not places:
        return []
    width = _BYTES_PER_SAMPLE[path.suffix.lower()]
    offset, length = width * sum(n_samples[: places[0]]), width * n_samples[places[0]]
    onsets = []
    with path.open("rb") as file:
        for number in range(_n_records(path, header_bytes, width * sum(n_samples))):
            file.seek(header_bytes + number * width * sum(n_samples) + offset)
            if onset := _ONSET.match(file.read(length)):
                onsets.append(float(onset[1]))
    ends = np.array(onsets[:-1]) + float(content[244:252])
    missing = np.array(onsets[1:]) - ends
    return [(float(ends[place]), float(missing[place])) for place in np.flatnonzero(abs(missing) > _SHORTEST_GAP)]


def new_epochs(path: Path) -> list[float]:
    """Seconds at which a BioSemi amplifier began anew after a pause, which its status channel says in bit 16.

    The file goes on as if nothing were missing, and MNE gives no annotation.
    """
    if path.suffix.lower() != ".bdf":
        return []
    header_bytes, _, n_samples, labels = _layout(path)
    with path.open("rb") as file:
        file.seek(256 + 16 * len(labels))
        sensors = [file.read(80).strip() for _ in labels]
        if b"Triggers and Status" not in sensors:
            return []
        place = sensors.index(b"Triggers and Status")
        file.seek(244)
        rate = n_samples[place] / float(file.read(8))
        found, was_set = [], True  # the beginning of the recording is none
        for number in range(_n_records(path, header_bytes, 3 * sum(n_samples))):
            file.seek(header_bytes + 3 * (number * sum(n_samples) + sum(n_samples[:place])))
            highest_byte = np.frombuffer(file.read(3 * n_samples[place]), np.uint8)[2::3]
            is_set = np.concatenate([[was_set], highest_byte & 1 > 0])
            found += ((number * n_samples[place] + np.flatnonzero(is_set[1:] & ~is_set[:-1])) / rate).tolist()
            was_set = bool(is_set[-1])
    return found


def record_seconds(path: Path) -> float | None:
    """Seconds that a data record lasts; None if the header does not say it, or the file holds annotations alone."""
    with path.open("rb") as file:
        head = file.read(256)
    if head.startswith(b"GDF"):
        numerator, denominator = np.frombuffer(head, "<u4", count=2, offset=244).tolist()
        return numerator / denominator if denominator else math.nan
    try:
        labels = _layout(path)[3]
        return None if all(label in _ANNOTATIONS for label in labels) else float(head[244:252])
    except (KeyError, ValueError):
        return None  # not a header of this kind: left to the reader to judge


def age_in_header(path: Path) -> str:
    """Age from the field on the patient, where TUH writes "Age:53"; it gives no date of birth."""
    if path.suffix.lower() != ".edf":
        return ""
    with path.open("rb") as file:
        found = re.search(rb"Age:(\d{1,3})\b", file.read(88)[8:])
    return found[1].decode() if found else ""


def _n_records(path: Path, header_bytes: int, record_bytes: int) -> int:
    """Data records that are there, whatever the header says of a recording that was never closed or is damaged."""
    return (path.stat().st_size - header_bytes) // record_bytes if record_bytes > 0 else 0


def _layout(path: Path) -> tuple[int, int, list[int], list[bytes]]:
    """Bytes of the header, number of data records, samples of each signal in a record, labels; ValueError: no EDF."""
    with path.open("rb") as file:
        head = file.read(256)
        header_bytes, n_records, n_signals = int(head[184:192]), int(head[236:244]), int(head[252:256])
        if n_signals <= 0:
            raise ValueError(f"{n_signals} signals")
        labels = [file.read(16).strip() for _ in range(n_signals)]
        file.seek(256 + 216 * n_signals)
        n_samples = [int(file.read(8)) for _ in range(n_signals)]
    return header_bytes, n_records, n_samples, labels
