"""What is found out before anything is trained: it would be dear to find out later."""

from __future__ import annotations

import torch

from margins.compare.candidates.candidate import Candidate
from margins.compare.candidates.spaces import Choice
from margins.compare.planning import Design
from margins.compare.problem.inputs import InputsOf
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.predicting import refuse_unmeasurable
from margins.training.prior import prior_ledger, refuse_double_correction


def check_design(design: Design, inputs_of: InputsOf) -> dict[str, list[str]]:
    """Refuses what some trial could not use.

    Args:
        design: of the comparison.
        inputs_of: makes the inputs of all rows.

    Returns:
        name of a recipe to sentences on the class prior that its training sees, of those that move it.

    Raises:
        MarginsError: rows that cannot be prepared or measured, a recipe whose parts do not fit together, or
            one in which several parts correct the class prior.
    """
    sentences = _check_recipes(design, inputs_of)
    for roles in design.places:
        with_test = bool(len(roles.test))
        problem = design.rows.problem(roles.division(with_test=with_test), inputs_of, roles.labels)
        for role in ("select", "test") if with_test else ("select",):
            rows = torch.from_numpy(getattr(roles, role))
            _check_measurable(design, problem.targets.take(rows), f"{role} rows of {roles.name}")
        columns = design.rows.columns
        fitted = design.training.encoder.prepare(
            problem.training_frame().only(list(columns.inputs)), columns.inputs
        )
        inputs_of(fitted)
    return sentences


def _check_recipes(design: Design, inputs_of: InputsOf) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    last = design.last
    problem = design.rows.problem(last.division(with_test=False), inputs_of, last.labels)
    targets = problem.targets.take(torch.from_numpy(last.train))
    for candidate in design.candidates:
        recipe = candidate.recipe(design.training)
        _check_space(design, candidate)
        if recipe.task not in ("classes", "label_sets"):
            continue
        counts = torch.bincount(targets.positives().columns, minlength=len(design.rows.names))
        try:
            refuse_double_correction(recipe, counts, design.rows.names)
        except MarginsError as error:
            raise MarginsError(
                f"recipe {candidate.name}: {error.argument}", expected=error.expected,
                received=error.received, fix=error.fix,
            ) from None  # fmt: skip
        told = prior_ledger(recipe, counts, design.rows.names, num_rows=len(targets)).sentences()
        if told:
            found[candidate.name] = told
    return found


def _check_space(design: Design, candidate: Candidate) -> None:
    """Refuses a space with a value that the recipe cannot have; both ends of each span and every option."""
    for path, dimension in candidate.whole_space.items():
        ends = dimension.options if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        for value in ends:
            candidate.recipe(design.training, {path: value})


def _check_measurable(design: Design, targets: Targets, what: str) -> None:
    """Refuses rows whose classes or weights leave the metric undefined, whatever is predicted."""
    try:
        refuse_unmeasurable(design.metric, design.training.task, targets)
    except MarginsError as error:
        raise MarginsError(
            what,
            expected=f"rows on which {design.metric.name} can be measured",
            received=f"some on which it cannot ({error})",
            fix="ask for fewer folds, another seed or another metric",
        ) from error
