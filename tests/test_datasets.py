"""The data sets of the literature: reading them from their on-disk formats, and every trap of their protocols."""

import pickle
import re
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from scipy.signal import butter, lfilter

from codebrain.channels import TEN_TWENTY_19, bipolar_pair, canonical_name
from codebrain.data.format import SPLITS
from data_prep.corpora import Source
from data_prep.cut import open_recording
from data_prep.read import OpenRecording, UnusableError
from data_prep.tasks import DATA_SETS, DataSet
from data_prep.tasks.arrays import load_mat, load_pickle
from data_prep.tasks.catalogue import BEGIN, END, markdown
from data_prep.tasks.clinical import read_seizures
from tests import datasets_on_disk as on_disk
from tests.recordings import noise, write_edf
from tests.test_prep import prep
from tests.test_tasks import prepare

# Windows in `published` and `corrected`; those of each class, and on each side, as published; of the written files.
EXPECTED = {
    "faced": (252, 252, [27, 27, 27, 27, 36, 27, 27, 27, 27], [84, 84, 84]),
    "seed_v": (1370, 1370, [180, 130, 582, 330, 148], [1326, 44, 0]),
    "isruc_s1": (100, 80, [20, 20, 20, 20, 20], [60, 20, 20]),
    "isruc_s3": (60, 60, [12, 12, 12, 12, 12], [20, 20, 20]),
    "mental_arithmetic": (18, 18, [12, 6], [6, 6, 6]),
    "bcic2020_3": (30, 30, [9, 3, 6, 3, 9], [15, 6, 9]),
    "chb_mit": (59, 44, [34, 25], [23, 20, 16]),
    "tuev": (48, 18, [6, 6, 0, 6, 12, 18], [32, 8, 8]),
    "tuab": (24, 24, [12, 12], [16, 4, 4]),
    "shu_mi": (16, 16, [8, 8], [8, 4, 4]),
    "physionet_mi": (8, 8, [2, 2, 2, 2], [4, 2, 2]),
    "bcic_iv_2a": (44, 48, [7, 4, 26, 7], [20, 12, 12]),
    "mumtaz": (16, 12, [12, 4], [16, 0, 0]),
}


class Prepared:
    """A store of a data set, with its columns and whom each window is from."""

    def __init__(self, task, folder, store) -> None:
        self.store, self.columns = prepare(task, folder, store)
        rows = [self.store.recording(row) for row in self.columns["recording"]]
        self.path = np.array([row.path for row in rows])
        self.subject = np.array([row.subject for row in rows])
        self.uv = self.columns["windows"] * self.columns["scale"][:, None, None]

    def __getattr__(self, name):
        return self.columns[name]


def keeping(name: str, trap: str) -> DataSet:
    """A data set as corrected, but for one trap."""

    class One(DATA_SETS[name]):
        def keeps(self, asked):
            super().keeps(asked)
            return asked == trap

    return One()


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """Folder of a data set, written once."""

    @lru_cache
    def folder(name):
        path = tmp_path_factory.mktemp(name)
        on_disk.WRITERS[name](path)
        return path

    return folder


@pytest.fixture(scope="module")
def prepared(disk, tmp_path_factory):
    """A data set as `published`, as `corrected`, or as corrected but for one trap; prepared once."""

    @lru_cache
    def made(name, how):
        task = DATA_SETS[name](protocol=how) if how in ("published", "corrected") else keeping(name, how)
        return Prepared(task, disk(name), tmp_path_factory.mktemp("store"))

    return made


def sides(split) -> list[str]:
    return [SPLITS[number] for number in split]


ROOT = Path(__file__).resolve().parent.parent


def test_the_documentation_is_what_the_code_prints() -> None:
    text = (ROOT / "docs" / "datasets.md").read_text()
    assert f"{BEGIN}\n{markdown()}\n{END}" in text, "run python -m data_prep.tasks.catalogue and put it there"


# --- reading -------------------------------------------------------------------------------------------------------


def test_every_data_set_is_written_and_expected() -> None:
    assert list(DATA_SETS) == list(on_disk.WRITERS)
    assert set(DATA_SETS) == set(EXPECTED)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_is_read_from_its_format(name, prepared) -> None:
    about = DATA_SETS[name].about
    n_published, n_corrected, classes, parts = EXPECTED[name]
    done = prepared(name, "corrected")
    assert done.store.n_windows == n_corrected
    assert done.store.info.task.class_names == about.class_names
    assert done.uv.shape[1:] == (len(about.channels), round(200 * about.seconds))
    assert done.store.shards[0].ch_names == about.channels
    assert done.store.info.preparation["task"] == name
    if about.traps:
        done = prepared(name, "published")
    assert done.store.n_windows == n_published
    assert np.bincount(done.label, minlength=len(about.class_names)).tolist() == classes
    assert np.bincount(done.split, minlength=3).tolist() == parts


@pytest.mark.parametrize("name", DATA_SETS)
def test_channels_are_where_they_belong_in_microvolts(name, prepared) -> None:
    about = DATA_SETS[name].about
    uv = prepared(name, "corrected").uv
    found = uv.std(axis=2).mean(axis=0)
    written = np.array([on_disk.amplitude(channel) for channel in about.channels])
    pairs = [bipolar_pair(channel) for channel in about.channels]
    if name in ("tuab", "tuev"):
        written = np.array([np.hypot(*map(on_disk.amplitude, pair)) for pair in pairs])
    assert np.corrcoef(found, written)[0, 1] > 0.97
    # Filters take some of it: most where only what is below 35 Hz passes.
    assert 0.4 < np.median(found / written) < 1.15


@pytest.mark.parametrize("name", [name for name, kind in DATA_SETS.items() if not kind.about.traps])
def test_without_traps_both_protocols_are_one(name) -> None:
    published, corrected = (DATA_SETS[name](protocol=protocol) for protocol in ("published", "corrected"))
    assert published.recipe() == corrected.recipe()
    assert {**published.constants(), "protocol": "corrected"} == corrected.constants()
    assert not published.warning()


