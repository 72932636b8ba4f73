"""Settings that are data: they go to YAML and JSON, and a wrong one is told with its place and cure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from margins.data.nearest import suggestion
from margins.errors import MarginsError

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """Named, validated, immutable settings.

    Example:
        >>> class Size(Settings):
        ...     width: int = 3
        >>> Size(width="wide")
        Traceback (most recent call last):
        margins.errors.MarginsError: width: expected a valid integer, unable to parse string as an integer,
        got 'wide'
        >>> Size(widht=4)
        Traceback (most recent call last):
        margins.errors.MarginsError: widht: expected a known setting, got 4; did you mean width? known: width
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise told(error, type(self)) from None


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
        raise told(error, model, what) from None


def told(error: ValidationError, model: type[BaseModel], what: str = "") -> MarginsError:
    """The first of what pydantic found wrong, as the house tells mistakes."""
    # An unknown key explains more than what is missing because of it.
    problems = sorted(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    first = problems[0]
    context = first.get("ctx", {})
    cause = context.get("error")
    # Settings inside these tell their own mistakes; the place is then that of the whole way.
    inner = [cause.argument] if isinstance(cause, MarginsError) else []
    place = ".".join([*(str(part) for part in first["loc"]), *inner])
    where = ": ".join(part for part in (what, place) if part) or error.title
    if isinstance(cause, MarginsError):
        return MarginsError(where, expected=cause.expected, received=cause.received, fix=cause.fix)
    if first["type"] == "extra_forbidden":
        return MarginsError(
            where, expected="a known setting", received=repr(first["input"])[:100],
            fix=suggestion(str(first["loc"][-1]), list(model.model_fields)),
        )  # fmt: skip
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if "expected_tags" in context:
        expected = f"one of {context['expected_tags']}"
    return MarginsError(where, expected=expected, received=repr(first["input"])[:100])
