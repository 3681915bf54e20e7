"""Which files are recordings, whom they are from, and who must not be among them."""

import os
import re
import shutil
from pathlib import Path

import h5py
import pytest

from codebrain.channels import TEN_TWENTY_19
from codebrain.data.format import Store
from data_prep.corpora import bids, find_recordings, say_subjects, tuh
from data_prep.corpora.exclusion import exclude
from data_prep.corpora.subjects import Naming
from tests.recordings import noise, write_edf
from tests.test_prep import CONFIGS, prep

NINETEEN = [name.upper() for name in TEN_TWENTY_19]
MONTAGES = {"01_tcp_ar": "REF", "02_tcp_le": "LE", "03_tcp_ar_a": "REF", "04_tcp_le_a": "LE"}


@pytest.mark.parametrize(
    ("key", "subject"),
    [
        ("sub-0A3/ses-1/eeg/sub-0A3_ses-1_task-rest_eeg.edf", "sub-0A3"),
        ("Subject07_2.edf", "Subject07"),
        ("S001/S001R04.edf", "S001"),
        ("01_tcp_ar/aaaaaaju_s005_t000.edf", "aaaaaaju"),
        ("edf/train/aaaaaaar/aaaaaaar_00000001.edf", "aaaaaaar"),
        ("aaaaaaar/first.edf", "aaaaaaar"),
        ("abnormal/first.edf", "abnormal/first"),
        ("clinical_20200101.edf", "clinical_20200101"),
        ("chb03/chb03_17.edf", "chb03"),
        ("anything.edf", "anything"),
        ("clinic/ward/anything.edf", "clinic/ward/anything"),
    ],
)
def test_subjects_are_told_from_the_path(tmp_path, key, subject):
    write_edf(tmp_path / "root" / key, noise(1, 2, 100.0), 100.0, labels=["Cz"])
    write_edf(tmp_path / "root" / "zzz.edf", noise(1, 2, 100.0), 100.0, labels=["Cz"])
    sources = {source.key: source for source in find_recordings([tmp_path / "root"])}
    assert sources[key].subject == subject


def test_subject_pattern_of_the_user(tmp_path):
    for name in ("lab_p12_rest.edf", "lab_p12_task.edf", "lab_p13_rest.edf"):
        write_edf(tmp_path / name, noise(1, 2, 100.0), 100.0, labels=["Cz"])
    assert [source.subject for source in find_recordings([tmp_path], r"_(p\d+)_")] == ["p12", "p12", "p13"]


def test_what_lies_beside_recordings_is_passed_over(tmp_path):
    for name in ("a.edf", "b-eve.fif", "c.vhdr", "c.eeg", "notes.txt", ".hidden.edf", "d.fdt", "e_raw.fif"):
        (tmp_path / name).write_bytes(b"x")
    assert [source.key for source in find_recordings([tmp_path])] == ["a.edf", "c.vhdr", "e_raw.fif"]


def write(file: Path, *, seed: int = 0, seconds: float = 2) -> Path:
    """A small recording of one channel; another seed, another content."""
    return write_edf(file, noise(1, seconds, 100.0, seed=seed), 100.0, labels=["Cz"])


def reasons(sources) -> dict[str, str]:
    """Why recordings cannot be used, for those that cannot."""
    return {source.key: source.unusable for source in sources if source.unusable}


def test_files_that_are_no_recordings_are_counted_by_ending(tmp_path):
    write(tmp_path / "night.rec")
    write(tmp_path / "event.edf", seed=1)
    for name in ("event.rec", "a.xyz", "b.xyz", "readme.txt", "a.json", "b-eve.fif"):
        (tmp_path / name).write_bytes(b"x")
    said: list[str] = []
    # .rec is EDF to polysomnographs; beside an .edf of that name it holds the labels of TUEV.
    assert [source.key for source in find_recordings([tmp_path], say=said.append)] == ["event.edf", "night.rec"]
    assert said == ["passed over 4 files that are no recordings: .xyz 2, -eve.fif 1, .txt 1"]


