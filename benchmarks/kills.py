"""Real runs of both stages, killed with SIGKILL at random moments and launched again with the same command.

    python benchmarks/kills.py --output build/kills                    # three quarters of an hour on two cores

For each stage, on one process and on two, a small run is made undisturbed. Then the same run is started in a new
folder, all its processes are killed, and it is launched again; ten times. The moments are drawn over the run's real
span: two of ten between its launch and its first checkpoint (start of the program, token cache, first steps), six
between its first checkpoint and its last one (steps, k-means, validations, checkpoints), two between its last
checkpoint and its end (pictures, export). Weights, codebooks, optimizer state, metrics and export are then compared bit
by bit. Windows are simulated.
"""

import argparse
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import psutil
import torch
from safetensors.torch import load_file

from codebrain.training.logging import TIME_PREFIX, read_metrics
from codebrain.weights import resolve

ROOT = Path(__file__).resolve().parent.parent
STEPS = 24
EVERY = {"save": 5, "log": 4, "eval": 8}
SHORT = [f"--loop.total_steps={STEPS}", "--loop.trackers=[]", *(f"--loop.{k}_every={v}" for k, v in EVERY.items())]
SMALL = {
    1: [
        *("--model.width=32", "--model.n_heads=4", "--model.n_layers=1"),
        *("--model.n_codes_t=32", "--model.n_codes_f=32", "--start.share=0.4"),
    ],
    2: [*("--model.res_channels=16", "--model.skip_channels=16", "--model.out_channels=16"), "--model.drop_prob=0.1"],
}
BATCH = 4
LAUNCHER = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"),
    *("--dynamo_backend", "no", "--main_process_port", "0"),
]
IN_SPAN = (0, 1, 1, 1, 2)
"""In which of the three spans the kills are made, over and over."""


def main() -> None:
    options = parse()
    root = Path(tempfile.mkdtemp(dir=options.scratch))
    results: list[dict[str, Any]] = []
    try:
        store = prepare(root)
        rng = random.Random(options.seed)
        for processes in options.processes:
            for stage in SMALL:
                results += kills(stage, processes, store, root, options.kills, rng)
                measure.write(options.output, results)
    finally:
        shutil.rmtree(root)
    print(table(results))


def parse() -> argparse.Namespace:
    parser = measure.parser(__doc__, "kills")
    parser.add_argument("--kills", type=int, default=10, help="runs of each stage that are killed")
    parser.add_argument("--processes", type=int, nargs="+", default=(1, 2), help="processes of a run")
    parser.add_argument("--seed", type=int, default=0, help="which moments")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for the runs")
    return parser.parse_args()


def prepare(root: Path) -> Path:
    """A store of simulated windows."""
    recordings, store = root / "recordings", root / "store"
    config = ["--config", ROOT / "data_prep/configs/small.yaml"]
    for line in (
        ["synthetic", recordings, "--subjects", "6", "--minutes", "1"],
        ["corpus", recordings, "--output", store, *config],
    ):
        finish(start([sys.executable, "-m", "data_prep.cli", *line]))
    return store


def kills(stage: int, processes: int, store: Path, root: Path, number: int, rng: random.Random) -> list[dict[str, Any]]:
    """A run, and as many others that are killed once and taken up."""
    whole, results = folder(root, stage, processes), []
    spans = watch(command(stage, processes, store, root, whole), whole)
    for index in range(number):
        # Tokens that another run has cached would make the first steps of this one come sooner.
        shutil.rmtree(store / "codes", ignore_errors=True)
        span, broken = IN_SPAN[index % len(IN_SPAN)], root / "broken"
        line = command(stage, processes, store, root, broken)
        found = kill(line, broken, span, rng.uniform(0, spans[span]))
        finish(start(line))
        results.append({"stage": stage, "processes": processes, **found, "differing": differences(whole, broken)})
        print(results[-1], file=sys.stderr, flush=True)
        shutil.rmtree(broken)
    return results


def folder(root: Path, stage: int, processes: int) -> Path:
    return root / f"stage{stage}-{processes}"


