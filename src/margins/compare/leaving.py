"""What a comparison leaves: the winner trained again, and one look at the rows that were kept to report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from margins.compare.candidates.candidate import Candidate
from margins.compare.kept.folder import MODEL, REFITS
from margins.compare.planning import Design, digest_of
from margins.compare.results import LastLayer, Left
from margins.compare.trials.bench import Bench
from margins.compare.trials.searching import RecipeFailedError
from margins.data.roles import class_ids
from margins.diagnose import collapse_of
from margins.errors import MarginsError
from margins.evaluation.paired_bootstrap import paired_bootstrap
from margins.heads import LinearHead
from margins.targets import Targets
from margins.training.finishing import SHOWN, judged_by, measured_outputs
from margins.training.in_memory import train_problem
from margins.training.model import Model, load

REPORT_SEEDS = 3
RESAMPLES = 500
MOST_CLASSES = 1000  # whose last layer is looked at: it compares every class with every other


@dataclass(frozen=True, kw_only=True, eq=False)
class Refit:
    """A recipe trained on all rows but those kept to report, from several seeds."""

    candidate: Candidate
    values: dict[str, Any]
    models: list[Model]


def refitted(
    design: Design,
    candidate: Candidate,
    values: Mapping[str, Any],
    *,
    num_seeds: int,
    bench: Bench,
    folder: Path | None,
) -> Refit:
    """Trains with these hyperparameters; models that an earlier run left are taken from the folder.

    Args:
        design: of the comparison.
        candidate: the recipe.
        values: of its hyperparameters, found without the report rows.
        num_seeds: trainings.
        bench: knows the inputs of all rows and the device.
        folder: of the run; None keeps the models in memory alone.

    Raises:
        RecipeFailedError: it cannot be trained from one of the seeds.
    """
    place = len(design.places) - 1
    problem = design.rows.problem(design.last.division(with_test=False), bench.inputs, design.last.labels)
    models: list[Model] = []
    for number in range(1, num_seeds + 1):
        spec = design.spec(place, "refit", candidate, values, seed=design.seed_of(place, number))
        key = digest_of(spec)
        kept = None if folder is None else folder / REFITS / key[:16]
        model = None if kept is None else _known(kept, key)
        if model is None:
            recipe = candidate.recipe(design.training, values, seed=design.seed_of(place, number))
            try:
                model = train_problem(problem, recipe, device=bench.device)[0]
            except MarginsError as error:
                raise RecipeFailedError(f"{candidate.title}: {error}") from error
            model = replace(model, about={**model.about, "trial": key})
            if kept is not None:
                model.save(kept)
        models.append(model)
    return Refit(candidate=candidate, values=dict(values), models=models)


def reported(
    design: Design, winner: Refit, baseline: Refit, *, num_openings: int, folder: Path | None
) -> Left:
    """Judges both on the rows kept to report, which are looked at here and nowhere else.

    Args:
        design: of the comparison.
        winner: what is left behind.
        baseline: the plain recipe; the winner itself where nothing beat it.
        num_openings: of the report rows, this one among them; 0 when there are none.
        folder: of the run, where the winner's first model goes; None writes nothing.
    """
    if folder is not None:
        winner.models[0].save(folder / MODEL)
    is_same = winner.candidate.name == baseline.candidate.name
    scores, others = dict[str, float](), dict[str, dict[str, float]]()
    interval = None
    if num_openings:
        refits = [winner] if is_same else [winner, baseline]
        outputs = {refit.candidate.name: _outputs(design, refit) for refit in refits}
        for refit in refits:
            found = _measured(refit, outputs[refit.candidate.name], _truth(design, refit))
            scores[refit.candidate.name] = found[design.metric.name]
            others[refit.candidate.name] = {k: v for k, v in found.items() if k != design.metric.name}
        if not is_same and design.training.task != "matches":
            interval = _interval(design, winner, baseline, outputs)
    return Left(
        recipe=winner.candidate.name, values=winner.values, model=None if folder is None else MODEL,
        num_seeds=len(winner.models), scores=scores, others=others,
        difference=None if interval is None else interval[0],
        low=None if interval is None else interval[1], high=None if interval is None else interval[2],
        num_openings=num_openings, last_layer=_last_layer(design, winner.models[0]) if num_openings else None,
    )  # fmt: skip


def _known(folder: Path, key: str) -> Model | None:
    try:
        model = load(folder)
    except MarginsError:
        return None  # none yet, or half a one: it is trained again
    return model if model.about.get("trial") == key else None


def _last_layer(design: Design, model: Model) -> LastLayer | None:
    """The geometry of a linear head's features; None of others, and where a class has no training row."""
    if design.training.task != "classes" or not isinstance(model.network.head, LinearHead):
        return None
    rows, given = torch.from_numpy(design.last.train), design.last.labels
    given = class_ids(design.rows.targets).numpy() if given is None else given
    names = [design.rows.names[k] for k in given[design.last.train]]
    if len(model.classes) > MOST_CLASSES or set(names) != set(model.classes):
        return None
    found = collapse_of(model, design.rows.frame.take(rows), names)
    assert found.nc4 is not None and found.weight_norms is not None  # noqa: S101, PT018 - there is a head
    shortest = min(range(len(model.classes)), key=found.weight_norms.__getitem__)
    return LastLayer(
        spread=found.nc1, off_diagonal=found.off_diagonal, disagreement=found.nc4,
        shortest=model.classes[shortest],
        length=found.weight_norms[shortest] / max(found.weight_norms),
    )  # fmt: skip


def _outputs(design: Design, refit: Refit) -> list[Tensor]:
    report = design.rows.frame.take(torch.from_numpy(design.rows.report))
    return [model.scores(report) for model in refit.models]


def _truth(design: Design, refit: Refit) -> Targets:
    cells = design.rows.frame.table[design.rows.columns.target or ""]
    targets = refit.models[0].coding.targets(cells)
    weight = design.rows.targets.row_weight
    targets = targets if weight is None else targets.weigh(rows=weight)
    return targets.take(torch.from_numpy(design.rows.report))


def _measured(refit: Refit, outputs: Sequence[Tensor], truth: Targets) -> dict[str, float]:
    """Each metric, averaged over seeds; those that the rows allow."""
    each = [
        measured_outputs(model, scores, truth) for model, scores in zip(refit.models, outputs, strict=True)
    ]
    names = [refit.models[0].recipe.metric, *SHOWN[refit.models[0].recipe.task]]
    return {n: fmean(one[n] for one in each) for n in dict.fromkeys(names) if all(n in one for one in each)}


def _interval(
    design: Design, winner: Refit, baseline: Refit, outputs: Mapping[str, Sequence[Tensor]]
) -> tuple[float, float, float]:
    """The difference on the report rows: seeds and rows (or groups) drawn together."""
    truth = _truth(design, winner)
    metric, groups, weight = design.metric, design.rows.groups, truth.row_weight
    predictions: dict[str, list[Any]] = {}
    true: Any = None
    for refit in (winner, baseline):
        pairs = [
            judged_by(metric, model, scores, truth)
            for model, scores in zip(refit.models, outputs[refit.candidate.name], strict=True)
        ]
        predictions[refit.candidate.name] = [p for p, _ in pairs]
        true = pairs[0][1]
    found = paired_bootstrap(
        metric, predictions[winner.candidate.name], predictions[baseline.candidate.name], true,
        seed=design.seed, num=RESAMPLES, confidence=design.confidence,
        groups=None if groups is None else groups[design.rows.report],
        weight=None if weight is None else weight.double().numpy(),
    )  # fmt: skip
    return found.value, found.low, found.high
