"""`codebrain-prep check`: all of a store is read, and what is wrong is named with what to do."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from codebrain.data.codes import VERSION, CodeFiles
from codebrain.data.format import Store
from data_prep import cli
from tests.conftest import edit_index, write_toy_store
from tests.test_windows import flip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With codes of 6 channels x 1 patch under a tokenizer of 50 and 60 codes."""
    store = write_toy_store(tmp_path / "store", n_subjects=3, seconds=1)
    write_codes(store, "0123456789abcdef")
    return store


def write_codes(store: Store, name: str, **about: object) -> CodeFiles:
    files = CodeFiles(store.path / "codes" / name, 200, (50, 60))
    files.folder.mkdir(parents=True)
    sizes = {"patch_size": 200, "n_codes_t": 50, "n_codes_f": 60}
    content = {"version": VERSION, "store_hash": store.fingerprint(), **sizes, **about}
    (files.folder / "about.json").write_text(json.dumps(content))
    for shard in store.shards:
        codes = np.arange(shard.n * 2 * 6).reshape(shard.n, 2, 6, 1) % 50
        files.path(shard).write_bytes(files.content(shard, codes.astype(np.uint16)))
    return files


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *stores: Path) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["codebrain-prep", "check", *map(str, stores)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), *capsys.readouterr()


def test_a_store_as_it_was_written(store: Store, monkeypatch, capsys) -> None:
    code, out, err = run(monkeypatch, capsys, store.path)
    assert (code, err) == (0, "")
    assert out == f"{store.path}: 3 shards with 36 windows, 3 files of codes, all as written\n"


def flip_a_sample(store: Store) -> None:
    path = store.path / store.shards[1].file
    with h5py.File(path) as h5:
        place = h5["windows"].id.get_chunk_info(5).byte_offset
    flip(path, place + 77)


def drop_a_window(store: Store) -> None:
    path = store.path / "recordings.csv"
    path.write_text(path.read_text().replace(",12,", ",11,", 1))


AGAIN = "same codebrain-prep command again"
DAMAGES = {
    "one bit of EEG": (flip_a_sample, "shards/rec-001.h5 cannot be used: its digest", AGAIN),
    "a missing shard": (lambda s: (s.path / s.shards[1].file).unlink(), "shards/rec-001.h5 is missing", AGAIN),
    "a short shard": (lambda s: (s.path / s.shards[1].file).write_bytes(b"x"), "rec-001.h5 is no HDF5 file", AGAIN),
    "counts of windows": (drop_a_window, "recordings.csv has 11 windows of s0.edf (row 0), the index 12", AGAIN),
    "the index": (lambda s: (s.path / "store.json").write_text("[]"), "store.json is damaged", AGAIN),
    "no index": (lambda s: (s.path / "store.json").unlink(), "is not a complete store", AGAIN),
    "one bit of a code": (
        lambda s: flip(s.path / "codes/0123456789abcdef/rec-002.npy", 200),
        "codes/0123456789abcdef/rec-002.npy: it does not hold what was written",
        "launch stage 2 again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_named(store: Store, tmp_path: Path, monkeypatch, capsys, damage: str) -> None:
    change, message, remedy = DAMAGES[damage]
    other = write_toy_store(tmp_path / "other", n_subjects=1, seconds=1)
    change(store)
    code, out, err = run(monkeypatch, capsys, store.path, other.path)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert remedy in line
    # The stores behind it are read all the same.
    assert out == f"{other.path}: 1 shards with 12 windows, all as written\n"


def test_an_older_store_and_codes_that_nothing_reads_are_no_fault(store: Store, monkeypatch, capsys) -> None:
    edit_index(store, preparation_version=0)
    write_codes(store, "of-another-store", store_hash="0")
    write_codes(store, "of-version-1", version=1)
    (store.path / "codes" / "of-a-killed-run").mkdir()
    code, out, err = run(monkeypatch, capsys, store.path)
    assert (code, err) == (0, "")
    assert out.count("nothing reads them") == 3
    assert "3 files of codes, all as written" in out
    assert f"WARNING: {Store.open(store.path).outdated()}" in out


def test_check_needs_a_store(monkeypatch, capsys) -> None:
    assert run(monkeypatch, capsys)[0] == 2
    code, _, err = run(monkeypatch, capsys, Path("nowhere"))
    assert code == 2
    assert "nowhere: no such store" in err
