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
    encoder = {"encoder": default_encoder(columns.inputs).model_dump()}
    chosen = over(encoder, {key: value for key, value in given.items() if key == "encoder"})["encoder"]
    start: dict[str, Any] = {
        "task": task,
        **encoder,
        "objective": {"loss": _LOSSES[task]},
        "metric": _METRICS[task],
        **_pace(chosen if isinstance(chosen, Mapping) else {}, task, set(columns.inputs.values()), num_rows),
    }
    if task == "matches":
        start |= {"head": {"name": "projection"}, "draw": {"name": "several_per_class"}}
    # Written out in full first, so that a change of a part need not name its kind.
    plain = validated(Recipe, start, what="recipe").model_dump()
    return validated(Recipe, over(plain, given), what="recipe")


def _pace(encoder: Mapping[str, Any], task: str, kinds: set[InputKind], num_rows: int) -> dict[str, Any]:
    """How long and how fast to train this encoder on this task."""
    if "image" in kinds:
        epochs = min(max(_IMAGE_VIEWS // max(num_rows, 1), 5), 40)
        rate = 1e-3 if encoder.get("name") == "small_vit" else 5e-3
        return _paced(epochs, None, "one_cycle", learning_rate=rate)
    if encoder.get("name") == "pretrained_text" and encoder.get("mode", "frozen") != "frozen":
        return _paced(4, None, "one_cycle", learning_rate=3e-5 if encoder["mode"] == "finetune" else 5e-4)
    if encoder.get("name") in ("embeddings", "pretrained_text") and not encoder.get("depth"):
        # On unit vectors with true L2 decay this is logistic regression, and comes near its optimum.
        if task == "classes":
            return _paced(60, None, "cosine", name="sgd", learning_rate=4.0, weight_decay=1e-5)
        return _paced(100, 15, "constant", learning_rate=1e-2)
    # An epoch of a perceptron is cheap and its way long: it stops late.
    epochs, patience = (30, 6) if kinds & {"text", "text_pair"} else (100, 15)
    return _paced(epochs, patience, "constant")


def _paced(max_epochs: int, patience: int | None, schedule: str, **optimizer: Any) -> dict[str, Any]:
    return {
        "max_epochs": max_epochs, "patience": patience, "schedule": {"name": schedule},
        "optimizer": {"name": "adamw", **optimizer},
    }  # fmt: skip


def over(start: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Changes over defaults; a part with another name starts from its own defaults."""
    merged = dict(start)
    for key, value in given.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            another = "name" in value and value["name"] != below.get("name")
            merged[key] = dict(value) if another else over(below, value)
        else:
            merged[key] = value
    return merged
