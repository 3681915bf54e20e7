"""Exports that an earlier version wrote, all in our layout in model.safetensors, load and compute what they did then.

tests/saved/ was written by commit 0429b64: a model of every kind with a few dozen weights, the microvolts that it saw
and what it gave.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codebrain import CodeBrain, MaskedTokenModel
from codebrain.patches import to_model_units
from finetune import classifier
from tokenizer import DualTokenizer

SAVED = Path(__file__).parent / "saved"
WAS = load_file(SAVED / "expected.safetensors")
X_UV = WAS["x_uv"]


def close(found, name):
    torch.testing.assert_close(found, WAS[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", ["folder", "file", "saved again"])
def test_a_model_with_a_classifier(tmp_path, place):
    source = SAVED / "classes"
    if place == "file":  # its config.json lies beside it
        source = source / "model.safetensors"
    elif place == "saved again":
        CodeBrain.from_pretrained(source, strict=True).save_pretrained(tmp_path)
        source = tmp_path
    model = CodeBrain.from_pretrained(source, strict=True)
    with torch.no_grad():
        close(model(to_model_units(X_UV)), "classes")
        close(model(to_model_units(X_UV), return_features=True)["features"], "features")


def test_the_export_of_stage_2():
    model = MaskedTokenModel.from_pretrained(SAVED / "codes", strict=True)
    assert model.backbone.config.swa_window_size == 3
    with torch.no_grad():
        for found, name in zip(model(to_model_units(X_UV)), ("codes_t", "codes_f"), strict=True):
            close(found, name)
    CodeBrain.from_pretrained(SAVED / "codes", strict=True)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_a_fine_tuned_model(tmp_path, kind):
    model, contract = classifier.load(SAVED / kind)
    classifier.save(tmp_path, model, contract, card="")
    for again in (model, classifier.load(tmp_path)[0]):
        with torch.no_grad():
            close(again(X_UV), kind)
    assert contract.ch_names == ("Fz", "Cz", "Pz")


def test_a_tokenizer(tmp_path):
    shutil.copytree(SAVED / "tokenizer", tmp_path / "run" / "export")
    model = DualTokenizer.from_pretrained(tmp_path / "run")
    model.save_pretrained(tmp_path / "run" / "export")  # new weights do not lie beside old ones
    assert {file.name for file in (tmp_path / "run" / "export").iterdir()} == {
        "config.json",
        "codebrain.safetensors",
        "README.md",
    }
    for again in (model, DualTokenizer.from_pretrained(tmp_path / "run")):
        codes = again.encode(X_UV, ["Fz", "Cz", "Pz"])
        assert torch.equal(codes.t, WAS["tokens_t"])
        assert torch.equal(codes.f, WAS["tokens_f"])
