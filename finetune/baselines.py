"""What a foundation model has to beat: classical features and a linear model, on the same splits.

Log band power: the mean power spectral density of each channel in five bands, in log10 of microvolts^2 / Hz.
Tangent space: the covariance of the channels, mapped to the tangent space of the covariance matrices at their
Riemannian mean (Barachant et al. 2012, IEEE Trans. Biomed. Eng. 59, 920-928), by pyriemann.

Both go through a standard scaler and logistic regression (ridge for a regression); its strength is the one with the
best validation figure, as for a network, and the test windows are looked at afterwards. What comes of a fold is kept in
a folder as that of a trial is, so that a run that was killed does not compute it again.

Shape letters: n windows, C channels, T samples, F features.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import welch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from codebrain.data.format import write_text
from codebrain.data.windows import WindowDataset
from codebrain.training.launch import Run
from codebrain.training.logging import as_json
from codebrain.training.sampling import eval_batches
from finetune import metrics
from finetune.config import Baseline
from finetune.data import Data
from finetune.metrics import Predictions
from finetune.splits import Fold, Splits, Windows
from finetune.task import ClassWeights, Task
from finetune.trial import Result, predictions_file

Floats = npt.NDArray[np.float64]

BANDS_HZ = {"delta": (1, 4), "theta": (4, 8), "alpha": (8, 13), "beta": (13, 30), "gamma": (30, 45)}
"""Edges in Hz; the lower one belongs to the band."""

STRENGTHS = tuple(10.0**power for power in range(-5, 3))
"""Inverse strengths of the penalty that are tried on validation."""

_WELCH_SECONDS = 2.0
_FLOOR = 1e-6

_STILL = 1e-6
"""Share of the usual variance below which a window is of a disconnected amplifier."""


def require(names: list[Baseline]) -> None:
    """Raise ValueError if a baseline needs a package that is not installed."""
    if "tangent_space" in names and importlib.util.find_spec("pyriemann") is None:
        raise ValueError("--baseline tangent_space needs pyriemann: `pip install pyriemann`, or leave the baseline out")


def log_band_power(windows_uv: npt.NDArray[np.floating], sfreq: float) -> Floats:
    """Log10 of the mean power spectral density per channel and band.

    Parameters
    ----------
    windows_uv : (n, C, T) float
        Microvolts.
    sfreq : float
        Hz.

    Returns
    -------
    (n, C * 5) float64
        log10(microvolts^2 / Hz), the bands of a channel side by side.
    """
    length = min(windows_uv.shape[-1], int(_WELCH_SECONDS * sfreq))
    frequency, density = welch(windows_uv.astype(np.float64), fs=sfreq, nperseg=length, axis=-1)
    bands = [density[..., (frequency >= low) & (frequency < high)].mean(-1) for low, high in BANDS_HZ.values()]
    return np.log10(np.stack(bands, axis=-1) + _FLOOR).reshape(len(windows_uv), -1)


def covariance(windows_uv: npt.NDArray[np.floating], sfreq: float) -> Floats:
    """Covariance of the channels, shrunk as Chen et al. 2010 (OAS), flattened: (n, C * C) microvolts^2."""
    from pyriemann.estimation import Covariances

    return Covariances(estimator="oas").transform(windows_uv.astype(np.float64)).reshape(len(windows_uv), -1)


def features(name: Baseline, dataset: WindowDataset, batch_size: int = 256) -> Floats:
    """Features (n, F) of every window of a store, row i being window i."""
    compute: Callable[..., Floats] = {"band_power": log_band_power, "tangent_space": covariance}[name]
    sfreq = dataset.stores[0].info.sfreq
    parts = {int(b.window[0]): compute(b.x.numpy(), sfreq) for b in eval_batches(dataset, batch_size)}
    values = np.concatenate([parts[first] for first in sorted(parts)])
    return _lifted(values) if name == "tangent_space" else values


def _lifted(covariances: Floats) -> Floats:
    """Covariances (n, C * C), those of windows that do not move, which have no logarithm, very small instead."""
    matrices = _as_matrices(covariances)
    variance = np.trace(matrices, axis1=1, axis2=2) / matrices.shape[1]
    moving = variance[variance > 0]
    floor = _STILL * (np.median(moving) if len(moving) else 1.0)
    still = (variance < floor)[:, None, None]
    return np.where(still, floor * np.eye(matrices.shape[1]), matrices).reshape(covariances.shape)


def execute(run: Run, name: Baseline, data: Data, made: Splits, class_weights: ClassWeights) -> list[Result]:
    """Train and judge a baseline on every fold; what an earlier launch has done is read."""
    results, values = [], None
    for number, fold in enumerate(made.folds):
        path = run.path / name / f"fold-{number}"
        if not (path / "summary.json").exists():
            if values is None:
                run.say(f"baseline {name} ...")
                values = features(name, data.dataset)
            predictions, facts = predict(name, values, data.task, data.windows, fold, class_weights)
            path.mkdir(parents=True, exist_ok=True)
            for side, found in predictions.items():
                found.save(predictions_file(path, side))
            write_text(path / "summary.json", as_json(facts, indent=1) + "\n")
        results.append(Result.read(path, number, 0, fold.judged))
    return results


def predict(
    name: Baseline, values: Floats, task: Task, windows: Windows, fold: Fold, class_weights: ClassWeights
) -> tuple[dict[str, Predictions], dict[str, Any]]:
    """Train on the fold's training windows, choose the strength on validation, predict.

    Returns
    -------
    predictions : dict
        For `valid`, and `test` where there is one.
    facts : dict
        The strength that was chosen, and seconds.
    """
    started = time.monotonic()
    scaled = _scaler(name).fit(values[fold.train])
    train = scaled.transform(values[fold.train])
    sides = {side: (ids := getattr(fold, side), scaled.transform(values[ids])) for side in fold.judged}
    judged = []
    for strength in STRENGTHS:
        model = _linear(task, strength, class_weights)
        with warnings.catch_warnings():
            # The weakest penalties may stop before they converge; they are then rarely the best on validation.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train, windows.label[fold.train])
        valid = _predictions(model, task, windows, *sides["valid"])
        judged.append((metrics.score(task.kind, valid)[task.selection], strength, model))
    figure, strength, model = max(judged, key=lambda entry: entry[0])
    predictions = {side: _predictions(model, task, windows, *entry) for side, entry in sides.items()}
    seconds = round(time.monotonic() - started, 2)
    return predictions, {"C": strength, f"valid_{task.selection}": figure, "seconds": seconds}


def _scaler(name: Baseline) -> Any:
    """From features to what the linear model sees; it depends on the training windows and on no strength."""
    if name != "tangent_space":
        return StandardScaler()
    from pyriemann.tangentspace import TangentSpace
    from sklearn.preprocessing import FunctionTransformer

    return make_pipeline(FunctionTransformer(_as_matrices), TangentSpace(), StandardScaler())


def _linear(task: Task, strength: float, class_weights: ClassWeights) -> Any:
    if task.kind == "regression":
        return Ridge(alpha=1 / strength)
    weight = "balanced" if class_weights == "balanced" else None
    return LogisticRegression(C=strength, class_weight=weight, max_iter=1000)


def _as_matrices(flat: Floats) -> Floats:
    size = round(flat.shape[1] ** 0.5)
    return flat.reshape(-1, size, size)


def _predictions(model: Any, task: Task, windows: Windows, rows: npt.NDArray[np.int64], values: Floats) -> Predictions:
    # Every class has a training example, so the columns of probabilities are the classes.
    score = model.predict(values)[:, None] if task.kind == "regression" else model.predict_proba(values)
    return Predictions(window=rows, subject=windows.subject[rows], label=windows.label[rows], score=score)
