"""ISRUC-Sleep, subgroup 3: one night of each of 10 healthy persons, from the MATLAB files of extracted channels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from data_prep.corpora import Source
from data_prep.read import Readable, UnusableError
from data_prep.recipe import Recipe
from data_prep.tasks.arrays import ArrayRecording, check_shape, load_mat
from data_prep.tasks.base import About, DataSet, Stretch, Trap, side, with_part
from data_prep.tasks.isruc import CHANNELS, CLEAN, EPOCH_SECONDS, STAGES, URL, read_stages, sequences

_VARIABLES = ("F3_A2", "C3_A2", "O1_A2", "F4_A1", "C4_A1", "O2_A1")
_SFREQ, _N_TIMES = 200.0, 6000
_UNSCORED = 30  # last lines of the labels, that belong to no extracted epoch


@dataclass(frozen=True, kw_only=True)
class IsrucS3(DataSet):
    """Five sleep stages in epochs of 30 s, in sequences of 20, split by subject: 1-6, 7-8, 9-10."""

    about: ClassVar = About(
        name="isruc_s3",
        title="ISRUC-Sleep subgroup 3",
        url=URL,
        layout="ExtractedChannels/subject1.mat   F3_A2, C3_A2, ...: epochs x 6000 samples\n"
        "RawData/1/1_1.txt                a stage per epoch of 30 s, and 30 lines more\n... to subject10.mat",
        class_names=STAGES,
        subjects=10,
        windows=None,
        seconds=EPOCH_SECONDS,
        native="200 Hz",
        channels=CHANNELS,
        clean=CLEAN,
        split="subjects 1-6 / 7-8 / 9-10",
        traps=(
            Trap(
                name="scrambled",
                published="epochs of 6 channels x 6000 samples are reshaped to 6000 x 6 without a transposition, so "
                "that what passes for a channel is every sixth sample of all channels in turn",
                corrected="channels stay channels",
                repeatable=False,
            ),
            Trap(
                name="filtered_alone",
                published="every epoch is filtered alone, and a third of it is distorted by its ends: the filter is "
                "11 s long",
                corrected="the night is filtered as a whole",
                repeatable=False,
            ),
        ),
        note="Which split the paper used is not known: two copies of its code have this one, another rotates.",
    )

    def sources(self, path: str) -> list[Source]:
        """One night per subject."""
        found = self.find(path, r"ExtractedChannels/subject(?P<subject>\d{1,2})\.mat")
        return [with_part(source, side(int(match["subject"]) - 1, 6, 8)) for match, source in found]

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """The night as one recording, or as published an epoch at a time."""
        path = Path(source.file)
        epochs = [check_shape(x, (None, _N_TIMES), "epochs x samples at 200 Hz") for x in load_mat(path, *_VARIABLES)]
        x = np.stack(epochs, axis=1)
        if not self.keeps("filtered_alone"):
            x = x.transpose(1, 0, 2).reshape(len(_VARIABLES), -1)
        return ArrayRecording(path, x, labels=CHANNELS, sfreq=_SFREQ)

    def finish(self, window_uv: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """The published scrambling of an epoch: (C, T) read as (T, C)."""
        return window_uv.reshape(window_uv.shape[::-1]).T if self.keeps("scrambled") else window_uv

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """The epochs that were scored."""
        (file,) = self.label_files(Path(source.file))
        stages = read_stages(file)
        n_epochs = recording.n_times // _N_TIMES
        if len(stages) - _UNSCORED != n_epochs:
            raise UnusableError(
                f"{n_epochs} epochs and {len(stages)} labels: {_UNSCORED} more labels than epochs were expected"
            )
        return sequences(stages[:n_epochs], n_epochs)

    def label_files(self, recording: Path) -> Sequence[Path]:
        """What the first scorer wrote."""
        number = recording.stem.lower().removeprefix("subject")
        return [recording.parents[1] / "RawData" / number / f"{number}_1.txt"]
