"""A labelled store from any recordings and a table of theirs: one label for the whole of a recording."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from codebrain.data.format import TaskInfo
from data_prep.clean import Chain
from data_prep.corpora import Source, counted, unusable_in_words
from data_prep.read import Readable
from data_prep.recipe import Recipe
from data_prep.tasks.labels import LabelRow, LabelsAs, LabelTable, class_names
from data_prep.tasks.own import OwnTask
from data_prep.windows import WindowPlan, grid


@dataclass(frozen=True, kw_only=True)
class Table(OwnTask):
    """Windows over whole recordings, which a table labels by file or by subject."""

    labels: str
    """CSV or TSV table with a column of labels, and a column file (names or patterns such as *R01.edf) or subject."""
    column: str
    """Heading of the labels."""
    labels_as: LabelsAs = "auto"
    """`classes`: every text is the name of a class; `numbers`: numbers to learn, a regression; `auto`: classes if they
    are texts, or two different numbers."""
    classes: list[str] = field(default_factory=list)
    """Classes and their order; empty: all, as they first appear in the table."""
    name: str = ""
    """Name of the task; that of the column if it is not given."""

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in their order; none of a regression."""
        # Kept here and not the table, for a task is sent to the workers with every recording.
        return class_names(LabelTable(self.labels, self.column), self.labels_as, self.classes)

    def info(self) -> TaskInfo:
        """What the labels mean."""
        return TaskInfo(name=self.name or self.column, protocol="", class_names=self.class_names)

    def constants(self) -> dict[str, Any]:
        """All that the store depends on besides the recordings."""
        # What the table says is noted for each recording: it may grow, or move.
        constants = {name: value for name, value in super().constants().items() if name not in ("labels", "labels_as")}
        return {**constants, "classes": list(self.class_names), "task": "table"}

    def sources(self, path: str) -> list[Source]:
        """All recordings of a folder, each with its label; those without one cannot be used."""
        table = LabelTable(self.labels, self.column)
        found = super().sources(path)
        rows = table.rows_of(found)
        labelled = [self._labelled(source, rows.get(source.key), table) for source in found]
        for line in self._said(table, found, labelled):
            print(line)
        return labelled

    def why_no_window(self) -> str:
        """No recording of that class came through."""
        return "No recording with that label is here, or nothing of it could be used: recordings.csv says why"

    def cut(self, source: Source, recording: Readable, chain: Chain, recipe: Recipe) -> WindowPlan:
        """Windows that fill the recording, all with its label."""
        start = grid(recipe.windows, sfreq=recipe.clean.sfreq, n_times=chain.n_out, edge=chain.edge)
        label = self.class_names.index(source.label) if self.class_names else float(source.label)
        return WindowPlan(start=start, label=np.full(len(start), label))

    def _labelled(self, source: Source, row: LabelRow | None, table: LabelTable) -> Source:
        """A recording with its label, or with the reason for which it has none."""
        if row is None:
            missing = f"not in {table.file.name}"
        elif not row.label:
            missing = f"no label: line {row.line} of {table.file.name} has none in its column {table.column}"
        elif self.class_names and row.label not in self.class_names:
            missing = f"its label is {row.label!r}, none of --classes {' '.join(self.class_names)}"
        else:
            return dataclasses.replace(source, label=row.label)
        return dataclasses.replace(source, unusable=source.unusable or missing)

    def _said(self, table: LabelTable, found: Sequence[Source], labelled: Sequence[Source]) -> list[str]:
        """Lines on what the table says of the recordings, and of what it says nothing."""
        labels = Counter(source.label for source in labelled if source.label and not source.unusable)
        if self.class_names:
            counts = ", ".join(f"{name} {labels[name]:,}" for name in self.class_names)
            what = f"{counts} of {counted(len(labelled), 'recording')}"
        else:
            numbers = [float(label) for label in labels]
            ends = f" from {min(numbers):g} to {max(numbers):g}" if numbers else ""
            what = f"numbers{ends} of {counted(labels.total(), 'recording')}"
        lines = [f"labels by {table.by}, column {table.column} of {table.file}: {what}"]
        lines += unusable_in_words([after for before, after in zip(found, labelled, strict=True) if before != after])
        if table.unused:
            first = table.unused[0]
            rows = counted(len(table.unused), "row")
            lines.append(f"WARNING: {rows} of {table.file} fit no recording, such as line {first.line}, {first.who}")
        if table.names_subjects and not (self.subjects or self.subject_pattern):
            lines.append(
                f"the subjects in {table.file} are not read: --subjects {table.file} takes them for those of the files"
            )
        return lines
