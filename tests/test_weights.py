"""Weights: three layouts, files and folders, reports, and everything that must not be loaded."""

import contextlib
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from codebrain import CodeBrain, MaskedTokenModel
from codebrain.hub import load
from codebrain.layouts import to_braindecode, to_ours
from codebrain.weights import WEIGHT_FILES, read_state_dict, resolve

SMALL = {"res_channels": 16, "skip_channels": 12, "out_channels": 20, "num_res_layers": 2, "s4_lmax": 24}
CODES = {"codebook_size_t": 11, "codebook_size_f": 13}
SHAPE = {"n_outputs": 2, "n_chans": 3, "n_times": 850}
GOLDEN = ["window1", "window5", "unidirectional_layernorm"]


CHANNELS = [{"ch_name": name} for name in ("C3", "Cz", "C4")]


def codebrain(**options):
    return CodeBrain(**{**SHAPE, **SMALL, **CODES, **options})


def upstream(state_dict):
    """Name tensors as the released checkpoint does."""
    renamed = {}
    for name, value in to_braindecode(state_dict).items():
        theirs = name.replace(".sgconv.", ".S41.").replace(".rms_norm.", ".sn.").replace("skip_weight", "D")
        theirs = theirs.replace("parametrizations.weight.original0", "weight_g")
        theirs = theirs.replace("parametrizations.weight.original1", "weight_v")
        renamed["module." + (theirs + ".kernel" if "kernel_list" in theirs else theirs)] = value
    return renamed


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "layout", [dict, to_braindecode, upstream, lambda d: {f"_orig_mod.module.{k}": v for k, v in d.items()}]
)
@pytest.mark.parametrize("options", [{}, {"s4_bidirectional": False, "s4_layernorm": True}])
def test_every_layout_loads_strictly(layout, options):
    source, target = codebrain(**options), codebrain(**options)
    assert not same(source.state_dict(), target.state_dict())
    target.load_state_dict(layout(source.state_dict()))
    assert same(source.state_dict(), target.state_dict())
    assert same(to_ours(layout(source.state_dict())), dict(source.state_dict()))


@pytest.mark.real
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_weights_go_there_and_back(golden_folder, name):
    theirs = load_file(golden_folder / f"{name}.safetensors")
    assert same(to_braindecode(theirs), theirs)
    released = torch.load(golden_folder / f"{name}.upstream.pth", weights_only=True)
    assert same(to_braindecode(released), {k: v for k, v in theirs.items() if not k.startswith("final_layer")})


@pytest.mark.real
@pytest.mark.parametrize("name", GOLDEN)
def test_a_bare_upstream_file_gives_the_golden_features(golden_folder, name):
    arguments = json.loads((golden_folder / f"{name}.json").read_text())
    window = {"swa_window_size": arguments.get("swa_window_size", 1)}
    golden = load_file(golden_folder / f"{name}.expected.safetensors")
    file = golden_folder / f"{name}.upstream.pth"
    model = CodeBrain.from_pretrained(file, **window)
    features = model(golden["x"], return_features=True)["features"]
    torch.testing.assert_close(features, golden["features"], rtol=1e-5, atol=1e-5)
    assert model.load_report.fresh == model.load_report.unused == []
    model = CodeBrain.from_pretrained(file, n_outputs=7, n_chans=4, n_times=1250, **window)
    assert model(golden["x"]).shape == (3, 7)
    assert all(key.startswith("final_layer") for key in model.load_report.fresh)
    pretraining = MaskedTokenModel.from_pretrained(file, **window)
    logits, _ = pretraining(golden["x"], golden["mask"])
    torch.testing.assert_close(logits, golden["masked_temporal_logits"], rtol=1e-5, atol=1e-5)


def test_an_untouched_braindecode_model_gets_the_norm_it_would_have_taken():
    source = codebrain()
    state_dict = to_braindecode(source.state_dict())
    for name in state_dict:
        if name.endswith("kernel_norm"):
            state_dict[name] = torch.ones_like(state_dict[name])
        if name.endswith("kernel_norm_initialized"):
            state_dict[name] = torch.tensor(False)
    target = codebrain()
    target.load_state_dict(state_dict)
    for name, value in target.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[name])


