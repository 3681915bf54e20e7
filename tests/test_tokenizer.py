"""The tokenizer as its users meet it: any montage, odd signals, saving and loading, codes that training assigned."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokenizer import Codes, DualTokenizer, LossConfig, TokenizerConfig, transformer
from tokenizer import model as module
from tokenizer.encoder import spectrum_rows
from tokenizer.inputs import montage_matrix
from tokenizer.losses import stage1_loss

TINY = TokenizerConfig(
    width=32, n_layers=1, n_heads=4, conv_features=4, decoder_layers=1, n_codes_t=24, n_codes_f=20, code_dim=8
)
NAMES = ("Fp1", "C3", "Cz", "O2")


def make(**changes: object) -> DualTokenizer:
    torch.manual_seed(0)
    return DualTokenizer(dataclasses.replace(TINY, **changes))


def windows(n: int = 6, n_chans: int = 4, seconds: float = 4, seed: int = 0) -> Tensor:
    """Noise with the spectrum of EEG, in microvolts."""
    noise = torch.randn(n, n_chans, int(200 * seconds), generator=torch.Generator().manual_seed(seed))
    slow = noise.cumsum(-1)
    return 20 * (slow - slow.mean(-1, keepdim=True)) / slow.std(-1, keepdim=True) + noise


def started(**changes: object) -> DualTokenizer:
    model = make(**changes)
    model.init_codebooks([(windows(8), NAMES)], torch.Generator().manual_seed(0), vectors_per_step=96.0)
    return model


def step(model: DualTokenizer, x: Tensor, names: tuple[str, ...] = NAMES) -> float:
    loss, _ = stage1_loss(model(x, names), model.targets(x), LossConfig())
    loss.backward()
    model.update_codebooks(torch.Generator().manual_seed(1))
    return loss.item()


def test_shapes_and_ranges() -> None:
    output = started()(windows(), NAMES)
    assert output.codes.t.shape == output.codes.f.shape == (6, 4, 4)
    assert output.codes.t.dtype == torch.int64
    assert 0 <= output.codes.f.min() <= output.codes.f.max() < 20
    assert output.reconstruction.waveform.shape == (6, 4, 4, 200)
    assert output.reconstruction.amplitude.shape == (6, 4, 4, 101)
    assert output.reconstruction.phase.shape == (6, 4, 4, 202)


def test_unquantised_until_started() -> None:
    model = make()
    assert model(windows(), NAMES).codes is None
    assert math.isfinite(step(model, windows()))
    with pytest.raises(ValueError, match="not started"):
        model.encode(windows(), NAMES)
    nothing = torch.zeros(1, 4, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="not started"):
        model.decode((nothing, nothing), NAMES)
    random = make(codebook_start="random")
    assert random(windows(), NAMES).codes is not None


def test_amplitudes_start_at_their_mean() -> None:
    model = make().eval()
    before = (model(windows(), NAMES).reconstruction.amplitude - model.targets(windows()).amplitude).square().mean()
    model.centre([windows()])
    after = (model(windows(), NAMES).reconstruction.amplitude - model.targets(windows()).amplitude).square().mean()
    assert after < 0.5 * before


def test_the_mean_spectrum_does_not_depend_on_batches() -> None:
    whole, parts = make(), make()
    x = windows(7) * torch.logspace(0, 2, 7)[:, None, None]
    whole.centre([x])
    parts.centre([x[:4], x[4:6], x[6:]])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-6, atol=1e-6)
    only_first = make()
    only_first.centre([x[:4]])
    assert not torch.allclose(only_first.encoder.embed.mean_log_amplitude, whole.encoder.embed.mean_log_amplitude)


def test_montages_weigh_by_their_windows() -> None:
    both, model = make(), make()
    both.centre([windows(3), windows(1, n_chans=2, seconds=8, seed=1)])
    means = []
    for x in (windows(3), windows(1, n_chans=2, seconds=8, seed=1)):
        model.centre([x])
        means.append(model.encoder.embed.mean_log_amplitude.clone())
    torch.testing.assert_close(both.encoder.embed.mean_log_amplitude, (3 * means[0] + means[1]) / 4)


def test_encode_gives_the_codes_of_forward_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    model = started()
    expected = model.eval()(windows(), NAMES).codes
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(module, "ENCODE_TOKENS", 20)
    codes = model.encode(windows(), NAMES)
    assert torch.equal(codes.t, expected.t)
    assert torch.equal(codes.f, expected.f)
    assert model.training, "encode must leave the mode as it was"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_encode_gives_the_same_codes_within_autocast() -> None:
    model, x = started(), windows(32)
    expected = model.encode(x, NAMES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = model.encode(x, NAMES)
    assert torch.equal(codes.t, expected.t)
    assert torch.equal(codes.f, expected.f)


def test_training_assigns_the_same_codes() -> None:
    model = started().train()
    assert torch.equal(model(windows(), NAMES).codes.t, model.encode(windows(), NAMES).t)


def test_decode_is_what_forward_restores() -> None:
    model = started().eval()
    output = model(windows(), NAMES)
    restored = model.decode(output.codes, NAMES)
    for name in ("waveform", "amplitude", "phase"):
        torch.testing.assert_close(getattr(restored, name), getattr(output.reconstruction, name))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", ">u2", "int64"])
def test_codes_of_a_file_are_decoded(dtype: str) -> None:
    model = started()
    codes = model.encode(windows(), NAMES)
    expected = model.decode(codes, NAMES).waveform
    arrays = tuple(sequence.numpy().astype(dtype) for sequence in codes)
    assert torch.equal(model.decode(arrays, NAMES).waveform, expected)
    if not dtype.startswith(">"):
        assert torch.equal(model.decode(Codes(*map(torch.from_numpy, arrays)), NAMES).waveform, expected)


def codes_with(value: float, dtype: torch.dtype = torch.int64, shape: tuple[int, ...] = (1, 4, 2)) -> Tensor:
    return torch.full(shape, value, dtype=dtype)


@pytest.mark.parametrize(
    ("t", "f", "error", "message"),
    [
        (codes_with(24), codes_with(0), ValueError, "temporal code 24 is not in this tokenizer's codebook of 24"),
        (codes_with(0), codes_with(-3, torch.int16), ValueError, "frequency code -3 is not .* \\(0 to 19\\)"),
        (codes_with(0)[0], codes_with(0)[0], ValueError, "shape \\(4, 2\\) for 4 channel names.*codes\\[None\\]"),
        (codes_with(0, shape=(1, 3, 2)), codes_with(0), ValueError, "shape \\(1, 3, 2\\) for 4 channel names"),
        (codes_with(0, shape=(1, 4, 61)), codes_with(0), ValueError, "1 to 60 patches"),
        (codes_with(0), codes_with(0, shape=(1, 4, 3)), ValueError, "frequency codes of shape \\(1, 4, 3\\)"),
        (codes_with(0.0, torch.float32), codes_with(0), TypeError, "temporal codes are torch.float32"),
        (codes_with(0).double().numpy(), codes_with(0), TypeError, "temporal codes are float64"),
        ([[[0]]], codes_with(0), TypeError, "temporal codes are list"),
    ],
)
def test_what_is_no_code_is_refused(t: Any, f: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        started().decode((t, f), NAMES)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", range(8))
def test_a_save_that_is_killed_never_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Whatever is reached, the folder holds the old tokenizer, the new one, or none, but never a mixture."""
    old, new = make(), make(decay=0.9)  # of one layout: the weights of either would load under the config of both
    with torch.no_grad():
        new.to_code_t[0].bias.add_(1.0)
    old.save_pretrained(tmp_path)
    steps = iter(range(100))

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            if next(steps) == moment:
                raise Killed
            return function(*args, **options)

        return step

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr("codebrain.saving.save_file", dying(save_file))
        patch.setattr("codebrain.saving.os.replace", dying(os.replace))
        patch.setattr("pathlib.Path.write_text", dying(Path.write_text))
        new.save_pretrained(tmp_path)
    try:
        found = DualTokenizer.from_pretrained(tmp_path)
    except FileNotFoundError:
        assert 3 <= moment < 6
    else:
        expected = old if moment < 3 else new
        assert found.config == expected.config
        assert torch.equal(found.to_code_t[0].bias, expected.to_code_t[0].bias)
    new.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "codebrain.safetensors", "README.md"}


