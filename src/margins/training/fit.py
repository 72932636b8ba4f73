"""`margins.train`: from data to a trained, judged and saved model, in a folder that survives a crash."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from margins.data.choosing import choose_columns
from margins.data.dividing import Division
from margins.data.frame import Frame
from margins.data.overlap import overlap
from margins.data.reading import read_frame
from margins.errors import MarginsError
from margins.training.checkpoint import write_atomically
from margins.training.defaults import default_recipe
from margins.training.finishing import described_model, scores_of
from margins.training.job import Job
from margins.training.machine import Device, is_first_rank, machine, threads_for
from margins.training.machine import threads as using_threads
from margins.training.model import Model
from margins.training.prior import PriorLedger
from margins.training.problem import Problem, pose
from margins.training.recipe import Recipe
from margins.training.request import Request, Roles
from margins.training.run_folder import RECIPE, REQUEST, RESULTS, RunFolder, refuse_unusable
from margins.training.saving import EVERY_SECONDS
from margins.training.trainer import Fitted, Watcher


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What a training leaves.

    Args:
        model: ready to predict.
        fitted: how each phase went.
        scores: role to metric to number; "report" rows were opened once, at the very end.
        calibration: role to "before" and "after" to metric to number: how right probabilities are as raw
            scores give them, and as the model does. None where nothing corrects or calibrates them.
        prior: the shares of classes or labels, in the data and as training saw them; None without such.
        told: everything that was decided or is odd, one sentence each.
        division: which rows trained, selected and reported.
        folder: of the run; None when nothing was written.
    """

    model: Model
    fitted: list[Fitted]
    scores: dict[str, dict[str, float]]
    calibration: dict[str, dict[str, dict[str, float]]] | None
    prior: PriorLedger | None
    told: list[str]
    division: Division
    folder: Path | None


def train(
    data: Any,
    *,
    roles: Roles | None = None,
    recipe: Mapping[str, Any] | None = None,
    embeddings: str | Path | None = None,
    out: str | Path | None = None,
    select_share: float = 0.15,
    report_share: float = 0.15,
    division_seed: int | None = None,
    device: Device = "auto",
    every_seconds: float = EVERY_SECONDS,
    threads: int | None = None,
    watcher: Watcher | None = None,
    tell: Callable[[str], None] | None = None,
    loggers: list[Any] | None = None,
    **named_roles: Any,
) -> Trained:
    """Trains a model on a table, texts, images or embeddings.

    Everything that is not said is decided from the data, and told. With `out` the run can be killed at any
    time and gone on with by `resume(out)`; the numbers will be those of an undisturbed run.

    Args:
        data: a path or a data frame; see `read_frame`.
        roles: of columns; or name them as keywords: `target="topic"`, `inputs=["text"]`, `weight="w"`.
        recipe: keys of a recipe that are not to have their defaults, nested as in YAML.
        embeddings: an .npy or .npz file with a vector for each row.
        out: folder of the run, new; nothing is written without.
        select_share: of the rows that choose epochs and thresholds, where no column says.
        report_share: of the rows that judge the finished model, where no column says.
        division_seed: of the division into roles; the recipe's seed when None.
        device: "auto" takes a GPU if there is one.
        every_seconds: longest time between two checkpoints, in which work can be lost.
        threads: of torch on the CPU; None takes what suits the encoder.
        watcher: told how it goes.
        tell: called with a sentence for everything that is decided or odd.
        loggers: of Lightning Fabric (TensorBoard, MLflow), told the numbers of every epoch.
        named_roles: see `Roles`.

    Returns:
        the model, how it went, the scores of the select and the report rows.

    Raises:
        MarginsError: data, columns or a recipe that cannot be used; a number that is not finite.
        Interrupted: Ctrl-C or SIGTERM; with `out` the run was saved first.

    Example:
        >>> import numpy as np
        >>> draws = np.random.default_rng(0)
        >>> x = draws.normal(size=(300, 2))
        >>> table = {"a": x[:, 0], "b": x[:, 1], "label": (x.sum(1) > 0).astype(int)}
        >>> trained = train(table, recipe={"max_epochs": 5, "metric": "accuracy"})
        >>> trained.scores["report"]["accuracy"] > 0.8
        True
        >>> trained.model.predict({"a": [3.0], "b": [2.0]})
        array(['1'], dtype=object)
    """
    if roles is not None and named_roles:
        raise MarginsError("roles", expected="roles or keywords", received="both")
    request = Request(
        roles=roles or Roles.of(named_roles), changes=recipe, select_share=select_share,
        report_share=report_share, division_seed=division_seed, device=device,
        every_seconds=every_seconds, threads=threads,
    )  # fmt: skip
    folder = None if out is None else RunFolder.new(out) if is_first_rank() else RunFolder(Path(out))
    ears = _Ears(watcher=watcher, tell=tell, loggers=loggers)
    posed = _posed(read_frame(data, embeddings=embeddings), request, folder, ears)
    request = replace(request, threads=threads or threads_for(posed.recipe.encoder.name))
    if folder is not None and is_first_rank():
        refuse_unusable(folder.path)  # again: another run may have begun there meanwhile
        folder.write_json(REQUEST, _described(request, data, embeddings, posed.problem.frame))
        write_atomically(folder.path / RECIPE, posed.recipe.to_yaml().encode())
    return _run(posed, request, folder, ears)


