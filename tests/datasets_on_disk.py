"""Small data sets in the exact on-disk formats of the literature: names, shapes, types, units, tables of labels.

Shorter and with fewer persons than the real ones, which nobody who wrote this has seen. Every channel has an amplitude
of its own, by its name, so that a test sees which channel is which.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from codebrain.channels import TEN_TWENTY_19, canonical_name
from data_prep.tasks import DATA_SETS
from tests.recordings import noise, write_edf

OLD_NAMES = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}


def amplitude(name: str) -> float:
    """Standard deviation in microvolts of a channel of a written file."""
    known = canonical_name(name) or name.upper()
    return 8.0 + sum(map(ord, known)) * 7 % 30


def signal(names: Sequence[str], seconds: float, sfreq: float, *, seed: int = 0) -> np.ndarray:
    """(C, T) noise in microvolts, each channel with its amplitude."""
    return noise(len(names), seconds, sfreq, seed=seed, rms_uv=1.0) * np.array([[amplitude(name)] for name in names])


def old(names: Sequence[str], form: str) -> list[str]:
    """Labels in the fashion of clinical files, such as EEG T3-REF."""
    return [form.format(OLD_NAMES.get(name, name)) for name in names]


def mental_arithmetic(folder: Path) -> None:
    labels = [*old(TEN_TWENTY_19, "EEG {}"), "EEG A2-A1", "ECG ECG"]
    for subject in (0, 28, 32):
        for run, seconds in ((1, 23), (2, 12)):
            x = signal(labels, seconds, 500.0, seed=10 * subject + run)
            write_edf(folder / f"Subject{subject:02d}_{run}.edf", x, 500.0, labels=labels)


def faced(folder: Path) -> None:
    names = DATA_SETS["faced"].about.channels
    (folder / "Processed_data").mkdir(parents=True)
    for subject in (0, 80, 100):
        one = signal(names, 30, 250.0, seed=subject)
        x = np.repeat(one[None], 28, axis=0)
        x *= np.linspace(0.9, 1.1, 28)[:, None, None]
        with (folder / "Processed_data" / f"sub{subject:03d}.pkl").open("wb") as file:
            pickle.dump(x, file)


def shu_mi(folder: Path) -> None:
    names = DATA_SETS["shu_mi"].about.channels
    folder.mkdir(parents=True, exist_ok=True)
    for subject, day in ((1, 1), (1, 2), (16, 1), (21, 5)):
        x = np.stack([signal(names, 4, 250.0, seed=100 * subject + trial) for trial in range(4)])
        path = folder / f"sub-{subject:03d}_ses-{day:02d}_task_motorimagery_eeg.mat"
        scipy.io.savemat(path, {"data": x, "labels": np.array([[1, 2, 2, 1]], dtype=np.uint8)})


BCIC_TEST_LABELS = (5, 1, 3)


def bcic2020_3(folder: Path) -> None:
    names = DATA_SETS["bcic2020_3"].about.channels
    for place in ("Training set", "Validation set", "Test set"):
        (folder / place).mkdir(parents=True)
    for subject in (1, 2, 15):
        x = np.stack([signal(names, 795 / 256, 256.0, seed=subject + trial) for trial in range(5)])
        for place, variable, n in (("Training set", "epo_train", 5), ("Validation set", "epo_validation", 2)):
            one_hot = np.eye(5, dtype=np.uint8)[:, [4, 0, 1, 3, 2][:n]]
            epochs = {
                "clab": np.array(names, dtype=object)[None],
                "fs": 256,
                "t": np.arange(795.0)[None],
                "x": x[:n].transpose(2, 1, 0),
                "y": one_hot,
            }
            scipy.io.savemat(folder / place / f"Data_Sample{subject:02d}.mat", {variable: epochs})
        with h5py.File(folder / "Test set" / f"Data_Sample{subject:02d}.mat", "w", userblock_size=512) as h5:
            h5["epo_test/x"] = x[:3]
            h5["epo_test/fs"] = np.array([[256.0]])
            for number, name in enumerate(names):
                h5[f"#refs#/{number}"] = np.array([[ord(letter)] for letter in name], dtype=np.uint16)
            cells = [[h5[f"#refs#/{number}"].ref] for number in range(len(names))]
            h5.create_dataset("epo_test/clab", data=np.array(cells, dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)
    rows: list[list[float | str]] = [[], [], ["", *(name for _ in range(15) for name in ("Trial #", "True Label"))]]
    rows[1] = ["", *(name for subject in range(1, 16) for name in (f"Data_Sample{subject:02d}", ""))]
    for trial, label in enumerate(BCIC_TEST_LABELS):
        rows.append(["", *(number for _ in range(15) for number in (trial + 1, label))])
    write_xlsx(folder / "Test set" / "Track3_Answer Sheet_Test.xlsx", rows)


def write_xlsx(path: Path, rows: Sequence[Sequence[float | str]]) -> None:
    """A workbook of one sheet; texts are in a table of their own, as spreadsheet programs write them."""
    texts = sorted({cell for row in rows for cell in row if isinstance(cell, str) and cell})
    lines = []
    for number, row in enumerate(rows, start=1):
        cells = []
        for column, cell in enumerate(row):
            place = f"{chr(ord('A') + column // 26 - 1) if column >= 26 else ''}{chr(ord('A') + column % 26)}{number}"
            if isinstance(cell, str):
                cells += [f'<c r="{place}" t="s"><v>{texts.index(cell)}</v></c>'] if cell else []
            else:
                cells.append(f'<c r="{place}"><v>{cell}</v></c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "xl/worksheets/sheet1.xml", f"<worksheet {space}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        )
        book.writestr("xl/sharedStrings.xml", f"<sst {space}>{''.join(f'<si><t>{t}</t></si>' for t in texts)}</sst>")


SEED_V_SECONDS = 930


def seed_v(folder: Path) -> None:
    """A session 3 until the middle of its sixth clip, at a low sampling rate: the real ones have 1000 Hz."""
    names = [*DATA_SETS["seed_v"].about.channels, "M1", "M2", "VEO", "HEO"]
    for subject in (1, 12):
        one = signal(names, 10, 40.0, seed=subject)
        write_cnt(folder / "EEG_raw" / f"{subject}_3_20180822.cnt", np.tile(one, SEED_V_SECONDS // 10), 40, names)


def write_cnt(path: Path, x_uv: np.ndarray, sfreq: int, names: Sequence[str], *, counted: int | None = None) -> None:
    """A Neuroscan file of 32-bit integers: SETUP header of 900 bytes, 75 bytes per channel, samples, event table.

    `counted` is the number of samples that its header tells, if not the true one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    n_chans, n_times = x_uv.shape
    uv_per_count = 0.03
    end = 900 + 75 * n_chans + 4 * n_chans * n_times
    header = bytearray(900)
    header[225:235], header[235:247] = b"08/22/18\0\0", b"10:00:00\0\0\0\0"
    told = n_times if counted is None else counted
    for offset, form, value in ((370, "<H", n_chans), (376, "<H", sfreq), (864, "<i", told), (886, "<i", end)):
        struct.pack_into(form, header, offset, value)
    with path.open("wb") as file:
        file.write(header)
        for name in names:
            electrode = bytearray(75)
            electrode[: len(name)] = name.upper().encode()
            # Microvolts are counts x sensitivity x calibration / 204.8.
            struct.pack_into("<f", electrode, 59, 1.0)
            struct.pack_into("<f", electrode, 71, uv_per_count * 204.8)
            file.write(electrode)
        file.write(np.rint(x_uv / uv_per_count).astype("<i4").T.tobytes())
        file.write(struct.pack("<Bii", 1, 0, 9))


