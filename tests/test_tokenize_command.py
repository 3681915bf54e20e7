"""codebrain-tokenize: a recording in, both token sequences out, and what it says when that cannot be."""

import re
import sys
from pathlib import Path

import mne
import numpy as np
import pytest
import torch

from tokenizer import DualTokenizer, TokenizerConfig, cli

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--output": "codes.csv"}, r"must end in \.npz"),
        ({"--window_seconds": "21"}, "takes up to 20 s"),
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