def test_clips_and_windows_of_faced_in_their_order(prepared, disk) -> None:
    done = prepared("faced", "corrected")
    assert done.start[:6].tolist() == [0, 10, 20, 30, 40, 50]
    assert done.label[:84].tolist() == [label for label in _clips() for _ in range(3)]
    # The clips grow louder from 0.9 to 1.1 times.
    loud = done.uv[:84].std(axis=(1, 2)).reshape(28, 3).mean(axis=1)
    np.testing.assert_allclose(loud / loud[0], np.linspace(0.9, 1.1, 28) / 0.9, rtol=0.02)


def _clips() -> list[int]:
    return [min(clip // 3, 4) if clip < 12 else 4 if clip < 16 else 5 + (clip - 16) // 3 for clip in range(28)]


def test_seed_v_follows_the_table_of_its_session(prepared) -> None:
    done = prepared("seed_v", "published")
    own = done.subject == "12"
    first_clip = own & (done.start < 321)
    assert set(done.label[first_clip]) == {2}
    assert (done.start[first_clip].min(), done.start[first_clip].max()) == (30, 320)
    assert set(done.label[own & (done.start >= 353) & (done.start < 418)]) == {1}


def test_seed_v_at_its_rate_from_a_header_that_miscounts(tmp_path) -> None:
    names = [*DATA_SETS["seed_v"].about.channels, "M1", "M2", "VEO", "HEO"]
    x = on_disk.signal(names, 33, 1000.0)
    broken, repaired = (tmp_path / "in" / f"7_1_20180411{ending}.cnt" for ending in ("", "_repaired"))
    on_disk.write_cnt(broken, x, 1000, names, counted=-732)
    with pytest.raises(UnusableError, match="cannot be read"):
        OpenRecording(broken)
    done = Prepared(DATA_SETS["seed_v"](), tmp_path / "in", tmp_path / "s")
    assert done.start.tolist() == [30, 31, 32]
    assert done.label.tolist() == [4, 4, 4]
    written = np.array([on_disk.amplitude(name) for name in done.store.shards[0].ch_names])
    assert np.corrcoef(done.uv.std(axis=2).mean(axis=0), written)[0, 1] > 0.97
    # Of the two files of that session one counts: the repaired one.
    on_disk.write_cnt(repaired, x, 1000, names)
    (source,) = DATA_SETS["seed_v"]().sources(str(tmp_path / "in"))
    assert (source.key, source.subject, source.session) == (repaired.name, "7", "1")
    broken.unlink()
    same_windows(Prepared(DATA_SETS["seed_v"](), tmp_path / "in", tmp_path / "t"), done)


def test_sequences_of_sleep_are_whole_and_in_order(prepared) -> None:
    for name in ("isruc_s1", "isruc_s3"):
        done = prepared(name, "corrected")
        for subject in np.unique(done.subject):
            own = done.subject == subject
            assert own.sum() == 20  # of 22 epochs
            np.testing.assert_array_equal(done.start[own], np.arange(20) * 30)
            assert done.label[own].tolist() == [0, 1, 2, 3, 4] * 4


def test_test_labels_of_bcic2020_come_from_the_answer_sheet(prepared) -> None:
    done = prepared("bcic2020_3", "corrected")
    tests = np.char.startswith(done.path, "Test set")
    assert done.label[tests].tolist() == [label - 1 for label in on_disk.BCIC_TEST_LABELS] * 3
    training = np.char.startswith(done.path, "Training set")
    assert done.label[training].tolist() == [4, 0, 1, 3, 2] * 3
    # The same trials were written into all three sets.
    np.testing.assert_allclose(done.uv[tests][:3], done.uv[training][:3], atol=0.01)


# First what is listed before the others, then from which to which: as the published preparation counts the files.
CHB_FILES = """
    1: 1 2-46, 2: 1 2-35, 3: 1 2-38, 4: 7 1-43, 5: 1 2-39, 6: 1 2-24, 7: 1 2-19, 8: 2 3-29, 9: 2 1-19, 10: 1 2-89,
    11: 1 2-99, 14: 1 2-42, 15: 2 1-63, 16: 1 2-19, 18: 2 1-36, 19: 2 1-30, 20: 1 2-68, 21: 1 2-33, 22: 1 2-77,
    23: 6 7-20, 24: 1 3-21
"""


def test_files_of_chb_mit_are_the_published_ones(tmp_path) -> None:
    wanted = set()
    for patient, reference, first, last in re.findall(r"(\d+): (\d+) (\d+)-(\d+)", CHB_FILES):
        numbers = {int(reference), *range(int(first), int(last) + 1)}
        wanted |= {f"chb{int(patient):02d}/chb{int(patient):02d}_{number:02d}.edf" for number in numbers}
    for patient in range(1, 25):
        folder = tmp_path / f"chb{patient:02d}"
        folder.mkdir()
        for number in range(100):
            (folder / f"{folder.name}_{number:02d}.edf").touch()
    (tmp_path / "chb02" / "chb02_16+.edf").touch()
    found = DATA_SETS["chb_mit"]().sources(str(tmp_path))
    assert {source.key for source in found} == wanted
    sides_of = {(source.key[:5], source.part) for source in found}
    assert {patient for patient, part in sides_of if part == "valid"} == {"chb22"}
    assert {patient for patient, part in sides_of if part == "test"} == {"chb23", "chb24"}


def test_seizures_of_chb_mit_are_those_of_every_spelling_of_a_summary(disk) -> None:
    folder = disk("chb_mit")
    for name, seizures in on_disk.CHB_SEIZURES.items():
        assert read_seizures(folder / name[:5] / f"{name}.edf") == seizures
    assert read_seizures(folder / "chb01" / "chb01_01.edf") == []
    assert read_seizures(folder / "chb24" / "chb24_03.edf") is None


def test_a_file_that_its_summary_does_not_mention_holds_no_seizure(prepared) -> None:
    for protocol in ("published", "corrected"):
        done = prepared("chb_mit", protocol)
        row = next(row for row in done.store.recordings if row.path == "chb24/chb24_03.edf")
        assert (row.status, row.kept) == ("ok", 7)
        twice = "several channels of one electrode: T8-P8-0 used, not T8-P8-1"
        assert row.reason == f"{twice}; its summary does not mention chb24_03.edf: taken to hold no seizure"
        assert not done.label[done.path == row.path].any()


def test_a_summary_that_is_silent_about_seizures_is_no_summary(disk, tmp_path) -> None:
    folder = shutil.copytree(disk("chb_mit"), tmp_path / "in")
    (folder / "chb24" / "chb24_03.edf.seizures").touch()
    summary = folder / "chb22" / "chb22-summary.txt"
    summary.write_text(summary.read_text().replace("Seizure End Time: 45 seconds", ""))
    rows = Prepared(DATA_SETS["chb_mit"](), folder, tmp_path / "s").store.recordings
    refused = {row.path: row.reason for row in rows if row.status == "failed"}
    assert refused["chb24/chb24_03.edf"] == (
        "no seizure times: chb24_03.edf.seizures says that it has seizures, but chb24-summary.txt does not mention it"
    )
    assert refused["chb22/chb22_02.edf"] == "chb22-summary.txt gives 2 starts and 1 ends of its seizures"


@pytest.mark.parametrize(
    ("name", "labels", "of"),
    [
        ("chb_mit", "chb01/chb01-summary.txt", "chb01/"),
        ("isruc_s1", "1/1_1.txt", "/1.rec"),
        ("isruc_s3", "RawData/1/1_1.txt", "/subject1.mat"),
        ("bcic2020_3", "Track3_Answer Sheet_Test.xlsx", "Test set/"),
        ("tuev", ".rec", ".edf"),
    ],
)
def test_a_recording_whose_labels_change_is_in_another_state(name, labels, of, disk, tmp_path) -> None:
    folder = shutil.copytree(disk(name), tmp_path / "in")

    def states() -> dict[str, str]:
        return {source.key: source.state for source in DATA_SETS[name](protocol="published").sources(str(folder))}

    before = states()
    file = min(file for file in folder.rglob("*") if file.as_posix().endswith(labels))
    file.write_bytes(file.read_bytes() + b"\n")
    changed = {key for key, state in states().items() if state != before[key]}
    concerned = file.with_suffix(".edf").name if name == "tuev" else of
    assert changed == {key for key in before if concerned in key} != set()


# Start and end of each clip in seconds.
CLIPS_OF_SEED_V = {
    1: "30-102 132-228 287-524 555-742 773-920 982-1240 1271-1568 1628-1697 1730-1994 2025-2166 2227-2401 2435-2607 "
    "2667-2901 2932-3172 3204-3359",
    2: "30-267 299-488 548-614 646-773 836-967 1000-1059 1091-1331 1392-1622 1657-1777 1809-1908 1966-2153 2186-2302 "
    "2333-2428 2490-2709 2741-2817",
    3: "30-321 353-418 478-643 674-764 825-877 908-1147 1200-1284 1346-1418 1451-1679 1711-1996 2055-2275 2307-2425 "
    "2457-2664 2726-2857 2888-3066",
}
EMOTIONS_OF_SEED_V = {
    1: "happy fear neutral sad disgust " * 3,
    2: "sad fear neutral disgust happy happy disgust neutral sad fear neutral happy fear sad disgust",
    3: "sad fear neutral disgust happy happy disgust neutral sad fear neutral happy fear sad disgust",
}


def test_clips_of_seed_v() -> None:
    data_set = DATA_SETS["seed_v"](protocol="published")
    seconds = 0.0
    for session, emotions in EMOTIONS_OF_SEED_V.items():
        clips = list(data_set.stretches(Source(file="", key="", subject="1", session=str(session)), None))
        assert " ".join(f"{clip.onset}-{clip.onset + clip.seconds}" for clip in clips) == CLIPS_OF_SEED_V[session]
        assert [data_set.about.class_names[clip.label] for clip in clips] == emotions.split()
        assert [clip.part for clip in clips] == ["train"] * 5 + ["valid"] * 5 + ["test"] * 5
        seconds += sum(clip.seconds for clip in clips)
    assert 16 * seconds == 117_744 == data_set.about.windows


SIDES = {
    "faced": ("sub{:03d}.pkl", {"train": (0, 79), "valid": (80, 99), "test": (100, 122)}),
    "shu_mi": ("sub-{:03d}_ses-05_task_motorimagery_eeg.mat", {"train": (1, 15), "valid": (16, 20), "test": (21, 25)}),
    "physionet_mi": ("S{:03d}R04.edf", {"train": (1, 70), "valid": (71, 89), "test": (90, 109)}),
    "mental_arithmetic": ("Subject{:02d}_1.edf", {"train": (0, 27), "valid": (28, 31), "test": (32, 35)}),
    "isruc_s1": ("{0}/{0}.rec", {"train": (1, 80), "valid": (81, 90), "test": (91, 100)}),
    "isruc_s3": ("ExtractedChannels/subject{}.mat", {"train": (1, 6), "valid": (7, 8), "test": (9, 10)}),
}


@pytest.mark.parametrize("name", SIDES)
def test_sides_begin_and_end_where_they_should(name, tmp_path) -> None:
    pattern, wanted = SIDES[name]
    for first, last in wanted.values():
        for number in (first, last):
            file = tmp_path / pattern.format(number)
            file.parent.mkdir(exist_ok=True)
            file.touch()
    found = DATA_SETS[name](protocol="published").sources(str(tmp_path))
    ends: dict[str, list[int]] = {}
    for source in found:
        ends.setdefault(source.part, []).append(int(re.sub(r"\D", "", source.subject)))
    assert {part: (min(numbers), max(numbers)) for part, numbers in ends.items()} == wanted


CHANNELS = {
    "physionet_mi": """
        FC5 FC3 FC1 FCz FC2 FC4 FC6 C5 C3 C1 Cz C2 C4 C6 CP5 CP3 CP1 CPz CP2 CP4 CP6 Fp1 Fpz Fp2 AF7 AF3 AFz AF4 AF8
        F7 F5 F3 F1 Fz F2 F4 F6 F8 FT7 FT8 T7 T8 T9 T10 TP7 TP8 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz
        O2 Iz
    """,
    "bcic2020_3": """
        Fp1 Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 TP9 CP5 CP1 CP2 CP6 TP10 P7 P3 Pz P4 P8 PO9 O1 Oz O2
        PO10 AF7 AF3 AF4 AF8 F5 F1 F2 F6 FT9 FT7 FC3 FC4 FT8 FT10 C5 C1 C2 C6 TP7 CP3 CPz CP4 TP8 P5 P1 P2 P6 PO7
        PO3 POz PO4 PO8
    """,
    "bcic_iv_2a": "Fz FC3 FC1 FCz FC2 FC4 C5 C3 C1 Cz C2 C4 C6 CP3 CP1 CPz CP2 CP4 P1 Pz P2 POz",
    "shu_mi": """
        Fp1 Fp2 Fz F3 F4 F7 F8 FC1 FC2 FC5 FC6 Cz C3 C4 T7 T8 A1 A2 CP1 CP2 CP5 CP6 Pz P3 P4 P7 P8 PO3 PO4 Oz O1 O2
    """,
    "faced": """
        Fp1 Fp2 Fz F3 F4 F7 F8 FC1 FC2 FC5 FC6 Cz C3 C4 T7 T8 CP1 CP2 CP5 CP6 Pz P3 P4 P7 P8 PO3 PO4 Oz O1 O2 A2 A1
    """,
    "seed_v": """
        Fp1 Fpz Fp2 AF3 AF4 F7 F5 F3 F1 Fz F2 F4 F6 F8 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 T7 C5 C3 C1 Cz C2 C4 C6
        T8 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO5 PO3 POz PO4 PO6 PO8 CB1 O1 Oz O2
        CB2
    """,
}


@pytest.mark.parametrize("name", CHANNELS)
def test_channels_stand_in_the_documented_order(name) -> None:
    assert list(DATA_SETS[name].about.channels) == CHANNELS[name].split()


def rewrite_bcic2020(folder: Path, change) -> None:
    """Change trials (n, C, T) and names of channels in a training and in a test file of subject 1."""
    path = folder / "Training set" / "Data_Sample01.mat"
    (epochs,) = load_mat(path, "epo_train")
    x, names = change(epochs.x.transpose(2, 1, 0), list(epochs.clab))
    content = {"x": x.transpose(2, 1, 0), "y": epochs.y, **({"clab": np.array(names, dtype=object)} if names else {})}
    scipy.io.savemat(path, {"epo_train": content})
    with h5py.File(folder / "Test set" / "Data_Sample01.mat", "r+") as h5:
        x, cells = change(h5["epo_test/x"][()], list(np.ravel(h5["epo_test/clab"][()])))
        del h5["epo_test/x"], h5["epo_test/clab"]
        h5["epo_test/x"] = x
        if cells:
            h5.create_dataset("epo_test/clab", data=np.array(cells, dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda x, names: (x[:, ::-1], names[::-1]), "channels put in order, which by its clab is another in the file"),
        (lambda x, names: (x, []), ""),
    ],
    ids=["another order", "no names"],
)
def test_channels_of_bcic2020_are_what_its_files_call_them(change, note, disk, tmp_path, prepared) -> None:
    folder = shutil.copytree(disk("bcic2020_3"), tmp_path / "in")
    rewrite_bcic2020(folder, change)
    done = Prepared(DATA_SETS["bcic2020_3"](), folder, tmp_path / "s")
    same_windows(done, prepared("bcic2020_3", "corrected"))
    changed = ["Test set/Data_Sample01.mat", "Training set/Data_Sample01.mat"]
    assert {row.path: row.reason for row in done.store.recordings if row.path in changed} == dict.fromkeys(
        changed, note
    )


def test_files_of_bcic2020_with_other_channels_are_refused(disk, tmp_path) -> None:
    folder = shutil.copytree(disk("bcic2020_3"), tmp_path / "in")
    rewrite_bcic2020(folder, lambda x, names: (x, names[1:]))
    rows = Prepared(DATA_SETS["bcic2020_3"](), folder, tmp_path / "s").store.recordings
    reasons = [row.reason for row in rows if row.status == "failed"]
    why = "an array of shape (63,) where 64 was expected (a name per channel, in its clab)"
    assert reasons == [why, why]


def test_cues_of_physionet_mi_depend_on_the_run(prepared) -> None:
    done = prepared("physionet_mi", "corrected")
    labels = {path: done.label[done.path == path].tolist() for path in np.unique(done.path)}
    assert labels == {
        "S001/S001R04.edf": [1, 0],
        "S001/S001R06.edf": [3, 2],
        "S071/S071R08.edf": [1, 0],
        "S090/S090R14.edf": [3, 2],
    }
    np.testing.assert_allclose(done.start[:2], [4.2, 12.5])
    np.testing.assert_allclose(done.uv.mean(axis=1), 0, atol=0.1)


@pytest.mark.real
def test_real_recording_of_physionet_mi(eeg_folder, tmp_path) -> None:
    done = Prepared(DATA_SETS["physionet_mi"](), eeg_folder / "eegmmidb", tmp_path / "s")
    # Of the runs here two are of imagined movement: 15 cues each, and the files themselves say which.
    counts = {path: np.bincount(done.label[done.path == path], minlength=4).tolist() for path in np.unique(done.path)}
    assert counts == {"S001/S001R04.edf": [8, 7, 0, 0], "S001/S001R10.edf": [0, 0, 7, 8]}
    assert done.uv.shape == (30, 64, 800)
    assert sides(done.split) == ["train"] * 30
    assert 5 < np.median(done.uv.std(axis=2)) < 100
    labels = OpenRecording(eeg_folder / "eegmmidb" / "S001" / "S001R04.edf").labels
    assert tuple(map(canonical_name, labels)) == done.store.shards[0].ch_names


# --- traps ---------------------------------------------------------------------------------------------------------

TRAPS = [(name, trap.name) for name, kind in DATA_SETS.items() for trap in kind.about.traps]


def test_every_trap_has_a_test_and_a_warning() -> None:
    for name, trap in TRAPS:
        assert f"test_trap_{name}_{trap}" in globals()
    for name, kind in DATA_SETS.items():
        said = kind(protocol="published").warning()
        assert all(trap.published in said and trap.corrected in said for trap in kind.about.traps), name
        assert kind(protocol="corrected").warning() == ""


def same_windows(one: Prepared, other: Prepared) -> None:
    np.testing.assert_array_equal(one.windows, other.windows)
    np.testing.assert_array_equal(one.label, other.label)


def windows_more(one: Prepared, other: Prepared) -> np.ndarray:
    """Which windows of one store another lacks; all else must be alike in both."""
    known = set(zip(other.path, other.start, strict=True))
    more = np.array([key not in known for key in zip(one.path, one.start, strict=True)])
    for column in ("windows", "label", "split"):
        np.testing.assert_array_equal(getattr(one, column)[~more], getattr(other, column))
    return more


def test_trap_mental_arithmetic_ear_channel(prepared) -> None:
    published, corrected = prepared("mental_arithmetic", "published"), prepared("mental_arithmetic", "corrected")
    names, electrodes = published.store.shards[0].ch_names, corrected.store.shards[0].ch_names
    assert set(names) - set(electrodes) == {"A2-A1"}
    order = [names.index(name) for name in electrodes]
    np.testing.assert_allclose(published.uv[:, order], corrected.uv, atol=0.01)
    np.testing.assert_array_equal(published.label, corrected.label)
    np.testing.assert_array_equal(published.split, corrected.split)


def test_trap_tuab_split_within_class(prepared) -> None:
    published, corrected = prepared("tuab", "published"), prepared("tuab", "corrected")
    same_windows(published, corrected)
    both = published.subject == "aaaaaaae"
    assert set(sides(published.split[both])) == {"train", "valid"}
    assert set(sides(corrected.split[both])) == {"train"}
    np.testing.assert_array_equal(published.split[~both], corrected.split[~both])
    for part in range(3):
        others = corrected.subject[corrected.split != part]
        assert not set(corrected.subject[corrected.split == part]) & set(others)


def test_trap_tuev_duplicates(prepared) -> None:
    one, corrected = prepared("tuev", "duplicates"), prepared("tuev", "corrected")
    own = one.path == one.path[0]
    # The first second's windows reach beyond the start and are left out here.
    assert one.start[own].tolist() == [8, 8, 18, 18, 25]
    assert one.label[own].tolist() == [4, 4, 5, 1, 3]
    np.testing.assert_array_equal(one.windows[0], one.windows[1])
    assert corrected.start[corrected.path == one.path[0]].tolist() == [8, 18, 25]
    assert corrected.label[corrected.path == one.path[0]].tolist() == [4, 1, 3]
    for key in set(zip(one.path, one.start, strict=True)) | set(zip(corrected.path, corrected.start, strict=True)):
        often, once = ((done.path == key[0]) & (done.start == key[1]) for done in (one, corrected))
        assert once.sum() == 1
        assert (one.windows[often] == corrected.windows[once]).all()
        assert one.label[often].min() == corrected.label[once]
        assert set(one.split[often]) == set(corrected.split[once])


def test_trap_tuev_wrap_around(prepared) -> None:
    one, corrected = prepared("tuev", "wrap_around"), prepared("tuev", "corrected")
    more = windows_more(one, corrected)
    assert set(one.start[more]) == {-1}
    assert set(one.path[more]) == set(corrected.path)
    own = one.path == one.path[0]
    first, last = one.uv[own][0], one.uv[own][-1]
    # The last window ends with the recording, with whose last second the first one begins.
    np.testing.assert_allclose(first[:, :200], last[:, -200:], atol=0.02)


def check_within_subject(published: Prepared, corrected: Prepared) -> None:
    same_windows(published, corrected)
    for subject in np.unique(published.subject):
        assert len(set(published.split[published.subject == subject])) > 1
    assert "split" not in corrected.columns
    assert not corrected.store.info.task.has_split


def test_trap_seed_v_within_subject(prepared) -> None:
    check_within_subject(prepared("seed_v", "published"), prepared("seed_v", "corrected"))


def test_trap_bcic2020_3_within_subject(prepared) -> None:
    check_within_subject(prepared("bcic2020_3", "published"), prepared("bcic2020_3", "corrected"))


def test_trap_isruc_s1_by_position(prepared) -> None:
    one, corrected = prepared("isruc_s1", "by_position"), prepared("isruc_s1", "corrected")
    rows = {row.subject: row for row in corrected.store.recordings}
    assert (rows["8"].status, rows["8"].reason) == ("failed", "lacks 2 of 6 wanted channels: F3, F4")
    assert rows["40"].reason == "formed as differences: F3-A2, C3-A2, O1-A2, F4-A1, C4-A1, O2-A1"
    notes = {row.subject: row.reason for row in one.store.recordings if row.reason}
    assert notes == {
        "8": "C3-A2, O1-A2, C4-A1, O2-A1, X1, X2 pass for F3, C3, O1, F4, C4, O2",
        "40": "LOC, A2, C4, O2, C3, O1 pass for F3, C3, O1, F4, C4, O2",
    }
    elsewhere, there = (~np.isin(done.subject, ["8", "40"]) for done in (one, corrected))
    assert set(one.subject[elsewhere]) == {"1", "81", "100"}
    for column in ("windows", "label", "split"):
        np.testing.assert_array_equal(getattr(one, column)[elsewhere], getattr(corrected, column)[there])
    # The electrodes of subject 40 hold their ear, too.
    ears = {"C4": "A1", "O2": "A1", "C3": "A2", "O1": "A2"}
    positions = {"8": ["C3", "O1", "C4", "O2", "X1", "X2"], "40": ["LOC", "A2", "C4", "O2", "C3", "O1"]}
    for subject, names in positions.items():
        held = ears if subject == "40" else {}
        written = [
            np.hypot(on_disk.amplitude(name), on_disk.amplitude(held[name]) if name in held else 0) for name in names
        ]
        check_alike(one.uv[one.subject == subject], written)
    check_alike(
        corrected.uv[corrected.subject == "40"],
        [on_disk.amplitude(name) for name in corrected.store.shards[0].ch_names],
    )


def check_alike(uv, written) -> None:
    """Channels have the written amplitudes, but for what the filters took of each."""
    ratio = uv.std(axis=2).mean(axis=0) / written
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.06)


