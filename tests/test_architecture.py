"""The arrows between packages, and what a cheap import must not cost."""

import ast
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("codebrain", "tokenizer", "pretrain", "finetune", "data_prep")

TRAINING = "codebrain.training"
MODEL_HALF = tuple(
    f"codebrain.{name}"
    for name in (
        *("patches", "masking", "sgconv", "attention", "backbone", "model", "weights", "model_card"),
        *("prediction", "constants", "folding", "device", "units", "overrides", "hub", "layouts", "saving"),
    )
)


@lru_cache
def imports() -> list[tuple[str, str]]:
    """Every (module, imported module) of the project, imports inside functions included."""
    found = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    assert node.level == 0, f"{path}: relative import"
                    found += [(module, str(node.module)), *((module, f"{node.module}.{n.name}") for n in node.names)]
                elif isinstance(node, ast.Import):
                    found += [(module, name.name) for name in node.names]
    return found


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def of(package: str) -> list[tuple[str, str]]:
    return [(module, target) for module, target in imports() if inside(module, package)]


def test_the_imports_are_read() -> None:
    assert ("pretrain.stage2", "codebrain.training") in imports()


@pytest.mark.parametrize("other", ["tokenizer", "pretrain", "finetune", "data_prep"])
def test_codebrain_stands_below_the_other_packages(other: str) -> None:
    assert [pair for pair in of("codebrain") if inside(pair[1], other)] == []


@pytest.mark.parametrize("other", ["pretrain", "finetune", TRAINING])
def test_the_tokenizer_knows_no_training(other: str) -> None:
    assert [pair for pair in of("tokenizer") if inside(pair[1], other)] == []


def test_model_and_training_do_not_know_each_other() -> None:
    for module in MODEL_HALF:
        assert [pair for pair in of(module) if inside(pair[1], TRAINING)] == []
        assert [pair for pair in of(TRAINING) if inside(pair[1], module)] == []


def test_data_preparation_needs_names_format_and_configuration_only() -> None:
    data = tuple(f"codebrain.data.{name}" for name in ("format", "shards", "integrity", "codes"))
    allowed = ("codebrain.channels", "codebrain.config", "codebrain.lock", "codebrain.units", *data)
    targets = {target for _, target in of("data_prep") if inside(target, "codebrain")}
    wrong = {target for target in targets if not any(inside(target, module) for module in allowed)}
    assert wrong == set()
    for other in ("torch", "tokenizer", "pretrain", "finetune"):
        assert [pair for pair in of("data_prep") if inside(pair[1], other)] == []


def test_only_commands_that_read_recordings_know_data_preparation() -> None:
    above = [pair for package in ("tokenizer", "finetune", "pretrain") for pair in of(package)]
    users = {module for module, target in above if inside(target, "data_prep")}
    assert users == {"tokenizer.cli", "finetune.recordings", "finetune.predict_cli", "finetune.embed_cli"}


def test_pretrain_holds_two_scripts_and_yaml() -> None:
    """`accelerate launch pretrain/stage1.py` puts the folder first on the path: a module there shadows a package."""
    files = {path.name for path in (ROOT / "pretrain").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in files if not name.endswith(".yaml")} <= {"__init__.py", "stage1.py", "stage2.py"}


@pytest.mark.parametrize(
    "module", ["codebrain", "tokenizer", "data_prep.cli", "codebrain.channels", "codebrain.config", "codebrain.units"]
)
def test_importing_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
