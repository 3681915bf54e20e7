"""SHU motor imagery (Ma et al. 2022): left against right hand, 25 subjects on five days each."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_prep.corpora import Source
from data_prep.read import Readable
from data_prep.recipe import Recipe
from data_prep.tasks.arrays import ArrayRecording, check_shape, load_mat
from data_prep.tasks.base import NO_FILTER, About, DataSet, Stretch, labelled_trials, marked, side, with_part

_SFREQ = 250.0
_CHANNELS = """
    Fp1 Fp2 Fz F3 F4 F7 F8 FC1 FC2 FC5 FC6 Cz C3 C4 T7 T8 A1 A2 CP1 CP2 CP5 CP6 Pz P3 P4 P7 P8 PO3 PO4 Oz O1 O2
"""


@dataclass(frozen=True, kw_only=True)
class ShuMi(DataSet):
    """Imagined movement of the left or right hand, a window of 4 s per trial, split by subject: 1-15, 16-20, 21-25."""

    about: ClassVar = About(
        name="shu_mi",
        title="SHU-MI",
        url="https://doi.org/10.6084/m9.figshare.19228725",
        layout="sub-001_ses-01_task_motorimagery_eeg.mat   data: trials x 32 channels x 1000 samples; labels: 1 or 2\n"
        "... to sub-025_ses-05_task_motorimagery_eeg.mat",
        class_names=("left hand", "right hand"),
        subjects=25,
        windows=11_988,
        seconds=4.0,
        native="250 Hz",
        channels=tuple(_CHANNELS.split()),
        clean=NO_FILTER,
        split="subjects 1-15 / 16-20 / 21-25",
        note="The files do not name their channels: the names follow the channel table that comes with the data set. "
        "A1 and A2, the ears, stay in both protocols, as in FACED.",
    )

    def sources(self, path: str) -> list[Source]:
        """One file per subject and day."""
        found = self.find(path, r"(?P<subject>sub-(?P<number>\d{3}))_(?P<session>ses-\d\d)_task_motorimagery_eeg\.mat")
        return [
            replace(with_part(source, side(int(match["number"]) - 1, 15, 20)), session=match["session"])
            for match, source in found
        ]

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """The trials of one day, with their labels as marks."""
        path = Path(source.file)
        data, labels = load_mat(path, "data", "labels")
        x = check_shape(data, (None, 32, 1000), "trials x channels x samples at 250 Hz")
        y = check_shape(np.ravel(labels), (len(x),), "a label per trial")
        marks = labelled_trials(y - 1, x.shape[2] / _SFREQ, self.about.class_names)
        return ArrayRecording(path, x, labels=self.about.channels, sfreq=_SFREQ, marks=marks)

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """Each trial is one window."""
        return marked(recording, self.about.class_names)