def test_trap_isruc_s1_unsorted_pairs(prepared, disk, tmp_path) -> None:
    """It cannot be repeated: what the file system lists first is no property of the data."""
    one, corrected = prepared("isruc_s1", "unsorted_pairs"), prepared("isruc_s1", "corrected")
    assert one.store.fingerprint() == corrected.store.fingerprint()
    folder = shutil.copytree(disk("isruc_s1"), tmp_path / "in")
    on_disk.write_stages(folder / "group1" / "81" / "81_1.txt", [5] * 22)
    changed = Prepared(DATA_SETS["isruc_s1"](), folder, tmp_path / "s")
    own = changed.subject == "81"
    assert set(changed.label[own]) == {4}
    np.testing.assert_array_equal(changed.label[~own], corrected.label[~own])


def test_trap_isruc_s3_scrambled(prepared) -> None:
    one, corrected = prepared("isruc_s3", "scrambled"), prepared("isruc_s3", "corrected")
    for scrambled, plain in zip(one.windows, corrected.windows, strict=True):
        np.testing.assert_array_equal(scrambled.T.ravel(), plain.ravel())
    np.testing.assert_array_equal(one.label, corrected.label)
    np.testing.assert_array_equal(one.split, corrected.split)
    # What passes for a channel has all channels' amplitude.
    assert np.ptp(one.uv.std(axis=2).mean(axis=0)) < 0.1 * np.ptp(corrected.uv.std(axis=2).mean(axis=0))


