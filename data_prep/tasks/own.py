"""What tasks on recordings of the user's have in common: any recipe, any folder, subjects as in a corpus."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from codebrain.config import to_dict
from data_prep.corpora import Source, find_recordings
from data_prep.cut import FileCutter
from data_prep.recipe import Recipe
from data_prep.windows import WindowConfig


@dataclass(frozen=True, kw_only=True)
class OwnTask(FileCutter, Recipe):
    """A labelled store of recordings that no data set of the literature describes."""

    windows: WindowConfig = field(
        default_factory=lambda: WindowConfig(seconds=5.0, min_recording=0.0, drop_first=0.0, drop_last=0.0)
    )
    """Length of the windows and what makes one unusable."""
    subject_pattern: str | None = None
    """Regular expression whose first group, in a recording's path, is its subject."""
    subjects: str | None = None
    """CSV table with columns path (or file) and subject, and where known age and sex, instead of names in paths."""

    def recipe(self) -> Recipe:
        """What is done to each recording."""
        return Recipe(**{entry.name: getattr(self, entry.name) for entry in dataclasses.fields(Recipe)})

    def constants(self) -> dict[str, Any]:
        """All that the store depends on besides the recordings."""
        # Whom the table names is noted for each recording: it may grow, or move.
        return {name: value for name, value in to_dict(self).items() if name != "subjects"}

    def sources(self, path: str) -> list[Source]:
        """All recordings of a folder."""
        return find_recordings([path], self.subject_pattern, subjects=self.subjects, say=print)

    def warning(self) -> str:
        """Nothing: there is no published protocol."""
        return ""
