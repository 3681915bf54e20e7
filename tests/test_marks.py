"""Marks: known pulses at known times through every format and command, interruptions, and tables that go wrong."""

import datetime
from pathlib import Path

import h5py
import mne
import numpy as np
import pytest
import scipy.io
import torch
from edfio import Bdf, BdfSignal, Edf, EdfAnnotation, EdfSignal, Recording

from codebrain.data.format import Store, dequantise
from data_prep.clean import Chain, CleanConfig
from data_prep.corpora import find_recordings
from data_prep.cut import EverywhereCutter
from data_prep.read import Annotation
from data_prep.recipe import Recipe
from data_prep.tasks import Events
from data_prep.windows import Marks, WindowConfig
from data_prep.write import Job, Result, prepare
from finetune.recordings import FromStartCutter, prepared
from tests.recordings import noise, write_edf, write_gdf
from tests.test_prep import prep
from tokenizer import DualTokenizer, TokenizerConfig
from tokenizer import cli as tokenize_cli

SFREQ, SECONDS = 256.0, 60
LABELS = ["Fp1", "Cz", "O1"]
PULSES = (5.25, 17.125, 31.0, 46.8125)
"""Seconds at which 100 microvolts begin, for half a second; whole samples at 256 Hz."""
NO_FILTER = CleanConfig(l_freq=None, h_freq=None, notch=None)
WINDOWS = WindowConfig(seconds=2, min_recording=0, drop_first=0, drop_last=0, max_uv=None, keep_edges=True)
TASK = Events(labels={"pulse*": "pulse", "769": "pulse", "Stimulus/S  1": "pulse", "never": "never"}, clean=NO_FILTER,
              windows=WINDOWS)  # fmt: skip


def signal(first: float = 0.0) -> np.ndarray:
    """(3, T) microvolts with the pulses, from `first` seconds before the first one counts on."""
    x = noise(len(LABELS), SECONDS + first, SFREQ, rms_uv=1.0)
    for onset in PULSES:
        begin = round((onset + first) * SFREQ)
        x[:, begin : begin + 128] += 100
    return x


def raw_array(x: np.ndarray, text: str, *, first_samp: int = 0, shift: float = 0.0) -> mne.io.BaseRaw:
    info = mne.create_info(LABELS, SFREQ, "eeg")
    raw = mne.io.RawArray(x * 1e-6, info, first_samp=first_samp, verbose="error")
    onsets = [onset + shift for onset in PULSES]
    return raw.set_annotations(mne.Annotations(onsets, [0.5] * len(onsets), [text] * len(onsets)))


def save(raw: mne.io.BaseRaw, path: Path, **options) -> Path:
    raw.save(path, verbose="error", **options)
    return path


