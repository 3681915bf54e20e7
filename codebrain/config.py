"""Commands: a frozen dataclass becomes flags, a YAML file and a help page; a user's mistake becomes one message.

Every leaf of the dataclass is a flag (`--optim.lr 3e-4`), `--config FILE` gives a base that the flags override,
`--print_config` shows the whole. Needs no torch, so that data preparation can use it.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import json
import os
import re
import sys
import time
import types
import typing
from argparse import Action
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, set_parsing_settings

Config = TypeVar("Config")

USER_MISTAKE = 2
"""Exit code of a command that was asked for something it cannot do."""

INTERRUPTED_BY_USER = 130
"""Exit code after Ctrl-C, as shells have it."""

_TRACEBACK = "CODEBRAIN_TRACEBACK"

_PATIENCE_S = 10.0
"""Seconds that the other processes of a run leave to the first one, whose end alone takes some."""


def command(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` as a program: exit with what it returns, or with 2 and one message for a user's mistake.

    ValueError and FileNotFoundError (and what else the file system refuses) are the user's to mend and print no
    traceback; with CODEBRAIN_TRACEBACK=1 they do. A training that diverged (FloatingPointError) exits with 1.
    """
    try:
        sys.exit(main() or 0)
    except KeyboardInterrupt:
        print("interrupted; launch the same command again to go on.", file=sys.stderr)
        sys.exit(INTERRUPTED_BY_USER)
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get(_TRACEBACK):
            raise
        _let_the_first_process_speak()
        print(f"error: {error}{_remedy(error)}", file=sys.stderr)
        sys.exit(1 if isinstance(error, FloatingPointError) else USER_MISTAKE)


def _let_the_first_process_speak() -> None:
    """Of several processes that fail for the same reason one says so: the launcher ends the others as they wait."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(_PATIENCE_S)


def _remedy(error: Exception) -> str:
    """What to do about a disk that is full, wherever a program met it."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return ". Make room and launch the same command again: what was finished is kept." if full else ""


