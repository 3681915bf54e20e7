"""EEG During Mental Arithmetic Tasks 1.0.0 (Zyma et al. 2019, PhysioNet `eegmat`): counting against rest.

36 subjects with two EDF files each: SubjectNN_1.edf is rest (about 180 s), SubjectNN_2.edf the first minute of serial
subtraction. The files are already filtered (0.5 to 45 Hz, 50 Hz notch) and freed of artefacts by their authors.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from codebrain.channels import TEN_TWENTY_19
from codebrain.config import to_dict
from codebrain.data.format import SPLITS, TaskInfo
from data_prep.clean import Chain, CleanConfig
from data_prep.corpora import Source, find_recordings
from data_prep.montage import MontageConfig
from data_prep.read import OpenRecording
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig, WindowPlan, grid

CLASS_NAMES = ("rest", "counting")
_NAME = re.compile(r"Subject(\d\d)_([12])\.edf$", re.IGNORECASE)
# The published split counts 72 files in the order of their names, 56 / 8 / 8.
_FIRST_VALID, _FIRST_TEST = 28, 32
_PUBLISHED_ORDER = "Fp1 Fp2 F3 F4 F7 F8 T7 T8 C3 C4 P7 P8 P3 P4 O1 O2 Fz Cz Pz A2-A1"


@dataclass(frozen=True, kw_only=True)
class MentalArithmetic:
    """Counting against rest, in windows of 5 s, split as published: subjects 0-27, 28-31, 32-35."""

    protocol: Literal["published", "corrected"] = "corrected"
    """`published`: 20 channels, among them A2-A1, which is no scalp channel; `corrected`: the 19 electrodes, in the
    order of the pre-training corpus."""

    def info(self) -> TaskInfo:
        """What the labels mean."""
        return TaskInfo(name="mental_arithmetic", protocol=self.protocol, class_names=CLASS_NAMES, has_split=True)

    def recipe(self) -> Recipe:
        """Resampled and cut, nothing else: the same windows in both protocols, so that figures compare."""
        names = _PUBLISHED_ORDER.split() if self.protocol == "published" else list(TEN_TWENTY_19)
        return Recipe(
            channels=MontageConfig(names=names),
            clean=CleanConfig(sfreq=200.0, l_freq=None, h_freq=None, notch=None),
            windows=WindowConfig(
                seconds=5.0,
                min_recording=0.0,
                drop_first=0.0,
                drop_last=0.0,
                keep_edges=True,
                max_uv=None,
                min_swing_uv=None,
            ),
        )

    def constants(self) -> dict[str, Any]:
        """All that the store depends on besides the recordings."""
        return {**to_dict(self.recipe()), "task": "mental_arithmetic", "protocol": self.protocol}

    def sources(self, path: str) -> list[Source]:
        """The files SubjectNN_1.edf and SubjectNN_2.edf; others are passed over."""
        sources = [source for source in find_recordings([path]) if _NAME.search(source.key)]
        if not sources:
            raise ValueError(f"{path} holds no SubjectNN_1.edf or SubjectNN_2.edf: is it the data set `eegmat`?")
        return sources

    def cut(self, source: Source, recording: OpenRecording, chain: Chain, recipe: Recipe) -> WindowPlan:
        """All windows of a file have its label and its subject's split."""
        match = _NAME.search(source.key)
        assert match is not None, source.key
        subject, run = int(match[1]), int(match[2])
        part = "train" if subject < _FIRST_VALID else "valid" if subject < _FIRST_TEST else "test"
        start = grid(recipe.windows, sfreq=recipe.clean.sfreq, n_times=chain.n_out, edge=chain.edge)
        return WindowPlan(
            start=start,
            label=np.full(len(start), run - 1, dtype=np.int64),
            split=np.full(len(start), SPLITS.index(part), dtype=np.int8),
        )
