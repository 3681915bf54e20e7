"""Time and memory of the backbone beside braindecode's, in one run, measurements interleaved.

    python benchmarks/backbone.py --output build/backbone                                # CPU, half an hour
    python benchmarks/backbone.py --dtype bfloat16 --compile --output build/backbone     # on CUDA, if there is one

Prints a table, writes results.json and time_against_length.png. Results that lie in the folder already stay beside new
ones, so a size or a window may be measured by itself; what a row compares was always measured in one run, in turns.

Inference is a forward pass to the features in
evaluation mode; a training step is forward and backward in training mode, dropout included. Memory is the growth of the
process's peak (CPU, in a process of its own) or of the allocator's (CUDA) over what the model and the windows take. A
dense attention that needs more than --memory_limit is reported as such and not timed.
"""

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import forget_peak, memory_gb
from peer import braindecode_class
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from codebrain import CodeBrain
from codebrain.folding import fold

SIZES = ("19x30", "64x60", "128x60")
"""Channels x seconds."""

TASKS = ("inference", "training")
PATCH_SIZE = 200


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for size in options.sizes:
        for window in options.windows:
            for task in TASKS:
                result = measure(size, window, task, options)
                print("\n".join(rows(result)), flush=True)
                results[f"{task} {size} {window} {options.dtype} {options.device}"] = result
                path.write_text(json.dumps(results, indent=2) + "\n")
    alike = [result for key, result in results.items() if key.endswith(f" {options.dtype} {options.device}")]
    print(table(alike))
    draw(alike, options.output / "time_against_length.png")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="channels x seconds, such as 19x30")
    parser.add_argument("--windows", nargs="+", type=int, default=(1, 31), help="attention windows in tokens")
    parser.add_argument("--tokens", type=int, default=4560, help="tokens per step: sets the batch of each size")
    parser.add_argument("--layers", type=int, default=8, help="residual blocks")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each model, after one that is not")
    parser.add_argument("--memory_limit", type=float, default=default_limit(), help="GB that one step may take")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of autocast")
    parser.add_argument("--compile", action="store_true", help="also time ours under torch.compile")
    parser.add_argument("--output", type=Path, default=Path("build/backbone"), help="folder for results and figure")
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def default_limit() -> float:
    """Return in GB 60 % of the memory that is free now (CUDA: 90 %): other processes must survive a dense attention."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] * 0.9 / 1e9
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 * 0.6 / 1e9


# ---------------------------------------------------------------------------------------------------------------------
# Models and steps
# ---------------------------------------------------------------------------------------------------------------------


def variants(task: str, options: argparse.Namespace) -> list[str]:
    """Return what is compared; braindecode's where it is installed."""
    names = ["ours"]
    if task == "inference":
        names.append("ours, folded")
    if options.compile:
        names.append("ours, compiled")
    if importlib.util.find_spec("braindecode") is not None:
        names.append("braindecode")
    return names


def build(variant: str, size: str, window: int, options: argparse.Namespace) -> nn.Module:
    n_chans, seconds = map(int, size.split("x"))
    arguments: dict[str, Any] = {
        "n_outputs": 2,
        "n_chans": n_chans,
        "n_times": seconds * PATCH_SIZE,
        "swa_window_size": window,
        "num_res_layers": options.layers,
        "mlp_hidden_multiplier": 1,
    }
    if variant == "braindecode":
        return braindecode_class()(**arguments).to(options.device)
    model = CodeBrain(**arguments).to(options.device)
    if variant == "ours, folded":
        return fold(model)
    return torch.compile(model) if variant == "ours, compiled" else model  # type: ignore[return-value]


