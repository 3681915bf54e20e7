"""Time of a stage-2 step beside the bare backbone's, with cached tokens and without, in one run.

    python benchmarks/stage2_step.py --output build/stage2_step            # CPU, some minutes on two cores

Base sizes, windows of 19 x 30 patches. `bare` is forward, cross-entropy, backward and AdamW on one batch that lies in
memory; it runs between the steps of the real loop (as its validation, which the loop's clock leaves out), so both see
the same machine. The loop's own share is what is left of its step without loss, backward pass, clipping and update:
reading, logging, bookkeeping. Steps are medians. Memory is the growth of the peak of a process that makes two steps: of
the whole model, and of the two code heads and their loss alone; each has a process of its own.
"""

import argparse
import dataclasses
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

from codebrain import masking
from codebrain.backbone import BackboneConfig
from codebrain.channels import TEN_TWENTY_19
from codebrain.data.format import Recording, ShardWriter, Store, StoreInfo, write_store
from codebrain.data.windows import WindowDataset
from codebrain.model import MaskedTokenModel
from codebrain.prediction import code_loss
from codebrain.training import launch
from codebrain.training.launch import LoopConfig
from codebrain.training.logging import read_metrics
from codebrain.training.loop import fit
from codebrain.training.optim import OptimConfig, adamw, parameter_groups
from pretrain.stage2 import Stage2, Stage2Config
from tokenizer import DualTokenizer, TokenizerConfig
from tokenizer.cache import ensure_codes

N_CODES, N_PATCHES, PATCH = 4096, 30, 200
OPTIM = OptimConfig(lr=1e-4, grad_clip=5.0)


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_store(root / "store")
        steps = {cache: compare(root, cache, options) for cache in ("on", "off")}
    memory = {name: measure.in_a_process(peak_gb, name, options) for name in BUILD}
    report = {
        "machine": {"processor": platform.machine(), "threads": options.threads, "torch": torch.__version__},
        "batch": options.batch,
        "steps": steps,
        "memory_batch": options.memory_batch,
        "peak_gb": memory,
    }
    measure.write(options.output, report)
    print(table(report))


def parse() -> argparse.Namespace:
    parser = measure.parser(__doc__, "stage2_step")
    parser.add_argument("--batch", type=int, default=4, help="windows of a step")
    parser.add_argument("--memory_batch", type=int, default=8, help="windows of the step whose memory is measured")
    parser.add_argument("--steps", type=int, default=8, help="timed steps, after one that is not")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def make_store(path: Path) -> Store:
    """Three recordings of ten windows of noise."""
    rng, shards = np.random.default_rng(0), []
    recordings = [Recording(row=row, path=f"{row}.edf", subject=f"s{row}", kept=10) for row in range(3)]
    for recording in recordings:
        windows = 20 * rng.standard_normal((10, len(TEN_TWENTY_19), N_PATCHES * PATCH))
        name = f"{recording.row}"
        with ShardWriter(path, name, ch_names=TEN_TWENTY_19, sfreq=200, n_times=N_PATCHES * PATCH) as writer:
            writer.append(windows, recording=recording.row, start=30.0 * np.arange(10))
        shards.append(writer.shard)
    return write_store(path, StoreInfo(sfreq=200, window_seconds=N_PATCHES), shards, recordings)


def build() -> MaskedTokenModel:
    torch.manual_seed(0)
    return MaskedTokenModel(N_CODES, N_CODES, **dataclasses.asdict(BackboneConfig()))


