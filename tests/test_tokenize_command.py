"""codebrain-tokenize: a recording in, both token sequences out, and what it says when that cannot be."""

import re
import sys
from pathlib import Path

import mne
import numpy as np
import pytest
import torch

from codebrain.config import to_dict
from data_prep.clean import CleanConfig
from data_prep.montage import MontageConfig
from data_prep.recipe import Recipe
from tokenizer import DualTokenizer, TokenizerConfig, cli
from tokenizer.sequences import smallest_dtype

LABELS = ["EEG Fp1", "EEG T3", "EEG Cz", "ECG ECG"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = TokenizerConfig(
        width=16, n_layers=1, n_heads=2, conv_features=4, decoder_layers=1, n_codes_t=16, n_codes_f=16, code_dim=8,
        codebook_start="random", max_patches=20,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tokenizer")
    DualTokenizer(config).save_pretrained(folder / "export")
    return folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    volts = rng.standard_normal((len(LABELS), 256 * 25)).cumsum(-1)
    volts = 20e-6 * (volts - volts.mean(-1, keepdims=True)) / volts.std(-1, keepdims=True)
    raw = mne.io.RawArray(volts, mne.create_info(LABELS, 256.0, "eeg"), verbose="error")
    path = tmp_path_factory.mktemp("recording") / "night.edf"
    mne.export.export_raw(path, raw, verbose="error")
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["codebrain-tokenize", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_both_sequences_of_a_recording(
    tokenizer: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "new" / "codes.npz"
    flags = ["--tokenizer", str(tokenizer), "--output", str(output), "--window_seconds", "10"]
    assert run(monkeypatch, str(recording), *flags) == 0
    with np.load(output) as codes:
        assert set(codes["ch_names"]) == {"Fp1", "Cz", "T7"}
        assert codes["codes_t"].shape == codes["codes_f"].shape == (3, 25)
        assert codes["codes_t"].dtype == np.uint16
        assert codes["times"].tolist() == list(range(25))
        assert codes["sfreq"] == 200
    assert [path.name for path in output.parent.iterdir()] == ["codes.npz"]


def fif(path: Path, volts: np.ndarray) -> Path:
    mne.io.RawArray(volts, mne.create_info(LABELS[:3], 200.0, "eeg"), verbose="error").save(path, verbose="error")
    return path


def test_what_is_no_number_is_refused(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    volts = 20e-6 * np.random.default_rng(0).standard_normal((3, 200 * 20))
    volts[1, 2400:2410] = np.nan
    path, output = fif(tmp_path / "gap_raw.fif", volts), tmp_path / "codes.npz"
    flags = ["--tokenizer", str(tokenizer), "--output", str(output), "--window_seconds", "10"]
    assert run(monkeypatch, str(path), *flags) == 2
    assert "not a number at 12 s in EEG T3" in capsys.readouterr().err
    assert not output.exists()


def test_features_that_are_nan_have_no_codes(
    tokenizer: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of finite weights and samples."""
    monkeypatch.setattr("tokenizer.encoder.Encoder.forward", lambda self, patches, montage: patches[..., :16] / 0)
    output = tmp_path / "codes.npz"
    flags = ["--tokenizer", str(tokenizer), "--output", str(output), "--window_seconds", "10"]
    assert run(monkeypatch, str(recording), *flags) == 1
    assert "are NaN or infinite, so they have no codes" in capsys.readouterr().err
    assert not output.exists()


def test_a_recording_that_is_disconnected_for_a_while_has_codes(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volts = 20e-6 * np.random.default_rng(0).standard_normal((3, 200 * 30))
    volts[:, 2000:4000] *= 1e-4
    flags = ["--tokenizer", str(tokenizer), "--output", str(tmp_path / "codes.npz"), "--window_seconds", "5"]
    flags += ["--clean.l_freq", "null", "--clean.notch", "null"]
    assert run(monkeypatch, str(fif(tmp_path / "off_raw.fif", volts)), *flags) == 0


@pytest.mark.parametrize(("l_freq", "offset_uv"), [(None, 300.0), (0.5, 0.0)])
def test_the_offset_goes_only_with_a_high_pass(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, l_freq: float | None, offset_uv: float
) -> None:
    volts = 20e-6 * np.random.default_rng(0).standard_normal((3, 200 * 20)) + 300e-6
    model = DualTokenizer.from_pretrained(tokenizer)
    seen: list[float] = []
    encode = model.encode
    monkeypatch.setattr(
        model, "encode", lambda x, names, **known: (seen.append(float(x.median())), encode(x, names, **known))[1]
    )
    config = cli.TokenizeConfig(
        recording=str(fif(tmp_path / "dc_raw.fif", volts)), tokenizer="", output="", window_seconds=20,
        clean=CleanConfig(l_freq=l_freq, h_freq=None, notch=None),
    )  # fmt: skip
    cli.tokenize(config, model)
    np.testing.assert_allclose(seen, [offset_uv], atol=5)


def test_large_codebooks_get_wider_numbers() -> None:
    assert [smallest_dtype(n) for n in (512, 65_536, 65_537)] == [np.uint16, np.uint16, np.uint32]


def test_a_table_holds_what_the_arrays_do(
    tokenizer: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    flags = ["--tokenizer", str(tokenizer), "--window_seconds", "10", "--output"]
    for name in ("codes.npz", "codes.parquet"):
        assert run(monkeypatch, str(recording), *flags, str(tmp_path / name)) == 0
    table = parquet.read_table(tmp_path / "codes.parquet")
    columns = table.to_pydict()
    with np.load(tmp_path / "codes.npz") as arrays:
        assert columns["code_t"] == arrays["codes_t"].ravel().tolist()
        assert columns["code_f"] == arrays["codes_f"].ravel().tolist()
        assert columns["channel"] == np.repeat(arrays["ch_names"], 25).tolist()
        assert columns["time"] == arrays["times"].tolist() * 3
        assert arrays["tokenizer"] == str(tokenizer)
        assert arrays["window_seconds"] == 10
        assert table.schema.metadata[b"tokenizer_hash"].decode() == str(arrays["tokenizer_hash"])


def test_parquet_without_pyarrow_says_what_to_install(
    tokenizer: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tokenizer.sequences.find_spec", lambda name: None)
    output = tmp_path / "codes.parquet"
    assert run(monkeypatch, str(recording), "--tokenizer", str(tokenizer), "--output", str(output)) == 2
    assert "pip install pyarrow" in capsys.readouterr().err


PREPARATION = {
    **to_dict(Recipe()),
    "clean": {"sfreq": 200.0, "l_freq": 1.0, "h_freq": 40.0, "notch": None, "order": "resample_first"},
    "channels": {"names": ["Fp1"], "min_channels": 1, "max_interpolated": 0, "reference": "average"},
}


@pytest.fixture(scope="module")
def trained(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tokenizer, which knows how its windows were prepared."""
    model = DualTokenizer.from_pretrained(tokenizer)
    model.record = {"stores": [{"windows": 9, "window_seconds": 10.0, "preparation": PREPARATION}]}
    folder = tmp_path_factory.mktemp("trained")
    model.save_pretrained(folder)
    return folder


def used(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> cli.TokenizeConfig:
    """The configuration that the command ends up with."""
    seen: list[cli.TokenizeConfig] = []
    tokenize = cli.tokenize
    monkeypatch.setattr(cli, "tokenize", lambda config, model: (seen.append(config), tokenize(config, model))[1])
    assert run(monkeypatch, *arguments) == 0
    return seen[-1]


def test_a_recording_is_prepared_as_the_training_was(
    trained: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [str(recording), "--tokenizer", str(trained), "--output", str(tmp_path / "codes.npz")]
    config = used(monkeypatch, *flags)
    assert config.window_seconds == 10
    assert config.clean == CleanConfig(l_freq=1.0, h_freq=40.0, notch=None)
    assert config.channels == MontageConfig(reference="average")  # any channels: a tokenizer takes any montage
    assert "WARNING" not in capsys.readouterr().err


def test_another_preparation_is_loud(
    trained: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [str(recording), "--tokenizer", str(trained), "--output", str(tmp_path / "codes.npz")]
    config = used(monkeypatch, *flags, "--clean.l_freq", "0.5", "--window_seconds", "20")
    assert (config.clean.l_freq, config.clean.h_freq, config.window_seconds) == (0.5, 40.0, 20)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING")]
    assert warnings == [
        f"WARNING: --window_seconds 20.0, but {trained} was trained with 10.0: its codes will differ.",
        f"WARNING: --clean.l_freq 0.5, but {trained} was trained with 1.0: its codes will differ.",
    ]


def test_a_tokenizer_that_does_not_say_is_named(
    tokenizer: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *line(recording, tokenizer, tmp_path)) == 0
    assert f"WARNING: {tokenizer} does not say how its training windows were prepared" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--output": "codes.csv"}, r"must end in \.npz or \.parquet"),
        ({"--output": __file__ + "/codes.npz"}, "lies under .*test_tokenize_command.py, which is a file"),
        ({"recording": "."}, r"\. is a folder: give one recording in it"),
        ({"--window_seconds": "21"}, "takes up to 20 s"),
        ({"--device": "cuda:99"}, r"--device cuda:99 cannot be used .*; here are cpu"),
        ({"--window_seconds": "10", "--channels.names": "Q9"}, "none of the wanted channels; it has EEG Fp1, EEG T3"),
        ({"--tokenizer": "nowhere"}, "nowhere: no such file"),
        ({"recording": "missing.edf"}, r"missing\.edf: no such recording"),
    ],
)
def test_mistakes_are_said(
    tokenizer: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    flags = {"--tokenizer": str(tokenizer), "--output": str(tmp_path / "codes.npz"), "recording": str(recording)}
    flags |= change
    path = flags.pop("recording")
    assert run(monkeypatch, path, *(part for flag in flags.items() for part in flag)) == 2
    error = capsys.readouterr().err
    assert re.search(f"^error: .*{message}", error, re.MULTILINE)
    assert not list(tmp_path.iterdir())


def write_edf(path: Path, volts: np.ndarray, labels: list[str]) -> Path:
    raw = mne.io.RawArray(volts, mne.create_info(labels, 256.0, "eeg"), verbose="error")
    mne.export.export_raw(path, raw, verbose="error")
    return path


def line(recording: Path, tokenizer: Path, folder: Path) -> list[str]:
    """Arguments of the command; the codes go to `folder`."""
    flags = {"--tokenizer": str(tokenizer), "--output": str(folder / "codes.npz"), "--window_seconds": "10"}
    return [str(recording), *(part for flag in flags.items() for part in flag)]


def noise_volts(n_channels: int, seconds: int = 25) -> np.ndarray:
    volts = np.random.default_rng(0).standard_normal((n_channels, 256 * seconds)).cumsum(-1)
    return 20e-6 * (volts - volts.mean(-1, keepdims=True)) / volts.std(-1, keepdims=True)


def test_flat_channels_are_named(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    volts = noise_volts(3)
    volts[1] = 0.0
    path = write_edf(tmp_path / "flat.edf", volts, ["Fp1", "Cz", "O2"])
    assert run(monkeypatch, *line(path, tokenizer, tmp_path)) == 0
    assert "flat patches, whose codes stand for silence: Cz 100%" in capsys.readouterr().out
    with np.load(tmp_path / "codes.npz") as written:
        assert written["codes_t"].shape == (3, 25)


def test_one_clipped_channel_is_enough(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_edf(tmp_path / "one.edf", noise_volts(1).clip(-30e-6, 30e-6), ["Cz"])
    assert run(monkeypatch, *line(path, tokenizer, tmp_path)) == 0
    assert "flat" not in capsys.readouterr().out
    with np.load(tmp_path / "codes.npz") as written:
        assert written["codes_f"].shape == (1, 25)


def test_a_truncated_file_is_used_when_asked(
    tokenizer: Path,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut = tmp_path / "cut.edf"
    whole = recording.read_bytes()
    cut.write_bytes(whole[: len(whole) * 4 // 5])
    assert run(monkeypatch, *line(cut, tokenizer, tmp_path)) == 2
    assert "--truncated keep" in capsys.readouterr().err
    assert run(monkeypatch, *line(cut, tokenizer, tmp_path), "--truncated", "keep") == 0
    assert "truncated: " in capsys.readouterr().out