def resume(
    folder: str | Path,
    data: Any = None,
    *,
    watcher: Watcher | None = None,
    tell: Callable[[str], None] | None = None,
    loggers: list[Any] | None = None,
) -> Trained:
    """Goes on with a run where its last checkpoint stands, or begins it if there is none.

    Args:
        folder: of the run.
        data: what the run was given, if it was no file.
        watcher: told how it goes.
        tell: called with a sentence for everything that is decided or odd.
        loggers: of Lightning Fabric.

    Raises:
        MarginsError: no run, other data than it began with, or a checkpoint that does not fit.
    """
    run = RunFolder.of_run(folder)
    described = run.read_json(REQUEST)
    try:
        request, began = Request.from_data(described["request"]), str(described["fingerprint"])
        source, embeddings = described["data"], described["embeddings"]
    except (KeyError, TypeError) as error:
        raise MarginsError(
            str(run.path / REQUEST), expected="the request of a run", received=f"one without {error}",
            fix="start a new run",
        ) from None  # fmt: skip
    if data is None and source is None:
        raise MarginsError(
            "data", expected="the data frame that the run began with", received="none",
            fix="resume(folder, data)",
        )  # fmt: skip
    frame = read_frame(source if data is None else data, embeddings=embeddings)
    if frame.fingerprint != began:
        raise MarginsError(
            "data", expected=f"the data that {run.path} began with ({began[:12]}...)",
            received=f"{frame.source} with other content ({frame.fingerprint[:12]}...)",
            fix="put the data back as they were, or start a new run",
        )  # fmt: skip
    ears = _Ears(watcher=watcher, tell=tell, loggers=loggers)
    return _run(_posed(frame, request, run, ears), request, run, ears)


def _described(request: Request, data: Any, embeddings: Any, frame: Frame) -> dict[str, Any]:
    is_path = isinstance(data, (str, Path))
    return {
        "data": str(Path(data).absolute()) if is_path else None,
        "embeddings": None if embeddings is None else str(Path(embeddings).absolute()),
        "fingerprint": frame.fingerprint,
        "request": asdict(request),
    }


@dataclass(frozen=True, kw_only=True)
class _Ears:
    """Who is told what."""

    watcher: Watcher | None
    tell: Callable[[str], None] | None
    loggers: list[Any] | None

    def say(self, sentences: list[str]) -> list[str]:
        for sentence in sentences:
            if self.tell is not None and is_first_rank():
                self.tell(sentence)
        return sentences


@dataclass(frozen=True, kw_only=True, eq=False)
class _Posed:
    """The data with all that was decided about them; what cannot be used was refused before this is made."""

    problem: Problem
    recipe: Recipe
    job: Job
    told: list[str]


def _posed(frame: Frame, request: Request, folder: RunFolder | None, ears: _Ears) -> _Posed:
    columns, decided = choose_columns(frame, **asdict(request.roles))
    told = ears.say(decided)
    recipe = default_recipe(columns, request.changes, num_rows=len(frame))
    seed = recipe.seed if request.division_seed is None else request.division_seed
    problem, odd = pose(
        frame, columns, seed=seed, select_share=request.select_share,
        report_share=request.report_share,
    )  # fmt: skip
    told += ears.say([*odd, *(found.sentence for found in overlap(frame, columns, problem.division))])
    job = Job(problem, recipe, folder, every_seconds=request.every_seconds, watcher=ears.watcher)
    told += ears.say(job.ledger.sentences() if job.ledger is not None else [])
    return _Posed(problem=problem, recipe=recipe, job=job, told=told)


def _run(posed: _Posed, request: Request, folder: RunFolder | None, ears: _Ears) -> Trained:
    with (
        machine(posed.recipe.precision, device=request.device, loggers=ears.loggers) as fabric,
        using_threads(request.threads or threads_for(posed.recipe.encoder.name)),
    ):
        fitted = posed.job.run(fabric)
        model = posed.job.decided(fabric)
        judged = scores_of(fabric, model, posed.job.prepared)
    model, prior = described_model(model, posed.problem.frame, judged), posed.job.ledger
    if folder is not None and is_first_rank():
        model.save(folder.path / "model")
        results = {
            **asdict(judged), "prior": None if prior is None else prior.to_data(), "told": posed.told,
            "fitted": [asdict(f) for f in fitted],
        }  # fmt: skip
        folder.write_json(RESULTS, results)
    path = None if folder is None else folder.path
    return Trained(
        model=model, fitted=fitted, scores=judged.scores, calibration=judged.calibration, prior=prior,
        told=posed.told, division=posed.problem.division, folder=path,
    )  # fmt: skip
