"""Labels from a table, by file or by subject: classes and numbers, what is said of the rest, what is refused."""

import dataclasses
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

import finetune.figures
from codebrain.data.format import Store
from data_prep.tasks import MentalArithmetic, Table
from finetune import cli as finetune_cli
from tests.recordings import noise, write_edf
from tests.reference_finetune import TINY
from tests.test_prep import CONFIGS, contents, prep
from tests.test_tasks import prepare

QUICK = ["--config", CONFIGS / "small.yaml", "--windows.seconds", "2", "--workers", "1"]
SUBJECTS = ("S001", "S002", "S003")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three subjects with two runs each, in folders of their own."""
    path = tmp_path_factory.mktemp("recordings")
    for seed, subject in enumerate(SUBJECTS):
        for run in (1, 2):
            x = noise(19, 16, 200.0, seed=10 * run + seed)
            write_edf(path / subject / f"{subject}R0{run}.edf", x, 200.0)
    return path


def table(tmp_path: Path, content: str, name: str = "labels.csv") -> Path:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    return file


def labels_of(store: Path) -> dict[str, set[float]]:
    """The labels of the windows of each recording that has any."""
    opened, found = Store.open(store), {}
    for shard in opened.shards:
        with h5py.File(store / shard.file) as h5:
            for row in set(h5["recording"][:].tolist()):
                found[opened.recording(row).path] = set(h5["label"][:][h5["recording"][:] == row].tolist())
    return found


def rows_of(store: Path) -> dict[str, str]:
    """The reasons of the recordings that could not be used."""
    return {row.path: row.reason for row in Store.open(store).recordings if row.status != "ok"}


def by_run(first: float, second: float) -> dict[str, set[float]]:
    return {f"{name}/{name}R0{run}.edf": {label} for name in SUBJECTS for run, label in ((1, first), (2, second))}


# --- whom a row is about ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ("file,eyes\n*R01.edf,open\n*R02.edf,closed\n", ("open", "closed")),
        ("path;note;Eyes\nS00?R01.edf;;open\nS00?R02.edf;x;closed\n", ("open", "closed")),
        ("\ufefffile\teyes\nS*/S*R02.edf\tclosed\n*R01*\topen\n", ("closed", "open")),
        (
            "file,eyes\nS001/S001R01.edf,open\n.\\S001\\S001R02.edf,closed\nS002R01.edf,open\nS002R02.edf,closed\n"
            "S003R01.*,open\n{folder}/S003/S003R02.edf,closed\n",
            ("open", "closed"),
        ),
    ],
)
def test_files_are_named_by_path_pattern_or_bare_name(rows, names, folder, tmp_path):
    labels = table(tmp_path, rows.replace("{folder}", folder.as_posix()))
    store, columns = prepare(Table(labels=str(labels), column="eyes", windows=_whole()), folder, tmp_path / "s")
    task = store.info.task
    assert (task.name, task.protocol, task.class_names, task.has_split) == ("eyes", "", names, False)
    assert labels_of(tmp_path / "s") == by_run(names.index("open"), names.index("closed"))
    # Every whole window of a recording, one after the other.
    np.testing.assert_array_equal(columns["start"], 6 * [0, 2, 4, 6, 8, 10, 12, 14])
    assert columns["label"].dtype == np.int64


def _whole():
    return dataclasses.replace(MentalArithmetic().recipe().windows, seconds=2.0)


def test_a_path_counts_from_the_tables_folder_too(folder, tmp_path):
    labels = table(folder.parent, f"file,eyes\n{folder.name}/*1.edf,open\n{folder.name}/S001/S001R02.edf,closed\n")
    found = Table(labels=str(labels), column="eyes").sources(str(folder))
    assert [source.key for source in found if not source.label] == ["S002/S002R02.edf", "S003/S003R02.edf"]


@pytest.mark.parametrize("heading", ["subject", "participant_id"])
def test_subjects_are_those_of_the_naming_scheme(heading, tmp_path, monkeypatch, capsys):
    for seed, name in enumerate(("sub-01", "sub-02", "sub-03")):
        write_edf(tmp_path / "in" / name / f"{name}_eeg.edf", noise(19, 16, 200.0, seed=seed), 200.0)
    labels = table(tmp_path, f"{heading}\tgroup\nsub-01\tpatient\n02\tcontrol\n03\tpatient\n", "participants.tsv")
    flags = ["--output", tmp_path / "s", *QUICK, "--labels", labels, "--column", "group"]
    assert prep(monkeypatch, "task", "table", tmp_path / "in", *flags) == 0
    said = capsys.readouterr().out
    assert f"labels by {heading}, column group of {labels}: patient 2, control 1 of 3 recordings" in said
    assert [labels_of(tmp_path / "s")[f"sub-0{n}/sub-0{n}_eeg.edf"] for n in (1, 2, 3)] == [{0}, {1}, {0}]


def test_subjects_of_a_table_and_of_two_data_sets(folder, tmp_path):
    for seed, data_set in enumerate("AB"):
        write_edf(tmp_path / "in" / data_set / "S001" / "S001R01.edf", noise(19, 16, 200.0, seed=seed), 200.0)
        (tmp_path / "in" / data_set / "dataset_description.json").write_text("{}")
    task = Table(labels=str(table(tmp_path, "subject,x\nS001,a\nS002,b\n")), column="x")
    with pytest.raises(ValueError, match="S001 could be A/S001 or B/S001: write which it is"):
        task.sources(str(tmp_path / "in"))
    table(tmp_path, "subject,x\nA/S001,a\nB/S001,b\n")
    found = Table(labels=task.labels, column="x").sources(str(tmp_path / "in"))
    assert [(source.subject, source.label) for source in found] == [("A/S001", "a"), ("B/S001", "b")]
    people = table(tmp_path, "file,subject\nS001R01.edf,Ann\nS001R02.edf,Ann\nS002R01.edf,Bob\n", "people.csv")
    table(tmp_path, "subject,x\nAnn,a\nBob,b\n")
    found = Table(labels=task.labels, column="x", subjects=str(people)).sources(str(folder))
    assert [source.label for source in found] == ["a", "a", "b", "", "", ""]


# --- what is said ----------------------------------------------------------------------------------------------------


def test_what_has_no_label_is_said_in_its_row(folder, tmp_path, monkeypatch, capsys):
    labels = table(
        tmp_path,
        "file,subject,eyes\n*R01.edf,,open\nS001R02.edf,,closed\nS002R02.edf,,n/a\nS003R02.edf,,odd\nS004*,,odd\n",
    )
    flags = ["--output", tmp_path / "s", *QUICK, "--labels", labels, "--column", "eyes", "--classes", "closed", "open"]
    assert prep(monkeypatch, "task", "table", folder, *flags) == 0
    said = capsys.readouterr().out
    assert f"labels by file, column eyes of {labels}: closed 1, open 3 of 6 recordings" in said
    assert "2 recordings cannot be used, which recordings.csv will say too" in said
    assert f"WARNING: 1 row of {labels} fit no recording, such as line 6, S004*" in said
    assert f"the subjects in {labels} are not read: --subjects {labels} takes them" in said
    assert "classes     closed 4, open 12" in said
    assert Store.open(tmp_path / "s").info.task.class_names == ("closed", "open")
    assert rows_of(tmp_path / "s") == {
        "S002/S002R02.edf": "no label: line 4 of labels.csv has none in its column eyes",
        "S003/S003R02.edf": "its label is 'odd', none of --classes closed open",
    }


def test_a_class_without_a_window_is_loud(folder, tmp_path, monkeypatch, capsys):
    labels = table(tmp_path, "file,x\n*R01.edf,a\nS001R02.edf,b\nS009*,c\n")
    flags = ["--output", tmp_path / "s", *QUICK, "--labels", labels, "--column", "x"]
    assert prep(monkeypatch, "task", "table", folder, *flags) == 0
    assert "WARNING: no window is of class c. No recording with that label is here" in capsys.readouterr().out


# --- classes or numbers ----------------------------------------------------------------------------------------------


def test_numbers_are_a_regression(folder, tmp_path, monkeypatch, capsys):
    labels = table(tmp_path, "subject,age\nS001,21.5\nS002,64\nS003,\n")
    flags = ["--output", tmp_path / "s", *QUICK, "--labels", labels, "--column", "age", "--name", "years"]
    assert prep(monkeypatch, "task", "table", folder, *flags, "--labels_as", "numbers") == 0
    said = capsys.readouterr().out
    assert "column age of" in said
    assert "numbers from 21.5 to 64 of 4 recordings" in said
    assert "labels      numbers from 21.5 to 64, mean 42.75" in said
    task = Store.open(tmp_path / "s").info.task
    assert (task.name, task.class_names) == ("years", ())
    assert labels_of(tmp_path / "s") == {
        f"{name}/{name}R0{run}.edf": {age} for name, age in (("S001", 21.5), ("S002", 64.0)) for run in (1, 2)
    }
    assert prep(monkeypatch, "info", tmp_path / "s") == 0
    assert "task        years: numbers from 21.5 to 64, mean 42.75" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "flags", "names"),
    [
        (["0", "1", "0"], {}, ("0", "1")),
        (["3", "1", "2"], {"labels_as": "classes"}, ("3", "1", "2")),
        (["3", "1", "2"], {"classes": ["1", "2"]}, ("1", "2")),
        (["3", "x", "2"], {"labels_as": "classes"}, ("3", "x", "2")),
        (['"a, b"', '"c\nd"', '"a, b"'], {}, ("a, b", "c\nd")),
        (["b", "na", "a"], {}, ("b", "a")),
    ],
)
def test_classes_are_as_the_user_says_or_plain(rows, flags, names, tmp_path):
    content = "subject,x\n" + "".join(f"S00{n},{label}\n" for n, label in enumerate(rows, 1))
    assert Table(labels=str(table(tmp_path, content)), column="x", **flags).class_names == names


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ("file,x\n*,1\n*2,2\n*3,3\n", {}, "column x of {file} holds numbers. Say --labels_as numbers to learn them"),
        ("file,x\n*,1\n*2,inf\n", {}, "holds numbers and texts, such as 'inf' in line 3. Say --labels_as numbers"),
        ("file,x\n*,1\n\n*2,old\n", {"labels_as": "numbers"}, "has 'old' in line 4. Leave a cell empty"),
        ("file,x\n*,1\n*2,1.0\n", {"labels_as": "numbers"}, "column x of {file} is 1 throughout"),
        ("file,x\n*,1\n*2,2\n", {"labels_as": "numbers", "classes": ["1"]}, "exclude each other: give one"),
        ("file,x\n*,a\n*2,b\n", {"classes": ["a", "c"]}, "--classes c: no label in column x of {file} is written so"),
        ("file,x\n*,a\n*2,a\n", {}, "has only one class to learn, 'a': there is nothing to tell apart"),
        ("file,x\n*,n/a\n*2,\n", {}, "--labels {file} has no label in its column x"),
        ("file,x\n", {}, "--labels {file} has no label in its column x"),
        (
            "file,group\n*,a\n*2,b\n",
            {"column": "grup"},
            "--column grup: {file} has the columns file, group. Did you mean",
        ),
        (
            "name,x\n*,a\n",
            {},
            "--labels {file} needs a column file (names, or patterns such as *_rest.edf) or a column",
        ),
        ("file,x\n,a\n", {}, "--labels {file}: line 2 has no file"),
        (
            "file,x\n*R01.edf,a\nS001/*,b\n",
            {},
            "S001/S001R01.edf is 'a' by line 2 (*R01.edf) and 'b' by line 3 (S001/*)",
        ),
        ("subject,x\nS001,a\nS001,b\n", {}, "S001/S001R01.edf is 'a' by line 2 (S001) and 'b' by line 3 (S001)"),
        ("file,x\n*.bdf,a\n*.gdf,b\n", {}, "is about none of the recordings: its column file begins with '*.bdf', the"),
        (
            "subject,x\n1,a\n2,b\n",
            {},
            "column subject begins with '1', the first recording is 'S001/S001R01.edf' of sub",
        ),
    ],
)
def test_mistakes_are_refused_before_the_work(content, flags, message, folder, tmp_path):
    file = table(tmp_path, content)
    task = Table(**{"labels": str(file), "column": "x", **flags})
    with pytest.raises(ValueError, match=re.escape(message.replace("{file}", str(file)))):
        task.sources(str(folder))


def test_a_spreadsheets_own_file_is_refused(folder, tmp_path):
    file = tmp_path / "labels.xlsx"
    for content in (b"PK\3\4\0\0", "file,x\n*,\u00fcbung\n".encode("latin-1"), "file,x\n".encode("utf-16")):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is no CSV or TSV in UTF-8: save the table, or the spreadsheet, as one"):
            Table(labels=str(file), column="x").sources(str(folder))
    with pytest.raises(FileNotFoundError, match=r"--labels nowhere\.csv: no such table"):
        Table(labels="nowhere.csv", column="x").sources(str(folder))


# --- as any other store ----------------------------------------------------------------------------------------------


def test_it_is_taken_up_again_and_changed_labels_are_prepared_anew(folder, tmp_path, monkeypatch, capsys):
    labels = table(tmp_path, "file,eyes\n*R01.edf,open\n*R02.edf,closed\n")
    line = ["task", "table", folder, *QUICK[:-1], "2", "--labels", labels, "--column", "eyes", "--output"]
    assert prep(monkeypatch, *line, tmp_path / "s") == 0
    before = contents(tmp_path / "s")
    capsys.readouterr()
    assert prep(monkeypatch, *line, tmp_path / "s") == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert contents(tmp_path / "s") == before
    table(tmp_path, "file,eyes\nS001R01.edf,open\nS00[23]R01.edf,closed\n*R02.edf,closed\n")
    assert prep(monkeypatch, *line, tmp_path / "s") == 0
    assert "over 2 recordings" in capsys.readouterr().out
    assert labels_of(tmp_path / "s") == by_run(1, 1) | {"S001/S001R01.edf": {0}}
    # Another meaning of the labels is another store.
    table(tmp_path, "file,eyes\n*R02.edf,closed\n*R01.edf,open\n")
    assert prep(monkeypatch, *line, tmp_path / "s") == 2
    assert "classes: ['open', 'closed'] there, ['closed', 'open'] now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "flags", "kind"),
    [
        ("file,x\n*R01.edf,a\n*R02.edf,b\n", [], "binary"),
        ("file,x\n*R01.edf,a\n*R02.edf,b\n*R03.edf,c\n", [], "multiclass"),
        ("subject,x\nS001,20\nS002,30\nS003,40\nS004,25\nS005,35\nS006,45\n", ["--labels_as", "numbers"], "regression"),
    ],
)
def test_a_classifier_learns_from_it(rows, flags, kind, tmp_path, monkeypatch):
    for seed in range(18):
        x = noise(19, 14, 200.0, seed=seed)
        write_edf(tmp_path / "in" / f"S00{seed // 3 + 1}R0{seed % 3 + 1}.edf", x, 200.0)
    labels = ["--labels", table(tmp_path, rows), "--column", "x", *flags]
    assert prep(monkeypatch, "task", "table", tmp_path / "in", "--output", tmp_path / "s", *QUICK, *labels) == 0
    monkeypatch.setattr(finetune.figures, "save", lambda figure, target: None)
    line = ["--ckpt=none", f"--data={tmp_path / 's'}", f"--run_dir={tmp_path / 'r'}", *TINY, "--mode", "probe"]
    split = ["--split.valid_fraction", "0.5", "--split.test_fraction", "0.34"]
    assert finetune_cli.run_command([*line, "--head", "mean", *split]) == 0
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["task"]["kind"], report["reported_side"]) == (kind, "test")


# --- real recordings -------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_rest_and_counting_by_file_are_those_of_the_data_set(eeg_folder, tmp_path):
    labels = table(tmp_path, "file,state\n*_1.edf,rest\n*_2.edf,counting\n")
    recipe = MentalArithmetic().recipe()
    own = Table(
        labels=str(labels),
        column="state",
        **{entry.name: getattr(recipe, entry.name) for entry in dataclasses.fields(recipe)},
    )
    store, columns = prepare(own, eeg_folder / "eegmat", tmp_path / "own")
    known, expected = prepare(MentalArithmetic(), eeg_folder / "eegmat", tmp_path / "known")
    assert store.info.task.class_names == known.info.task.class_names
    for name in ("windows", "scale", "recording", "start", "label"):
        np.testing.assert_array_equal(columns[name], expected[name])
    assert len(columns["label"]) == 1515


@pytest.mark.real
def test_open_and_closed_eyes_of_eegmmidb_by_file(eeg_folder, tmp_path, monkeypatch, capsys):
    labels = table(tmp_path, "file,eyes\n*R01.edf,open\n*R02.edf,closed\n")
    folder = tmp_path / "in"
    folder.mkdir()
    for subject in SUBJECTS[1:]:
        (folder / subject).symlink_to(eeg_folder / "eegmmidb" / subject)
    flags = [*QUICK, "--windows.seconds", "5", "--labels", labels, "--column", "eyes"]
    for store, limit, counts in (("t", 200, "open 1, closed 8"), ("s", 800, "open 20, closed 19")):
        flags = [*flags, "--windows.max_uv", limit]
        assert prep(monkeypatch, "task", "table", folder, "--output", tmp_path / store, *flags) == 0
        assert f"classes     {counts}" in capsys.readouterr().out
    found = labels_of(tmp_path / "s")
    assert found == {path: label for path, label in by_run(0, 1).items() if "S001" not in path}
    # Eyes that close let alpha rise, over the back of the head.
    alpha = {path: _alpha(tmp_path / "s", path) for path in found}
    for subject in SUBJECTS[1:]:
        assert alpha[f"{subject}/{subject}R02.edf"] > 1.5 * alpha[f"{subject}/{subject}R01.edf"]


def _alpha(store: Path, path: str) -> float:
    """Share of 8 to 12 Hz in the power of O1 and O2 between 1 and 40 Hz."""
    opened = Store.open(store)
    row = next(row.row for row in opened.recordings if row.path == path)
    shard = next(shard for shard in opened.shards if row in dict(shard.runs))
    with h5py.File(store / shard.file) as h5:
        x = h5["windows"][:] * h5["scale"][:][:, None, None]
    power = np.abs(np.fft.rfft(x[:, [shard.ch_names.index(name) for name in ("O1", "O2")]])) ** 2
    freqs = np.fft.rfftfreq(x.shape[2], 1 / 200)
    inside = power[..., (freqs >= 8) & (freqs <= 12)].sum()
    return float(inside / power[..., (freqs >= 1) & (freqs <= 40)].sum())
