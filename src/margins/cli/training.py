"""`margins train` and `margins explain-nan`: read, train, write, tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import typer
from rich.console import Console
from rich.text import Text

from margins.cli import run_folder
from margins.cli.progress import training_progress
from margins.cli.recipe_options import kinds_of, recipe_changes
from margins.cli.stopping import Stopped
from margins.cli.tables import console, score_table
from margins.errors import MarginsError


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What a user asked to have trained; None where nothing was said."""

    file: Path | None
    resume: Path | None
    out: Path | None
    recipe: Path | None
    changes: list[str]
    embeddings: Path | None
    roles: dict[str, Any]
    kinds: list[str]
    shortcuts: dict[str, Any]
    select_share: float
    report_share: float
    device: str
    threads: int | None
    checkpoint_every: float
    logger: str | None


def train_file(request: TrainRequest, *, as_json: bool) -> None:
    """Train on the file, or go on with a run, and tell how good the model is.

    Raises:
        MarginsError: anything the user can mend.
        Stopped: Ctrl-C or SIGTERM; the run was saved.
    """
    from margins.training.fit import Trained
    from margins.training.interruption import Interrupted
    from margins.training.machine import is_first_rank

    if (request.file is None) == (request.resume is None):
        raise MarginsError(
            "FILE", expected="a file to train on, or --resume FOLDER",
            received="both" if request.file else "neither",
        )  # fmt: skip
    if request.resume is not None:
        _refuse_ignored(request)
    folder = (
        request.resume
        or request.out
        or run_folder.default_folder(cast("Path", request.file).name.split(".")[0])
    )
    speaker = Console(stderr=True, markup=False, highlight=False, emoji=False)
    try:
        with training_progress(speaker) as watcher:
            trained: Trained = _trained(request, folder, watcher, speaker)
    except Interrupted as stopped:
        again = f"go on with: margins train --resume {folder}"
        raise Stopped(f"stopped; saved in {folder}; {again}", code=128 + stopped.number) from None
    except KeyboardInterrupt:
        raise Stopped("stopped before training began") from None
    if not is_first_rank():
        return
    if as_json:
        typer.echo(json.dumps(_as_data(trained), indent=1, allow_nan=False))
    else:
        _tell(trained)


def explain_nan(folder: Path, *, as_json: bool) -> None:
    """Tell what a run met when it stopped at a number that is not finite.

    Raises:
        MarginsError: it did not.
    """
    import dataclasses

    from margins.training.nonfinite import read_bundle

    found = read_bundle(folder)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=1))
        return
    out = console()
    out.print(Text(f"The first tensor that was not finite: {found.tensor}", style="bold"), soft_wrap=True)
    rows = ", ".join(str(i + 1) for i in found.row_ids[:10])
    more = f" and {len(found.row_ids) - 10} more" if len(found.row_ids) > 10 else ""
    facts = [
        f"epoch {found.epoch + 1}, step {found.step + 1}, learning rate {found.learning_rate:g}",
        f"rows of the step: {rows}{more}",
        f"scores: {found.scores[0]:g} to {found.scores[1]:g}" if found.scores else "scores: none finite",
        "largest weights: " + ", ".join(f"{name} {norm:.3g}" for name, norm in list(found.norms.items())[:3]),
        f"objective: {found.objective['loss']} {found.objective['settings'] or ''}".rstrip(),
        *([f"loss scale: {found.scaler['scale']:g}"] if found.scaler else []),
    ]
    for fact in facts:
        out.print(f"  {fact}", soft_wrap=True)
    out.print(f"Likely cure: {found.cure}.", soft_wrap=True)


def _trained(request: TrainRequest, folder: Path, watcher: Any, speaker: Console) -> Any:
    from margins.training.fit import resume, train
    from margins.training.request import Roles

    def tell(sentence: str) -> None:
        speaker.print(sentence, soft_wrap=True, style="dim")

    loggers = _loggers(request.logger, folder)
    if request.resume is not None:
        return resume(request.resume, watcher=watcher, tell=tell, loggers=loggers)
    roles = Roles(**request.roles, kinds=kinds_of(request.kinds))
    return train(
        request.file, roles=roles, recipe=_changes(request), embeddings=request.embeddings, out=folder,
        select_share=request.select_share, report_share=request.report_share, device=_device(request.device),
        threads=request.threads, every_seconds=request.checkpoint_every, watcher=watcher, tell=tell,
        loggers=loggers,
    )  # fmt: skip


def _refuse_ignored(request: TrainRequest) -> None:
    asked = {
        **request.roles, **request.shortcuts, "recipe": request.recipe, "embeddings": request.embeddings,
        "set": request.changes or None, "kind": request.kinds or None, "out": request.out,
        "threads": request.threads,
    }  # fmt: skip
    named = [name.rpartition(".")[2] for name, value in asked.items() if value is not None]
    if named:
        raise MarginsError(
            "--resume", expected="no option that would make it another run",
            received=f"one for {named[0]}",
            fix="a run goes on as it began; start a new run with other options",
        )  # fmt: skip


def _device(word: str) -> Any:
    if word not in ("auto", "cpu", "cuda"):
        raise MarginsError("--device", expected="auto, cpu or cuda", received=repr(word))
    return word


def _changes(request: TrainRequest) -> dict[str, Any]:
    from margins.training.recipe import read_recipe

    start = read_recipe(request.recipe) if request.recipe is not None else {}
    return recipe_changes(request.shortcuts, request.changes, start)


def _loggers(name: str | None, folder: Path) -> list[Any] | None:
    from margins.training.loggers import logger_named

    return None if name is None else [logger_named(name, folder)]


def _tell(trained: Any) -> None:
    out = console()
    out.print(score_table(trained.scores, boxed=out.is_terminal))
    epochs = ", ".join(f"{f.epoch} of {len(f.history)}" for f in trained.fitted)
    seconds = sum(f.seconds for f in trained.fitted)
    out.print(f"kept epoch {epochs}; {seconds:.1f} s of training", soft_wrap=True)
    if "report" in trained.scores:
        out.print("The report rows were opened once, now; choices made by their scores need new rows.")
    out.print(f"\nmodel: {trained.folder / 'model'}", soft_wrap=True)
    out.print(
        f'use it: margins predict {trained.folder} FILE, or margins.load("{trained.folder}")', soft_wrap=True
    )


def _as_data(trained: Any) -> dict[str, Any]:
    import dataclasses

    return {
        "folder": str(trained.folder),
        "scores": trained.scores,
        "told": trained.told,
        "fitted": [dataclasses.asdict(fitted) for fitted in trained.fitted],
    }
