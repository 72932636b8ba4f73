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
from margins.training.trainer import EpochRecord

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


class TrainingProgress:
    """Told how one training goes: a bar over its steps in a terminal, and a line after every epoch."""

    def __init__(self, console: Console, bar: Progress | None, metric: str = "select score") -> None:
        self._console, self._bar = console, bar
        self._task = bar.add_task("training", total=None) if bar else None
        self._metric = metric

    def step_done(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        """Move the bar: the epoch's steps, of which `step` is the last one done."""
        if self._bar and self._task is not None:
            text = f"epoch {epoch + 1}, loss {loss:.4f}"
            self._bar.update(self._task, completed=step + 1, total=num_steps, description=text)

    def epoch_done(self, record: EpochRecord) -> None:
        """Say how the epoch went."""
        self._console.print(
            f"epoch {record.epoch}: loss {record.loss:.4f}, {self._metric} {record.select_score:.4f}, "
            f"{record.seconds:.1f} s",
            soft_wrap=True,
        )


@contextmanager
def training_progress(console: Console) -> Generator[TrainingProgress]:
    """Give the watcher of a training, for as long as it runs."""
    if not console.is_terminal:
        yield TrainingProgress(console, None)
        return
    with _bar(console) as bar:
        yield TrainingProgress(bar.console, bar)


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # What is counted takes seconds to minutes, so the speed is taken over a long stretch.
    return Progress(*columns, console=console, transient=True, speed_estimate_period=3600)


@contextmanager
def trial_progress() -> Generator[TrialProgress]:
    """Give the callback for a comparison, for as long as it runs."""
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        yield TrialProgress(console, None)
        return
    with _bar(console) as bar:
        yield TrialProgress(console, bar)
