"""What a preparation finds of an earlier one: damaged by a power cut, by an earlier version, given up, unreadable."""

import json
import os
import re
import shutil
from pathlib import Path

import h5py
import mne
import numpy as np
import pytest

from codebrain.data.format import PREPARATION_VERSION, Store
from codebrain.data.shards import open_shard
from codebrain.data.subjects import SplitConfig
from codebrain.data.windows import Request, WindowDataset
from data_prep import output, write
from data_prep.check import check
from data_prep.flushed import flush_and_note, not_flushed
from data_prep.info import describe, some_windows
from tests.conftest import edit_index, write_toy_store
from tests.recordings import noise, write_edf, write_subjects
from tests.test_prep import QUICK, contents, prep
from tokenizer.config import TokenizerConfig
from tokenizer.corpus import open_corpus

VERSION_0 = Path(__file__).parent / "stores" / "version_0"
FLAGS_0 = [
    *("--channels.names", "[]", "--clean.sfreq", "32", "--clean.l_freq", "1", "--clean.h_freq", "12"),
    *("--clean.notch", "null", "--windows.seconds", "2", "--windows.min_recording", "0", "--windows.drop_first", "0"),
    *("--windows.drop_last", "0", "--windows.max_uv", "200", "--workers", "1"),
]
"""With which the store of version 0 was prepared: codebrain-prep corpus recordings --output store ..."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recordings")
    write_subjects(path, 4, seconds=24)
    return path


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("finished") / "s"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    return store


@pytest.fixture
def store(finished, tmp_path) -> Path:
    """A finished store."""
    return Path(shutil.copytree(finished, tmp_path / "s"))


def record(store: Path, row: int) -> Path:
    return store / "progress" / f"{row:06d}.json"


def edit_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def make_older(store: Path, rows) -> None:
    """As if these recordings had been prepared by a version that had no number."""
    for row in rows:
        edit_json(record(store, row), lambda content: (content.pop("version"), content.pop("gave_up")))
    edit_json(store / "progress" / "plan.json", lambda content: content.pop("preparation_version"))
    edit_json(store / "progress" / "plan.json", lambda content: content["constants"].update(format_version=1))
    edit_json(store / "store.json", lambda content: content.pop("preparation_version"))


# Damage ---------------------------------------------------------------------------------------------------------------


def test_what_a_power_cut_leaves_of_a_shard_is_made_again(folder, finished, store, tmp_path, monkeypatch, capsys):
    """Its full size, and zeros."""
    (store / "store.json").unlink()
    shard = store / "shards" / "000002.h5"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    (store / "shards" / "000003.h5").write_bytes(bytes(len(content)))
    kept = (store / "shards" / "000000.h5").stat().st_mtime_ns
    capsys.readouterr()
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    message = capsys.readouterr().out
    assert "damaged     1 shard of a run that did not end well, prepared again: shards/000002.h5" in message
    assert "over 2 recordings" in message  # the one that is no HDF5 file at all, too
    assert contents(store) == contents(finished)
    assert (store / "shards" / "000000.h5").stat().st_mtime_ns == kept


def test_a_part_of_an_array_flushes_its_shards_and_they_are_not_read_again(folder, finished, tmp_path, monkeypatch):
    store = tmp_path / "s"
    compared: list[list[str]] = []
    plain = output.damaged_shards

    def counting(folder, sfreq, shards, **options):
        compared.append([shard.file for shard in shards])
        return plain(folder, sfreq, shards, **options)

    monkeypatch.setattr(output, "damaged_shards", counting)
    for part in ("1/2", "2/2"):
        assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK, "--shard", part) == 0
    (store / "progress" / "flushed-2-of-2.json").write_text("[")  # as if it had been killed before its end
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    assert compared == [[], [], ["shards/000001.h5", "shards/000003.h5"], []]
    assert contents(store) == contents(finished)


def test_which_shards_a_power_cut_may_have_damaged(store):
    opened = Store.open(store)
    shards = opened.shards
    assert not_flushed(store, shards) == []  # the index lists them
    output._take_down(store)
    assert not (store / "store.json").exists()
    assert not_flushed(store, shards) == []
    os.utime(store / shards[1].file)  # written again, if to the same content
    assert not_flushed(store, shards) == [shards[1]]
    flush_and_note(store, [shards[1]], "2-of-3")
    assert not_flushed(store, shards) == []
    (store / "progress" / "flushed.json").write_bytes(b"\xff")
    assert not_flushed(store, shards) == [shards[0], shards[2], shards[3]]


# Earlier versions -----------------------------------------------------------------------------------------------------


def test_a_store_without_a_version_opens_and_says_so(tmp_path):
    store = Store.open(VERSION_0 / "store")
    assert (store.n_windows, store.info.sfreq, store.info.preparation_version) == (4, 32.0, 0)
    assert "codebrain-prep command that made it, given again" in store.outdated()
    assert store.outdated() in describe(store)
    shutil.copytree(VERSION_0, tmp_path / "copy")
    assert check(str(tmp_path / "copy" / "store")) == []
    assert store.fingerprint().startswith("5184c3258f75")
    with open_shard(store, store.shards[1]) as opened:
        assert opened.column("start").tolist() == [2.15625, 4.15625]
        assert opened.microvolts(1)[0, :3] == pytest.approx([-8.090247, 8.344999, -3.8479304], abs=1e-6)


def test_the_command_that_made_an_older_store_makes_it_right(tmp_path, monkeypatch, capsys):
    shutil.copytree(VERSION_0, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = Store.open("store")
    assert prep(monkeypatch, "corpus", "recordings", "--output", "store", *FLAGS_0) == 0
    message = capsys.readouterr().out
    assert "again       2 recordings, prepared by an earlier version of this program, see CHANGELOG.md" in message
    after = Store.open("store")
    assert (after.outdated(), after.info.preparation_version) == ("", PREPARATION_VERSION)
    assert after.recordings == before.recordings
    for shard in after.shards:
        with h5py.File(f"store/{shard.file}") as new, h5py.File(VERSION_0 / "store" / shard.file) as old:
            np.testing.assert_allclose(
                new["windows"][:] * new["scale"][:][:, None, None],
                old["windows"][:] * old["scale"][:][:, None, None],
                atol=0.01,
            )
    capsys.readouterr()
    assert prep(monkeypatch, "corpus", "recordings", "--output", "store", *FLAGS_0) == 0
    assert "nothing was left to do" in capsys.readouterr().out


def test_where_the_windows_stay_the_same_the_fingerprint_does(folder, finished, store, monkeypatch, capsys):
    """What was derived from the store (codes, splits) stays valid."""
    make_older(store, range(4))
    older = Store.open(store)
    assert older.outdated()
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    assert "again       4 recordings" in capsys.readouterr().out
    assert Store.open(store).fingerprint() == older.fingerprint()
    assert contents(store) == contents(finished)


def test_only_what_an_earlier_version_prepared_is_prepared_again(folder, store, monkeypatch, capsys):
    """As after a kill in the middle of it."""
    make_older(store, [1, 2])
    kept = [(store / "shards" / f"{row:06d}.h5").stat().st_mtime_ns for row in (0, 3)]
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK, "--shard", "2/2") == 0
    assert "again       1 recording, prepared" in capsys.readouterr().out
    assert not (store / "store.json").exists()
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    assert "again       1 recording, prepared" in capsys.readouterr().out
    assert [(store / "shards" / f"{row:06d}.h5").stat().st_mtime_ns for row in (0, 3)] == kept
    assert Store.open(store).outdated() == ""


def test_recordings_that_are_not_given_any_more_leave_a_store_old(tmp_path, monkeypatch, capsys):
    files = write_subjects(tmp_path / "in", 2, seconds=24)
    store = tmp_path / "s"
    prep(monkeypatch, "corpus", tmp_path / "in", "--output", store, *QUICK)
    make_older(store, range(2))
    files[0].rename(tmp_path / files[0].name)
    capsys.readouterr()
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", store, *QUICK) == 0
    assert "1 of them were prepared by an earlier version" in capsys.readouterr().out
    assert Store.open(store).outdated()
    (tmp_path / files[0].name).rename(files[0])
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", store, *QUICK) == 0
    assert Store.open(store).outdated() == ""


def test_constants_that_an_earlier_version_did_not_have_are_reported_and_changed_ones_refused(
    folder, store, monkeypatch, capsys
):
    make_older(store, range(4))
    edit_json(store / "progress" / "plan.json", lambda content: content["constants"]["windows"].pop("skip_bad"))
    edit_json(store / "progress" / "plan.json", lambda content: content["constants"].update(colour="blue"))
    flags = ["corpus", folder, "--output", store, *QUICK]
    assert prep(monkeypatch, *flags, "--clean.h_freq", "60") == 2
    assert "clean.h_freq: 75.0 there, 60.0 now" in capsys.readouterr().err
    assert prep(monkeypatch, *flags) == 0
    assert "of the earlier version of this program: no colour, windows.skip_bad = True" in capsys.readouterr().out
    # From now on it is a constant like any other.
    edit_json(store / "progress" / "plan.json", lambda content: content["constants"]["windows"].pop("skip_bad"))
    assert prep(monkeypatch, *flags) == 2
    assert "windows.skip_bad: None there, True now" in capsys.readouterr().err


def test_training_on_an_older_store_is_warned_of(tmp_path):
    store = write_toy_store(tmp_path / "store")
    edit_index(store, preparation_version=0)
    sizes = TokenizerConfig(width=16, n_layers=1, n_heads=2, decoder_layers=1)
    *_, message = open_corpus([str(store.path)], sizes, SplitConfig(valid_fraction=0.3))
    assert message.splitlines()[0] == f"WARNING: {Store.open(store.path).outdated()}"
    edit_index(store, preparation_version=PREPARATION_VERSION)
    *_, message = open_corpus([str(store.path)], sizes, SplitConfig(valid_fraction=0.3))
    assert "WARNING" not in message


# Notes that cannot be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"7", b"\xff\xfe", b"{}", b'{"recording": null, "shard": null}', b'{"recording": {}}'],
)
def test_a_damaged_record_is_no_record(content, folder, finished, store, monkeypatch):
    record(store, 1).write_bytes(content)
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    assert contents(store) == contents(finished)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("digest"),
        lambda content: content["shard"].pop("runs"),
        lambda content: content["shard"].update(runs=[7]),
        lambda content: content["shard"].update(file="../../x.h5"),
        lambda content: content.update(of_a_later_version=True),
        lambda content: content["recording"].update(path="another.edf"),
    ],
)
def test_a_record_of_something_else_is_no_record(change, folder, finished, store, monkeypatch, capsys):
    edit_json(record(store, 1), change)
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    assert "over 1 recording" in capsys.readouterr().out
    assert contents(store) == contents(finished)


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"\xff", b'{"constants": 7, "recordings": []}', b'{"constants": {}}',
                b'{"constants": {}, "recordings": [3]}', b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_plan_is_named(content, folder, store, monkeypatch, capsys):
    (store / "progress" / "plan.json").write_bytes(content)
    before = contents(store)
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 2
    message = capsys.readouterr().err
    assert f"{store / 'progress' / 'plan.json'} is damaged" in message
    assert "Give another --output, or delete that folder" in message
    assert contents(store) == before


# Given up -------------------------------------------------------------------------------------------------------------


def test_recordings_that_were_given_up_have_an_exit_code(folder, finished, tmp_path, monkeypatch, capsys):
    plain = write._prepare

    def short_of_memory(job):
        if job.row == 2:
            raise MemoryError
        return plain(job)

    store = tmp_path / "s"
    flags = ["corpus", folder, "--output", store, *QUICK]
    for more, there in ((["--shard", "1/2"], False), ([], True)):
        monkeypatch.setattr(write, "_prepare", short_of_memory)
        assert prep(monkeypatch, *flags, *more) == output.GAVE_UP == 3
        message = capsys.readouterr().out
        assert "WARNING: 1 recording (such as sub-02_eeg.edf) took more memory than there is" in message
        assert "fewer --workers" in message
        assert (store / "store.json").exists() == there
    assert prep(monkeypatch, *flags, "--shard", "2/2") == 0  # of its own recordings none was given up
    monkeypatch.setattr(write, "_prepare", plain)
    assert prep(monkeypatch, *flags) == 0
    assert contents(store) == contents(finished)


def test_a_recording_that_cannot_be_read_is_no_lack_of_memory(tmp_path, monkeypatch):
    write_edf(tmp_path / "in" / "a.edf", noise(19, 24, 250.0), 250.0)
    (tmp_path / "in" / "b.edf").write_bytes(b"0" * 1000)
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", tmp_path / "s", *QUICK) == 0


# Offsets --------------------------------------------------------------------------------------------------------------


def prepare_uv(folder: Path, x: np.ndarray, monkeypatch) -> Store:
    """A store of a recording of doubles, without a high-pass or a limit to amplitudes."""
    info = mne.create_info(["C3", "C4", "Cz"], 200.0, "eeg")
    folder.mkdir()
    mne.io.RawArray(x * 1e-6, info, verbose="error").save(folder / "a_raw.fif", fmt="double", verbose="error")
    flags = [*QUICK, "--clean.l_freq", "null", "--channels.names", "[]", "--windows.max_uv", "null"]
    assert prep(monkeypatch, "corpus", folder, "--output", folder / "s", *flags) == 0
    return Store.open(folder / "s")


def windows_of(store: Store) -> np.ndarray:
    with open_shard(store, store.shards[0]) as opened:
        return np.stack([opened.microvolts(row) for row in range(opened.shard.n)])


def test_a_dc_coupled_recording_without_a_high_pass_keeps_its_resolution(tmp_path, monkeypatch):
    x = noise(3, 30, 200.0)
    shift = np.array([[20_000.0], [-5_000.0], [0.0]])  # of C3, C4 and Cz
    plain = prepare_uv(tmp_path / "plain", x, monkeypatch)
    shifted = prepare_uv(tmp_path / "shifted", x + shift, monkeypatch)
    assert (plain.shards[0].has_offset, shifted.shards[0].has_offset) == (False, True)
    assert shifted.recordings[0].reason == ""
    # Both went through filters in float32, which has steps of 0.002 microvolts at 20 mV.
    order = [["C3", "C4", "Cz"].index(name) for name in shifted.shards[0].ch_names]
    np.testing.assert_allclose(windows_of(shifted) - shift[order], windows_of(plain), atol=0.02)
    assert check(str(shifted.path)) == []
    assert len(some_windows(shifted)) == shifted.n_windows
    batch = WindowDataset([shifted])[Request(np.arange(shifted.n_windows))]
    np.testing.assert_array_equal(batch.x.numpy(), windows_of(shifted))


def test_a_swing_that_int16_cannot_hold_exactly_is_in_the_recordings_row(tmp_path, monkeypatch):
    x = noise(3, 30, 200.0)
    x[0, 2000:2300] += 300_000
    store = prepare_uv(tmp_path / "in", x, monkeypatch)
    assert not store.shards[0].has_offset
    assert re.fullmatch(
        r"amplitudes up to 3\d\d,\d{3} uV are stored in steps of 9\.\d uV \(\d windows?\)", store.recordings[0].reason
    )
