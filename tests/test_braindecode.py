"""Against the installed braindecode: the same arguments, numbers and gradients, and the same places to be used in."""

import importlib.util
import inspect
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from codebrain import EEGSSM, BackboneConfig, CodeBrain, MaskedTokenModel
from codebrain.layouts import to_braindecode, to_ours
from codebrain.patches import to_model_units
from finetune import classifier as classifier_folder
from finetune.classifier import Classifier, Contract, backbone_features
from finetune.heads import Head, HeadConfig, HeadKind
from finetune.task import Task
from tokenizer import DualTokenizer, TokenizerConfig

if importlib.util.find_spec("braindecode") is None:
    pytest.skip("braindecode is not installed (extra: dev)", allow_module_level=True)
from benchmarks.peer import braindecode_class

Braindecode = braindecode_class()

SMALL = {"res_channels": 8, "skip_channels": 8, "out_channels": 8, "num_res_layers": 1, "s4_lmax": 8}
CODES = {"codebook_size_t": 5, "codebook_size_f": 5}


def test_arguments_and_defaults_are_theirs():
    ours, theirs = (inspect.signature(model).parameters for model in (CodeBrain, Braindecode))
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {name: p.default for name, p in theirs.items()} == {name: ours[name].default for name in theirs}


@pytest.fixture(scope="module")
def released_size():
    """Both models at the released size, with the same weights and no dropout."""
    arguments = {"n_outputs": 2, "n_chans": 19, "n_times": 6000, "mlp_hidden_multiplier": 1}
    torch.manual_seed(0)
    theirs = Braindecode(**arguments).eval()
    x = torch.randn(1, 19, 6000) * 0.3
    with torch.no_grad():
        theirs(x)  # takes the norm of its kernels
    ours = CodeBrain(**arguments).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, x


def set_window(ours, theirs, window_size):
    for mine, other in zip(ours.backbone.blocks, theirs.residual_layer.residual_blocks, strict=True):
        mine.attention.window_size = other.swa_window_size = window_size