ISRUC_STAGES = [0, 1, 2, 3, 5] * 4 + [2, 2]
_ISRUC_LABELS = ["F3-A2", "C3-A2", "O1-A2", "F4-A1", "C4-A1", "O2-A1"]


# Most files, those that name the ears otherwise, the one without F3 and F4, the one whose electrodes refer to no ear.
_ISRUC_FILES = {
    1: ["LOC-A2", "ROC-A1", *_ISRUC_LABELS, "X1", "X2", "SaO2"],
    81: ["E1-M2", "E2-M1", *(label.replace("A", "M") for label in _ISRUC_LABELS), "24", "25", "DC01"],
    100: ["LOC-A2", "ROC-A1", *_ISRUC_LABELS, "X1", "X2", "SaO2"],
    8: ["LOC-A2", "ROC-A1", "C3-A2", "O1-A2", "C4-A1", "O2-A1", "X1", "X2", "X3"],
    40: ["ROC", "A1", "LOC", "A2", "C4", "O2", "C3", "O1", "F4", "F3", "X1", "X2"],
}


def isruc_s1(folder: Path) -> None:
    for subject, labels in _ISRUC_FILES.items():
        x = signal(labels, 30, 200.0, seed=subject)
        at = {label: row for row, label in enumerate(labels)}
        # The amplitudes are those of differences to an ear.
        for name, ear in (label.split("-") for label in _ISRUC_LABELS if subject == 40):
            x[at[name]] += x[at[ear]]
        place = folder / "group1" / str(subject)
        write_edf(place / "night.edf", np.tile(x, 22), 200.0, labels=labels).rename(place / f"{subject}.rec")
        write_stages(place / f"{subject}_1.txt", ISRUC_STAGES)