def bare_step(batch: int) -> Callable[[], None]:
    """Forward, loss, backward and update on a batch in memory."""
    model = build().train()
    optimizer = adamw(parameter_groups(model, OPTIM.weight_decay), OPTIM)
    x = 0.2 * torch.randn(batch, len(TEN_TWENTY_19), N_PATCHES * PATCH)
    mask = masking.bernoulli((batch, len(TEN_TWENTY_19), N_PATCHES), 0.5)
    codes = torch.randint(0, N_CODES, (2, int(mask.sum())))

    def step() -> None:
        logits = model(x, mask)
        loss_of(logits, codes).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def heads_step(batch: int) -> Callable[[], None]:
    """Forward, loss and backward of the code heads on features of hidden patches."""
    heads = [torch.nn.Linear(200, N_CODES, bias=False) for _ in range(2)]
    features = torch.randn(batch * len(TEN_TWENTY_19) * N_PATCHES // 2, 200, requires_grad=True)
    codes = torch.randint(0, N_CODES, (2, len(features)))
    return lambda: loss_of([head(features) for head in heads], codes).backward()


def loss_of(logits: Sequence[torch.Tensor], codes: torch.Tensor) -> torch.Tensor:
    return sum(code_loss(guess, code, len(code)) for guess, code in zip(logits, codes, strict=True))


BUILD = {"model": bare_step, "heads": heads_step}


def compare(root: Path, cache: str, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of the loop's step, of the bare step between them, and of what the loop adds."""
    torch.set_num_threads(options.threads)
    tokenizer = DualTokenizer(TokenizerConfig(codebook_start="random")).requires_grad_(False).eval()
    dataset = WindowDataset([root / "store"])
    loop = LoopConfig(
        total_steps=options.steps + 1, batch_size=options.batch, log_every=1, eval_every=1, save_every=1000, trackers=[]
    )
    config = Stage2Config(data=[], tokenizer="", run_dir=str(root / cache), token_cache=cache, optim=OPTIM, loop=loop)
    run = launch.start(config.run_dir, loop, config)
    if cache == "on":
        dataset = dataset.with_codes(ensure_codes(dataset.stores, tokenizer, run.accelerator, batch_size=4, name="R1"))
    task, model, bare = Stage2(config, run, tokenizer, dataset), build(), bare_step(options.batch)
    seconds: dict[str, list[float]] = {"bare": [], "work": [0.0]}

    def evaluate(_: torch.nn.Module) -> dict[str, float]:
        done = seconds["work"][-1]
        with torch.enable_grad():
            seconds["bare"].append(measure.timed(bare)[1])
        # The bare step's update is no work of the loop's.
        seconds["work"][-1:] = [done, 0.0]
        return {"valid/loss": 0.0}

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result, spent = measure.timed(function, *arguments, **named)
            seconds["work"][-1] += spent
            return result

        return call

    run.accelerator.backward = counted(run.accelerator.backward)
    run.accelerator.clip_grad_norm_ = counted(run.accelerator.clip_grad_norm_)
    groups, step = parameter_groups(model, OPTIM.weight_decay), torch.optim.AdamW.step
    torch.optim.AdamW.step = counted(step)
    fit(run, model=model, groups=groups, loss_fn=counted(task.loss), evaluate=evaluate, train=dataset, optim=OPTIM)
    torch.optim.AdamW.step = step
    steps = [line["time/seconds_per_step"] for line in read_metrics(run.path) if "time/seconds_per_step" in line][1:]
    work = seconds["work"][2 : 2 + len(steps)]
    return {
        "loop": statistics.median(steps),
        "bare": statistics.median(seconds["bare"][1:-1]),
        "own_share": statistics.median(1 - spent / whole for spent, whole in zip(work, steps, strict=True)),
    }


def peak_gb(name: str, options: argparse.Namespace) -> float:
    torch.set_num_threads(options.threads)
    step = BUILD[name](options.memory_batch)
    measure.forget_peak()
    before = measure.memory_gb("VmHWM")
    step()
    step()
    return measure.memory_gb("VmHWM") - before


def table(report: dict[str, Any]) -> str:
    lines = [
        f"| tokens, batches of {report['batch']} | loop, s | bare, s | loop / bare | loop's own share |",
        "|---|---|---|---|---|",
    ]
    for cache, row in report["steps"].items():
        name = "from the cache" if cache == "on" else "computed at every step"
        lines.append(
            f"| {name} | {row['loop']:.3f} | {row['bare']:.3f} | {row['loop'] / row['bare']:.3f} | "
            f"{row['own_share']:.1%} |"
        )
    peak = report["peak_gb"]
    lines += ["", f"peak of a step of {report['memory_batch']} windows: {peak['model']:.2f} GB, "]
    lines[-1] += f"of the heads and their loss alone {peak['heads']:.2f} GB"
    return "\n".join(lines)


if __name__ == "__main__":
    main()