def test_trap_isruc_s3_filtered_alone(prepared) -> None:
    one, corrected = prepared("isruc_s3", "filtered_alone"), prepared("isruc_s3", "corrected")
    difference = np.abs(one.uv - corrected.uv).max(axis=(0, 1))
    reach = round(7.5 * 200)  # half of the band-pass's length and of the notches'
    assert difference[reach:-reach].max() < 0.02
    assert difference[:200].max() > 1
    assert difference[-200:].max() > 1
    np.testing.assert_array_equal(one.label, corrected.label)
    np.testing.assert_array_equal(one.split, corrected.split)


def test_trap_mumtaz_two_names(prepared) -> None:
    one, corrected = prepared("mumtaz", "two_names"), prepared("mumtaz", "corrected")
    assert set(one.subject[windows_more(one, corrected)]) == {"H S27", "H S30"}
    reasons = {row.path: row.reason for row in corrected.store.recordings if row.status == "failed"}
    why = "the same recording under the names of H S27 and H S30"
    assert reasons == {"H S27 EC.edf": why, "H S30 EC.edf": why}
    # The two eyes-open recordings of H S15 are one person's.
    assert sorted(set(corrected.path[corrected.subject == "H S15"])) == ["6921143_H S15 EO.edf", "6921959_H S15 EO.edf"]


