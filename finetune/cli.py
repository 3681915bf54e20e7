"""codebrain-finetune: train a classifier on a task store, judge it, write the report.

check everything -> splits -> trials (fold x seed; also on an untrained backbone, if asked) -> baselines -> report

RUN/  config.yaml  splits.json  seed-0/ (or fold-0/seed-0/)  export/  report.json  report.md  predictions.csv  figures/
      summary.json
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from codebrain.backbone import EEGSSM
from codebrain.config import command, parse
from codebrain.training.launch import LoopConfig, Run, start
from finetune import manifest, plan, recipes
from finetune.conclusion import UNTRAINED, conclude
from finetune.config import FOLD, FinetuneConfig
from finetune.heads import shrink
from finetune.markdown import MAIN
from finetune.plan import Plan
from finetune.predict import FEATURE_BATCH, FrozenFeatures
from finetune.splits import fault_of_test
from finetune.trial import Result, Trial

_CHANGEABLE = ("data", "ckpt", "seeds", "baseline", "training.num_workers")
"""What may change when a run is launched again: where store and checkpoint lie (what they are is noted and compared),
and what adds trials to those that are there, or changes none."""


def main() -> None:
    """Entry point of the console script."""
    command(run_command)


def run_command(argv: list[str] | None = None) -> int:
    """Do what the command line asks; 0 when done."""
    config = _configured(sys.argv[1:] if argv is None else argv)
    planned = plan.make(config)
    # Only what concerns the whole run; every trial has a loop of its own.
    loop = LoopConfig(total_steps=1, seed=config.seeds[0], mixed_precision=config.training.mixed_precision)
    run = start(config.run_dir, loop, config, changeable=_CHANGEABLE)
    run.on_main(lambda: _confirm(run, planned))
    run.keep_to({"ckpt": planned.fingerprints()})
    asked = {"seeds": config.seeds, "baseline": config.baseline}
    if run.summary is not None and run.summary.get("asked") == asked:
        run.say(f"{run.path} is finished; its report is {run.path / 'report.md'}")
        run.part()
        return 0
    _announce(run, planned)
    names = [MAIN, *([UNTRAINED] if UNTRAINED in config.baseline else [])]
    results = {name: list(_trials(run, planned, name)) for name in names}
    if run.part():
        exported = conclude(run, planned, results)
        run.mark_finished({"report": "report.md", "asked": asked, "exported_fold": exported.fold})
    return 0


def _configured(argv: list[str]) -> FinetuneConfig:
    """What the command line asks for; a recipe, wherever it is named, comes before all else."""
    recipe = recipes.named(argv)
    before = [] if recipe is None else recipes.flags(recipe)
    said = "Train a classifier on a task store and judge it."
    return parse(FinetuneConfig, [*before, *argv], prog="codebrain-finetune", description=said)


def _confirm(run: Run, planned: Plan) -> None:
    """Check the splits for leakage and write their manifest; once something was trained, they must stay the same."""
    path, made, given = run.path / "splits.json", planned.splits, planned.config.splits
    data, store = planned.data, planned.data.store
    if path.exists():
        if manifest.same(manifest.read_manifest(path), made, store.fingerprint()):
            return
        if run.was_trained:
            raise ValueError(
                f"{store.path} or the splits have changed since {run.path} was started. Give another --run_dir."
            )
    hashes = manifest.content_hashes(store)
    manifest.check_duplicates(made, hashes, data.dataset.describe)
    found = manifest.to_manifest(made, data.windows, hashes, store.fingerprint())
    if given is not None:
        manifest.check_hashes(manifest.read_manifest(Path(given)), found)
    manifest.write_manifest(path, found)


def _announce(run: Run, planned: Plan) -> None:
    data, folds = planned.data, planned.splits.folds
    run.say(
        f"{data.task.title}: {len(data.dataset)} windows of {data.dataset.montages[0]}, "
        f"{len(data.dataset.subject_names)} subjects; {planned.splits.kind} split with {len(folds)} fold(s), "
        f"{len(planned.config.seeds)} seed(s)" + (f"\n{planned.sequences}" if planned.sequences else "")
    )
    if warning := data.store.outdated():
        run.say(f"WARNING: {warning}")
    patch_size = planned.pretrained(0).config.patch_size
    for line in filter(None, [planned.prepared_otherwise, data.dataset.unseen(patch_size)]):
        run.say(f"NOTE: {line}.")
    if not len(folds[0].test):
        run.say("WARNING: this split has no test windows. Figures will be on validation, where weights are selected.")
    if fault := fault_of_test(planned.splits, data.windows):
        run.say(f"WARNING: {fault}.")


def _trials(run: Run, planned: Plan, arm: str) -> Iterator[Result]:
    """Every fold and seed of an arm. Collective."""
    config, data, folds = planned.config, planned.data, planned.splits.folds
    random = arm == UNTRAINED or planned.from_scratch
    held: dict[tuple[int, int], FrozenFeatures] = {}

    def backbone(number: int, seed: int) -> EEGSSM:
        return planned.start(number, seed, random=random)

    def frozen(number: int, seed: int) -> FrozenFeatures:
        # A random backbone is the same for all folds, a pre-trained one for all seeds.
        key = (0, seed) if random else (number if FOLD in config.ckpt else 0, config.seeds[0])
        if key not in held:
            held.clear()  # trials that share features come one after another, and those of one may be large
            held[key] = FrozenFeatures(run, backbone(*key), data.dataset, FEATURE_BATCH, shrink(config.head))
        return held[key]

    by_fold = itertools.product(range(len(folds)), config.seeds)
    by_seed = ((number, seed) for seed in config.seeds for number in range(len(folds)))
    for number, seed in by_seed if random else by_fold:
        name = f"seed-{seed}" if len(folds) == 1 else f"fold-{number}/seed-{seed}"
        trial = Trial(
            run=run,
            config=config,
            data=data,
            fold=folds[number],
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


if __name__ == "__main__":
    main()
