"""Recipes: the paper's fine-tuning of each data set, by the name that `codebrain-prep task` gives it.

A recipe is `configs/paper.yaml` and upon it `configs/recipes/NAME.yaml`, which says only what is the data set's own:
the first layer of the head, a sequence head for sleep, or that the published split divides persons. Both come before
what the user gives, so that a user's files and flags win. Selection and figures of merit follow from the number of
classes, see `finetune.task` and `finetune.metrics`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import yaml

from finetune.task import Task

_CONFIGS = Path(__file__).parent / "configs"


def names() -> list[str]:
    """Data sets that have a recipe."""
    return sorted(path.stem for path in (_CONFIGS / "recipes").glob("*.yaml"))


def named(argv: Sequence[str]) -> str | None:
    """The recipe that a command line asks for, by its flag or in the file of --config; the last one counts.

    Before anything is parsed: `--print_config` and `--help` must show the recipe's values, too.
    """
    found: dict[str, str] = {}
    for token, following in zip(argv, [*argv[1:], ""], strict=True):
        flag, equals, value = token.partition("=")
        given = value if equals else following
        if flag == "--recipe":
            found["flag"] = given
        elif flag == "--config" and Path(given).is_file():
            try:
                content = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError):
                continue  # the parser says what is wrong with the file
            if isinstance(content, dict) and content.get("recipe"):
                found["file"] = str(content["recipe"])
    return found.get("flag", found.get("file"))


def flags(name: str) -> list[str]:
    """What a recipe puts before the command line.

    Raises
    ------
    ValueError
        There is no such recipe; the message names those there are.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"--recipe {name}: no such recipe; there are {', '.join(names())}.{hint}")
    return [f"--config={_CONFIGS / 'paper.yaml'}", f"--config={_CONFIGS / 'recipes' / f'{name}.yaml'}"]


def check(name: str, task: Task) -> None:
    """Raise ValueError if a recipe is meant for another data set than that of a store."""
    if task.name != name:
        known = f"`--recipe {task.name}`" if task.name in names() else "a --config of your own"
        raise ValueError(f"--recipe {name}, but the store is of the data set {task.name!r}: give {known}.")