def test_trap_mumtaz_split_by_file(tmp_path, prepared) -> None:
    persons = [*(f"H S{number}" for number in range(1, 29)), *(f"MDD S{number}" for number in range(1, 32))]
    names = [f"{person} {state}" for person in persons for state in ("EC", "EO")]
    names.remove("H S1 EC")  # so that the 40th and the 41st file are one person's
    for name in [*names, "H S1 TASK"]:
        (tmp_path / f"{name}.edf").touch()
    published, corrected = (
        DATA_SETS["mumtaz"](protocol=protocol).sources(str(tmp_path)) for protocol in ("published", "corrected")
    )
    assert [replace(source, part="") for source in published] == [replace(source, part="") for source in corrected]
    assert len(published) == len(names)
    for group, counts in (("H", [40, 8, 7]), ("MDD", [42, 10, 10])):
        parts = [source.part for source in published if source.subject.startswith(group)]
        assert [parts.count(side) for side in SPLITS] == counts
    moved = {old.subject for old, new in zip(published, corrected, strict=True) if old.part != new.part}
    assert moved == on_two_sides(published)
    assert moved
    assert not on_two_sides(corrected)
    same_windows(prepared("mumtaz", "split_by_file"), prepared("mumtaz", "corrected"))


def on_two_sides(sources) -> set[str]:
    parts: dict[str, set[str]] = {}
    for source in sources:
        parts.setdefault(source.subject, set()).add(source.part)
    return {subject for subject, own in parts.items() if len(own) > 1}


