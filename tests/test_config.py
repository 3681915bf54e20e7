"""Commands made of dataclasses: what is read, and what a user is told."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from codebrain.config import command, load, parse, to_yaml


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Inner."""

    rate: float = 1e-3
    """Learning rate."""
    pair: tuple[int, int] = (1, 2)
    """Two numbers."""
    mode: Literal["slow", "fast"] = "slow"
    """How."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Outer."""

    paths: list[str]
    """Where from."""
    output: str
    """Where to."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds."""
    inner: Inner = Inner()
    """Inner."""


def read(*arguments: str) -> Outer:
    return parse(Outer, arguments, prog="test", description="A test.", positional=("paths",))


def test_defaults_stand_below_file_and_flags(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("inner:\n  mode: slow\n")
    defaults = {"inner.rate": 0.5, "inner.mode": "fast", "output": "there"}
    arguments = ["a", "--config", str(base), "--inner.pair", "5", "6"]
    config = parse(Outer, arguments, prog="test", description="", positional=("paths",), defaults=defaults)
    assert (config.output, config.inner) == ("there", Inner(rate=0.5, pair=(5, 6), mode="slow"))


def test_flags_lists_and_positionals() -> None:
    config = read(
        "a", "b c", "--output", "17", "--seeds", "0", "1", "2", "--inner.rate", "3e-4", "--inner.pair", "5", "6"
    )
    assert config == Outer(paths=["a", "b c"], output="17", seeds=[0, 1, 2], inner=Inner(rate=3e-4, pair=(5, 6)))


def test_the_command_line_wins_over_yaml(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("inner: {rate: 0.5, mode: fast}\nseeds: [4, 5]\n")
    config = read("a", "--output=x", "--config", str(base), "--inner.rate", "0.25")
    assert (config.inner, config.seeds) == (Inner(rate=0.25, mode="fast"), [4, 5])


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = Outer(paths=["a"], output="1e3", inner=Inner(pair=(7, 8)))
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load(Outer, path) == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inner.rat", "1"], "unknown configuration key 'inner.rat'. Did you mean 'inner.rate'?"),
        (["--rate", "1"], "unknown configuration key 'rate'. Did you mean 'inner.rate'?"),
        (["--inner.rate", "many"], "--inner.rate is many; it takes a number."),
        (["--inner.mode", "fst"], "--inner.mode is fst; it takes slow or fast. Did you mean fast?"),
        (["--inner.pair", "1"], r"--inner.pair is \[1\]; it takes 2 values: a whole number, a whole number."),
        (["--seeds", "0.5"], "--seeds is 0.5; it takes one value or more, each a whole number."),
        (["--seeds"], "--seeds: a value is missing; it takes one value or more, each a whole number"),
        (["--inner.rate"], "--inner.rate: a value is missing; it takes a number"),
        (["--inner", "5"], "inner is no single value; give those in it: inner.rate, inner.pair, inner.mode"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message.replace("?", r"\?")):
        read("a", "--output", "x", *arguments)


def test_unknown_key_in_yaml_names_the_nearest(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("inner: {rats: 0.5}\n")
    with pytest.raises(ValueError, match=r"'inner.rats'. Did you mean 'inner.rate'"):
        read("a", "--output", "x", "--config", str(base))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: 5\n", "inner is no single value; give those in it: inner.rate"),
        ("5\n", "holds 5, but must hold lines such as `key: value`"),
        ("inner: {rate: 1\n", "not YAML"),
        ("seeds: [a]\n", "--seeds is a; it takes one value or more, each a whole number"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(text)
    with pytest.raises(ValueError, match=message):
        read("a", "--output", "x", "--config", str(base))


def test_missing_values() -> None:
    with pytest.raises(ValueError, match=r"--paths, --output: must be given.*`test --help`"):
        read()


def test_a_list_may_follow_an_equals_sign() -> None:
    assert read("a", "--output=x", "--seeds=3").seeds == [3]
    assert read("--paths=a b", "--output=x", "--seeds=[1, 2]") == Outer(paths=["a b"], output="x", seeds=[1, 2])


def test_help_gives_the_meaning_of_every_leaf(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    text = " ".join(capsys.readouterr().out.split())
    for known in (Outer, Inner):
        for leaf in dataclasses.fields(known):
            assert leaf.name in text or leaf.name.upper() in text
    assert "Learning rate." in text
    # What is given without a flag is shown so; what is required has no default.
    assert text.startswith("usage: test PATHS [--config FILE] [--KEY VALUE ...]")
    assert "--paths" not in text
    assert "Where to. (required, type: str)" in text


@pytest.mark.parametrize(("error", "code"), [(ValueError, 2), (FileNotFoundError, 2), (FloatingPointError, 1)])
def test_a_users_mistake_prints_one_line(capsys: pytest.CaptureFixture[str], error: type[Exception], code: int) -> None:
    def main() -> None:
        raise error("the value 3 is wrong; use 4")

    with pytest.raises(SystemExit) as ended:
        command(main)
    assert ended.value.code == code
    assert capsys.readouterr().err == "error: the value 3 is wrong; use 4\n"


def test_a_full_disk_has_a_remedy_wherever_it_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(SystemExit):
        command(main)
    assert "No space left on device. Make room and launch the same command again" in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        command(main)
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("interrupted; launch the same command again")


def test_bugs_keep_their_traceback() -> None:
    def main() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        command(main)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A choice that may be left open."""

    path: str
    """A file."""
    unit: Literal["auto", "V", "mV", "uV"] | None = None
    """Unit."""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["a", "--unit", "pV"], "--unit is pV; it takes auto, V, mV, uV or null. Did you mean V?"),
        (["a", "b"], "unexpected argument 'b': this command takes one PATH"),
        (["a", "unit=V"], "unexpected argument 'unit=V'; did you mean a flag, `--unit`?"),
    ],
)
def test_what_is_too_much_or_no_choice_is_said_in_one_line(line, message):
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        parse(Unit, line, prog="p", description="", positional=["path"])


def test_a_command_of_flags_alone_says_so():
    with pytest.raises(ValueError, match="unexpected argument 'a': this command takes flags alone"):
        parse(Unit, ["a", "--path", "b"], prog="p", description="")
