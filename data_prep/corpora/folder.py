"""Any folder of recordings: which files are recordings, and whom each is from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".fif.gz", ".cnt", ".mff", ".eeg", ".nxe", ".cdt")
"""Endings of files (and .mff folders) that are taken for recordings."""

_FOLDER_FORMATS = (".mff",)
# FIF also holds events, epochs, averages and matrices; a later part of a split recording comes with its first.
_NOT_RAW = re.compile(
    r"[-_](?:eve|epo|ave|cov|ica|fwd|inv|proj|src|trans|raw-\d+|split-(?!0*1_)\d+_\w+)\.fif(?:\.gz)?$", re.IGNORECASE
)

SUBJECT_PATTERNS: dict[str, str] = {
    "BIDS (sub-XX)": r"(?:^|/)(sub-[A-Za-z0-9]+)(?=[_/])",
    "SubjectNN": r"(?i:(?:^|[/_\-.])(subject[_-]?\d+))(?!\d)",
    "TUH (aaaaaaaa_s001_t000)": r"(?:^|/)([a-z]{8})_s\d{3}(?:_\d{4})?_t\d{3}",
    "chbNN": r"(?:^|/)(chb\d{2})(?=[a-z]?_)",
    "SNNN": r"(?:^|/)(S\d{2,3})(?=R\d|[/_\-.])",
}
"""Naming schemes that are recognised, tried in this order on a recording's path."""

_SESSION = re.compile(r"(?:^|[/_])(ses-[A-Za-z0-9]+|s\d{3}(?=_\d{4}|_t\d{3}))")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A recording on disk."""

    file: str
    """Where it is."""
    key: str
    """Path below the folder that was given, with forward slashes: the recording's name in the store."""
    subject: str
    """Whom it is from."""
    session: str = ""
    """Session within the subject, where the path says so."""
    scheme: str = ""
    """Naming scheme that gave the subject; empty if the file name itself had to serve."""
    size: int = 0
    """Size in bytes."""
    part: str = ""
    """Side of the split ("train", "valid", "test") where a labelled data set fixes it by files."""


def find_recordings(
    paths: Sequence[str | os.PathLike[str]], subject_pattern: str | None = None, skip_folders: Sequence[str] = ()
) -> list[Source]:
    """List the recordings in files and folders, in a fixed order.

    Parameters
    ----------
    paths : sequence of paths
        Files, or folders that are searched through.
    subject_pattern : str, optional
        Regular expression whose first group (or whole match) in a recording's path is its subject.
    skip_folders : sequence of str
        Names of folders whose recordings are left out.

    Raises
    ------
    FileNotFoundError
        A path does not exist.
    ValueError
        No recording is there, or the pattern is no regular expression or fits none of them.
    """
    given = [Path(path).absolute() for path in paths]
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    skipped = set(skip_folders)
    files = sorted({file for path in given for file in _walk(path) if skipped.isdisjoint(file.parts)})
    if not files:
        names = ", ".join(str(path) for path in given) or "nothing"
        raise ValueError(f"no recordings in {names}: looked for files ending in {', '.join(SUFFIXES)}")
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given]))
    pattern = _compiled(subject_pattern)
    sources = [_source(file, file.relative_to(root).as_posix(), pattern) for file in files]
    if pattern is not None and not any(source.scheme for source in sources):
        raise ValueError(f"--subject_pattern {subject_pattern!r} fits no recording, such as {sources[0].key!r}")
    return sources


def say_subjects(sources: Sequence[Source]) -> str:
    """One line on how many recordings and subjects there are and how the subjects were told apart."""
    schemes = sorted({source.scheme for source in sources if source.scheme})
    n_own = sum(not source.scheme for source in sources)
    n_subjects = len({source.subject for source in sources})
    line = f"{counted(len(sources), 'recording')} of {counted(n_subjects, 'subject')}"
    if schemes:
        line += f", told apart by {', '.join(schemes)}"
    if n_own:
        line += (
            f"; {n_own} with no known naming scheme, each taken for a subject of its own. If a person has several "
            "recordings, name them apart with --subject_pattern, or a split may cut through a subject"
        )
    return line


def counted(number: int, noun: str) -> str:
    """Such as "1 recording" and "2 recordings"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _walk(path: Path) -> Iterator[Path]:
    """Recordings at or below a path; hidden files and folders are passed over."""
    if path.is_file() or path.suffix.lower() in _FOLDER_FORMATS:
        yield path  # named by the user: even an unknown ending is tried
        return
    for folder, inner, names in os.walk(path, followlinks=True):
        for name in [name for name in inner if name.lower().endswith(_FOLDER_FORMATS)]:
            yield Path(folder, name)
        inner[:] = [name for name in inner if not name.startswith(".") and not name.lower().endswith(_FOLDER_FORMATS)]
        yield from (Path(folder, name) for name in names if _is_recording(name, names))


def _is_recording(name: str, beside: Sequence[str]) -> bool:
    if name.startswith(".") or not name.lower().endswith(SUFFIXES) or _NOT_RAW.search(name):
        return False
    # BrainVision's .eeg holds the samples that a .vhdr describes.
    return not (name.lower().endswith(".eeg") and any(other.lower().endswith((".vhdr", ".ahdr")) for other in beside))


def _source(file: Path, key: str, pattern: re.Pattern[str] | None) -> Source:
    subject, scheme = _subject(key, file, pattern)
    session = _SESSION.search(key)
    return Source(
        file=str(file),
        key=key,
        subject=subject,
        session=session[1] if session else "",
        scheme=scheme,
        size=file.stat().st_size,
    )


def _subject(key: str, file: Path, pattern: re.Pattern[str] | None) -> tuple[str, str]:
    """Subject of a recording and the scheme that gave it."""
    if pattern is not None:
        found = pattern.search(key)
        return (found[1] if found.groups() else found[0], "--subject_pattern") if found else (_stem(key), "")
    for scheme, expression in SUBJECT_PATTERNS.items():
        # The folders above the given one count too: a user may give the folder of one subject.
        found = re.search(expression, key) or re.search(expression, file.as_posix())
        if found:
            return found[1], scheme
    return _stem(key), ""


def _stem(key: str) -> str:
    """A recording's own name: with its folders, for two folders may hold the same file name."""
    return re.sub(r"(\.fif)?\.[^./]+$", "", key)


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--subject_pattern {pattern!r} is no regular expression: {error}") from None
