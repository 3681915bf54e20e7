"""CodeBrainFeatures in scikit-learn's hands."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from codebrain.model import CodeBrain
from finetune import CodeBrainFeatures, features
from finetune.classifier import backbone_features

SIZES = {"num_res_layers": 1, "res_channels": 8, "skip_channels": 8, "out_channels": 8}


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    CodeBrain(**SIZES).save_pretrained(folder / "export")
    return str(folder)


def make_windows(n=24, sfreq=200, seed=0):
    """Windows (n, 3, 2 s) in microvolts; every second one has a rhythm."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    x = rng.normal(0, 10, (n, 3, 2 * sfreq))
    return x + 40 * label[:, None, None] * np.sin(2 * np.pi * 10 * np.arange(2 * sfreq) / sfreq), label


def test_features_are_those_of_the_backbone(ckpt):
    x, _ = make_windows(7)
    with torch.no_grad():
        expected = backbone_features(CodeBrain.from_pretrained(ckpt).backbone, torch.from_numpy(x).float()).numpy()
    for pooling, values in (
        ("window", expected.mean((1, 2))),
        ("channel", expected.mean(2).reshape(7, -1)),
        ("patch", expected.reshape(7, -1)),
    ):
        found = CodeBrainFeatures(ckpt, pooling=pooling, batch_size=3).fit_transform(x)
        np.testing.assert_allclose(found, values, atol=1e-5)


def test_it_works_in_a_pipeline_under_cross_validation(ckpt):
    x, label = make_windows(32)
    model = make_pipeline(CodeBrainFeatures(ckpt, pooling="patch"), LogisticRegression(max_iter=500))
    scores = cross_val_score(model, x, label, groups=np.arange(32) // 8, cv=GroupKFold(4), scoring="roc_auc")
    assert scores.mean() > 0.8


def test_it_can_be_cloned_pickled_and_asked_for_its_parameters(ckpt):
    features = CodeBrainFeatures(ckpt, sfreq=250, ch_names=["Fz", "Cz", "Pz"], pooling="channel", batch_size=5)
    parameters = {
        "ckpt": ckpt, "sfreq": 250, "ch_names": ["Fz", "Cz", "Pz"], "pooling": "channel", "batch_size": 5,
        "device": "auto",
    }  # fmt: skip
    assert clone(features).get_params() == features.get_params() == parameters
    x, _ = make_windows(4, sfreq=250)
    fitted = features.fit(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(x), fitted.transform(x))


def test_windows_of_another_rate_are_resampled_to_their_very_ends(ckpt, monkeypatch):
    """Slow waves on an offset, as without a high-pass: the model must see them as if recorded at its own rate."""

    def waves(sfreq):
        time = np.arange(int(2 * sfreq)) / sfreq
        return np.stack([30 + 20 * np.sin(2 * np.pi * f * time + f) for f in (0.7, 3, 11)])[None]

    seen = []
    monkeypatch.setattr(
        features, "backbone_features", lambda backbone, x: (seen.append(x), backbone_features(backbone, x))[1]
    )
    for sfreq in (250, 512, 1000):
        CodeBrainFeatures(ckpt, sfreq=sfreq).fit(waves(sfreq))
        np.testing.assert_allclose(seen[-1].numpy(), waves(200), atol=0.3)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, lambda x: x * 1e-6, "median standard deviation is .* multiply by 1e6"),
        ({}, lambda x: x[0], "expected windows"),
        ({}, lambda x: np.where(x > 0, np.nan, x), "no numbers"),
        ({}, lambda x: x[..., :150], "shorter than a patch of 200 samples"),
        ({"ch_names": ["Fz", "Cz"]}, lambda x: x, "2 ch_names for windows of 3 channels"),
        ({"ch_names": ["Fz", "Cz", "Fq"]}, lambda x: x, "'Fq' is not a scalp electrode"),
        ({"pooling": "all"}, lambda x: x, "allowed are window, channel and patch"),
        ({"device": "nowhere"}, lambda x: x, "--device nowhere cannot be used"),
    ],
)
def test_what_is_no_eeg_in_microvolts_is_refused(ckpt, options, change, message):
    with pytest.raises(ValueError, match=message):
        CodeBrainFeatures(ckpt, **options).fit(change(make_windows()[0]))


def test_windows_of_another_shape_than_those_of_fit_are_refused(ckpt):
    x, _ = make_windows()
    with pytest.raises(ValueError, match="2 channels x 400 samples; those of fit had 3 x 400"):
        CodeBrainFeatures(ckpt).fit(x).transform(x[:, :2])


def test_what_comes_later_may_be_flat_and_not_in_another_unit(ckpt):
    x, _ = make_windows(4)
    fitted = CodeBrainFeatures(ckpt).fit(x)
    assert np.isfinite(fitted.transform(np.zeros_like(x[:1]))).all(), "one disconnected window is no mistake"
    with pytest.raises(ValueError, match="give both in microvolts"):
        fitted.transform(x * 1e-6)


def test_the_columns_have_names(ckpt):
    x, _ = make_windows(4)
    fitted = CodeBrainFeatures(ckpt, pooling="channel").fit(x)
    names = fitted.get_feature_names_out()
    assert len(names) == fitted.transform(x).shape[1]
    assert names[0] == "codebrainfeatures0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sfreq": 0}, "sfreq is 0; it must be a number above 0"),
        ({"sfreq": None}, "sfreq is None; it must be a number above 0"),
        ({"batch_size": 0}, "batch_size is 0; it must be"),
        ({"ch_names": ["Fz", "Cz", "Fz"]}, "channel Fz is named twice"),
        ({"ckpt": "none"}, "random weights, others at every fit"),
    ],
)
def test_parameters_that_make_no_sense_are_named(ckpt, options, message):
    with pytest.raises(ValueError, match=message):
        CodeBrainFeatures(**({"ckpt": ckpt} | options)).fit(make_windows(4)[0])
