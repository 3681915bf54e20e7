"""TUH Abnormal EEG Corpus 3.0.1 (Lopez et al. 2015): whether a clinical recording as a whole is abnormal."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from data_prep.clean import CleanConfig
from data_prep.corpora import Source
from data_prep.read import Readable
from data_prep.tasks.base import About, DataSet, Stretch, Trap, first_of, whole, with_part
from data_prep.tasks.clinical import DOUBLE_BANANA

_FILE = r"(?P<half>train|eval)/(?P<kind>abnormal|normal)/01_tcp_ar/(?:.*/)?(?P<subject>[a-z0-9]{8})_s\d{3}_t\d{3}\.edf"


@dataclass(frozen=True, kw_only=True)
class Tuab(DataSet):
    """Abnormal against normal recordings, in windows of 10 s; the corpus's own evaluation half tests."""

    about: ClassVar = About(
        name="tuab",
        title="TUAB 3.0.1",
        url="https://isip.piconepress.com/projects/nedc/html/tuh_eeg/",
        layout="edf/train/abnormal/01_tcp_ar/aaaaaaaq_s004_t000.edf\nedf/train/normal/01_tcp_ar/...\n"
        "edf/eval/abnormal/01_tcp_ar/...\nedf/eval/normal/01_tcp_ar/...",
        class_names=("normal", "abnormal"),
        subjects=None,
        windows=409_455,
        seconds=10.0,
        native="250 to 512 Hz",
        channels=DOUBLE_BANANA,
        clean=CleanConfig(sfreq=200.0, l_freq=0.3, h_freq=75.0, notch=60.0),
        split="within each class the first 80 % of the training half's subjects, by name / others / evaluation half",
        traps=(
            Trap(
                name="split_within_class",
                published="the training half is divided within each class, so a person with normal and abnormal "
                "recordings can train as one and validate as the other",
                corrected="whoever would be on both sides trains",
            ),
        ),
        note="The published script finds a subject's files by searching its name anywhere in a path; names have eight "
        "letters here, so that this is the same.",
    )

    def sources(self, path: str) -> list[Source]:
        """The recordings of the montage 01_tcp_ar."""
        found = list(self.find(path, _FILE))
        training = {
            kind: first_of(
                (m["subject"] for m, _ in found if m["half"].lower() == "train" and m["kind"].lower() == kind), 0.8
            )
            for kind in ("abnormal", "normal")
        }
        anyhow = set().union(*training.values())
        sources = []
        for match, source in found:
            trains = training[match["kind"].lower()] if self.keeps("split_within_class") else anyhow
            part = "test" if match["half"].lower() == "eval" else "train" if match["subject"] in trains else "valid"
            sources.append(with_part(source, part))
        return sources

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """The whole recording has the class of its folder, the last of that name in its path."""
        (kind,) = re.findall(r"/(abnormal|normal)/01_tcp_ar/", source.file.lower())[-1:]
        return whole(recording, self.about.class_names.index(kind))
