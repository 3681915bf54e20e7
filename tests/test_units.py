"""Units, sampling rates and NaN at every door of every model, and no false alarm on what is EEG."""

import copy
import warnings
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from codebrain import EEGSSM, BackboneConfig, CodeBrain, MaskedTokenModel
from codebrain.data.format import Store
from codebrain.data.windows import Request, WindowDataset
from codebrain.patches import UnitWatch, deviations, patchify
from codebrain.units import EEG_UV, wrong_unit
from data_prep import cli as prep_cli
from data_prep.probe import GuardConfig
from finetune import CodeBrainFeatures
from finetune import classifier as classifier_folder
from finetune.classifier import Classifier, Contract
from finetune.heads import Head, HeadConfig
from finetune.task import Task
from tests.processes import ROOT
from tokenizer import DualTokenizer, TokenizerConfig

NAMES = ["Fz", "Cz", "Pz"]
SMALL = {"num_res_layers": 1, "res_channels": 8, "skip_channels": 8, "out_channels": 8, "s4_lmax": 8}
SIZES = {"width": 8, "n_layers": 1, "n_heads": 2, "conv_features": 4, "decoder_layers": 1, "code_dim": 4}


def make_eeg(n=4, n_chans=3, seconds=2.0, uv=20.0, seed=0):
    """Windows (n, C, T) of noise with such a standard deviation, at 200 Hz."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(uv * rng.standard_normal((n, n_chans, round(200 * seconds)))).float()


def load_classifier(folder: Path, kind="linear", n_patches=2):
    head = Head(HeadConfig(kind=kind, n_chans=3, n_patches=n_patches, width=8, n_outputs=1))
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    task = Task(name="toy", protocol="", kind="binary", class_names=("rest", "count"))
    contract = Contract(task=task, ch_names=tuple(NAMES), n_times=200 * n_patches, sfreq=200.0)
    classifier_folder.save(folder, Classifier(EEGSSM(BackboneConfig(**SMALL)), head), contract, card="")
    return classifier_folder.load(folder)[0]


def make_tokenizer():
    torch.manual_seed(0)
    return DualTokenizer(TokenizerConfig(n_codes_t=5, n_codes_f=5, codebook_start="random", **SIZES))


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ckpt")
    CodeBrain(**SMALL).save_pretrained(folder)
    return str(folder)


# --- amplitudes ------------------------------------------------------------------------------------------------------


def amplitudes(x, patch_size=200):
    return deviations(patchify(x, patch_size))


@pytest.mark.parametrize("factor", [1e-6, 1e-3])
@pytest.mark.parametrize(("n", "n_chans", "seconds"), [(1, 1, 1), (1, 3, 2), (64, 19, 10)])
@pytest.mark.parametrize("uv", [5, 20, 80])
def test_volts_and_millivolts_are_found(n, n_chans, seconds, uv, factor):
    x = make_eeg(n, n_chans, seconds, uv)
    assert wrong_unit(amplitudes(x)) == ""
    assert "by 1e6 and millivolts by 1e3" in wrong_unit(amplitudes(factor * x))
    x[0, :, :100] += 3000 * factor  # a jump in one patch of each channel
    assert wrong_unit(amplitudes(factor * x)) or x.numel() // 200 < 10


def test_counts_and_forgotten_hundreds_are_found():
    assert "nanovolts by 1e-3, and the counts" in wrong_unit(amplitudes(1e3 * make_eeg()))
    assert "Divide microvolts by 100" in wrong_unit(amplitudes(make_eeg()), unit_uv=100)


@pytest.mark.parametrize(
    "x",
    [
        make_eeg() + 3e5,  # a coupling without high-pass
        make_eeg()[:1, :1, :200],
        torch.zeros(2, 3, 400),
        torch.full((2, 3, 400), 1e4 / 3),  # flat, on an offset that float32 rounds
        1e-9 * make_eeg(),  # what filters leave of it
        make_eeg() * torch.tensor([0.0, 0.0, 1.0])[:, None],
        make_eeg(8) * torch.tensor([1e-4] * 7 + [1.0])[:, None, None],  # one window of eight was connected
        make_eeg() * torch.tensor([400.0, 1.0, 1.0])[:, None],  # an electrode that was not
        100 * torch.nn.functional.layer_norm(make_eeg(), (400,)),  # standardised, as CodeBrain sees it
    ],
)
def test_what_eeg_can_be_is_no_alarm(x):
    assert wrong_unit(amplitudes(x)) == ""


def test_the_limits_are_those_of_the_preparation():
    assert (GuardConfig().min_uv, GuardConfig().max_uv) == EEG_UV


def test_deviations_are_those_of_patches_spread_over_the_batch():
    x = make_eeg(50, 7, 3.2).double()
    expected = x[..., :600].reshape(50, 7, 3, 200).std(-1, correction=0).flatten().numpy()
    found = deviations(patchify(x, 200))
    np.testing.assert_allclose(found, expected[:: 1050 // 256], rtol=1e-9)
    np.testing.assert_allclose(deviations(patchify(x[:2], 200)), expected[:42], rtol=1e-9)


def subjects_windows(eeg_folder, n=3):
    """Windows (m, 19, 10 s) in microvolts of real recordings at rest, resampled by MNE."""
    parts = []
    for subject in range(n):
        raw = mne.io.read_raw_edf(eeg_folder / f"eegmat/Subject{subject:02}_1.edf", preload=True, verbose="error")
        raw.pick(raw.ch_names[:19]).resample(200, verbose="error")
        x = 1e6 * raw.get_data()
        parts.append(x[:, : x.shape[1] // 2000 * 2000].reshape(19, -1, 2000).transpose(1, 0, 2))
    return torch.from_numpy(np.concatenate(parts)).float()


@pytest.mark.real
def test_every_real_window_alone_is_eeg_and_in_volts_and_millivolts_is_not(eeg_folder):
    for x in subjects_windows(eeg_folder):
        found = amplitudes(x[None])
        assert wrong_unit(found) == ""
        for factor in (1e-6, 1e-3):
            assert wrong_unit(factor * found), factor
            assert wrong_unit(factor * found / 100, unit_uv=100), factor


@pytest.mark.real
def test_no_window_of_a_real_store_is_an_alarm(eeg_folder, tmp_path, monkeypatch):
    """Nor one of its channels alone. eegmat as a whole is left to the test above."""
    config = ["--config", str(ROOT / "data_prep/configs/small.yaml"), "--workers", "1"]
    paths = [str(eeg_folder / "eegmmidb"), *(str(eeg_folder / f"eegmat/Subject{n:02}_2.edf") for n in range(8))]
    monkeypatch.setattr("sys.argv", ["codebrain-prep", "corpus", *paths, "--output", str(tmp_path / "store"), *config])
    with pytest.raises(SystemExit, match="0"):
        prep_cli.main()
    dataset = WindowDataset([Store.open(tmp_path / "store")])
    assert len(dataset) > 40
    for window in dataset.ids():
        x = dataset[Request(np.array([window]))].x
        assert wrong_unit(amplitudes(x)) == ""
        assert not any(wrong_unit(amplitudes(channel[None, None])) for channel in x[0])


# --- doors that refuse -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["encode", "encode an array", "classifier", "sequences", "features"])
def refuses(request, tmp_path, ckpt):
    """A door that takes microvolts and refuses volts."""
    if request.param.startswith("encode"):
        model = make_tokenizer()
        return lambda x: model.encode(x.numpy() if "array" in request.param else x, NAMES)
    if request.param == "features":
        return lambda x: CodeBrainFeatures(ckpt).fit_transform(x.numpy())
    model = load_classifier(tmp_path, "sequence" if request.param == "sequences" else "linear")
    return lambda x: model(x[None] if request.param == "sequences" else x)


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3])
def test_a_door_refuses_what_is_not_in_microvolts(refuses, factor):
    x = make_eeg()
    refuses(x)
    with pytest.raises(ValueError, match="microvolts"):
        refuses(factor * x)
    refuses(x)


def test_a_window_of_a_disconnected_amplifier_passes_where_it_is_known_to_be_one(tmp_path):
    quiet = 1e-4 * make_eeg()
    tokenizer, classifier = make_tokenizer(), load_classifier(tmp_path)
    for door in (lambda **known: tokenizer.encode(quiet, NAMES, **known), lambda **known: classifier(quiet, **known)):
        with pytest.raises(ValueError, match="wrong unit"):
            door()
        door(prepared=True)


def test_a_flat_window_passes(refuses):
    x = make_eeg()
    x[1] = 0
    refuses(x)


def test_later_windows_in_millivolts_are_refused_by_features(ckpt):
    x = make_eeg().numpy()
    fitted = CodeBrainFeatures(ckpt).fit(x)
    fitted.transform(0.1 * x)
    for factor in (1e-3, 1e-6):
        with pytest.raises(ValueError, match=r"give both in microvolts \(volts \* 1e6, millivolts \* 1e3\)"):
            fitted.transform(factor * x)


# --- doors that warn -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["codebrain", "features", "masked", "tokenizer", "centre"])
def warns(request):
    """A door that takes microvolts and warns of volts; every call is to the same model."""
    if request.param in ("tokenizer", "centre"):
        model = make_tokenizer()
        return lambda x: model(x, NAMES) if request.param == "tokenizer" else model.centre([x])
    if request.param == "masked":
        model = MaskedTokenModel(5, 5, **SMALL)
        return lambda x: model(x / 100)
    model = CodeBrain(n_outputs=2, n_chans=3, n_times=400, **SMALL)
    return lambda x: model(x / 100, return_features=request.param == "features")


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3])
def test_a_door_warns_once(warns, factor):
    x = make_eeg()
    with pytest.warns(UserWarning, match=r"wrong unit\? The model takes microvolts"):
        warns(factor * x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            warns(factor * x)


def test_standardised_and_flat_windows_are_no_reason_to_warn(warns):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warns(100 * torch.nn.functional.layer_norm(make_eeg(), (400,)))
        warns(torch.zeros(2, 3, 400))


def test_a_watch_looks_at_the_first_pass_and_ever_less_often():
    watch, x = UnitWatch(1.0), patchify(make_eeg(), 200)
    looked = []
    for number in range(1, 40):
        again = copy.deepcopy(watch)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            again.look(1e-6 * x)
        looked += [number] if found else []
        watch.look(x)
    assert looked == [1, 2, 4, 8, 16, 32]


def test_a_compiled_or_exported_model_has_no_such_check():
    model, x = CodeBrain(n_outputs=2, n_chans=3, n_times=400, **SMALL).eval(), 1e-6 * make_eeg()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", UserWarning)
        torch.compile(model, fullgraph=True, backend="aot_eager")(x)
        torch.export.export(model, (x,))


def test_functions_of_a_model_can_be_transformed():
    model, x = CodeBrain(n_outputs=2, n_chans=3, n_times=400, **SMALL).eval(), make_eeg() / 100
    found = torch.func.grad(lambda x: model(x).square().sum())(x)
    (expected,) = torch.autograd.grad(model(x.requires_grad_()).square().sum(), x)
    torch.testing.assert_close(found, expected)


def test_no_value_is_read_on_a_device():
    """The meta device stands for one: it has no values."""
    patches = patchify(1e-6 * make_eeg(), 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        UnitWatch(1.0).look(patches.to("meta"))
    with pytest.warns(UserWarning, match="wrong unit"):
        UnitWatch(1.0).look(patches)


# --- sampling rates --------------------------------------------------------------------------------------------------


def shape(**options):
    return {"n_outputs": 2, "n_chans": 3, **SMALL, **options}


@pytest.mark.parametrize("rate", [{"sfreq": 128, "n_times": 400}, {"n_times": 512, "input_window_seconds": 4.0}])
def test_a_new_model_whose_patch_is_not_a_second_says_so(rate):
    with pytest.warns(UserWarning, match=r"lasts 1\.56 s.*resample to 200 Hz or.*pass patch_size=128"):
        CodeBrain(**shape(**rate))


@pytest.mark.parametrize(
    "rate",
    [
        {"n_times": 400},
        {"sfreq": 200, "n_times": 400},
        {"n_times": 401, "input_window_seconds": 2.0},  # MNE's epochs have both ends
        {"sfreq": 128, "patch_size": 128, "n_times": 512},
    ],
)
def test_a_patch_of_a_second_is_no_reason_to_warn(rate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CodeBrain(**shape(**rate))


@pytest.mark.parametrize("rate", [{"sfreq": 128}, {"n_times": 512, "input_window_seconds": 4.0}, {"sfreq": 250}])
@pytest.mark.parametrize("saved", [{}, {"sfreq": 200, "n_times": 400, "n_outputs": 2, "n_chans": 3}])
@pytest.mark.parametrize("kind", [CodeBrain, MaskedTokenModel])
def test_trained_weights_take_data_of_their_rate_only(tmp_path, rate, saved, kind):
    CodeBrain(**SMALL, **saved).save_pretrained(tmp_path)
    given = {name: value for name, value in rate.items() if kind is CodeBrain or name == "sfreq"} or {"sfreq": 128}
    with pytest.raises(ValueError, match=r"weights were trained at 200 Hz.*Resample the data to 200 Hz"):
        kind.from_pretrained(tmp_path, **given)
    kind.from_pretrained(tmp_path, sfreq=200)
    CodeBrain.from_pretrained(tmp_path, n_outputs=2, n_chans=3, n_times=401, input_window_seconds=2.0)


def test_a_checkpoint_that_was_saved_with_another_rate_keeps_it(tmp_path, ckpt):
    with pytest.warns(UserWarning, match="lasts"):
        CodeBrain(**shape(sfreq=128, n_times=400)).save_pretrained(tmp_path / "own")
    model = CodeBrain(**SMALL)
    preparation = {"clean": {"sfreq": 128.0}}
    model.record = {"stores": [{"windows": 9, "window_seconds": 4.0, "preparation": preparation}]}
    model.save_pretrained(tmp_path / "record")
    for folder in ("own", "record"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nobody can change the weights any more
            CodeBrain.from_pretrained(tmp_path / folder, sfreq=128, n_times=400)
        with pytest.raises(ValueError, match="trained at 128 Hz"):
            CodeBrain.from_pretrained(tmp_path / folder, sfreq=200)
        with pytest.raises(ValueError, match=r"at 128 Hz on patches of 200 samples, that is 1\.5625 s"):
            CodeBrainFeatures(str(tmp_path / folder)).fit(make_eeg().numpy())


def test_windows_of_another_rate_are_betrayed_by_their_length(tmp_path):
    at_250 = make_eeg(seconds=2.5)
    bound = load_classifier(tmp_path / "bound")
    assert bound(at_250, prepared=True).shape == (4, 1), "two patches fit"
    with pytest.raises(
        ValueError, match=r"500 samples.*trained on 400, 2 s at 200 Hz. If they are 2 s at 250 Hz, resam"
    ):
        bound(at_250)
    free = load_classifier(tmp_path / "free", "mean")
    with pytest.warns(UserWarning, match="500 samples.*at 250 Hz, resample them; otherwise nothing is wrong") as found:
        free(at_250), free(at_250)
    assert len(found) == 1
    tokenizer = make_tokenizer()
    with pytest.warns(UserWarning, match=r"last 100 samples.*not sampled at 200 Hz, resample them") as found:
        tokenizer.encode(at_250, NAMES), tokenizer.encode(at_250, NAMES)
    assert len(found) == 1
    model = CodeBrain(**shape(n_times=400)).eval()
    with pytest.warns(UserWarning, match=r"windows of 500 samples for a classifier.*built for 400.*resample") as found:
        model(at_250 / 100), model(at_250 / 100)
    assert len(found) == 1


# --- NaN and infinity ------------------------------------------------------------------------------------------------


def break_weights(folder: Path, name: str, value: float) -> None:
    """Put a value among the weights of a saved model."""
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    (full,) = (key for key in tensors if key.endswith(name))
    tensors[full].view(-1)[0] = value
    save_file(tensors, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_every_loader(tmp_path, value):
    CodeBrain(**shape(n_times=400)).save_pretrained(tmp_path / "codebrain")
    MaskedTokenModel(5, 5, **SMALL).save_pretrained(tmp_path / "masked")
    load_classifier(tmp_path / "linear")
    load_classifier(tmp_path / "mlp", "mlp")
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    loaders = {
        "codebrain": (CodeBrain.from_pretrained, "final_layer.7.bias"),
        "masked": (MaskedTokenModel.from_pretrained, "blocks.0.skip_conv.bias"),
        "linear": (classifier_folder.load, "head.classify.1.bias"),
        "mlp": (classifier_folder.load, "final_layer.4.weight"),
        "tokenizer": (DualTokenizer.from_pretrained, "to_code_t.0.bias"),
    }
    for folder, (load, name) in loaders.items():
        load(tmp_path / folder)
        break_weights(tmp_path / folder, name, value)
        with pytest.raises(ValueError, match=rf"safetensors: .*{name} holds 1 NaN or infinite values of \d+.*earlier"):
            load(tmp_path / folder)


def test_signals_that_are_not_finite_are_refused(refuses):
    x = make_eeg()
    x[2, 1, 7] = torch.nan
    with pytest.raises(ValueError, match=r"nan in window 2, channel Cz, at sample 7|no numbers"):
        refuses(x)


def test_outputs_that_are_not_finite_are_refused(refuses, monkeypatch):
    """Of finite weights and samples; float32 has an end."""
    monkeypatch.setattr(EEGSSM, "forward", lambda self, patches, mask=None: patches[..., :8] / 0)
    monkeypatch.setattr("tokenizer.model.Encoder.forward", lambda self, patches, montage: patches[..., :8] / 0)
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        refuses(make_eeg())
