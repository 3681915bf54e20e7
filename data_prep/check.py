"""Whether a store still holds what was written: every byte is read and compared with its digest.

Disks, copies and power cuts damage files in silence, and so does a spreadsheet that saves recordings.csv.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from codebrain.data.codes import VERSION, CodeFiles
from codebrain.data.format import REMEDY, Store
from codebrain.data.integrity import damaged_shards

_CODES_REMEDY = "Delete that file, if it is there, and launch stage 2 again: it computes what is missing."


def check(path: str) -> list[str]:
    """Read all of a store, and print what was compared.

    Parameters
    ----------
    path : str
        Its folder.

    Returns
    -------
    list of str
        What is wrong, each with the file's name and what to do; empty for a store that is whole.
    """
    try:
        store = Store.open(path)
    except (ValueError, FileNotFoundError) as error:
        return [str(error)]
    shards = damaged_shards(store.path, store.info.sfreq, store.shards, shown_as=f"comparing {store.path.name}")
    faults = [f"{store.path / file} {fault}. {REMEDY}" for file, fault in shards.items()]
    faults += _rows(store)
    n_codes, of_codes = 0, list[str]()
    for folder in sorted((store.path / "codes").glob("*/")):
        if (files := _code_files(folder, store)) is None:
            print(f"{folder}: codes of other contents of the store, or of an earlier version; nothing reads them")
            continue
        there = [shard for shard in store.shards if files.path(shard).exists()]
        n_codes += len(there)
        found = ((files.path(shard), files.fault(shard)) for shard in there)
        of_codes += [f"{file}: {fault}. {_CODES_REMEDY}" for file, fault in found if fault]
    codes = f", {n_codes:,} files of codes" if n_codes else ""
    if not (faults := faults + of_codes):
        print(f"{store.path}: {len(store.shards):,} shards with {store.n_windows:,} windows{codes}, all as written")
    if warning := store.outdated():
        print(f"WARNING: {warning}")
    return faults


def _rows(store: Store) -> Iterator[str]:
    """Where recordings.csv and the index differ."""
    windows: Counter[int] = Counter()
    for shard in store.shards:
        windows.update(dict(shard.runs))
    for recording in store.recordings:
        if recording.kept != windows[recording.row]:
            yield (
                f"{store.path / 'recordings.csv'} has {recording.kept} windows of {recording.path} (row "
                f"{recording.row}), the index {windows[recording.row]}. Run the same codebrain-prep command again: it "
                "writes that file again."
            )


def _code_files(folder: Path, store: Store) -> CodeFiles | None:
    """The code files in a folder, or None if they are not of a store's present contents, or of another version."""
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        if about["version"] != VERSION or about["store_hash"] != store.fingerprint():
            return None
        return CodeFiles(folder, int(about["patch_size"]), (int(about["n_codes_t"]), int(about["n_codes_f"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
