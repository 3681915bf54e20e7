"""A small task store with something to learn in it, for the tests of fine-tuning."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from codebrain.data.format import Recording, ShardWriter, Store, StoreInfo, TaskInfo, write_store

TINY = [
    *("--backbone.num_res_layers=1", "--backbone.res_channels=8", "--backbone.skip_channels=8"),
    *("--backbone.out_channels=8", "--baseline=[]"),
    *("--training.batch_size=16", "--training.epochs=2"),
]
"""Flags of a run that takes seconds."""


def write_task_store(
    path: Path,
    *,
    n_subjects: int = 8,
    per_subject: int = 8,
    class_names: tuple[str, ...] = ("rest", "count"),
    published: list[int] | None = None,
    twin: tuple[int, int] | None = None,
    labelled: bool = True,
    sfreq: float = 200.0,
    starts: npt.NDArray[np.float64] | None = None,
    labels: list[int] | None = None,
    seed: int = 0,
) -> Store:
    """Windows of 3 channels x 400 samples; the higher the class, the stronger a 10 Hz rhythm over Pz.

    Parameters
    ----------
    path : Path
    published : list of int, optional
        Side (0 train, 1 valid, 2 test) of each subject in a split of the protocol's own.
    twin : (int, int), optional
        Subjects a and b: the first window of b is that of a.
    labelled : bool
        Whether it is a task store at all.
    class_names : tuple of str
        Empty for a regression on the rhythm's size.
    starts : (per_subject,) array, optional
        Seconds at which the windows of each subject begin; by default one after the other.
    labels : list of int, optional
        Classes in their order, subject after subject, or once for every subject; by default in turn.
    """
    rng = np.random.default_rng(seed)
    n_classes = len(class_names) or 5
    turns = np.arange(per_subject) % n_classes
    label = np.resize(turns if labels is None else labels, (n_subjects, per_subject))
    starts = np.arange(per_subject) * 2.0 if starts is None else starts
    signals = rng.normal(0, 10, (n_subjects, per_subject, 3, 400))
    rhythm = np.sin(2 * np.pi * 10 * np.arange(400) / 200)
    signals[:, :, 2] += 15 * label[:, :, None] * rhythm
    if twin:
        signals[twin[1], 0] = signals[twin[0], 0]
    writer = ShardWriter(
        path,
        "a",
        ch_names=("Fz", "Cz", "Pz"),
        sfreq=sfreq,
        n_times=400,
        label_dtype=(np.int64 if class_names else np.float64) if labelled else None,
        has_split=published is not None,
    )
    with writer:
        for row, windows in enumerate(signals):
            writer.append(
                windows,
                recording=row,
                start=starts,
                label=label[row] if labelled else None,
                split=None if published is None else published[row],
            )
    recordings = [
        Recording(row=row, path=f"{row}.edf", subject=f"S{row:02d}", kept=per_subject) for row in range(n_subjects)
    ]
    task = TaskInfo(name="rhythm", protocol="corrected", class_names=class_names, has_split=published is not None)
    info = StoreInfo(
        sfreq=sfreq, window_seconds=400 / sfreq, preparation={"l_freq": 0.3}, task=task if labelled else None
    )
    return write_store(path, info, [writer.shard], recordings)
