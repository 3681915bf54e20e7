"""Splits: who is where, what is refused, and the manifest that another run reads."""

import dataclasses

import numpy as np
import pytest

from finetune import splits
from finetune.splits import Fold, SplitConfig, Windows


def make_windows(n_subjects=10, per_subject=6, *, one_class_each=False, published=None) -> Windows:
    subject = np.repeat([f"S{index:02d}" for index in range(n_subjects)], per_subject)
    label = np.arange(len(subject)) // per_subject % 2 if one_class_each else np.arange(len(subject)) % 2
    recording = np.unique(subject, return_inverse=True)[1]
    return Windows(
        subject=subject, label=label, recording=recording, published=published, class_names=("rest", "count")
    )


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


@pytest.mark.parametrize("kind", ["kfold", "leave_one_subject_out"])
def test_other_subjects_validate_in_every_fold(kind):
    windows = make_windows(20, per_subject=2)
    made = splits.make(windows, SplitConfig(kind=kind, valid_fraction=0.2))
    chosen = [frozenset(sides(fold, windows)[1]) for fold in made.folds]
    assert len(set(chosen)) == len(made.folds)
    times = [sum(name in names for names in chosen) for name in np.unique(windows.subject)]
    assert max(times) - min(times) <= 1, "everybody as often"


def test_ratio_takes_the_shares_it_is_told():
    windows = make_windows(20)
    (fold,) = splits.make(windows, SplitConfig(kind="ratio", test_fraction=0.25, valid_fraction=0.2)).folds
    assert [len(side) for side in sides(fold, windows)] == [12, 3, 5]


def test_the_draw_is_a_function_of_the_seed_and_the_names():
    windows = make_windows()
    order = np.random.default_rng(0).permutation(60)
    shuffled = Windows(
        subject=windows.subject[order],
        label=windows.label[order],
        recording=windows.recording[order],
        class_names=windows.class_names,
    )
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


def test_validation_of_one_value_is_refused_for_a_regression():
    windows = make_windows()
    ages = Windows(subject=windows.subject, label=np.repeat(np.arange(10.0), 6), recording=windows.recording)
    refused(
        "validation values in fold 0 are all .*nothing can be selected",
        ages,
        kind="leave_one_subject_out",
        valid_fraction=0.1,
    )


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


def test_of_patients_and_controls_both_validate():
    """Each subject has one class; the next few in the draw may be all alike."""
    subject = np.repeat([f"S{n:02d}" for n in range(13)], 4)
    label = np.repeat([0] * 8 + [1] * 5, 4)
    windows = Windows(subject=subject, label=label, recording=np.repeat(np.arange(13), 4), class_names=("a", "b"))
    made = splits.make(windows, SplitConfig(kind="leave_one_subject_out"))
    assert len(made.folds) == 13
    for fold in made.folds:
        assert set(label[fold.valid]) == {0, 1}
        assert set(label[fold.train]) == {0, 1}


def test_a_published_split_of_which_half_is_here_says_so():
    windows = make_windows()
    some = dataclasses.replace(windows, published=np.zeros(len(windows.label), np.int8))
    with pytest.raises(ValueError, match=r"of these the store has 10 train: not all recordings are here.*kfold"):
        splits.make(some, SplitConfig())
