r"""Stage 2: train EEGSSM to name the codes of hidden patches, in both vocabularies.

accelerate launch pretrain/stage2.py --config pretrain/configs/stage2/base.yaml \
    --data STORE --tokenizer RUN1 --run_dir RUN2
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from codebrain import masking, prediction
from codebrain.backbone import BackboneConfig
from codebrain.channels import canonical_name
from codebrain.config import command, parse
from codebrain.data.subjects import SplitConfig
from codebrain.data.windows import Batch, WindowDataset
from codebrain.model import MaskedTokenModel
from codebrain.model_card import FIGURES
from codebrain.patches import patchify, to_model_units
from codebrain.training import figures, launch
from codebrain.training.launch import LoopConfig, Run
from codebrain.training.loop import FitResult, fit
from codebrain.training.optim import OptimConfig, parameter_groups
from codebrain.training.sampling import eval_batches
from tokenizer import DualTokenizer
from tokenizer.cache import ensure_codes, fingerprint, require_writable
from tokenizer.corpus import open_corpus, preparations
from tokenizer.quality import BANDS_HZ


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which patches the model must name."""

    kind: Literal["bernoulli", "exact", "blocks"] = "bernoulli"
    """bernoulli: each patch by itself, as published; exact: the same number in every window; blocks: rectangles of
    neighbouring channels and patches."""
    ratio: float = 0.5
    """Share of the patches that are hidden."""
    block: tuple[int, int] = (4, 4)
    """Size of a block: (channels, patches)."""
    symmetric: bool = False
    """Whether each window is also shown with the other patches hidden (LaBraM)."""
    visible_weight: float = 0.0
    """Weight in the loss of the codes of visible patches. With 0, as published, nothing asks the features of a visible
    patch, and a classifier sees no others, to say what the patch holds: with little data they say less of it."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f"--mask.ratio is {self.ratio}; it must lie between 0 and 1")
        if self.visible_weight < 0:
            raise ValueError(f"--mask.visible_weight is {self.visible_weight}; it cannot be negative")
        if min(self.block) < 1:
            raise ValueError(f"--mask.block is {self.block[0]} {self.block[1]}; both sizes must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Stage2Config:
    """Everything a stage-2 run depends on."""

    data: list[str]
    """Corpus stores that codebrain-prep wrote."""
    tokenizer: str
    """Stage-1 run folder, export folder or Hub id."""
    run_dir: str
    """Folder of the run; launching again with the same one takes the run up."""
    token_cache: Literal["on", "off"] = "on"
    """on: compute the store's codes once and read them afterwards; off: run the tokenizer at every step."""
    mask: MaskConfig = MaskConfig()
    """Which patches are hidden."""
    model: BackboneConfig = BackboneConfig()
    """Sizes of the backbone."""
    split: SplitConfig = SplitConfig()
    """Subjects held out to validate on."""
    optim: OptimConfig = OptimConfig(lr=5e-4, weight_decay=5e-3, warmup_steps=500, grad_clip=5.0)
    """Optimizer and schedule."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(total_steps=100_000))
    """Length and bookkeeping of the run."""


_PANELS = [
    figures.Panel("loss", "cross-entropy of both codes (nats)"),
    *(
        panel
        for suffix, name in (("t", "temporal"), ("f", "frequency"))
        for panel in (
            figures.Panel(f"bits_{suffix}", f"{name} codes (bits)", f"entropy_{suffix}", "unigram entropy"),
            figures.Panel(
                f"top1_{suffix}", f"{name}: first guess right (share)", f"majority_{suffix}", "most frequent code"
            ),
            figures.Panel(f"top5_{suffix}", f"{name}: in five guesses (share)"),
        )
    ),
]


def main() -> int:
    """Run the command."""
    config = parse(Stage2Config, prog="stage2.py", description=(__doc__ or "").splitlines()[0])
    # Before there is a folder: what cannot start leaves nothing behind.
    tokenizer = _open_tokenizer(config)
    train, valid, summary = open_corpus(config.data, tokenizer.config, config.split)
    if config.token_cache == "on":
        require_writable(train.stores, tokenizer)
    run = launch.start(config.run_dir, config.loop, config, changeable=("data", "tokenizer"))
    stores = {str(store.path): store.fingerprint() for store in train.stores}
    run.keep_to({"data": stores, "tokenizer": {config.tokenizer: fingerprint(tokenizer)}})
    if run.summary is not None:
        run.say(f"{run.path} is finished: {run.export}")
        return 0
    run.say(summary)
    tokenizer.to(run.device)
    if config.token_cache == "on":
        batch_size = config.loop.eval_batch_size or config.loop.batch_size
        codes = ensure_codes(train.stores, tokenizer, run.accelerator, batch_size=batch_size, name=config.tokenizer)
        train, valid = train.with_codes(codes), valid.with_codes(codes)
    n_codes = (tokenizer.config.n_codes_t, tokenizer.config.n_codes_f)
    model = MaskedTokenModel(*n_codes, **dataclasses.asdict(config.model)).to(run.device)
    task = Stage2(config, run, tokenizer, valid)
    result = fit(
        run,
        model=model,
        groups=parameter_groups(model, config.optim.weight_decay),
        loss_fn=task.loss,
        evaluate=task.evaluate,
        train=train,
        optim=config.optim,
    )
    tally = task.validated or task.tally(model)
    if run.is_main:
        model.record = task.record(train, result)
        model.save_pretrained(run.export)
        figures.curves(run.path, _PANELS)
        figures.accuracy_by_electrode(run.path, tally.electrodes.names, *tally.electrodes.accuracy())
        figures.accuracy_by_band(run.path, BANDS_HZ, *tally.bands.accuracy())
    run.finish(dataclasses.asdict(result))
    run.say(_report(result.last, run, len(valid.subject_names)))
    return 0


def _open_tokenizer(config: Stage2Config) -> DualTokenizer:
    """The frozen tokenizer, checked against the sizes of the backbone."""
    tokenizer = DualTokenizer.from_pretrained(config.tokenizer).requires_grad_(False).eval()
    if config.model.patch_size != tokenizer.config.patch_size:
        raise ValueError(
            f"the tokenizer's codes stand for patches of {tokenizer.config.patch_size} samples, --model.patch_size is "
            f"{config.model.patch_size}; the two must be equal."
        )
    return tokenizer


@dataclass
class Tally:
    """Sums over hidden patches of held-out windows."""

    t: prediction.CodeTally
    f: prediction.CodeTally
    electrodes: prediction.GroupTally
    bands: prediction.GroupTally
    """By the band that stands out in the patch."""


class Stage2:
    """Loss and validation of masked code prediction."""

    def __init__(self, config: Stage2Config, run: Run, tokenizer: DualTokenizer, valid: WindowDataset) -> None:
        self.config, self.run, self.tokenizer, self.valid = config, run, tokenizer, valid
        self.validated: Tally | None = None
        """Sums of the last validation; None in a run that was taken up at its end."""

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Cross-entropy of both codes over hidden patches and, weighted, over visible ones.

        The mask is drawn for all windows of the step, wherever they are computed, and the sums are divided by the
        patches of all of them: so a batch in parts gives the gradient of the whole.
        """
        codes_t, codes_f = self._codes(batch)
        whole = self._mask((batch.global_size, *codes_t.shape[1:]), generator)
        mask = whole[batch.offset : batch.offset + len(batch)].to(batch.x.device)
        # The loop averages over the parts of a step.
        n_hidden = int(whole.sum()) * len(batch) / batch.global_size
        x = to_model_units(batch.x)
        if self.config.mask.symmetric:
            x, mask = torch.cat([x, x]), torch.cat([mask, ~mask])
            codes_t, codes_f = torch.cat([codes_t, codes_t]), torch.cat([codes_f, codes_f])
            n_hidden = codes_t[: len(batch)].numel()
        weight = self.config.mask.visible_weight
        everywhere = weight > 0
        pairs = list(zip(model(x, mask, everywhere=everywhere), (codes_t, codes_f), strict=True))
        loss_t, loss_f = (
            prediction.code_loss(logits[mask] if everywhere else logits, codes[mask], n_hidden)
            for logits, codes in pairs
        )
        if not everywhere:
            return loss_t + loss_f, {"loss_t": loss_t, "loss_f": loss_f}
        n_visible = mask.numel() - n_hidden
        visible = sum(prediction.code_loss(logits[~mask], codes[~mask], n_visible) for logits, codes in pairs)
        scalars = {"loss_t": loss_t, "loss_f": loss_f, "loss_visible": visible}
        return loss_t + loss_f + weight * visible, scalars

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out subjects, the same masks at every validation. Collective."""
        self.validated = tally = self.tally(model)
        found = {**tally.t.figures("t"), **tally.f.figures("f")}
        for suffix, shares in zip("tf", tally.bands.accuracy(), strict=True):
            named = zip(BANDS_HZ, shares, strict=True)
            found |= {f"top1_{suffix}_{band}": share for band, share in named if not math.isnan(share)}
        nats = (found["bits_t"] + found["bits_f"]) * math.log(2)
        return {"valid/loss": nats, **{f"valid/{name}": value for name, value in found.items()}}

    def tally(self, model: nn.Module) -> Tally:
        """Every sum over the hidden patches of held-out subjects. Collective; the model is left in evaluation mode."""
        device, sizes = self.run.device, self.tokenizer.config
        # One electrode under one name: stores may call it T3 or T7. Bipolar pairs keep theirs.
        names = {name: canonical_name(name) or name for montage in self.valid.montages for name in montage.ch_names}
        electrodes = list(dict.fromkeys(names.values()))
        tally = Tally(
            prediction.CodeTally(sizes.n_codes_t, device),
            prediction.CodeTally(sizes.n_codes_f, device),
            prediction.GroupTally(electrodes, device),
            prediction.GroupTally(list(BANDS_HZ), device),
        )
        row = {name: electrodes.index(electrode) for name, electrode in names.items()}
        model.eval()
        with torch.no_grad(), self.run.accelerator.autocast():
            for batch, mask, (logits_t, logits_f) in self._predictions(model):
                codes_t, codes_f = self._codes(batch)
                right = tally.t.add(logits_t, codes_t[mask]), tally.f.add(logits_f, codes_f[mask])
                electrode = torch.tensor([row[name] for name in batch.ch_names], device=device)
                tally.electrodes.add(electrode[None, :, None].expand(mask.shape)[mask], *right)
                patches = patchify(batch.x, sizes.patch_size)[mask]
                tally.bands.add(prediction.prominent_band(patches, sizes.sfreq, list(BANDS_HZ.values())), *right)
        if self.run.world > 1:
            for part in (tally.t, tally.f, tally.electrodes, tally.bands):
                part.sums = self.run.accelerator.reduce(part.sums, reduction="sum")
        return tally

    def record(self, train: WindowDataset, result: FitResult) -> dict[str, Any]:
        """What the model says of this run."""
        return {
            "steps": result.final_step,
            "windows": len(train),
            "subjects": len(train.subject_names),
            "held_out_subjects": len(self.valid.subject_names),
            "held_out": {name: result.last[f"valid/{name}"] for name in FIGURES},
            "stores": preparations(train.stores),
        }

    def _predictions(self, model: nn.Module) -> Any:
        loop, generator = self.config.loop, torch.Generator()
        size = loop.eval_batch_size or loop.batch_size
        batches = eval_batches(self.valid, size, rank=self.run.rank, world=self.run.world, shown_as="validation")
        for batch in (batch.to(self.run.device) for batch in batches):
            # The mask belongs to the windows, whichever process validates them.
            generator.manual_seed(int(batch.window[0]))
            n_patches = batch.x.shape[-1] // self.config.model.patch_size
            mask = self._mask((len(batch), len(batch.ch_names), n_patches), generator).to(batch.x.device)
            yield batch, mask, model(to_model_units(batch.x), mask)

    def _mask(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        config = self.config.mask
        if config.kind == "blocks":
            block = (min(config.block[0], shape[1]), min(config.block[1], shape[2]))
            return masking.blocks(shape, config.ratio, block, generator)
        draw = masking.exact if config.kind == "exact" else masking.bernoulli
        return draw(shape, config.ratio, generator)

    def _codes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if batch.codes_t is not None and batch.codes_f is not None:
            return batch.codes_t, batch.codes_f
        codes = self.tokenizer.encode(batch.x, batch.ch_names, prepared=True)
        return codes.t, codes.f


def _report(figures_: dict[str, float], run: Run, n_subjects: int) -> str:
    lines = [f"backbone: {run.export}", "held-out subjects   bits   unigram entropy   top-1   most frequent code"]
    for suffix, name in (("t", "temporal"), ("f", "frequency")):
        value = {key: figures_[f"valid/{key}_{suffix}"] for key in ("bits", "entropy", "top1", "majority")}
        lines.append(
            f"{name:<18}{value['bits']:>6.2f}{value['entropy']:>18.2f}{value['top1']:>8.1%}{value['majority']:>21.1%}"
        )
    who = f"{n_subjects} held-out subject{'s' * (n_subjects > 1)}"
    lines.append(f"(over the windows of {who}; how much other subjects differ is not measured)")
    return "\n".join(lines)


if __name__ == "__main__":
    command(main)
