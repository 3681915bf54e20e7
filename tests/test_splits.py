"""Splits: who is where, what is refused, and the manifest that another run reads."""

import json

import numpy as np
import pytest

from finetune import splits
from finetune.splits import Fold, SplitConfig, Splits, Windows
from tests.reference_finetune import write_task_store


def make_windows(n_subjects=10, per_subject=6, *, one_class_each=False, published=None) -> Windows:
    subject = np.repeat([f"S{index:02d}" for index in range(n_subjects)], per_subject)
    label = np.arange(len(subject)) // per_subject % 2 if one_class_each else np.arange(len(subject)) % 2
    return Windows(subject=subject, label=label, published=published, class_names=("rest", "count"))


def sides(fold: Fold, windows: Windows) -> list[set[str]]:
    return [set(windows.subject[ids]) for ids in (fold.train, fold.valid, fold.test)]


@pytest.mark.parametrize("kind", ["ratio", "kfold", "leave_one_subject_out"])
def test_every_subject_is_on_one_side_and_every_window_is_used_once(kind):
    windows = make_windows()
    made = splits.make(windows, SplitConfig(kind=kind))
    for fold in made.folds:
        train, valid, test = sides(fold, windows)
        assert not train & valid
        assert not train & test
        assert not valid & test
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.train, fold.valid, fold.test])), np.arange(60))


@pytest.mark.parametrize(("kind", "n_folds"), [("kfold", 5), ("leave_one_subject_out", 10)])
def test_over_all_folds_every_window_is_tested_once(kind, n_folds):
    made = splits.make(make_windows(), SplitConfig(kind=kind))
    assert len(made.folds) == n_folds
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in made.folds])), np.arange(60))


def test_ratio_takes_the_shares_it_is_told():
    windows = make_windows(20)
    (fold,) = splits.make(windows, SplitConfig(kind="ratio", test_fraction=0.25, valid_fraction=0.2)).folds
    assert [len(side) for side in sides(fold, windows)] == [12, 3, 5]


def test_the_draw_is_a_function_of_the_seed_and_the_names():
    windows = make_windows()
    order = np.random.default_rng(0).permutation(60)
    shuffled = Windows(subject=windows.subject[order], label=windows.label[order], class_names=windows.class_names)
    first, again, other = (
        sides(splits.make(data, SplitConfig(kind="ratio", seed=seed)).folds[0], data)
        for data, seed in ((windows, 0), (shuffled, 0), (windows, 1))
    )
    assert first == again
    assert first != other


def test_subjects_with_one_class_each_are_spread_over_the_sides():
    windows = make_windows(20, one_class_each=True)
    for seed in range(10):
        for fold in splits.make(windows, SplitConfig(kind="kfold", seed=seed, valid_fraction=0.2)).folds:
            for ids in (fold.train, fold.valid, fold.test):
                assert 0.3 <= windows.label[ids].mean() <= 0.7


def test_auto_is_the_protocols_own_split_where_there_is_one():
    published = np.repeat([0, 1, 2], [36, 12, 12]).astype(np.int8)
    made = splits.make(make_windows(published=published), SplitConfig())
    assert made.kind == "predefined"
    assert [len(made.folds[0].train), len(made.folds[0].valid), len(made.folds[0].test)] == [36, 12, 12]
    assert splits.make(make_windows(), SplitConfig()).kind == "ratio"


def test_a_predefined_split_without_test_windows_is_no_error():
    published = np.repeat([0, 1], [48, 12]).astype(np.int8)
    (fold,) = splits.make(make_windows(published=published), SplitConfig()).folds
    assert len(fold.test) == 0


def refused(message, windows, **config):
    with pytest.raises(ValueError, match=message):
        splits.make(windows, SplitConfig(**config))