def parse(
    config_class: type[Config],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str,
    positional: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
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
    defaults : mapping of str to value, optional
        By key (`clean.l_freq`), in place of the dataclass's own.

    Raises
    ------
    ValueError
        An unknown key (the message names the nearest valid one), a wrong type or a missing value.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    leaves = dict(_leaves(config_class))
    parser = ArgumentParser(
        prog=prog,
        usage=" ".join([prog, *map(_metavar, positional), "[--config FILE] [--KEY VALUE ...]"]),
        description=description,
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", action="config", help="YAML file with any of the values below; flags override it."
    )
    parser.add_class_arguments(config_class, as_group=False)
    parser.set_defaults(dict(defaults or {}))
    for action in parser._actions:
        action.without_flag = action.dest in positional  # type: ignore[attr-defined]
        if _is_list(leaves.get(action.dest)):
            action.metavar = f"{_metavar(action.dest)} ..."
    given = sys.argv[1:] if argv is None else list(argv)
    _require_config_file(given, leaves)
    arguments = _with_lists(given, leaves, positional)
    try:
        namespace = parser.parse_args(arguments)
    except ArgumentError as error:
        raise ValueError(explain(str(error), leaves, prog)) from None
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


class _Help(DefaultHelpFormatter):
    """Help whose required values claim no default, and whose positional ones no flag."""

    def _get_help_string(self, action: Action) -> str:
        text = super()._get_help_string(action)
        return text.replace(", default: %(default)s", "") if action.required else text

    def _format_action_invocation(self, action: Action) -> str:
        if getattr(action, "without_flag", False):
            return _metavar(action.dest)
        return super()._format_action_invocation(action)


def _metavar(key: str) -> str:
    return key.rpartition(".")[-1].upper()


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
        key, equals, value = token[2:].partition("=")
        if _is_list(leaves.get(key)):
            count = next((i for i, word in enumerate(rest) if _is_flag(word)), len(rest))
            values, rest = ([value], rest) if equals else (rest[:count], rest[count:])
            if not values:
                raise ValueError(f"--{key}: a value is missing; it takes {in_words(leaves[key])}")
            rewritten.append(f"--{key}={_yaml_list(values, leaves[key])}")
        elif equals or token == "-h" or key in ("help", "print_config") or not rest:
            rewritten.append(token)
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
        raise ValueError(f"unexpected argument {bare[0]!r}{_why_unexpected(bare[0], leaves, positional)}")


def _why_unexpected(token: str, leaves: dict[str, Any], positional: Sequence[str]) -> str:
    key = token.lstrip("-").partition("=")[0]
    if token.startswith("-") or key in leaves:
        return f"; did you mean a flag, `--{key}`?"
    if not positional:
        return ": this command takes flags alone"
    return f": this command takes one {_metavar(positional[-1])}"


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


def explain(message: str, leaves: dict[str, Any], prog: str) -> str:
    """Turn the parser's message into one that says what was given, what is allowed and what comes nearest.

    Parameters
    ----------
    message : str
        The parser's.
    leaves : dict
        Type of each key.
    prog : str
        Name of the program.
    """
    if unknown := _unknown_key(message):
        return _explain_unknown(unknown, list(leaves))
    if found := re.search(r"arguments are required: (.+)", message):
        flags = ", ".join(f"--{key}" for key in found[1].split(", "))
        return f"{flags}: must be given, as a flag or in the file of --config. `{prog} --help` says what each means."
    if found := re.search(r"argument --([\w.]+).*expected one argument", message):
        return f"--{found[1]}: a value is missing; it takes {in_words(leaves.get(found[1], str))}"
    if (found := re.search(r"Parser key \"([\w.]+)\":(.*)", message, re.DOTALL)) is None:
        return f"--config: {message}"
    key, reason = found.groups()
    if key not in leaves:
        return _explain_group(key, leaves)
    # Of a union the parser lists what each member expects before it comes to the value.
    value = re.split("(?:Got|Given) value: ", reason)[-1].strip()
    near = difflib.get_close_matches(value, [name for kind in _flatten(leaves[key]) for name in _choices(kind)], n=1)
    return f"--{key} is {value}; it takes {in_words(leaves[key])}." + (f" Did you mean {near[0]}?" if near else "")


def in_words(kind: Any) -> str:
    """What a key of this type takes."""
    if names := _choices(kind):
        return _any_of(names)
    members = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and members and members[-1] is not Ellipsis:
        return f"{len(members)} values: " + ", ".join(map(in_words, members))
    if typing.get_origin(kind) in (list, tuple):
        return f"one value or more, each {in_words(members[0])}"
    if typing.get_origin(kind) is dict:
        return f"a map whose values are each {in_words(members[1])} (a number is one in quotes)"
    if members:  # a union
        return _any_of([word for member in members for word in _choices(member) or [in_words(member)]])
    return _WORDS.get(kind, "a text")


def _any_of(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def _choices(kind: Any) -> list[str]:
    return [str(name) for name in typing.get_args(kind)] if typing.get_origin(kind) is typing.Literal else []


def _explain_group(key: str, leaves: dict[str, Any]) -> str:
    inside = ", ".join(leaf for leaf in leaves if leaf.startswith(f"{key}."))
    return f"{key} is no single value; give those in it: {inside}"


def _explain_unknown(unknown: str, keys: list[str]) -> str:
    last = unknown.rsplit(".", maxsplit=1)[-1]
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


def _require_config_file(arguments: list[str], leaves: dict[str, Any]) -> None:
    """Raise for a file of --config that is not there, or holds anything but keys and values."""
    for index, token in enumerate(arguments):
        name, equals, value = token.partition("=")
        if name != "--config":
            continue
        path = Path(value if equals else (arguments[index + 1 :] or [""])[0])
        if not path.is_file():
            raise FileNotFoundError(f"--config {path}: no such file")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"--config {path}: not YAML ({' '.join(str(error).split())})") from None
        if content is not None and not isinstance(content, dict):
            raise ValueError(f"--config {path}: holds {content!r}, but must hold lines such as `key: value`")
        groups = {leaf.split(".")[0] for leaf in leaves if "." in leaf}
        for key, inside in (content or {}).items():
            if key in groups and not isinstance(inside, dict):
                raise ValueError(f"--config {path}: {_explain_group(key, leaves)}")
