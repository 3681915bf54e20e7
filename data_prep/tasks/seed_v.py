"""SEED-V (Liu et al. 2021): five emotions while watching 15 film clips in each of three sessions, 16 subjects.

Raw Neuroscan recordings; when a clip starts and ends is fixed per session, in seconds. The header of 7_1_20180411.cnt
counts -732 samples, and the release has a repaired copy of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from data_prep.clean import CleanConfig
from data_prep.corpora import Source
from data_prep.read import OpenRecording, Readable
from data_prep.recipe import Recipe
from data_prep.tasks.base import About, DataSet, Stretch, Trap, side

# Seconds from the recording's start to the start and end of each clip, and its emotion, by session.
_STARTS = {
    1: (30, 132, 287, 555, 773, 982, 1271, 1628, 1730, 2025, 2227, 2435, 2667, 2932, 3204),
    2: (30, 299, 548, 646, 836, 1000, 1091, 1392, 1657, 1809, 1966, 2186, 2333, 2490, 2741),
    3: (30, 353, 478, 674, 825, 908, 1200, 1346, 1451, 1711, 2055, 2307, 2457, 2726, 2888),
}
_ENDS = {
    1: (102, 228, 524, 742, 920, 1240, 1568, 1697, 1994, 2166, 2401, 2607, 2901, 3172, 3359),
    2: (267, 488, 614, 773, 967, 1059, 1331, 1622, 1777, 1908, 2153, 2302, 2428, 2709, 2817),
    3: (321, 418, 643, 764, 877, 1147, 1284, 1418, 1679, 1996, 2275, 2425, 2664, 2857, 3066),
}
_EMOTIONS = {
    1: (4, 1, 3, 2, 0) * 3,
    2: (2, 1, 3, 0, 4, 4, 0, 3, 2, 1, 3, 4, 1, 2, 0),
    3: (2, 1, 3, 0, 4, 4, 0, 3, 2, 1, 3, 4, 1, 2, 0),
}
_CHANNELS = """
    Fp1 Fpz Fp2 AF3 AF4 F7 F5 F3 F1 Fz F2 F4 F6 F8 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 T7 C5 C3 C1 Cz C2 C4 C6 T8
    TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO5 PO3 POz PO4 PO6 PO8 CB1 O1 Oz O2 CB2
"""


@dataclass(frozen=True, kw_only=True)
class SeedV(DataSet):
    """Five emotions, in windows of 1 s; as published the first, second and last five clips of everybody's sessions."""

    about: ClassVar = About(
        name="seed_v",
        title="SEED-V",
        url="https://bcmi.sjtu.edu.cn/home/seed/seed-v.html",
        layout="EEG_raw/1_1_20180804.cnt            subject_session_date\n"
        "EEG_raw/7_1_20180411_repaired.cnt   goes before 7_1_20180411.cnt\n... to EEG_raw/16_3_*.cnt",
        class_names=("disgust", "fear", "sad", "neutral", "happy"),
        subjects=16,
        windows=117_744,
        seconds=1.0,
        native="1000 Hz",
        channels=tuple(_CHANNELS.split()),
        clean=CleanConfig(sfreq=200.0, l_freq=0.3, h_freq=75.0, notch=None),
        split="clips 1-5 / 6-10 / 11-15 of every recording",
        traps=(
            Trap(
                name="within_subject",
                published="every recording is divided by clips, so every subject and session trains, validates and "
                "tests: figures do not speak about new persons",
                corrected="no split of its own, so that fine-tuning divides by subject",
            ),
        ),
        note="The published preparation has no notch filter.",
    )

    def has_split(self) -> bool:
        """Clips are a split only as published."""
        return self.keeps("within_subject")

    def sources(self, path: str) -> list[Source]:
        """One recording per subject and session: the repaired one where there are two."""
        found = list(self.find(path, r"(?P<subject>\d{1,2})_(?P<session>[123])_\d+(?:_repaired)?\.cnt"))
        stems = {Path(source.file).stem for _, source in found}
        return [
            replace(source, session=match["session"])
            for match, source in found
            if f"{Path(source.file).stem}_repaired" not in stems
        ]

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """The file, whose samples have 32 bits: MNE cannot tell where the header does not count them."""
        return OpenRecording(Path(source.file), data_format="int32")

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """The clips of a session."""
        session = int(source.session)
        clips = zip(_STARTS[session], _ENDS[session], _EMOTIONS[session], strict=True)
        return [
            Stretch(onset=start, seconds=end - start, label=emotion, part=side(clip, 5, 10))
            for clip, (start, end, emotion) in enumerate(clips)
        ]
