"""Tasks one after the other in this process."""

from __future__ import annotations

from collections import deque
from typing import Any, Self

from margins.compare.execution.measuring import measured
from margins.compare.execution.protocol import Done, Work, refuse_to_wait_for_nothing


class InProcess:
    """Runs a task when it is waited for.

    Example:
        >>> with InProcess(lambda task: {"twice": 2 * task["x"]}) as executor:
        ...     executor.submit("0123", {"x": 2})
        ...     [(done.key, done.value) for done in executor.wait()]
        [('0123', {'twice': 4})]
    """

    slots = 1

    def __init__(self, work: Work) -> None:
        self._work = work
        self._tasks: deque[tuple[str, dict[str, Any]]] = deque()

    @property
    def pending(self) -> int:
        return len(self._tasks)

    def submit(self, key: str, task: dict[str, Any]) -> None:
        self._tasks.append((key, task))

    def wait(self) -> list[Done]:
        refuse_to_wait_for_nothing(self.pending)
        return [measured(self._work, *self._tasks.popleft())]

    def close(self) -> None:
        self._tasks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
