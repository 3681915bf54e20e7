"""TUH EEG Events Corpus 2.0 (Harati et al. 2015): spikes, periodic discharges, eye movements and artefacts.

Beside each recording a .rec file has lines `channel,start,end,code`: a channel, a second and what it shows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_prep.clean import CleanConfig
from data_prep.corpora import Source
from data_prep.read import Readable, UnusableError
from data_prep.tasks.base import About, DataSet, Stretch, Trap, first_of, with_part
from data_prep.tasks.clinical import DOUBLE_BANANA

_BEFORE = 2.0  # seconds of a window before its event


@dataclass(frozen=True, kw_only=True)
class Tuev(DataSet):
    """Six kinds of events, in windows of 5 s around a second; the corpus's own evaluation half tests."""

    about: ClassVar = About(
        name="tuev",
        title="TUEV 2.0",
        url="https://isip.piconepress.com/projects/nedc/html/tuh_eeg/",
        layout="edf/train/aaaaaaar/aaaaaaar_00000001.edf\nedf/train/aaaaaaar/aaaaaaar_00000001.rec\n"
        "edf/eval/000/bckg_000_a_.edf\nedf/eval/000/bckg_000_a_.rec",
        class_names=("spsw", "gped", "pled", "eyem", "artf", "bckg"),
        subjects=None,
        windows=112_491,
        seconds=5.0,
        native="250 Hz",
        channels=DOUBLE_BANANA,
        clean=CleanConfig(sfreq=200.0, l_freq=0.3, h_freq=75.0, notch=60.0),
        split="the first 80 % of the training half's subjects, by name / the others / evaluation half",
        traps=(
            Trap(
                name="duplicates",
                published="the .rec files have a line per channel, so the same five seconds come as many times as "
                "channels show the event, at times under different classes",
                corrected="every start comes once, with the first of the classes that are marked there; starts that "
                "differ by tenths of a second stay windows of their own, which overlap",
            ),
            Trap(
                name="wrap_around",
                published="a window that reaches beyond the recording's start or end goes on at its other end",
                corrected="such windows are left out",
            ),
        ),
    )

    def goes_round(self) -> bool:
        """Whether windows wrap around the recording's ends."""
        return self.keeps("wrap_around")

    def sources(self, path: str) -> list[Source]:
        """The recordings of both halves; a folder is a subject."""
        found = list(self.find(path, r"(?P<half>train|eval)/(?P<subject>\w+)/[^/]+\.edf"))
        trains = first_of((match["subject"] for match, _ in found if match["half"].lower() == "train"), 0.8)
        return [
            with_part(
                source,
                "test" if match["half"].lower() == "eval" else "train" if match["subject"] in trains else "valid",
            )
            for match, source in found
        ]

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """Five seconds around each marked second."""
        marks = [(start, code) for _, start, _, code in self._lines(Path(source.file).with_suffix(".rec"))]
        if not self.keeps("duplicates"):
            first: dict[float, int] = {}
            for start, code in marks:
                first[start] = min(code, first.get(start, code))
            marks = list(first.items())
        return [Stretch(onset=start - _BEFORE, label=code - 1) for start, code in marks]

    def _lines(self, path: Path) -> list[tuple[int, float, float, int]]:
        if not path.is_file():
            raise UnusableError(f"no labels: {path.name} should lie beside it")
        try:
            table = np.loadtxt(path, delimiter=",", ndmin=2)
            lines = [(int(channel), start, end, int(code)) for channel, start, end, code in table.tolist()]
        except ValueError as error:
            raise UnusableError(f"{path.name} does not have lines of channel,start,end,code ({error})") from error
        if unknown := {code for *_, code in lines} - set(range(1, len(self.about.class_names) + 1)):
            raise UnusableError(f"{path.name} has codes {sorted(unknown)}, but TUEV's are 1 to 6")
        return lines