def test_export_folder_holds_config_weights_and_card(tmp_path):
    model = codebrain(sfreq=200).eval()
    model.save_pretrained(tmp_path / "export")
    assert {file.name for file in (tmp_path / "export").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    card = (tmp_path / "export" / "README.md").read_text()
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in card
    assert json.loads((tmp_path / "export" / "config.json").read_text())["model_type"] == "codebrain"
    x = torch.randn(2, 3, 850)
    for place in (tmp_path, tmp_path / "export"):
        again = CodeBrain.from_pretrained(place)
        assert not again.training
        assert again.get_config() == model.get_config()
        torch.testing.assert_close(again(x), model(x))


def test_a_braindecode_folder_loads(tmp_path):
    model = codebrain().eval()
    config = {**model.get_config(), "braindecode_version": "1.8.1"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(to_braindecode(model.state_dict()), tmp_path / "pytorch_model.bin")
    x = torch.randn(2, 3, 850)
    torch.testing.assert_close(CodeBrain.from_pretrained(tmp_path)(x), model(x))


@pytest.mark.parametrize(
    "changed",
    [
        {"n_outputs": 5},
        {"n_chans": 6},
        {"n_times": 400},
        {"n_chans": 4, "n_times": 600},  # as many features in all
        {"chs_info": [{"ch_name": name} for name in ("Cz", "C3", "C4")]},  # in another order
    ],
)
def test_another_task_gets_a_new_head_and_is_told(tmp_path, changed):
    source = codebrain(n_chans=None, chs_info=CHANNELS)
    source.save_pretrained(tmp_path)
    assert CodeBrain.from_pretrained(tmp_path, strict=True, n_chans=3, n_times=899).n_times == 899
    model = CodeBrain.from_pretrained(tmp_path, **changed)
    assert all(name.startswith("final_layer") for name in model.load_report.fresh + model.load_report.unused)
    assert model.load_report.fresh
    assert "freshly initialised: final_layer" in str(model.load_report)
    torch.testing.assert_close(model.backbone.state_dict(), source.backbone.state_dict())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"swa_window_size": 5}, "swa_window_size=5.*trained with 3"),
        ({"swa_within_channel": True}, "swa_within_channel=True.*trained with False"),
        ({"conv_groups": 1}, "conv_groups=1.*trained with 5"),
        ({"proj_padding": 12}, "proj_padding=12.*trained with 24"),
        ({"activation": torch.nn.GELU}, "activation=GELU.*trained with ReLU"),
    ],
)
@pytest.mark.parametrize("kind", [CodeBrain, MaskedTokenModel])
def test_an_argument_that_would_make_noise_of_weights_is_refused(tmp_path, kind, changed, message):
    codebrain(swa_window_size=3).save_pretrained(tmp_path)
    same = {"swa_window_size": 3, "conv_groups": 5, "activation": torch.nn.ReLU, "drop_prob": 0.3}
    kind.from_pretrained(tmp_path, **same)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(ValueError, match=message + r".*leave .* out.*load_state_dict"):
            kind.from_pretrained(source, **changed)


def test_a_window_of_one_token_ends_nowhere(tmp_path):
    codebrain().save_pretrained(tmp_path)
    assert CodeBrain.from_pretrained(tmp_path, swa_within_channel=True).backbone.is_braindecodes


def test_a_model_without_a_classifier_takes_no_arguments_of_one(tmp_path):
    codebrain().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="MaskedTokenModel has no classifier, so it takes no n_outputs, n_times"):
        MaskedTokenModel.from_pretrained(tmp_path, n_outputs=2, n_times=400)


def said(caplog):
    (record,) = (record for record in caplog.records if record.name == "codebrain.hub")
    caplog.clear()
    return record


def test_heads_that_were_not_loaded_are_a_warning(tmp_path, caplog):
    caplog.set_level("INFO")
    codebrain().save_pretrained(tmp_path / "classes")
    MaskedTokenModel(11, 13, **SMALL).save_pretrained(tmp_path / "codes")
    torch.save(codebrain().state_dict(), tmp_path / "bare.pth")
    headless = {name: value for name, value in codebrain().state_dict().items() if not name.startswith("head_")}
    torch.save(headless, tmp_path / "headless.pth")
    for kind, name, options, level in (
        (CodeBrain, "classes", {}, "INFO"),
        (CodeBrain, "classes", {"n_outputs": None}, "INFO"),
        (CodeBrain, "classes", {"n_outputs": 5}, "WARNING"),
        (CodeBrain, "codes", {}, "INFO"),
        (CodeBrain, "codes", SHAPE, "WARNING"),
        (CodeBrain, "codes", {"codebook_size_t": 7}, "WARNING"),
        (CodeBrain, "bare.pth", {}, "WARNING"),  # its classifier is lost
        (CodeBrain, "headless.pth", {"n_outputs": None}, "INFO"),  # features need no code heads
        (CodeBrain, "headless.pth", {"n_outputs": None, "pretrain_mode": True}, "WARNING"),
        (MaskedTokenModel, "codes", {}, "INFO"),
        (MaskedTokenModel, "classes", {}, "WARNING"),
        (MaskedTokenModel, "headless.pth", CODES, "WARNING"),
    ):
        model = kind.from_pretrained(tmp_path / name, **options)
        record = said(caplog)
        assert record.levelname == level, (name, options)
        assert record.getMessage() == f"{tmp_path / name}: {model.load_report}"


