"""Two preparations of one store at the same time: who goes on, who is refused, and what the store then holds."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codebrain.data.format import Store
from data_prep.check import check
from data_prep.claim import planning, preparing
from tests.recordings import noise, write_edf
from tests.test_prep import QUICK, contents, prep

NO_LOCKS = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""

WAITING = """
import os, time
from data_prep import cli, write
prepare, gate = write._prepare, os.environ["GATE"]
def wait(job):
    open(f"{gate}.{os.getpid()}", "w").close()
    while not os.path.exists(gate):
        time.sleep(0.01)
    return prepare(job)
write._prepare = wait
cli.main()
"""
"""Begins its first recording, says so by the file GATE.PID, and goes on once there is the file GATE."""


@pytest.fixture
def start():
    """Start `codebrain-prep`; whatever still runs at the end of a test ends with it."""
    started: list[subprocess.Popen] = []

    def one(*arguments: object, program: tuple[str, ...] = ("-m", "data_prep.cli"), **environment: object):
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}},
        )
        started.append(process)
        return process

    yield one
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Recordings of other subjects under the same names, long enough to be met while they are prepared."""
    found = []
    for number, name in enumerate(("a", "b")):
        folder = tmp_path_factory.mktemp(name)
        for index in range(6):
            x = noise(19, 240, 250.0, seed=10 * number + index)
            write_edf(folder / f"sub-{index:02d}_eeg.edf", x, 250.0)
        found.append(folder)
    return found[0], found[1]


@pytest.fixture(scope="module")
def references(folders, tmp_path_factory) -> list[dict[str, bytes]]:
    """What undisturbed preparations of the two write."""
    stores = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        for folder in folders:
            store = tmp_path_factory.mktemp("reference") / "s"
            assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
            stores.append(contents(store))
    return stores


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize("environment", [{}, {"HDF5_USE_FILE_LOCKING": "FALSE"}], ids=["", "no locks of HDF5's"])
def test_of_two_preparations_the_second_is_refused_with_the_name_of_the_first(
    start, folders, references, tmp_path, environment
):
    store = tmp_path / "s"
    gate = tmp_path / "gate"
    waiting = {"GATE": gate, **environment}
    first = start("corpus", folders[0], "--output", store, *QUICK, program=("-c", WAITING), **waiting)
    wait_for(tmp_path / f"gate.{first.pid}", first)
    others = [start("corpus", folder, "--output", store, *QUICK, **environment) for folder in folders]
    others += [start("corpus", folders[0], "--output", store, *QUICK, "--shard", "1/2", **environment)]
    for other in others:
        _, message = other.communicate()
        assert other.returncode == 2
        assert f"another process ({first.pid} on " in message
        assert f"is preparing {store}; wait for its end, or give another --output." in message
    gate.touch()
    assert first.wait() == 0
    assert contents(store) == references[0]


@pytest.mark.parametrize("environment", [{}, {"HDF5_USE_FILE_LOCKING": "FALSE"}], ids=["", "no locks of HDF5's"])
def test_two_folders_that_begin_together_are_never_mixed(start, folders, references, tmp_path, environment):
    store = tmp_path / "s"
    both = [start("corpus", folder, "--output", store, *QUICK, **environment) for folder in folders]
    message = [process.communicate()[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], message
    won = codes.index(0)
    assert contents(store) == references[won]
    assert "another process" in message[1 - won] or "is another recording than" in message[1 - won]


def test_without_any_locks_what_is_published_is_of_one_run(start, folders, references, tmp_path):
    """On a file system that has none, both write the same rows: who finds the other's windows publishes nothing."""
    store, gate = tmp_path / "s", tmp_path / "gate"
    program = ("-c", NO_LOCKS + WAITING)
    both = [start("corpus", folder, "--output", store, *QUICK, program=program, GATE=gate) for folder in folders]
    for process in both:
        wait_for(tmp_path / f"gate.{process.pid}", process)
    gate.touch()
    message = [process.communicate()[1] for process in both]
    assert all("cannot be locked (No locks available)" in text for text in message)
    for process, text in zip(both, message, strict=True):
        assert process.returncode == 0 or (process.returncode == 2 and "does another process prepare" in text), text
    if (store / "store.json").exists() and not check(str(store)):
        assert contents(store) in references


def test_the_same_command_twice_together_is_done_once(start, folders, references, tmp_path):
    store = tmp_path / "s"
    both = [start("corpus", folders[0], "--output", store, *QUICK) for _ in range(2)]
    message = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 2], message
    assert contents(store) == references[0]


