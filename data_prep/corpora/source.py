"""A recording on disk: where it is, whom it is from, and by what it is known that it has changed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Source:
    """A recording on disk."""

    file: str
    """Where it is."""
    key: str
    """Path below the folder that was given, with forward slashes: the recording's name in the store."""
    subject: str
    """Whom it is from; of several data sets given together, behind the name of its own."""
    session: str = ""
    """Session within the subject, where the path says so."""
    scheme: str = ""
    """What gave the subject: a naming scheme, a pattern, a table; empty if the file name itself had to serve."""
    data_set: str = ""
    """Folder of the data set that the subject is named after, if there are several."""
    age: str = ""
    """Age in years, where a table gives it."""
    sex: str = ""
    """Sex ("male", "female"), where a table gives it."""
    size: int = 0
    """Size of all its files in bytes."""
    files_hash: str = ""
    """Hash of the sizes of its files and of what the texts among them say."""
    part: str = ""
    """Side of the split ("train", "valid", "test") where a labelled data set fixes it by files."""
    label: str = ""
    """What a table of labels says of it, where there is one."""
    unusable: str = ""
    """Why it cannot be used, where that is known before it is opened."""

    @property
    def person(self) -> str:
        """The subject as its own data set names it."""
        return self.subject.removeprefix(f"{self.data_set}/") if self.data_set else self.subject

    @property
    def state(self) -> str:
        """Hash of all that its row and its windows depend on: in another state it is prepared anew."""
        told = [self.files_hash, self.subject, self.session, self.age, self.sex, self.unusable]
        told += [self.label] if self.label else []
        return hashlib.sha256("\0".join(told).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def counted(number: int, noun: str) -> str:
    """Such as "1 recording" and "2 recordings"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
