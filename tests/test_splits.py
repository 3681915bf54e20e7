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


# --- which classes are tested ----------------------------------------------------------------------------------------


def of_classes(*class_of_subject, class_names=("control", "patient"), per_subject=4, published=None) -> Windows:
    """Subjects of one class each, or of several."""
    lists = [own if isinstance(own, list) else [own] for own in class_of_subject]
    label = np.concatenate([np.resize(own, per_subject) for own in lists])
    subject = np.repeat([f"S{number:02d}" for number in range(len(lists))], per_subject)
    recording = np.repeat(np.arange(len(lists)), per_subject)
    return Windows(subject=subject, label=label, recording=recording, class_names=class_names, published=published)


@pytest.mark.parametrize(
    ("one_class_each", "n_subjects", "expected"),
    [
        (False, 10, ["03 | 00 02", "08 | 01 03", "04 | 08 09", "07 | 04 05", "02 | 06 07"]),
        (
            True,
            20,
            [
                "15 18 | 02 12 13 19",
                "11 14 | 00 03 15 18",
                "04 09 | 01 08 11 14",
                "07 16 | 04 05 06 09",
                "02 19 | 07 10 16 17",
            ],
        ),
    ],
)
def test_a_seed_draws_whom_it_has_always_drawn(one_class_each, n_subjects, expected):
    """Who validates | tests in each fold with seed 3, as at commit 0429b64: published splits stay what they are."""
    windows = make_windows(n_subjects, one_class_each=one_class_each)
    for kind, folds in (("ratio", expected[:1]), ("kfold", expected)):
        made = splits.make(windows, SplitConfig(kind=kind, seed=3))
        found = [
            [" ".join(sorted(name[1:] for name in side)) for side in sides(fold, windows)[1:]] for fold in made.folds
        ]
        assert [" | ".join(each) for each in found] == folds


