"""What a checkpoint has seen of the recordings that judge it.

A fine-tuned model that is tuned again has learnt from labels: whoever trained it must not judge it, and that is an
error. A pre-trained one may have read the signals of these recordings without their labels. Many papers do so; it
helps, and a reader must know. Both are known only where the checkpoint still lies in its run's folder, and so on back
to the stores; what cannot be followed is told as not known.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from codebrain.backbone import BackboneConfig
from codebrain.data.format import SPLITS, Recording, Store
from codebrain.data.subjects import SplitConfig, held_out
from codebrain.training.folder import read_json
from codebrain.weights import fingerprint
from finetune import manifest
from finetune.classifier import contract_of, load_backbone, record_of
from finetune.config import FOLD, FROM_SCRATCH
from finetune.data import Data
from finetune.splits import Fold
from tokenizer.cache import fingerprint as tokenizer_fingerprint
from tokenizer.model import DualTokenizer

Files = frozenset[tuple[str, str]]
"""Subject and name of the file of recordings."""

_NO_NOTES = (KeyError, IndexError, TypeError, AttributeError)
"""What comes of notes of a run that hold something else than it wrote."""

_INSIDE = re.compile(r"\.|(export|(?P<untrained>untrained/)?(fold-(?P<fold>\d+)/)?(?P<trial>seed-\d+)(/export)?)")
"""Where the models of a run lie in its folder."""


@dataclass(frozen=True)
class Seen:
    """How many of the recordings that judge a fold pre-training was trained on, without labels."""

    n_seen: int
    n_judged: int
    unknown: str = ""
    """Why they may be more, in words."""


@dataclass(frozen=True)
class Lesson:
    """Whose labels a fine-tuned model has learnt from."""

    train: frozenset[str]
    """Subjects that it was trained on."""
    valid: frozenset[str]
    """Subjects that its weights were selected by."""
    store: str
    """Fingerprint of its store."""
    task: tuple[str, str]
    """Name and protocol of its task."""
    files: Files | None
    """Recordings of its store, if that is still there."""
    again: str
    """What trains the model further by the same subjects; "" where nothing does."""
    subjects: frozenset[str]
    """Everybody on any side of its splits."""
    start: str
    """The checkpoint that it started from."""

    def is_about(self, data: Data) -> bool:
        """Whether subjects of the same name are the same people: the store is the same one or of the same data set."""
        if self.store == data.store.fingerprint():
            return True
        name, protocol = self.task
        same_task = name == data.task.name
        # Data sets of the literature have a protocol and a name of their own; tasks of one's own are all "events".
        if self.files is None or (same_task and protocol and data.task.protocol):
            return same_task
        return not self.files.isdisjoint(_files(data.store))


@dataclass(frozen=True)
class Origin:
    """What is known of how a checkpoint came about."""

    ckpt: str
    lessons: tuple[Lesson, ...]
    """The fine-tunings that it has been through, the last one first."""
    recordings: Files
    """Those that were trained on without labels."""
    unknown: tuple[str, ...]
    """Why they may be more, in words."""

    @classmethod
    def of(cls, ckpt: str) -> Origin:
        """Follow a checkpoint back to the stores that it, and all that it was made from, has read.

        Raises
        ------
        ValueError
            What a fine-tuned run says of itself is damaged.
        """
        unknown: list[str] = []
        recordings = _recordings(ckpt, unknown)
        if _place(ckpt) is None and Path(ckpt).exists() and contract_of(ckpt) is not None:
            unknown[0] += "; whose labels it was fine-tuned on is not known either"
        try:
            lessons = tuple(_lesson(place, last=number == 0) for number, place in enumerate(_finetunings(ckpt)))
        except _NO_NOTES as error:
            raise ValueError(
                f"--ckpt {ckpt}: what the run that made it says of itself is damaged ({error!r}). Give a copy of its "
                "export folder, or start from what that run started from."
            ) from error
        return cls(ckpt, lessons, frozenset(recordings), tuple(unknown))

    def require_unseen_labels(self, data: Data, fold: Fold, where: str) -> None:
        """Raise ValueError if the checkpoint was fine-tuned on a subject by whom it is now to be judged.

        Parameters
        ----------
        data : Data
        fold : Fold
        where : str
            Names the fold in the message.
        """
        side = fold.judged[-1]
        everybody = set(data.dataset.subject_names)
        judges = set(np.unique(data.windows.subject[getattr(fold, side)]).tolist())
        for lesson in self.lessons:
            # Who selected weights must not test them; selecting once more by the same is what validation is.
            learnt = lesson.train | lesson.valid if side == "test" else lesson.train
            if not (both := sorted(learnt & judges)) or not lesson.is_about(data):
                continue
            other = ""
            if lesson.store != data.store.fingerprint():
                other = " If these are other people under the same names, give a copy of its export folder instead."
            verb = {"test": "test", "valid": "validate"}[side]
            which = "it" if lesson is self.lessons[0] else "the earlier fine-tuning"
            start = f"start from what {which} started from (--ckpt {lesson.start})"
            # Splits are of the very subjects of a store.
            again = lesson.again if lesson.subjects == everybody else ""
            remedy = f"{again}, or {start}" if again else start[0].upper() + start[1:]
            raise ValueError(
                f"--ckpt {self.ckpt} was fine-tuned on {len(both)} of the subjects that {verb} it{where} "
                f"({', '.join(both[:5])}). {remedy}.{other}"
            )

    def seen(self, data: Data, fold: Fold) -> Seen:
        """Compare the recordings that judge a fold with those of pre-training, by the names of their files.

        Where several subjects have a file of the same name (`sub-7/rest.edf`), by subject and name.
        """
        rows = np.unique(data.windows.recording[getattr(fold, fold.judged[-1])]).tolist()
        judged = [_file(data.store.recording(row)) for row in rows]
        counts = [Counter(name for _, name in files) for files in (self.recordings, _files(data.store))]
        names = {name for name in counts[0] if all(count[name] <= 1 for count in counts)}
        n_seen = sum(name in names or (subject, name) in self.recordings for subject, name in judged)
        return Seen(n_seen, len(judged), "; ".join(self.unknown))


def total(folds: Sequence[Seen]) -> dict[str, Any]:
    """Sums over folds, as they stand in report.json, and why the recordings that were read may be more."""
    unknown = next((seen.unknown for seen in folds if seen.unknown), "")
    counts = {"seen": sum(seen.n_seen for seen in folds), "tested": sum(seen.n_judged for seen in folds)}
    return {**counts, "unknown": unknown}


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


# --- where a checkpoint lies -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A model in the folder of the run that made it."""

    ckpt: str
    run: Path
    fold: int | None
    """Of a fine-tuned model, the fold that trained it; None where nobody can say."""
    untrained: bool
    """Whether it belongs to the baseline on random weights."""

    @property
    def is_finetuned(self) -> bool:
        return (self.run / "splits.json").exists()

    @cached_property
    def config(self) -> dict[str, Any]:
        path = self.run / "config.yaml"
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is damaged ({error})") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path} is damaged: it has no settings")
        return found

    def inputs(self, flag: str) -> dict[str, str]:
        """What the run read: where it lay, and the hash of its contents."""
        path = self.run / "inputs.json"
        if not path.exists():
            raise ValueError(f"{path}, which says what was read, is not there")
        return read_json(path, "launch that run again.").get(flag, {})

    def before(self) -> str:
        """The checkpoint that a fine-tuning started from."""
        if self.untrained:
            return FROM_SCRATCH
        ckpt = self.config["ckpt"].replace(FOLD, FOLD if self.fold is None else str(self.fold))
        return FROM_SCRATCH if ckpt == FROM_SCRATCH else self.from_here(ckpt)

    def from_here(self, path: str) -> str:
        """Where a path that the run was given leads: a relative one began where the run was launched."""
        named = Path(self.config.get("run_dir", "")).parts
        if not Path(path).is_absolute() and named and self.run.parts[-len(named) :] == named:
            there = Path(*self.run.parts[: -len(named)]) / path
            return str(there) if there.exists() else path
        return path