def test_eeg_is_of_nihon_kohden_unless_a_brainvision_header_names_it(tmp_path):
    for name in ("own.eeg", "beside.eeg", "named.eeg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "beside.vhdr").write_text("[Common Infos]\nDataFile=beside.eeg\n")
    (tmp_path / "other.vhdr").write_text("[Common Infos]\nDataFile=named.eeg\n")
    assert [source.key for source in find_recordings([tmp_path])] == ["beside.vhdr", "other.vhdr", "own.eeg"]


@pytest.mark.parametrize("header", [b"DataFile=/\nMarkerFile=\n", b"DataFile=\0\xff.eeg\n", b"", b"\xff" * 300])
def test_a_damaged_header_names_no_files(tmp_path, header):
    (tmp_path / "a.vhdr").write_bytes(header)
    (tmp_path / "b.eeg").write_bytes(b"x")
    assert [source.key for source in find_recordings([tmp_path])] == ["a.vhdr", "b.eeg"]


def test_links_in_circles_and_to_folders_inside_give_each_recording_once(tmp_path):
    write(tmp_path / "b" / "a.edf")
    (tmp_path / "b" / "up").symlink_to("..")
    (tmp_path / "a_link").symlink_to("b")
    assert [source.key for source in find_recordings([tmp_path])] == ["b/a.edf"]


def test_the_same_recording_twice_is_one_recording(tmp_path, monkeypatch):
    write_edf(tmp_path / "in" / "patient1.edf", noise(19, 24, 250.0), 250.0)
    write_edf(tmp_path / "in" / "patient2.edf", noise(19, 24, 250.0, seed=1), 250.0)
    shutil.copy(tmp_path / "in" / "patient1.edf", tmp_path / "in" / "patient1_copy.edf")
    (tmp_path / "in" / "a_link.edf").symlink_to("patient1.edf")
    store = tmp_path / "s"
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", store, *QUICK) == 0
    rows = {row.path: (row.status, row.reason) for row in Store.open(store).recordings}
    same = ("failed", "the same recording as patient1.edf")
    assert (rows["a_link.edf"], rows["patient1_copy.edf"]) == (same, same)
    assert (rows["patient1.edf"][0], rows["patient2.edf"][0]) == ("ok", "ok")
    # Without the first of them, another one is it.
    (tmp_path / "in" / "a_link.edf").unlink()
    (tmp_path / "in" / "patient1.edf").unlink()
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", store, *QUICK) == 0
    assert Store.open(store).recording(2).path == "patient1_copy.edf"
    assert Store.open(store).recording(2).status == "ok"
    # One that has become a copy leaves nothing behind.
    shutil.copy(tmp_path / "in" / "patient2.edf", tmp_path / "in" / "before.edf")
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", store, *QUICK) == 0
    assert Store.open(store).recording(3).reason == "the same recording as before.edf"
    assert len(list((store / "shards").iterdir())) == len(Store.open(store).shards) == 3


def test_what_has_not_been_fetched_is_a_row_until_it_is(tmp_path, monkeypatch, capsys):
    write_edf(tmp_path / "in" / "a.edf", noise(19, 24, 250.0), 250.0)
    (tmp_path / "in" / "b.edf").symlink_to(tmp_path / "annex" / "b")
    (tmp_path / "in" / "c.set").write_bytes(b"x")
    (tmp_path / "in" / "c.fdt").symlink_to(tmp_path / "annex" / "c")
    store = tmp_path / "s"
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", store, *QUICK) == 0
    said = capsys.readouterr().out
    assert said.index("datalad get b.edf") < said.index("throughput")
    a, b, c = Store.open(store).recordings
    assert (a.status, b.status, c.status) == ("ok", "failed", "failed")
    assert "b.edf is not there: a link to" in b.reason
    assert "c.fdt is not there: a link to" in c.reason
    os.unlink(tmp_path / "in" / "c.fdt")
    os.symlink(b"M\xfcller", os.fsencode(tmp_path / "in" / "c.fdt"))
    write_edf(tmp_path / "annex" / "b", noise(19, 24, 250.0, seed=1), 250.0)
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", store, *QUICK) == 0
    assert Store.open(store).recording(1).status == "ok"
    assert "a link to M\\xfcller" in Store.open(store).recording(2).reason


def test_a_name_that_is_not_utf8_is_a_row_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    write_edf(tmp_path / "in" / "a.edf", noise(19, 24, 250.0), 250.0)
    other = write_edf(tmp_path / "in" / "b.edf", noise(19, 24, 250.0, seed=1), 250.0)
    try:
        os.rename(os.fsencode(other), os.fsencode(tmp_path / "in") + b"/M\xfcller.edf")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert prep(monkeypatch, "corpus", tmp_path / "in", "--output", tmp_path / "s", *QUICK) == 0
    said = capsys.readouterr().out
    assert said.index("M\\xfcller.edf: its path is not in UTF-8") < said.index("throughput")
    rows = {row.path: row for row in Store.open(tmp_path / "s").recordings}
    assert {path: row.status for path, row in rows.items()} == {"M\\xfcller.edf": "failed", "a.edf": "ok"}
    assert "rename it" in rows["M\\xfcller.edf"].reason


def test_derivatives_of_a_bids_folder_are_passed_over_and_it_is_said(tmp_path):
    write(tmp_path / "sub-01" / "eeg" / "sub-01_task-x_eeg.edf")
    cleaned = write(tmp_path / "derivatives" / "clean" / "sub-01" / "sub-01_task-x_desc-clean_eeg.edf", seed=1)
    said: list[str] = []
    assert [source.subject for source in find_recordings([tmp_path], say=said.append)] == ["sub-01"]
    assert said[0].startswith(f"passed over {tmp_path / 'derivatives'}: of a BIDS data set")
    assert [source.file for source in find_recordings([tmp_path / "derivatives"])] == [str(cleaned)]


def test_subjects_of_two_data_sets_do_not_fall_together(tmp_path):
    for index, name in enumerate(("one", "two")):
        write(tmp_path / name / "S001" / "S001R01.edf", seed=2 * index)
        write(tmp_path / name / "own.edf", seed=2 * index + 1)
    sources = find_recordings([tmp_path / "one", tmp_path / "two"])
    assert [source.subject for source in sources] == ["one/S001", "one/own", "two/S001", "two/own"]
    assert [source.person for source in sources[::2]] == ["S001", "S001"]
    assert "each data set's kept apart (one, two)" in say_subjects(sources)
    # One folder is one data set.
    assert {source.subject for source in find_recordings([tmp_path])} == {"S001", "one/own", "two/own"}


def test_parts_of_one_data_set_are_one_data_set(tmp_path):
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "dataset_description.json").write_text("{}")
    for index, session in enumerate(("ses-1", "ses-2")):
        write(tmp_path / "ds" / "sub-01" / session / f"sub-01_{session}_eeg.edf", seed=index)
        write(tmp_path / f"tuh{index}" / f"aaaaaaab_s00{index}_t000.edf", seed=2 + index)
    sessions = find_recordings([tmp_path / "ds" / "sub-01" / "ses-1", tmp_path / "ds" / "sub-01" / "ses-2"])
    assert [source.subject for source in sessions] == ["sub-01", "sub-01"]
    # Names of TUH are those of persons, in all of its corpora.
    assert {source.subject for source in find_recordings([tmp_path / "tuh0", tmp_path / "tuh1"])} == {"aaaaaaab"}


