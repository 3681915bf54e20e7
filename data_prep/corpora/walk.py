"""Which files in some folders are recordings, and what lies there besides."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpora.files import brainvision_files
from data_prep.corpora.source import counted

SUFFIXES = (
    *(".edf", ".bdf", ".gdf", ".rec", ".vhdr", ".ahdr", ".set", ".fif", ".fif.gz", ".cnt", ".mff", ".eeg", ".nxe"),
    *(".cdt", ".lay"),
)
"""Endings of files (and .mff folders) that are taken for recordings."""

_FOLDER_FORMATS = (".mff",)
_HEADERS = (".vhdr", ".ahdr")
# FIF also holds events, epochs, averages and matrices; a later part of a split recording comes with its first.
_NOT_RAW = re.compile(
    r"[-_](?:eve|epo|ave|cov|ica|fwd|inv|proj|src|trans|raw-\d+|split-(?!0*1_)\d+_\w+)\.fif(?:\.gz)?$", re.IGNORECASE
)
_USED_WITH_RECORDINGS = (".vmrk", ".amrk", ".fdt", ".tsv", ".json")
_BIDS = "dataset_description.json"
_LISTED = 8
_MADE_OR_RAW = ("derivatives", "sourcedata")  # of a BIDS data set: its recordings once more


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is in some folders."""

    files: dict[Path, Path]
    """Recordings in the order of their paths, each with the given file or folder that it was found by."""
    others: Counter[str]
    """Files that are no recordings, by ending."""
    folders: dict[str, str]
    """Folders that were passed over, with the reason."""

    def in_words(self) -> list[str]:
        """Lines on what was passed over."""
        lines = []
        if self.others:
            most = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
            endings = ", ".join(f"{ending} {count:,}" for ending, count in most[:_LISTED])
            endings += f" and {len(most) - _LISTED} more" if len(most) > _LISTED else ""
            lines.append(f"passed over {counted(self.others.total(), 'file')} that are no recordings: {endings}")
        lines += [f"passed over {folder}: {reason}" for folder, reason in self.folders.items()]
        return lines


def list_recordings(given: Sequence[Path], skip_folders: Collection[str] = ()) -> Listing:
    """Find the recordings at or below the given paths; hidden files and folders are passed over."""
    walk, others = _Walk(skip_folders), Counter[str]()
    found: dict[Path, Path] = {}
    for path in given:
        if path.is_file() or path.suffix.lower() in _FOLDER_FORMATS:
            found.setdefault(path, path)  # named by the user: even an unknown ending is tried
            continue
        for folder, names in walk.folders(path):
            own = names - _parts_of_others(folder, names)
            taken = {name for name in own if name.lower().endswith(SUFFIXES) and not _NOT_RAW.search(name)}
            found.update({folder / name: path for name in taken if folder / name not in found})
            others.update(_ending(name) for name in own - taken)
    for ending in _USED_WITH_RECORDINGS:
        others.pop(ending, None)
    return Listing(files={file: found[file] for file in sorted(found)}, others=others, folders=walk.passed_over)


def files_below(top: Path) -> Iterator[Path]:
    """All files at or below a folder that are not hidden, whatever they are."""
    for folder, names in _Walk().folders(top):
        yield from (folder / name for name in names)


class _Walk:
    """A walk through folders that enters each one once, however many links lead to it, and first by its own path.

    Attributes
    ----------
    passed_over : dict of str
        Folders that were not entered, with the reason.
    """

    def __init__(self, skip_folders: Collection[str] = ()) -> None:
        self.passed_over: dict[str, str] = {}
        self._skip = set(skip_folders)
        self._entered: set[tuple[int, int]] = set()

    def folders(self, top: Path) -> Iterator[tuple[Path, set[str]]]:
        """Each folder at or below `top`, with the names of its files and of folders that are files to MNE."""
        own, linked = deque([top]), deque[Path]()
        while own or linked:
            folder = own.popleft() if own else linked.popleft()
            try:
                place = folder.stat()
                entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
            except OSError as error:
                self.passed_over[str(folder)] = f"cannot be listed ({error.strerror})"
                continue
            if (place.st_dev, place.st_ino) in self._entered:
                continue
            self._entered.add((place.st_dev, place.st_ino))
            names = {entry.name for entry in entries}
            inner = {
                entry.name: entry.is_symlink()
                for entry in entries
                if entry.is_dir() and not entry.name.lower().endswith(_FOLDER_FORMATS)
            }
            for name in sorted(inner):
                if self._is_entered(folder / name, names):
                    (linked if inner[name] else own).append(folder / name)
            yield folder, names - inner.keys()

    def _is_entered(self, folder: Path, beside: Collection[str]) -> bool:
        if folder.name in _MADE_OR_RAW and any(name == _BIDS or name.startswith("sub-") for name in beside):
            self.passed_over[str(folder)] = "of a BIDS data set, its recordings once more; give it as a path to use it"
            return False
        return folder.name not in self._skip


def _parts_of_others(folder: Path, names: Collection[str]) -> set[str]:
    """Files that would pass for recordings but belong to one: samples of BrainVision, labels of TUEV."""
    lower = {name.lower() for name in names}
    parts = {name for name in names if name.lower().endswith(".rec") and f"{name[:-4].lower()}.edf" in lower}
    samples = {name for name in names if name.lower().endswith(".eeg")}
    headers = {name for name in names if name.lower().endswith(_HEADERS)}
    parts |= {name for name in samples if any(f"{name[:-4].lower()}{ending}" in lower for ending in _HEADERS)}
    if headers and samples - parts:  # a header may name a file with another stem
        parts |= {file.name for header in headers for file in brainvision_files(folder / header)[0]} & samples
    return parts


def _ending(name: str) -> str:
    """Ending by which a file that is no recording is counted."""
    if found := _NOT_RAW.search(name):
        return found[0].lower()
    return Path(name).suffix.lower() or "no ending"
