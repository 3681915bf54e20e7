"""The manifest of splits: what another run reads from it, what is refused, and windows on two sides."""

import copy
import json

import numpy as np
import pytest

from finetune import manifest, splits
from finetune.splits import Fold, SplitConfig, Splits
from tests.conftest import rewrite
from tests.reference_finetune import write_task_store
from tests.test_splits import make_windows, sides


def test_the_same_window_on_two_sides_is_refused_by_name(tmp_path):
    store = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4, twin=(0, 5))
    hashes = manifest.content_hashes(store)
    assert hashes[0] == hashes[20]
    assert len(np.unique(hashes)) == 23
    fold = Fold(train=np.arange(16), valid=np.arange(16, 20), test=np.arange(20, 24))
    made = Splits(kind="ratio", folds=(fold,), within_subject=False, seed=0)
    with pytest.raises(ValueError, match=r"1 windows are on two sides.*window 0 in train is window 20 in test"):
        manifest.check_duplicates(made, hashes, lambda window: f"window {window}")


def test_the_same_window_twice_on_one_side_is_no_leak(tmp_path):
    hashes = manifest.content_hashes(write_task_store(tmp_path / "s", n_subjects=6, per_subject=4, twin=(0, 1)))
    fold = Fold(train=np.arange(16), valid=np.arange(16, 20), test=np.arange(20, 24))
    manifest.check_duplicates(Splits(kind="ratio", folds=(fold,), within_subject=False, seed=0), hashes, str)


def test_a_manifest_brings_back_the_same_splits(tmp_path):
    store, windows = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4), make_windows(6, 4)
    made = splits.make(windows, SplitConfig(kind="kfold", n_folds=3))
    content = manifest.to_manifest(made, windows, manifest.content_hashes(store), store.fingerprint())
    manifest.write_manifest(tmp_path / "splits.json", content)
    again = manifest.from_manifest(manifest.read_manifest(tmp_path / "splits.json"), windows, store.fingerprint())
    assert again.kind == "kfold"
    for fold, other in zip(made.folds, again.folds, strict=True):
        for name in ("train", "valid", "test"):
            np.testing.assert_array_equal(getattr(fold, name), getattr(other, name))


def test_a_manifest_fits_another_preparation_by_subject(tmp_path):
    store, windows = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4), make_windows(6, 4)
    made = splits.make(windows, SplitConfig(kind="ratio"))
    content = manifest.to_manifest(made, windows, manifest.content_hashes(store), store.fingerprint())
    longer = make_windows(6, 9)
    (fold,) = manifest.from_manifest(content, longer, "another").folds
    assert sides(fold, longer) == sides(made.folds[0], windows)
    with pytest.raises(ValueError, match=r"1 of the store's are not in the splits \(S06\)"):
        manifest.from_manifest(content, make_windows(7, 4), "another")
    with pytest.raises(ValueError, match="fit only the store"):
        manifest.from_manifest(content | {"within_subject": True}, longer, "another")


def test_a_manifest_that_puts_a_subject_on_two_sides_is_refused(tmp_path):
    store, windows = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4), make_windows(6, 4)
    made = splits.make(windows, SplitConfig(kind="ratio"))
    content = manifest.to_manifest(made, windows, manifest.content_hashes(store), store.fingerprint())
    content["folds"][0]["test"] = content["folds"][0]["train"]
    with pytest.raises(ValueError, match="is on two sides: train and test"):
        manifest.from_manifest(content, windows, store.fingerprint())


@pytest.fixture
def written(tmp_path):
    """A store of 24 windows, what is known of them, and the manifest of three folds."""
    store, windows = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4), make_windows(6, 4)
    made = splits.make(windows, SplitConfig(kind="kfold", n_folds=3))
    return store, windows, manifest.to_manifest(made, windows, manifest.content_hashes(store), store.fingerprint())


def test_windows_that_do_not_move_are_no_leak():
    hashes = np.array([b"flat", b"one", b"flat", b"one"], dtype="S16")
    fold = Fold(train=np.array([0]), valid=np.array([1]), test=np.array([2]))
    manifest.check_duplicates(Splits(kind="ratio", folds=(fold,), within_subject=False, seed=0), hashes, str)
    fold = Fold(train=np.array([0, 1]), valid=np.array([2]), test=np.array([3]))
    with pytest.raises(ValueError, match=r"1 windows are on two sides.*1 in train is 3 in test"):
        manifest.check_duplicates(Splits(kind="ratio", folds=(fold,), within_subject=False, seed=0), hashes, str)


def test_a_disconnected_recording_is_known_by_its_windows(tmp_path):
    store = write_task_store(tmp_path / "s", n_subjects=3, per_subject=2)

    def disconnect(h5):
        h5["windows"][1] = 7

    hashes = manifest.content_hashes(rewrite(store, 0, disconnect))
    assert [value == b"flat" for value in hashes] == [False, True, False, False, False, False]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.pop("folds"), "it lacks 'folds'"),
        (lambda content: content["folds"].clear(), "it has no folds"),
        (lambda content: content["folds"][1].pop("valid"), "it lacks 'valid'"),
        (lambda content: content["folds"][0]["test"].update(n_windows=3), "test of fold 0 lists 8 windows, not 3"),
        (lambda content: content["folds"].append(content["folds"][0]), "8 windows are listed twice among the test"),
        (lambda content: content["folds"][0].update(valid=content["folds"][0]["test"]), "8 windows .* in fold 0"),
        (lambda content: content["folds"][0]["test"].update(windows=7), "no manifest of splits"),
    ],
)
def test_a_manifest_that_does_not_fit_together_is_refused(edit, message, written, tmp_path):
    edit(content := written[2])
    manifest.write_manifest(tmp_path / "splits.json", content)
    with pytest.raises(ValueError, match=message):
        manifest.read_manifest(tmp_path / "splits.json")


def test_a_manifest_that_places_windows_the_store_has_not_is_refused(written):
    store, windows, content = written
    side = content["folds"][0]["test"]
    side["windows"] = [[start + 20, stop + 20] for start, stop in side["windows"]]
    with pytest.raises(ValueError, match=r"but the store has 0 to 23"):
        manifest.from_manifest(content, windows, store.fingerprint())


def test_a_manifest_of_other_content_is_refused(written):
    edited = copy.deepcopy(written[2])
    manifest.check_hashes(edited, written[2])
    edited["folds"][2]["train"]["sha256"] = "0" * 64
    with pytest.raises(ValueError, match="windows of train in fold 2 do not hold what its manifest says"):
        manifest.check_hashes(edited, written[2])
    manifest.check_hashes(edited | {"store": "another preparation of the same recordings"}, written[2])


def test_files_that_are_no_manifest_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file; a run writes its own to RUN/splits\.json"):
        manifest.read_manifest(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match="no manifest"):
        manifest.read_manifest(tmp_path / "x.json")
    (tmp_path / "y.json").write_text(json.dumps({"version": 9}))
    with pytest.raises(ValueError, match="of version 9, this program reads 1"):
        manifest.read_manifest(tmp_path / "y.json")


def test_other_names_than_those_of_the_windows_are_refused(written):
    store, windows, content = written
    side = content["folds"][0]["train"]
    side["subjects"] = [*side["subjects"][1:], "nobody"]
    with pytest.raises(ValueError, match=r"name other subjects of train .* the file was edited"):
        manifest.from_manifest(content, windows, store.fingerprint())
