"""Locks on folders: one process at a time, whatever became of the one before."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codebrain.lock import hold

HOLDER = """
import os, sys, time
from pathlib import Path
from codebrain.lock import hold
lock = hold(Path(sys.argv[1]), "busy", "wait")
is_parent = sys.argv[2] == "fork" and os.fork() != 0
if not is_parent:  # with "fork" a worker, which outlives the process that forked it
    print("held", flush=True)
time.sleep(60)
"""


def holder(path: Path, how: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, how], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path, how: str) -> None:
    path = tmp_path / ".lock"
    process = holder(path, how)
    with pytest.raises(ValueError, match=rf"another process \({process.pid} on .*, since .*\) is busy; wait\."):
        hold(path, "busy", "wait")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lock = hold(path, "busy", "wait")
    assert lock is not None
    assert str(os.getpid()) in path.read_text()
    lock.release()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_a_lock_can_be_waited_for(tmp_path: Path) -> None:
    process = holder(tmp_path / ".lock", "alone")
    process.send_signal(signal.SIGTERM)
    lock = hold(tmp_path / ".lock", "busy", "wait", patience=30)
    assert lock is not None
    lock.release()
    process.wait()


def test_a_lock_that_is_forgotten_is_released(tmp_path: Path) -> None:
    assert hold(tmp_path / ".lock", "busy", "wait") is not None
    lock = hold(tmp_path / ".lock", "busy", "wait")
    assert lock is not None
    lock.release()


def test_what_cannot_be_written_is_no_file_system_without_locks(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        hold(tmp_path / "file" / ".lock", "busy", "wait")