def command(stage: int, processes: int, store: Path, root: Path, run_dir: Path) -> list[Any]:
    launcher = [] if processes == 1 else [*LAUNCHER, "--num_processes", processes]
    config = ["--config", ROOT / f"pretrain/configs/stage{stage}/tiny.yaml", *SMALL[stage], *SHORT]
    tokenizer = ["--tokenizer", folder(root, 1, processes)] if stage == 2 else []
    inputs = ["--data", store, *tokenizer, "--run_dir", run_dir, f"--loop.batch_size={BATCH // processes}"]
    return [sys.executable, *launcher, ROOT / f"pretrain/stage{stage}.py", *config, *inputs]


def start(line: list[Any]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, line)), env=environment, cwd=ROOT, **pipes)


def finish(child: subprocess.Popen[str]) -> None:
    """Wait for its end, which must be a good one."""
    _, errors = child.communicate()
    if child.returncode:
        raise SystemExit(f"{child.args} ended with {child.returncode}:\n{errors[-2000:]}")


def watch(line: list[Any], run_dir: Path) -> list[float]:
    """Run undisturbed; return the seconds of each span."""
    moments, child = [time.monotonic()], start(line)
    for span in (0, 1):
        wait(child, run_dir, span)
        moments.append(time.monotonic())
    finish(child)
    moments.append(time.monotonic())
    return [end - begin for begin, end in itertools.pairwise(moments)]


def wait(child: subprocess.Popen[str], run_dir: Path, span: int) -> None:
    """Until a span has ended, or the program."""
    while child.poll() is None and saved_step(run_dir) < (1, STEPS)[span]:
        time.sleep(0.01)


def kill(line: list[Any], run_dir: Path, span: int, delay: float) -> dict[str, Any]:
    """Kill a run and all its processes in a span, some time after the one before has ended."""
    began, child = time.monotonic(), start(line)
    if span:
        wait(child, run_dir, span - 1)
    try:
        child.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        # The launcher's processes are in sessions of their own.
        family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family)
        child.communicate()
    return {
        "span": span,
        "second": time.monotonic() - began,
        "finished": (run_dir / "summary.json").exists(),
        "saved_step": saved_step(run_dir),
    }


def saved_step(run_dir: Path) -> int:
    """Step of the last checkpoint, 0 if there is none."""
    steps = [path.name.removeprefix("step-") for path in run_dir.glob("checkpoints/step-*")]
    return max((int(step) for step in steps if step.isdigit()), default=0)


def differences(whole: Path, broken: Path) -> list[str]:
    """Names of everything that is not bit-identical."""
    left, right = end_of(whole), end_of(broken)
    found = sorted(left.keys() ^ right.keys())
    found += [name for name in left.keys() & right.keys() if not torch.equal(left[name], right[name])]
    return found + (["metrics.jsonl"] if metrics(whole) != metrics(broken) else [])


def end_of(run_dir: Path) -> dict[str, torch.Tensor]:
    """Weights, codebooks, optimizer state and export of a finished run."""
    last = run_dir / "checkpoints" / f"step-{STEPS:08d}"
    moments = torch.load(last / "optimizer.pt", weights_only=True)["state"]
    return {
        **load_file(last / "model.safetensors"),
        **{f"optimizer {i} {name}": value for i, entry in moments.items() for name, value in entry.items()},
        **{f"export {name}": value for name, value in load_file(resolve(run_dir).weights).items()},
    }


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.startswith(TIME_PREFIX)} for line in read_metrics(run_dir)]


def table(results: list[dict[str, Any]]) -> str:
    """A row for each stage, number of processes and part of the run in which it was killed."""
    lines = [
        "| stage | processes | killed | after, s | last checkpoint then, step | launched again, at the end |",
        "|---|---|---|---|---|---|",
    ]
    parts: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for row in sorted(results, key=lambda row: row["second"]):
        part = (row["saved_step"] > 0) + (row["saved_step"] == STEPS)
        parts.setdefault((row["stage"], row["processes"], part), []).append(row)
    names = ("before the first checkpoint", "between checkpoints", "after the last step")
    for (stage, processes, part), rows in sorted(parts.items()):
        seconds = ", ".join(f"{row['second']:.1f}" for row in rows)
        steps = ", ".join(str(row["saved_step"] or "none") for row in rows)
        verdict = f"{sum(not row['differing'] for row in rows)} of {len(rows)} bit-identical"
        lines.append(f"| {stage} | {processes} | {names[part]} | {seconds} | {steps} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
