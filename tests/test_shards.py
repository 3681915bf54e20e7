"""Shards on opening: what does not fit its entry in the index is no EEG, and is refused by every reader."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from codebrain.data import shards
from codebrain.data.format import Store
from codebrain.data.integrity import damaged_shards
from codebrain.data.shards import HeldOpen, open_shard
from codebrain.data.windows import Request, WindowDataset
from data_prep.info import describe, some_windows
from finetune.manifest import content_hashes
from tests.conftest import edit_index, rewrite, write_toy_store

READERS: dict[str, Callable[[Store], object]] = {
    "training": lambda store: WindowDataset([store])[Request(np.array([13]))],
    "labels": lambda store: WindowDataset([store]).labels(),
    "fine-tuning": content_hashes,
    "info": some_windows,
    "check": lambda store: require_none(damaged_shards(store.path, store.info.sfreq, store.shards, shown_as="x")),
}


def require_none(faults: dict[str, str]) -> None:
    if faults:
        raise ValueError(f"{faults}. Delete that file, if it is there, and run the same codebrain-prep command again")


def message_of(reader: Callable[[Store], object], store: Store) -> str:
    """The message of a reader's ValueError; every other error is none of a user's."""
    try:
        reader(store)
    except ValueError as error:
        return str(error)
    return ""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write_toy_store(tmp_path / "store", n_subjects=3, seconds=1, classes=("rest", "task"))


def replace(name: str, change: Callable[[np.ndarray], np.ndarray], **options: object) -> Callable[[h5py.File], None]:
    """A change of a shard's dataset to another one of the same name."""

    def apply(h5: h5py.File) -> None:
        changed = change(h5[name][:])
        del h5[name]
        if name == "windows":
            options.setdefault("chunks", (1, *changed.shape[1:]))
        h5.create_dataset(name, data=changed, **options)

    return apply


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda h5: h5.attrs.__setitem__(name, value)


def without(name: str) -> Callable[[h5py.File], None]:
    return lambda h5: h5.__delitem__(name)


def never_written(h5: h5py.File) -> None:
    shape = h5["windows"].shape
    del h5["windows"]
    h5.create_dataset("windows", shape=shape, chunks=(1, *shape[1:]), dtype="<i2")


