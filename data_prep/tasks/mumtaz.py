"""Mumtaz et al. 2016: patients with major depression and healthy controls at rest, eyes closed and open."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from codebrain.channels import TEN_TWENTY_19
from data_prep.clean import CleanConfig
from data_prep.corpora import Source
from data_prep.corpora.files import files_of
from data_prep.read import Readable
from data_prep.tasks.base import About, DataSet, Stretch, Trap, side, whole, with_part

_FILE = r"(?:\d+_)?(?P<subject>(?P<group>H|MDD)[ _]+S\d+)[ _]+(?P<state>EC|EO)\.edf"
# Files of a group, in the order of their names, that train; that train or validate.
_FIRST = {"H": (40, 48), "MDD": (42, 52)}


@dataclass(frozen=True, kw_only=True)
class Mumtaz(DataSet):
    """Depression against health at rest, in windows of 5 s."""

    about: ClassVar = About(
        name="mumtaz",
        title="Mumtaz 2016",
        url="https://doi.org/10.6084/m9.figshare.4244171",
        layout="H S1 EC.edf     healthy, eyes closed\nH S1 EO.edf     healthy, eyes open\nMDD S1 EC.edf   depressed\n"
        "... (TASK files are passed over)",
        class_names=("healthy", "depressed"),
        subjects=None,
        windows=7_143,
        seconds=5.0,
        native="256 Hz",
        channels=TEN_TWENTY_19,
        clean=CleanConfig(sfreq=200.0, l_freq=0.3, h_freq=75.0, notch=50.0),
        split="the first 40 healthy and 42 depressed files, by name / the next 8 and 10 / the others",
        traps=(
            Trap(
                name="split_by_file",
                published="files are divided, not persons, so that one person's eyes-closed and eyes-open recordings "
                "can be on two sides",
                corrected="both recordings of a person go where the first of them goes",
            ),
            Trap(
                name="two_names",
                published="two recordings come under the names of two persons each, H S27 EC as H S30 EC and MDD S33 "
                "EC as MDD S34 EC: the first trains and validates, the second probably validates and tests",
                corrected="such recordings are left out under both names, with the reason: whose they are is not known",
            ),
        ),
        note="The sides are counted in files, so all of the data set must be there: by third parties' lists 58 healthy "
        "and 62 depressed ones at rest, two of them H S15 EO. (The archive names twelve more that cannot be fetched.) "
        "No person of these 120 files is on two sides, so `split_by_file` changes nothing. `two_names` is known from "
        "the archive's checksums and from a third party's downloads.",
    )

    def sources(self, path: str) -> list[Source]:
        """The files of both groups but for those named TASK."""
        found = sorted(self.find(path, _FILE), key=lambda pair: Path(pair[1].file).name)
        count = dict.fromkeys(_FIRST, 0)
        first: dict[str, str] = {}
        sources = []
        for match, source in found:
            group = match["group"].upper()
            part = side(count[group], *_FIRST[group])
            count[group] += 1
            subject = re.sub(r"[ _]+", " ", match["subject"])
            if not self.keeps("split_by_file"):
                part = first.setdefault(subject, part)
            sources.append(with_part(replace(source, subject=subject, session=match["state"]), part))
        return sources if self.keeps("two_names") else _without_two_names(sources)

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """The whole recording has the class of its person."""
        return whole(recording, int(source.subject.startswith("MDD")))


def _without_two_names(sources: Sequence[Source]) -> list[Source]:
    """The same recordings; those that are there under the names of several persons cannot be used."""
    persons: dict[tuple[int, str], set[str]] = defaultdict(set)
    content = [(source.size, files_of(Path(source.file)).digest()) for source in sources]
    for source, same in zip(sources, content, strict=True):
        persons[same].add(source.subject)
    return [
        replace(source, unusable=f"the same recording under the names of {' and '.join(sorted(persons[same]))}")
        if source.size and not source.unusable and len(persons[same]) > 1
        else source
        for source, same in zip(sources, content, strict=True)
    ]