def isruc_s3(folder: Path) -> None:
    (folder / "ExtractedChannels").mkdir(parents=True)
    for subject in (1, 7, 10):
        x = signal(_ISRUC_LABELS, 22 * 30, 200.0, seed=subject).reshape(6, 22, 6000)
        content = {label.replace("-", "_"): row for label, row in zip(_ISRUC_LABELS, x, strict=True)}
        scipy.io.savemat(folder / "ExtractedChannels" / f"subject{subject}.mat", {**content, "X1": x[0]})
        write_stages(folder / "RawData" / str(subject) / f"{subject}_1.txt", ISRUC_STAGES + [0] * 30)


def write_stages(path: Path, stages: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{stage}\n" for stage in stages) + "\n")


CHB_LABELS = (
    *("FP1-F7", "F7-T7", "T7-P7", "P7-O1", "FP1-F3", "F3-C3", "C3-P3", "P3-O1", "FP2-F4", "F4-C4", "C4-P4", "P4-O2"),
    *("FP2-F8", "F8-T8", "T8-P8", "P8-O2", "FZ-CZ", "CZ-PZ", "P7-T7", "T7-FT9", "FT9-FT10", "FT10-T8", "T8-P8"),
)
CHB_SECONDS = 73
CHB_SEIZURES = {
    "chb01_03": [(15, 55)],
    "chb21_01": [(65, 70)],
    "chb22_02": [(12, 18), (40, 45)],
    "chb24_01": [(20, 25)],
}
# One lacks a channel, two are on no list, the last one is in no summary, as files of patient 24 without seizures are.
CHB_OTHERS = ("chb01_01", "chb12_06", "chb01_47", "chb24_03")


def chb_mit(folder: Path) -> None:
    """Five patients, whose files and summaries differ as the real ones do."""
    for number, name in enumerate([*CHB_SEIZURES, *CHB_OTHERS]):
        labels = [label for label in CHB_LABELS if name != "chb01_01" or label != "P4-O2"]
        if name == "chb22_02":  # some files have channels that hold nothing, between the others
            labels[4:4] = ["-", "."]
            labels.append("-")
        x = signal(labels, CHB_SECONDS, 256.0, seed=number)
        write_edf(folder / name[:5] / f"{name}.edf", x, 256.0, labels=labels)
    for patient in ("chb01", "chb12", "chb21", "chb22", "chb24"):
        newline = "\r\n" if patient == "chb21" else "\n"
        (folder / patient / f"{patient}-summary.txt").write_text("\n".join(_chb_summary(patient)), newline=newline)


def _chb_summary(patient: str) -> list[str]:
    lines = ["Data Sampling Rate: 256 Hz", "*" * 25, "", "Channels in EDF Files:", "*" * 22, "Channel 1: FP1-F7", ""]
    for name in (name for name in (*CHB_SEIZURES, *CHB_OTHERS) if name.startswith(patient) and name != "chb24_03"):
        seizures = CHB_SEIZURES.get(name, [])
        lines.append(f"File Name: {name}.edf")
        if patient != "chb24":
            lines += ["File Start Time: 13:43:04", "File End Time: 14:43:04"]
        lines.append(f"Number of Seizures in File: {len(seizures)}")
        for count, (start, end) in enumerate(seizures, start=1):
            # Summaries count the seizures of a file or do not, whether there are several or one.
            which = f" {count}" if patient == "chb24" else ""
            lines += [f"Seizure{which} Start Time: {start} seconds", f"Seizure{which} End Time: {end} seconds"]
        lines += ["", "Channels changed:", "Channels in EDF Files:", "*" * 22, "Channel 1: F7-CS2", "Channel 2: -", ""]
    return lines


_TUH_LABELS = [*old([name.upper() for name in TEN_TWENTY_19], "EEG {}-REF"), "EEG A1-REF", "EEG EKG1-REF", "IBI"]
TUAB_SUBJECTS = {
    ("train", "abnormal"): [f"aaaaaaa{letter}" for letter in "abcde"],
    ("train", "normal"): [f"aaaaaaa{letter}" for letter in "efghi"],
    ("eval", "abnormal"): ["aaaaaaay"],
    ("eval", "normal"): ["aaaaaaaz"],
}


def tuab(folder: Path) -> None:
    """Subject aaaaaaae is the last of the abnormal subjects and the first of the normal ones."""
    for (half, kind), subjects in TUAB_SUBJECTS.items():
        for number, subject in enumerate(subjects):
            path = folder / "edf" / half / kind / "01_tcp_ar" / f"{subject}_s00{number + 1}_t000.edf"
            write_edf(path, signal(_TUH_LABELS, 21, 250.0, seed=number), 250.0, labels=_TUH_LABELS)


TUEV_LINES = (
    *((0, 1, 2, 6), (3, 1, 2, 6), (5, 1, 2, 1), (2, 10, 11, 5), (7, 10, 11, 5), (2, 20, 21, 6), (7, 20, 21, 2)),
    (1, 27, 28, 4),
)


def tuev(folder: Path) -> None:
    """Five subjects train or validate, one tests; the first event's window begins a second before the recording."""
    places = [*(("train", f"aaaaaaa{letter}", "_00000001") for letter in "abcde"), ("eval", "000", "")]
    for number, (half, subject, suffix) in enumerate(places):
        stem = f"{subject}{suffix}" if suffix else "bckg_000_a_"
        path = folder / "edf" / half / subject / f"{stem}.edf"
        write_edf(path, signal(_TUH_LABELS, 30, 250.0, seed=number), 250.0, labels=_TUH_LABELS)
        path.with_suffix(".rec").write_text("".join(f"{c},{a:.1f},{b:.1f},{k}\n" for c, a, b, k in TUEV_LINES))


def physionet_mi(folder: Path) -> None:
    labels = [f"{name.capitalize():.<4}" for name in DATA_SETS["physionet_mi"].about.channels]
    marks = [(0.0, 4.2, "T0"), (4.2, 4.1, "T2"), (8.3, 4.2, "T0"), (12.5, 4.1, "T1")]
    for subject, run in ((1, 3), (1, 4), (1, 6), (71, 8), (90, 14)):
        path = folder / f"S{subject:03d}" / f"S{subject:03d}R{run:02d}.edf"
        write_edf(path, signal(labels, 18, 160.0, seed=run), 160.0, labels=labels, annotations=marks)


def bcic_iv_2a(folder: Path) -> None:
    names = [*DATA_SETS["bcic_iv_2a"].about.channels, "EOG1", "EOG2", "EOG3"]
    folder.mkdir(parents=True, exist_ok=True)
    for file, n_eog in (("A01T", 3), ("A04T", 1), ("A07E", 3), ("A09T", 3)):
        runs = np.empty((1, n_eog + 6), dtype=object)
        for number in range(n_eog + 6):
            x = signal(names, 18, 250.0, seed=number).T
            is_eog = number < n_eog
            runs[0, number] = {
                "X": x[: 250 * 5] if is_eog else x,
                "trial": np.empty((0, 0)) if is_eog else np.array([[250], [2250]], dtype=np.uint32),
                "y": np.empty((0, 0)) if is_eog else np.array([[4 - number % 4], [3]], dtype=np.uint8),
                "fs": 250,
                "classes": np.array(["left hand", "right hand", "feet", "tongue"], dtype=object),
                "artifacts": np.zeros((0 if is_eog else 2, 1), dtype=np.uint8),
            }
        scipy.io.savemat(folder / f"{file}.mat", {"data": runs})


def mumtaz(folder: Path) -> None:
    labels = [*old(TEN_TWENTY_19, "EEG {}-LE"), "EEG A2-A1"]
    names = ["H S1 EC", "H S1 EO", "6921143_H S15 EO", "6921959_H S15 EO", "MDD S1  EC", "MDD S2 EO", "H S1 TASK"]
    for seed, name in enumerate(names):
        write_edf(folder / f"{name}.edf", signal(labels, 11, 256.0, seed=seed), 256.0, labels=labels)
    # One recording under two persons' names.
    for person in ("S27", "S30"):
        write_edf(folder / f"H {person} EC.edf", signal(labels, 11, 256.0, seed=27), 256.0, labels=labels)


WRITERS = {
    writer.__name__: writer
    for writer in (
        *(faced, seed_v, isruc_s1, isruc_s3, mental_arithmetic, bcic2020_3, chb_mit, tuev, tuab, shu_mi),
        *(physionet_mi, bcic_iv_2a, mumtaz),
    )
}
