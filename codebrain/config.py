"""Commands: a frozen dataclass becomes flags, a YAML file and a help page; a user's mistake becomes one message.

Every leaf of the dataclass is a flag (`--optim.lr 3e-4`), `--config FILE` gives a base that the flags override,
`--print_config` shows the whole. Needs no torch, so that data preparation can use it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

Config = TypeVar("Config")

USER_MISTAKE = 2
"""Exit code of a command that was asked for something it cannot do."""

_TRACEBACK = "CODEBRAIN_TRACEBACK"


def command(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` as a program: exit with what it returns, or with 2 and one message for a user's mistake.

    ValueError and FileNotFoundError (and what else the file system refuses) are the user's to mend and print no
    traceback; with CODEBRAIN_TRACEBACK=1 they do. A training that diverged (FloatingPointError) exits with 1.
    """
    try:
        sys.exit(main() or 0)
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get(_TRACEBACK):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, FloatingPointError) else USER_MISTAKE)


def parse(
    config_class: type[Config],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str,
    positional: Sequence[str] = (),
) -> Config:
    """Make a `config_class` out of the command line.

    Parameters
    ----------
    config_class : dataclass
        Its fields, and those of the dataclasses in it, are the flags; the docstring under a field is its help.
        A flag of a list field takes several values: `--seeds 0 1 2`.
    argv : list of str, optional
        The arguments after the program's name; those of this process by default.
    positional : sequence of str
        Names of top-level fields that are given without a flag; the last one may be a list.

    Raises
    ------
    ValueError
        An unknown key (the message names the nearest valid one), a wrong type or a missing value.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    leaves = dict(_leaves(config_class))
    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the values below; flags override it.")
    parser.add_class_arguments(config_class, as_group=False)
    given = sys.argv[1:] if argv is None else list(argv)
    _require_config_file(given)
    arguments = _with_lists(given, leaves, positional)
    try:
        namespace = parser.parse_args(arguments)
    except ArgumentError as error:
        raise ValueError(_explain(str(error), list(leaves))) from None
    namespace.pop("config", None)
    return config_class(**vars(parser.instantiate(namespace)))


def to_yaml(config: Any) -> str:
    """A configuration as YAML that `--config` reads back."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as nested dicts of JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def load(config_class: type[Config], path: Path) -> Config:
    """Read back what `to_yaml` wrote."""
    return parse(config_class, [f"--config={path}"], prog=str(path), description="")


class _Dumper(yaml.SafeDumper):
    """Quotes a text that another reader could take for a number, such as 1e3."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    looks_numeric = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value, re.IGNORECASE) is not None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if looks_numeric else None)


_Dumper.add_representer(str, _text)


def _leaves(config_class: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _leaves(kind, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", kind


def _is_list(kind: Any) -> bool:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return any(_is_list(member) for member in typing.get_args(kind))
    return typing.get_origin(kind) in (list, tuple)


def _with_lists(arguments: list[str], leaves: dict[str, Any], positional: Sequence[str]) -> list[str]:
    """Rewrite `--flag a b` of list fields as `--flag=["a", "b"]`, and bare values as the flags of `positional`."""
    rewritten: list[str] = []
    bare: list[str] = []
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if not _is_flag(token):
            bare.append(token)
            continue
        key = token[2:]
        if "=" in key or token == "-h" or key in ("help", "print_config") or not rest:
            rewritten.append(token)
        elif _is_list(leaves.get(key)):
            count = next((i for i, value in enumerate(rest) if _is_flag(value)), len(rest))
            values, rest = rest[:count], rest[count:]
            rewritten.append(f"{token}={_yaml_list(values, leaves[key])}")
        else:
            rewritten += [token, rest.pop(0)]
    return rewritten + list(_as_flags(bare, leaves, positional))


def _is_flag(token: str) -> bool:
    return token.startswith("--") or token == "-h"


def _as_flags(bare: list[str], leaves: dict[str, Any], positional: Sequence[str]) -> Iterator[str]:
    for name in positional:
        if not bare:
            return
        if _is_list(leaves[name]):
            yield f"--{name}={_yaml_list(bare, leaves[name])}"
            bare = []
        else:
            yield f"--{name}={bare.pop(0)}"
    if bare:
        raise ValueError(f"unexpected argument {bare[0]!r}; did you mean a flag, `--{bare[0]}`?")


def _yaml_list(values: list[str], kind: Any) -> str:
    if len(values) == 1 and values[0].startswith("["):
        return values[0]
    if str in _flatten(kind):
        return json.dumps(values)
    return "[" + ", ".join(values) + "]"


def _flatten(kind: Any) -> Iterator[Any]:
    yield kind
    for member in typing.get_args(kind):
        yield from _flatten(member)


def _explain(message: str, keys: list[str]) -> str:
    """Turn the parser's message into one that names the nearest valid key."""
    unknown = _unknown_key(message)
    if unknown is None:
        return message
    last = unknown.split(".")[-1]
    near = [key for key in keys if key.split(".")[-1] == last]
    near = near or difflib.get_close_matches(unknown, keys, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else " `--help` lists all."
    return f"unknown configuration key {unknown!r}.{hint}"


def _unknown_key(message: str) -> str | None:
    if found := re.search(r"unrecognized arguments: --([\w.]+)", message):
        return found.group(1)
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return ".".join(found.groups())
    if found := re.search(r"Option '([\w.]+)' is not accepted", message):
        return found.group(1)
    return None


def _require_config_file(arguments: list[str]) -> None:
    for index, token in enumerate(arguments):
        name, equals, value = token.partition("=")
        if name == "--config":
            path = Path(value if equals else (arguments[index + 1 :] or [""])[0])
            if not path.is_file():
                raise FileNotFoundError(f"--config {path}: no such file")
