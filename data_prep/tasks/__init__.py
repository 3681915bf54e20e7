"""Labelled data sets by name. A new one is a file here and a line below."""

from data_prep.tasks.base import Task
from data_prep.tasks.events import Events
from data_prep.tasks.mental_arithmetic import MentalArithmetic

TASKS: dict[str, type] = {"mental_arithmetic": MentalArithmetic, "events": Events}

__all__ = ["TASKS", "Events", "MentalArithmetic", "Task"]