def test_trap_bcic_iv_2a_lost_runs(prepared) -> None:
    one, corrected = prepared("bcic_iv_2a", "lost_runs"), prepared("bcic_iv_2a", "corrected")
    assert set(corrected.path[windows_more(corrected, one)]) == {"A04T.mat#1", "A04T.mat#2"}


def test_trap_bcic_iv_2a_causal_per_trial(prepared, disk) -> None:
    one, corrected = prepared("bcic_iv_2a", "causal_per_trial"), prepared("bcic_iv_2a", "corrected")
    np.testing.assert_array_equal(one.label, corrected.label)
    np.testing.assert_array_equal(one.start, corrected.start)
    np.testing.assert_array_equal(one.split, corrected.split)
    (runs,) = load_mat(disk("bcic_iv_2a") / "A01T.mat", "data")
    run = runs[3]
    x = run.X[:, :22].T
    trial = x[:, 250:2250] - x[:, 250:2250].mean(axis=0)
    band = butter(5, (0.3, 40.0), btype="band", fs=250.0)
    reference = scipy.signal.resample_poly(lfilter(*band, trial, axis=1), 4, 5, axis=1)[:, 400:1200]
    first = one.uv[one.path == "A01T.mat#3"][0]
    other = corrected.uv[corrected.path == "A01T.mat#3"][0]
    scale = reference.std()
    assert np.std(first - reference) < 0.05 * scale
    assert np.std(other - reference) > 0.3 * scale


def labels_at(done: Prepared, path: str) -> dict[float, set[int]]:
    own = done.path == path
    return {start: set(done.label[own & (done.start == start)]) for start in done.start[own]}


def test_trap_chb_mit_boundaries_only(prepared) -> None:
    one, corrected = prepared("chb_mit", "boundaries_only"), prepared("chb_mit", "corrected")
    path = "chb01/chb01_03.edf"  # one seizure from 15 to 55 s
    wrong, right = labels_at(one, path), labels_at(corrected, path)
    assert [right[start] for start in range(0, 70, 10)] == [{0}, {1}, {1}, {1}, {1}, {1}, {0}]
    assert [wrong[start] for start in range(0, 70, 10)] == [{0}, {1}, {0}, {0}, {0}, {1}, {0}]
    # Further windows call a seizure what was called none: 19 to 29 s overlaps 20 to 30 s.
    further = [start for start in wrong if start % 10]
    assert len(further) == 9
    assert all(wrong[start] == {1} for start in further)
    other = one.label != corrected.label
    assert list(zip(one.path[other], one.start[other], strict=True)) == [(path, start) for start in (20, 30, 40)]
    np.testing.assert_array_equal(one.windows, corrected.windows)
    np.testing.assert_array_equal(one.split, corrected.split)


