"""Raw recordings as windows that a model can read, prepared by the same code as the stores that models train on."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from codebrain.data.format import Recording, Shard, Store, StoreInfo, write_store
from codebrain.weights import WEIGHT_FILES
from data_prep.clean import Chain
from data_prep.corpora import Source
from data_prep.corpora.subjects import subjects_of
from data_prep.cut import Cutter, EverywhereCutter
from data_prep.read import Readable, Unit, UnusableError
from data_prep.recipe import Recipe, recipe_of
from data_prep.tasks import DATA_SETS
from data_prep.windows import WindowPlan, usable_span
from data_prep.write import Job, prepare
from finetune.classifier import Contract


@dataclass(frozen=True)
class Prepared:
    """Recordings, prepared."""

    store: Store
    """Their windows; the path of a recording is the one that was given."""
    refused: dict[str, str]
    """Recordings that could not be used at all, with the reason."""
    notes: dict[str, str]
    """What was left out of the others, and what had to be assumed of them."""
    unnamed: int
    """Recordings whose paths name no subject by a known scheme, so that each counts for a person of its own."""

    def tell(self) -> None:
        """Print what was refused and noted, beside the results."""
        for path, reason in self.refused.items():
            print(f"error: {path} cannot be used: {reason}", file=sys.stderr)
        for path, note in self.notes.items():
            print(f"{path}: {note}", file=sys.stderr)


def recipe_for(contract: Contract, unit: Unit | None) -> Recipe:
    """The preparation that a model's store recorded, for the model's channels and windows.

    Raises
    ------
    ValueError
        It knows the trials of its data set, and cannot be given to other recordings.
    """
    _check_repeatable(contract)
    recipe = recipe_of(contract.preparation)
    return dataclasses.replace(
        recipe,
        unit=unit or recipe.unit,
        channels=dataclasses.replace(recipe.channels, names=list(contract.ch_names)),
        windows=dataclasses.replace(recipe.windows, seconds=contract.n_times / contract.sfreq),
    )


def _check_repeatable(contract: Contract) -> None:
    data_set = DATA_SETS.get(contract.task.name)
    if data_set is None or contract.task.protocol != "published":
        return
    for trap in data_set.about.traps:
        if not trap.repeatable:
            raise ValueError(
                f"the model was trained on {data_set.about.title} as published, where {trap.published}. That cannot be "
                "done to other recordings: take a model that was trained on a store of `--protocol corrected`"
            )


class FromStartCutter(EverywhereCutter):
    """Consecutive windows counted from a recording's first sample, such as the epochs of a night."""

    said = (
        "the model was trained on windows at marks; here windows follow one another, counted from the recording's start"
    )

    def cut(self, source: Source, recording: Readable, chain: Chain, recipe: Recipe) -> WindowPlan:
        """Those of the windows 0 to T, T to 2 T, ... that lie within what the filters leave."""
        first, last = usable_span(recipe.windows, sfreq=chain.sfreq, n_times=chain.n_out, edge=chain.edge)
        length = round(recipe.windows.seconds * chain.sfreq)
        start = np.arange(-(-first // length) * length, last + 1, length, dtype=np.int64)
        if not len(start):
            raise UnusableError(
                f"too short: counted from its start, no window of {recipe.windows.seconds:g} s lies within the "
                f"{first / chain.sfreq:.1f} s to {(last + length) / chain.sfreq:.1f} s that the filters do not distort"
            )
        return WindowPlan(start=start)


def cutter_for(contract: Contract) -> EverywhereCutter:
    """Where windows lie for a model: on the grid of its epochs if it learnt windows at marks."""
    return FromStartCutter() if contract.preparation.get("task") == "events" else EverywhereCutter()


@contextmanager
def prepared(paths: Sequence[str], recipe: Recipe, flags: tuple[str, ...], cutter: Cutter) -> Iterator[Prepared]:
    """Cut recordings into consecutive windows, in a store that lasts as long as the context.

    Parameters
    ----------
    paths : sequence of str
        Recordings of any format that MNE reads.
    recipe : Recipe
    flags : tuple of str
        Beginnings of the command's flags on recordings: a reason for which one cannot be used speaks of no others.
    cutter : Cutter
        Where the windows lie.

    Raises
    ------
    FileNotFoundError, ValueError
        A path does not exist or is no recording, or not one recording can be used; the message says why.
    """
    for path in paths:
        _check_is_recording(Path(path))
    named = subjects_of(paths)
    with tempfile.TemporaryDirectory(prefix="codebrain-") as folder:
        rows: list[Recording] = []
        shards: list[Shard] = []
        for row, path in enumerate(tqdm(paths, "preparing", unit=" recordings", leave=False, disable=None)):
            source = Source(file=path, key=path, subject=named[row][0])
            job = Job(store=folder, row=row, source=source, recipe=recipe, cutter=cutter, flags=flags)
            result = prepare(job)
            rows.append(result.recording)
            shards += [result.shard] if result.shard else []
        refused = {row.path: row.reason for row in rows if row.status != "ok"}
        if not shards:
            raise ValueError("; ".join(f"{path} cannot be used: {reason}" for path, reason in refused.items()))
        info = StoreInfo(sfreq=recipe.clean.sfreq, window_seconds=recipe.windows.seconds)
        notes = {row.path: _note(row) for row in rows if row.status == "ok" and row.reason}
        unnamed = sum(not scheme for _, scheme in named)
        yield Prepared(write_store(folder, info, shards, rows), refused, notes, unnamed)


def _check_is_recording(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such recording")
    if (path / "progress").is_dir():
        Store.open(path)  # which says what it lacks: complete stores are not taken for recordings
    if any((path / name).exists() for name in ("config.yaml", "export", *WEIGHT_FILES)):
        raise ValueError(f"{path} is the folder of a model, which goes behind --ckpt: what it is to read stands before")
    if path.is_dir() and not path.suffix:  # MNE reads folders too, such as a CTF recording NAME.ds
        raise ValueError(f"{path} is a folder, and no recording: give its files, such as {path}/*.edf")


def _note(row: Recording) -> str:
    if not row.rejected:
        return row.reason
    return f"{row.rejected} of {row.kept + row.rejected} windows are left out ({row.reason})"
