"""One task run, timed, and its memory measured; what it raises becomes a text."""

from __future__ import annotations

import socket
import time
import traceback
from pathlib import Path
from typing import Any

from margins.compare.execution.protocol import Done, Work
from margins.errors import MarginsError

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_PEAK = "VmHWM:"  # the high-water mark of resident memory, in kB


def measured(work: Work, key: str, task: dict[str, Any]) -> Done:
    """Runs a task here. KeyboardInterrupt and SystemExit go through.

    Example:
        >>> measured(lambda task: {"twice": 2 * task["x"]}, "0123", {"x": 2}).value
        {'twice': 4}
        >>> measured(lambda task: {"inverse": 1 / task["x"]}, "0124", {"x": 0}).error
        'ZeroDivisionError: division by zero (...:1 in <lambda>)'
    """
    peak_is_known = _reset_peak()
    value, error = None, None
    start = time.perf_counter()
    try:
        value = work(task)
    except Exception as raised:
        error = described(raised)
    seconds = time.perf_counter() - start
    peak = _peak_bytes() if peak_is_known else None
    return Done(
        key=key, value=value, error=error, seconds=seconds, peak_bytes=peak, where=socket.gethostname()
    )


def failed(key: str, error: str, *, since: float) -> Done:
    """A task whose end could not be measured, since a `time.perf_counter()`."""
    return Done(
        key=key, value=None, error=error, seconds=time.perf_counter() - since, peak_bytes=None,
        where=socket.gethostname(),
    )  # fmt: skip


def described(error: BaseException) -> str:
    """The text of what a user can mend; of anything else its kind and its place too."""
    if isinstance(error, MarginsError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _reset_peak() -> bool:
    """From now on the mark says what this task needs, where Linux allows it."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def _peak_bytes() -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(_PEAK):
            return int(line.split()[1]) * 1024
    return None
