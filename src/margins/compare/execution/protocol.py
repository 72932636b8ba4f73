"""What an executor takes, gives and can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self


class Work(Protocol):
    """Does one task after the other.

    It can be pickled and is sent to each worker once, so what it keeps in itself serves the tasks that follow
    there. What it gives depends on the task alone, never on the worker or on tasks before.
    """

    def __call__(self, task: dict[str, Any], /) -> dict[str, Any]:
        """The outcome of one task; both are plain data."""
        ...


@dataclass(frozen=True, kw_only=True)
class Done:
    """How one task ended.

    Args:
        key: it was submitted with.
        value: what came out; None when it failed.
        error: why it failed; None when it did not.
        seconds: it took, by the clock on the wall.
        peak_bytes: most memory that its process held while it ran; None where that cannot be measured.
        where: name of the host.
    """

    key: str
    value: dict[str, Any] | None
    error: str | None
    seconds: float
    peak_bytes: int | None
    where: str


class Executor(Protocol):
    """Runs tasks in an order of its own; used as a context, at whose end nothing runs on."""

    @property
    def slots(self) -> int:
        """How many tasks run at the same time."""
        ...

    @property
    def pending(self) -> int:
        """How many were submitted and not yet given back."""
        ...

    def submit(self, key: str, task: dict[str, Any]) -> None:
        """Takes a task to run as soon as there is room."""
        ...

    def wait(self) -> list[Done]:
        """Waits until at least one task is done; gives all that are.

        Raises:
            RuntimeError: nothing is pending.
        """
        ...

    def close(self) -> None:
        """Drops what is pending, ends what runs, and lets go of the workers."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def refuse_to_wait_for_nothing(pending: int) -> None:
    """Raises RuntimeError when nothing is pending: waiting would never end."""
    if not pending:
        raise RuntimeError("nothing is pending: submit a task before waiting for one")
