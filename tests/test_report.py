"""The report: its arithmetic, its warnings, its two forms."""

import json

import numpy as np
import pytest

from finetune import figures, markdown, report
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


def predictions(rows, skill, seed=0) -> Predictions:
    noise = np.random.default_rng(seed).normal(size=N)[rows]
    p = 1 / (1 + np.exp(-(noise + skill * (LABEL[rows] - 0.5))))
    return Predictions(window=rows, subject=SUBJECT[rows], label=LABEL[rows], score=np.stack([1 - p, p], 1))


def make(n_folds=1, seeds=(0, 1), skills=(2.0, 0.5), test=True, within=False):
    """Report and arms of a model of skill skills[0] and a baseline of skill skills[1]."""
    rows = np.arange(N)
    folds = [rows[number::n_folds] if n_folds > 1 else rows[60:] for number in range(n_folds)]
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
            )
            for seed in seeds
            for number, fold in enumerate(sides)
        ]

    arms = Arms(TASK, {"codebrain": results(skills[0], seeds), "band_power": results(skills[1], (0,))})
    splits = Splits(kind="kfold" if n_folds > 1 else "ratio", folds=tuple(sides), within_subject=within, seed=0)
    config = FinetuneConfig(ckpt="r2", data="store", run_dir="run", seeds=list(seeds), n_bootstrap=40)
    windows = Windows(subject=SUBJECT, label=LABEL, class_names=TASK.class_names)
    facts = {"store": {"path": "store", "fingerprint": "f" * 64}, "processes": 1}
    return report.build(config, arms, splits, windows, facts), arms


def test_seeds_are_averaged_after_scoring():
    content, arms = make()
    values = [score("binary", p)["auroc"] for p in arms.by_seed("codebrain", "test").values()]
    entry = content["arms"]["codebrain"]["test"]["metrics"]["auroc"]
    assert entry["by_seed"] == values
    assert entry["mean"] == pytest.approx(np.mean(values))
    assert entry["sd"] == pytest.approx(np.std(values, ddof=1))
    assert entry["interval"][0] < entry["mean"] < entry["interval"][1]


def test_confusion_counts_every_window_of_every_seed():
    content, _ = make(seeds=(0, 1, 2))
    matrix = np.array(content["arms"]["codebrain"]["test"]["confusion"])
    assert matrix.sum() == 3 * 60
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


def cautions(**options):
    return "\n".join(make(**options)[0]["cautions"])


def test_a_model_that_loses_to_a_baseline_says_so():
    assert "CodeBrain does NOT beat log band power + linear: auroc" in cautions(skills=(0.5, 3.0))
    assert "NOT beat" not in cautions(skills=(3.0, 0.5))


def test_what_a_reader_must_know_is_said():
    assert "THERE IS NO TEST SET" in cautions(test=False)
    assert "do not speak about new subjects" in cautions(within=True)
    assert "One seed only" in cautions(seeds=(0,))
    assert "Only 6 subjects" in cautions()
    assert "Only" not in cautions(n_folds=3)


def test_both_forms_have_the_same_numbers_and_json_is_strict(tmp_path):
    content, _ = make()
    content["arms"]["codebrain"]["test"]["metrics"]["auroc"]["by_seed"].append(float("nan"))
    report.write(tmp_path, content)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    read = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert read["arms"]["codebrain"]["test"]["metrics"]["auroc"]["by_seed"][-1] is None
    text = (tmp_path / "report.md").read_text()
    assert f"{read['arms']['codebrain']['test']['metrics']['auroc']['mean']:.3f}" in text
    assert text.count("| S") == 6, "a line for each test subject"


def test_the_summary_has_a_line_for_every_arm_and_chance():
    lines = markdown.summary(make()[0]).splitlines()
    table = lines[lines.index("") + 1 :]
    assert [line.split("  ")[0] for line in table] == ["model", "CodeBrain", "log band power + linear", "chance"]
    assert table[-1].split()[1:3] == ["0.500", "0.500"]


def test_pictures_are_drawn(tmp_path):
    content, arms = make(n_folds=3)
    drawn = figures.draw(tmp_path, content, arms.by_seed("codebrain", "test"), [])
    assert {path.stem for path in drawn} == {"comparison", "subjects", "learning", "confusion", "curves"}
    assert all(path.stat().st_size > 5000 for path in drawn)
