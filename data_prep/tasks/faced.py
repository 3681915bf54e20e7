"""FACED (Chen et al. 2023): nine emotions while watching 28 film clips.

The authors' `Processed_data` has a pickled array per subject: 28 clips x 32 channels x 30 s at 250 Hz, filtered and
freed of artefacts by them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_prep.corpora import Source
from data_prep.read import Readable
from data_prep.recipe import Recipe
from data_prep.tasks.arrays import ArrayRecording, check_shape, load_pickle
from data_prep.tasks.base import NO_FILTER, About, DataSet, Stretch, side, with_part

_SFREQ, _SECONDS = 250.0, 30.0
_CLIPS = [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 4 + [5] * 3 + [6] * 3 + [7] * 3 + [8] * 3
_CHANNELS = """
    Fp1 Fp2 Fz F3 F4 F7 F8 FC1 FC2 FC5 FC6 Cz C3 C4 T7 T8 CP1 CP2 CP5 CP6 Pz P3 P4 P7 P8 PO3 PO4 Oz O1 O2 A2 A1
"""


@dataclass(frozen=True, kw_only=True)
class Faced(DataSet):
    """Nine emotions, three windows of 10 s of each clip, split by subject: 0-79, 80-99, 100-122."""

    about: ClassVar = About(
        name="faced",
        title="FACED",
        url="https://www.synapse.org/Synapse:syn50614194",
        layout="Processed_data/sub000.pkl   28 clips x 32 channels x 7500 samples\n... to sub122.pkl",
        class_names=("anger", "disgust", "fear", "sadness", "neutral", "amusement", "inspiration", "joy", "tenderness"),
        subjects=123,
        windows=10_332,
        seconds=10.0,
        native="250 Hz",
        channels=tuple(_CHANNELS.split()),
        clean=NO_FILTER,
        split="subjects 0-79 / 80-99 / 100-122",
        note="The files do not name their channels: the names, above all of the last two, follow descriptions of the "
        "data set. Labels are those of the clips, not what the person reported. A2 and A1, the ears, stay in both "
        "protocols: they are potentials like the others, not a difference as in Mental Arithmetic, and figures compare "
        "on 32 channels. A tokenizer, which knows electrodes by their places, has none for them.",
    )

    def sources(self, path: str) -> list[Source]:
        """One pickle per subject."""
        found = self.find(path, r"(?P<subject>sub(?P<number>\d{3}))\.pkl")
        return [with_part(source, side(int(match["number"]), 80, 100)) for match, source in found]

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """The array of a subject: a clip is a trial."""
        path = Path(source.file)
        x = check_shape(load_pickle(path), (28, 32, 7500), "clips x channels x samples at 250 Hz")
        return ArrayRecording(path, x, labels=self.about.channels, sfreq=_SFREQ)

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """Each clip has its emotion from beginning to end."""
        return [Stretch(onset=clip * _SECONDS, seconds=_SECONDS, label=emotion) for clip, emotion in enumerate(_CLIPS)]
