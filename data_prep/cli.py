"""The command `codebrain-prep`: corpus, task, synthetic, info, check."""

import dataclasses
import difflib
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from codebrain.config import USER_MISTAKE, command, parse, to_dict
from codebrain.data.format import Store
from data_prep.check import check
from data_prep.corpora import counted, find_recordings, say_subjects
from data_prep.corpora.exclusion import exclude
from data_prep.corpora.subjects import Naming
from data_prep.engine import Backend, EngineConfig
from data_prep.info import describe
from data_prep.output import Preparation
from data_prep.recipe import Recipe
from data_prep.synthetic import SyntheticConfig, write_recordings
from data_prep.tasks import DATA_SETS, TASKS, Task

USAGE = """usage: codebrain-prep COMMAND ...

  corpus PATH... --output STORE     windows of recordings in files or folders, for pre-training
  task NAME PATH --output STORE     labelled windows; `codebrain-prep task` lists the names
  synthetic FOLDER                  EDF files of simulated EEG
  info STORE                        what a store holds
  check STORE...                    whether stores still hold what was written; reads all of them

`codebrain-prep COMMAND --help` lists the flags of each.
"""
TASK_USAGE = f"""usage: codebrain-prep task NAME PATH --output STORE

NAME is a data set of the literature:
{textwrap.fill(", ".join(DATA_SETS), initial_indent="  ", subsequent_indent="  ")}
or says what labels recordings of yours:
  events    their annotations, or NAME_events.tsv beside them
  table     a table, by file or by subject

`codebrain-prep task NAME --help` lists the flags of each.
"""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where the result goes and where the work is done."""

    output: str
    """Folder of the store; made if it is not there, completed if it is."""
    workers: int = 0
    """Number of processes; 0 for one per core."""
    backend: Backend = "loky"
    """`loky`: processes on this machine; `dask`: a running Dask cluster."""
    scheduler: str | None = None
    """Address of the Dask scheduler, such as tcp://host:8786."""
    shard: str | None = None
    """i/n: do only the i-th of n parts (1/4 to 4/4), as one job of an array; the last command is one without."""
    report: str | None = None
    """HTML file to look at: the store, and of a few recordings what was rejected and the signal before and after. Of a
    finished store, give the same command again with this flag."""

    def engine(self) -> EngineConfig:
        """The part that says where the work is done."""
        return EngineConfig(workers=self.workers, backend=self.backend, scheduler=self.scheduler)


@dataclass(frozen=True, kw_only=True)
class CorpusCommand(RunOptions, Recipe):
    """Cut recordings into clean windows for pre-training."""

    paths: list[str]
    """Files or folders with recordings."""
    subject_pattern: str | None = None
    """Regular expression whose first group, in a recording's path, is its subject."""
    subjects: str | None = None
    """CSV table with columns path (or file) and subject, and where known age and sex, instead of names in paths."""
    skip_folders: list[str] = field(default_factory=list)
    """Names of folders whose recordings are left out."""
    exclude: list[str] = field(default_factory=list)
    """Folders of recordings, or lists with a subject per line, whose subjects are left out."""
    exclude_beside: bool = True
    """Whether the subjects of TUAB, TUEV, TUSZ and other parts of TUEG that lie beside TUH recordings are left out."""


@dataclass(frozen=True, kw_only=True)
class SyntheticCommand:
    """Write EDF files of simulated EEG with eyes open and closed."""

    folder: str
    """Folder for the files."""
    subjects: int = 8
    """Number of simulated persons, one file each."""
    minutes: float = 4.0
    """Length of each file in minutes."""
    seed: int = 0
    """Same seed, same files; a person's file does not depend on how many others there are."""


@dataclass(frozen=True, kw_only=True)
class InfoCommand:
    """Say what a store holds."""

    store: str
    """Folder of the store."""


@dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Read every byte of stores and list the files that do not hold what was written."""

    stores: list[str]
    """Folders of stores."""


def main() -> None:
    """Entry point of `codebrain-prep`."""
    command(_main)


def _main() -> int:
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "corpus": _corpus,
        "task": _task,
        "synthetic": _synthetic,
        "info": _info,
        "check": _check,
    }
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in commands:
        raise ValueError(f"no command {name!r}{_nearest(name, commands)}.\n{USAGE}")
    return commands[name](rest)


def _corpus(arguments: Sequence[str]) -> int:
    given = parse(
        CorpusCommand, arguments, prog="codebrain-prep corpus", description=_doc(CorpusCommand), positional=["paths"]
    )
    recipe = _part(Recipe, given)
    sources = find_recordings(
        given.paths, given.subject_pattern, given.skip_folders, subjects=given.subjects, say=print
    )
    print(say_subjects(sources))
    beside = given.paths if given.exclude_beside else None
    exclusion = exclude(sources, given.exclude, Naming(given.subject_pattern), beside)
    for line in exclusion.said:
        print(line)
    constants = {
        **to_dict(recipe),
        "subject_pattern": given.subject_pattern,
        "skip_folders": given.skip_folders,
        "excluded_subjects": exclusion.subjects,
    }
    preparation = Preparation(
        store=given.output, recipe=recipe, sources=exclusion.rest, constants=constants, report=given.report
    )
    return preparation.run(given.engine(), given.shard)


def _task(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(TASK_USAGE)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in TASKS:
        raise ValueError(f"no task {name!r}{_nearest(name, TASKS)}; there are: {', '.join(TASKS)}")
    task_class = TASKS[name]
    # One flat set of flags: the task's own, and where the work is done.
    fields: list[Any] = [("path", str, field())]
    command_class: Any = dataclasses.make_dataclass(
        "TaskCommand", fields, bases=(task_class, RunOptions), frozen=True, kw_only=True
    )
    given = parse(
        command_class,
        rest,
        prog=f"codebrain-prep task {name}",
        description=_doc(task_class),
        positional=["path"],
    )
    task: Task = _part(task_class, given)
    sources = task.sources(given.path)
    print(say_subjects(sources))
    if said := task.warning():
        print(said)
    preparation = Preparation(
        store=given.output,
        recipe=task.recipe(),
        sources=sources,
        constants=task.constants(),
        task=task,
        report=given.report,
    )
    return preparation.run(given.engine(), given.shard)


def _synthetic(arguments: Sequence[str]) -> int:
    given = parse(
        SyntheticCommand,
        arguments,
        prog="codebrain-prep synthetic",
        description=_doc(SyntheticCommand),
        positional=["folder"],
    )
    files = write_recordings(
        given.folder, SyntheticConfig(minutes=given.minutes), subjects=given.subjects, seed=given.seed
    )
    print(f"{counted(len(files), 'recording')} of {given.minutes:g} minutes in {given.folder}")
    return 0


def _info(arguments: Sequence[str]) -> int:
    given = parse(
        InfoCommand, arguments, prog="codebrain-prep info", description=_doc(InfoCommand), positional=["store"]
    )
    print(describe(Store.open(given.store)))
    return 0


def _check(arguments: Sequence[str]) -> int:
    given = parse(
        CheckCommand, arguments, prog="codebrain-prep check", description=_doc(CheckCommand), positional=["stores"]
    )
    faults = [fault for store in given.stores for fault in check(store)]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return USER_MISTAKE if faults else 0


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _part(part_class: Any, whole: Any) -> Any:
    """The fields of `whole` that belong to one of its base classes."""
    return part_class(**{entry.name: getattr(whole, entry.name) for entry in dataclasses.fields(part_class)})


def _doc(config_class: Any) -> str:
    return (config_class.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    main()
