"""Where trials run: in this process, in others of this machine, or on a Ray cluster, by one interface."""

from margins.compare.execution.choosing import executor_for
from margins.compare.execution.in_process import InProcess
from margins.compare.execution.measuring import measured
from margins.compare.execution.on_ray import OnRay
from margins.compare.execution.processes import Processes
from margins.compare.execution.protocol import Done, Executor, Work

__all__ = [
    "Done",
    "Executor",
    "InProcess",
    "OnRay",
    "Processes",
    "Work",
    "executor_for",
    "measured",
]
