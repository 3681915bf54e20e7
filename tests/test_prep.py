"""The command as users type it: stores, what is taken up again, what is refused."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest

from codebrain.channels import TEN_TWENTY_19
from codebrain.data.format import Store
from data_prep import cli
from data_prep.corpora import find_recordings
from data_prep.cut import EverywhereCutter
from data_prep.engine import EngineConfig, _alone, run
from data_prep.output import _kind
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig, grid
from data_prep.write import Job
from tests.recordings import noise, write_edf, write_subjects

CONFIGS = Path(cli.__file__).parent / "configs"
QUICK = ["--config", str(CONFIGS / "small.yaml"), "--windows.seconds", "4", "--workers", "1"]


def prep(monkeypatch, *arguments) -> int:
    """Run `codebrain-prep` in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["codebrain-prep", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def contents(store: Path) -> dict[str, bytes]:
    """Everything that counts in a store: its index, its rows and the digest of each shard."""
    files = {name: (store / name).read_bytes() for name in ("store.json", "recordings.csv")}
    return files | {path.name: h5py.File(path)["windows"][:].tobytes() for path in (store / "shards").iterdir()}


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "data_prep.cli", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four subjects, one file that is no recording."""
    path = tmp_path_factory.mktemp("recordings")
    write_subjects(path, 4, seconds=24)
    (path / "sub-99_eeg.edf").write_bytes(b"0" * 1000)
    return path


@pytest.fixture(scope="module")
def reference(folder, tmp_path_factory) -> dict[str, bytes]:
    """What an undisturbed preparation of that folder writes."""
    store = tmp_path_factory.mktemp("reference") / "store"
    monkeypatch = pytest.MonkeyPatch()
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    monkeypatch.undo()
    return contents(store)


def test_corpus_becomes_a_store(folder, tmp_path, monkeypatch, capsys):
    assert prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *QUICK) == 0
    said = capsys.readouterr().out
    assert "5 recordings of 5 subjects, told apart by BIDS (sub-XX)" in said
    assert "4 used, 0 without a usable window, 1 unusable" in said
    assert "recording-hours per minute" in said
    store = Store.open(tmp_path / "s")
    assert store.info.sfreq == 200
    assert [row.subject for row in store.recordings] == ["sub-00", "sub-01", "sub-02", "sub-03", "sub-99"]
    assert [row.status for row in store.recordings] == ["ok"] * 4 + ["failed"]
    assert "cannot be read" in store.recordings[4].reason
    assert {shard.ch_names for shard in store.shards} == {TEN_TWENTY_19}
    assert store.n_windows == sum(row.kept for row in store.recordings) == 16
    assert not list((tmp_path / "s").rglob("*.partial"))
    assert prep(monkeypatch, "info", tmp_path / "s") == 0
    assert "16 of 4 s at 200 Hz" in capsys.readouterr().out


def test_windows_hold_the_recording_in_microvolts_at_the_time_they_say(tmp_path, monkeypatch):
    t = np.arange(30 * 500) / 500
    x = np.stack([30 * np.sin(2 * np.pi * 9 * t), 10 * np.cos(2 * np.pi * 20 * t)])
    write_edf(tmp_path / "in" / "a.edf", x + 500, 500.0, labels=["Fp1", "Cz"])
    flags = ["--config", CONFIGS / "small.yaml", "--channels.names", "[]", "--windows.seconds", "5"]
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", tmp_path / "s", *flags) == 0
    with h5py.File(tmp_path / "s" / "shards" / "000000.h5") as h5:
        uv = h5["windows"][:] * h5["scale"][:][:, None, None]
        for window, start_seconds in zip(uv, h5["start"][:], strict=True):
            u = start_seconds + np.arange(1000) / 200
            np.testing.assert_allclose(window[0], 30 * np.sin(2 * np.pi * 9 * u), atol=0.3)
            np.testing.assert_allclose(window[1], 10 * np.cos(2 * np.pi * 20 * u), atol=0.1)


def test_again_does_nothing_and_changes_nothing(folder, reference, tmp_path, monkeypatch, capsys):
    store = tmp_path / "s"
    prep(monkeypatch, "corpus", folder, "--output", store, *QUICK)
    assert contents(store) == reference
    before = {path: path.stat().st_mtime_ns for path in (store / "shards").iterdir()}
    capsys.readouterr()
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert contents(store) == reference
    assert {path: path.stat().st_mtime_ns for path in (store / "shards").iterdir()} == before


def test_processes_and_parts_of_an_array_give_the_same_store(folder, reference, tmp_path, monkeypatch, capsys):
    two = tmp_path / "two"
    assert prep(monkeypatch, "corpus", folder, "--output", two, *QUICK[:-1], "2") == 0
    assert contents(two) == reference
    parts = tmp_path / "parts"
    for part in ("2/2", "1/2"):
        assert prep(monkeypatch, "corpus", folder, "--output", parts, *QUICK, "--shard", part) == 0
        assert not (parts / "store.json").exists()
    assert prep(monkeypatch, "corpus", folder, "--output", parts, *QUICK) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert contents(parts) == reference


def test_parts_that_begin_at_the_same_time_give_the_same_store(folder, reference, tmp_path, monkeypatch):
    store = tmp_path / "s"
    parts = [start("corpus", folder, "--output", store, *QUICK, "--shard", f"{part}/4") for part in range(1, 5)]
    assert [part.wait() for part in parts] == [0] * 4
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    assert contents(store) == reference


def test_a_kill_before_the_plan_was_written_is_taken_up(folder, reference, tmp_path, monkeypatch):
    (tmp_path / "s" / "progress").mkdir(parents=True)
    (tmp_path / "s" / "progress" / "plan.1.partial").write_text("{")
    assert prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *QUICK) == 0
    assert contents(tmp_path / "s") == reference
    assert not list((tmp_path / "s").rglob("*.partial"))


def test_new_recordings_are_added_behind_the_old(folder, tmp_path, monkeypatch):
    inside, store = tmp_path / "in", tmp_path / "s"
    first, second = write_subjects(inside, 2, seconds=24)
    content = first.read_bytes()
    first.unlink()
    prep(monkeypatch, "corpus", inside, "--output", store, *QUICK)
    first.write_bytes(content)
    prep(monkeypatch, "corpus", inside, "--output", store, *QUICK)
    opened = Store.open(store)
    assert [row.path for row in opened.recordings] == [second.name, first.name]
    assert [shard.runs[0][0] for shard in opened.shards] == [0, 1]


def test_recordings_that_are_gone_keep_their_rows_and_shards(tmp_path, monkeypatch, capsys):
    inside, store = tmp_path / "in", tmp_path / "s"
    files = write_subjects(inside, 4, seconds=24)
    prep(monkeypatch, "corpus", inside, "--output", store, *QUICK)
    before, fingerprint = contents(store), Store.open(store).fingerprint()
    files[0].unlink()
    capsys.readouterr()
    assert prep(monkeypatch, "corpus", inside, "--output", store, *QUICK) == 0
    assert "kept        1 of an earlier run" in capsys.readouterr().out
    assert contents(store) == before
    assert Store.open(store).fingerprint() == fingerprint
    write_edf(inside / "sub-00a_eeg.edf", noise(19, 24, 250.0), 250.0)
    prep(monkeypatch, "corpus", inside, "--output", store, *QUICK)
    assert [(row.row, row.subject) for row in Store.open(store).recordings][::4] == [(0, "sub-00"), (4, "sub-00a")]


def test_the_same_recordings_under_another_root_are_refused(tmp_path, monkeypatch, capsys):
    write_subjects(tmp_path / "a", 1, seconds=24)
    write_subjects(tmp_path / "b", 2, seconds=24)
    both = [tmp_path / "a", tmp_path / "b"]
    for first, second in ((both, both[1:]), (both[:1], both)):
        store = tmp_path / f"s{len(first)}"
        assert prep(monkeypatch, "corpus", *first, "--output", store, *QUICK) == 0
        before = contents(store)
        capsys.readouterr()
        assert prep(monkeypatch, "corpus", *second, "--output", store, *QUICK) == 2
        assert "sub-00_eeg.edf looks like the same" in capsys.readouterr().err
        assert contents(store) == before


def test_another_recording_of_the_same_name_and_size_is_refused(tmp_path, monkeypatch, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        write_edf(tmp_path / name / "rest.edf", noise(19, 24, 250.0, seed=seed), 250.0)
    store = tmp_path / "s"
    assert prep(monkeypatch, "corpus", tmp_path / "a", "--output", store, *QUICK) == 0
    before = contents(store)
    assert prep(monkeypatch, "corpus", tmp_path / "b", "--output", store, *QUICK) == 2
    assert "is another recording than the rest.edf that" in capsys.readouterr().err
    assert contents(store) == before
    # Moved to another place it is the same recording.
    (tmp_path / "a").rename(tmp_path / "c")
    assert prep(monkeypatch, "corpus", tmp_path / "c", "--output", store, *QUICK) == 0
    assert "nothing was left to do" in capsys.readouterr().out


def test_a_report_shows_the_store_and_recordings(folder, tmp_path, monkeypatch, capsys):
    flags = ["--output", tmp_path / "s", *QUICK]
    assert prep(monkeypatch, "corpus", folder, *flags) == 0
    page = tmp_path / "pages" / "report.html"
    # Of a finished store too: the same command again.
    assert prep(monkeypatch, "corpus", folder, *flags, "--report", page) == 0
    assert "the store and 3 recordings: sub-00_eeg.edf" in capsys.readouterr().out
    content = page.read_text(encoding="utf-8")
    assert f"windows     {Store.open(tmp_path / 's').n_windows} of 4 s at 200 Hz" in content
    assert content.count("Spectra before and after") >= 3
    assert content.count("image/webp;base64") + content.count("image/png;base64") >= 1 + 3 * 3


def test_reasons_of_a_kind_are_counted_together():
    kinds = {
        "too short: 3 s leave no window of 30 s": "too short",
        "lacks 2 of 19 wanted channels: Fz, Cz": "lacks ... of ... wanted channels",
        "wrong unit? With the unit in its header its amplitude is 4e+06": "wrong unit",
        "cannot be read, it may be damaged (Bad EDF: ?)": "cannot be read, it may be damaged",
        "its numbers taken for uV; no usable window: flat 6 (T7 6)": "no usable window",
    }
    assert {reason: _kind(reason) for reason in kinds} == kinds


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no HDF5")])
def test_info_of_a_store_with_a_missing_shard_says_what_to_do(folder, tmp_path, monkeypatch, capsys, damage):
    prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *QUICK)
    damage(tmp_path / "s" / "shards" / "000001.h5")
    assert prep(monkeypatch, "info", tmp_path / "s") == 2
    said = capsys.readouterr().err
    assert "000001.h5" in said
    assert "run the same codebrain-prep command again" in said


def test_a_record_that_a_power_cut_left_empty_is_made_again(folder, reference, tmp_path, monkeypatch):
    prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *QUICK)
    (tmp_path / "s" / "progress" / "000001.json").write_bytes(b"")
    assert prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *QUICK) == 0
    assert contents(tmp_path / "s") == reference


@pytest.mark.parametrize("size", [None, 0, 5000])
def test_a_shard_that_was_deleted_or_cut_short_by_a_power_cut_is_made_again(
    size, folder, reference, tmp_path, monkeypatch
):
    store = tmp_path / "s"
    prep(monkeypatch, "corpus", folder, "--output", store, *QUICK)
    shard = store / "shards" / "000001.h5"
    shard.unlink() if size is None else os.truncate(shard, size)
    assert prep(monkeypatch, "corpus", folder, "--output", store, *QUICK) == 0
    assert contents(store) == reference


def test_a_mended_file_is_prepared_again(tmp_path, monkeypatch):
    inside, store = tmp_path / "in", tmp_path / "s"
    files = write_subjects(inside, 2, seconds=24)
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-20_000])
    prep(monkeypatch, "corpus", inside, "--output", store, *QUICK)
    assert Store.open(store).recordings[0].status == "failed"
    files[0].write_bytes(content)
    prep(monkeypatch, "corpus", inside, "--output", store, *QUICK)
    assert [row.status for row in Store.open(store).recordings] == ["ok", "ok"]


def test_another_configuration_is_refused(folder, tmp_path, monkeypatch, capsys):
    prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *QUICK)
    before = contents(tmp_path / "s")
    assert prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *QUICK, "--clean.h_freq", "60") == 2
    said = capsys.readouterr().err
    assert "clean.h_freq: 75.0 there, 60.0 now" in said
    assert "another --output" in said
    assert contents(tmp_path / "s") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["corpus", "{empty}", "--output", "{out}"], "no recordings in"),
        (["corpus", "{empty}/nowhere", "--output", "{out}"], "no such file or folder"),
        (["corpus", "{data}", "--output", "{out}", "--windows.second", "3"], "windows.seconds"),
        (["corpus", "{data}", "--output", "{out}", "--windows.seconds", "long"], "seconds"),
        (["corpus", "{data}", "--output", "{out}", "--shard", "3/2"], "1 <= i <= n"),
        (["corpus", "{data}", "--output", "{out}", "--shard", "1/2", "--report", "r.html"], "a whole store"),
        (["corpus", "{data}", "--output", "{out}", "--backend", "dask"], "--scheduler"),
        (["corpus", "{data}", "--output", "{out}", "--report", "{data}"], "is a folder"),
        (["corpus", "{data}", "--output", "{out}", "--clean.notch", "0"], "clean.notch is 0 Hz"),
        (["corpus", "{data}", "--output", "{out}", "--clean.l_freq", "-1"], "clean.l_freq is -1 Hz"),
        (["corpus", "{data}", "--output", "{out}", "--windows.seconds", "0.001"], "fewer than two samples"),
        (["corpus", "{data}", "--output", "{out}", "--windows.max_uv", "-5"], "windows.max_uv is -5 microvolts"),
        (["corpus", "{data}", "--output", "{out}", "--guard.max_uv", "0.1"], "leave nothing between them"),
        (["corpus", "{data}", "--output", "{out}", "--channels.names", "[T3,T7]"], "names T7 more than once"),
        (["corpus", "{data}", "--output", "{out}", "--channels.max_interpolated", "-3"], "cannot be negative"),
        (["corpus", "{data}", "--output", "{out}", "--workers", "-2"], "--workers is -2"),
        (["corpus", "{data}", "--output", "{out}", "--subject_pattern", "("], "no regular expression"),
        (["corpus", "{data}", "--output", "{out}", "--subject_pattern", "xyz(\\d+)"], "fits no recording"),
        (["corpus", "{data}", "--output", "{data}"], "holds files but no preparation"),
        (["task", "nonsense", "{data}", "--output", "{out}"], "there are: faced"),
        (["task", "mental_aritmetic", "{data}", "--output", "{out}"], "(did you mean mental_arithmetic?)"),
        (["taks", "events"], "no command 'taks' (did you mean task?)"),
        (
            ["task", "mental_arithmetic", "{data}", "--output", "{out}"],
            "does not hold the files of EEG During Mental Arithmetic Tasks",
        ),
        (["task", "mental_arithmetic", "{data}", "--output", "{out}", "--protocol", "mine"], "protocol"),
        (["synthetic", "{out}", "--subjects", "0"], "--subjects is 0"),
        (["synthetic", "{out}", "--minutes", "0.5"], "--minutes is 0.5"),
        (["info", "{empty}"], "not a complete store"),
        (["prepare"], "no command 'prepare'"),
    ],
)
def test_mistakes_get_a_message_and_leave_nothing(arguments, message, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    places = {"data": folder, "empty": tmp_path / "empty", "out": tmp_path / "out"}
    before = sorted(folder.iterdir())
    assert prep(monkeypatch, *(word.format(**places) for word in arguments)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "store.json").exists()
    assert sorted(folder.iterdir()) == before


def test_nothing_usable_is_an_exit_of_its_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.edf").write_bytes(b"")
    write_edf(tmp_path / "in" / "heart.edf", noise(1, 20, 200.0), 200.0, labels=["ECG"])
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", tmp_path / "s", *QUICK) == 1
    said = capsys.readouterr().out
    assert "3 x empty file" in said
    assert "1 x none of the wanted channels" in said
    assert not (tmp_path / "s" / "store.json").exists()
    assert (tmp_path / "s" / "recordings.csv").read_text().count("empty file") == 3


@pytest.mark.parametrize("preset", ["pretrain", "small", "labram"])
def test_presets_are_read(preset, tmp_path, monkeypatch):
    write_subjects(tmp_path / "in", 1, seconds=310 if preset == "pretrain" else 30)
    preset_file = CONFIGS / f"{preset}.yaml"
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", tmp_path / "s", "--config", preset_file) == 0
    store = Store.open(tmp_path / "s")
    assert store.info.window_seconds == {"pretrain": 30, "small": 10, "labram": 4}[preset]
    # The published recipe drops the first minute and the last with what is left over.
    assert store.n_windows == {"pretrain": 6, "small": 2, "labram": 5}[preset]
    assert store.info.preparation["clean"]["order"] == ("filter_first" if preset == "labram" else "resample_first")


@pytest.mark.parametrize(
    ("n_recordings", "n_kills", "workers"), [(8, 2, 1), pytest.param(60, 10, 2, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(280)
def test_killed_at_any_moment_it_is_taken_up_again(tmp_path, n_recordings, n_kills, workers):
    """SIGKILL of the whole process group at random moments; the end is that of an undisturbed run."""
    write_subjects(tmp_path / "in", n_recordings, seconds=30)
    flags = ["--config", CONFIGS / "small.yaml", "--windows.seconds", "4", "--workers", workers]
    began = time.monotonic()
    assert start("corpus", tmp_path / "in", "--output", tmp_path / "undisturbed", *flags).wait() == 0
    whole = time.monotonic() - began
    rng = random.Random(0)
    store = tmp_path / "killed"
    for number in range(n_kills):
        process = start("corpus", tmp_path / "in", "--output", store, *flags)
        if number % 2:  # at any moment, its start and its end too
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, whole))
        else:  # while recordings are under way
            done = len(list((store / "progress").glob("0*.json")))
            while len(list((store / "progress").glob("0*.json"))) <= done and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.1))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start("corpus", tmp_path / "in", "--output", store, *flags).wait() == 0
    assert contents(store) == contents(tmp_path / "undisturbed")


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_workers_end_with_a_command_that_is_killed(tmp_path):
    """SIGKILL of the command alone, as `kill -9 PID` does: its workers must not wait for it for ever."""
    write_subjects(tmp_path / "in", 4, seconds=1200)
    process = start("corpus", tmp_path / "in", "--output", tmp_path / "s", "--config", CONFIGS / "small.yaml",
                    "--workers", 2)  # fmt: skip
    parent = psutil.Process(process.pid)
    while len(workers := parent.children()) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert start("corpus", tmp_path / "in", "--output", tmp_path / "s", "--config", CONFIGS / "small.yaml").wait() == 0


@dataclass(frozen=True)
class Deadly(EverywhereCutter):
    """Kills the process that works on one recording, as an out-of-memory killer would."""

    def cut(self, source, recording, chain, recipe):
        if "sub-01" in source.key:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().cut(source, recording, chain, recipe)


@pytest.mark.parametrize("platform", ["linux", pytest.param("darwin", marks=pytest.mark.slow)])
def test_a_recording_that_no_worker_survives_is_given_up_and_the_rest_goes_on(platform, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    write_subjects(tmp_path / "in", 12, seconds=24)
    recipe = Recipe(windows=WindowConfig(seconds=4, min_recording=0, drop_first=0, drop_last=0, max_uv=None))
    jobs = [
        Job(store=str(tmp_path / "s"), row=row, source=source, recipe=recipe, cutter=Deadly())
        for row, source in enumerate(find_recordings([tmp_path / "in"]))
    ]
    processes: list[int] = []
    monkeypatch.setattr("data_prep.engine._alone", lambda job: processes.append(job.row) or _alone(job))
    results = {result.recording.row: result for result in run(jobs, EngineConfig(workers=2))}
    assert [results[job.row].recording.status for job in jobs] == ["ok", "failed", *["ok"] * 10]
    assert "died" in results[1].recording.reason
    assert not results[1].is_final  # there may be more memory another time
    # Those that were under way, and no more, are done one at a time.
    assert 1 in processes
    assert len(processes) <= 4


@pytest.mark.timeout(120)
def test_a_dask_cluster_gives_the_same_store(folder, reference, tmp_path, monkeypatch):
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True) as cluster:
        flags = [*QUICK, "--backend", "dask", "--scheduler", cluster.scheduler_address]
        assert prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *flags) == 0
    assert contents(tmp_path / "s") == reference


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_recording_that_no_worker_of_a_cluster_survives_is_given_up(tmp_path):
    distributed = pytest.importorskip("dask.distributed")
    dask = pytest.importorskip("dask")
    write_subjects(tmp_path / "in", 3, seconds=24)
    jobs = [
        Job(store=str(tmp_path / "s"), row=row, source=source, recipe=Recipe(), cutter=Deadly())
        for row, source in enumerate(find_recordings([tmp_path / "in"]))
    ]
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True) as cluster,
    ):
        config = EngineConfig(backend="dask", scheduler=cluster.scheduler_address)
        results = {result.recording.row: result.recording for result in run(jobs, config)}
    assert ["died" in results[row].reason for row in range(3)] == [False, True, False]


def test_a_full_disk_ends_the_run_with_a_message(folder, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("codebrain.data.format.quantise", full)
    assert prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *QUICK) == 2
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert prep(monkeypatch, "corpus", folder, "--output", tmp_path / "s", *QUICK) == 0


def test_published_grid():
    config = WindowConfig()  # 30 s, a minute dropped at either end, at least 300 s
    starts = grid(config, sfreq=200, n_times=317 * 200, edge=1000)
    # 317 s: the last 60 s and the remainder of 17 s are not used.
    np.testing.assert_array_equal(starts / 200, 60 + 30 * np.arange(6))