def fif_with_a_date(folder: Path, text: str = "pulse") -> Path:
    raw = raw_array(signal(), text)
    raw.set_meas_date(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    return save(raw, folder / "a_raw.fif")


def fif_without_a_date(folder: Path, text: str = "pulse") -> Path:
    return save(raw_array(signal(), text), folder / "a_raw.fif")


def fif_that_begins_later(folder: Path, text: str = "pulse") -> Path:
    return save(raw_array(signal(), text, first_samp=5000), folder / "a_raw.fif")


def fif_cropped(folder: Path, text: str = "pulse") -> Path:
    return save(raw_array(signal(first=10.0), text, shift=10.0).crop(10), folder / "a_raw.fif")


def fif_cropped_with_a_date(folder: Path, text: str = "pulse") -> Path:
    raw = raw_array(signal(first=10.0), text, shift=10.0)
    raw.set_meas_date(datetime.datetime(2020, 1, 1, 12, 0, 0, 250_000, tzinfo=datetime.UTC))
    return save(raw.crop(10), folder / "a_raw.fif")


def fif_anonymised(folder: Path, text: str = "pulse") -> Path:
    raw = raw_array(signal(first=10.0), text, shift=10.0)
    raw.set_meas_date(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    return save(raw.crop(10).anonymize(verbose="error"), folder / "a_raw.fif")


def fif_without_its_date(folder: Path, text: str = "pulse") -> Path:
    raw = raw_array(signal(first=10.0), text, shift=10.0)
    raw.set_meas_date(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    return save(raw.crop(10).set_meas_date(None), folder / "a_raw.fif")


def fif_concatenated(folder: Path, text: str = "pulse") -> Path:
    whole = raw_array(signal(), text, first_samp=777)
    parts = [whole.copy().crop(0, 25, include_tmax=False), whole.copy().crop(25)]
    return save(mne.concatenate_raws(parts, verbose="error"), folder / "a_raw.fif")


def edf(folder: Path, text: str = "pulse") -> Path:
    marks = [(onset, 0.5, text) for onset in PULSES]
    return write_edf(folder / "a.edf", signal(), SFREQ, labels=LABELS, annotations=marks)


def edf_that_begins_within_a_second(folder: Path, text: str = "pulse") -> Path:
    file = folder / "a.edf"
    Edf(
        [EdfSignal(row, SFREQ, label=label, physical_dimension="uV", physical_range=(-200, 200))
         for label, row in zip(LABELS, signal(), strict=True)],
        annotations=[EdfAnnotation(onset, 0.5, text) for onset in PULSES],
        recording=Recording(startdate=datetime.date(2020, 1, 1)),
        starttime=datetime.time(11, 59, 59, 687_500),
        data_record_duration=0.25,
    ).write(file)  # fmt: skip
    return file


def bdf(folder: Path, text: str = "pulse") -> Path:
    file = folder / "a.bdf"
    Bdf(
        [BdfSignal(row, SFREQ, label=label, physical_dimension="uV", physical_range=(-200, 200))
         for label, row in zip(LABELS, signal(), strict=True)],
        annotations=[EdfAnnotation(onset, 0.5, text) for onset in PULSES],
        data_record_duration=2.0,
    ).write(file)  # fmt: skip
    return file


def gdf(folder: Path) -> Path:
    events = [(onset, 769) for onset in PULSES]
    return write_gdf(folder / "a.gdf", signal(), SFREQ, labels=LABELS, events=events)


def brainvision(folder: Path) -> Path:
    channels = "\n".join(f"Ch{number}={label},,0.01,µV" for number, label in enumerate(LABELS, start=1))
    (folder / "a.eeg").write_bytes(np.rint(signal() / 0.01).astype("<i2").T.tobytes())
    marks = "\n".join(f"Mk{2 + n}=Stimulus,S  1,{round(t * SFREQ) + 1},1,0" for n, t in enumerate(PULSES))
    (folder / "a.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n"
        f"[Marker Infos]\nMk1=New Segment,,1,1,0,20200101120000687500\n{marks}\n"
    )
    (folder / "a.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nCodepage=UTF-8\nDataFile=a.eeg\n"
        f"MarkerFile=a.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels={len(LABELS)}\n"
        f"SamplingInterval={1e6 / SFREQ:g}\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    return folder / "a.vhdr"


def eeglab(folder: Path, text: str = "pulse") -> Path:
    places = np.array([(label,) for label in LABELS], dtype=[("labels", object)])
    kinds = [("type", object), ("latency", float), ("duration", float)]
    events = np.array([(text, onset * SFREQ + 1, 128.0) for onset in PULSES], dtype=kinds)
    x = signal().astype(np.float32)
    eeg = {"setname": "a", "srate": SFREQ, "nbchan": len(x), "pnts": x.shape[1], "trials": 1, "xmin": 0.0}
    eeg |= {"xmax": SECONDS - 1 / SFREQ, "data": x, "chanlocs": places, "event": events, "epoch": [], "icaact": []}
    eeg |= {"icawinv": [], "icasphere": [], "icaweights": [], "ref": "common", "comments": ""}
    scipy.io.savemat(folder / "a.set", {"EEG": eeg}, appendmat=False)
    return folder / "a.set"


def table_beside(folder: Path, text: str = "pulse") -> Path:
    rows = "".join(f"{onset}\t0.5\t{text}\n" for onset in PULSES)
    (folder / "night.1_events.tsv").write_text(f"onset\tduration\ttrial_type\n{rows}")
    return write_edf(folder / "night.1.edf", signal(), SFREQ, labels=LABELS)


FORMATS = [
    fif_with_a_date, fif_without_a_date, fif_that_begins_later, fif_cropped, fif_cropped_with_a_date, fif_anonymised,
    fif_without_its_date, fif_concatenated, edf, edf_that_begins_within_a_second, bdf, gdf, brainvision,
    eeglab, table_beside,
]  # fmt: skip


def run(file: Path, store: Path, recipe: Recipe, cutter=None, labels="none") -> Result:
    (source,) = find_recordings([file])
    cutter = cutter or EverywhereCutter()
    return prepare(Job(store=str(store), row=0, source=source, recipe=recipe, cutter=cutter, labels=labels))


def columns(store: Path) -> tuple[np.ndarray, np.ndarray]:
    """Starts (n,) in seconds and windows (n, C, T) in microvolts."""
    with h5py.File(store / "shards" / "000000.h5") as h5:
        return h5["start"][:], dequantise(h5["windows"][:], h5["scale"][:])


@pytest.mark.parametrize("write", FORMATS)
def test_windows_at_marks_begin_with_the_pulse(write, tmp_path):
    (tmp_path / "in").mkdir()
    result = run(write(tmp_path / "in"), tmp_path / "s", TASK.recipe(), TASK, "classes")
    assert result.recording.kept == len(PULSES), result.recording
    starts, windows = columns(tmp_path / "s")
    np.testing.assert_allclose(starts, PULSES, atol=0.5 / 200)  # of a sample
    assert (windows[:, :, 2:95] > 80).all()
    assert (windows[:, :, 105:] < 20).all()


@pytest.mark.parametrize("write", [w for w in FORMATS if w not in (gdf, brainvision)])
def test_bad_stretches_cost_the_windows_that_hold_them(write, tmp_path):
    (tmp_path / "in").mkdir()
    file = write(tmp_path / "in", "BAD pulse")
    result = run(file, tmp_path / "s", Recipe(clean=NO_FILTER, windows=WINDOWS))
    starts, windows = columns(tmp_path / "s")
    hit = {float(second // 2 * 2) for onset in PULSES for second in (onset, onset + 0.499)}
    joint = {24.0} if write is fif_concatenated else set()
    assert result.rejected == {"marked bad": len(hit)} | ({"gap": 1} if joint else {})
    assert set(starts.tolist()) == {float(start) for start in range(0, SECONDS, 2)} - hit - joint
    assert np.abs(windows).max() < 30


@pytest.mark.parametrize("write", [fif_cropped, edf_that_begins_within_a_second, brainvision])
@pytest.mark.parametrize("cutter", [EverywhereCutter(), FromStartCutter()])
def test_predictions_and_features_have_the_time_of_the_pulse(write, cutter, tmp_path):
    """What `codebrain-predict` and `codebrain-embed` read, with the times that they print."""
    file = write(tmp_path)
    with prepared([str(file)], Recipe(clean=NO_FILTER, windows=WINDOWS), (), cutter) as found:
        starts, windows = columns(found.store.path)
    t = starts[:, None] + np.arange(400) / 200
    pulses = np.any([(t >= onset + 0.01) & (t < onset + 0.49) for onset in PULSES], axis=0)
    others = ~np.any([(t > onset - 0.01) & (t < onset + 0.51) for onset in PULSES], axis=0)
    assert (windows.min(axis=1)[pulses] > 80).all()
    assert (windows.max(axis=1)[others] < 20).all()


@pytest.mark.parametrize("write", [fif_cropped, edf_that_begins_within_a_second])
def test_codes_have_the_time_of_the_pulse(write, tmp_path, monkeypatch):
    model = DualTokenizer(
        TokenizerConfig(width=16, n_layers=1, n_heads=2, conv_features=4, decoder_layers=1, n_codes_t=16, n_codes_f=16,
                        code_dim=8, codebook_start="random")
    ).eval()  # fmt: skip
    seen: list[torch.Tensor] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda x, names, **known: (seen.append(x.cpu()), encode(x, names, **known))[1])
    config = tokenize_cli.TokenizeConfig(
        recording=str(write(tmp_path)), tokenizer="", output="", window_seconds=10, clean=NO_FILTER
    )
    tokenize_cli.tokenize(config, model)
    patches = torch.cat(seen, dim=-1)[0].unflatten(-1, (-1, 200))  # (C, P, L), a patch begins at every second
    loud = (patches > 80).any(-1).all(0)
    assert loud.nonzero().flatten().tolist() == sorted({int(t) for o in PULSES for t in (o + 0.01, o + 0.49)})


@pytest.mark.parametrize("sfreq", [200.01, 199.98, 250.1, 256.125, 499.998, 1000.003, 173.61])
@pytest.mark.parametrize("order", ["resample_first", "filter_first"])
def test_a_day_at_an_odd_rate_ends_where_it_should(sfreq, order):
    """The last minute of 24 hours: a sine has the phase of its time, to a hundredth of a sample."""
    config = CleanConfig(l_freq=None, h_freq=None, notch=None, order=order)
    chain = Chain(config, sfreq=sfreq, n_times=int(86_400 * sfreq))
    assert chain.n_out == pytest.approx(86_400 * 200, abs=1)
    stop = chain.n_out - 2 * chain.edge
    y = chain.clean(lambda a, b: np.sin(2 * np.pi * 10 * np.arange(a, b) / sfreq)[None], stop - 12_000, stop)
    u = np.arange(stop - 12_000, stop) / 200
    late = np.angle(np.sum(y[0] * np.exp(-2j * np.pi * 10 * u))) + np.pi / 2  # in radians of a tenth of a second
    assert abs(late) / (2 * np.pi * 10) < 0.01 / 200


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["boundary", "BAD boundary", "EDGE boundary", "BAD_ACQ_SKIP", "New Segment/", "32766", "BioSemi new epoch",
     "break cnt", "BAD_disconnection", "LostSamples/LostSamples: 48"],
)  # fmt: skip
def test_windows_within_the_filters_reach_of_an_interruption(text):
    start = np.arange(0.0, 60.0, 2.0)
    marks = Marks([Annotation(onset=21.0, duration=0.0, text=text)], reach=2.5)
    assert [s for s, reason in zip(start, marks.reasons(start, start + 2), strict=True) if reason] == [18, 20, 22]
    assert set(marks.reasons(start, start + 2)) == {"", "gap"}
    skip = Marks([Annotation(onset=21.0, duration=4.0, text=text)], reach=2.5)
    assert [s for s, reason in zip(start, skip.reasons(start, start + 2), strict=True) if reason] == [
        18,
        20,
        22,
        24,
        26,
    ]
    beginning = Marks([Annotation(onset=0.0, duration=0.0, text=text)], reach=2.5)
    assert not any(beginning.reasons(start, start + 2))


def test_marks_by_the_obvious_loop():
    rng = np.random.default_rng(0)
    texts = ["BAD x", "edge", "boundary", "other", "bad_acq_skip"]
    start = np.sort(rng.uniform(0, 100, 200))
    for reach in (0.0, 1.5):
        marks = [
            Annotation(onset=float(t), duration=float(d), text=str(rng.choice(texts)))
            for t, d in zip(np.r_[rng.uniform(-5, 105, 20), start[:5]], rng.choice([0.0, 1.0, 7.0], 25), strict=True)
        ]
        found = Marks(marks, reach).reasons(start, start + 3)
        for begin, reason in zip(start, found, strict=True):
            bad = any(
                m.text in ("BAD x", "edge")
                and m.onset < begin + 3
                and (m.onset + m.duration > begin or (m.duration == 0 and m.onset >= begin))
                for m in marks
            )
            gap = any(
                m.text in ("boundary", "bad_acq_skip")
                and m.onset + m.duration > 0
                and begin - reach < m.onset + m.duration
                and m.onset < begin + 3 + reach
                for m in marks
            )
            assert reason == ("marked bad" if bad else "gap" if gap else "")


def test_recordings_that_mne_joined_lose_what_the_filters_mix(tmp_path):
    x = noise(3, 60, SFREQ, rms_uv=10)
    info = mne.create_info(LABELS, SFREQ, "eeg")
    half = x.shape[1] // 2
    parts = [
        mne.io.RawArray(part * 1e-6, info, verbose="error") for part in (x[:, :half], x[:, half:] + 3000)
    ]  # a step of 3 mV
    file = save(mne.concatenate_raws(parts, verbose="error"), tmp_path / "a_raw.fif")
    clean = CleanConfig(l_freq=0.5, h_freq=45, notch=None)
    windows = WindowConfig(seconds=2, min_recording=0, drop_first=0, drop_last=0, max_uv=None)
    result = run(file, tmp_path / "s", Recipe(clean=clean, windows=windows))
    starts, found = columns(tmp_path / "s")
    reach = Chain(clean, sfreq=SFREQ, n_times=x.shape[1]).edge / 200
    assert result.rejected["gap"] == pytest.approx(1 + reach, abs=1)
    assert all(start + 2 + reach <= 30 or start - reach >= 30 for start in starts)
    assert np.abs(found).max() < 60


def test_pauses_of_a_biosemi_amplifier_are_found(tmp_path):
    """Bit 16 of the status channel: at the beginning, and where recording was taken up again at 24 s."""
    status = np.zeros(SECONDS * 256)
    for begin in (0, 24 * 256 + 100):
        status[begin : begin + 5] = 1 << 16
    status += 0b101  # a trigger
    signals = [
        BdfSignal(row, SFREQ, label=label, physical_dimension="uV", physical_range=(-500, 500))
        for label, row in zip(LABELS, noise(3, SECONDS, SFREQ), strict=True)
    ]
    limits = (-(2**23), 2**23 - 1)
    signals.append(
        BdfSignal(status, SFREQ, label="Status", transducer_type="Triggers and Status", physical_range=limits,
                  digital_range=limits)
    )  # fmt: skip
    Bdf(signals, data_record_duration=1.0).write(tmp_path / "a.bdf")
    result = run(tmp_path / "a.bdf", tmp_path / "s", Recipe(clean=NO_FILTER, windows=WINDOWS))
    assert result.rejected == {"gap": 1}
    assert 24.0 not in columns(tmp_path / "s")[0]


# --- tables and labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kept", "words"),
    [
        ("onset,duration,trial_type\n10,2,left\n20,2,right\n", 2, ""),
        ("onset;duration;trial_type\n10,5;2,0;left\n20,5;2,0;right\n", 2, ""),
        ("onset\tduration\ttrial_type\n10,5\t2,0\tleft\n20,5\t2,0\tright\n", 2, ""),
        ("time\tduration\ttrial_type\n10\t2\tleft\n", 0, "a_events.tsv has no column onset; it has time, duration"),
        (
            "onset\tduration\ttrial_type\n10\t2\tleft\n00:20\t2\tright\n",
            1,
            "1 of 2 onsets in a_events.tsv are no numbers of seconds, such as '00:20'",
        ),
        (
            "onset\tduration\ttrial_type\n10000\t2\tleft\n20000\t2\tright\n",
            0,
            "2 of 2 events in a_events.tsv begin after its end at 40 s: onsets are seconds from its first sample",
        ),
        (
            "onset\tduration\ttrial_type\n10\t2\tleft\n15\t2\tright\n400\t2\tright\n",
            2,
            "1 of 3 events in a_events.tsv begin after its end at 40 s",
        ),
    ],
)
def test_a_table_of_events_that_cannot_be_meant_is_named(content, kept, words, tmp_path):
    file = write_edf(tmp_path / "a.edf", noise(3, 40, 200.0), 200.0, labels=LABELS)
    (tmp_path / "a_events.tsv").write_text(content)
    task = Events(labels={"left": "left", "right": "right"}, clean=NO_FILTER, windows=WINDOWS)
    result = run(file, tmp_path / "s", task.recipe(), task, "classes")
    assert (result.recording.kept, words in result.recording.reason) == (kept, True), result.recording
    assert words or not result.recording.reason
    corpus = run(file, tmp_path / "t", Recipe(clean=NO_FILTER, windows=WINDOWS))
    assert (corpus.recording.kept, words in corpus.recording.reason) == (20, True), corpus.recording


def test_one_stretch_has_one_label(tmp_path):
    marks = [(4, 2, "left"), (4, 2, "right"), (10, 2, "left"), (10, 2, "left"), (20, 2, "left"), (21, 2, "right")]
    marks = [(float(onset), float(duration), text) for onset, duration, text in marks]
    file = write_edf(tmp_path / "a.edf", noise(3, 40, 200.0), 200.0, labels=LABELS, annotations=marks)
    task = Events(labels={"left": "left", "right": "right"}, clean=NO_FILTER, windows=WINDOWS)
    result = run(file, tmp_path / "s", task.recipe(), task, "classes")
    assert columns(tmp_path / "s")[0].tolist() == [10, 20, 21]
    assert result.recording.reason == (
        "1 windows left out, at which events of different classes begin; 2 windows overlap one of another class"
    )
    both = [(4.0, 2.0, "left"), (4.0, 2.0, "right")]
    file = write_edf(tmp_path / "b.edf", noise(3, 40, 200.0), 200.0, labels=LABELS, annotations=both)
    result = run(file, tmp_path / "t", task.recipe(), task, "classes")
    assert result.recording.reason == "no usable event: at each window events of different classes begin"


def test_names_with_dots_have_tables_of_their_own(tmp_path):
    for night in (1, 2):
        write_edf(tmp_path / f"night.{night}.edf", noise(3, 40, 200.0, seed=night), 200.0, labels=LABELS)
    (tmp_path / "night.2_events.tsv").write_text("onset\tduration\ttrial_type\n10\t20\tBAD\n")
    kept = [
        run(tmp_path / f"night.{night}.edf", tmp_path / str(night), Recipe(clean=NO_FILTER, windows=WINDOWS))
        for night in (1, 2)
    ]
    assert [result.recording.kept for result in kept] == [20, 10]


def test_records_of_no_length_are_refused(tmp_path):
    file = write_edf(tmp_path / "a.edf", noise(3, 40, 200.0), 200.0, labels=LABELS)
    content = bytearray(file.read_bytes())
    content[244:252] = b"0       "
    file.write_bytes(content)
    result = run(file, tmp_path / "s", Recipe(clean=NO_FILTER, windows=WINDOWS))
    assert result.recording.status == "failed"
    assert "a data record lasts 0 s: its sampling rate is not known" in result.recording.reason
    gdf_file = write_gdf(tmp_path / "a.gdf", noise(3, 40, 200.0), 200.0, labels=LABELS)
    content = bytearray(gdf_file.read_bytes())
    content[244:248] = bytes(4)
    gdf_file.write_bytes(content)
    assert "lasts 0 s" in run(gdf_file, tmp_path / "t", Recipe(clean=NO_FILTER, windows=WINDOWS)).recording.reason


def test_what_a_reader_warns_of_stands_in_the_row(tmp_path):
    (tmp_path / "in").mkdir()
    file = brainvision(tmp_path / "in")
    (tmp_path / "in" / "a.vmrk").unlink()
    result = run(file, tmp_path / "s", Recipe(clean=NO_FILTER, windows=WINDOWS))
    assert result.recording.status == "ok"
    assert "the reader warns: MarkerFile 'a.vmrk' not found" in result.recording.reason


def test_predictions_of_a_model_of_events_lie_on_the_grid_from_the_start(tmp_path):
    file = write_edf(tmp_path / "a.edf", noise(3, 100, 200.0), 200.0, labels=LABELS)
    windows = WindowConfig(seconds=10, min_recording=0, drop_first=0, drop_last=0, max_uv=None)
    recipe = Recipe(clean=CleanConfig(l_freq=0.5, h_freq=45, notch=None), windows=windows)
    with prepared([str(file)], recipe, (), FromStartCutter()) as found:
        assert columns(found.store.path)[0].tolist() == [10, 20, 30, 40, 50, 60, 70, 80]
    short = write_edf(tmp_path / "b.edf", noise(3, 19, 200.0), 200.0, labels=LABELS)
    with (
        pytest.raises(ValueError, match="counted from its start, no window of 10 s lies within the"),
        prepared([str(short)], recipe, (), FromStartCutter()),
    ):
        pass


def test_events_go_through_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    fif_cropped(tmp_path / "in")
    config = tmp_path / "pulses.yaml"
    config.write_text("labels: {pulse: pulse, rest: rest}\nwindows: {seconds: 2, keep_edges: true, max_uv: null}\n"
                      "clean: {l_freq: null, h_freq: null, notch: null}\n")  # fmt: skip
    flags = ["--output", tmp_path / "s", "--config", config, "--workers", "1"]
    assert prep(monkeypatch, "task", "events", tmp_path / "in", *flags) == 0
    assert "pulse 4, rest 0" in capsys.readouterr().out
    starts, _ = columns(Store.open(tmp_path / "s").path)
    np.testing.assert_allclose(starts, PULSES, atol=0.5 / 200)
