"""Progress on standard error: a bar with the remaining time in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from margins.report.numbers import duration

PLAIN_LINES = 10


class TrialProgress:
    """Called after every training; remembers how many are done."""

    def __init__(self, console: Console, bar: Progress | None) -> None:
        self._console = console
        self._bar = bar
        self._task = bar.add_task("comparing", total=None) if bar else None
        self._started = time.monotonic()
        self.done = 0
        self.total = 0

    def __call__(self, done: int, total: int, recipe: str, fold: int, seed: int) -> None:
        """Show that `done` of `total` trainings are finished; the last was of `recipe` on `fold`."""
        tenth_before = self.done * PLAIN_LINES // total
        self.done, self.total = done, total
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=recipe)
        elif done * PLAIN_LINES // total > tenth_before:
            left = (time.monotonic() - self._started) / done * (total - done)
            rest = f", about {duration(left)} left" if done < total else ""
            self._console.print(f"{done} of {total} trainings done{rest}", soft_wrap=True)


@contextmanager
def trial_progress() -> Generator[TrialProgress]:
    """Give the callback for a comparison, for as long as it runs."""
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        yield TrialProgress(console, None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Trainings take seconds to minutes, so the speed is taken over a long stretch.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=3600) as bar:
        yield TrialProgress(console, bar)