def test_pretraining_and_classification_exchange_their_exports(tmp_path):
    source = codebrain(pretrain_mode=True).eval()
    source.record = {"steps": 3}
    source.save_pretrained(tmp_path / "there")
    pretraining = MaskedTokenModel.from_pretrained(tmp_path / "there")
    pretraining.save_pretrained(tmp_path / "back")
    again = CodeBrain.from_pretrained(tmp_path / "back", pretrain_mode=True, strict=True)
    x = torch.randn(2, 3, 850)
    for expected, *found in zip(source(x), pretraining(x), again(x), strict=True):
        for logits in found:
            torch.testing.assert_close(logits, expected)
    assert again.record == {"steps": 3}


def test_a_damaged_record_is_refused(tmp_path):
    codebrain().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "training": 3}))
    with pytest.raises(ValueError, match=r"config\.json: 'training' is 3 instead of named values"):
        CodeBrain.from_pretrained(tmp_path)


def test_the_arguments_of_the_hub_mixin_are_taken(tmp_path):
    codebrain().save_pretrained(tmp_path)
    model = CodeBrain.from_pretrained(pretrained_model_name_or_path=tmp_path, map_location="meta", strict=True)
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}
    assert CodeBrain.from_pretrained(tmp_path, strict=False, n_outputs=5).n_outputs == 5
    with pytest.raises(ValueError, match=r"does not fit strictly.*freshly initialised: final_layer.*strict=False"):
        CodeBrain.from_pretrained(tmp_path, strict=True, n_outputs=5)


def test_new_sizes_replace_saved_ones_under_another_name(tmp_path):
    channels = [{"ch_name": name} for name in ("C3", "Cz", "C4")]
    codebrain(n_chans=None, chs_info=channels, n_times=None, sfreq=200, input_window_seconds=4.0).save_pretrained(
        tmp_path
    )
    model = CodeBrain.from_pretrained(tmp_path, n_outputs=5, n_chans=6, n_times=400)
    assert model(torch.randn(2, 6, 400)).shape == (2, 5)
    assert (model.n_times, model.sfreq, model.input_window_seconds) == (400, 200, 2.0)


def test_a_pretraining_export_serves_classification_features_and_more_pretraining(tmp_path):
    source = MaskedTokenModel(11, 13, **SMALL).eval()
    source.save_pretrained(tmp_path / "run" / "export")
    features = CodeBrain.from_pretrained(tmp_path / "run")
    x = torch.randn(1, 5, 600)
    torch.testing.assert_close(features(x, return_features=True)["features"], source.backbone(x.view(1, 5, 3, 200)))
    classifier = CodeBrain.from_pretrained(tmp_path / "run", **SHAPE)
    assert classifier(torch.randn(2, 3, 850)).shape == (2, 2)
    assert not classifier.load_report.unused
    assert MaskedTokenModel.from_pretrained(tmp_path / "run").load_report.fresh == []


def test_another_width_is_refused_with_tensors_and_shapes():
    model = codebrain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"input\.weight_v: \(24, 200, 1\) in the checkpoint, \(16, 200, 1\) in the model"
    ):
        load(model, codebrain(res_channels=24).state_dict())
    with pytest.raises(ValueError, match=r"blocks\.1\..*missing from the checkpoint"):
        load(model, codebrain(num_res_layers=1).state_dict())
    with pytest.raises(ValueError, match="unknown to the model"):
        load(model, codebrain(num_res_layers=3).state_dict())
    assert same(dict(model.state_dict()), before)


def test_nothing_is_loaded_silently():
    with pytest.raises(ValueError, match="none of these tensors belongs to CodeBrain: encoder"):
        codebrain().load_state_dict({"encoder": torch.zeros(1)}, strict=False)
    with pytest.raises(RuntimeError, match="final_layer"):
        codebrain().load_state_dict(MaskedTokenModel(11, 13, **SMALL).state_dict())


