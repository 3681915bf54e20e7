"""BCI Competition 2020, track 3: five imagined phrases, 15 subjects.

The training and validation sets are MATLAB files with one-hot labels, the test set is HDF5 without labels: those are in
the organisers' spreadsheet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from codebrain.channels import canonical_name
from data_prep.corpora import Source
from data_prep.read import Readable, UnusableError
from data_prep.recipe import Recipe
from data_prep.tasks.arrays import ArrayRecording, check_shape, load_mat, load_mat_73, load_numbers, texts_of_mat_73
from data_prep.tasks.base import NO_FILTER, About, DataSet, Stretch, Trap, labelled_trials, marked, with_part

_SFREQ, _LAST = 256.0, 768  # Hz; samples of a trial that are used, counted from its end
_ANSWERS = "Track3_Answer Sheet_Test.xlsx"
_PARTS = {"training": "train", "validation": "valid", "test": "test"}
_CHANNELS = """
    Fp1 Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 TP9 CP5 CP1 CP2 CP6 TP10 P7 P3 Pz P4 P8 PO9 O1 Oz O2
    PO10 AF7 AF3 AF4 AF8 F5 F1 F2 F6 FT9 FT7 FC3 FC4 FT8 FT10 C5 C1 C2 C6 TP7 CP3 CPz CP4 TP8 P5 P1 P2 P6 PO7 PO3
    POz PO4 PO8
"""


@dataclass(frozen=True, kw_only=True)
class Bcic2020(DataSet):
    """Five imagined phrases, a window of 3 s per trial; the competition's sets hold the same 15 subjects."""

    about: ClassVar = About(
        name="bcic2020_3",
        title="BCI Competition 2020 track 3",
        url="https://osf.io/pq7vb/",
        layout="Training set/Data_Sample01.mat     epo_train.x: 795 samples x 64 channels x 300 trials, .y: 5 x 300\n"
        "Validation set/Data_Sample01.mat   epo_validation, 50 trials\n"
        f"Test set/Data_Sample01.mat         epo_test, HDF5, 50 trials\nTest set/{_ANSWERS}\n... to Data_Sample15.mat",
        class_names=("hello", "help me", "stop", "thank you", "yes"),
        subjects=15,
        windows=6_000,
        seconds=3.0,
        native="256 Hz",
        channels=tuple(_CHANNELS.split()),
        clean=NO_FILTER,
        split="the competition's sets: 300 / 50 / 50 trials of every subject",
        traps=(
            Trap(
                name="within_subject",
                published="every subject trains, validates and tests: figures do not speak about new persons",
                corrected="no split of its own, so that fine-tuning divides by subject",
            ),
        ),
    )

    def has_split(self) -> bool:
        """The competition's sets are a split only as published."""
        return self.keeps("within_subject")

    def sources(self, path: str) -> list[Source]:
        """The files of the three sets; ValueError if the test set's answers are missing."""
        found = self.find(path, r"(?P<set>Training|Validation|Test) set/Data_Sample(?P<subject>\d\d)\.mat")
        sources = [with_part(source, _PARTS[match["set"].lower()]) for match, source in found]
        for source in sources:
            if source.part == "test" and not Path(source.file).with_name(_ANSWERS).is_file():
                raise ValueError(f"{_ANSWERS} is missing beside {source.file}. {self.about.expected()}")
        return sources

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """The trials of one file, their last three seconds, with their labels as marks."""
        path = Path(source.file)
        x, labels, names = (
            _test_set(path, int(source.subject)) if source.part == "test" else _one_hot(path, source.part)
        )
        check_shape(x, (None, 64, None), "trials x channels x samples at 256 Hz")
        check_shape(labels, (len(x),), "a label per trial")
        names = names or list(self.about.channels)
        check_shape(np.array(names), (64,), "a name per channel, in its clab")
        known = tuple(map(canonical_name, names)) == self.about.channels
        return ArrayRecording(
            path,
            x[..., -_LAST:],
            labels=names,
            sfreq=_SFREQ,
            marks=labelled_trials(labels, _LAST / _SFREQ, self.about.class_names),
            note="" if known else "channels put in order, which by its clab is another in the file",
        )

    def label_files(self, recording: Path) -> Iterable[Path]:
        """The test set's answers."""
        return [recording.with_name(_ANSWERS)]

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """Each trial is one window."""
        return marked(recording, self.about.class_names)


def _one_hot(path: Path, part: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], list[str]]:
    """Trials, their classes and the names of the channels, if the file has them."""
    (epochs,) = load_mat(path, {"train": "epo_train", "valid": "epo_validation"}[part])
    x = check_shape(epochs.x, (None, 64, None), "samples x channels x trials")
    labels = check_shape(epochs.y, (5, x.shape[2]), "classes x trials").argmax(axis=0)
    return x.transpose(2, 1, 0), labels, [str(name) for name in np.ravel(getattr(epochs, "clab", []))]


def _test_set(path: Path, subject: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], list[str]]:
    """The same of a file of the test set, whose classes are in a spreadsheet beside it."""
    (x,) = load_mat_73(path, "epo_test", "x")
    answers = load_numbers(path.with_name(_ANSWERS))
    # A pair of columns per subject: number of the trial, class counted from 1.
    labels = [int(answers[place]) - 1 for place in sorted(answers) if place[1] == 2 * subject]
    if len(labels) != len(x):
        raise UnusableError(f"{_ANSWERS} has {len(labels)} answers for the {len(x)} trials of subject {subject}")
    return x, np.array(labels), texts_of_mat_73(path, "epo_test", "clab")
