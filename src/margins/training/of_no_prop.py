"""Recipes whose head's blocks learn alone: what goes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from margins.errors import MarginsError
from margins.training.objective_settings import ObjectiveSettings

if TYPE_CHECKING:
    from margins.training.recipe import Recipe


def refuse_what_no_prop_cannot_have(recipe: Recipe) -> None:
    """Raises MarginsError for the head without its step, the reverse, and parts that they have no use for."""
    head, step, encoder = recipe.head.name, recipe.step.name, recipe.encoder
    if (head == "no_prop") != (step == "no_prop"):
        raise MarginsError(
            "step" if head == "no_prop" else "head", expected="head no_prop with step no_prop",
            received=f"head {head}, step {step}", fix="name both, or neither",
        )  # fmt: skip
    if head != "no_prop":
        return
    parts: list[tuple[str, object, bool, str]] = [
        ("encoder", encoder.name, encoder.is_fixed,
         "one that is not trained, as embeddings with depth 0 and pretrained_text with mode frozen"),
        ("objective", recipe.objective.loss, recipe.objective == ObjectiveSettings(),
         "left as it comes, for the blocks have losses of their own"),
        ("mix", recipe.mix.name, recipe.mix.name == "none", "none"),
        ("evaluator", recipe.evaluator, recipe.evaluator == "dense", "dense"),
    ]  # fmt: skip
    for part, value, goes_with_it, wanted in parts:
        if not goes_with_it:
            raise MarginsError(
                part, expected=f"with head no_prop: {wanted}", received=str(value), fix="change it"
            )