def test_trap_chb_mit_further_windows_everywhere(prepared) -> None:
    one, corrected = prepared("chb_mit", "further_windows_everywhere"), prepared("chb_mit", "corrected")
    more = windows_more(one, corrected)
    assert {path: int(np.sum(one.path[more] == path)) for path in one.path[more]} == {
        "chb22/chb22_02.edf": 4,  # at 11, 16, 39 and 44 s
        "chb24/chb24_01.edf": 2,
    }
    assert set(sides(one.split[more])) == {"valid", "test"}
    assert (corrected.start[corrected.split > 0] % 10 == 0).all()
    assert (corrected.start[corrected.split == 0] % 10 != 0).any()


def test_trap_chb_mit_stretched(prepared) -> None:
    one, corrected = prepared("chb_mit", "stretched"), prepared("chb_mit", "corrected")
    more = windows_more(one, corrected)
    # The recordings end after 73 s.
    assert one.path[more].tolist() == ["chb21/chb21_01.edf"] * 2
    np.testing.assert_allclose(one.start[more], [64, 69], atol=0.01)
    # Four seconds stretched to ten: the fastest half of the spectrum is empty.
    power = (np.abs(np.fft.rfft(one.uv[more][-1])) ** 2).mean(axis=0)
    assert power[500:].sum() < 1e-3 * power.sum()


def test_trap_chb_mit_zero_channels(prepared) -> None:
    one, corrected = prepared("chb_mit", "zero_channels"), prepared("chb_mit", "corrected")
    path = "chb01/chb01_01.edf"
    more = windows_more(one, corrected)
    assert set(one.path[more]) == {path}
    channel = one.store.shards[0].ch_names.index("P4-O2")
    assert not one.windows[more][:, channel].any()
    assert np.delete(one.windows[more], channel, axis=1).any(axis=2).all()
    reasons = {row.path: (row.status, row.reason) for row in corrected.store.recordings}
    assert reasons[path] == ("failed", "lacks 1 of 16 wanted channels: P4-O2")


def test_trap_chb_mit_same_person(prepared) -> None:
    one, corrected = prepared("chb_mit", "same_person"), prepared("chb_mit", "corrected")
    twin = np.char.startswith(one.path, "chb21")
    assert set(one.subject[twin]) == {"chb21"}
    assert set(sides(one.split[twin])) == {"valid"}
    twin = np.char.startswith(corrected.path, "chb21")
    assert set(corrected.subject[twin]) == {"chb01"}
    assert set(sides(corrected.split[twin])) == {"train"}
    same_windows(one, corrected)
    np.testing.assert_array_equal(one.split[~twin], corrected.split[~twin])


SHU_FILE = "sub-001_ses-01_task_motorimagery_eeg.mat"

# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA_SETS)
def test_another_folder_is_refused_with_what_is_expected(name, tmp_path) -> None:
    about = DATA_SETS[name].about
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="does not hold the files") as caught:
        DATA_SETS[name]().sources(str(tmp_path))
    assert about.url in str(caught.value)
    assert about.layout.splitlines()[0] in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        DATA_SETS[name]().sources(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("name", "missing", "reason"),
    [
        ("tuev", "edf/train/aaaaaaaa/aaaaaaaa_00000001.rec", "no labels: aaaaaaaa_00000001.rec"),
        ("isruc_s1", "group1/81/81_1.txt", "no labels: 81_1.txt"),
        ("isruc_s3", "RawData/7/7_1.txt", "no labels: 7_1.txt"),
        ("chb_mit", "chb22/chb22-summary.txt", "no seizure times: chb22-summary.txt"),
    ],
)
def test_a_recording_without_labels_is_a_row_with_the_reason(name, missing, reason, disk, tmp_path) -> None:
    folder = shutil.copytree(disk(name), tmp_path / "in")
    (folder / missing).unlink()
    store = Prepared(DATA_SETS[name](), folder, tmp_path / "s").store
    reasons = [row.reason for row in store.recordings if reason in row.reason]
    assert len(reasons) == 1


def test_what_a_data_set_refuses_names_no_flag_that_its_command_lacks(disk, tmp_path) -> None:
    folder = shutil.copytree(disk("mental_arithmetic"), tmp_path / "in")
    labels = [*on_disk.old(TEN_TWENTY_19, "EEG {}"), "EEG A2-A1"]
    loud, cut, poor = (folder / f"Subject{number}_1.edf" for number in ("00", "28", "32"))
    write_edf(loud, 1e4 * noise(20, 12, 500.0), 500.0, labels=labels)
    cut.write_bytes(cut.read_bytes()[:-5000])
    write_edf(poor, noise(18, 12, 500.0), 500.0, labels=labels[:18])
    why = {
        loud.name: r"wrong unit\? With the unit in its header its amplitude is .* above the 1000 that EEG can have"
        r"(; amplitudes up to [\d,]+ uV are stored in steps of \d+ uV \(2 windows\))?",
        cut.name: "truncated: .* bytes that its header promises; copy it again",
        poor.name: "lacks . of .* wanted channels: Pz.*",
    }
    for protocol in ("corrected", "published"):
        rows = Prepared(DATA_SETS["mental_arithmetic"](protocol=protocol), folder, tmp_path / protocol).store.recordings
        found = {row.path: row for row in rows if row.path in why}
        assert all(re.fullmatch(words, found[name].reason) for name, words in why.items()), found
        # As published nobody looked at amplitudes.
        kept = [name for name, row in found.items() if row.status == "ok"]
        assert kept == ([loud.name] if protocol == "published" else [])
        assert ("stored in steps" in found[loud.name].reason) == (protocol == "published")


def test_tables_beside_the_recordings_of_a_data_set_change_nothing(disk, prepared, tmp_path) -> None:
    folder = shutil.copytree(disk("shu_mi"), tmp_path / "in")
    table = folder / SHU_FILE.replace("_eeg.mat", "_channels.tsv")
    table.write_text("name\ttype\tstatus\nA1\tREF\tgood\nA2\tREF\tgood\nCz\tEEG\tbad\n")
    same_windows(Prepared(DATA_SETS["shu_mi"](), folder, tmp_path / "s"), prepared("shu_mi", "corrected"))


