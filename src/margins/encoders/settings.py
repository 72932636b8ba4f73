"""Settings that are data, read and written as YAML and JSON; a wrong one is told as other mistakes are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from margins.data.nearest import suggestion
from margins.errors import MarginsError


class Settings(BaseModel):
    """Named, validated, immutable settings.

    Example:
        >>> class Size(Settings):
        ...     width: int = 3
        >>> Size(width=0.5)
        Traceback (most recent call last):
        margins.errors.MarginsError: width: expected a valid integer, got a number with a fractional part, got
        0.5
        >>> Size(widht=4)
        Traceback (most recent call last):
        margins.errors.MarginsError: widht: expected a known setting, got 4; did you mean width? known: width
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise told(error, known=list(type(self).model_fields)) from error


def told(error: ValidationError, *, known: list[str] | None = None) -> MarginsError:
    """The first of what pydantic found wrong, as the house tells mistakes."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(step) for step in first["loc"]) or error.title
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, MarginsError):  # from settings inside these
        inner = f"{place}.{cause.argument}" if first["loc"] else cause.argument
        return MarginsError(inner, expected=cause.expected, received=cause.received, fix=cause.fix)
    if first["type"] == "extra_forbidden":
        expected, fix = "a known setting", suggestion(str(first["loc"][-1]), known or [])
    else:
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        fix = ""
    return MarginsError(place, expected=expected, received=repr(first["input"])[:200], fix=fix)
