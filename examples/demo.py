"""The whole chain on two CPU cores: recordings -> store -> tokenizer -> backbone -> classifier -> table.

python examples/demo.py                                                  simulated recordings
python examples/demo.py --data FOLDER                                    your own, without labels: up to the backbone
python examples/demo.py --data FOLDER --task mental_arithmetic           your own, a task that codebrain-prep knows

Each step is the command that a user would type, printed before it runs. A step that is finished is not done again.
"""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codebrain.config import command, parse
from codebrain.data.format import Store
from codebrain.training.logging import read_metrics
from data_prep.tasks import DATA_SETS
from finetune.markdown import interval_note

SMALL = "data_prep/configs/small.yaml"
EYES = "examples/eyes.yaml"


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What to run the chain on."""

    run_dir: str = "demo_run"
    """Folder for everything that is written."""
    data: str | None = None
    """Folder of recordings; none simulates some."""
    task: str | None = None
    """Name of a task that codebrain-prep can cut from `data`; none for data without labels."""
    subjects: int = 16
    """Simulated subjects."""
    minutes: float = 4.0
    """Minutes simulated per subject."""
    stage1_steps: int = 300
    """Optimizer updates of stage 1."""
    stage2_steps: int = 800
    """Optimizer updates of stage 2."""


def main() -> int:
    """Run every step, then print what came out."""
    config = parse(DemoConfig, prog="demo.py", description=(__doc__ or "").splitlines()[0])
    if config.task and not config.data:
        raise ValueError(f"--task {config.task} needs --data, the folder of its recordings")
    if config.task and config.task not in DATA_SETS:
        raise ValueError(f"--task {config.task} is none of {', '.join(DATA_SETS)}")
    folder = Path(config.run_dir)
    recordings = Path(config.data) if config.data else folder / "recordings"
    corpus, tasks = folder / "corpus", folder / "task"
    runs = {name: folder / name for name in ("tokenizer", "backbone", "classifier")}
    if not config.data:
        size = ["--subjects", config.subjects, "--minutes", config.minutes]
        step("simulate recordings", "codebrain-prep", "synthetic", recordings, *size)
    step("corpus", "codebrain-prep", "corpus", recordings, "--output", corpus, "--config", SMALL)
    stage("stage1", config.stage1_steps, corpus, runs["tokenizer"])
    stage("stage2", config.stage2_steps, corpus, runs["backbone"], "--tokenizer", runs["tokenizer"])
    labelled = not config.data or config.task
    if labelled:
        name = config.task or "events"
        labels = [] if config.task else ["--config", EYES]
        step("labelled windows", "codebrain-prep", "task", name, recordings, "--output", tasks, *labels)
        how = ["--mode", "probe", "--head", "channel", "--baseline", "untrained", "band_power"]
        step("classifier", "codebrain-finetune", "--ckpt", runs["backbone"], "--data", tasks, *how,
             "--run_dir", runs["classifier"])  # fmt: skip
    print_table(corpus, runs, bool(labelled))
    return 0


def stage(name: str, steps: int, corpus: Path, run_dir: Path, *more: object) -> None:
    """One of the two pre-training stages, in its tiny preset."""
    config = Path("pretrain/configs") / name / "tiny.yaml"
    length = ["--loop.total_steps", steps, "--loop.eval_every", max(1, steps // 4), "--split.valid_fraction", 0.2]
    step(f"pre-training, {name}", "python", f"pretrain/{name}.py", "--config", config, "--data", corpus, *more,
         "--run_dir", run_dir, *length)  # fmt: skip


def step(title: str, program: str, *arguments: object) -> None:
    """Print a command and run it; end the demo with its exit code if it fails."""
    words = [program, *map(str, arguments)]
    print(f"\n== {title}\n$ {shlex.join(words)}", flush=True)
    bin_folder = Path(sys.executable).parent
    started = time.monotonic()
    code = subprocess.run([str(bin_folder / program), *words[1:]], check=False).returncode
    if code:
        sys.exit(code)
    print(f"({time.monotonic() - started:.0f} s)", flush=True)


def print_table(corpus: Path, runs: dict[str, Path], labelled: bool) -> None:
    """Figures of all steps, each on subjects that it did not train on."""
    rows = [*corpus_rows(corpus), *tokenizer_rows(last_validation(runs["tokenizer"]))]
    rows += backbone_rows(last_validation(runs["backbone"]))
    if labelled:
        rows += classifier_rows(json.loads((runs["classifier"] / "report.json").read_text()))
    width = max(len(name) for name, _ in rows)
    print("\n== what came out (each step on subjects that it held out)")
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    print("\n== figures")
    for path in sorted(path for run in runs.values() for path in run.glob("figures/*.png")):
        print(path)


def corpus_rows(path: Path) -> list[tuple[str, str]]:
    """Windows, hours, recordings."""
    store = Store.open(path)
    with (path / "recordings.csv").open(newline="", encoding="utf-8") as file:
        status = Counter(row["status"] for row in csv.DictReader(file))
    used = ", ".join(f"{count} {name}" for name, count in status.items())
    return [("corpus", f"{store.n_windows} windows, {store.hours:.2f} hours; recordings: {used}")]


def tokenizer_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Life of the codebooks and what the decoders restore."""
    rows = []
    for suffix, name, restored in (("t", "temporal", "waveform"), ("f", "frequency", "amplitude")):
        used, perplexity = figures[f"codes_in_use_{suffix}"], figures[f"perplexity_{suffix}"]
        variance = figures[f"{restored}_ev"]
        text = f"{used:.0%} of codes in use, perplexity {perplexity:.0f}; explained variance of the {restored}"
        rows.append((f"{name} codebook", f"{text} {variance:.2f}"))
    return rows


def backbone_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Masked prediction against guessing by frequency."""
    rows = []
    for suffix, name in (("t", "temporal"), ("f", "frequency")):
        value = {key: figures[f"{key}_{suffix}"] for key in ("top1", "majority", "bits", "entropy")}
        text = f"first guess right {value['top1']:.1%} (most frequent code: {value['majority']:.1%}); "
        text += f"{value['bits']:.2f} bits (unigram entropy: {value['entropy']:.2f})"
        rows.append((f"hidden {name} codes", text))
    return rows


def classifier_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Balanced accuracy of each arm of the report."""
    titles = {"codebrain": "classifier", "untrained": "same head, untrained backbone", "band_power": "log band power"}
    rows = []
    for name, arm in report["arms"].items():
        entry = arm[report["reported_side"]]
        figure = entry["metrics"]["balanced_accuracy"]
        interval = figure["interval"]
        text = f"balanced accuracy {figure['mean']:.3f}"
        if interval:
            text += f", 95 % CI {interval[0]:.3f} to {interval[1]:.3f}"
        rows.append((titles.get(name, name), text))
    return [*rows, ("", interval_note(report))]


def last_validation(run: Path) -> dict[str, Any]:
    """Figures of a run's last validation, without their prefix."""
    lines = [line for line in read_metrics(run) if any(name.startswith("valid/") for name in line)]
    return {name.removeprefix("valid/"): value for name, value in lines[-1].items()}


if __name__ == "__main__":
    command(main)