@pytest.mark.parametrize(
    ("labels", "protocol", "reason"),
    [
        (["C4", "O2", "C3", "O1", "F4", "F3"], "corrected", "do not refer to the ears, and A2, A1 are not there"),
        (["LOC-A2", "ROC-A1", "F3-A2", "C3-A2"], "published", "4 channels, but the published ones are the third to"),
    ],
)
def test_a_night_without_the_channels_is_refused(labels, protocol, reason, tmp_path) -> None:
    data_set = DATA_SETS["isruc_s1"](protocol=protocol)
    written = write_edf(tmp_path / "1" / "night.edf", noise(len(labels), 30, 200.0), 200.0, labels=labels)
    written.rename(tmp_path / "1" / "1.rec")
    with pytest.raises(UnusableError, match=reason):
        data_set.open(data_set.sources(str(tmp_path))[0], data_set.recipe())


def test_two_subgroups_of_isruc_are_told_apart(tmp_path) -> None:
    for group in ("group1", "group3"):
        (tmp_path / group / "1").mkdir(parents=True)
        (tmp_path / group / "1" / "1.rec").touch()
    with pytest.raises(ValueError, match="several nights of a subject: give the folder of subgroup 1 alone"):
        DATA_SETS["isruc_s1"]().sources(str(tmp_path))
    assert len(DATA_SETS["isruc_s1"]().sources(str(tmp_path / "group1"))) == 1


def test_the_class_of_tuab_is_that_of_the_folder_next_to_the_recording(tmp_path) -> None:
    file = tmp_path / "abnormal" / "edf" / "train" / "normal" / "01_tcp_ar" / "aaaaaaaa_s001_t000.edf"
    write_edf(file, noise(2, 20, 250.0), 250.0, labels=["EEG FP1-REF", "EEG F7-REF"])
    data_set = DATA_SETS["tuab"]()
    (source,) = data_set.sources(str(tmp_path / "abnormal"))
    (stretch,) = data_set.stretches(source, data_set.open(source, data_set.recipe()))
    assert data_set.about.class_names[stretch.label] == "normal"


def test_missing_answers_of_bcic2020_are_named(disk, tmp_path) -> None:
    folder = shutil.copytree(disk("bcic2020_3"), tmp_path / "in")
    (folder / "Test set" / "Track3_Answer Sheet_Test.xlsx").unlink()
    with pytest.raises(ValueError, match=r"Track3_Answer Sheet_Test.xlsx is missing.*https://osf.io/pq7vb"):
        DATA_SETS["bcic2020_3"]().sources(str(folder))


@pytest.mark.parametrize(
    ("name", "file", "content", "reason"),
    [
        ("shu_mi", SHU_FILE, {"data": np.ones((2, 30, 1000)), "labels": [1, 2]}, "any x 32 x 1000 was expected"),
        ("shu_mi", SHU_FILE, {"x": 1}, "no variable data, labels in it, only x"),
        ("shu_mi", SHU_FILE, {"data": np.ones((2, 32, 1000)), "labels": [1, 3]}, r"labels \[2\] .* of 2 classes"),
        ("isruc_s3", "ExtractedChannels/subject1.mat", {"F3_A2": 1}, "no variable C3_A2"),
    ],
)
def test_arrays_of_another_shape_say_what_was_expected(name, file, content, reason, tmp_path) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    scipy.io.savemat(path, content)
    data_set = DATA_SETS[name]()
    with pytest.raises(UnusableError, match=reason):
        data_set.open(data_set.sources(str(tmp_path))[0], data_set.recipe())


class _Attack:
    def __reduce__(self):
        return (print, ("run",))


def test_pickles_may_hold_arrays_only(tmp_path, capsys) -> None:
    path = tmp_path / "sub000.pkl"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        x = np.arange(6.0).reshape(2, 3)
        path.write_bytes(pickle.dumps(x, protocol=protocol))
        np.testing.assert_array_equal(load_pickle(path), x)
    for content, reason in (({"x": 1}, "a pickle of dict"), (_Attack(), "asks for builtins.print")):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UnusableError, match=reason):
            load_pickle(path)
    assert capsys.readouterr().out == ""
    path.write_bytes(b"no pickle")
    with pytest.raises(UnusableError, match="cannot be read as a pickle"):
        load_pickle(path)


def test_arrays_in_another_unit_have_no_header_to_blame(tmp_path) -> None:
    file = tmp_path / "in" / "sub-001_ses-01_task_motorimagery_eeg.mat"
    file.parent.mkdir()
    x = np.stack([on_disk.signal(DATA_SETS["shu_mi"].about.channels, 4, 250.0)] * 2)
    scipy.io.savemat(file, {"data": 1e6 * x, "labels": np.array([[1, 2]], dtype=np.uint8)})
    task = DATA_SETS["shu_mi"]()
    with pytest.raises(UnusableError, match=r"wrong unit\? With its numbers taken for microvolts its amplitude is"):
        open_recording(task.sources(str(file.parent))[0], task, task.recipe())


def test_a_class_that_the_copy_lacks_is_no_misspelt_label(disk, tmp_path, monkeypatch, capsys) -> None:
    folder = shutil.copytree(disk("physionet_mi"), tmp_path / "in")
    for file in folder.rglob("*.edf"):
        if file.stem[-2:] not in ("04", "08", "12"):
            file.unlink()
    assert prep(monkeypatch, "task", "physionet_mi", folder, "--output", tmp_path / "s", "--workers", "1") == 0
    said = capsys.readouterr().out
    assert "WARNING: no window is of class both fists or both feet. Not all recordings of PhysioNet-MI are here" in said
    assert "spelt" not in said


def test_a_data_set_as_a_user_types_it(disk, tmp_path, monkeypatch, capsys) -> None:
    flags = ["--output", tmp_path / "s", "--workers", "1"]
    assert prep(monkeypatch, "task", "tuab", disk("tuab"), *flags, "--protocol", "published") == 0
    said = capsys.readouterr().out
    assert "WARNING: TUAB 3.0.1 as published:" in said
    assert "divided within each class" in said
    # Another recording moves the sides: not into the same store.
    extra = disk("tuab") / "edf/train/normal/01_tcp_ar/aaaaaaaj_s001_t000.edf"
    shutil.copy(disk("tuab") / "edf/train/normal/01_tcp_ar/aaaaaaai_s005_t000.edf", extra)
    try:
        assert prep(monkeypatch, "task", "tuab", disk("tuab"), *flags, "--protocol", "published") == 2
        assert "split_of_files" in capsys.readouterr().err
    finally:
        extra.unlink()