def _place(ckpt: str) -> _Place | None:
    """The run that a checkpoint is, is the export of, or is a trial of."""
    # As it is given, and behind links.
    for path in (Path(os.path.abspath(ckpt)), Path(ckpt).resolve()):
        folder = path.parent if path.is_file() else path
        for run in (folder, *folder.parents) if path.exists() else ():
            inside = _INSIDE.fullmatch(folder.relative_to(run).as_posix())
            if inside and (run / "config.yaml").exists():
                found = _Place(ckpt, run, None, bool(inside["untrained"]))
                return replace(found, fold=_fold(found, inside)) if found.is_finetuned else found
    return None


def _fold(place: _Place, inside: re.Match[str]) -> int | None:
    if inside["trial"]:
        return int(inside["fold"] or 0)
    summary = place.run / "summary.json"
    found = read_json(summary, "launch that run again.") if summary.exists() else {}
    return found.get("exported_fold")


# --- labels ----------------------------------------------------------------------------------------------------------


def _finetunings(ckpt: str) -> Iterator[_Place]:
    """The runs of fine-tuning that a checkpoint has been through, the last one first."""
    while ckpt != FROM_SCRATCH and (place := _place(ckpt)) is not None and place.is_finetuned:
        yield place
        ckpt = place.before()


def _lesson(place: _Place, *, last: bool) -> Lesson:
    placed = manifest.read_manifest(place.run / "splits.json")
    folds = placed["folds"] if place.fold is None else [placed["folds"][place.fold]]
    train, valid, test = (frozenset(name for fold in folds for name in fold[side]["subjects"]) for side in SPLITS)
    files, task = None, ("", "")
    with suppress(OSError, ValueError):
        files = _files(_unchanged(place.from_here(place.config["data"]), placed["store"]))
    with suppress(OSError, ValueError):  # of what this model started from, the weights may be gone
        if (contract := contract_of(place.ckpt)) is not None:
            task = (contract.task.name, contract.task.protocol)
    again = _again(place, placed) if last else ""
    return Lesson(train, valid, placed["store"], task, files, again, train | valid | test, place.config["ckpt"])


