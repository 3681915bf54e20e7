"""The whole chain through the commands that users type, and what they are told when a step gets the wrong thing."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from codebrain import CodeBrain
from codebrain.channels import TEN_TWENTY_19
from codebrain.data.format import Store
from codebrain.weights import resolve
from tests.processes import ROOT, environment
from tokenizer import DualTokenizer

PRESETS = ROOT / "pretrain" / "configs"
SMALL_BACKBONE = ["--model.res_channels", "16", "--model.skip_channels", "16", "--model.out_channels", "16"]
SMALL_TOKENIZER = ["--model.width", "32", "--model.n_heads", "4", "--model.n_codes_t", "32", "--model.n_codes_f", "32"]
SHORT = ["--loop.total_steps", "10", "--loop.batch_size", "4", "--loop.eval_every", "5", "--loop.log_every", "5"]


def call(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A console script, or one of the two stages, in a process of its own."""
    folder = Path(sys.executable).parent
    line = [str(folder / program)] if program.startswith("codebrain") else [sys.executable, str(ROOT / program)]
    return subprocess.run(
        [*line, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment(),
        cwd=ROOT,
        check=False,
    )


def done(program: str, *arguments: object) -> str:
    result = call(program, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@dataclass(frozen=True)
class Chain:
    """Folders of a finished chain."""

    recordings: Path
    corpus: Path
    tokenizer: Path
    backbone: Path
    task: Path
    classifier: Path


def stage1(corpus: Path, run_dir: Path, *more: object) -> list[object]:
    config = ["--config", PRESETS / "stage1/tiny.yaml"]
    return ["pretrain/stage1.py", *config, *SMALL_TOKENIZER, *SHORT, "--data", corpus, "--run_dir", run_dir, *more]


def stage2(corpus: Path, tokenizer: Path, run_dir: Path, *more: object) -> list[object]:
    config = ["--config", PRESETS / "stage2/tiny.yaml"]
    sources = ["--data", corpus, "--tokenizer", tokenizer]
    return ["pretrain/stage2.py", *config, *SMALL_BACKBONE, *SHORT, *sources, "--run_dir", run_dir, *more]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    names = ("recordings", "corpus", "tokenizer", "backbone", "task", "classifier")
    c = Chain(*(folder / name for name in names))
    done("codebrain-prep", "synthetic", c.recordings, "--subjects", 6, "--minutes", 1)
    done("codebrain-prep", "corpus", c.recordings, "--output", c.corpus, "--config", "data_prep/configs/small.yaml")
    for stage in (stage1(c.corpus, c.tokenizer), stage2(c.corpus, c.tokenizer, c.backbone)):
        assert re.search(r"over the windows of \d held-out subjects?; how much other subjects differ", done(*stage))
    done("codebrain-prep", "task", "events", c.recordings, "--output", c.task, "--config", "examples/eyes.yaml")
    fit = ["--mode", "probe", "--head", "mean", "--training.epochs", 3]
    done("codebrain-finetune", "--ckpt", c.backbone, "--data", c.task, "--run_dir", c.classifier, *fit)
    return c


def test_every_step_leaves_what_the_next_one_needs(chain: Chain) -> None:
    assert Store.open(chain.corpus).n_windows > 20
    assert Store.open(chain.task).info.task.class_names == ("open", "closed")
    for run in (chain.tokenizer, chain.backbone, chain.classifier):
        weights = resolve(run).weights.name
        for name in ("config.yaml", "summary.json", "export/config.json", f"export/{weights}", "export/README.md"):
            assert (run / name).stat().st_size > 0, (run, name)
        assert not list(run.rglob("*.partial"))
    for run in (chain.tokenizer, chain.backbone):
        assert (run / "figures/curves.png").read_bytes().startswith(b"\x89PNG")
    for name in ("accuracy_by_electrode", "accuracy_by_band"):
        assert (chain.backbone / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_says_what_a_reader_needs(chain: Chain) -> None:
    report = json.loads((chain.classifier / "report.json").read_text())
    assert report["task"]["class_names"] == ["open", "closed"]
    test = report["arms"]["codebrain"]["test"]
    assert {row["class"] for row in test["per_class"]} == {"open", "closed"}
    assert sum(map(sum, test["confusion"])) == test["windows"] > 0
    assert "balanced accuracy" in (chain.classifier / "report.md").read_text().lower()


def test_exports_load_without_training_code(chain: Chain) -> None:
    x_uv = 20 * torch.randn(2, 19, 2000)
    codes = DualTokenizer.from_pretrained(chain.tokenizer).encode(x_uv, TEN_TWENTY_19)
    assert codes.t.shape == codes.f.shape == (2, 19, 10)
    model = CodeBrain.from_pretrained(chain.backbone, n_outputs=3, n_chans=19, n_times=2000)
    assert model(x_uv / 100).shape == (2, 3)


def test_launched_again_a_finished_run_says_so(chain: Chain) -> None:
    assert "is finished" in done(*stage2(chain.corpus, chain.tokenizer, chain.backbone))


def refused(*arguments: object) -> str:
    """Message of a command that ends with exit code 2 and no traceback."""
    result = call(*arguments)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_a_backbone_is_no_tokenizer(chain: Chain, tmp_path: Path) -> None:
    message = refused(*stage2(chain.corpus, chain.backbone, tmp_path / "run"))
    assert "codebrain-tokenizer" in message or "no tokenizer" in message
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_is_no_backbone(chain: Chain, tmp_path: Path) -> None:
    message = refused(
        "codebrain-finetune", "--ckpt", chain.tokenizer, "--data", chain.task, "--run_dir", tmp_path / "r"
    )
    assert "tokenizer" in message


def test_a_checkpoint_that_does_not_exist(chain: Chain, tmp_path: Path) -> None:
    message = refused(
        "codebrain-finetune", "--ckpt", tmp_path / "no", "--data", chain.task, "--run_dir", tmp_path / "r"
    )
    assert str(tmp_path / "no") in message


def test_a_corpus_has_no_labels(chain: Chain, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    message = refused("codebrain-finetune", "--ckpt", chain.backbone, "--data", chain.corpus, "--run_dir", run_dir)
    assert "codebrain-prep task" in message
    assert not run_dir.exists()


def test_a_store_of_another_sampling_rate(chain: Chain, tmp_path: Path) -> None:
    other = shutil.copytree(chain.corpus, tmp_path / "other")
    index = json.loads((other / "store.json").read_text())
    (other / "store.json").write_text(json.dumps(index | {"sfreq": 250.0}))
    assert "sampled at 250 Hz, the model needs 200 Hz" in refused(*stage1(other, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_names_the_nearest(chain: Chain, tmp_path: Path) -> None:
    message = refused(*stage1(chain.corpus, tmp_path / "run", "--optim.learning_rate", "1"))
    assert "unknown configuration key 'optim.learning_rate'" in message


def test_a_path_without_recordings(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refused("codebrain-prep", "corpus", tmp_path / "empty", "--output", tmp_path / "store")
    assert str(tmp_path / "empty") in message
    assert not (tmp_path / "store").exists()
