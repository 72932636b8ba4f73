"""Recipes from data: what is wrong is told with its place, an unknown key with the nearest known one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from margins.data.nearest import suggestion
from margins.encoders.settings import Settings
from margins.errors import MarginsError

__all__ = ["Settings", "validated"]

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], data: Mapping[str, Any], *, what: str) -> Model:
    """The model of this data.

    Args:
        model: a pydantic model.
        data: as read from a file or an option.
        what: what a message calls the whole, e.g. "recipe.yaml".

    Raises:
        MarginsError: the first thing that is wrong, with its place and, for an unknown key, the nearest one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _told(error, model, what) from None


def _told(error: ValidationError, model: type[BaseModel], what: str) -> MarginsError:
    # An unknown key explains more than what is missing because of it.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"])
    where = f"{what}: {place}" if place else what
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        return MarginsError(
            where, expected="a known key", received=repr(first["loc"][-1]),
            fix=suggestion(str(first["loc"][-1]), known) if known else "take it out",
        )  # fmt: skip
    context = first.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, MarginsError):
        return MarginsError(
            f"{where} ({cause.argument})", expected=cause.expected, received=cause.received, fix=cause.fix
        )
    expected = str(context.get("expected_tags") or first["msg"].removeprefix("Input should be "))
    return MarginsError(where, expected=expected, received=repr(first["input"])[:100])


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys that the part of the model at this path takes; none when the path leads elsewhere."""
    current: Any = model
    for step in path:
        current = _stepped(current, step)
        if current is None:
            return []
    return list(current.model_fields) if _is_model(current) else []


def _stepped(current: Any, step: int | str) -> Any:
    if _is_model(current):
        field = current.model_fields.get(str(step))
        return None if field is None else field.annotation
    # A union told apart by name, perhaps below a list or None: the step is the name of one of its models.
    for candidate in _models_in(current):
        if isinstance(step, int):
            return current
        name = candidate.model_fields.get("name")
        if name is not None and name.default == step:
            return candidate
        if step in candidate.model_fields:
            return candidate.model_fields[step].annotation
    return None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if _is_model(annotation):
        return [annotation]
    found: list[type[BaseModel]] = []
    for part in getattr(annotation, "__args__", ()):
        found += _models_in(part)
    return found


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
