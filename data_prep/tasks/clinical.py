"""What the clinical data sets need: bipolar channels, zeros for those that a file lacks, the times of seizures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from data_prep.montage import missing_channels
from data_prep.read import Readable, UnusableError
from data_prep.tasks.derived import Derived

_CHANNELS = """
    Fp1-F7 F7-T7 T7-P7 P7-O1 Fp2-F8 F8-T8 T8-P8 P8-O2 Fp1-F3 F3-C3 C3-P3 P3-O1 Fp2-F4 F4-C4 C4-P4 P4-O2
"""
DOUBLE_BANANA = tuple(_CHANNELS.split())
"""The 16 bipolar channels of the longitudinal montage without its midline, temporal chains first."""


def zero_filled(recording: Readable, wanted: Sequence[str]) -> Readable:
    """A recording with zeros for the wanted channels that it lacks; UnusableError if it lacks them all."""
    missing = missing_channels(recording.eeg_labels, wanted)
    if len(missing) == len(wanted):
        raise UnusableError(f"none of the wanted channels {', '.join(wanted[:4])}, ...")
    if not missing:
        return recording
    own = {label: {label: 1.0} for label in recording.eeg_labels}
    zeros: dict[str, dict[str, float]] = {name: {} for name in missing}
    return Derived(recording, own | zeros, note=f"zeros for {', '.join(missing)}")


def seizure_files(file: Path) -> tuple[Path, Path]:
    """The summary of a patient's seizures beside a recording, and the file that marks a recording with seizures."""
    return file.with_name(f"{file.name.split('_')[0]}-summary.txt"), file.with_name(f"{file.name}.seizures")


def read_seizures(file: Path) -> list[tuple[int, int]] | None:
    """Start and end in seconds of the seizures of a file, from the summary beside it; None if it does not mention it.

    Raises
    ------
    UnusableError
        There is no summary, it gives a seizure only one of its two times, or it is silent about a file with seizures.
    """
    summary, annotated = seizure_files(file)
    if not summary.is_file():
        raise UnusableError(f"no seizure times: {summary.name} should lie beside it")
    text = summary.read_text(encoding="utf-8", errors="replace")
    entry = re.search(rf"File Name:\s*{re.escape(file.name)}\s(.*?)(?=File Name:|\Z)", text, re.DOTALL | re.IGNORECASE)
    if entry is None:
        if annotated.exists():
            raise UnusableError(
                f"no seizure times: {annotated.name} says that it has seizures, but {summary.name} does not mention it"
            )
        return None
    starts, ends = (re.findall(rf"Seizure\s*\d*\s*{what} Time:\s*(\d+)", entry[1]) for what in ("Start", "End"))
    if len(starts) != len(ends):
        raise UnusableError(f"{summary.name} gives {len(starts)} starts and {len(ends)} ends of its seizures")
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]