def test_a_folder_above_the_given_one_names_nobody(tmp_path):
    for index, name in enumerate(("a.edf", "b.edf")):
        write(tmp_path / "sub-project" / "in" / name, seed=index)
    assert [source.subject for source in find_recordings([tmp_path / "sub-project" / "in"])] == ["a", "b"]


def test_subjects_from_a_table(tmp_path, monkeypatch, capsys):
    for index, name in enumerate(("x/1.edf", "x/2.edf", "y/1.edf", "y/3.edf")):
        write_edf(tmp_path / "in" / name, noise(19, 24, 250.0, seed=index), 250.0)
    table = tmp_path / "people.csv"
    table.write_text("path;subject;age;sex\nx/1.edf;Ann;31;F\nin/x/2.edf;Bob;;m\ny/1.edf;Ann;31;F\ngone.edf;Cy;;\n")
    flags = ["--output", tmp_path / "s", *QUICK, "--subjects", table]
    assert prep(monkeypatch, "corpus", tmp_path / "in", *flags) == 0
    said = capsys.readouterr().out
    assert "3 recordings of 2 subjects, told apart by people.csv" in said
    assert f"WARNING: 1 row of {table} fit no recording, such as gone.edf" in said
    rows = [(row.subject, row.age, row.sex, row.reason) for row in Store.open(tmp_path / "s").recordings]
    assert rows[:3] == [("Ann", "31", "female", ""), ("Bob", "", "male", ""), ("Ann", "31", "female", "")]
    assert rows[3][3] == "not in people.csv"
    # What the table says of a recording is part of its row.
    table.write_text(table.read_text().replace("Bob;;", "Bea;;").replace("gone", "y/3"))
    assert prep(monkeypatch, "corpus", tmp_path / "in", *flags) == 0
    assert [row.subject for row in Store.open(tmp_path / "s").recordings] == ["Ann", "Bea", "Ann", "Cy"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,person\na.edf,Ann\n", "needs the columns path (or file) and subject, and may have age and sex; it has"),
        ("file,subject\na.edf,\n", "line 2 has no subject"),
        ("file,subject\na.edf,Ann\na.edf,Bob\n", "line 3 says otherwise of a.edf"),
        ("file,subject\nother.edf,Ann\n", "names none of the recordings"),
        ("file,subject\nb.edf,Ann\n", "b.edf could be any of 2 files"),
        ("file,subject\n", "has no rows"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path, content, message):
    for index, name in enumerate(("a.edf", "x/b.edf", "y/b.edf")):
        write(tmp_path / "in" / name, seed=index)
    (tmp_path / "people.csv").write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        find_recordings([tmp_path / "in"], subjects=tmp_path / "people.csv")
    with pytest.raises(ValueError, match="give one of them"):
        find_recordings([tmp_path / "in"], r"(\w)\.edf", subjects=tmp_path / "people.csv")
    with pytest.raises(FileNotFoundError, match="no such table"):
        find_recordings([tmp_path / "in"], subjects=tmp_path / "none.csv")


def test_a_path_in_a_table_is_no_bare_name_besides(tmp_path):
    for index, name in enumerate(("a.edf", "x/a.edf", "x/b.edf", "y/b.edf")):
        write(tmp_path / name, seed=index)
    table = tmp_path / "people.csv"
    table.write_text("path,subject\na.edf,Ann\nx/b.edf,Bob\nb.edf,Cy\n")
    found = find_recordings([tmp_path], subjects=table)
    assert [source.subject for source in found if not source.unusable] == ["Ann", "Bob", "Cy"]
    assert reasons(found)["x/a.edf"] == "not in people.csv"


def test_persons_whom_studies_of_eegmmidb_leave_out(tmp_path):
    for index, name in enumerate(("S001/S001R01.edf", "S092/S092R01.edf", "S104/S104R02.edf")):
        write(tmp_path / name, seed=index)
    found = reasons(find_recordings([tmp_path]))
    assert found.keys() == {"S092/S092R01.edf", "S104/S104R02.edf"}
    assert "128 Hz" in found["S092/S092R01.edf"]
    assert not reasons(find_recordings([tmp_path / "S092" / "S092R01.edf"]))


def brainvision(folder: Path, *, seconds: float = 2, unit: str = "µV") -> Path:
    """A BrainVision recording of one channel in three files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.vhdr").write_text(f"[Common Infos]\nDataFile=$b.eeg\nMarkerFile=marks.vmrk\nUnit={unit}\n")
    (folder / "marks.vmrk").write_text("Mk1=Stimulus,S  1,1,1,0\n")
    (folder / "a.eeg").write_bytes(bytes(round(seconds * 1000)))
    return folder / "a.vhdr"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: brainvision(folder, seconds=6),
        lambda folder: brainvision(folder, unit="mV"),
        lambda folder: (folder / "marks.vmrk").write_text("Mk1=Stimulus,S  2,1,1,0\n"),
        lambda folder: (folder / "a_events.tsv").write_text("onset\tduration\ttrial_type\n1\t1\tright\n"),
        lambda folder: (folder / "a_channels.tsv").write_text("name\tstatus\nCz\tbad\n"),
        lambda folder: (folder / "a_events.tsv").unlink(),
    ],
)
def test_a_change_in_any_of_its_files_is_another_state(tmp_path, change):
    brainvision(tmp_path / "in")
    (tmp_path / "in" / "a_events.tsv").write_text("onset\tduration\ttrial_type\n1\t1\tleft\n")
    (before,) = find_recordings([tmp_path / "in"])
    assert before.size == 2000 + (tmp_path / "in" / "a.vhdr").stat().st_size
    assert find_recordings([tmp_path / "in"])[0].state == before.state
    change(tmp_path / "in")
    assert find_recordings([tmp_path / "in"])[0].state != before.state


@pytest.mark.parametrize(("name", "beside"), [("a.set", "a.fdt"), ("a_raw.fif", "a_raw-1.fif"), ("a.edf", "a.rec")])
def test_samples_and_labels_beside_belong_to_a_recording(tmp_path, name, beside):
    (tmp_path / name).write_bytes(b"x")
    (before,) = find_recordings([tmp_path])
    (tmp_path / beside).write_bytes(b"1")
    (after,) = find_recordings([tmp_path])
    assert after.state != before.state


def test_other_participants_do_not_change_a_recording(tmp_path):
    write(tmp_path / "sub-01" / "sub-01_eeg.edf")
    table = tmp_path / "participants.tsv"
    table.write_text("participant_id\tage\tsex\nsub-01\t31\tF\n")
    (before,) = find_recordings([tmp_path])
    table.write_text("participant_id\tage\tsex\nsub-01\t31\tF\nsub-02\t40\tM\n")
    assert find_recordings([tmp_path])[0].state == before.state
    table.write_text("participant_id\tage\tsex\nsub-01\t32\tF\n")
    assert find_recordings([tmp_path])[0].state != before.state


def test_changed_labels_are_prepared_anew(tmp_path, monkeypatch, capsys):
    write_edf(tmp_path / "in" / "a.edf", noise(19, 40, 200.0), 200.0)
    events = tmp_path / "in" / "a_events.tsv"
    events.write_text("onset\tduration\ttrial_type\n10\t2\tleft\n20\t2\tright\n")
    config = tmp_path / "task.yaml"
    config.write_text("labels: {left: left, right: right}\nwindows: {seconds: 2}\nclean: {l_freq: 1, notch: null}\n")
    flags = ["--output", tmp_path / "s", "--config", config, "--workers", "1"]
    assert prep(monkeypatch, "task", "events", tmp_path / "in", *flags) == 0
    assert prep(monkeypatch, "task", "events", tmp_path / "in", *flags) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    events.write_text("onset\tduration\ttrial_type\n10\t2\tright\n20\t2\tright\n")
    assert prep(monkeypatch, "task", "events", tmp_path / "in", *flags) == 0
    assert "nothing was left to do" not in capsys.readouterr().out
    with h5py.File(tmp_path / "s" / "shards" / "000000.h5") as h5:
        assert h5["label"][:].tolist() == [1, 1]


@pytest.mark.parametrize("place", ["sub-01/ses-a/eeg", "sub-01", "."])
def test_tables_are_found_as_mne_bids_finds_them(tmp_path, place):
    """The nearest table that holds for a recording, in its folder or above: BIDS calls it inheritance."""
    mne_bids = pytest.importorskip("mne_bids")
    folder = tmp_path / "sub-01" / "ses-a" / "eeg"
    recording = write(folder / "sub-01_ses-a_task-x_run-1_eeg.edf", seconds=30)
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    prefix = {"sub-01/ses-a/eeg": "sub-01_ses-a_task-x_run-1_", "sub-01": "sub-01_task-x_", ".": "task-x_"}[place]
    (tmp_path / place / f"{prefix}channels.tsv").write_text("name\ttype\tunits\tstatus\nCz\tEEG\tuV\tbad\n")
    (tmp_path / place / f"{prefix}events.tsv").write_text("onset\tduration\ttrial_type\n10.0\t5.0\tleft\n")
    path = mne_bids.get_bids_path_from_fname(recording)
    raw = mne_bids.read_raw_bids(path, verbose="error")
    assert [name for name, reason in bids.channels(recording).rows.items() if reason] == raw.info["bads"] == ["Cz"]
    told = [(mark.onset, mark.duration, mark.text) for mark in bids.events(recording).marks]
    marks = raw.annotations
    assert told == list(zip(marks.onset, marks.duration, marks.description, strict=True)) == [(10.0, 5.0, "left")]


def write_tuh(folder: Path, subject: str, montage: str = "01_tcp_ar", *, seconds: float = 30, seed: int = 0) -> Path:
    """A recording as TUH names and labels it."""
    suffix = MONTAGES[montage]
    labels = [*(f"EEG {name}-{suffix}" for name in NINETEEN), f"EEG EKG1-{suffix}", "PHOTIC-REF", "IBI"]
    file = folder / f"{subject}" / "s001_2015" / montage / f"{subject}_s001_t000.edf"
    write_edf(file, noise(len(labels), seconds, 250.0, seed=seed), 250.0, labels=labels)
    content = bytearray(file.read_bytes())
    content[8:88] = f"{subject} F 01-JAN-1960 {subject} Age:53".ljust(80).encode()
    file.write_bytes(content)
    return file


@pytest.fixture
def tueg(tmp_path):
    """A small TUEG, of which two subjects are in a TUAB and one in a TUEV beside it."""
    corpus = tmp_path / "tuh" / "tuh_eeg" / "v2.0.1" / "edf"
    for index, montage in enumerate(MONTAGES):
        write_tuh(corpus, f"aaaaaaa{'abcd'[index]}", montage, seed=index)
    for index, subject in enumerate(("aaaaaaax", "aaaaaaay", "aaaaaaaz")):
        write_tuh(corpus, subject, seed=10 + index)
    (corpus / "aaaaaaab" / "aaaaaaab_s009_t000.edf").write_bytes(b"damaged")
    beside = tmp_path / "tuh" / "tuh_eeg_abnormal" / "v3.0.1" / "edf" / "train"
    for subject in ("aaaaaaax", "aaaaaaay", "aaaaaaaq"):
        write_tuh(beside, subject, seconds=2)
    events = tmp_path / "tuh" / "tuh_eeg_events" / "v2.0.1" / "edf"
    write(events / "train" / "aaaaaaaz" / "aaaaaaaz_00000001.edf")
    write(events / "eval" / "000" / "bckg_000_a_.edf", seed=1)
    for name in ("train/aaaaaaaz/aaaaaaaz_00000001.rec", "eval/000/bckg_000_a_.rec"):
        (events / name).write_text("0,1.0,2.0,6\n")
    return corpus


QUICK = ["--config", CONFIGS / "pretrain.yaml", "--windows.seconds", "3", "--windows.min_recording", "0"]
QUICK += ["--windows.drop_first", "0", "--windows.drop_last", "0", "--workers", "1"]


def test_subjects_of_the_corpora_beside_are_left_out(tueg, tmp_path, monkeypatch, capsys):
    assert prep(monkeypatch, "corpus", tueg, "--output", tmp_path / "s", *QUICK) == 0
    said = capsys.readouterr().out
    assert "left out 2 recordings of 2 subjects that are in tuh_eeg_abnormal, which names 3" in said
    assert "left out 1 recording of 1 subject that are in tuh_eeg_events, which names 1" in said
    assert "WARNING: 1 recording in tuh_eeg_events do not say whom they are from (v2.0.1/edf/eval/000/bckg_0" in said
    store = Store.open(tmp_path / "s")
    assert {row.subject for row in store.recordings} == {"aaaaaaaa", "aaaaaaab", "aaaaaaac"}
    assert {row.session for row in store.recordings if row.status == "ok"} == {"s001"}
    assert [row.status for row in store.recordings].count("failed") == 1
    assert {(row.age, row.sex) for row in store.recordings if row.status == "ok"} == {("53", "female")}
    assert {len(shard.ch_names) for shard in store.shards} == {19}
    # Who was left out is part of what the store is.
    assert set(store.info.preparation["excluded_subjects"]) == {"aaaaaaaq", "aaaaaaax", "aaaaaaay", "aaaaaaaz"}


def test_without_a_list_of_them_it_is_said_aloud(tueg, tmp_path, monkeypatch, capsys):
    flags = [*QUICK, "--exclude_beside", "false"]
    assert prep(monkeypatch, "corpus", tueg, "--output", tmp_path / "s", *flags) == 0
    assert "WARNING: these are TUH recordings, and no subject is left out" in capsys.readouterr().out
    lists = tmp_path / "evaluation.txt"
    lists.write_text("# TUAB\naaaaaaax\naaaaaaay_s001_t000.edf\n")
    flags = [*flags, "--exclude", lists]
    assert prep(monkeypatch, "corpus", tueg, "--output", tmp_path / "t", *flags) == 0
    assert "left out 2 recordings of 2 subjects that are in evaluation.txt" in capsys.readouterr().out
    # With another list it would be another store.
    lists.write_text("aaaaaaax\n")
    assert prep(monkeypatch, "corpus", tueg, "--output", tmp_path / "t", *flags) == 2
    assert "excluded_subjects" in capsys.readouterr().err


def test_excluding_all_or_nothing_is_a_mistake(tueg, tmp_path, monkeypatch, capsys):
    out = ["--output", tmp_path / "s", *QUICK]
    assert prep(monkeypatch, "corpus", tueg, *out, "--exclude", tueg) == 2
    said = capsys.readouterr().err
    assert f"all 7 recordings are of subjects to be left out, those in {tueg}" in said
    assert "--exclude_beside false" in said
    assert prep(monkeypatch, "corpus", tueg, *out, "--exclude", tmp_path / "none.txt") == 2
    assert "no such folder or list" in capsys.readouterr().err


def excluded(corpus: Path, *places: Path, pattern: str | None = None) -> tuple[set[str], str]:
    """Subjects that are left of a corpus, and what is said."""
    found = exclude(find_recordings([corpus], pattern), list(map(str, places)), Naming(pattern), [corpus])
    return {tuh.subject_of(source.key) or source.subject for source in found.rest}, "\n".join(found.said)


@pytest.mark.parametrize("pattern", [r"([a-z]{8})_s", r"(s\d{3})_t", r"(aaaa)"])
def test_no_pattern_of_the_user_turns_the_exclusion_off(tueg, pattern):
    assert excluded(tueg, pattern=pattern)[0] == {"aaaaaaaa", "aaaaaaab", "aaaaaaac", "aaaaaaad"}


def test_a_folder_above_that_looks_like_bids_does_not_either(tueg, tmp_path):
    (tmp_path / "sub-x").mkdir()
    (tmp_path / "tuh").rename(tmp_path / "sub-x" / "tuh")
    rest, _ = excluded(tmp_path / "sub-x" / tueg.relative_to(tmp_path))
    assert rest == {"aaaaaaaa", "aaaaaaab", "aaaaaaac", "aaaaaaad"}


def test_a_part_of_tueg_that_names_nobody_is_warned_of(tueg, tmp_path):
    shutil.rmtree(tmp_path / "tuh" / "tuh_eeg_abnormal" / "v3.0.1")
    rest, said = excluded(tueg)
    assert "aaaaaaaz" not in rest
    assert f"WARNING: {tmp_path / 'tuh' / 'tuh_eeg_abnormal'} lies beside and is named like a part of TUEG" in said


def test_a_header_names_whom_a_path_does_not(tueg, tmp_path):
    file = tmp_path / "tuh" / "tuh_eeg_events" / "v2.0.1" / "edf" / "eval" / "000" / "bckg_000_a_.edf"
    assert "aaaaaaaa" in excluded(tueg)[0]
    content = file.read_bytes()
    file.write_bytes(content[:8] + b"aaaaaaaa F 01-JAN-1960 aaaaaaaa Age:53".ljust(80) + content[88:])
    rest, said = excluded(tueg)
    assert "aaaaaaaa" not in rest
    assert "do not say whom" not in said


def test_a_store_beside_is_no_part_of_tueg(tueg, tmp_path):
    (tmp_path / "tuh" / "tuab_store" / "shards").mkdir(parents=True)
    assert "tuab_store" not in excluded(tueg)[1]


def test_excluded_folders_name_subjects_as_the_corpus_does(tmp_path):
    for index, name in enumerate(
        ("train/lab_p00_rest", "train/lab_p01_rest", "eval/lab_p01_task", "else/lab_p09_task")
    ):
        write(tmp_path / f"{name}.edf", seed=index)
    train = tmp_path / "train"
    assert excluded(train, tmp_path / "eval", pattern=r"(p\d+)_")[0] == {"p00"}
    with pytest.raises(ValueError, match=r"else leaves nobody out: it names 1 subject \(p09\).* 2 others \(p00, p01\)"):
        excluded(train, tmp_path / "else", pattern=r"(p\d+)_")
    with pytest.raises(ValueError, match=r"1 subject \(lab_p01_task\).* others \(lab_p00_rest, lab_p01_rest\)"):
        excluded(train, tmp_path / "eval")


def test_a_folder_inside_the_corpus_is_left_out_whomever_its_recordings_are_from(tmp_path):
    for index, name in enumerate(("train/S001R01", "eval/S002R01", "eval/unnamed")):
        write(tmp_path / "all" / f"{name}.edf", seed=index)
    rest, said = excluded(tmp_path / "all", tmp_path / "all" / "eval")
    assert rest == {"S001"}
    assert "left out 2 recordings" in said


def test_a_subject_is_excluded_from_each_of_several_data_sets(tmp_path):
    for index, name in enumerate(("one/S001R01", "one/S002R01", "two/S001R01", "two/S003R01")):
        write(tmp_path / f"{name}.edf", seed=index)
    (tmp_path / "list.txt").write_text("S001\ntwo/S003\n")
    sources = find_recordings([tmp_path / "one", tmp_path / "two"])
    assert [source.subject for source in exclude(sources, [str(tmp_path / "list.txt")], Naming()).rest] == ["one/S002"]


def test_tables_of_a_bids_folder_are_heeded(tmp_path, monkeypatch):
    root = tmp_path / "bids"
    folder = root / "sub-01" / "ses-a" / "eeg"
    write_edf(folder / "sub-01_ses-a_task-x_eeg.edf", noise(4, 40, 200.0), 200.0, labels=["Fp1", "Fp2", "Cz", "O1"])
    (folder / "sub-01_ses-a_task-x_channels.tsv").write_text(
        "name\ttype\tunits\tstatus\nFp1\tEEG\tuV\tgood\nFp2\tEOG\tuV\tgood\nCz\tEEG\tuV\tbad\nO1\tEEG\tuV\tn/a\n"
    )
    (folder / "sub-01_ses-a_task-x_events.tsv").write_text(
        "onset\tduration\ttrial_type\n10\t5\tleft\n20\tn/a\tright\nn/a\t1\tright\n"
    )
    (root / "participants.tsv").write_text("participant_id\tage\tsex\nsub-02\t1\tM\nsub-01\t34\tF\n")
    config = tmp_path / "task.yaml"
    config.write_text("labels: {left: left, right: right}\nwindows: {seconds: 2}\nclean: {l_freq: 1, notch: null}\n")
    flags = ["--config", config, "--workers", "1", "--report", tmp_path / "report.html"]
    assert prep(monkeypatch, "task", "events", root, "--output", tmp_path / "s", *flags) == 0
    # The page counts the classes: an event of 5 s gives two windows, an instant one.
    assert "task        events: left 2, right 1" in (tmp_path / "report.html").read_text(encoding="utf-8")
    store = Store.open(tmp_path / "s")
    (row,) = store.recordings
    assert (row.subject, row.session, row.age, row.sex) == ("sub-01", "ses-a", "34", "female")
    assert store.shards[0].ch_names == ("Fp1", "O1")
    assert store.n_windows == 3
