"""What a checkpoint has seen of the recordings that judge it.

A fine-tuned model that is tuned again has learnt from labels: whoever trained it must not test it, and that is an
error. A pre-trained one may have read the signals of test recordings without their labels. Many papers do so; it helps,
and a reader must know. Both are known only where the checkpoint still lies in its run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codebrain.data.format import Store
from finetune import manifest
from finetune.classifier import record_of
from finetune.config import FROM_SCRATCH
from finetune.data import Data
from finetune.splits import Fold


@dataclass(frozen=True)
class Seen:
    """How many of a fold's test recordings were read in pre-training, without labels."""

    n_seen: int
    n_tested: int


def seen_in_pretraining(ckpt: str, data: Data, fold: Fold) -> Seen | None:
    """Compare a fold's test recordings with those of a stage-2 run, and of its tokenizer, by the names of their files.

    None where nobody can say here: for an export that was moved, a Hub id, random weights, no test windows.
    """
    run = _run_of(ckpt)
    if run is None or not len(fold.test) or (names := _recordings(run)) is None:
        return None
    rows = np.unique(data.windows.recording[fold.test]).tolist()
    tested = [Path(data.store.recording(row).path).name for row in rows]
    return Seen(sum(name in names for name in tested), len(tested))


def total(folds: Sequence[Seen | None]) -> dict[str, int] | None:
    """Sums over folds, as they stand in report.json; None where nothing is known of one."""
    known = [seen for seen in folds if seen is not None]
    if len(known) < len(folds):
        return None
    return {"seen": sum(seen.n_seen for seen in known), "tested": sum(seen.n_tested for seen in known)}


def prepared_otherwise(ckpt: str, data: Data) -> str:
    """In words, where the filters and the reference of these windows are not those of pre-training; "" where they are.

    A data set's protocol fixes its own, so this is no mistake; but a backbone reads other spectra than it knows.
    """
    stores = [] if ckpt == FROM_SCRATCH else record_of(ckpt).get("stores", [])
    if not stores:
        return ""
    then, here = _signal_constants(stores[0]["preparation"]), _signal_constants(data.contract.preparation)
    told = [f"{name} {here[name]} (there {value})" for name, value in then.items() if here.get(name, value) != value]
    return f"the windows were prepared otherwise than those of pre-training: {', '.join(told)}" if told else ""


def _signal_constants(preparation: dict[str, Any]) -> dict[str, Any]:
    """Constants of a preparation that change the signal of a channel."""
    clean = {f"clean.{name}": value for name, value in preparation.get("clean", {}).items()}
    reference = preparation.get("channels", {}).get("reference")
    return clean | ({"channels.reference": reference} if reference else {})


def require_unseen_labels(ckpt: str, data: Data, fold: Fold, where: str) -> None:
    """Raise ValueError if the checkpoint was fine-tuned on a subject that it is now to be tested by.

    Parameters
    ----------
    ckpt : str
    data : Data
    fold : Fold
    where : str
        Names the fold in the message.
    """
    run = _run_of(ckpt)
    if run is None or not (run / "splits.json").exists() or not len(fold.test):
        return
    placed = manifest.read_manifest(run / "splits.json")
    entry = placed["folds"][_read(run / "summary.json").get("exported_fold", 0)]
    learnt = {name for side in ("train", "valid") for name in entry[side]["subjects"]}
    both = sorted(learnt & set(np.unique(data.windows.subject[fold.test]).tolist()))
    if both and placed["store"] == data.store.fingerprint():
        raise ValueError(
            f"--ckpt {ckpt} was fine-tuned on {len(both)} of the subjects that test it{where} ({', '.join(both[:5])}). "
            f"Give it the splits that it was trained with (--splits {run / 'splits.json'}), or start from the "
            "pre-trained backbone."
        )


def _run_of(ckpt: str) -> Path | None:
    """The run's folder that a checkpoint is, or is the export of."""
    path = Path(ckpt)
    return next((folder for folder in (path, path.parent) if path.is_dir() and (folder / "config.yaml").exists()), None)


def _recordings(run: Path) -> set[str] | None:
    """File names of all recordings in the stores of a run and of its tokenizer's; None where a store is gone."""
    names: set[str] = set()
    for store in _stores(run):
        if not (store / "store.json").exists():
            return None
        names |= {Path(row.path).name for row in Store.open(store).recordings if row.kept}
    return names or None


def _stores(run: Path) -> Iterator[Path]:
    inputs = _read(run / "inputs.json")
    yield from map(Path, inputs.get("data", {}))
    for tokenizer in inputs.get("tokenizer", {}):
        if (of := _run_of(tokenizer)) is not None:
            yield from _stores(of)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
