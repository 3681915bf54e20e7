"""What the clinical data sets need: bipolar channels, zeros for those that a file lacks, the times of seizures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.montage import missing_channels
from data_prep.read import Annotation, Readable, UnusableError

_CHANNELS = """
    Fp1-F7 F7-T7 T7-P7 P7-O1 Fp2-F8 F8-T8 T8-P8 P8-O2 Fp1-F3 F3-C3 C3-P3 P3-O1 Fp2-F4 F4-C4 C4-P4 P4-O2
"""
DOUBLE_BANANA = tuple(_CHANNELS.split())
"""The 16 bipolar channels of the longitudinal montage without its midline, temporal chains first."""


class ZeroFilled:
    """A recording with zeros for the wanted channels that it lacks; UnusableError if it lacks them all."""

    def __init__(self, recording: Readable, wanted: Sequence[str]) -> None:
        self._recording = recording
        self._zeros = tuple(missing_channels(recording.eeg_labels, wanted))
        if len(self._zeros) == len(wanted):
            raise UnusableError(f"none of the wanted channels {', '.join(wanted[:4])}, ...")
        self.path, self.sfreq, self.n_times = recording.path, recording.sfreq, recording.n_times
        self.note = f"zeros for {', '.join(self._zeros)}" if self._zeros else recording.note
        self._describe()

    def _describe(self) -> None:
        self.labels = (*self._recording.labels, *self._zeros)
        self.eeg_labels = (*self._recording.eeg_labels, *self._zeros)

    @property
    def trial_times(self) -> int:
        """Samples of a trial."""
        return self._recording.trial_times

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self._recording.seconds

    def restrict(self, labels: Sequence[str]) -> None:
        """Forget the other channels."""
        self._recording.restrict([label for label in labels if label not in self._zeros])
        self._describe()

    def read(self, picks: Sequence[int], start: int, stop: int) -> npt.NDArray[np.floating]:
        """Samples `start` to `stop` of the channels `picks`: (C, stop - start) microvolts."""
        n_real = len(self._recording.labels)
        real = [row for row, pick in enumerate(picks) if pick < n_real]
        x = np.zeros((len(picks), stop - start))
        x[real] = self._recording.read([picks[row] for row in real], start, stop)
        return x

    def annotations(self) -> tuple[Annotation, ...]:
        """The recording's annotations."""
        return self._recording.annotations()

    def person(self) -> tuple[str, str]:
        """Age in years and sex."""
        return self._recording.person()


def read_seizures(file: Path) -> list[tuple[int, int]]:
    """Start and end in seconds of the seizures of a file, from the summary beside it.

    Raises
    ------
    UnusableError
        There is no summary, or it does not mention the file.
    """
    summary = file.with_name(f"{file.name.split('_')[0]}-summary.txt")
    if not summary.is_file():
        raise UnusableError(f"no seizure times: {summary.name} should lie beside it")
    text = summary.read_text(encoding="utf-8", errors="replace")
    entry = re.search(rf"File Name:\s*{re.escape(file.name)}\s(.*?)(?=File Name:|\Z)", text, re.DOTALL | re.IGNORECASE)
    if entry is None:
        raise UnusableError(f"no seizure times: {summary.name} does not mention it")
    starts, ends = (re.findall(rf"Seizure\s*\d*\s*{what} Time:\s*(\d+)", entry[1]) for what in ("Start", "End"))
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]
