"""The report: its arithmetic, its warnings, its two forms."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from finetune import figures, markdown, metrics, report
from finetune.config import FinetuneConfig
from finetune.metrics import Predictions, score
from finetune.report import Arms
from finetune.splits import Fold, Splits, Windows
from finetune.task import Task
from finetune.trial import Result

TASK = Task(name="toy", protocol="corrected", kind="binary", class_names=("rest", "count"))
N_SUBJECTS, PER_SUBJECT = 12, 10
N = N_SUBJECTS * PER_SUBJECT
SUBJECT = np.repeat([f"S{index:02d}" for index in range(N_SUBJECTS)], PER_SUBJECT)
LABEL = np.arange(N) % 2
RECORDING = 2 * np.repeat(np.arange(N_SUBJECTS), PER_SUBJECT) + LABEL
UNKNOWN = {"pretraining": None, "prepared_otherwise": ""}
WINDOWS = Windows(subject=SUBJECT, label=LABEL, recording=RECORDING, class_names=("rest", "count"))


def predictions(rows, skill, seed=0) -> Predictions:
    noise = np.random.default_rng(seed).normal(size=N)[rows]
    p = 1 / (1 + np.exp(-(noise + skill * (LABEL[rows] - 0.5))))
    return Predictions(window=rows, subject=SUBJECT[rows], label=LABEL[rows], score=np.stack([1 - p, p], 1))


def make(n_folds=1, seeds=(0, 1), skills=(2.0, 0.5), test=True, within=False):
    """Report and arms of a model of skill skills[0] and a baseline of skill skills[1]."""
    rows = np.arange(N)
    parts = [rows[number::n_folds] if within else part for number, part in enumerate(np.array_split(rows, n_folds))]
    folds = parts if n_folds > 1 else [rows[60:]]
    sides = [
        Fold(train=np.setdiff1d(rows, ids)[:30], valid=np.setdiff1d(rows, ids)[30:60], test=ids if test else ids[:0])
        for ids in folds
    ]

    def results(skill, seeds):
        return [
            Result(
                number,
                seed,
                {"valid": predictions(fold.valid, skill, seed)}
                | ({"test": predictions(fold.test, skill, seed)} if test else {}),
                {"valid_auroc": 0.5, "seconds": 1.0},
                Path(),
            )
            for seed in seeds
            for number, fold in enumerate(sides)
        ]

    arms = Arms(TASK, {"codebrain": results(skills[0], seeds), "band_power": results(skills[1], (0,))})
    splits = Splits(kind="kfold" if n_folds > 1 else "ratio", folds=tuple(sides), within_subject=within, seed=0)
    config = FinetuneConfig(ckpt="r2", data="store", run_dir="run", seeds=list(seeds))
    facts = {
        "store": {"path": "store", "fingerprint": "f" * 64},
        "processes": 1,
        "pretraining": None,
        "prepared_otherwise": "",
    }
    return report.build(config, arms, splits, WINDOWS, facts), arms


def test_seeds_are_averaged_after_scoring():
    content, arms = make()
    values = [score("binary", p)["auroc"] for p in arms.by_seed("codebrain", "test").values()]
    entry = content["arms"]["codebrain"]["test"]["metrics"]["auroc"]
    assert entry["by_seed"] == values
    assert entry["mean"] == pytest.approx(np.mean(values))
    assert entry["sd"] == pytest.approx(np.std(values, ddof=1))
    assert entry["interval"][0] < entry["mean"] < entry["interval"][1]


def test_confusion_counts_every_window_once_however_many_seeds_there_are():
    content, arms = make(seeds=(0, 1, 2))
    matrix = np.array(content["arms"]["codebrain"]["test"]["confusion"])
    assert matrix.sum() == pytest.approx(60)
    by_seed = [metrics.confusion(p, 2) for p in arms.by_seed("codebrain", "test").values()]
    assert matrix == pytest.approx(np.mean(by_seed, axis=0))
    row = " | ".join(markdown.windows_in(value) for value in matrix[0])
    assert f"| rest | {row} |" in markdown.to_markdown(content)
    assert (markdown.windows_in(12.0), markdown.windows_in(12 + 1 / 3)) == ("12", "12.3")
    drawn = [text.get_text() for text in figures.confusion(content).axes[0].texts]
    assert [text.split("\n")[1] for text in drawn] == [markdown.windows_in(value) for value in matrix.flat]
    recall = [row["recall"] for row in content["arms"]["codebrain"]["test"]["per_class"]]
    assert np.diag(matrix) / matrix.sum(1) == pytest.approx(recall)


def test_over_folds_every_window_counts_once_and_folds_have_figures_of_their_own():
    content, arms = make(n_folds=3)
    entry = content["arms"]["codebrain"]["test"]
    assert entry["windows"] == N
    assert entry["subjects"] == N_SUBJECTS
    of_fold = [
        np.mean([score("binary", r.predictions["test"])["auroc"] for r in arms.results["codebrain"] if r.fold == fold])
        for fold in range(3)
    ]
    assert entry["folds"]["auroc"]["by_fold"] == pytest.approx(of_fold)
    assert entry["folds"]["auroc"]["sd"] == pytest.approx(np.std(of_fold, ddof=1))


def build(arms, content, kind="ratio"):
    """The report of changed arms on splits like those of another report."""
    n_folds = len(content["splits"]["folds"])
    test = arms.results["codebrain"][0].predictions["test"].window if n_folds == 1 else np.arange(60, N)
    fold = Fold(train=np.arange(30), valid=np.arange(30, 60), test=test)
    splits = Splits(kind=kind, folds=(fold,) * n_folds, within_subject=False, seed=0)
    config = FinetuneConfig(ckpt="r2", data="store", run_dir="run")
    return report.build(
        config,
        arms,
        splits,
        WINDOWS,
        {"store": {"fingerprint": "f" * 64}, "processes": 1, "pretraining": None, "prepared_otherwise": ""},
    )


def cautions(**options):
    return "\n".join(make(**options)[0]["cautions"])


def test_a_model_that_loses_to_a_baseline_says_so():
    assert "CodeBrain does NOT beat log band power + linear: AUROC" in cautions(skills=(0.5, 3.0))
    assert "NOT beat" not in cautions(skills=(3.0, 0.5))


def test_what_a_reader_must_know_is_said():
    assert "THERE IS NO TEST SET" in cautions(test=False)
    assert "same subjects train and test: the figures do not speak" in cautions(within=True, n_folds=3)
    assert "Whoever tests does not train" in cautions(within=True)
    assert "One seed only" in cautions(seeds=(0,))
    assert "Only 6 subjects are evaluated: intervals are wide" in cautions()
    assert "Only" not in cautions(n_folds=3)
    assert "No 95 % CI" not in cautions(), "six subjects are enough"


def of_one_class(arms):
    """Evaluate on the windows of the second class alone."""
    for results in arms.results.values():
        for result in results:
            test = result.predictions["test"]
            result.predictions["test"] = test.take(test.label == 1)
    return arms


def test_a_test_set_of_one_class_is_reported_and_chance_is_undefined(tmp_path):
    content, arms = make()
    again = build(of_one_class(arms), content, kind="predefined")
    first = again["cautions"][0]
    assert first.startswith(
        "The test split holds one class only (0 x rest, 30 x count), which leaves balanced accuracy,"
    )
    assert not any("holds one class only" in text for text in content["cautions"])
    assert markdown.headline_rows(again)[-1] == {
        "model": "chance", "balanced_accuracy": "undefined", "auroc": "undefined", "pr_auc": "undefined",
    }  # fmt: skip
    assert "1.000" not in markdown.summary(again).splitlines()[-2], "chance, before the line on intervals"
    assert not figures.ranking_curves(again, arms.by_seed("codebrain", "test")).axes[0].lines
    drawn = figures.draw(tmp_path, again, arms.by_seed("codebrain", "test"), [])
    assert all(path.exists() for path in drawn)
    report.write(tmp_path, again)
    assert json.loads((tmp_path / "report.json").read_text())["chance"]["balanced_accuracy"] is None


def test_of_several_classes_one_without_test_windows_is_named():
    task = Task(name="toy", protocol="published", kind="multiclass", class_names=("a", "b", "c"))
    label = np.arange(N) % 3
    label[60:] %= 2
    score_of = np.eye(3)[label] * 0.4 + 0.2
    test, valid = np.arange(60, N), np.arange(30, 60)

    def of(rows):
        return Predictions(window=rows, subject=SUBJECT[rows], label=label[rows], score=score_of[rows])

    result = Result(0, 0, {"valid": of(valid), "test": of(test)}, {"valid_kappa": 0.5, "seconds": 1.0}, Path())
    windows = Windows(subject=SUBJECT, label=label, recording=RECORDING, class_names=task.class_names)
    splits = Splits(kind="predefined", folds=(Fold(np.arange(30), valid, test),), within_subject=False, seed=0)
    facts = {"store": {"fingerprint": "f"}, "processes": 1} | UNKNOWN
    config = FinetuneConfig(ckpt="r2", data="store", run_dir="run")
    content = report.build(config, Arms(task, {"codebrain": [result]}), splits, windows, facts)
    assert "No window of c is in the test set" in "\n".join(content["cautions"])
    assert content["chance"]["balanced_accuracy"] == 0.5


def fewer(arms, n_subjects):
    """Evaluate on the first subjects of the test set alone."""
    names = [f"S{number:02d}" for number in range(6, 6 + n_subjects)]
    for results in arms.results.values():
        for result in results:
            test = result.predictions["test"]
            result.predictions["test"] = test.take(np.isin(test.subject, names))
    return arms


def test_the_method_of_the_intervals_is_named_once_in_each_form():
    content, _ = make()
    found = content["intervals"]
    assert found == {
        "level": 0.95,
        "method": "leave-one-subject-out jackknife, t distribution",
        "subjects": 6,
        "degrees_of_freedom": pytest.approx(5),
        "none_because": "",
    }
    note = f"in brackets the 95 % CI over 6 subjects for these trained models ({found['method']})"
    assert markdown.to_markdown(content).count(found["method"]) == 1
    assert note in markdown.to_markdown(content)
    assert note in markdown.summary(content).splitlines()[-1]
    assert figures.comparison(content).get_suptitle().endswith(f"bar: 95 % CI ({found['method']})")


@pytest.mark.parametrize("n_subjects", [1, 2, 5])
def test_fewer_than_six_subjects_have_words_instead_of_intervals(n_subjects):
    content, arms = make()
    again = build(fewer(arms, n_subjects), content)
    reason = f"{n_subjects} subject{'s' * (n_subjects > 1)}, and an interval needs 6"
    assert again["intervals"]["none_because"] == reason
    assert f"No 95 % CI and no verdict: {reason}. `--split.kind kfold` tests every subject once." in again["cautions"]
    for arm in again["arms"].values():
        assert {metric["interval"] for metric in arm["test"]["metrics"].values()} == {None}
    assert again["compared"]["band_power"]["all"]["verdict"] == "too few subjects"
    assert f"No 95 % CI: {reason}." in markdown.to_markdown(again)
    assert markdown.summary(again).splitlines()[-1].endswith(f"No 95 % CI: {reason}.")
    assert figures.comparison(again).get_suptitle().endswith(f"no 95 % CI: {reason}")


def test_a_class_of_one_subject_is_why_there_is_no_interval():
    content, arms = make()
    for results in arms.results.values():
        for result in results:
            test = result.predictions["test"]
            result.predictions["test"] = test.take((test.label == 1) | (test.subject == "S07"))
    again = build(arms, content, kind="predefined")
    assert again["intervals"]["none_because"] == "all windows of class 'rest' are of one subject"
    assert again["intervals"]["degrees_of_freedom"] != again["intervals"]["degrees_of_freedom"], "NaN, null in JSON"
    (caution,) = [text for text in again["cautions"] if text.startswith("No 95 % CI")]
    assert "kfold" not in caution, "the split is the protocol's own"


def test_folds_that_leave_a_metric_undefined_are_counted():
    content, arms = make(n_folds=3, seeds=(0,))
    (last,) = [r for r in arms.results["codebrain"] if r.fold == 2]
    test = last.predictions["test"]
    last.predictions["test"] = test.take(test.label == 1)
    again = build(arms, content)
    entry = again["arms"]["codebrain"]["test"]["folds"]["auroc"]
    assert (entry["defined"], len(entry["by_fold"])) == (2, 3)
    assert f"{entry['mean']:.3f} ± {entry['sd']:.3f} (2 of 3 folds)" in markdown.to_markdown(again)
    assert "of 3 folds)" not in markdown.to_markdown(content)


def test_both_forms_have_the_same_numbers_and_json_is_strict(tmp_path):
    content, _ = make()
    content["arms"]["codebrain"]["test"]["metrics"]["auroc"]["by_seed"].append(float("nan"))
    report.write(tmp_path, content)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    read = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert read["arms"]["codebrain"]["test"]["metrics"]["auroc"]["by_seed"][-1] is None
    text = (tmp_path / "report.md").read_text()
    for line in (0, 1):
        value = read["arms"]["codebrain"]["test"]["metrics"]["auroc"]["by_seed"][line]
        row = next(row for row in text.splitlines() if row.startswith(f"| CodeBrain | {line} |"))
        assert f"{value:.3f}" in row
    assert f"{read['arms']['codebrain']['test']['metrics']['auroc']['mean']:.3f}" in text
    assert "| log band power + linear | 0 |" not in text, "it draws nothing"
    assert text.count("| S") == 6, "a line for each test subject"


def test_the_summary_has_a_line_for_every_arm_and_chance():
    lines = markdown.summary(make()[0]).splitlines()
    table = lines[lines.index("") + 1 :]
    assert [line.split("  ")[0] for line in table[:-1]] == ["model", "CodeBrain", "log band power + linear", "chance"]
    assert table[-2].split()[1:3] == ["0.500", "0.500"]


def test_curves_and_learning_say_which_side_they_are_on():
    for test, words in ((True, "test: 6 subjects"), (False, "VALIDATION, no test set: 3 subjects")):
        content, arms = make(test=test)
        title = f"toy (corrected), {words}, 1 fold, 2 seeds"
        assert figures.ranking_curves(content, arms.by_seed("codebrain", arms.side)).get_suptitle() == title
        assert figures.comparison(content).get_suptitle().startswith(title)
        assert figures.subjects(content).axes[0].get_title() == title.replace(": ", ":\n")
        assert figures.learning(content, []).axes[1].get_ylabel() == "AUROC on validation"


def test_all_figures_of_the_papers_are_compared():
    content, _ = make()
    axes = figures.comparison(content).axes
    assert [axis.get_xlabel() for axis in axes] == ["balanced accuracy", "AUROC", "PR-AUC"]
    means = [content["arms"][arm]["test"]["metrics"]["auroc"]["mean"] for arm in ("codebrain", "band_power")]
    diamonds = [line.get_xdata()[0] for line in axes[1].lines if line.get_marker() == "D"]
    assert diamonds == pytest.approx(means)
    assert [text.get_text() for text in axes[1].texts] == [f"{mean:.3f}" for mean in means]


def test_a_regression_is_shown_against_the_truth_as_the_mean_of_seeds():
    content, _ = make()
    truth, subject = np.arange(6.0), np.repeat(["a", "b"], 3)
    by_seed = {
        seed: Predictions(window=np.arange(6), subject=subject, label=truth, score=truth[:, None] + seed)
        for seed in (0, 1)
    }
    _, *dots = figures.agreement(content, by_seed).axes[0].get_children()
    drawn = np.concatenate([dot.get_offsets() for dot in dots if hasattr(dot, "get_offsets")])
    np.testing.assert_allclose(drawn, np.stack([truth, truth + 0.5], axis=1))


def test_curves_of_several_classes_are_each_against_the_rest():
    rng = np.random.default_rng(0)
    label = np.arange(90) % 3
    score = rng.dirichlet([1, 1, 1], 90)
    p = Predictions(window=np.arange(90), subject=np.full(90, "S"), label=label, score=score)
    content, _ = make()
    content["task"]["class_names"] = ["a", "b", "c"]
    left, right = figures.ranking_curves(content, {0: p}).axes
    area = roc_auc_score(label == 1, score[:, 1])
    assert f"b: {area:.3f}" in [line.get_label() for line in left.lines]
    assert len(left.lines) == len(right.lines) == 4


def test_a_single_validation_is_a_dot_and_several_are_a_line(tmp_path):
    content, _ = make(n_folds=1)
    content["selected_by"] = "valid/auroc"
    for steps, marker in (([4], "."), ([4, 8], "None")):
        lines = [{"step": step, "valid/auroc": 0.5, "valid/loss": 1.0, "train/loss": 1.0} for step in steps]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        trial = Result(0, 0, {}, {"best_step": 4}, tmp_path)
        left, right = figures.learning(content, [trial]).axes
        assert {line.get_marker() for line in (*left.lines, right.lines[0])} == {marker}


def test_report_md_says_in_bold_when_a_baseline_wins_and_lists_the_folds():
    content, _ = make(n_folds=3, skills=(0.5, 3.0))
    lines = markdown.to_markdown(content).splitlines()
    assert [line for line in lines[:8] if line.startswith("- **CodeBrain does NOT beat log band power + linear: AUROC")]
    first = lines.index("CodeBrain within each fold (mean of seeds):") + 4
    by_fold = content["arms"]["codebrain"]["test"]["folds"]["auroc"]["by_fold"]
    for number, value in enumerate(by_fold):
        assert lines[first + number].startswith(f"| {number} |")
        assert f"{value:.3f}" in lines[first + number]


def test_pictures_are_drawn(tmp_path):
    content, arms = make(n_folds=3)
    drawn = figures.draw(tmp_path, content, arms.by_seed("codebrain", "test"), [])
    assert {path.stem for path in drawn} == {"comparison", "subjects", "learning", "confusion", "curves"}
    assert all(path.stat().st_size > 5000 for path in drawn)


def test_a_comparison_stands_in_the_report_whoever_wins():
    content, _ = make(n_folds=3, skills=(3.0, 0.5))
    found = content["compared"]["band_power"]
    assert found["all"]["verdict"] == found["within_folds"]["verdict"] == "better"
    assert found["all"]["difference"] == found["all"]["ours"] - found["all"]["theirs"]
    text = markdown.to_markdown(content)
    assert "| CodeBrain against | figure | difference | verdict |" in text
    assert f"| log band power + linear | AUROC over all windows | {found['all']['difference']:+.3f} [" in text


def test_a_difference_that_is_not_significant_is_no_win():
    text = cautions(skills=(1.01, 1.0), seeds=(0,))
    assert "CodeBrain scores higher than log band power + linear, but the difference is not significant: AUROC" in text
    assert "[95 % CI -" in text


def test_folds_that_say_the_opposite_are_mentioned():
    content, arms = make(n_folds=3, skills=(3.0, 2.0), seeds=(0,))
    for result in arms.results["codebrain"]:
        p = result.predictions["test"]
        odds = p.score[:, 1] / p.score[:, 0] * 1000.0**result.fold
        score = np.stack([1 / (1 + odds), odds / (1 + odds)], 1)
        result.predictions["test"] = dataclasses.replace(p, score=score)
    again = build(arms, content)
    (verdict,) = [text for text in again["cautions"] if "NOT beat" in text]
    assert "Within the folds it is the other way round (+0." in verdict


def test_a_figure_that_is_not_defined_is_no_defeat():
    content, arms = make()
    for results in arms.results.values():
        for result in results:
            test = result.predictions["test"]
            result.predictions["test"] = test.take(test.label == 1)
    again = build(arms, content)
    assert "NOT beat" not in "".join(again["cautions"])
    assert "CodeBrain and log band power + linear cannot be compared: AUROC is undefined" in "".join(again["cautions"])
    table = markdown.to_markdown(again)
    assert "undefined" in table
    assert "nan" not in table


def test_recordings_of_one_label_have_figures_of_their_own():
    content, arms = make()
    entry = content["arms"]["codebrain"]["test"]["recordings"]
    assert entry["n"] == 2 * 6
    p = metrics.by_recording(arms.by_seed("codebrain", "test")[0], RECORDING)
    assert entry["metrics"]["auroc"]["by_seed"][0] == score("binary", p)["auroc"]
    assert "(12 recordings, each of one label)" in markdown.to_markdown(content)


def test_beside_a_test_set_validation_has_figures_within_folds_only():
    """A window may validate in several folds: together they would count it more than once."""
    content, arms = make(n_folds=3)
    entry = content["arms"]["codebrain"]["valid"]
    assert entry.keys() == {"folds"}
    of_fold = [
        np.mean([score("binary", p)["auroc"] for p in by_seed]) for by_seed in arms.by_fold("codebrain", "valid")
    ]
    assert entry["folds"]["auroc"]["by_fold"] == pytest.approx(of_fold)
