"""Is pre-training worth anything? Mental Arithmetic in folds by subject, nothing of a fold's test subjects seen before.

    python examples/mental_arithmetic.py --data EEGMAT --run_dir RUN

EEGMAT is the folder of PhysioNet's EEG During Mental Arithmetic Tasks. For each fold a corpus, a tokenizer and a
backbone are made of the recordings of all other subjects; then classifiers are trained per fold and seed, beside the
same on an untrained backbone, log band power and the tangent space. Each step is a command that a user would type,
printed before it runs; a step that is finished is not done again. RUN/probe/report.md and RUN/full/report.md have the
figures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from demo import SMALL, step

from codebrain.config import command, parse
from finetune import splits
from finetune.data import open_data


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Sizes of the experiment."""

    data: str
    """Folder of the recordings and subject-info.csv."""
    run_dir: str
    """Folder for everything that is written."""
    n_folds: int = 5
    """Groups of subjects, each of which tests once."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    """Seeds of the classifiers."""
    modes: list[Literal["probe", "full", "probe_then_full"]] = field(default_factory=lambda: ["probe", "full"])
    """What is trained on the labels: the classifier alone, everything, or one after the other."""
    stage1_steps: int = 1000
    """Optimizer updates of each tokenizer."""
    stage2_steps: int = 3000
    """Optimizer updates of each backbone."""


def main() -> int:
    """Run every step."""
    config = parse(ExperimentConfig, prog="mental_arithmetic.py", description=(__doc__ or "").splitlines()[0])
    folder = Path(config.run_dir)
    tasks = folder / "task"
    cut = ["task", "mental_arithmetic", config.data, "--output", tasks, "--protocol", "corrected"]
    step("labelled windows", "codebrain-prep", *cut)
    split = splits.SplitConfig(kind="kfold", n_folds=config.n_folds)
    data = open_data(str(tasks))
    for number, fold in enumerate(splits.make(data.windows, split).folds):
        pretrain(config, folder / f"fold-{number}", sorted(set(data.windows.subject[fold.test])))
    for mode in config.modes:
        step(f"classifiers, {mode}", "codebrain-finetune", "--config", "finetune/configs/tiny.yaml",
             "--ckpt", folder / "fold-{fold}" / "backbone", "--data", tasks, "--run_dir", folder / mode,
             "--mode", mode, "--head", "channel",
             "--split.kind", split.kind, "--split.n_folds", split.n_folds, "--seeds", *config.seeds,
             "--baseline", "untrained", "band_power", "tangent_space")  # fmt: skip
    return 0


def pretrain(config: ExperimentConfig, folder: Path, held_out: list[str]) -> None:
    """Both stages on the recordings of all subjects but those held out."""
    folder.mkdir(parents=True, exist_ok=True)
    left_out = folder / "left_out.txt"
    left_out.write_text("".join(f"{name}\n" for name in held_out), encoding="utf-8")
    corpus = ["--output", folder / "corpus", "--config", SMALL, "--exclude", left_out]
    step(f"{folder.name}: corpus", "codebrain-prep", "corpus", config.data, *corpus)
    stages: dict[str, tuple[str, int, list[object]]] = {
        "stage1": ("tokenizer", config.stage1_steps, []),
        "stage2": ("backbone", config.stage2_steps, ["--tokenizer", folder / "tokenizer"]),
    }
    for name, (made, steps, more) in stages.items():
        step(f"{folder.name}: pre-training, {name}", "python", f"pretrain/{name}.py",
             "--config", Path("pretrain/configs") / name / "tiny.yaml", "--data", folder / "corpus",
             "--run_dir", folder / made, "--loop.total_steps", steps, *more)  # fmt: skip


if __name__ == "__main__":
    command(main)
