"""`margins compare`, `margins demo` and `margins merge`: read, run, write, tell."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from margins.cli import telling
from margins.cli.progress import TrialProgress, trial_progress
from margins.cli.recipe_options import kinds_of, recipe_changes
from margins.cli.stopping import Stopped
from margins.compare.candidates.candidate import Candidate, read_candidates
from margins.compare.kept.folder import REPORT, STORE, ComparisonFolder
from margins.compare.results import ComparisonResult
from margins.data.frame import Frame
from margins.errors import MarginsError
from margins.report import write_report


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
    budget: str
    candidates: list[str] | None
    positive: str | None
    rope: str
    spread: float | None
    report_share: float
    shortcuts: dict[str, Any]
    changes: list[str]
    accept_double_correction: bool
    on: str
    device: str
    seed: int
    force: bool


def compare_file(request: Request, *, out: Path | None, as_json: bool) -> None:
    """Read the rows, compare, write the folder and tell the answer.

    Raises:
        MarginsError: the file, a column, an option or the output folder cannot be used.
    """
    from margins.compare import Roles, compare
    from margins.data.reading import read_frame

    if out is not None:
        ComparisonFolder(out).check()
    roles = Roles(**request.roles, kinds=kinds_of(request.kinds))
    training = recipe_changes(request.shortcuts, request.changes)
    if request.accept_double_correction:
        training["accept_double_correction"] = True
    candidates, rope = _candidates(request.candidates), _rope(request.rope)
    frame = read_frame(request.file, embeddings=request.embeddings)
    folder = out or default_folder(request, frame)

    def run(progress: TrialProgress, tell: Callable[[str], None]) -> ComparisonResult:
        return compare(
            frame, request.metric, roles=roles, candidates=candidates, num_folds=request.folds,
            num_repeats=request.repeats, num_seeds=request.seeds, budget=request.budget, seed=request.seed,
            rope=rope, spread=request.spread, report_share=request.report_share, training=training,
            positive=request.positive, on=request.on, device=request.device,  # pyright: ignore[reportArgumentType] - checked there
            out=folder, force=request.force, on_trial_done=progress, tell=tell,
        )  # fmt: skip

    _run_and_tell(run, folder=folder, as_json=as_json)


def compare_digits(*, quick: bool, out: Path | None) -> None:
    """Run the bundled demonstration, write its folder and tell the answer.

    Raises:
        MarginsError: the output folder cannot be used.
    """
    from margins.compare.demo import run_demo

    folder = out or Path("runs") / ("demo-quick" if quick else "demo")

    def run(progress: TrialProgress, tell: Callable[[str], None]) -> ComparisonResult:
        repeats = {"num_repeats": 1} if quick else {}
        return run_demo(**repeats, out=folder, on_trial_done=progress, tell=tell)

    _run_and_tell(run, folder=folder, as_json=False)


def merge_folders(into: Path, others: list[Path]) -> None:
    """Take the trials of other folders over into one.

    Raises:
        MarginsError: a folder without trials, or of other data.
    """
    from margins.compare.kept.store import RunStore

    folder = ComparisonFolder(into)
    with RunStore.extend(folder.store) as store:
        for other in others:
            merged = store.merge(other / STORE)
            different = (
                f", {merged.different} came out otherwise there: those of {into} stay"
                if merged.different
                else ""
            )
            typer.echo(f"{other}: {merged.added} trials taken over, {merged.same} known{different}")


def default_folder(request: Request, frame: Frame) -> Path:
    """`runs/<name>-<digest>`: the same data, question and metric go on in the same folder.

    Args:
        request: of the user.
        frame: the rows that were read.
    """
    question = json.dumps([frame.fingerprint, request.roles, request.kinds, request.metric], default=str)
    stem = request.file.name.split(".")[0] or "data"
    return Path("runs") / f"{stem}-{hashlib.sha256(question.encode()).hexdigest()[:8]}"


def _candidates(given: list[str] | None) -> list[str | Candidate] | None:
    """Names, and all that YAML files hold."""
    if given is None:
        return None
    found: list[str | Candidate] = []
    for one in given:
        if one.endswith((".yaml", ".yml")):
            found += read_candidates(Path(one))
        else:
            found.append(one)
    return found


def _rope(text: str) -> Any:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        return float(text)
    except ValueError:
        raise MarginsError("--rope", expected="a number, auto or none", received=repr(text)) from None


def _run_and_tell(
    run: Callable[[TrialProgress, Callable[[str], None]], ComparisonResult], *, folder: Path, as_json: bool
) -> None:
    result = ComparisonFolder(folder).save(_run_or_stop(run, folder))
    write_report(result, folder / REPORT)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result), indent=1, allow_nan=False))
        typer.echo(f"report: {folder / REPORT}", err=True)
    else:
        telling.tell(result, folder)


def _run_or_stop(
    run: Callable[[TrialProgress, Callable[[str], None]], ComparisonResult], folder: Path
) -> ComparisonResult:
    """Run; Ctrl-C ends in one line that says how far it came and how to go on."""
    speaker = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with trial_progress() as progress:
        try:
            return run(progress, lambda sentence: speaker.print(sentence, soft_wrap=True, style="dim"))
        except KeyboardInterrupt:
            pass  # the progress bar goes first
    far = f" after {progress.done} of {progress.total} trainings" if progress.total else ""
    raise Stopped(f"stopped{far}; the same command goes on from there ({folder})")
