"""The recipe to start with, from the data alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from margins.data.columns import Columns, InputKind, TargetKind
from margins.data.settings import validated
from margins.encoders.choosing import default_encoder
from margins.errors import MarginsError
from margins.training.recipe import Recipe, Task

_IMAGE_VIEWS = 300_000
_TASKS: dict[TargetKind, Task] = {
    "label": "classes", "label_set": "label_sets", "path": "label_sets", "value": "values",
}  # fmt: skip
_METRICS: dict[Task, str] = {
    "classes": "macro_f1", "label_sets": "macro_f1", "values": "rmse", "matches": "map@r",
}  # fmt: skip
_LOSSES: dict[Task, str] = {
    "classes": "cross_entropy", "label_sets": "binary_cross_entropy", "values": "squared_error",
    "matches": "sup_con",
}  # fmt: skip


def default_recipe(
    columns: Columns, changes: Mapping[str, Any] | None = None, *, num_rows: int = 10_000
) -> Recipe:
    """A recipe for these columns.

    Args:
        columns: with a target.
        changes: keys of a recipe that are not to have their defaults, nested as in YAML.
        num_rows: of the data; small sets of images are seen more often.

    Raises:
        MarginsError: no target, or a change that does not fit.

    Example:
        >>> columns = Columns(inputs={"text": "text"}, target="topic", target_kind="label")
        >>> recipe = default_recipe(columns, {"objective": {"loss": "focal"}})
        >>> recipe.task, recipe.encoder.name, recipe.objective.loss
        ('classes', 'hashed_text', 'focal')
    """
    if columns.target_kind is None:
        raise MarginsError("target", expected="a column to predict", received="none", fix="name one")
    given = dict(changes or {})
    task = given.get("task", _TASKS[columns.target_kind])
    if not isinstance(task, str) or task not in _LOSSES:
        raise MarginsError("task", expected=f"one of {', '.join(_LOSSES)}", received=repr(task))
    start: dict[str, Any] = {
        "task": task,
        "encoder": default_encoder(columns.inputs).model_dump(),
        "objective": {"loss": _LOSSES[task]},
        "metric": _METRICS[task],
        **_pace(set(columns.inputs.values()), num_rows),
    }
    if task == "matches":
        start |= {"head": {"name": "projection"}, "draw": {"name": "several_per_class"}}
    # Written out in full first, so that a change of a part need not name its kind.
    plain = validated(Recipe, start, what="recipe").model_dump()
    return validated(Recipe, _laid_over(plain, given), what="recipe")


def _pace(kinds: set[InputKind], num_rows: int) -> dict[str, Any]:
    """How long and how fast to train inputs of these kinds."""
    if "image" in kinds:
        return {
            "max_epochs": min(max(_IMAGE_VIEWS // max(num_rows, 1), 5), 40), "patience": None,
            "schedule": {"name": "one_cycle"},
            "optimizer": {"name": "adamw", "learning_rate": 5e-3},
        }  # fmt: skip
    if kinds & {"text", "text_pair"}:
        return {"max_epochs": 30, "patience": 6}
    # An epoch of a perceptron is cheap and its way long: it stops late.
    return {"max_epochs": 100, "patience": 15}


def _laid_over(start: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Changes over defaults; a part with another name starts from its own defaults."""
    merged = dict(start)
    for key, value in given.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            another = "name" in value and value["name"] != below.get("name")
            merged[key] = dict(value) if another else _laid_over(below, value)
        else:
            merged[key] = value
    return merged
