"""Real runs of stage 1 and stage 2, killed with SIGKILL at random moments and launched again with the same command.

    python benchmarks/kills.py --output build/kills                    # a quarter of an hour on two cores

For each stage a small run is made undisturbed; then, ten times, the same run is started in a new folder, all its
processes are killed at a moment drawn uniformly over the undisturbed run's life (start of the program, making of the
token cache, k-means, steps, validations, checkpoints, pictures, export), and it is launched again. Weights, codebooks,
optimizer state, metrics and export are then compared bit by bit. Windows are simulated.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from codebrain.training.logging import TIME_PREFIX, read_metrics

ROOT = Path(__file__).resolve().parent.parent
STEPS = 24
EVERY = {"save": 5, "log": 4, "eval": 8}
SHORT = [f"--loop.total_steps={STEPS}", "--loop.batch_size=4", "--loop.trackers=[]"]
SHORT += [f"--loop.{what}_every={steps}" for what, steps in EVERY.items()]
SMALL = {
    1: [
        *("--model.width=32", "--model.n_heads=4", "--model.n_layers=1"),
        *("--model.n_codes_t=32", "--model.n_codes_f=32", "--start.share=0.4"),
    ],
    2: [*("--model.res_channels=16", "--model.skip_channels=16", "--model.out_channels=16"), "--model.drop_prob=0.1"],
}


def main() -> None:
    options = parse()
    root = Path(tempfile.mkdtemp(dir=options.scratch))
    try:
        results = measure(root, options)
    finally:
        shutil.rmtree(root)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="runs of each stage that are killed")
    parser.add_argument("--seed", type=int, default=0, help="which moments")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for the runs")
    parser.add_argument("--output", type=Path, default=Path("build/kills"), help="folder for results.json")
    return parser.parse_args()


def measure(root: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    recordings, store = root / "recordings", root / "store"
    finish([*program("data_prep.cli"), "synthetic", recordings, "--subjects", "6", "--minutes", "1"])
    prepare = ["corpus", recordings, "--output", store, "--config", ROOT / "data_prep/configs/small.yaml"]
    finish([*program("data_prep.cli"), *prepare])
    rng, results = random.Random(options.seed), []
    for stage in SMALL:
        whole = root / f"stage{stage}"
        life = finish(command(stage, store, root, whole))
        for number in range(options.kills):
            # Tokens that another run has cached would make the first steps of this one come sooner.
            shutil.rmtree(store / "codes", ignore_errors=True)
            moment, broken = rng.uniform(0, life), root / f"stage{stage}-{number}"
            steps = kill(command(stage, store, root, broken), moment, broken)
            finish(command(stage, store, root, broken))
            differing = differences(whole, broken)
            results.append({"stage": stage, "second": moment, "life": life, **steps, "differing": differing})
            print(json.dumps(results[-1]), flush=True)
            shutil.rmtree(broken)
    return results


def program(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def command(stage: int, store: Path, root: Path, run_dir: Path) -> list[Any]:
    config = ["--config", ROOT / f"pretrain/configs/stage{stage}/tiny.yaml", *SMALL[stage], *SHORT]
    tokenizer = ["--tokenizer", root / "stage1"] if stage == 2 else []
    return [*program(f"pretrain.stage{stage}"), *config, "--data", store, *tokenizer, "--run_dir", run_dir]


def start(line: list[Any]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, line)), env=environment, cwd=ROOT, start_new_session=True, **pipes)


def finish(line: list[Any]) -> float:
    """Run to the end and return its seconds."""
    began = time.monotonic()
    child = start(line)
    _, errors = child.communicate()
    if child.returncode:
        raise SystemExit(f"{' '.join(map(str, line))} ended with {child.returncode}:\n{errors[-2000:]}")
    return time.monotonic() - began


def kill(line: list[Any], moment: float, run_dir: Path) -> dict[str, int]:
    """Kill a run after `moment` seconds; return how far it and its last checkpoint had come."""
    child = start(line)
    try:
        child.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    lines = read_metrics(run_dir)
    saved = sorted(path.name for path in run_dir.glob("checkpoints/step-*") if path.suffix != ".partial")
    return {
        "finished": int((run_dir / "summary.json").exists()),
        "logged_step": lines[-1]["step"] if lines else 0,
        "saved_step": int(saved[-1].removeprefix("step-")) if saved else 0,
    }


def differences(whole: Path, broken: Path) -> list[str]:
    """Names of everything that is not bit-identical."""
    left, right = end_of(whole), end_of(broken)
    found = sorted(left.keys() ^ right.keys())
    found += [name for name in left.keys() & right.keys() if not torch.equal(left[name], right[name])]
    return found + (["metrics.jsonl"] if metrics(whole) != metrics(broken) else [])


def end_of(run_dir: Path) -> dict[str, torch.Tensor]:
    """Weights, codebooks, optimizer state and export of a finished run."""
    folder = run_dir / "checkpoints" / f"step-{STEPS:08d}"
    moments = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    return {
        **load_file(folder / "model.safetensors"),
        **{f"optimizer {i} {name}": value for i, entry in moments.items() for name, value in entry.items()},
        **{f"export {name}": value for name, value in load_file(run_dir / "export/model.safetensors").items()},
    }


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.startswith(TIME_PREFIX)} for line in read_metrics(run_dir)]


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| stage | killed after, s (of) | last step logged | last checkpoint | launched again, at the end |",
        "|---|---|---|---|---|",
    ]
    for row in results:
        verdict = f"differs: {', '.join(row['differing'][:3])}" if row["differing"] else "bit-identical"
        lines.append(
            f"| {row['stage']} | {row['second']:.1f} ({row['life']:.1f}) | {row['logged_step']} | "
            f"{row['saved_step'] or 'none'} | {verdict} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
