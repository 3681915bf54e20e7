"""Raw recordings as windows that a model can read, prepared by the same code as the stores that models train on."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from codebrain.data.format import Recording, Shard, Store, StoreInfo, write_store
from data_prep.corpora import Source
from data_prep.cut import EverywhereCutter
from data_prep.read import Unit
from data_prep.recipe import Recipe, recipe_of
from data_prep.tasks import DATA_SETS
from data_prep.write import Job, prepare
from finetune.classifier import Contract

Window = npt.NDArray[np.floating]
Finish = Callable[[Window], Window]


@dataclass(frozen=True)
class Prepared:
    """Recordings, prepared."""

    store: Store
    """Their windows; the path of a recording is the one that was given."""
    refused: dict[str, str]
    """Recordings that could not be used at all, with the reason."""
    notes: dict[str, str]
    """What was left out of the others, and what had to be assumed of them."""

    def tell(self) -> None:
        """Print what was refused and noted, beside the results."""
        for path, reason in self.refused.items():
            print(f"error: {path} cannot be used: {reason}", file=sys.stderr)
        for path, note in self.notes.items():
            print(f"{path}: {note}", file=sys.stderr)


class _EverywhereCutter(EverywhereCutter):
    """Consecutive windows over a whole recording, each finished as those of a task."""

    def __init__(self, finish: Finish) -> None:
        self._finish = finish

    def finish(self, window_uv: Window) -> Window:
        return self._finish(window_uv)


def recipe_for(contract: Contract, unit: Unit | None) -> Recipe:
    """The preparation that a model's store recorded, for the model's channels and windows."""
    recipe = recipe_of(contract.preparation)
    return dataclasses.replace(
        recipe,
        unit=unit or recipe.unit,
        channels=dataclasses.replace(recipe.channels, names=list(contract.ch_names)),
        windows=dataclasses.replace(recipe.windows, seconds=contract.n_times / contract.sfreq),
    )


def finish_for(contract: Contract) -> Finish:
    """What a model's task did to each window at the very end."""
    data_set = DATA_SETS.get(contract.task.name)
    if data_set is None:
        return as_it_is
    return data_set(protocol="published" if contract.task.protocol == "published" else "corrected").finish


def as_it_is(window_uv: Window) -> Window:
    """Nothing is done to a window."""
    return window_uv


@contextmanager
def prepared(paths: Sequence[str], recipe: Recipe, finish: Finish = as_it_is) -> Iterator[Prepared]:
    """Cut recordings into consecutive windows, in a store that lasts as long as the context.

    Parameters
    ----------
    paths : sequence of str
        Recordings of any format that MNE reads.
    recipe : Recipe
    finish : callable
        What is done to each clean window at the very end.

    Raises
    ------
    FileNotFoundError, ValueError
        A path does not exist, or not one recording can be used; the message says why.
    """
    for path in paths:
        if not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such recording")
        if Path(path).is_dir() and not Path(path).suffix:  # MNE reads folders too, such as a CTF recording NAME.ds
            raise ValueError(
                f"{path} is a folder, neither a store nor a recording: give its files, such as {path}/*.edf"
            )
    with tempfile.TemporaryDirectory(prefix="codebrain-") as folder:
        rows: list[Recording] = []
        shards: list[Shard] = []
        for row, path in enumerate(tqdm(paths, "preparing", unit=" recordings", leave=False, disable=None)):
            source = Source(file=path, key=path, subject=Path(path).stem)
            job = Job(store=folder, row=row, source=source, recipe=recipe, cutter=_EverywhereCutter(finish))
            result = prepare(job)
            rows.append(result.recording)
            shards += [result.shard] if result.shard else []
        refused = {row.path: row.reason for row in rows if row.status != "ok"}
        if not shards:
            raise ValueError("; ".join(f"{path} cannot be used: {reason}" for path, reason in refused.items()))
        info = StoreInfo(sfreq=recipe.clean.sfreq, window_seconds=recipe.windows.seconds)
        notes = {row.path: _note(row) for row in rows if row.status == "ok" and row.reason}
        yield Prepared(write_store(folder, info, shards, rows), refused, notes)


def _note(row: Recording) -> str:
    if not row.rejected:
        return row.reason
    return f"{row.rejected} of {row.kept + row.rejected} windows are left out ({row.reason})"
