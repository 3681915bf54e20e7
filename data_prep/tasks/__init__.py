"""Labelled data sets by name. A new one is a file here and a line below."""

from data_prep.tasks.base import DataSet, Task
from data_prep.tasks.bcic2020_3 import Bcic2020
from data_prep.tasks.bcic_iv_2a import BcicIv2a
from data_prep.tasks.chb_mit import ChbMit
from data_prep.tasks.events import Events
from data_prep.tasks.faced import Faced
from data_prep.tasks.isruc_s1 import IsrucS1
from data_prep.tasks.isruc_s3 import IsrucS3
from data_prep.tasks.mental_arithmetic import MentalArithmetic
from data_prep.tasks.mumtaz import Mumtaz
from data_prep.tasks.physionet_mi import PhysionetMi
from data_prep.tasks.seed_v import SeedV
from data_prep.tasks.shu_mi import ShuMi
from data_prep.tasks.table import Table
from data_prep.tasks.tuab import Tuab
from data_prep.tasks.tuev import Tuev

DATA_SETS: dict[str, type[DataSet]] = {
    data_set.about.name: data_set
    for data_set in (
        *(Faced, SeedV, IsrucS1, IsrucS3, MentalArithmetic, Bcic2020, ChbMit, Tuev, Tuab, ShuMi),
        *(PhysionetMi, BcicIv2a, Mumtaz),
    )
}
"""Data sets of the literature: the ten of the CodeBrain paper, then three more of its peers."""

TASKS: dict[str, type] = {**DATA_SETS, "events": Events, "table": Table}

__all__ = ["DATA_SETS", "TASKS", "DataSet", "Events", "Table", "Task"]
