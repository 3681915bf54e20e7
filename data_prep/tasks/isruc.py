"""What the two subgroups of ISRUC-Sleep (Khalighi et al. 2016) share: channels, filters, stages and sequences.

Sleep is scored in epochs of 30 s, one number per line of N_1.txt (the first scorer's). Models see sequences of 20
epochs, so the windows of a night lie in the store in their order, and epochs that fill no sequence are left out.
"""

from collections.abc import Iterable
from pathlib import Path

from data_prep.clean import CleanConfig
from data_prep.read import UnusableError
from data_prep.tasks.base import Stretch

URL = "https://sleeptight.isr.uc.pt/"
STAGES = ("wake", "N1", "N2", "N3", "REM")
CHANNELS = ("F3", "C3", "O1", "F4", "C4", "O2")
CLEAN = CleanConfig(sfreq=200.0, l_freq=0.3, h_freq=35.0, notch=50.0)
EPOCH_SECONDS = 30.0
SEQUENCE = 20
_CLASS = {0: 0, 1: 1, 2: 2, 3: 3, 5: 4}


def read_stages(path: Path) -> list[int]:
    """Class of every epoch of a night.

    Raises
    ------
    UnusableError
        No such file, or a line that is no stage.
    """
    if not path.is_file():
        raise UnusableError(f"no labels: {path.name} should be at {path.parent.name}/{path.name}")
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    codes = [int(line) if line.isdigit() else -1 for line in lines if line]
    if unknown := set(codes) - set(_CLASS):
        raise UnusableError(f"{path.name} has stages {sorted(unknown)}, but ISRUC's are 0, 1, 2, 3 and 5")
    return [_CLASS[code] for code in codes]


def sequences(stages: list[int], n_epochs: int) -> Iterable[Stretch]:
    """The epochs of a night that fill whole sequences."""
    count = min(len(stages), n_epochs) // SEQUENCE * SEQUENCE
    return [Stretch(onset=epoch * EPOCH_SECONDS, label=stage) for epoch, stage in enumerate(stages[:count])]
