"""EEG Motor Movement/Imagery 1.0.0 (Schalk et al. 2004, PhysioNet `eegmmidb`): four imagined movements."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from data_prep.clean import CleanConfig
from data_prep.corpora import Source
from data_prep.read import Readable, UnusableError
from data_prep.tasks.base import About, DataSet, Stretch, side, with_part

# What T1 and T2 mean in the runs of imagined movement; T0 is rest and passed over.
_CUES = {
    **{run: {"T1": 0, "T2": 1} for run in ("04", "08", "12")},
    **{run: {"T1": 2, "T2": 3} for run in ("06", "10", "14")},
}
_CHANNELS = """
    FC5 FC3 FC1 FCz FC2 FC4 FC6 C5 C3 C1 Cz C2 C4 C6 CP5 CP3 CP1 CPz CP2 CP4 CP6 Fp1 Fpz Fp2 AF7 AF3 AFz AF4 AF8
    F7 F5 F3 F1 Fz F2 F4 F6 F8 FT7 FT8 T7 T8 T9 T10 TP7 TP8 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz
    O2 Iz
"""


@dataclass(frozen=True, kw_only=True)
class PhysionetMi(DataSet):
    """Four imagined movements, a window of 4 s from each cue, split by subject: 1-70, 71-89, 90-109."""

    about: ClassVar = About(
        name="physionet_mi",
        title="PhysioNet-MI",
        url="https://physionet.org/content/eegmmidb/1.0.0/",
        layout="S001/S001R04.edf   annotations T0, T1, T2\n... runs 04, 06, 08, 10, 12, 14 to S109/S109R14.edf",
        class_names=("left fist", "right fist", "both fists", "both feet"),
        subjects=109,
        windows=9_837,
        seconds=4.0,
        native="160 Hz",
        channels=tuple(_CHANNELS.split()),
        clean=CleanConfig(sfreq=200.0, l_freq=0.3, h_freq=None, notch=60.0, order="filter_first"),
        reference="average",
        split="subjects 1-70 / 71-89 / 90-109",
        note="Windows follow the cues that the files mark, at the rate that each file has: a few subjects' files have "
        "128 Hz.",
    )

    def sources(self, path: str) -> list[Source]:
        """The six runs of imagined movement of each subject; the others are passed over."""
        found = self.find(path, rf"(?P<subject>S(?P<number>\d{{3}}))R(?:{'|'.join(_CUES)})\.edf")
        return [with_part(source, side(int(match["number"]) - 1, 70, 89)) for match, source in found]

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """Four seconds from each cue."""
        cues = _CUES[source.file[-6:-4]]
        marks = [mark for mark in recording.annotations() if mark.text in cues]
        if not marks:
            raise UnusableError("none of its annotations is T1 or T2: are the files the EDF+ of PhysioNet?")
        return [Stretch(onset=mark.onset, label=cues[mark.text]) for mark in marks]
