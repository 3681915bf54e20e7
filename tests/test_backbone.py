"""EEGSSM: golden numbers, any shape, compilation, autocast, checkpointing, folding."""

import json

import pytest
import torch
from safetensors.torch import load_file

from codebrain import EEGSSM, BackboneConfig, CodeBrain
from codebrain.folding import fold
from codebrain.patches import patchify

SMALL = {"res_channels": 16, "skip_channels": 12, "out_channels": 20, "num_res_layers": 2, "s4_lmax": 24}


def small(**options):
    torch.manual_seed(0)
    return EEGSSM(BackboneConfig(**{**SMALL, **options}))


def patches(batch=2, n_chans=3, n_patches=4):
    return torch.randn(batch, n_chans, n_patches, 200)


@pytest.mark.real
@pytest.mark.parametrize("name", ["window1", "window5", "unidirectional_layernorm"])
def test_every_golden_number(golden_folder, name):
    model = CodeBrain(**json.loads((golden_folder / f"{name}.json").read_text())).eval()
    model.load_state_dict(load_file(golden_folder / f"{name}.safetensors"))
    golden = load_file(golden_folder / f"{name}.expected.safetensors")
    x, mask = golden.pop("x"), golden.pop("mask")
    with torch.no_grad():
        ours = {
            "patch_embedding": model.backbone.patch_embedding(patchify(x, 200)),
            "patch_embedding_masked": model.backbone.patch_embedding(patchify(x, 200), mask),
            "features": model(x, return_features=True)["features"],
            "features_2_patches": model(x[..., :400], return_features=True)["features"],
            "class_logits": model(x),
        }
        model.pretrain_mode = True
        ours["temporal_logits"], ours["frequency_logits"] = model(x)
        ours["masked_temporal_logits"], ours["masked_frequency_logits"] = model(x, mask)
    assert ours.keys() == golden.keys()
    for key, expected in golden.items():
        assert (ours[key] - expected).abs().max() < 1e-5 * expected.abs().max(), key


@pytest.mark.parametrize("options", [{}, {"swa_window_size": 3}, {"swa_window_size": 3, "swa_within_channel": True}])
def test_one_instance_takes_any_channels_patches_and_a_batch_of_one(options):
    model = small(**options).eval()
    for shape in ((1, 1, 1), (1, 3, 4), (2, 5, 1), (1, 2, 40)):
        assert model(patches(*shape)).shape == (*shape, 20)


def test_windows_of_a_batch_do_not_see_each_other():
    model, x = small().eval(), patches(3)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))
    x[0, 0, 0, 0] = float("nan")
    assert model(x)[1:].isfinite().all()
    assert model(x)[0].isnan().all()


def test_a_hidden_patch_is_not_seen():
    model, x = small().eval(), patches()
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[:, 1, 2] = True
    changed = x.clone()
    changed[:, 1, 2] += 1
    torch.testing.assert_close(model(x, mask), model(changed, mask.long()))
    assert not torch.allclose(model(x), model(changed))


def test_no_state_is_made_in_forward():
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    model(patches())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_trainable_parameter_has_a_gradient():
    """What DistributedDataParallel needs: the end of the stream, which leads nowhere, is not trainable."""
    model = small(swa_window_size=3)
    model(patches()).square().sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert fixed == {
        "patch_embedding.mask_encoding",
        "blocks.1.norm.scale",
        *(f"blocks.1.residual.{name}" for name in ("bias", "weight_g", "weight_v")),
    }


def test_checkpointing_changes_no_number():
    x = patches()
    losses, gradients = [], []
    for checkpoint_blocks in (False, True):
        model = small(checkpoint_blocks=checkpoint_blocks, drop_prob=0.3)
        torch.manual_seed(1)
        loss = model(x).square().mean()
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert losses[0] == losses[1]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("window_size", [1, 3])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_folding_changes_no_number(window_size, layer_norm):
    model = small(swa_window_size=window_size, s4_layernorm=layer_norm).eval()
    for block in model.blocks:
        torch.nn.init.normal_(block.attention.in_proj_bias)
        torch.nn.init.normal_(block.attention.out_proj.bias)
    folded, x = fold(model), patches()
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert (folded.blocks[0].attention is None) == (window_size == 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_follows_the_module(dtype):
    model = small(swa_window_size=3).eval()
    exact = model(patches_ := patches())
    out = model.to(dtype)(patches_.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.15)


@pytest.mark.parametrize("window_size", [1, 3])
def test_autocast_trains(window_size):
    model = small(swa_window_size=window_size)
    x = patches()
    exact = model.eval()(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = model.train()(x)
        loss = out.float().square().mean()
    loss.backward()
    assert all(
        p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None
    )
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.eval()(x).float(), exact, rtol=0.1, atol=0.2)


@pytest.mark.parametrize(
    ("options", "strict"), [({}, True), ({}, False), ({"swa_window_size": 3, "s4_layernorm": True}, False)]
)
def test_exports_with_a_dynamic_batch(options, strict):
    model, x = small(num_res_layers=1, **options).eval(), patches(3)
    program = torch.export.export(model, (x,), dynamic_shapes={"patches": {0: torch.export.Dim.DYNAMIC}}, strict=strict)
    for batch in (1, 2, 7):
        x = patches(batch)
        torch.testing.assert_close(program.module()(x), model(x))


def compiled_equals_eager(backend, options):
    model = small(num_res_layers=1, drop_prob=0.0, spectral_dropout=0.0, **options)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for batch in (2, 5):
        x = patches(batch)
        torch._dynamo.mark_dynamic(x, 0)
        results = []
        for run in (model, compiled):
            model.zero_grad()
            out = run(x)
            out.square().sum().backward()
            results.append([out, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"swa_window_size": 3}])
def test_compiles_as_one_graph_with_a_dynamic_batch(options):
    compiled_equals_eager("aot_eager", options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"swa_window_size": 5}])
def test_compiles_with_inductor(options):
    compiled_equals_eager("inductor", options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"swa_window_size": 4}, "swa_window_size=4 must be odd"),
        ({"conv_groups": 0}, "conv_groups=0 must be at least 1"),
        ({"proj_padding": -1}, "proj_padding=-1"),
        ({"proj_kernel_size": 300}, "proj_kernel_size=300.*must fit into a patch of patch_size=200"),
        ({"conv_out_chans": 24}, "multiple of conv_groups=5"),
        ({"pos_kernel": (4, 7)}, "must be odd"),
        ({"num_res_layers": 0}, "num_res_layers=0 must be at least 1"),
        ({"s4_lmax": 1}, "s4_lmax=1"),
        ({"drop_prob": 1.5}, "drop_prob=1.5"),
        ({"res_channels": 15}, "res_channels=15 must be even"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"mask has shape \(2, 3, 5\).*\(2, 3, 4\)"):
        small()(patches(), torch.zeros(2, 3, 5))


def test_patches_of_another_size_are_refused_with_the_size():
    with pytest.raises(ValueError, match="masks need patch_size to equal that width"):
        small(patch_size=110)(torch.randn(1, 2, 3, 110), torch.zeros(1, 2, 3))
