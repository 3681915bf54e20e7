"""EEG During Mental Arithmetic Tasks 1.0.0 (Zyma et al. 2019, PhysioNet `eegmat`): counting against rest.

36 subjects with two EDF files each: SubjectNN_1.edf is rest (about 180 s), SubjectNN_2.edf the first minute of serial
subtraction. The files are already filtered (0.5 to 45 Hz, 50 Hz notch) and freed of artefacts by their authors.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from codebrain.channels import TEN_TWENTY_19
from data_prep.corpora import Source
from data_prep.montage import MontageConfig
from data_prep.read import Readable
from data_prep.recipe import Recipe
from data_prep.tasks.base import NO_FILTER, About, DataSet, Stretch, Trap, side, whole, with_part

_PUBLISHED_ORDER = "Fp1 Fp2 F3 F4 F7 F8 T7 T8 C3 C4 P7 P8 P3 P4 O1 O2 Fz Cz Pz A2-A1"


@dataclass(frozen=True, kw_only=True)
class MentalArithmetic(DataSet):
    """Counting against rest, in windows of 5 s, split as published: subjects 0-27, 28-31, 32-35."""

    about: ClassVar = About(
        name="mental_arithmetic",
        title="EEG During Mental Arithmetic Tasks",
        url="https://physionet.org/content/eegmat/1.0.0/",
        layout="Subject00_1.edf   rest\nSubject00_2.edf   counting\n... to Subject35_2.edf",
        class_names=("rest", "counting"),
        subjects=36,
        windows=1707,
        seconds=5.0,
        native="500 Hz",
        channels=TEN_TWENTY_19,
        clean=NO_FILTER,
        split="subjects 0-27 / 28-31 / 32-35",
        traps=(
            Trap(
                name="ear_channel",
                published="a 20th channel, A2-A1, is the difference of the two ears and no scalp channel: no electrode "
                "embedding has a row for it",
                corrected="the 19 electrodes, in the order of the pre-training corpus",
            ),
        ),
    )

    def recipe(self) -> Recipe:
        """Resampled and cut, nothing else: the same windows in both protocols, so that figures compare."""
        names = _PUBLISHED_ORDER.split() if self.keeps("ear_channel") else list(TEN_TWENTY_19)
        return dataclasses.replace(super().recipe(), channels=MontageConfig(names=names))

    def sources(self, path: str) -> list[Source]:
        """The files SubjectNN_1.edf and SubjectNN_2.edf."""
        found = self.find(path, r"(?P<subject>Subject(?P<number>\d\d))_[12]\.edf")
        return [with_part(source, side(int(match["number"]), 28, 32)) for match, source in found]

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """The whole file is rest or counting, as the last digit of its name says."""
        return whole(recording, int(source.file[-5]) - 1)
