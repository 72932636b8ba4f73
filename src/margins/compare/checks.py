"""What is found out before anything is trained: it would be dear to find out later."""

from __future__ import annotations

import torch

from margins.compare.candidates.candidate import Candidate
from margins.compare.candidates.spaces import Choice
from margins.compare.planning import Design
from margins.compare.problem.folding import FoldRoles
from margins.compare.problem.inputs import InputsOf
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.predicting import measured
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
    sentences = _check_recipes(design)
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


def _check_recipes(design: Design) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for candidate in design.candidates:
        recipe = candidate.recipe(design.training)
        _check_space(design, candidate)
        if recipe.task not in ("classes", "label_sets"):
            continue
        counts, num_rows = _training_counts(design, design.last)
        try:
            refuse_double_correction(recipe, counts, design.rows.names)
        except MarginsError as error:
            raise MarginsError(
                f"recipe {candidate.name}: {error.argument}", expected=error.expected,
                received=error.received, fix=error.fix,
            ) from None  # fmt: skip
        told = prior_ledger(recipe, counts, design.rows.names, num_rows=num_rows).sentences()
        if told:
            found[candidate.name] = told
    return found


def _check_space(design: Design, candidate: Candidate) -> None:
    """Refuses a space with a value that the recipe cannot have; both ends of each span and every option."""
    for path, dimension in candidate.whole_space.items():
        ends = dimension.options if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        for value in ends:
            candidate.recipe(design.training, {path: value})


def _training_counts(design: Design, roles: FoldRoles) -> tuple[torch.Tensor, int]:
    """[C] training rows of each class or label, and how many rows train."""
    rows = torch.from_numpy(roles.train)
    if roles.labels is not None:
        targets = Targets.of_classes(torch.from_numpy(roles.labels), len(design.rows.names)).take(rows)
    else:
        targets = design.rows.targets.take(rows)
    columns = targets.positives().columns
    return torch.bincount(columns, minlength=len(design.rows.names)), len(rows)


def _check_measurable(design: Design, targets: Targets, what: str) -> None:
    """Refuses rows whose classes or weights leave the metric undefined, whatever is predicted."""
    num = targets.num_candidates
    # No two equal in a row: metrics at k look closer at ties, which with many labels takes long.
    scores = torch.linspace(-1.0, 1.0, num).expand(len(targets), num)
    try:
        measured(design.metric, design.training.task, scores, targets)
    except MarginsError as error:
        raise MarginsError(
            what,
            expected=f"rows on which {design.metric.name} can be measured",
            received=f"some on which it cannot ({error})",
            fix="ask for fewer folds, another seed or another metric",
        ) from error