def windows(size: str, options: argparse.Namespace) -> Tensor:
    n_chans, seconds = map(int, size.split("x"))
    batch = max(1, options.tokens // (n_chans * seconds))
    return 0.3 * torch.randn(batch, n_chans, seconds * PATCH_SIZE, device=options.device)


def step(model: nn.Module, x: Tensor, task: str, options: argparse.Namespace) -> None:
    autocast = (
        torch.autocast(options.device, torch.bfloat16) if options.dtype == "bfloat16" else contextlib.nullcontext()
    )
    with autocast, torch.inference_mode(task == "inference"):
        out = model(x, return_features=True)["features"]
    if task == "training":
        out.float().square().mean().backward()
        model.zero_grad(set_to_none=True)


# ---------------------------------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------------------------------


def measure(size: str, window: int, task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all variants at one size: memory first, then times of those that fit, in turns."""
    n_chans, seconds = map(int, size.split("x"))
    memory = {name: peak_memory(name, size, window, task, options) for name in variants(task, options)}
    x = windows(size, options)
    models = {
        name: build(name, size, window, options).train(task == "training")
        for name, used in memory.items()
        if used is not None
    }
    runs: dict[str, Callable[[], None]] = {
        name: lambda model=model: step(model, x, task, options) for name, model in models.items()
    }
    # The machine's matrix peak is timed in the same turns, so that its load weighs on all alike.
    factor = torch.randn(2048, 2048, device=options.device, dtype=getattr(torch, options.dtype))
    seconds_of = in_turns({**runs, "peak": lambda: factor @ factor}, options)
    with FlopCounterMode(display=False) as counter:
        if "ours" in runs:
            runs["ours"]()
    peak = 2 * 2048**3 / seconds_of.pop("peak")
    return {
        "machine": machine(options),
        "size": size,
        "window": window,
        "task": task,
        "batch": len(x),
        "tokens": n_chans * seconds,
        "seconds": seconds_of,
        "memory_gb": memory,
        "gflop": counter.get_total_flops() / 1e9,
        "peak_gflops": peak / 1e9,
        "share_of_peak": counter.get_total_flops() / seconds_of["ours"] / peak if "ours" in runs else None,
    }


def in_turns(runs: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, float]:
    """Return each run's median time in seconds; one round of all comes first and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats + 1):
        for name, run in runs.items():
            synchronize(options)
            start = time.perf_counter()
            run()
            synchronize(options)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def synchronize(options: argparse.Namespace) -> None:
    if options.device == "cuda":
        torch.cuda.synchronize()


def peak_memory(name: str, size: str, window: int, task: str, options: argparse.Namespace) -> float | None:
    """Return the GB that one step adds, or None if they are more than the limit. In a process of its own on a CPU."""
    if options.device == "cuda":
        return cuda_memory(name, size, window, task, options)
    context = multiprocessing.get_context("forkserver")  # imports torch once, not once per measurement
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=cpu_memory, args=(sender, name, size, window, task, options))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:  # the child was killed
        return None
    finally:
        child.join()


def cpu_memory(sender: Any, name: str, size: str, window: int, task: str, options: argparse.Namespace) -> None:
    model, x = build(name, size, window, options).train(task == "training"), windows(size, options)
    before = memory_gb("VmRSS")
    forget_peak()  # which was that of building the model
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(options.memory_limit * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        step(model, x, task, options)
    except (RuntimeError, MemoryError):
        sender.send(None)
        return
    sender.send(memory_gb("VmHWM") - before)


def cuda_memory(name: str, size: str, window: int, task: str, options: argparse.Namespace) -> float | None:
    model, x = build(name, size, window, options).train(task == "training"), windows(size, options)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    try:
        step(model, x, task, options)
    except torch.cuda.OutOfMemoryError:
        return None
    return (torch.cuda.max_memory_allocated() - before) / 1e9


# ---------------------------------------------------------------------------------------------------------------------
# Reporting
# ---------------------------------------------------------------------------------------------------------------------


def machine(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name()
        if options.device == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": options.dtype,
        "memory_limit_gb": options.memory_limit,
        "load": Path("/proc/loadavg").read_text().split()[0],
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table: times per step, ratios to braindecode's."""
    head = [
        "| task | size | window | batch | model | s/step | us/token | faster | GB | less memory | of peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    described = ("device", "threads", "torch", "dtype")
    machines = {", ".join(f"{name} {result['machine'][name]}" for name in described) for result in results}
    return "\n".join([*sorted(machines), "", *head, *(row for result in results for row in rows(result))])


def rows(result: dict[str, Any]) -> list[str]:
    """Return the table's rows for one size, window and task, a row for each model."""
    lines = []
    for name, memory in result["memory_gb"].items():
        head = f"| {result['task']} | {result['size']} | {result['window']} | {result['batch']} | {name} |"
        if memory is None:
            lines.append(f"{head} does not fit into {result['machine']['memory_limit_gb']:.0f} GB | | | | | |")
            continue
        seconds, theirs = result["seconds"][name], result["seconds"].get("braindecode")
        their_memory = result["memory_gb"].get("braindecode")
        faster = f"{theirs / seconds:.2f}x" if theirs else ""
        less = f"{their_memory / memory:.2f}x" if their_memory and memory > 0 else ""
        share = f"{result['share_of_peak']:.0%}" if name == "ours" else ""
        per_token = 1e6 * seconds / result["batch"] / result["tokens"]
        lines.append(f"{head} {seconds:.3f} | {per_token:.0f} | {faster} | {memory:.2f} | {less} | {share} |")
    return lines


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw the time of one window against its length in tokens, a panel per task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(TASKS), figsize=(10, 4), layout="constrained", sharey=True)
    for axis, task in zip(axes, TASKS, strict=True):
        for window in sorted({result["window"] for result in results}):
            for name, marker in (("ours", "o-"), ("ours, folded", "^:"), ("braindecode", "s--")):
                points = [
                    (result["tokens"], result["seconds"][name] / result["batch"])
                    for result in results
                    if (result["task"], result["window"]) == (task, window) and name in result["seconds"]
                ]
                if points:
                    axis.loglog(*zip(*sorted(points), strict=True), marker, label=f"{name}, window {window}")
        axis.set(title=task, xlabel="tokens (channels x seconds)")
        axis.legend(fontsize="small")
    axes[0].set_ylabel("seconds per window")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
