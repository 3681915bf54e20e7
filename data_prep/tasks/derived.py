"""A recording whose channels are made from those of another: renamed, subtracted, or zeros where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from data_prep.read import Annotation, Readable


class Derived:
    """Weighted sums of the channels of a recording; see `data_prep.read.Readable`.

    Parameters
    ----------
    recording : Readable
    channels : mapping
        Of each new channel the weights of the recording's, by label: {"F3-A2": {"F3": 1.0, "A2": -1.0}}. Without any
        it is zeros.
    note : str
        What was done, for the recording's row.
    """

    def __init__(self, recording: Readable, channels: Mapping[str, Mapping[str, float]], *, note: str = "") -> None:
        self._recording = recording
        self._channels = dict(channels)
        self.path = recording.path
        self._note = note
        self.taken_for = recording.taken_for
        self._describe()

    def _describe(self) -> None:
        self.labels = self.eeg_labels = tuple(self._channels)
        self.bad_labels: tuple[str, ...] = ()
        self.sfreq, self.n_times = self._recording.sfreq, self._recording.n_times
        self.note = "; ".join(words for words in (self._recording.note, self._note) if words)

    @property
    def trial_times(self) -> int:
        """Samples of a trial."""
        return self._recording.trial_times

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self._recording.seconds

    def restrict(self, labels: Sequence[str]) -> None:
        """Forget the other channels, and those that only they are made from."""
        self._channels = {label: self._channels[label] for label in labels}
        self._recording.restrict(self._needed(labels))
        self._describe()

    def read(self, picks: Sequence[int], start: int, stop: int) -> npt.NDArray[np.floating]:
        """Samples `start` to `stop` of the channels `picks`: (C, stop - start) microvolts."""
        chosen = [self.labels[pick] for pick in picks]
        needed = self._needed(chosen)
        recorded = self._recording.read([self._recording.labels.index(label) for label in needed], start, stop)
        x = np.zeros((len(picks), stop - start))
        for row, name in enumerate(chosen):
            for label, weight in self._channels[name].items():
                x[row] += weight * recorded[needed.index(label)]
        return x

    def _needed(self, names: Sequence[str]) -> list[str]:
        """Labels of the recording's channels that some of the new ones are made from."""
        return list(dict.fromkeys(label for name in names for label in self._channels[name]))

    def annotations(self) -> tuple[Annotation, ...]:
        """The recording's annotations."""
        return self._recording.annotations()

    def person(self) -> tuple[str, str]:
        """Age in years and sex."""
        return self._recording.person()
