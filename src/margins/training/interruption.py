"""Ctrl-C and SIGTERM, held back until the step is done and saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end; the run was saved first.

    Args:
        number: of the signal.
        text: what was saved, and how to go on.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


class Interruption:
    """Remembers that a signal came."""

    def __init__(self) -> None:
        self.number: int | None = None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None:  # the second time at once
            raise KeyboardInterrupt
        self.number = number

    @contextmanager
    def watched(self) -> Generator[Interruption]:
        """Signals only set `number` inside the block. In a thread other than the main one nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
