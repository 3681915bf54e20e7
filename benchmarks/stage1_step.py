"""Time and memory of stage 1 beside the published structure, and of its quantiser beside the library's, in one run.

    python benchmarks/stage1_step.py --output build/stage1_step            # CPU, a quarter of an hour on two cores

A stage-1 step is forward, loss and backward at base sizes (12 layers, width 200, two codebooks of 4096 x 32, windows of
19 x 30 patches), codebook update included; the published structure is benchmarks/naive_tokenizer.py. A quantiser step
is one training forward with its update. Each measurement has a process of its own; rounds of the two sides alternate.
Memory is the growth of the process's peak over what the model and the windows take.
"""

import argparse
import platform
import statistics
from collections.abc import Callable
from typing import Any

import measure
import torch
from naive_tokenizer import NaiveTokenizer
from torch import nn
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize

from codebrain.channels import TEN_TWENTY_19
from tokenizer import DualTokenizer, TokenizerConfig
from tokenizer.losses import LossConfig, stage1_loss
from tokenizer.quantizer import Quantizer

N_PATCHES, PATCH_SIZE = 30, 200
N_CODES, DIM = 4096, 32
Step = Callable[[], object]


def main() -> None:
    options = parse()
    wanted = [("stage-1 step", "batch", size) for size in options.batches]
    wanted += [("quantiser step", "vectors", size) for size in options.vectors]
    machine = {"processor": platform.machine(), "threads": options.threads, "torch": torch.__version__}
    results: list[dict[str, Any]] = []
    for what, unit, size in wanted:
        results.append(compare(what, unit, size, options))
        # After each: what was measured is kept if the next one does not fit the memory or the time.
        measure.write(options.output, {"machine": machine, "results": results})
    print(table(results))


def parse() -> argparse.Namespace:
    parser = measure.parser(__doc__, "stage1_step")
    parser.add_argument("--batches", nargs="*", type=int, default=(8, 32), help="windows of a stage-1 step")
    parser.add_argument("--vectors", nargs="*", type=int, default=(4560, 18240), help="vectors of a quantiser step")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side, alternating")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each process, after one that is not")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def compare(what: str, unit: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure both sides, alternating, each in a process of its own."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        for side, kept in found.items():
            kept.append(measure.in_a_process(cost, what, side, size, options.threads, options.repeats))
    sides = {
        side: {
            "seconds": statistics.median(second for each in kept for second in each["seconds"]),
            "peak_gb": min(each["peak_gb"] for each in kept),
        }
        for side, kept in found.items()
    }
    return {"what": what, "size": f"{unit} {size}", **sides}


def cost(what: str, side: str, size: int, threads: int, repeats: int) -> dict[str, Any]:
    """Seconds of each timed step, and the growth of the peak of this process's memory in GB."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = BUILD[what, side](size)
    measure.forget_peak()
    before = measure.memory_gb("VmHWM")
    step()
    seconds = [measure.timed(step)[1] for _ in range(repeats)]
    return {"seconds": seconds, "peak_gb": measure.memory_gb("VmHWM") - before}


def our_step(batch: int) -> Step:
    model = DualTokenizer(TokenizerConfig(codebook_start="random")).train()
    x_uv = 20 * torch.randn(batch, 19, N_PATCHES * PATCH_SIZE)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        loss, _ = stage1_loss(model(x_uv, TEN_TWENTY_19), model.targets(x_uv), LossConfig(contrast_on="tokens"))
        loss.backward()
        model.zero_grad()
        model.update_codebooks(generator)

    return step


def published_step(batch: int) -> Step:
    model = NaiveTokenizer().train()
    x = 0.2 * torch.randn(batch, 19, N_PATCHES, PATCH_SIZE)

    def step() -> None:
        model(x).backward()
        model.zero_grad()

    return step


def our_quantizer(n: int) -> Step:
    quantizer = Quantizer(dim=DIM, n_codes=N_CODES, decay=0.99).train()
    generator = torch.Generator().manual_seed(0)
    return quantizer_step(quantizer, vectors(n), lambda: quantizer.book.update(generator, 0.15))


def library_quantizer(n: int) -> Step:
    quantizer = VectorQuantize(
        dim=DIM,
        codebook_size=N_CODES,
        decay=0.99,
        use_cosine_sim=True,
        rotation_trick=False,
        threshold_ema_dead_code=0.15 * n / N_CODES,
        sync_codebook=False,
    ).train()
    return quantizer_step(quantizer, vectors(n)[None], lambda: None)


def quantizer_step(quantizer: nn.Module, x: torch.Tensor, update: Step) -> Step:
    def step() -> None:
        quantized, _, commitment = quantizer(x)
        (quantized.sum() + commitment.sum()).backward()
        update()

    return step


def vectors(n: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, DIM), dim=-1).requires_grad_()


BUILD: dict[tuple[str, str], Callable[[int], Step]] = {
    ("stage-1 step", "ours"): our_step,
    ("stage-1 step", "theirs"): published_step,
    ("quantiser step", "ours"): our_quantizer,
    ("quantiser step", "theirs"): library_quantizer,
}


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| what | size | ours, s | theirs, s | times faster | ours, peak GB | theirs, peak GB | share of memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results:
        ours, theirs = row["ours"], row["theirs"]
        lines.append(
            f"| {row['what']} | {row['size']} | {ours['seconds']:.3f} | {theirs['seconds']:.3f} | "
            f"{theirs['seconds'] / ours['seconds']:.2f} | {ours['peak_gb']:.2f} | {theirs['peak_gb']:.2f} | "
            f"{ours['peak_gb'] / theirs['peak_gb']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
