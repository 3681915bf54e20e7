"""Stage 1 as a user launches it: resumed to the bit, the same however the batch is split, its folder complete."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from codebrain.data.format import Store, StoreInfo
from pretrain import stage1
from tests.conftest import MONTAGE, write_toy_store
from tests.processes import ROOT, run
from tokenizer import DualTokenizer
from tokenizer.corpus import preparations

SCRIPT = ROOT / "pretrain" / "stage1.py"
STEPS = 20
SMALL = {
    "model.width": 32,
    "model.n_layers": 1,
    "model.n_heads": 4,
    "model.conv_features": 4,
    "model.decoder_layers": 1,
    "model.n_codes_t": 24,
    "model.n_codes_f": 20,
    "model.code_dim": 8,
    "model.decay": 0.9,
    "start.share": 0.2,
    "optim.lr": 0.003,
    "optim.warmup_steps": 2,
    "loop.total_steps": STEPS,
    "loop.batch_size": 8,
    "loop.log_every": 4,
    "loop.eval_every": 10,
    "loop.save_every": 10,
    "loop.trackers": "[]",
}

# Mean training loss of steps 1-4, 5-8, ... of `train` below, float32 on a CPU; print `curve(run)` to make them again.
GOLDEN = [2.80677, 2.385668, 2.174788, 2.025462, 1.970363]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_toy_store(tmp_path_factory.mktemp("stage1") / "store")


def train(store: Store, run_dir: Path, processes: int = 1, **overrides: object) -> Path:
    values = {**SMALL, **{key.replace("__", "."): value for key, value in overrides.items()}}
    flags = [f"--{key}={value}" for key, value in values.items()]
    result = run(SCRIPT, "--data", str(store.path), "--run_dir", str(run_dir), *flags, processes=processes)
    assert result.returncode == 0, result.stderr
    return run_dir


def metrics(run_dir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def curve(run_dir: Path) -> list[float]:
    return [round(line["train/loss"], 6) for line in metrics(run_dir) if "train/loss" in line]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(store, tmp_path_factory.mktemp("whole") / "run")


def test_loss_curve_is_the_golden_one(whole: Path) -> None:
    assert curve(whole) == pytest.approx(GOLDEN, rel=1e-3)


def test_the_run_folder_is_complete(whole: Path) -> None:
    pictures = {"usage.png", "reconstructions.png", "atlas_t.png", "atlas_f.png", "curves.png"}
    assert pictures <= {path.name for path in (whole / "figures").iterdir()}
    tokenizer = DualTokenizer.from_pretrained(whole)
    codes = tokenizer.encode(torch.randn(2, len(MONTAGE), 800), MONTAGE)
    assert codes.t.shape == (2, len(MONTAGE), 4)
    assert tokenizer.record["steps"] == STEPS
    held_out = tokenizer.record["held_out"]
    assert {"waveform_ev", "amplitude_ev", "phase_cosine", "codes_in_use_t", "perplexity_f"} <= held_out.keys()
    assert tokenizer.record["stores"] == [{"windows": 60, "window_seconds": 4.0, "preparation": {}}]
    card = (whole / "export" / "README.md").read_text()
    assert f"Trained for {STEPS} steps" in card
    assert "- 60 windows of 4 s" in card


def test_health_is_logged_on_both_sides(whole: Path) -> None:
    training = {name for line in metrics(whole) for name in line}
    for name in (
        "codes_in_use_t",
        "codes_reached_t",
        "perplexity_f",
        "top10_share_t",
        "waveform_ev",
        "amplitude_ev",
        "phase_cosine",
    ):
        assert {f"train/{name}", f"valid/{name}"} <= training
    assert {"train/revived_t", "train/revived_f", "valid/waveform_ev_alpha", "train/waveform_ev_gamma"} <= training
    for term in ("waveform", "amplitude", "phase", "commitment_t", "commitment_f", "contrastive"):
        assert {f"train/loss_{term}", f"valid/loss_{term}"} <= training


def test_resumed_run_ends_with_the_same_bits(store: Store, whole: Path, tmp_path: Path) -> None:
    again = tmp_path / "run"
    shutil.copytree(whole, again, ignore=shutil.ignore_patterns(f"step-{STEPS:08d}", "export", "summary.json"))
    train(store, again)
    before, after = weights(whole), weights(again)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert any(name.endswith("_codebook.embed") for name in before)
    assert metrics(again) == metrics(whole)


@pytest.mark.parametrize(
    ("processes", "accumulation"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)], ids=["processes", "parts"]
)
def test_a_split_batch_gives_the_same_run(
    store: Store, whole: Path, tmp_path: Path, processes: int, accumulation: int
) -> None:
    """Tolerance: sums in another order, over 20 steps of AdamW and an argmax; without NT-Xent, whose negatives are
    those of the micro-batch, when accumulating. The held-out windows are one batch: of two processes one has none.
    """
    options = {"losses__contrastive": 0.0} if accumulation > 1 else {}
    reference = train(store, tmp_path / "reference", **options) if options else whole
    split = train(
        store,
        tmp_path / "split",
        processes,
        loop__batch_size=4,
        loop__eval_batch_size=16,
        loop__accumulation=accumulation,
        **options,
    )
    assert curve(split) == pytest.approx(curve(reference), rel=1e-4)
    expected, found = weights(reference), weights(split)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-3, msg=lambda text, name=name: name + text)


def test_mistakes_are_told_before_the_work(store: Store, tmp_path: Path) -> None:
    result = run(SCRIPT, "--data", str(store.path), "--run_dir", str(tmp_path / "run"), "--model.max_patches=2")
    assert result.returncode == 2
    assert "this model takes 1 to 2" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model.n_codes_t=4096", r"1152 training patches for 4096 codes"),
        ("--start.share=1", r"start.share=1.0 .* below 1"),
    ],
)
def test_a_codebook_that_could_never_start_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, message: str
) -> None:
    line = ["stage1.py", "--data", str(store.path), f"--run_dir={tmp_path / 'run'}", "--loop.total_steps=2", flag]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(ValueError, match=message):
        stage1.main()


def test_a_run_taken_up_remembers_that_its_codebook_was_in_danger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [{"step": step, "train/codes_reached_t": 0.01, "train/codes_reached_f": 0.9} for step in (4, 8)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = stage1.Stage1.__new__(stage1.Stage1)
    task.config = stage1.Stage1Config(data=[], run_dir=str(tmp_path))
    task.run = SimpleNamespace(path=tmp_path)  # type: ignore[assignment]
    watch = task._watch()
    assert not caplog.messages
    watch.look({"temporal": 0.02, "frequency": 0.9})
    assert len(caplog.messages) == 1
    assert "temporal codebook has collapsed: of the codes within its reach 2.0% are in use" in caplog.text


@pytest.mark.slow
def test_batch_norm_on_two_processes_is_taken_up_with_the_same_bits(store: Store, tmp_path: Path) -> None:
    options = {"model__conv_norm": "batch", "loop__batch_size": 4}
    first = train(store, tmp_path / "whole", 2, **options)
    again = tmp_path / "again"
    shutil.copytree(first, again, ignore=shutil.ignore_patterns(f"step-{STEPS:08d}", "export", "summary.json"))
    train(store, again, 2, **options)
    before, after = weights(first), weights(again)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert any(name.endswith("running_var") for name in before)
    assert metrics(again) == metrics(first)


def test_stores_that_were_prepared_alike_are_told_together() -> None:
    def store(n_windows: int, l_freq: float) -> SimpleNamespace:
        info = StoreInfo(sfreq=200.0, window_seconds=10.0, preparation={"clean": {"l_freq": l_freq}})
        return SimpleNamespace(info=info, n_windows=n_windows)

    told = preparations([store(3, 0.5), store(4, 1.0), store(2, 0.5)])  # type: ignore[list-item]
    assert [(way["windows"], way["preparation"]["clean"]["l_freq"]) for way in told] == [(5, 0.5), (4, 1.0)]
