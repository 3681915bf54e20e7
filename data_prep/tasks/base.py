"""What a labelled data set has to say of itself."""

from __future__ import annotations

from typing import Any, Protocol

from codebrain.data.format import TaskInfo
from data_prep.clean import Chain
from data_prep.corpora import Source
from data_prep.read import OpenRecording
from data_prep.recipe import Recipe
from data_prep.windows import WindowPlan


class Task(Protocol):
    """A labelled data set: a frozen dataclass, whose fields are its flags."""

    def info(self) -> TaskInfo:
        """What the labels mean."""

    def recipe(self) -> Recipe:
        """What is done to each recording."""

    def sources(self, path: str) -> list[Source]:
        """Its recordings in a folder; ValueError if it does not look like the data set."""

    def constants(self) -> dict[str, Any]:
        """All that the store depends on besides the recordings, of JSON types."""

    def cut(self, source: Source, recording: OpenRecording, chain: Chain, recipe: Recipe) -> WindowPlan:
        """Windows of a recording with their labels; UnusableError if it has none."""