def _again(place: _Place, placed: dict[str, Any]) -> str:
    """What lets a fine-tuned model be tuned again on the subjects of its splits; "" where nothing does."""
    splits = f"--splits {place.run / 'splits.json'}"
    if placed["within_subject"]:
        return ""
    if len(placed["folds"]) == 1:
        return f"Give it the splits that it was trained with ({splits})"
    # The one model that a run of several folds exports was trained on those who test the other folds.
    trials = place.run / f"fold-{FOLD}" / f"seed-{place.config['seeds'][0]}"
    if place.config["mode"] == "probe":
        return ""
    return f"Give each fold the model that was trained for it (--ckpt '{trials}' {splits})"


# --- signals ---------------------------------------------------------------------------------------------------------


def _recordings(ckpt: str, unknown: list[str]) -> set[tuple[str, str]]:
    """The recordings that a checkpoint, and all that it was made from, was trained on without labels.

    What cannot be followed adds its reason to `unknown`.
    """
    found: set[tuple[str, str]] = set()
    if ckpt == FROM_SCRATCH:
        return found
    with _noting(unknown):
        if (place := _place(ckpt)) is None:
            raise ValueError(f"{ckpt} is not in the folder of the run that made it")
        if place.is_finetuned:
            before = place.before()
            noted = place.inputs("ckpt")
            if _place(before) is not None and _backbone_fingerprint(before) not in noted.values():
                raise ValueError(f"{before} is not any more what {place.run} started from")
            return _recordings(before, unknown)
        if "ckpt" in place.config:
            raise ValueError(f"{place.run} has lost its splits.json; whose labels it learnt from is not known either")
        read: Files = frozenset()
        for path, was in place.inputs("data").items():
            with _noting(unknown):
                read |= _files(_unchanged(place.from_here(path), was))
        with _noting(unknown):
            # Whom a run held out it validated on, without training on them.
            split = SplitConfig(**place.config.get("split", {}))
            left_out = held_out(sorted({subject for subject, _ in read}), split) if read else set()
            found |= {file for file in read if file[0] not in left_out}
        for path, was in place.inputs("tokenizer").items():
            with _noting(unknown):
                here = place.from_here(path)
                # Another tokenizer may lie there by now, or where a relative path leads from here.
                if _place(here) is not None and tokenizer_fingerprint(DualTokenizer.from_pretrained(here)) != was:
                    raise ValueError(f"{here} is not the tokenizer that {place.run} was trained with")
                found |= _recordings(here, unknown)
    return found


@contextmanager
def _noting(unknown: list[str]) -> Iterator[None]:
    """Note why something cannot be read, and go on."""
    try:
        yield
    except (OSError, ValueError) as error:
        unknown.append(str(error).rstrip("."))
    except _NO_NOTES as error:
        unknown.append(f"what a run says of itself is damaged ({error!r})")


def _backbone_fingerprint(ckpt: str) -> str:
    backbone = load_backbone(ckpt, BackboneConfig())
    return fingerprint(backbone, backbone.config)


def _unchanged(path: str, noted: str) -> Store:
    """The store that lies somewhere, if its contents are those that were noted."""
    store = Store.open(path)
    if store.fingerprint() != noted:
        raise ValueError(f"the store {path} is not any more what was read there")
    return store


def _files(store: Store) -> Files:
    return frozenset(_file(row) for row in store.recordings if row.kept)


def _file(row: Recording) -> tuple[str, str]:
    return row.subject, Path(row.path).name
