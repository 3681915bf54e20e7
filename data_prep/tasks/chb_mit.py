"""CHB-MIT 1.0.0 (Shoeb 2009, PhysioNet `chbmit`): seizures of children, recorded for days.

`chbNN-summary.txt` says of each file when seizures start and end; that of patient 24 mentions only files with seizures.
The published preparation goes by lists of files, and never had patients 12, 13 and 17.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from data_prep.corpora import Source
from data_prep.read import Readable
from data_prep.recipe import Recipe
from data_prep.tasks.base import NO_FILTER, About, DataSet, Stretch, Trap, side, with_part
from data_prep.tasks.clinical import DOUBLE_BANANA, read_seizures, seizure_files, zero_filled

# The files of each patient, as the published preparation counts them: one that comes first, then from one to another.
_FILES = {
    **{1: (1, 2, 46), 2: (1, 2, 35), 3: (1, 2, 38), 4: (7, 1, 43), 5: (1, 2, 39), 6: (1, 2, 24), 7: (1, 2, 19)},
    **{8: (2, 3, 29), 9: (2, 1, 19), 10: (1, 2, 89), 11: (1, 2, 99), 14: (1, 2, 42), 15: (2, 1, 63), 16: (1, 2, 19)},
    **{18: (2, 1, 36), 19: (2, 1, 30), 20: (1, 2, 68), 21: (1, 2, 33), 22: (1, 2, 77), 23: (6, 7, 20), 24: (1, 3, 21)},
}
_SAME_PERSON = {"chb21": "chb01"}  # recorded a year and a half apart
_WINDOW, _STEP, _AROUND = 10.0, 5.0, 1.0  # seconds
_SFREQ = 256.0


@dataclass(frozen=True, kw_only=True)
class ChbMit(DataSet):
    """Seizure or none in windows of 10 s, with further windows over seizures, split by patient: 1-20, 21-22, 23-24."""

    about: ClassVar = About(
        name="chb_mit",
        title="CHB-MIT",
        url="https://physionet.org/content/chbmit/1.0.0/",
        layout="chb01/chb01_01.edf\nchb01/chb01-summary.txt   seizure times of each file\n... to chb24/chb24_22.edf",
        class_names=("no seizure", "seizure"),
        subjects=21,
        windows=326_993,
        seconds=_WINDOW,
        native="256 Hz",
        channels=DOUBLE_BANANA,
        clean=NO_FILTER,
        split="patients 1-20 / 21-22 / 23-24",
        traps=(
            Trap(
                name="boundaries_only",
                published="a window is called a seizure only if one begins or ends in it: ten seconds wholly within a "
                "seizure are labelled as none, and again as seizure by the further windows",
                corrected="a window that holds any part of a seizure is a seizure",
            ),
            Trap(
                name="further_windows_everywhere",
                published="further windows every 5 s over each seizure are added to validation and test, too",
                corrected="they are added to training only",
            ),
            Trap(
                name="stretched",
                published="a further window that the recording's end cuts short is stretched to ten seconds",
                corrected="it is left out",
            ),
            Trap(
                name="zero_channels",
                published="channels that a file lacks are filled with zeros. The files of these patients probably all "
                "have theirs, so that this changes nothing",
                corrected="such files are left out, with the reason",
            ),
            Trap(
                name="same_person",
                published="patients 1 and 21 are the same girl, who trains and validates",
                corrected="patient 21 trains",
            ),
        ),
        note="Patients 12, 13 and 17 are in neither protocol: the published preparation never had them. A file that "
        "its patient's summary does not mention (eight of patient 24's) holds no seizure, and its row says so. Other "
        "benchmarks put patients 1-19 / 20-21 / 22-23 on the sides.",
    )

    def sources(self, path: str) -> list[Source]:
        """The files of the published lists."""
        sources = []
        for match, source in self.find(path, r"(?P<subject>chb(?P<patient>\d\d))/(?P=subject)_(?P<number>\d\d)\.edf"):
            if not _is_published(int(match["patient"]), int(match["number"])):
                continue
            person = source.subject if self.keeps("same_person") else _SAME_PERSON.get(source.subject, source.subject)
            part = side(int(person[-2:]) - 1, 20, 22)
            sources.append(with_part(replace(source, subject=person), part))
        if not sources:
            raise ValueError(f"{path} holds none of the files that were published. {self.about.expected()}")
        return sources

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """The file, as published with zeros for channels that it lacks."""
        recording = super().open(source, recipe)
        return zero_filled(recording, self.about.channels) if self.keeps("zero_channels") else recording

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """Windows of ten seconds over the whole file, then those over its seizures."""
        found = read_seizures(Path(source.file)) or []
        seizures = [(start - 1 / _SFREQ, end - 1 / _SFREQ) for start, end in found]
        for number in range(int(recording.seconds / _WINDOW)):
            yield Stretch(onset=number * _WINDOW, label=self._label(number * _WINDOW, seizures))
        if source.part != "train" and not self.keeps("further_windows_everywhere"):
            return
        for onset in _over(seizures, recording.seconds):
            seconds = min(_WINDOW, recording.seconds - onset)
            label = 1 if self.keeps("boundaries_only") else self._label(onset, seizures)
            if seconds == _WINDOW or self.keeps("stretched"):
                yield Stretch(onset=onset, seconds=seconds, label=label)

    def label_files(self, recording: Path) -> Iterable[Path]:
        """The summary of the patient."""
        return seizure_files(recording)

    def remark(self, source: Source) -> str:
        """That the summary is silent, as that of patient 24 is about files without seizures."""
        silent = read_seizures(Path(source.file)) is None
        return f"its summary does not mention {Path(source.file).name}: taken to hold no seizure" if silent else ""

    def _label(self, onset: float, seizures: list[tuple[float, float]]) -> int:
        end = onset + _WINDOW
        if self.keeps("boundaries_only"):
            return int(any(onset < start < end or onset < stop < end for start, stop in seizures))
        return int(any(start < end and stop > onset for start, stop in seizures))


def _is_published(patient: int, number: int) -> bool:
    if patient not in _FILES:
        return False
    reference, first, last = _FILES[patient]
    return number == reference or first <= number <= last


def _over(seizures: list[tuple[float, float]], seconds: float) -> Iterator[float]:
    """Onsets of the further windows: every five seconds from a second before a seizure to a second after it."""
    for start, stop in seizures:
        onset, last = max(0.0, start - _AROUND), min(stop + _AROUND, seconds)
        while onset < last:
            yield onset
            onset += _STEP