def test_a_subject_on_two_sides_is_refused_unless_the_protocol_says_so():
    published = (np.arange(60) % 6 // 2).astype(np.int8)
    windows = make_windows(published=published)
    refused("subject S00 is on two sides: train and valid.*within_subject", windows)
    assert splits.make(windows, SplitConfig(within_subject=True)).within_subject


def test_a_class_without_a_training_example_is_refused():
    windows = make_windows(10, one_class_each=True, published=np.repeat([1, 0], [30, 30]).astype(np.int8))
    windows.label[30:] = 1
    refused(r"class 'rest' has no example in the training split \(0 x rest, 30 x count\)", windows)


def test_validation_of_one_class_is_refused():
    windows = make_windows(published=np.repeat([0, 1], [54, 6]).astype(np.int8))
    windows.label[54:] = 0
    refused("validation split holds one class only", windows)


@pytest.mark.parametrize(
    ("message", "n_subjects", "config"),
    [
        ("n_folds is 5, but the store has 3 subjects; allowed are 2 to 3", 3, {"kind": "kfold"}),
        ("too few", 2, {"kind": "ratio"}),
        ("fixes no split", 10, {"kind": "predefined"}),
        ("valid_fraction is 1.5; it must lie between 0 and 1", 10, {"kind": "ratio", "valid_fraction": 1.5}),
    ],
)
def test_impossible_splits_are_refused(message, n_subjects, config):
    refused(message, make_windows(n_subjects), **config)


# --- content and manifest --------------------------------------------------------------------------------------------


def test_the_same_window_on_two_sides_is_refused_by_name(tmp_path):
    store = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4, twin=(0, 5))
    hashes = splits.content_hashes(store)
    assert hashes[0] == hashes[20]
    assert len(np.unique(hashes)) == 23
    fold = Fold(train=np.arange(16), valid=np.arange(16, 20), test=np.arange(20, 24))
    made = Splits(kind="ratio", folds=(fold,), within_subject=False, seed=0)
    with pytest.raises(ValueError, match=r"1 windows are on two sides.*window 0 in train is window 20 in test"):
        splits.check_duplicates(made, hashes, lambda window: f"window {window}")


def test_the_same_window_twice_on_one_side_is_no_leak(tmp_path):
    hashes = splits.content_hashes(write_task_store(tmp_path / "s", n_subjects=6, per_subject=4, twin=(0, 1)))
    fold = Fold(train=np.arange(16), valid=np.arange(16, 20), test=np.arange(20, 24))
    splits.check_duplicates(Splits(kind="ratio", folds=(fold,), within_subject=False, seed=0), hashes, str)


def test_a_manifest_brings_back_the_same_splits(tmp_path):
    store, windows = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4), make_windows(6, 4)
    made = splits.make(windows, SplitConfig(kind="kfold", n_folds=3))
    manifest = splits.to_manifest(made, windows, splits.content_hashes(store), store.fingerprint())
    splits.write_manifest(tmp_path / "splits.json", manifest)
    again = splits.from_manifest(splits.read_manifest(tmp_path / "splits.json"), windows, store.fingerprint())
    assert again.kind == "kfold"
    for fold, other in zip(made.folds, again.folds, strict=True):
        for name in ("train", "valid", "test"):
            np.testing.assert_array_equal(getattr(fold, name), getattr(other, name))


def test_a_manifest_fits_another_preparation_by_subject(tmp_path):
    store, windows = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4), make_windows(6, 4)
    made = splits.make(windows, SplitConfig(kind="ratio"))
    manifest = splits.to_manifest(made, windows, splits.content_hashes(store), store.fingerprint())
    longer = make_windows(6, 9)
    (fold,) = splits.from_manifest(manifest, longer, "another").folds
    assert sides(fold, longer) == sides(made.folds[0], windows)
    with pytest.raises(ValueError, match=r"1 of the store's are not in the splits \(S06\)"):
        splits.from_manifest(manifest, make_windows(7, 4), "another")
    with pytest.raises(ValueError, match="fit only the store"):
        splits.from_manifest(manifest | {"within_subject": True}, longer, "another")


def test_a_manifest_that_puts_a_subject_on_two_sides_is_refused(tmp_path):
    store, windows = write_task_store(tmp_path / "s", n_subjects=6, per_subject=4), make_windows(6, 4)
    made = splits.make(windows, SplitConfig(kind="ratio"))
    manifest = splits.to_manifest(made, windows, splits.content_hashes(store), store.fingerprint())
    manifest["folds"][0]["test"] = manifest["folds"][0]["train"]
    with pytest.raises(ValueError, match="is on two sides: train and test"):
        splits.from_manifest(manifest, windows, store.fingerprint())


def test_files_that_are_no_manifest_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file; a run writes its own to RUN/splits\.json"):
        splits.read_manifest(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match="no manifest"):
        splits.read_manifest(tmp_path / "x.json")
    (tmp_path / "y.json").write_text(json.dumps({"version": 9}))
    with pytest.raises(ValueError, match="version 9, this program reads 1"):
        splits.read_manifest(tmp_path / "y.json")