def test_parts_of_an_array_work_together_and_nobody_else(start, folders, references, tmp_path, monkeypatch, capsys):
    store = tmp_path / "s"
    gate = tmp_path / "gate"
    command = ["corpus", folders[0], "--output", store, *QUICK, "--shard"]
    parts = [start(*command, f"{part}/3", program=("-c", WAITING), GATE=gate) for part in (1, 2, 3)]
    for part in parts:
        wait_for(tmp_path / f"gate.{part.pid}", part)
    for flags, doing in (
        (["--shard", "2/3"], "part 2/3 of "),
        (["--shard", "1/2"], "part 1/3 of "),
        ([], "part 1/3 of "),
    ):
        assert prep(monkeypatch, "corpus", folders[0], "--output", store, *QUICK, *flags) == 2
        assert f"is preparing {doing}{store}; wait for its end" in capsys.readouterr().err
    gate.touch()
    assert [part.wait() for part in parts] == [0] * 3
    assert prep(monkeypatch, "corpus", folders[0], "--output", store, *QUICK) == 0
    assert contents(store) == references[0]


def test_parts_of_two_folders_are_refused_in_the_end(start, folders, tmp_path, monkeypatch, capsys):
    store = tmp_path / "s"
    parts = [
        start("corpus", folder, "--output", store, *QUICK, "--shard", f"{part}/2")
        for part, folder in enumerate(folders, start=1)
    ]
    codes = [part.wait() for part in parts]
    assert 0 in codes
    for folder in folders:
        code = prep(monkeypatch, "corpus", folder, "--output", store, *QUICK)
        assert code == 0 or "is another recording than" in capsys.readouterr().err
        assert code == 2 or codes != [0, 0]


def test_a_killed_preparation_blocks_nobody(start, folders, references, tmp_path, monkeypatch):
    store = tmp_path / "s"
    first = start("corpus", folders[0], "--output", store, *QUICK[:-1], "2")
    wait_for(store / "shards", first)
    os.kill(first.pid, signal.SIGKILL)  # alone: its workers may outlive it for a moment
    first.wait()
    assert (store / "progress" / "whole.lock").exists()
    assert prep(monkeypatch, "corpus", folders[0], "--output", store, *QUICK) == 0
    assert contents(store) == references[0]
    assert not list(store.rglob("*.partial"))


def test_what_may_prepare_at_the_same_time(tmp_path):
    """Every pair, in one process: the system's lock is on the open file."""
    kinds = [(0, 1), (0, 2), (1, 2), (0, 3)]
    for first in kinds:
        for second in kinds:
            together = first != second and first[1] == second[1] > 1
            with planning(tmp_path), preparing(tmp_path, *first):
                if together:
                    with preparing(tmp_path, *second):
                        pass
                    continue
                with pytest.raises(ValueError, match="another process"), preparing(tmp_path, *second):
                    pass


def test_a_full_disk_is_reported_and_the_rest_is_done_later(folders, references, tmp_path, monkeypatch):
    """The message, not a segmentation fault of HDF5's at the end of the program."""
    store = tmp_path / "s"
    for workers in ("1", "2"):
        command = [sys.executable, "-m", "data_prep.cli", "corpus", folders[0], "--output", store, *QUICK[:-1], workers]
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY)),
        )
        assert done.returncode == 2, done
        assert "File too large" in done.stderr
        assert "Make room and launch the same command again" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(store.rglob("*.partial"))
    assert prep(monkeypatch, "corpus", folders[0], "--output", store, *QUICK) == 0
    assert contents(store) == references[0]
    assert Store.open(store).n_windows > 0
