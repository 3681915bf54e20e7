"""CodeBrain and MaskedTokenModel: arguments, outputs, heads, bad input."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from codebrain import BackboneConfig, CodeBrain, MaskedTokenModel
from codebrain.folding import fold

SMALL = {"res_channels": 16, "skip_channels": 12, "out_channels": 20, "num_res_layers": 2, "s4_lmax": 24}
CODES = {"codebook_size_t": 11, "codebook_size_f": 13}
SHAPE = {"n_outputs": 2, "n_chans": 3, "n_times": 850}


def codebrain(**options):
    torch.manual_seed(0)
    return CodeBrain(**{**SHAPE, **SMALL, **CODES, **options})


def masked(**options):
    torch.manual_seed(0)
    return MaskedTokenModel(11, 13, **{**SMALL, **options})


def test_the_released_size_has_the_published_number_of_parameters():
    model = CodeBrain(n_outputs=2, n_chans=19, n_times=6000)
    count = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("final_layer"))
    assert count == 15_167_600
    assert sum(p.numel() for p in MaskedTokenModel(4096, 4096).parameters()) == count


def test_outputs():
    model, x = codebrain().eval(), torch.randn(2, 3, 850)
    assert model(x).shape == (2, 2) == (2, *model.get_output_shape()[1:])
    out = model(x, return_features=True)
    assert out["features"].shape == (2, 3, 4, 20)
    assert out["cls_token"] is None
    model.pretrain_mode = True
    assert [t.shape for t in model(x)] == [(2, 3, 4, 11), (2, 3, 4, 13)]


@pytest.mark.parametrize("make", [lambda: codebrain(pretrain_mode=True), masked])
def test_code_logits_of_hidden_patches_in_row_major_order(make):
    model, x = make().eval(), torch.randn(2, 3, 850)
    mask = torch.rand(2, 3, 4) < 0.5
    hidden_t, hidden_f = model(x, mask)
    assert hidden_t.shape == (mask.sum(), 11)
    features = model.backbone(x[..., :800].view(2, 3, 4, 200), mask)
    rows = [model.head_f(features[tuple(index)]) for index in mask.nonzero()]
    torch.testing.assert_close(hidden_f, torch.stack(rows))


def test_what_a_mode_trains_has_a_gradient_and_nothing_else():
    x, mask = torch.randn(2, 3, 850), torch.rand(2, 3, 4) < 0.5
    for model, loss in (
        (masked(), lambda model: sum(t.sum() for t in model(x, mask))),
        (codebrain(), lambda model: model(x).sum()),
        (codebrain(pretrain_mode=True), lambda model: sum(t.sum() for t in model(x, mask))),
    ):
        loss(model).backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert not codebrain().head_t.weight.requires_grad


@pytest.mark.parametrize(
    "given",
    [
        {"n_times": 800, "sfreq": 200},
        {"n_times": 800, "input_window_seconds": 4.0},
        {"sfreq": 200, "input_window_seconds": 4.0},
    ],
)
def test_any_two_of_samples_seconds_and_rate_give_the_third(given):
    model = codebrain(**{"n_times": None, **given})
    assert (model.n_times, model.sfreq, model.input_window_seconds) == (800, 200, 4.0)
    assert model.input_shape == (1, 3, 800)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_times": 800, "sfreq": 200, "input_window_seconds": 3.0}, "n_times=800 contradicts.*600"),
        ({"n_chans": 2, "chs_info": [{"ch_name": "Cz"}]}, "n_chans=2 contradicts chs_info, which describes 1"),
        ({"n_chans": None}, "n_chans not specified: pass n_chans or chs_info"),
        ({"n_times": None}, "n_times not specified"),
        ({"n_times": 150}, "shorter than one patch of 200"),
        ({"n_outputs": 0}, "n_outputs=0 must be at least 1"),
        ({"n_chans": 0}, "n_chans=0 must be at least 1"),
        ({"n_times": -850}, "n_times=-850 must be positive"),
        ({"sfreq": 0}, "sfreq=0 must be positive"),
        ({"input_window_seconds": float("nan")}, "input_window_seconds=nan must be positive"),
        ({"codebook_size_f": 0}, "codebook_size_f=0 must be at least 1"),
        ({"mlp_hidden_multiplier": 0}, "mlp_hidden_multiplier=0"),
        ({"swa_window_size": 2}, "must be odd"),
    ],
)
def test_contradictions_and_gaps_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        codebrain(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu"}, "activation='relu' must be a class of modules, such as torch.nn.ReLU"),
        ({"activation": nn.ReLU()}, r"activation=ReLU\(\) must be a class"),
        ({"pos_kernel": 7}, "pos_kernel=7 must be two whole numbers"),
        ({"pos_kernel": (7, 7, 7)}, r"pos_kernel=\(7, 7, 7\) must be two whole numbers"),
        ({"swa_window_size": 3.0}, r"swa_window_size=3\.0 must be a whole number"),
        ({"res_channels": "16"}, "res_channels='16' must be a whole number"),
    ],
)
@pytest.mark.parametrize("make", [codebrain, masked])
def test_arguments_of_another_kind_are_refused(make, options, message):
    with pytest.raises(TypeError, match=message):
        make(**options)


@pytest.mark.parametrize("make", [codebrain, masked])
def test_numpy_arrays_are_refused(make):
    x, mask = torch.zeros(2, 3, 850), torch.zeros(2, 3, 4)
    with pytest.raises(TypeError, match=r"the signal is a ndarray, expected a tensor: torch\.as_tensor"):
        make()(x.numpy())
    with pytest.raises(TypeError, match=r"mask is a ndarray, expected a tensor"):
        make()(x, mask.numpy())


def test_unspecified_properties_say_what_to_pass():
    model = codebrain()
    for name in ("sfreq", "input_window_seconds", "chs_info"):
        with pytest.raises(ValueError, match=f"{name} not specified"):
            getattr(model, name)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 4, 850), "built for 3 channels and 4 patches of 200 samples, got 4 channels and 4 patches"),
        (torch.zeros(2, 3, 1050), "got 3 channels and 5 patches"),
        (torch.zeros(0, 3, 850), "an empty batch"),
        (torch.zeros(2, 0, 850), "an empty batch"),
        (torch.zeros(2, 3, 199), "199 samples is shorter than one patch"),
        (torch.zeros(3, 850), "expected a signal of shape"),
        (torch.full((2, 3, 850), float("nan")), r"the signal is nan in window 0, channel 0, at sample 0 \(4800 such"),
        (torch.tensor([0.0, float("inf")]).view(2, 1, 1).expand(2, 3, 850), "inf in window 1, channel 0"),
    ],
)
def test_bad_windows_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        codebrain()(x)


def test_features_need_no_shape_and_no_head():
    model = CodeBrain(**SMALL, **CODES).eval()
    for n_chans, n_times in ((1, 200), (5, 1000)):
        features = model(torch.randn(1, n_chans, n_times), return_features=True)["features"]
        assert features.shape == (1, n_chans, n_times // 200, 20)
    with pytest.raises(ValueError, match="no classifier"):
        model(torch.randn(1, 3, 850))


def test_reset_head_replaces_the_classifier_alone():
    model = codebrain().double()
    before = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("final_layer")}
    model.reset_head(5)
    assert model(torch.randn(2, 3, 850)).shape == (2, 5)
    assert model.n_outputs == model.get_config()["n_outputs"] == 5
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(ValueError, match="n_outputs=0"):
        model.reset_head(0)


@pytest.mark.parametrize("make", [codebrain, masked])
def test_a_folded_model_is_not_saved_and_gets_no_new_head(make, tmp_path):
    folded = fold(make())
    with pytest.raises(ValueError, match=r"save_pretrained of a folded model.*fold after loading"):
        folded.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    if isinstance(folded, CodeBrain):
        with pytest.raises(ValueError, match="reset_head of a folded model"):
            folded.reset_head(3)


@pytest.mark.parametrize("window_size", [1, 3])
def test_the_gradient_can_be_differentiated_again(window_size):
    """Against differences of the gradient, along the gradient."""
    model, x = codebrain(swa_window_size=window_size).double().eval(), torch.randn(1, 3, 850, dtype=torch.float64)

    def gradient(x):
        return torch.autograd.grad(model(x).square().sum(), x, create_graph=True)[0]

    (curvature,) = torch.autograd.grad((slope := gradient(x.requires_grad_())).square().sum() / 2, x)
    step = 1e-5 * slope.detach() / slope.detach().norm()
    ahead, behind = (gradient((x + s).detach().requires_grad_()).detach() for s in (step, -step))
    torch.testing.assert_close(curvature, (ahead - behind) / 2e-5 * slope.detach().norm(), rtol=1e-4, atol=1e-8)


def test_config_survives_json():
    channels = [{"ch_name": name, "loc": np.arange(12.0), "kind": 2} for name in ("C3", "Cz", "C4")]
    model = codebrain(n_chans=None, chs_info=channels, activation=nn.ELU, swa_window_size=3, pos_kernel=(3, 5))
    config = json.loads(json.dumps(model.get_config()))
    again = CodeBrain.from_config(config)
    assert again.get_config() == config
    assert again.backbone.config == model.backbone.config
    assert again.chs_info[1]["loc"].tolist() == list(range(12))
    assert isinstance(again.backbone.activation, nn.ELU)
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize("make", [codebrain, masked])
def test_a_config_names_what_braindecode_lacks_only_where_it_is_on(make):
    assert not {"swa_within_channel", "checkpoint_blocks"} & make().get_config().keys()
    config = make(swa_within_channel=True, checkpoint_blocks=True).get_config()
    assert config["swa_within_channel"] is config["checkpoint_blocks"] is True
    assert type(make()).from_config(config).backbone.config.checkpoint_blocks


def test_the_pretraining_config_builds_both_models():
    config = json.loads(json.dumps(masked(activation=nn.Tanh, swa_window_size=3).get_config()))
    assert MaskedTokenModel.from_config(config).get_config() == config
    assert CodeBrain.from_config(config).backbone.config == BackboneConfig(**SMALL, swa_window_size=3)


def test_a_config_with_an_unknown_key_or_a_foreign_type_is_refused():
    with pytest.raises(ValueError, match="unknown arguments of CodeBrain: widht"):
        CodeBrain.from_config({"widht": 3})
    with pytest.raises(ValueError, match="unknown arguments of MaskedTokenModel: widht"):
        MaskedTokenModel.from_config({"widht": 3})
    with pytest.raises(ValueError, match=r"n_codes_t.*called codebook_size_t"):
        MaskedTokenModel.from_config({**masked().get_config(), "n_codes_t": 9})
    with pytest.raises(ValueError, match=r"'os\.system' is not in torch\.nn"):
        CodeBrain.from_config({"activation": "os.system"})


def test_double_input_is_taken():
    assert codebrain().eval()(torch.randn(2, 3, 850, dtype=torch.float64)).dtype == torch.float32


def test_exports_and_compiles_with_its_classifier():
    model, x = codebrain(num_res_layers=1).eval(), torch.randn(3, 3, 850)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC}})
    torch.testing.assert_close(program.module()(x[:2]), model(x[:2]))
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x))


def test_the_masked_model_compiles():
    model, x = masked(num_res_layers=1).eval(), torch.randn(3, 3, 850)
    mask = torch.rand(3, 3, 4) < 0.5
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(x, mask), model(x, mask))
