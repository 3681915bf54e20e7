"""The end of a run, which one process does alone: baselines, report, pictures and the model that is handed on."""

from __future__ import annotations

import numpy as np
import torch

from codebrain.training.launch import Run
from codebrain.training.sampling import eval_batches
from codebrain.weights import read_state_dict
from finetune import answers, baselines, classifier, figures, markdown, report
from finetune.card import model_card
from finetune.classifier import Classifier, backbone_features
from finetune.markdown import MAIN
from finetune.plan import Plan
from finetune.predict import FEATURE_BATCH
from finetune.report import Arms
from finetune.trial import HEAD_FILE, Result

UNTRAINED = "untrained"
"""The baseline that is trained as the model is, and not here."""

_MAP_WINDOWS = 2000
"""Windows in the picture of the features."""
_FEWEST_POINTS = 3
"""Windows of which such a picture can be made."""


def conclude(run: Run, plan: Plan, results: dict[str, list[Result]]) -> Result:
    """Write everything that a run leaves behind.

    Parameters
    ----------
    run : Run
    plan : Plan
    results : dict of list of Result
        By arm: the model, and where it was asked for the same on an untrained backbone.

    Returns
    -------
    Result
        The trial whose model is the run's: that of the best validation figure.
    """
    config, data = plan.config, plan.data
    for name in config.baseline:
        if name != UNTRAINED:
            results[name] = baselines.execute(run, name, data, plan.splits, config.training.class_weights)
    arms = Arms(data.task, results)
    content = report.build(config, arms, plan.splits, data.windows, _facts(run, plan))
    report.write(run.path, content)
    answers.write(run.path / "predictions.csv", arms, data.dataset)
    best = max(results[MAIN], key=lambda result: result.facts[f"valid_{data.task.selection}"])
    model = _model(plan, best)
    classifier.save(run.export, model, data.contract, card=model_card(config, data.contract, best.facts))
    figures.draw(run.figures, content, arms.by_seed(MAIN, arms.side), results[MAIN])
    _draw_features(run, plan, model, best, arms.side)
    run.say(f"\n{markdown.summary(content)}\n\nreport: {run.path / 'report.md'}\nmodel: {run.export}")
    return best


def _facts(run: Run, plan: Plan) -> dict[str, object]:
    """What the report says besides figures."""
    data = plan.data
    return {
        "store": {"path": plan.config.data, "fingerprint": data.store.fingerprint()},
        "processes": run.world,
        "sequences": plan.sequences,
        "pretraining": plan.pretraining,
        "prepared_otherwise": plan.prepared_otherwise,
    }


def _model(plan: Plan, best: Result) -> Classifier:
    """The model of a trial: its own, or a probe's head on the backbone that it read."""
    if plan.config.mode != "probe":
        return classifier.load(best.path / "export")[0]
    head = plan.head(best.fold)
    head.load_state_dict(read_state_dict(best.path / HEAD_FILE))
    return Classifier(plan.start(best.fold, best.seed, random=plan.from_scratch), head).eval()


def _draw_features(run: Run, plan: Plan, model: Classifier, best: Result, side: str) -> None:
    """Picture of the model's features for windows that it was not trained on."""
    data, ids = plan.data, getattr(plan.splits.folds[best.fold], side)
    if len(ids) < _FEWEST_POINTS:
        return
    ids = ids[np.linspace(0, len(ids) - 1, min(len(ids), _MAP_WINDOWS)).astype(int)]
    with torch.no_grad():
        pooled = [
            backbone_features(model.backbone, batch.x).mean((1, 2)).numpy()
            for batch in eval_batches(data.dataset.subset(ids), FEATURE_BATCH)
        ]
    where = {"valid": "validation"}.get(side, side)
    figures.feature_map(
        run.figures / "features.png",
        np.concatenate(pooled),
        data.windows.label[ids],
        data.windows.subject[ids],
        data.task.class_names,
        f"{data.task.name}: features of the exported model (fold {best.fold}, seed {best.seed}) for {where} windows",
    )
