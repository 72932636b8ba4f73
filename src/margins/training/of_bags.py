"""Recipes that learn from the mean targets of bags: what goes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from margins.errors import MarginsError
from margins.training.objective_settings import TargetSettings, loss_named

if TYPE_CHECKING:
    from margins.training.recipe import Recipe


def refuse_what_bags_cannot_have(recipe: Recipe) -> None:
    """Raises MarginsError for a loss of bags without bags, the reverse, and parts that look into bags."""
    draw, objective = recipe.draw.name, recipe.objective
    is_loss, is_draw = loss_named(objective.loss).form == "bags", draw == "bags"
    if is_loss != is_draw:
        raise MarginsError(
            "draw" if is_loss else "objective.loss",
            expected="draw bags with a loss of bags, and no other", received=f"{draw} and {objective.loss}",
            fix="draw: {name: bags, size: 8} with objective: {loss: aggregated}",
        )  # fmt: skip
    if not is_draw:
        return
    base = objective.settings.get("base", "squared_error")
    parts: list[tuple[str, object, bool, str]] = [
        ("mix", recipe.mix.name, recipe.mix.name == "none", "none"),
        ("refresh", [part.name for part in recipe.refresh], not recipe.refresh, "none"),
        ("plan", f"{len(recipe.plan)} further phases", not recipe.plan, "none, whose bags would be others"),
        ("objective.penalties", len(objective.penalties), not objective.penalties, "none"),
        ("objective.link", objective.link, objective.link == "none", "none"),
        ("objective.targets", "changes", objective.targets == TargetSettings(), "no changes"),
        ("objective.settings.base", base, recipe.task == "classes" or base == "squared_error",
         "squared_error for the task values"),
    ]  # fmt: skip
    for part, value, goes_with_it, wanted in parts:
        if not goes_with_it:
            raise MarginsError(
                part, expected=f"with draw bags: {wanted}", received=str(value), fix="take it out"
            )
