"""ISRUC-Sleep, subgroup 1: one night of each of 100 persons with a suspected sleep disorder.

Files begin with LOC-A2, ROC-A1 and the six channels in the order of `CHANNELS` (or E1-M2, E2-M1, F3-M2, ...), but for
two: subject 8 has no F3 and F4, and the electrodes and ears of subject 40 are channels of their own, in another order.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from codebrain.channels import bare_label, canonical_name
from data_prep.corpora import Source
from data_prep.read import Readable, UnusableError
from data_prep.recipe import Recipe
from data_prep.tasks.base import About, DataSet, Stretch, Trap, side, with_part
from data_prep.tasks.derived import Derived
from data_prep.tasks.isruc import CHANNELS, CLEAN, EPOCH_SECONDS, STAGES, URL, read_stages, sequences

_FIRST, _LAST = 2, 8  # places of the published channels in a file
_EARS = dict(zip(CHANNELS, ("A2", "A2", "A2", "A1", "A1", "A1"), strict=True))


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
                name="by_position",
                published="a file's channels 3 to 8 pass for the six, whatever they are: of subject 8, who has no F3 "
                "and F4, these are C3, O1, C4, O2, X1 and X2; of subject 40 LOC, A2, C4, O2, C3 and O1, against no ear",
                corrected="channels are found by their names: subject 8 is left out, and the six of subject 40 are "
                "differences to the ears",
            ),
            Trap(
                name="unsorted_pairs",
                published="the published loader pairs signals and labels as the file system happens to list them, so "
                "on some machines labels are another epoch's. That cannot be repeated, and is not here",
                corrected="signals and labels are paired by their names, as in `published`",
            ),
        ),
        note="What channels the files of subjects 8 and 40 have is known from third parties' code alone.",
    )

    def sources(self, path: str) -> list[Source]:
        """One night per subject, in a folder with the subject's number."""
        found = list(self.find(path, r"(?P<subject>\d{1,3})/(?P=subject)\.rec"))
        if len({source.subject for _, source in found}) < len(found):
            raise ValueError(f"{path} holds several nights of a subject: give the folder of subgroup 1 alone")
        return [with_part(source, side(int(match["subject"]) - 1, 80, 90)) for match, source in found]

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """The night, with each channel against the ear of the other side."""
        night = super().open(source, recipe)
        if self.keeps("by_position"):
            return _by_position(night)
        electrodes = {bare_label(label): label for label in night.labels}
        return night if set(CHANNELS).isdisjoint(electrodes) else _against_ears(night, electrodes)

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """The epochs that were scored."""
        (stages,) = self.label_files(Path(source.file))
        return sequences(read_stages(stages), math.floor(recording.seconds / EPOCH_SECONDS))

    def label_files(self, recording: Path) -> Sequence[Path]:
        """What the first scorer wrote."""
        return [recording.with_name(f"{recording.stem}_1.txt")]


def _by_position(night: Readable) -> Derived:
    """The channels at the places where most files have the six."""
    labels = night.labels[_FIRST:_LAST]
    if len(labels) < len(CHANNELS):
        raise UnusableError(f"{len(night.labels)} channels, but the published ones are the third to the eighth")
    others = tuple(map(canonical_name, labels)) != CHANNELS
    note = f"{', '.join(labels)} pass for {', '.join(CHANNELS)}" if others else ""
    return Derived(night, {name: {label: 1.0} for name, label in zip(CHANNELS, labels, strict=True)}, note=note)


def _against_ears(night: Readable, electrodes: Mapping[str, str]) -> Derived:
    """Differences to the ears, of a night whose electrodes and ears are channels of their own."""
    needed = dict.fromkeys([*_EARS, *_EARS.values()])
    if missing := [name for name in needed if name not in electrodes]:
        raise UnusableError(
            f"its electrodes do not refer to the ears, and {', '.join(missing)} are not there to subtract"
        )
    channels = {f"{name}-{ear}": {electrodes[name]: 1.0, electrodes[ear]: -1.0} for name, ear in _EARS.items()}
    return Derived(night, channels, note=f"formed as differences: {', '.join(channels)}")
