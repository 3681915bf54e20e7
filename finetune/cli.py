"""codebrain-finetune: train a classifier on a task store, judge it, write the report.

check everything -> splits -> trials (fold x seed; also on an untrained backbone, if asked) -> baselines -> report

RUN/  config.yaml  splits.json  seed-0/ (or fold-0/seed-0/)  export/  report.json  report.md  predictions.csv  figures/
      summary.json
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from codebrain.backbone import EEGSSM
from codebrain.config import command, parse
from codebrain.training.launch import LoopConfig, Run, start
from codebrain.training.sampling import eval_batches
from codebrain.weights import fingerprint, read_state_dict
from finetune import (
    answers,
    baselines,
    classifier,
    figures,
    manifest,
    markdown,
    provenance,
    recipes,
    report,
    sequences,
    splits,
)
from finetune.card import model_card
from finetune.classifier import Classifier, backbone_features, fresh_backbone, load_backbone
from finetune.config import FOLD, FROM_SCRATCH, FinetuneConfig
from finetune.data import Data, open_data
from finetune.heads import Head, shrink
from finetune.markdown import MAIN
from finetune.predict import FrozenFeatures
from finetune.report import Arms
from finetune.splits import Fold, Splits
from finetune.task import Task
from finetune.trial import HEAD_FILE, Result, Trial, head_config, micro_batches

UNTRAINED = "untrained"
_CHANGEABLE = ("data", "ckpt", "seeds", "baseline", "n_bootstrap", "training.num_workers")
"""What may change when a run is launched again: where store and checkpoint lie (what they are is noted and compared),
and what adds trials to those that are there, or changes none."""

FEATURE_BATCH = 64
FEATURE_MAP_WINDOWS = 2000
"""Windows in the picture of the features."""
_FEWEST_POINTS = 3
"""Windows of which such a picture can be made."""


def main() -> None:
    """Entry point of the console script."""
    command(run_command)


def run_command(argv: list[str] | None = None) -> int:
    """Do what the command line asks; 0 when done."""
    config = _configured(sys.argv[1:] if argv is None else argv)
    baselines.require(config.baseline)
    data = open_data(config.data)
    if config.recipe is not None:
        recipes.check(config.recipe, data.task)
    made = _planned(config, data)
    # Before there is a folder: a damaged file of weights leaves nothing behind.
    pretrained = _checked_backbones(config, data, len(made.folds))
    for number, fold in enumerate(made.folds):
        where = f" in fold {number}" if len(made.folds) > 1 else ""
        provenance.require_unseen_labels(_ckpt(config, number), data, fold, where)
    note = ""
    if config.head == "sequence":
        note = sequences.require(data.dataset, made, config.training.sequence_length, data.task.class_names)
    # Only what concerns the whole run; every trial has a loop of its own.
    loop = LoopConfig(total_steps=1, seed=config.seeds[0], mixed_precision=config.training.mixed_precision)
    run = start(config.run_dir, loop, config, changeable=_CHANGEABLE)
    asked = {"seeds": config.seeds, "baseline": config.baseline, "n_bootstrap": config.n_bootstrap}
    micro_batches(config.training.batch_size, config.training.micro_batch, run.world)
    run.keep_to({"ckpt": _fingerprints(config, pretrained, len(made.folds))})
    run.on_main(lambda: _confirm(run, config, made, data))
    if run.summary is not None and run.summary["asked"] == asked:
        run.say(f"{run.path} is finished; its report is {run.path / 'report.md'}")
        run.part()
        return 0
    _announce(run, config, data, made, note)
    results = {name: list(_trials(run, config, data, made, name, pretrained)) for name in _network_arms(config)}
    if run.part():
        exported = _conclude(run, config, data, made, results, note, pretrained)
        run.mark_finished({"report": "report.md", "asked": asked, "exported_fold": exported.fold})
    return 0


def _configured(argv: list[str]) -> FinetuneConfig:
    """What the command line asks for; a recipe, wherever it is named, comes before all else."""
    recipe = recipes.named(argv)
    before = [] if recipe is None else recipes.flags(recipe)
    said = "Train a classifier on a task store and judge it."
    return parse(FinetuneConfig, [*before, *argv], prog="codebrain-finetune", description=said)


def _planned(config: FinetuneConfig, data: Data) -> Splits:
    """The splits that the configuration asks for."""
    if config.splits is None:
        return splits.make(data.windows, config.split)
    return manifest.from_manifest(manifest.read_manifest(Path(config.splits)), data.windows, data.store.fingerprint())


def _checked_backbones(config: FinetuneConfig, data: Data, n_folds: int) -> Callable[[int], EEGSSM]:
    """What gives the backbone that a fold starts from, the same for all or each its own; every one was tried.

    One is held at a time: a hundred folds may have a hundred.
    """

    @lru_cache(maxsize=1)
    def load(ckpt: str) -> EEGSSM:
        return load_backbone(ckpt, config.backbone)

    def of_fold(number: int) -> EEGSSM:
        return load(_ckpt(config, number))

    for number in range(n_folds if FOLD in config.ckpt else 1):
        sizes = of_fold(number).config
        data.store.require(sfreq=sizes.patch_size)  # a patch is one second
        head_config(config, data, sizes)
    return of_fold


def _ckpt(config: FinetuneConfig, number: int) -> str:
    """The checkpoint that a fold starts from."""
    return config.ckpt.replace(FOLD, str(number))


def _fingerprints(config: FinetuneConfig, pretrained: Callable[[int], EEGSSM], n_folds: int) -> dict[str, str]:
    """What the checkpoints are, wherever they lie; nothing of random weights, which a seed makes."""
    if config.ckpt == FROM_SCRATCH:
        return {}
    numbers = range(n_folds if FOLD in config.ckpt else 1)
    return {_ckpt(config, number): fingerprint(model := pretrained(number), model.config) for number in numbers}


def _confirm(run: Run, config: FinetuneConfig, made: Splits, data: Data) -> None:
    """Check the splits for leakage and write their manifest; once something was trained, they must stay the same."""
    path = run.path / "splits.json"
    if path.exists():
        if manifest.same(manifest.read_manifest(path), made, data.store.fingerprint()):
            return
        if run.was_trained:
            raise ValueError(
                f"{data.store.path} or the splits have changed since {run.path} was started. Give another --run_dir."
            )
    hashes = manifest.content_hashes(data.store)
    manifest.check_duplicates(made, hashes, data.dataset.describe)
    found = manifest.to_manifest(made, data.windows, hashes, data.store.fingerprint())
    if config.splits is not None:
        manifest.check_hashes(manifest.read_manifest(Path(config.splits)), found)
    manifest.write_manifest(path, found)


def _announce(run: Run, config: FinetuneConfig, data: Data, made: Splits, note: str) -> None:
    run.say(
        f"{data.task.title}: {len(data.dataset)} windows of {data.dataset.montages[0]}, "
        f"{len(data.dataset.subject_names)} subjects; {made.kind} split with {len(made.folds)} fold(s), "
        f"{len(config.seeds)} seed(s)" + (f"\n{note}" if note else "")
    )
    if other := provenance.prepared_otherwise(_ckpt(config, 0), data):
        run.say(f"NOTE: {other}.")
    if not len(made.folds[0].test):
        run.say("WARNING: this split has no test windows. Figures will be on validation, where weights are selected.")


# --- trials --------------------------------------------------------------------------------------------------------


def _network_arms(config: FinetuneConfig) -> list[str]:
    return [MAIN, *([UNTRAINED] if UNTRAINED in config.baseline else [])]


def _trials(
    run: Run, config: FinetuneConfig, data: Data, made: Splits, arm: str, pretrained: Callable[[int], EEGSSM]
) -> Iterator[Result]:
    """Every fold and seed of an arm. Collective."""
    random = arm == UNTRAINED or config.ckpt == FROM_SCRATCH

    def backbone(number: int, seed: int) -> EEGSSM:
        return _start(pretrained(number), seed, random=random)

    held: dict[tuple[int, int], FrozenFeatures] = {}

    def frozen(number: int, seed: int) -> FrozenFeatures:
        # A random backbone is the same for all folds, a pre-trained one for all seeds.
        key = (0, seed) if random else (number if FOLD in config.ckpt else 0, config.seeds[0])
        if key not in held:
            held.clear()  # trials that share features come one after another, and those of one may be large
            held[key] = FrozenFeatures(run, backbone(*key), data.dataset, FEATURE_BATCH, shrink(config.head))
        return held[key]

    by_fold = itertools.product(range(len(made.folds)), config.seeds)
    by_seed = ((number, seed) for seed in config.seeds for number in range(len(made.folds)))
    for number, seed in by_seed if random else by_fold:
        fold = made.folds[number]
        name = f"seed-{seed}" if len(made.folds) == 1 else f"fold-{number}/seed-{seed}"
        trial = Trial(
            run=run,
            config=config,
            data=data,
            fold=fold,
            number=number,
            seed=seed,
            name=name if arm == MAIN else f"{arm}/{name}",
            backbone=partial(backbone, number),
            frozen=partial(frozen, number),
        )
        result = trial.execute()
        figure = f"valid_{data.task.selection}"
        run.say(f"{trial.name}: {figure} {result.facts[figure]:.3f} at step {result.facts['best_step']}")
        yield result


def _start(like: EEGSSM, seed: int, *, random: bool) -> EEGSSM:
    """The backbone that a trial starts from: a copy, or one of the same sizes with the random weights of a seed."""
    torch.manual_seed(seed)
    return fresh_backbone(like) if random else copy.deepcopy(like)


# --- conclusion ----------------------------------------------------------------------------------------------------


def _conclude(
    run: Run,
    config: FinetuneConfig,
    data: Data,
    made: Splits,
    results: dict[str, list[Result]],
    note: str,
    pretrained: Callable[[int], EEGSSM],
) -> Result:
    """Baselines, report, pictures, export; on the main process. Returns the trial whose model is exported."""
    for name in config.baseline:
        if name != UNTRAINED:
            results[name] = baselines.execute(run, name, data, made, config.training.class_weights)
    arms = Arms(data.task, results)
    facts = {"store": {"path": config.data, "fingerprint": data.store.fingerprint()}, "processes": run.world}
    facts |= {"sequences": note} if note else {}
    seen = [provenance.seen_in_pretraining(_ckpt(config, number), data, fold) for number, fold in enumerate(made.folds)]
    facts["pretraining"] = provenance.total(seen)
    facts["prepared_otherwise"] = provenance.prepared_otherwise(_ckpt(config, 0), data)
    content = report.build(config, arms, made, data.windows, facts)
    report.write(run.path, content)
    answers.write(run.path / "predictions.csv", arms, data.dataset)
    best = _best(results[MAIN], data.task)
    _export(run, config, data, best, pretrained)
    figures.draw(run.figures, content, arms.by_seed(MAIN, arms.side), results[MAIN])
    _draw_features(run, data, made.folds[best.fold], best, arms.side)
    run.say(f"\n{markdown.summary(content)}\n\nreport: {run.path / 'report.md'}\nmodel: {run.export}")
    return best


def _best(results: list[Result], task: Task) -> Result:
    """The trial with the best validation figure, whose model becomes the run's."""
    return max(results, key=lambda result: result.facts[f"valid_{task.selection}"])