LAYOUTS = {
    "fewer channels": (replace("windows", lambda x: x[:, :5]), r"shape of windows \(12, 5, 200\)"),
    "more samples": (replace("windows", lambda x: np.repeat(x, 2, axis=2)), r"shape of windows \(12, 6, 400\)"),
    "fewer windows": (replace("windows", lambda x: x[:7]), r"shape of windows \(7, 6, 200\)"),
    "big-endian": (replace("windows", lambda x: x.astype(">i2")), "type of windows >i2, in the index <i2"),
    "unsigned": (replace("windows", lambda x: x.astype("<u2")), "type of windows <u2"),
    "floats": (replace("windows", lambda x: x.astype("<f4")), "type of windows <f4"),
    "compressed": (replace("windows", lambda x: x, compression="gzip"), "rewritten by another program"),
    "other chunks": (replace("windows", lambda x: x, chunks=(2, 6, 200)), "rewritten by another program"),
    "one scale too few": (replace("scale", lambda x: x[:-1]), r"/scale has the shape \(11,\)"),
    "scales of float64": (replace("scale", lambda x: x.astype("<f8")), "/scale has .*the type <f8, not .* and <f4"),
    "labels of other length": (replace("label", lambda x: x[:3]), r"/label has the shape \(3,\)"),
    "no scale": (without("scale"), "scale"),
    "no windows": (without("windows"), "windows"),
    "other rate": (attribute("sfreq", 250.0), "Hz 250.0, in the index 200.0"),
    "other channels": (attribute("ch_names", ["Fp1", "Fp2", "C3", "C4", "O2", "O1"]), "channels .*'O2', 'O1'"),
    "other version": (attribute("format_version", 2), "format version 2, in the index 1"),
    "version of the future": (attribute("format_version", 3), "it has format version 3, this program reads 1 and 2"),
    "version in words": (attribute("format_version", "one"), ""),
    "other shard": (attribute("digest", "0" * 64), "digest 0000"),
    "no digest": (lambda h5: h5.attrs.__delitem__("digest"), "digest"),
    "never written": (never_written, ""),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fault", LAYOUTS)
def test_a_shard_that_does_not_fit_its_entry_is_refused(store: Store, fault: str, reader: str) -> None:
    change, message = LAYOUTS[fault]
    path = store.path / store.shards[1].file
    with h5py.File(path, "r+") as h5:
        change(h5)
    if fault == "never written" and reader == "labels":
        return  # which are there
    with pytest.raises(ValueError, match=rf"rec-001\.h5.*{message}.*same codebrain-prep command again"):
        READERS[reader](store)


def test_every_reader_reads_what_fits(store: Store) -> None:
    for reader in READERS.values():
        reader(store)
    assert "amplitude" in describe(store)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("signature", [b"EAHD", b"EAIB", b"OHDR", b"FRHP"])
def test_damaged_structures_of_hdf5_are_named(store: Store, reader: str, signature: bytes) -> None:
    """The index of the chunks, the headers of objects: HDF5 raises RuntimeError, TypeError and others."""
    path = store.path / store.shards[1].file
    content = path.read_bytes()
    places = [found.start() for found in re.finditer(signature, content)]
    for place in places:
        for byte in (place, place + 12):
            damaged = bytearray(content)
            damaged[byte] ^= 0xFF
            path.write_bytes(damaged)
            message = message_of(READERS[reader], store)
            assert re.match(r"(.*rec-001\.h5.*same codebrain-prep command again.*)?$", message), message


def test_every_bit_counts(store: Store) -> None:
    """Windows, labels, times and scales are compared; nothing between them that HDF5 does not read."""
    path = store.path / store.shards[1].file
    content = path.read_bytes()
    with h5py.File(path) as h5:
        places = [h5["windows"].id.get_chunk_info(5).byte_offset + 77]
        places += [h5[name].id.get_offset() + 9 for name in ("label", "start", "scale", "recording")]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        for reader in ("fine-tuning", "check"):
            with pytest.raises(ValueError, match=r"rec-001\.h5.*does not hold what was written.*same codebrain-prep"):
                READERS[reader](store)
    path.write_bytes(content)
    assert len(content_hashes(store)) == store.n_windows


def test_runs_of_others_than_the_windows_are_found(store: Store) -> None:
    content = json.loads((store.path / "store.json").read_text())
    content["shards"][1]["runs"] = [[0, 12]]
    edit_index(store, shards=content["shards"])
    with pytest.raises(ValueError, match=r"rec-001\.h5.*does not hold what was written"):
        content_hashes(Store.open(store.path))


def test_what_a_shard_holds_by_hand(store: Store) -> None:
    shard = store.shards[1]
    with h5py.File(store.path / shard.file) as h5, open_shard(store, shard) as opened:
        for row in range(shard.n):
            np.testing.assert_array_equal(opened.microvolts(row), h5["windows"][row] * h5["scale"][row])
        np.testing.assert_array_equal(opened.column("start"), h5["start"][:])
        np.testing.assert_array_equal(opened.label, h5["label"][:])
        for row, counts in enumerate(opened.verified()):
            np.testing.assert_array_equal(counts, h5["windows"][row])
        with pytest.raises(ValueError, match=r"/split of .*rec-001\.h5 cannot be read"):
            opened.column("split")


def test_files_that_are_held_open_are_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MOST", 2)
    held: HeldOpen[shards.OpenShard] = HeldOpen()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for number in (0, 1, 2, 0, 1, 2):
        shard = store.shards[number]
        held.get(number, lambda shard=shard: open_shard(store, shard)).microvolts(0)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before + 2
    first = held.get(2, lambda: pytest.fail("it is held"))
    assert first.shard == store.shards[2]


def test_the_helper_of_these_tests_fits_digests(store: Store) -> None:
    assert content_hashes(rewrite(store, 1, lambda h5: h5["windows"].write_direct(h5["windows"][:] + 1))).size == 36
