"""Other ways of computing the same run: compiled, with activations computed again, in bfloat16."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codebrain.training import launch
from codebrain.training.launch import LoopConfig
from codebrain.training.logging import read_metrics
from tests.conftest import write_toy_store
from tests.processes import ROOT, run

LOOP = {"total_steps": 6, "batch_size": 4, "log_every": 1, "eval_every": 6, "save_every": 6, "trackers": "[]"}
SMALL = {
    1: {
        **{"model.width": 32, "model.n_heads": 4, "model.n_layers": 1, "model.decoder_layers": 1},
        **{"model.conv_features": 4, "model.n_codes_t": 16, "model.n_codes_f": 16, "model.code_dim": 8},
        "model.codebook_start": "random",
    },
    2: {
        **{"model.res_channels": 16, "model.skip_channels": 16, "model.out_channels": 16, "model.num_res_layers": 1},
        **{"model.drop_prob": 0.0, "model.spectral_dropout": 0.0},
    },
}


class Runs:
    """The plain run of each stage, and others beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = write_toy_store(folder / "store", n_subjects=3).path

    def make(self, stage: int, **flags: object) -> Path:
        run_dir = self._folder / "-".join([f"stage{stage}", *flags])
        if not run_dir.exists():
            tokenizer = ["--tokenizer", str(self.make(1))] if stage == 2 else []
            given = {**SMALL[stage], **{f"loop.{key}": value for key, value in LOOP.items()}, **flags}
            line = ["--data", str(self._store), *tokenizer, "--run_dir", str(run_dir)]
            script = ROOT / f"pretrain/stage{stage}.py"
            result = run(script, *line, *(f"--{key}={value}" for key, value in given.items()), timeout=850)
            assert result.returncode == 0, result.stderr
        return run_dir


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("execution"))


def losses(run_dir: Path) -> list[float]:
    return [line["train/loss"] for line in read_metrics(run_dir) if "train/loss" in line]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints" / "step-00000006" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(900)  # the compiler takes minutes
@pytest.mark.parametrize("stage", [1, 2])
def test_a_compiled_run_is_the_same_run(runs: Runs, stage: int) -> None:
    """Tolerance: fused sums in another order, over six updates of AdamW; names without the compiler's prefix."""
    plain, compiled = runs.make(stage), runs.make(stage, **{"loop.compile": "true"})
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    expected, found = weights(plain), weights(compiled)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-3, msg=lambda text, name=name: name + text)


@pytest.mark.slow
def test_activations_computed_again_are_the_same_to_the_bit(runs: Runs) -> None:
    """With dropout, whose draws must come again too."""
    dropout = {"model.drop_prob": 0.1}
    plain, again = runs.make(2, **dropout), runs.make(2, **dropout, **{"model.checkpoint_blocks": "true"})
    assert losses(again) == losses(plain)
    expected, found = weights(plain), weights(again)
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_bfloat16_follows_float32(runs: Runs, stage: int) -> None:
    """Within its 8 bits; what is saved is float32."""
    plain, half = runs.make(stage), runs.make(stage, **{"loop.mixed_precision": "bf16"})
    assert losses(half) == pytest.approx(losses(plain), rel=2e-2)
    assert losses(half) != losses(plain)
    assert {value.dtype for value in weights(half).values()} == {value.dtype for value in weights(plain).values()}


def test_float16_is_refused_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = LoopConfig(total_steps=1, mixed_precision="fp16", trackers=[])
    with pytest.raises(ValueError, match="fp16 needs a GPU, and there is none here; bf16 and no do without"):
        launch.start(tmp_path / "run", config, config)
    assert not (tmp_path / "run").exists()
