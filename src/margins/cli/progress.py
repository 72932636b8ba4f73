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

from margins.compare.trials.scheduling import TrialDone
from margins.report.numbers import duration
from margins.training.trainer import EpochRecord

PLAIN_LINES = 10


class TrialProgress:
    """Told after every training; remembers how many are done."""

    def __init__(self, console: Console, bar: Progress | None) -> None:
        self._console = console
        self._bar = bar
        self._task = bar.add_task("comparing", total=None) if bar else None
        self._started = time.monotonic()
        self.done = 0
        self.total = 0

    def __call__(self, trial: TrialDone) -> None:
        """Show that one more training is finished."""
        tenth_before = self.done * PLAIN_LINES // max(trial.total, 1)
        self.done, self.total = trial.done, trial.total
        if self._bar and self._task is not None:
            text = f"{trial.recipe}, {trial.place}"
            self._bar.update(self._task, completed=trial.done, total=trial.total, description=text)
        elif trial.done * PLAIN_LINES // trial.total > tenth_before:
            self._console.print(
                f"{trial.done} of {trial.total} trainings done{self._left(trial)}", soft_wrap=True
            )

    def _left(self, trial: TrialDone) -> str:
        """The time that is left, from trainings that were not known from an earlier run."""
        ran, left = trial.done - trial.from_store, trial.total - trial.done
        if not ran or not left:
            return ""
        return f", about {duration((time.monotonic() - self._started) / ran * left)} left"


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
