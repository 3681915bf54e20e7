"""Which files are recordings, whom they are from, and who must not be among them."""

from pathlib import Path

import pytest

from codebrain.channels import TEN_TWENTY_19
from codebrain.data.format import Store
from data_prep.corpora import find_recordings
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
    write_tuh(tmp_path / "tuh" / "TUEV", "aaaaaaaz", seconds=2)
    return corpus


QUICK = ["--config", CONFIGS / "pretrain.yaml", "--windows.seconds", "3", "--windows.min_recording", "0"]
QUICK += ["--windows.drop_first", "0", "--windows.drop_last", "0", "--workers", "1"]


def test_subjects_of_the_corpora_beside_are_left_out(tueg, tmp_path, monkeypatch, capsys):
    assert prep(monkeypatch, "corpus", tueg, "--output", tmp_path / "s", *QUICK) == 0
    said = capsys.readouterr().out
    assert "left out 3 recordings of 3 subjects that are in TUEV, tuh_eeg_abnormal" in said
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
    lists.write_text("aaaaaaax\naaaaaaay\n")
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
    assert "all 7 recordings are of excluded subjects" in capsys.readouterr().err
    assert prep(monkeypatch, "corpus", tueg, *out, "--exclude", tmp_path / "none.txt") == 2
    assert "no such folder or list" in capsys.readouterr().err


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
    assert "task        events (corrected): left 2, right 1" in (tmp_path / "report.html").read_text(encoding="utf-8")
    store = Store.open(tmp_path / "s")
    (row,) = store.recordings
    assert (row.subject, row.session, row.age, row.sex) == ("sub-01", "ses-a", "34", "female")
    assert store.shards[0].ch_names == ("Fp1", "O1")
    assert store.n_windows == 3
