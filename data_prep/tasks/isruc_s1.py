"""ISRUC-Sleep, subgroup 1: one night of each of 100 persons with a suspected sleep disorder."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_prep.corpora import Source
from data_prep.read import Readable
from data_prep.tasks.base import About, DataSet, Stretch, Trap, side, with_part
from data_prep.tasks.isruc import CHANNELS, CLEAN, EPOCH_SECONDS, STAGES, URL, read_stages, sequences


@dataclass(frozen=True, kw_only=True)
class IsrucS1(DataSet):
    """Five sleep stages in epochs of 30 s, in sequences of 20, split by subject: 1-80, 81-90, 91-100."""

    about: ClassVar = About(
        name="isruc_s1",
        title="ISRUC-Sleep subgroup 1",
        url=URL,
        layout="group1/1/1.rec     EDF\ngroup1/1/1_1.txt   a stage per epoch of 30 s: 0, 1, 2, 3 or 5\n"
        "... to group1/100/100_1.txt",
        class_names=STAGES,
        subjects=100,
        windows=89_240,
        seconds=EPOCH_SECONDS,
        native="200 Hz",
        channels=CHANNELS,
        clean=CLEAN,
        split="subjects 1-80 / 81-90 / 91-100",
        traps=(
            Trap(
                name="unsorted_pairs",
                published="the published loader pairs signals and labels as the file system happens to list them, so "
                "on some machines labels are another epoch's. That cannot be repeated, and is not here",
                corrected="signals and labels are paired by their names, as in `published`",
            ),
        ),
    )

    def sources(self, path: str) -> list[Source]:
        """One night per subject, in a folder with the subject's number."""
        found = list(self.find(path, r"(?P<subject>\d{1,3})/(?P=subject)\.rec"))
        if len({source.subject for _, source in found}) < len(found):
            raise ValueError(f"{path} holds several nights of a subject: give the folder of subgroup 1 alone")
        return [with_part(source, side(int(match["subject"]) - 1, 80, 90)) for match, source in found]

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """The epochs that were scored."""
        file = Path(source.file)
        n_epochs = math.floor(recording.seconds / EPOCH_SECONDS)
        return sequences(read_stages(file.with_name(f"{file.stem}_1.txt")), n_epochs)