@pytest.mark.parametrize("seed", range(5))
def test_a_test_split_has_two_subjects_of_each_class_where_each_has_one(seed):
    """Four patients among sixteen controls: a fifth of twenty would be three or four controls and a patient."""
    windows = of_classes(*[0] * 16, *[1] * 4)
    (fold,) = splits.make(windows, SplitConfig(kind="ratio", seed=seed)).folds
    train, valid, test = sides(fold, windows)
    assert len(test) == 4
    patients = {f"S{number:02d}" for number in range(16, 20)}
    assert [len(side & patients) for side in (train, valid, test)] == [1, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_few_subjects_is_tested_if_it_can_be(seed):
    """Two of ten subjects have the third class too: it is not among the two that are drawn by chance."""
    windows = of_classes(*[[0, 1]] * 7, *[[0, 1, 2]] * 3, class_names=("a", "b", "c"))
    (fold,) = splits.make(windows, SplitConfig(kind="ratio", seed=seed)).folds
    assert len(sides(fold, windows)[2]) == 2
    for ids in (fold.train, fold.test):
        assert set(windows.label[ids]) == {0, 1, 2}


def test_every_fold_tests_a_class_that_has_a_subject_for_each():
    """A stretch of the draw may hold no subject of a class that has five for five folds."""
    windows = of_classes(*[0] * 13, *[1] * 5)
    for seed in range(20):
        made = splits.make(windows, SplitConfig(kind="kfold", seed=seed))
        assert all(set(windows.label[fold.test]) == {0, 1} for fold in made.folds)
        assert sorted(len(sides(fold, windows)[2]) for fold in made.folds) == [3, 3, 4, 4, 4]
    mixed = of_classes(*[[0, 1]] * 12, *[[0, 1, 2]] * 3, [2, 0, 2], [2, 1, 2], class_names=("a", "b", "c"))
    for seed in range(20):
        made = splits.make(mixed, SplitConfig(kind="kfold", seed=seed))
        assert sum(len(set(mixed.label[fold.test])) for fold in made.folds) >= 13


def test_the_last_subject_of_a_class_trains():
    """Of three subjects with the rare class one tests; if both others validated, nobody would teach it."""
    windows = of_classes(*[0] * 9, 1, 1, 1)
    for seed in range(10):
        made = splits.make(windows, SplitConfig(kind="leave_one_subject_out", seed=seed, valid_fraction=0.5))
        for fold in made.folds:
            assert set(windows.label[fold.train]) == {0, 1}
            assert set(windows.label[fold.valid]) == {0, 1}


def test_a_test_split_of_one_class_is_refused_with_what_helps():
    """One in twelve subjects is too few to hold both classes."""
    windows = of_classes(*[0] * 6, *[1] * 6)
    message = (
        r"the test split holds one class only \(4 x control, 0 x patient\), which leaves balanced accuracy, AUROC and "
        r"PR-AUC undefined. `--split.kind kfold` tests every subject once; another --split.seed or a larger "
        r"--split.test_fraction"
    )
    refused(message, windows, kind="ratio", test_fraction=0.1)
    assert len(splits.make(windows, SplitConfig(kind="kfold", n_folds=3)).folds) == 3, "the advice works"


def test_one_test_subject_of_a_class_is_refused_with_what_helps():
    windows = of_classes(*[0] * 6, *[1] * 6)
    message = (
        r"the test split has one subject of class 'control', 'patient': each subject has one class, .*without an "
        r"interval. `--split.kind kfold`.*--split.seed.*--split.test_fraction"
    )
    refused(message, windows, kind="ratio", test_fraction=0.2)
    (fold,) = splits.make(windows, SplitConfig(kind="ratio", test_fraction=0.34)).folds
    assert len(sides(fold, windows)[2]) == 4, "the advice works"


def test_both_classes_in_a_single_test_subject_are_enough():
    """Its metrics are defined, and the report says that there is no interval."""
    (fold,) = splits.make(make_windows(6), SplitConfig(kind="ratio", test_fraction=0.1)).folds
    assert len(fold.test) == 6


def test_test_values_that_are_all_the_same_are_refused_for_a_regression():
    windows = make_windows()
    ages = Windows(subject=windows.subject, label=np.repeat(np.arange(10.0), 6), recording=windows.recording)
    refused(
        r"the test values are all \d, which leaves R2 and Pearson's r undefined. `--split.kind kfold`",
        ages, kind="ratio", test_fraction=0.1, valid_fraction=0.3,
    )  # fmt: skip
    assert len(splits.make(ages, SplitConfig(kind="leave_one_subject_out", valid_fraction=0.3)).folds) == 10


def test_two_patients_are_too_few_to_train_select_and_test():
    windows = of_classes(*[0] * 8, 1, 1)
    for kind in ("ratio", "kfold", "leave_one_subject_out"):
        refused("three subjects of each class, .*; 'patient' has 2 of 10. Add recordings", windows, kind=kind)


def test_a_published_test_split_of_one_class_is_kept_and_its_fault_named():
    published = np.repeat([0, 1, 2], [24, 16, 8]).astype(np.int8)
    windows = of_classes(*[0, 1] * 5, 1, 1, published=published)
    made = splits.make(windows, SplitConfig())
    assert splits.fault_of_test(made, windows).startswith("the test split holds one class only (0 x control, 8 x pat")
    alone = of_classes(*[0, 1] * 6, published=published)
    assert splits.fault_of_test(splits.make(alone, SplitConfig()), alone).startswith("the test split has one subject")
    both = make_windows(12, per_subject=4, published=published)
    assert splits.fault_of_test(splits.make(both, SplitConfig()), both) == ""


def test_a_published_validation_split_of_one_class_is_advised_otherwise():
    windows = make_windows(published=np.repeat([0, 1], [54, 6]).astype(np.int8))
    windows.label[54:] = 0
    refused("validation split holds one class only .6 x rest, 0 x count.*`--split.kind ratio` or `--split", windows)


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