def test_the_hub_gets_the_three_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder stands for the Hub."""

    class Api:
        def __init__(self, **_options: Any) -> None:
            pass

        def create_repo(self, repo_id: str, **_options: Any) -> Any:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_options: Any) -> str:
            shutil.copytree(folder_path, tmp_path / repo_id)
            return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    model = started()
    assert model.save_pretrained(tmp_path / "export", repo_id="someone/a-tokenizer", push_to_hub=True)
    uploaded = tmp_path / "someone" / "a-tokenizer"
    assert {file.name for file in uploaded.iterdir()} == {"config.json", "codebrain.safetensors", "README.md"}
    assert DualTokenizer.from_pretrained(uploaded).config == model.config


@pytest.mark.parametrize("source", ["export", "run"])
def test_saved_and_loaded(tmp_path: Path, source: str) -> None:
    model = started()
    step(model, windows())
    model.record = {
        "steps": 7,
        "windows": 6,
        "subjects": 3,
        "held_out_subjects": 1,
        "held_out": {"waveform_ev": 0.5, "codes_in_use_t": 0.9375},
    }
    model.save_pretrained(tmp_path / "export")
    loaded = DualTokenizer.from_pretrained(tmp_path / "export" if source == "export" else tmp_path)
    assert not loaded.training
    assert loaded.config == model.config
    assert loaded.record == model.record
    codes = loaded.encode(windows(), NAMES)
    assert torch.equal(codes.t, model.encode(windows(), NAMES).t)
    card = (tmp_path / "export" / "README.md").read_text()
    assert "| explained variance, waveform | 0.5 |" in card
    assert "| temporal codes in use | 93.8% |" in card
    assert "7 steps on 6 windows of 3 subjects" in card


def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    model = started()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "codebrain-tokenizer"
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "codebrain"}))
    with pytest.raises(ValueError, match="'codebrain', expected 'codebrain-tokenizer'"):
        DualTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "width": 64}))
    with pytest.raises(ValueError, match=r"does not fit its config\.json"):
        DualTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"released CodeBrain_Tokenizer\.pth cannot be loaded"):
        DualTokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        DualTokenizer.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("names", "seconds"),
    [(("Cz",), 1), (("Fp1-F7", "F7-T3", "C3"), 2), (("T3", "T5", "EEG FP1-REF", "FCz", "O1"), 7)],
)
def test_any_montage_and_length_in_one_model(names: tuple[str, ...], seconds: int) -> None:
    model = started()
    x = windows(3, len(names), seconds)
    assert math.isfinite(step(model, x, names))
    codes = model.encode(x, names)
    assert codes.t.shape == (3, len(names), seconds)
    restored = model.decode(codes, names)
    assert torch.isfinite(restored.waveform).all()


def test_montages_may_alternate() -> None:
    model = started()
    for names in (NAMES, ("Cz",), NAMES[:2]):
        step(model, windows(3, len(names)), names)
    assert all(parameter.grad is not None for parameter in model.parameters()), "an unused parameter breaks DDP"


def test_channels_go_by_name_not_by_place() -> None:
    model, order = started().eval(), [2, 0, 3, 1]
    codes = model.encode(windows(), NAMES)
    shuffled = model.encode(windows()[:, order], [NAMES[i] for i in order])
    assert torch.equal(shuffled.t, codes.t[:, order])


def test_old_and_new_names_are_one_electrode() -> None:
    assert torch.equal(montage_matrix(["T3", "T5"]), montage_matrix(["T7", "P7"]))
    bipolar, anode, cathode = montage_matrix(["Fp1-F7", "Fp1", "F7"])
    assert torch.equal(bipolar, anode - cathode)


@pytest.mark.parametrize(
    ("x", "names", "message"),
    [
        (windows(), ("Fp1", "C3", "Cz", "CX9"), "'CX9' is not a scalp electrode.*nearest names"),
        (windows(), NAMES[:3], "shape .* for 3 channel names"),
        (windows()[0], NAMES, "expected \\(windows, channels, samples\\)"),
        (windows(seconds=0.5), NAMES, "100 samples are 0 patches"),
        (windows(1, seconds=61), NAMES, "61 patches of 200; this model takes 1 to 60"),
    ],
)
def test_what_does_not_fit_is_said(x: Tensor, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        started().encode(x, names)


@pytest.mark.parametrize("sample", [math.nan, math.inf, -math.inf])
def test_a_sample_that_is_no_number_is_named(sample: float) -> None:
    model, x = started(), windows()
    x[2, 1, 250] = sample
    with pytest.raises(ValueError, match=f"{sample} in window 2, channel C3, at sample 250 \\(1 such"):
        model.encode(x, NAMES)
    x[2, 1, 250] = 0.0
    x = torch.nn.functional.pad(x, (0, 10), value=sample)  # behind the last whole patch, where nobody reads
    assert model.encode(x, NAMES).t.shape == (6, 4, 4)


@pytest.mark.parametrize("dtype", ["float64", "float32", ">f4", "float16"])
def test_arrays_have_the_codes_of_tensors(dtype: str) -> None:
    model, array = started(), windows().numpy().astype(dtype)
    expected = model.encode(torch.from_numpy(array.astype("float32")), NAMES)
    assert torch.equal(model.encode(array, NAMES).t, expected.t)
    backwards = np.ascontiguousarray(array[::-1])[::-1]  # negative strides, which torch does not take
    assert torch.equal(model.encode(backwards, NAMES).f, expected.f)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (windows().numpy().astype("int16"), TypeError, "x_uv holds int16; convert the signal to microvolts"),
        (windows().long(), TypeError, "x_uv holds torch.int64"),
        (windows().tolist(), TypeError, "x_uv is a list; pass a tensor or an array"),
        (windows()[:0], ValueError, "x_uv is empty, of shape \\(0, 4, 800\\)"),
        (windows()[0, 0], ValueError, "x_uv has shape \\(800,\\) for 4 channel names"),
    ],
)
def test_what_is_no_signal_is_refused(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        started().encode(x, NAMES)


def test_one_name_is_a_list_too() -> None:
    with pytest.raises(ValueError, match=r"ch_names='Cz' is one text; pass a list of names, such as \['Cz'\]"):
        started().encode(windows(1, 2), "Cz")


def odd_signals() -> dict[str, Tensor]:
    flat, clipped, step_like, huge = (windows() for _ in range(4))
    flat[:, 1] = 0.0
    clipped = clipped.clamp(-5, 5)
    step_like[:] = 40.0
    huge *= 1e4
    return {"flat channel": flat, "clipped": clipped, "constant": step_like, "huge": huge, "zero": flat * 0}


@pytest.mark.parametrize("kind", odd_signals())
@pytest.mark.parametrize("form", ["default", "published"])
def test_odd_signals_give_no_nan(kind: str, form: str) -> None:
    published = {"waveform": "raw", "amplitude": "linear", "phase": "angle", "conv_norm": "batch"}
    model = started(**(published if form == "published" else {}))
    assert math.isfinite(step(model, odd_signals()[kind]))
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    assert torch.isfinite(model.quantizer_t.book.embed).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 5}, "n_heads=5 does not divide width=32"),
        ({"conv_features": 6}, "multiple of 4"),
        ({"revive_below": 1.5}, "fraction of the mean hits"),
        *(
            ({name: 0}, f"{name}=0 must be at least 1")
            for name in ("max_patches", "width", "n_layers", "n_heads", "conv_features", "decoder_layers", "code_dim")
        ),
        ({"n_layers": -1}, "n_layers=-1 must be at least 1"),
        *(({name: 1}, f"{name}=1 must be at least 2") for name in ("patch_size", "n_codes_t", "n_codes_f")),
        *(({name: 0.0}, f"{name}=0.0 must be a number above 0") for name in ("sfreq", "mlp_ratio")),
        ({"sfreq": math.nan}, "sfreq=nan must be a number above 0"),
        *(({"decay": value}, f"decay={value} must lie between 0 and 1") for value in (0.0, 1.0, 1.5)),
        ({"waveform": "z"}, "waveform='z' is none of 'patch', 'raw'"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    "changes", [{"width": "200"}, {"width": 200.0}, {"n_layers": True}, {"decay": None}, {"linear_path": 1}]
)
def test_values_of_another_type_are_refused(changes: dict[str, Any]) -> None:
    ((name, value),) = changes.items()
    with pytest.raises(TypeError, match=f"{name}={value!r} must be of type"):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:50], "is no valid JSON"),
        (lambda text: "[1, 2]", "holds a list instead of named values"),
        (lambda text: json.dumps({**json.loads(text), "width": "32"}), "is damaged: width='32' must be of type int"),
        (lambda text: json.dumps({**json.loads(text), "n_heads": 0}), "is damaged: n_heads=0 must be at least 1"),
        (lambda text: json.dumps({**json.loads(text), "phase": ["angle"]}), "is damaged: phase=.* is none of 'vector'"),
        (lambda text: json.dumps({**json.loads(text), "record": "none"}), "is damaged: record='none' must be of type"),
    ],
)
def test_a_damaged_config_is_named(tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    make().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(damage(file.read_text()))
    with pytest.raises(ValueError, match=rf"config\.json {message}") as error:
        DualTokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_patches_are_read_one_by_one() -> None:
    embed = make().eval().encoder.embed
    patches = torch.randn(2, 3, 5, 200)
    changed = patches.clone()
    changed[1, 2, 3] += torch.randn(200)
    same = torch.isclose(embed(patches), embed(changed), atol=1e-5).all(-1)
    assert (~same).nonzero().tolist() == [[1, 2, 3]]


def test_spectrum_rows_of_a_sinusoid() -> None:
    time = torch.arange(200, dtype=torch.float64) / 200
    rows = spectrum_rows(0.3 * torch.cos(2 * torch.pi * 10 * time + 1.0)[None], torch.zeros(101))[0]
    assert rows[0].argmax() == 10
    assert torch.atan2(rows[2, 10], rows[1, 10]).item() == pytest.approx(1.0, abs=1e-6)
    assert (rows[1:].abs().sum(0) > 1e-6).nonzero().flatten().tolist() == [10], "phase without power must not show"


def test_half_precision_keeps_the_codes() -> None:
    model = started().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(windows(), NAMES)
    assert output.reconstruction.waveform.dtype == torch.float32
    assert math.isfinite(stage1_loss(output, model.targets(windows()), LossConfig())[0].item())


def test_codes_are_a_pair() -> None:
    codes_t, codes_f = codes = started().encode(windows(), NAMES)
    assert codes_t is codes.t
    assert codes_f is codes.f


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_repeating_cheap_work_in_backward_changes_no_gradient(
    monkeypatch: pytest.MonkeyPatch, precision: torch.dtype
) -> None:
    gradients = []
    for run in (transformer.lean, lambda block, x: block(x)):
        monkeypatch.setattr(transformer, "lean", run)
        model = started().train()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss, _ = stage1_loss(model(windows(), NAMES), model.targets(windows()), LossConfig())
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, expected in gradients[1].items():
        assert torch.equal(gradients[0][name], expected), name


def test_attention_keeps_its_place_of_heads_in_the_weights() -> None:
    """Queries, keys and values lie side by side, heads within each, as in a published qkv weight."""
    attention = transformer.Attention(width=12, n_heads=3)
    x = torch.randn(2, 5, 12)
    query, key, value = attention.qkv(x).view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) / 4**0.5).softmax(-1)
    torch.testing.assert_close(attention(x), attention.out((weights @ value).transpose(1, 2).flatten(2)))


def test_a_tokenizer_of_another_layout_is_said_in_a_line(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    saved = load_file(tmp_path / "codebrain.safetensors")
    del saved["encoder.trunk.norm.weight"], saved["encoder.trunk.norm.bias"]
    save_file(saved, tmp_path / "codebrain.safetensors")
    with pytest.raises(
        ValueError, match=r"norm.weight is missing and 1 more like it. It was written by another"
    ) as said:
        DualTokenizer.from_pretrained(tmp_path)
    assert len(str(said.value)) < 400 + len(str(tmp_path))
