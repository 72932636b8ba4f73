"""`margins compare` and `margins demo`: read, run, write, tell."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from margins.cli import run_folder, telling
from margins.cli.progress import TrialProgress, trial_progress
from margins.cli.recipe_options import kinds_of, recipe_changes
from margins.cli.stopping import Stopped
from margins.compare.results import ComparisonResult
from margins.report import write_report
from margins.training.run_folder import refuse_unusable


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asked to have compared; None where nothing was said."""

    file: Path
    embeddings: Path | None
    roles: dict[str, Any]
    kinds: list[str]
    metric: str
    folds: int
    repeats: int
    seeds: int
    recipes: list[str] | None
    positive: str | None
    shortcuts: dict[str, Any]
    changes: list[str]
    seed: int


def compare_file(request: Request, *, out: Path | None, as_json: bool) -> None:
    """Read the rows, compare, write the folder and tell the answer.

    Raises:
        MarginsError: the file, a column, an option or the output folder cannot be used.
    """
    from margins.compare import Roles, compare
    from margins.data.reading import read_frame

    folder = out or run_folder.default_folder(request.file.name.split(".")[0])
    refuse_unusable(folder)
    roles = Roles(**request.roles, kinds=kinds_of(request.kinds))
    training = recipe_changes(request.shortcuts, request.changes)
    frame = read_frame(request.file, embeddings=request.embeddings)
    speaker = Console(stderr=True, markup=False, highlight=False, emoji=False)

    def run(progress: TrialProgress) -> ComparisonResult:
        return compare(
            frame, request.metric, roles=roles, recipes=request.recipes, num_folds=request.folds,
            num_repeats=request.repeats, num_seeds=request.seeds, seed=request.seed, training=training,
            positive=request.positive, on_trial_done=progress,
            tell=lambda sentence: speaker.print(sentence, soft_wrap=True, style="dim"),
        )  # fmt: skip

    _run_and_tell(run, folder=folder, as_json=as_json)


def compare_digits(*, quick: bool, out: Path | None) -> None:
    """Run the bundled demonstration, write its folder and tell the answer.

    Raises:
        MarginsError: the output folder cannot be used.
    """
    from margins.compare.demo import run_demo

    folder = out or run_folder.default_folder("demo")
    refuse_unusable(folder)

    def run(progress: TrialProgress) -> ComparisonResult:
        if quick:
            return run_demo(num_repeats=1, on_trial_done=progress)
        return run_demo(on_trial_done=progress)

    _run_and_tell(run, folder=folder, as_json=False)


def _run_and_tell(run: Callable[[TrialProgress], ComparisonResult], *, folder: Path, as_json: bool) -> None:
    """Run, then make the folder: until there is a result there is nothing to keep."""
    result = _run_or_stop(run, folder)
    with run_folder.created(folder):
        result.save(folder / "results.json")
        write_report(result, folder / "report.html")
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result), indent=1, allow_nan=False))
        typer.echo(f"report: {folder / 'report.html'}", err=True)
    else:
        telling.tell(result, folder / "report.html")


def _run_or_stop(run: Callable[[TrialProgress], ComparisonResult], folder: Path) -> ComparisonResult:
    """Run; Ctrl-C ends in one line that says how far it came and that the folder was not touched."""
    with trial_progress() as progress:
        try:
            return run(progress)
        except KeyboardInterrupt:
            pass  # the progress bar goes first
    far = f" after {progress.done} of {progress.total} trainings" if progress.total else ""
    raise Stopped(f"stopped{far}; nothing was written to {folder}")
