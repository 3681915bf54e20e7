"""BCI Competition IV, data set 2a (Tangermann et al. 2012): four imagined movements, 9 subjects on two days.

The MATLAB files of the BNCI Horizon project: a list of runs, each with the signal X (samples x 25 channels, the last
three EOG), the first sample of each trial and its class y; the cue comes two seconds into the trial.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.io
from scipy.signal import butter, lfilter

from data_prep.clean import CleanConfig
from data_prep.corpora import Source
from data_prep.read import Annotation, Readable, UnusableError, faults_of
from data_prep.recipe import Recipe
from data_prep.tasks.arrays import ArrayRecording, check_shape, load_mat
from data_prep.tasks.base import NO_FILTER, About, DataSet, Stretch, Trap, marked, side, with_part

_SFREQ, _CUE, _BAND = 250.0, 2.0, (0.3, 40.0)  # Hz, seconds, Hz
_N_RUNS = 6  # the last of a file; those before them record eye movements, three in most files
_CHANNELS = """
    Fz FC3 FC1 FCz FC2 FC4 C5 C3 C1 Cz C2 C4 C6 CP3 CP1 CPz CP2 CP4 P1 Pz P2 POz
"""


@dataclass(frozen=True, kw_only=True)
class BcicIv2a(DataSet):
    """Four imagined movements, a window of 4 s from each cue, split by subject: 1-5, 6-7, 8-9."""

    about: ClassVar = About(
        name="bcic_iv_2a",
        title="BCI Competition IV 2a",
        url="https://bnci-horizon-2020.eu/database/data-sets",
        layout="A01T.mat   data: runs with X (samples x 25), trial, y\nA01E.mat\n... to A09E.mat",
        class_names=("left hand", "right hand", "feet", "tongue"),
        subjects=9,
        windows=5_088,
        seconds=4.0,
        native="250 Hz",
        channels=tuple(_CHANNELS.split()),
        clean=CleanConfig(sfreq=200.0, l_freq=_BAND[0], h_freq=_BAND[1], notch=None, order="filter_first"),
        reference="average",
        split="subjects 1-5 / 6-7 / 8-9",
        traps=(
            Trap(
                name="lost_runs",
                published="the first three runs of a file are skipped as eye movements, but A04T has only one such "
                "run, so two runs of subject 4 are lost",
                corrected="the last six runs of a file count",
            ),
            Trap(
                name="causal_per_trial",
                published="each trial is filtered by itself with a causal Butterworth filter, which starts with a "
                "transient and delays low frequencies",
                corrected="each run is filtered as a whole, without delay",
                repeatable=False,
            ),
        ),
        note="5,088 windows as published and 5,184 as corrected: so count third parties who repeated the preparation, "
        "and 18 files of 6 runs of 48 trials give as much.",
    )

    def recipe(self) -> Recipe:
        """As published the filter is part of reading: it knows the trials."""
        recipe = super().recipe()
        return dataclasses.replace(recipe, clean=NO_FILTER) if self.keeps("causal_per_trial") else recipe

    def sources(self, path: str) -> list[Source]:
        """The runs of each file, every run a recording of its own."""
        sources = []
        for match, source in self.find(path, r"(?P<subject>A(?P<number>\d\d))(?P<day>[TE])\.mat"):
            n_runs = self._n_runs(Path(source.file))
            part = side(int(match["number"]) - 1, 5, 7)
            for run in range(3 if self.keeps("lost_runs") else n_runs - _N_RUNS, n_runs):
                key = f"{source.key}#{run}"
                sources.append(with_part(dataclasses.replace(source, key=key, session=f"{match['day']}{run}"), part))
        return sources

    def open(self, source: Source, recipe: Recipe) -> Readable:
        """One run, with its trials as marks."""
        path = Path(source.file)
        run = np.ravel(load_mat(path, "data")[0])[int(source.session[1:])]
        x = check_shape(run.X, (None, 25), "samples x channels at 250 Hz")[:, : len(self.about.channels)].T
        trials, labels = np.atleast_1d(run.trial).astype(int), np.atleast_1d(run.y).astype(int)
        if not len(trials):
            raise UnusableError("a run without trials")
        if self.keeps("causal_per_trial"):
            x = _filtered(x, trials.tolist())
        marks = [
            Annotation(onset=float(trial / _SFREQ) + _CUE, duration=4.0, text=self.about.class_names[label - 1])
            for trial, label in zip(trials, labels, strict=True)
        ]
        return ArrayRecording(path, x, labels=self.about.channels, sfreq=_SFREQ, marks=marks)

    def stretches(self, source: Source, recording: Readable) -> Iterable[Stretch]:
        """Four seconds from each cue."""
        return marked(recording, self.about.class_names)

    def _n_runs(self, path: Path) -> int:
        with faults_of(path, "cannot be read as a MATLAB file"):
            variables = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
        if "data" not in variables:
            raise ValueError(f"{path} holds no variable `data`. {self.about.expected()}")
        return int(np.prod(variables["data"]))


def _filtered(x: npt.NDArray[Any], trials: Sequence[int]) -> npt.NDArray[np.float64]:
    """(C, T) with every trial, from its first sample to the next trial's, filtered by itself and causally."""
    b, a = butter(5, _BAND, btype="band", fs=_SFREQ)
    y = np.array(x, dtype=np.float64)
    for start, stop in zip(trials, [*trials[1:], x.shape[1]], strict=True):
        y[:, start:stop] = lfilter(b, a, y[:, start:stop], axis=1)
    return y