@pytest.mark.parametrize("window_size", [1, 31])
def test_outputs_at_the_released_size(released_size, window_size):
    ours, theirs, x = released_size
    set_window(ours, theirs, window_size)
    mask = torch.rand(1, 19, 30) < 0.5
    with torch.no_grad():
        for call in (
            lambda model: model(x),
            lambda model: model(x, return_features=True)["features"],
            lambda model: model(x, mask, return_features=True)["features"],
        ):
            expected = call(theirs)
            assert (call(ours) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("window_size", [1, 31])
def test_every_gradient_at_the_released_size(released_size, window_size):
    ours, theirs, x = released_size
    set_window(ours, theirs, window_size)
    ours.head_t.requires_grad_(True)
    ours.head_f.requires_grad_(True)
    mask = torch.rand(1, 19, 30) < 0.5
    probes = [torch.randn(int(mask.sum()), 4096) for _ in range(2)]
    for model in (ours, theirs):
        model.zero_grad()
        model.pretrain_mode = True
        loss = sum((probe * logits).mean() for probe, logits in zip(probes, model(x, mask), strict=True))
        model.pretrain_mode = False
        (loss + model(x).square().sum()).backward()
    gradients = to_ours(
        _complete({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}, theirs)
    )
    trained = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert trained.keys() == gradients.keys() - {name for name in gradients if name.endswith("kernel_norm")}
    for name, gradient in trained.items():
        mine, expected = gradient, gradients[name]
        if name.endswith("in_proj_bias"):
            # The key bias has no influence; both have rounding errors there.
            mine, expected = (t.unflatten(0, (3, -1))[[0, 2]] for t in (mine, expected))
        assert (mine - expected).norm() <= 1e-4 * expected.norm(), name


def _complete(gradients, model):
    """Add the constants of each SGConv, which a state_dict has and gradients have not."""
    constants = {name: value for name, value in model.named_buffers() if "sgconv" in name}
    return {**gradients, **constants}


def test_state_dicts_go_both_ways():
    arguments = {"n_outputs": 2, "n_chans": 3, "n_times": 600, **SMALL, **CODES}
    ours, theirs = CodeBrain(**arguments).eval(), Braindecode(**arguments).eval()
    theirs.load_state_dict(to_braindecode(ours.state_dict()))
    x = torch.randn(2, 3, 600)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
    CodeBrain.from_config(theirs.get_config()).load_state_dict(theirs.state_dict())
    Braindecode.from_config(ours.get_config()).load_state_dict(theirs.state_dict())


# --- what one saves, the other loads -------------------------------------------------------------------------------

SHAPE = {"n_outputs": 2, "n_chans": 3, "n_times": 650}
X_UV = 20 * torch.randn(4, 3, 650, generator=torch.Generator().manual_seed(0))
CHANNELS = [{"ch_name": name, "loc": np.arange(12.0), "kind": 2} for name in ("C3", "Cz", "C4")]
CONFIGS = [
    {},
    {"swa_window_size": 3, "sfreq": 200, "n_times": None, "input_window_seconds": 3.25},
    {"s4_bidirectional": False, "s4_layernorm": True, "activation": nn.ELU, "mlp_hidden_multiplier": 2},
    {"n_chans": None, "chs_info": CHANNELS, "s4_lmax": 570, "pos_kernel": (3, 5), "drop_prob": 0.0},
    {"patch_size": 128, "conv_out_chans": 16, "conv_groups": 4, "num_res_layers": 3},
    {"pretrain_mode": True},
]


def trained(model):
    """The model with weights that no initialisation gives, so that what is not loaded shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def everything(model, x):
    """All that either class can compute: features, class logits, code logits."""
    mode, model.pretrain_mode = model.pretrain_mode, False
    with torch.no_grad():
        found = [model(x, return_features=True)["features"], model(x)]
        model.pretrain_mode = True
        found += model(x)
    model.pretrain_mode = mode
    return found


def assert_all_equal(found, expected):
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [*CONFIGS, {"swa_within_channel": True, "checkpoint_blocks": True}])
def test_a_folder_that_we_saved_loads_there_completely(tmp_path, options):
    ours = trained(CodeBrain(**{**SHAPE, **SMALL, **CODES, **options}))
    ours.save_pretrained(tmp_path)
    theirs = Braindecode.from_pretrained(tmp_path, strict=True)
    assert_all_equal(everything(theirs, to_model_units(X_UV)), everything(ours, to_model_units(X_UV)))
    expected = to_braindecode(ours.state_dict())
    assert theirs.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in theirs.state_dict().items())


@pytest.mark.parametrize("make", [CodeBrain, MaskedTokenModel])
def test_a_folder_without_a_classifier_needs_sizes_there_and_then_lacks_nothing_else(tmp_path, make):
    """The export of stage 2 is that of MaskedTokenModel."""
    ours = trained(make(**SMALL, **CODES) if make is CodeBrain else make(5, 5, **SMALL))
    ours.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="n_chans could not be inferred"):
        Braindecode.from_pretrained(tmp_path)
    with pytest.raises(RuntimeError) as error:
        Braindecode.from_pretrained(tmp_path, strict=True, **SHAPE)
    assert "Unexpected" not in str(error.value)
    missing = str(error.value).partition("Missing key(s) in state_dict: ")[2].split(", ")
    assert all(name.startswith('"final_layer.') for name in missing)
    theirs = Braindecode.from_pretrained(tmp_path, **SHAPE)
    features, _, *codes = everything(theirs, to_model_units(X_UV))
    again = CodeBrain.from_pretrained(tmp_path, **SHAPE)
    mine = everything(again, to_model_units(X_UV))
    with torch.no_grad():
        assert_all_equal([features, *codes], [mine[0], *mine[2:]])
        assert_all_equal([features], [ours.backbone(to_model_units(X_UV)[..., :600].unflatten(-1, (3, 200)))])


def finetuned(folder, kind="mlp", n_outputs=1, scale=None, hidden=0, **sizes):
    """A fine-tuned model in a folder."""
    head = Head(HeadConfig(kind=kind, n_chans=3, n_patches=3, width=8, n_outputs=n_outputs, hidden=hidden))
    if scale == "features":
        head.standardise(torch.randn(head.config.n_inputs), torch.rand(head.config.n_inputs) + 0.5)
    elif scale == "answers":
        head.answer_like(40.0, 12.0)
    model = trained(Classifier(EEGSSM(BackboneConfig(**SMALL, **sizes)), head))
    names = ("rest", "count") if n_outputs == 1 else tuple("abcde"[:n_outputs])
    task = Task(name="toy", protocol="", kind="binary" if n_outputs == 1 else "multiclass", class_names=names)
    contract = Contract(task=task, ch_names=("C3", "Cz", "C4"), n_times=650, sfreq=200.0)
    classifier_folder.save(folder, model, contract, card="# A card\n")
    return model


@pytest.mark.parametrize("options", [{}, {"n_outputs": 4, "hidden": 24}, {"swa_window_size": 3}])
def test_a_fine_tuned_model_with_their_head_loads_there_completely(tmp_path, options):
    ours = finetuned(tmp_path, **options)
    theirs = Braindecode.from_pretrained(tmp_path, strict=True)
    with torch.no_grad():
        features, logits, *_ = everything(theirs, to_model_units(X_UV))
        assert_all_equal([features, logits], [backbone_features(ours.backbone, X_UV), ours(X_UV)])
        assert torch.equal(classifier_folder.load(tmp_path)[0](X_UV), ours(X_UV))
    assert "braindecode.models.CodeBrain.from_pretrained" in (tmp_path / "README.md").read_text()


def save_tokenizer(folder):
    sizes = {"width": 8, "n_layers": 1, "n_heads": 2, "conv_features": 4, "decoder_layers": 1, "code_dim": 4}
    DualTokenizer(TokenizerConfig(n_codes_t=5, n_codes_f=5, codebook_start="random", **sizes)).save_pretrained(folder)


@pytest.mark.parametrize(
    "save",
    [
        save_tokenizer,
        lambda folder: CodeBrain(**SHAPE, **SMALL, swa_within_channel=True, swa_window_size=3).save_pretrained(folder),
        lambda folder: MaskedTokenModel(5, 5, **SMALL, swa_within_channel=True, swa_window_size=3).save_pretrained(
            folder
        ),
        *(partial(finetuned, kind=kind) for kind in get_args(HeadKind) if kind != "mlp"),
        *(partial(finetuned, **options) for options in ({"scale": "features"}, {"scale": "answers"}, {"hidden": 10})),
        partial(finetuned, swa_within_channel=True, swa_window_size=3),
        lambda folder: CodeBrain(**SHAPE, **SMALL, activation=nn.PReLU).save_pretrained(folder),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_what_they_cannot_express_is_refused_there(tmp_path, save, before):
    if before:
        CodeBrain(**SHAPE, **SMALL).save_pretrained(tmp_path)  # must not be what they find
    save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        Braindecode.from_pretrained(tmp_path, **SHAPE)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "codebrain.safetensors", "README.md"}


@pytest.mark.parametrize("forward_first", [False, True])
@pytest.mark.parametrize("options", CONFIGS)
def test_a_folder_that_they_saved_loads(tmp_path, options, forward_first):
    theirs = trained(Braindecode(**{**SHAPE, **SMALL, **CODES, **options}))
    x = to_model_units(X_UV)
    if forward_first:  # it takes the norm of its kernels
        theirs(x)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = CodeBrain.from_pretrained(tmp_path / "theirs", strict=True)
    assert_all_equal(everything(ours, x), everything(theirs, x))
    ours.save_pretrained(tmp_path / "ours")
    assert_all_equal(everything(Braindecode.from_pretrained(tmp_path / "ours", strict=True), x), everything(theirs, x))


def toy_data(n=24):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, 3, 400)).astype("float32")
    x[y == 1] += 2 * np.sin(2 * np.pi * 10 * np.arange(400) / 200).astype("float32")
    return x, y


def eeg_classifier(*args, **options):
    # Not at the top: braindecode can be imported only where braindecode_class has been.
    from braindecode import EEGClassifier

    return EEGClassifier(*args, **options)


def classifier(**options):
    torch.manual_seed(0)
    return eeg_classifier(
        CodeBrain,
        **{f"module__{name}": value for name, value in {**SMALL, **CODES}.items()},
        **{"classes": [0, 1], "max_epochs": 12, "batch_size": 8, "lr": 0.01, "optimizer": torch.optim.AdamW, **options},
        train_split=None,
        verbose=0,
    )


def test_trains_in_eegclassifier():
    x, y = toy_data()
    model = classifier().fit(x, y)
    assert model.module_.n_chans == 3
    assert model.predict_proba(x).shape == (24, 2)
    assert model.score(x, y) > 0.8


def test_takes_a_pretrained_instance_and_double_signals(tmp_path):
    x, y = toy_data()
    CodeBrain(**SMALL, **CODES).save_pretrained(tmp_path)
    model = CodeBrain.from_pretrained(tmp_path, n_outputs=2, n_chans=3, n_times=400)
    net = eeg_classifier(model, classes=[0, 1], max_epochs=1, batch_size=8, train_split=None, verbose=0)
    assert net.fit(x.astype("float64"), y).predict(x.astype("float64")).shape == (24,)
    assert net.module_ is model  # not built anew, which would lose the weights


def test_trains_in_a_scikit_learn_pipeline():
    x, y = toy_data()
    pipeline = make_pipeline(FunctionTransformer(to_model_units), classifier(max_epochs=3))
    assert cross_val_score(clone(pipeline), 100 * x, y, cv=2).shape == (2,)


def test_trains_in_moabb(tmp_path, monkeypatch):
    # MOABB writes data, results and MNE's configuration: none of it into the home folder.
    for variable in ("_MNE_FAKE_HOME_DIR", "MNE_DATA", "MOABB_RESULTS"):
        monkeypatch.setenv(variable, str(tmp_path))
    moabb = pytest.importorskip("moabb", reason="moabb is not installed")
    from moabb.datasets.fake import FakeDataset
    from moabb.evaluations import WithinSessionEvaluation
    from moabb.paradigms import LeftRightImagery

    moabb.set_log_level("error")
    dataset = FakeDataset(["left_hand", "right_hand"], n_subjects=1, n_sessions=1, n_runs=1)
    evaluation = WithinSessionEvaluation(LeftRightImagery(resample=200), [dataset], overwrite=True)
    pipeline = make_pipeline(FunctionTransformer(to_model_units), classifier(max_epochs=1))
    results = evaluation.process({"CodeBrain": pipeline})
    assert results["score"].between(0, 1).all()
