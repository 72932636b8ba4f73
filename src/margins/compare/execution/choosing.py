"""The executor that a user names."""

from __future__ import annotations

from margins.compare.execution.in_process import InProcess
from margins.compare.execution.on_ray import OnRay
from margins.compare.execution.processes import Processes, num_cores
from margins.compare.execution.protocol import Executor, Work
from margins.data.nearest import suggestion
from margins.errors import MarginsError

_KNOWN = ("local", "processes", "processes:N", "ray", "ray:ADDRESS")


def executor_for(on: str, work: Work) -> Executor:
    """Makes the executor.

    Args:
        on: "local" for this process, "processes" or "processes:4" for others of this machine, "ray" for a
            cluster of this machine alone, "ray:10.0.0.5:6379", "ray:auto" or "ray:ray://host:10001" for one
            that runs.
        work: to do.

    Raises:
        MarginsError: no such executor, a cluster that does not answer, or ray is not installed.

    Example:
        >>> executor_for("processes:3", print).slots
        3
        >>> executor_for("process:3", print)
        Traceback (most recent call last):
        margins.errors.MarginsError: on: expected the name of an executor, got 'process:3'; did you mean
        processes? known: local, processes, processes:N, ray, ray:ADDRESS
    """
    name, _, rest = on.partition(":")
    if on == "local":
        return InProcess(work)
    if on == "processes":
        return Processes(work, num_cores())
    if name == "processes" and rest.isdecimal() and int(rest) > 0:
        return Processes(work, int(rest))
    if on == "ray" or (name == "ray" and rest):
        return OnRay(work, rest or None)
    near = suggestion(name if rest else on, _KNOWN)
    raise MarginsError("on", expected="the name of an executor", received=repr(on), fix=near)