def test_another_decay_is_refused():
    state_dict = to_braindecode(codebrain().state_dict())
    state_dict["residual_layer.residual_blocks.0.sgconv.multiplier"] *= 2
    with pytest.raises(ValueError, match=r"multiplier is 4\.0"):
        to_ours(state_dict)


def test_a_missing_kernel_is_named():
    state_dict = to_braindecode(codebrain().state_dict())
    del state_dict["residual_layer.residual_blocks.1.sgconv.kernel_list.2"]
    with pytest.raises(ValueError, match=r"blocks\.1\.sgconv\.kernel_list.*one is missing"):
        codebrain().load_state_dict(state_dict)


class _Bomb:
    def __reduce__(self):
        return print, ("a pickle ran code",)


def _write_bad(path, kind):
    state_dict = dict(codebrain().state_dict())
    if kind == "truncated.safetensors":
        save_file(state_dict, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "truncated.pth":
        torch.save(state_dict, path)
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "code.pth":
        torch.save({"model": _Bomb()}, path)
    elif kind == "old_code.pth":
        path.write_bytes(pickle.dumps(_Bomb()))
    elif kind == "byte.pth":
        path.write_bytes(b"\x80")
    elif kind == "number.pth":
        torch.save(3, path)
    elif kind == "nested.pth":
        torch.save({"epoch": 3, "model": state_dict}, path)
    elif kind == "other.pth":
        torch.save({"encoder.weight": torch.zeros(3)}, path)
    else:
        path.write_text("not a checkpoint")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated.safetensors", "may be incomplete"),
        ("truncated.pth", "may be incomplete"),
        ("code.pth", "refused"),
        ("old_code.pth", "refused"),
        ("number.pth", "holds a int instead of named tensors"),
        ("nested.pth", r"no tensors \(epoch, model\)"),
        ("other.pth", r"no weights of a CodeBrain backbone.*encoder\.weight"),
        ("text.pth", "refused|cannot be read"),
        ("byte.pth", r"cannot be read.*IndexError"),
        ("text.safetensors", "cannot be read"),
    ],
)
def test_bad_files_are_refused(tmp_path, capsys, kind, message):
    _write_bad(tmp_path / kind, kind)
    with pytest.raises(ValueError, match=message):
        CodeBrain.from_pretrained(tmp_path / kind)
    assert "ran code" not in capsys.readouterr().out


def test_a_tokenizer_is_refused_by_name(tmp_path):
    codebrain().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "codebrain-tokenizer"}))
    with pytest.raises(ValueError, match="'codebrain-tokenizer', expected 'codebrain'"):
        CodeBrain.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "no valid JSON"),
        (b"\xff\xfe{}", "no valid JSON"),
        (b"[1]", "holds a list instead of named values"),
        (b"[" * 100_000, "no valid JSON"),
        (b'{"activation": null}', "activation None is neither a class of modules nor"),
        (b'{"res_channels": "wide"}', r"config\.json: an argument has a value of another kind"),
    ],
)
def test_a_damaged_config_is_refused(tmp_path, content, message):
    codebrain().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        CodeBrain.from_pretrained(tmp_path)


def test_missing_models_say_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder, and not a Hub id"):
        resolve(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"no such file or folder.*There is no folder run either"):
        resolve("run/model.pth")
    with pytest.raises(ValueError, match="the name of the model is empty"):
        CodeBrain.from_pretrained("")
    with pytest.raises(FileNotFoundError, match=r"looked for model\.safetensors"):
        resolve(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="same --run_dir"):
        resolve(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_state_dict(tmp_path / "model.pth")


@pytest.mark.parametrize(
    "name", ["runs/stage9", "./runs/stage9", "runs/a/stage9", "stage9", "../runs/stage9", "/runs/x"]
)
def test_a_path_is_never_looked_for_on_the_hub(tmp_path, monkeypatch, name):
    (tmp_path / "runs" / "stage2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("codebrain.weights.hf_hub_download", lambda *_args, **_options: pytest.fail("asked the Hub"))
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(name)}: no such file or folder") as error:
        CodeBrain.from_pretrained(name)
    if name in {"runs/stage9", "./runs/stage9"}:
        assert f"The folder {tmp_path / 'runs'} holds stage2" in str(error.value)


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (LocalEntryNotFoundError("no network"), ValueError, "HF_HUB_OFFLINE"),
        (ConnectionError("no network"), ValueError, "HF_HUB_OFFLINE"),
        (HFValidationError("bad"), FileNotFoundError, "nor a model on the Hub"),
        (EntryNotFoundError("nothing"), FileNotFoundError, "no weights of that name on the Hub"),
    ],
)
def test_a_hub_that_gives_nothing_is_one_short_message(monkeypatch, failure, kind, message):
    asked = []

    def download(_repo_id, name, **options):
        asked.append(options["local_files_only"])
        raise failure

    monkeypatch.setattr("codebrain.weights.hf_hub_download", download)
    with pytest.raises(kind, match=f"^nobody-at-all/no-such-model: .*{message}"):
        CodeBrain.from_pretrained("nobody-at-all/no-such-model")
    if isinstance(failure, LocalEntryNotFoundError):
        assert asked == [False, *[True] * (len(WEIGHT_FILES) - 1)]  # the network is waited for once


