"""Stage 1: train the tokenizer, an encoder with two codebooks and two decoders.

accelerate launch pretrain/stage1.py --config pretrain/configs/stage1/base.yaml --data STORE --run_dir RUN1
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codebrain.config import command, parse
from codebrain.data.subjects import SplitConfig
from codebrain.data.windows import Batch, Ids, WindowDataset
from codebrain.training import launch
from codebrain.training.figures import Panel, curves
from codebrain.training.launch import LoopConfig, Run
from codebrain.training.logging import read_metrics
from codebrain.training.loop import fit
from codebrain.training.optim import OptimConfig, parameter_groups
from codebrain.training.sampling import eval_batches
from tokenizer.config import TokenizerConfig
from tokenizer.corpus import open_corpus, preparations
from tokenizer.figures import CodeAtlas, draw_reconstructions, draw_usage
from tokenizer.losses import TERMS, LossConfig, stage1_loss
from tokenizer.model import DualTokenizer
from tokenizer.quality import BANDS_HZ, QualityTally
from tokenizer.quantizer import all_reduce
from tokenizer.usage import CollapseConfig, CollapseWatch, usage

CENTRING_WINDOWS = 64  # training windows whose mean spectrum is the origin of amplitudes
PICTURED_WINDOWS = 2000  # held-out windows that the pictures are drawn from, at most
WATCHED = {"codes_reached_t": "temporal", "codes_reached_f": "frequency"}
PANELS = [
    Panel("loss", "loss"),
    Panel("waveform_ev", "explained variance, waveform"),
    Panel("amplitude_ev", "explained variance, amplitude"),
    Panel("phase_cosine", "cosine of the phase error"),
    Panel("codes_in_use_t", "temporal codes in use, share", limits=(0.0, 1.02)),
    Panel("perplexity_t", "temporal perplexity, codes"),
    Panel("codes_in_use_f", "frequency codes in use, share", limits=(0.0, 1.02)),
    Panel("perplexity_f", "frequency perplexity, codes"),
    *(Panel(f"waveform_ev_{band}", f"explained power, {band}") for band in BANDS_HZ),
    Panel("loss_contrastive", "NT-Xent, nats"),
]


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """How a new tokenizer starts."""

    centre: bool = True
    """Whether amplitudes are read, and predicted at the start, around the mean spectrum of some training windows."""
    share: float = 0.1
    """Share of the run's optimizer updates that encoder and decoders train without quantisation before k-means; at
    least one update. This and what follows hold where `model.codebook_start` is kmeans."""
    noise: bool = True
    """Whether noise that leaves a vector as many bits as a code has stands in for quantisation during that share."""
    vectors_per_code: int = 16
    """Patches per code that k-means sees."""
    iterations: int = 10
    """k-means iterations."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(
                f"start.share={self.share} must be the share of the run before the codebooks start: 0 to below 1"
            )
        if self.vectors_per_code < 1:
            raise ValueError(f"start.vectors_per_code={self.vectors_per_code} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Stage1Config:
    """Everything a stage-1 run depends on."""

    data: list[str]
    """Corpus stores that codebrain-prep wrote."""
    run_dir: str
    """Folder of the run; launching again with the same one takes the run up."""
    model: TokenizerConfig = TokenizerConfig()
    """Sizes of the tokenizer and what it restores."""
    losses: LossConfig = LossConfig()
    """Weights of the loss terms."""
    start: StartConfig = StartConfig()
    """How the codebooks and the decoders start."""
    collapse: CollapseConfig = CollapseConfig()
    """When a codebook counts as collapsed, and whether that ends the run."""
    split: SplitConfig = SplitConfig()
    """Subjects held out to validate on."""
    optim: OptimConfig = OptimConfig(lr=1e-3, min_lr=1e-5, weight_decay=1e-2, warmup_steps=200, grad_clip=3.0)
    """Optimizer and schedule."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(total_steps=100_000))
    """Length and bookkeeping of the run."""


def main() -> int:
    """Run the command."""
    config = parse(Stage1Config, prog="stage1.py", description=(__doc__ or "").splitlines()[0])
    # Before there is a folder: what cannot start leaves nothing behind.
    train, valid, summary = open_corpus(config.data, config.model, config.split)
    require_patches(config.model, train)
    run = launch.start(config.run_dir, config.loop, config, changeable=("data",))
    run.keep_to({"data": {str(store.path): store.fingerprint() for store in train.stores}})
    if run.summary is not None:
        run.say(f"{run.path} is finished: {run.export}")
        return 0
    run.say(summary)
    model = DualTokenizer(config.model).to(run.device)
    task = Stage1(config, run, model, train, valid)
    task.centre()
    result = fit(
        run,
        model=model,
        groups=parameter_groups(model, config.optim.weight_decay),
        loss_fn=task.loss,
        evaluate=task.evaluate,
        after_update=task.after_update,
        train=train,
        optim=config.optim,
    )
    if run.is_main:
        model.record = task.record(result.final_step, result.last)
        model.save_pretrained(run.export)
        task.draw(model)
    run.finish(dataclasses.asdict(result))
    run.say(_report(result.last, run, len(valid.subject_names)))
    return 0


class Stage1:
    """Loss, codebook updates, validation and pictures of a tokenizer's training."""

    def __init__(
        self, config: Stage1Config, run: Run, model: DualTokenizer, train: WindowDataset, valid: WindowDataset
    ) -> None:
        self.config, self.run, self.model, self.train, self.valid = config, run, model, train, valid
        self.watch: CollapseWatch | None = None
        self.first_quantised = max(1, round(config.start.share * config.loop.total_steps))

    def centre(self) -> None:
        """Give the model a mean spectrum, the same on every process; a checkpoint overrides it."""
        if self.config.start.centre:
            drawn = self._draw(CENTRING_WINDOWS, torch.Generator().manual_seed(self.config.loop.seed))
            self.model.centre(batch.x for batch in self._batches(self.train.subset(drawn)))

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Weighted sum of the terms. Collective: the contrastive term sees the micro-batches of all processes."""
        output = model(batch.x, batch.ch_names, self._noise(batch, generator))
        targets = self.model.targets(batch.x)
        loss, terms = stage1_loss(output, targets, self.config.losses)
        tally = QualityTally(self.config.model)
        tally.add(output.reconstruction, targets, batch.x)
        return loss, {**{f"loss_{name}": term for name, term in terms.items()}, **tally.figures()}

    def after_update(self, step: int, generator: torch.Generator) -> dict[str, float]:
        """Start the codebooks when it is time, move them after that, and log their use. Collective."""
        loop, done = self.config.loop, step + 1
        if self.watch is None:
            # Not before the first update: all processes have the checkpoint then, and none has written a line since.
            self.watch = self._watch()
        average_norms(self.model, self.run.world)
        revived = self.model.update_codebooks(generator)
        if not self.model.started and done >= self.first_quantised:
            self._start_codebooks(generator)
        if done % loop.log_every == 0 or done == loop.total_steps:
            self._log_usage(done)
        return revived

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Losses, code usage and restoration on held-out subjects. Collective."""
        tally, n_windows = QualityTally(self.config.model), 0
        # Starts at zero, not at the first batch: with few windows a process may have none, yet all add up together.
        terms = {
            name: torch.zeros((), device=self.run.device) for name in ("loss", *(f"loss_{term}" for term in TERMS))
        }
        hits = [torch.zeros(book.codebook_size, device=self.run.device) for book in self.model.quantizers().values()]
        for batch in self._batches(self.valid, self.run.rank, self.run.world, shown_as="validation"):
            output, targets = model(batch.x, batch.ch_names), self.model.targets(batch.x)
            # Processes may hold different numbers of windows: none waits for another's contrastive term here.
            loss, found = stage1_loss(output, targets, self.config.losses, across_processes=False)
            for name, term in {"loss": loss, **{f"loss_{name}": term for name, term in found.items()}}.items():
                terms[name] += term * len(batch)
            tally.add(output.reconstruction, targets, batch.x)
            n_windows += len(batch)
            if output.codes is not None:
                for counts, codes in zip(hits, (output.codes.t, output.codes.f), strict=True):
                    counts.add_(torch.bincount(codes.flatten(), minlength=len(counts)))
        tally.sums, *hits = self._total(tally.sums, *hits)
        losses = self._mean_over_windows(terms, n_windows)
        quality = {name: float(value) for name, value in tally.figures().items()}
        return {f"valid/{name}": value for name, value in {**losses, **_usage(hits), **quality}.items()}

    def record(self, steps: int, held_out: dict[str, float]) -> dict[str, Any]:
        """What the model card says of this run."""
        return {
            "steps": steps,
            "windows": len(self.train),
            "subjects": len(self.train.subject_names),
            "held_out_subjects": len(self.valid.subject_names),
            "held_out": {name.removeprefix("valid/"): value for name, value in held_out.items()},
            "stores": preparations(self.train.stores),
        }

    def draw(self, model: DualTokenizer) -> None:
        """Write the run's pictures, from held-out windows; on the main process only."""
        model.eval()
        ids = self.valid.ids()
        some = self.valid.subset(ids[:: max(1, len(ids) // PICTURED_WINDOWS)])
        atlas, first = CodeAtlas(model), None
        for batch in self._batches(some):
            first = first or batch
            atlas.add(batch.x, model.encode(batch.x, batch.ch_names, prepared=True))
        atlas.draw(self.run.figures)
        draw_usage(atlas.hits, self.run.figures / "usage.png")
        if first is not None:
            draw_reconstructions(model, first.x, first.ch_names, self.run.figures / "reconstructions.png")
        start = {self.first_quantised: "codes start"} if self.config.model.codebook_start == "kmeans" else {}
        curves(self.run.path, PANELS, marks=start)

    def _noise(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """What stands in for quantisation; drawn for all windows of the step, wherever they are computed."""
        if self.model.started or not self.config.start.noise:
            return None
        n_patches = batch.x.shape[-1] // self.config.model.patch_size
        shape = (batch.global_size, len(batch.ch_names), n_patches, 2 * self.config.model.code_dim)
        whole = torch.randn(shape, generator=generator)
        return whole[batch.offset : batch.offset + len(batch)].to(batch.x.device)

    def _start_codebooks(self, generator: torch.Generator) -> None:
        """k-means over patches of training windows drawn from all montages; each process encodes its share."""
        start, sizes, loop = self.config.start, self.config.model, self.config.loop
        tokens_per_window = count_patches(self.train, sizes.patch_size) / len(self.train)
        n_windows = math.ceil(start.vectors_per_code * max(sizes.n_codes_t, sizes.n_codes_f) / tokens_per_window)
        drawn = self._draw(max(n_windows, self.run.world), generator)
        mine = np.array_split(drawn, self.run.world)[self.run.rank]
        self.model.init_codebooks(
            ((batch.x, batch.ch_names) for batch in self._batches(self.train.subset(mine))),
            generator,
            vectors_per_step=loop.batch_size * loop.accumulation * self.run.world * tokens_per_window,
            n_iters=start.iterations,
        )

    def _draw(self, n: int, generator: torch.Generator) -> Ids:
        """Numbers of `n` training windows (or all, if there are fewer), ascending."""
        ids = self.train.ids()
        return np.sort(ids[torch.randperm(len(ids), generator=generator)[:n].numpy()])

    def _log_usage(self, done: int) -> None:
        if not self.model.started:
            return
        found = _usage([book.book.take_recent_hits() for book in self.model.quantizers().values()])
        self.run.log(done, {f"train/{name}": value for name, value in found.items()})
        assert self.watch is not None, "after_update made it"
        self.watch.look({title: found[name] for name, title in WATCHED.items() if name in found})

    def _watch(self) -> CollapseWatch:
        """A watch that knows the log lines of a run that is taken up."""
        watch = CollapseWatch(self.config.collapse)
        for line in read_metrics(self.run.path):
            watch.recall({title: line[f"train/{name}"] for name, title in WATCHED.items() if f"train/{name}" in line})
        return watch

    def _batches(self, dataset: WindowDataset, rank: int = 0, world: int = 1, shown_as: str = "") -> Iterator[Batch]:
        size = self.config.loop.eval_batch_size or self.config.loop.batch_size
        for batch in eval_batches(dataset, size, rank=rank, world=world, shown_as=shown_as):
            yield batch.to(self.run.device)

    def _mean_over_windows(self, sums: dict[str, Tensor], n_windows: int) -> dict[str, float]:
        n = torch.tensor(n_windows, device=self.run.device)
        (values,) = self._total(torch.stack([*sums.values(), n]).double())
        return {name: float(value / values[-1]) for name, value in zip(sums, values, strict=False)}

    def _total(self, *tensors: Tensor) -> list[Tensor]:
        """Sums over all processes. Collective."""
        moved = [tensor.to(self.run.device) for tensor in tensors]
        all_reduce(*moved)
        return moved


def average_norms(model: nn.Module, n_processes: int) -> None:
    """Give every process the mean of all processes' running statistics of batch norm. Collective.

    Otherwise the one process that writes a checkpoint would write only its own.
    """
    for name, running in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            all_reduce(running)
            running.div_(n_processes)


def count_patches(dataset: WindowDataset, patch_size: int) -> int:
    """Patches in all windows of a dataset."""
    return sum(
        n * len(montage.ch_names) * (montage.n_times // patch_size)
        for n, montage in zip(dataset.group_sizes(), dataset.montages, strict=True)
    )


def require_patches(sizes: TokenizerConfig, train: WindowDataset) -> None:
    """Raise ValueError if k-means, which comes only after part of the run, would find fewer patches than codes."""
    n_patches, n_codes = count_patches(train, sizes.patch_size), max(sizes.n_codes_t, sizes.n_codes_f)
    if sizes.codebook_start == "kmeans" and n_patches < n_codes:
        raise ValueError(
            f"k-means needs at least as many patches as codes: {n_patches} training patches for {n_codes} codes. Give "
            "more data, smaller codebooks (--model.n_codes_t, --model.n_codes_f) or --model.codebook_start random"
        )


def _usage(hits: list[Tensor]) -> dict[str, float]:
    """Usage figures of both codebooks by name."""
    found = {book: usage(counts) for book, counts in zip("tf", hits, strict=True)}
    return {f"{name}_{book}": value for book in found for name, value in found[book].items()}


def _report(figures: dict[str, float], run: Run, n_subjects: int) -> str:
    def held_out(name: str) -> float:
        return figures.get(f"valid/{name}", math.nan)

    lines = [f"tokenizer: {run.export}", "held-out subjects   codes in use   perplexity   explained variance"]
    for book, name, restored in (("t", "temporal", "waveform_ev"), ("f", "frequency", "amplitude_ev")):
        lines.append(
            f"{name:<20}{held_out(f'codes_in_use_{book}'):>12.1%}{held_out(f'perplexity_{book}'):>13.0f}"
            f"{held_out(restored):>12.3f} of the {restored.removesuffix('_ev')}"
        )
    who = f"{n_subjects} held-out subject{'s' * (n_subjects > 1)}"
    lines.append(f"(over the windows of {who}; how much other subjects differ is not measured)")
    return "\n".join([*lines, f"figures: {run.figures}"])


if __name__ == "__main__":
    command(main)