def _export(run: Run, config: FinetuneConfig, data: Data, best: Result, pretrained: Callable[[int], EEGSSM]) -> None:
    """Write the run's model: a trial's own, or a probe's head on the backbone that it read."""
    if config.mode == "probe":
        backbone = _start(pretrained(best.fold), best.seed, random=config.ckpt == FROM_SCRATCH)
        head = Head(head_config(config, data, backbone.config))
        head.load_state_dict(read_state_dict(best.path / HEAD_FILE))
        model = Classifier(backbone, head)
    else:
        model, _ = classifier.load(best.path / "export")
    classifier.save(run.export, model, data.contract, card=model_card(config, data.contract, best.facts))


def _draw_features(run: Run, data: Data, fold: Fold, best: Result, side: str) -> None:
    """Picture of the exported model's features for windows it was not trained on."""
    ids = getattr(fold, side)
    if len(ids) < _FEWEST_POINTS:
        return
    model, _ = classifier.load(run.export)
    ids = ids[np.linspace(0, len(ids) - 1, min(len(ids), FEATURE_MAP_WINDOWS)).astype(int)]
    subset = data.dataset.subset(ids)
    with torch.no_grad():
        pooled = [
            backbone_features(model.backbone, batch.x).mean((1, 2)).numpy()
            for batch in eval_batches(subset, FEATURE_BATCH)
        ]
    windows, where = data.windows, {"valid": "validation"}.get(side, side)
    figures.feature_map(
        run.figures / "features.png",
        np.concatenate(pooled),
        windows.label[ids],
        windows.subject[ids],
        data.task.class_names,
        f"{data.task.name}: features of the exported model (fold {best.fold}, seed {best.seed}) for {where} windows",
    )


if __name__ == "__main__":
    main()