def test_without_a_network_the_cache_is_asked_alone():
    with pytest.raises(ValueError, match=r"nobody-at-all/no-such-model.*HF_HUB_OFFLINE"):
        CodeBrain.from_pretrained("nobody-at-all/no-such-model", local_files_only=True)


def test_the_hub_gets_and_gives_the_three_files(tmp_path, monkeypatch):
    """A folder stands for the Hub: what is uploaded is what a Hub id downloads."""
    hub = tmp_path / "hub"

    class Api:
        def __init__(self, **_options):
            pass

        def create_repo(self, repo_id, **_options):
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, delete_patterns, **_options):
            for pattern in delete_patterns:
                (hub / repo_id / pattern).unlink(missing_ok=True)
            shutil.copytree(folder_path, hub / repo_id, dirs_exist_ok=True)

    def download(repo_id, name, **_options):
        if not (hub / repo_id / name).is_file():
            raise EntryNotFoundError(name)
        return str(hub / repo_id / name)

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    monkeypatch.setattr("codebrain.weights.hf_hub_download", download)
    model = codebrain().eval()
    model.push_to_hub("someone/a-model")
    assert {file.name for file in (hub / "someone" / "a-model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    uploaded = load_file(hub / "someone" / "a-model" / "model.safetensors")
    assert same(uploaded, to_braindecode(model.state_dict()))
    again = CodeBrain.from_pretrained("someone/a-model", n_outputs=4)
    assert again.n_outputs == 4
    assert same(dict(again.backbone.state_dict()), dict(model.backbone.state_dict()))
    (hub / "someone" / "a-model" / "pytorch_model.bin").touch()
    codebrain(swa_within_channel=True, swa_window_size=3).push_to_hub("someone/a-model", delete_patterns="old.txt")
    assert {file.name for file in (hub / "someone" / "a-model").iterdir()} == {
        "config.json",
        "codebrain.safetensors",
        "README.md",
    }
    assert CodeBrain.from_pretrained("someone/a-model").backbone.config.swa_window_size == 3
    (hub / "someone" / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no such file or folder here"):
        CodeBrain.from_pretrained("someone/empty")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", range(8))
def test_an_interrupted_save_never_looks_complete(tmp_path, monkeypatch, moment):
    """Whatever is reached, the folder holds the old model, the new one, or none, but never a mixture."""
    old, new = codebrain(), codebrain(swa_window_size=3)
    old.save_pretrained(tmp_path)
    steps = iter(range(100))

    def dying(function):
        def step(*args, **options):
            if next(steps) == moment:
                raise Killed
            return function(*args, **options)

        return step

    monkeypatch.setattr("codebrain.saving.save_file", dying(save_file))
    monkeypatch.setattr("codebrain.saving.os.replace", dying(os.replace))
    monkeypatch.setattr("pathlib.Path.write_text", dying(Path.write_text))
    with contextlib.suppress(Killed):
        new.save_pretrained(tmp_path)
    monkeypatch.undo()
    try:
        found = CodeBrain.from_pretrained(tmp_path)
    except FileNotFoundError:
        assert 3 <= moment < 6
    else:
        expected = old if moment < 3 else new
        assert same(dict(found.state_dict()), dict(expected.state_dict()))
        assert found.get_config() == expected.get_config()
    new.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_a_full_disk_leaves_the_model_that_lay_there(tmp_path, monkeypatch):
    model = codebrain()
    model.save_pretrained(tmp_path)
    whole = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("codebrain.saving.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        codebrain(swa_window_size=3).save_pretrained(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == whole
