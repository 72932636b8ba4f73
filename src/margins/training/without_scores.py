"""Recipes that train without a matrix of scores: a spherical head, or a linear one scored block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from margins.engine import Blockwise, Evaluator, Spherical
from margins.engine.spherical.evaluator import refusal_of
from margins.errors import MarginsError
from margins.losses.forms import EmbeddingLoss, StatisticsLoss
from margins.training.objective_settings import new_loss

if TYPE_CHECKING:
    from margins.training.recipe import Recipe


def evaluator_of(recipe: Recipe) -> Evaluator | None:
    """What runs the loss on the head's `source`; None when the head makes all scores."""
    if recipe.head.name == "spherical":
        return Spherical()
    return Blockwise() if recipe.evaluator == "blockwise" else None


def refuse_what_needs_scores(recipe: Recipe) -> None:
    """Raises MarginsError for parts that do not go with a recipe that makes no matrix of scores."""
    if recipe.head.name == "spherical":
        _refuse("head spherical", [*_beside_spherical(recipe), *_beside_both(recipe)])
        _refuse_loss(recipe)
    elif recipe.evaluator == "blockwise":
        head = recipe.head.name
        _refuse("evaluator blockwise", [("head", head, head == "linear", "linear"), *_beside_both(recipe)])


Part = tuple[str, object, bool, str]
"""A part of a recipe, what it is, whether it goes with the head, and what would."""


def _beside_spherical(recipe: Recipe) -> list[Part]:
    evaluator, task, step, averaging = recipe.evaluator, recipe.task, recipe.step.name, recipe.averaging.name
    targets = recipe.objective.targets
    changed = {
        "smooth": (targets.smooth, "it gives every class a share"),
        "logit_adjustment": (targets.logit_adjustment, "it moves every score"),
        "class_margins": (targets.class_margins, "margins move scores"),
    }
    return [
        ("evaluator", evaluator, evaluator == "dense", "dense, which its own takes the place of"),
        ("task", task, task in ("classes", "label_sets"), "classes or label_sets"),
        ("step", step, step == "standard", "standard, for it takes one step a batch"),
        ("averaging", averaging, averaging == "none", "none, for its weights are factored"),
        ("precision", recipe.precision, recipe.precision != "fp16", "32 or bf16"),
        *(
            (f"objective.targets.{name}", value, not value, f"0, for {why}")
            for name, (value, why) in changed.items()
        ),
    ]


def _beside_both(recipe: Recipe) -> list[Part]:
    loss = new_loss(recipe.objective.loss, recipe.objective.settings)
    is_of_rows = isinstance(loss, StatisticsLoss) and not isinstance(loss, EmbeddingLoss)
    is_fit = is_of_rows and loss.card.distributed == "independent"
    link, accumulate = recipe.objective.link, recipe.accumulate
    is_whole = accumulate == 1 or not recipe.objective.penalties
    return [
        ("objective.loss", recipe.objective.loss, is_fit, "a loss declared by statistics of its rows"),
        ("objective.link", link, link == "none", "none, for it needs every score"),
        ("accumulate", accumulate, is_whole, "1 with penalties, which see the whole batch"),
    ]


def _refuse(what: str, parts: list[Part]) -> None:
    for part, value, goes_with_it, wanted in parts:
        if not goes_with_it:
            raise MarginsError(
                part, expected=f"with {what}: {wanted}", received=str(value),
                fix="change it, or use head linear with the evaluator dense",
            )  # fmt: skip


def _refuse_loss(recipe: Recipe) -> None:
    loss = new_loss(recipe.objective.loss, recipe.objective.settings)
    why = refusal_of(loss.stages()) if isinstance(loss, StatisticsLoss) else ""
    if why:
        raise MarginsError(
            "objective.loss",
            expected="with head spherical: z_loss, squared_error, spherical_softmax or taylor_softmax",
            received=f"{recipe.objective.loss}: {why}",
            fix="use one of these, or head linear with evaluator blockwise",
        )  # fmt: skip
