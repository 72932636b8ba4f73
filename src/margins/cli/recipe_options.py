"""Options that name parts of a recipe or kinds of columns, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

from margins.errors import MarginsError

_NAMED = frozenset({"encoder", "head", "draw", "mix", "step", "optimizer", "schedule", "averaging"})


def kinds_of(pairs: list[str]) -> dict[str, Any] | None:
    """`COLUMN=KIND` options as a mapping."""
    split = [pair.rpartition("=") for pair in pairs]
    for pair, (column, _, kind) in zip(pairs, split, strict=True):
        if not column or not kind:
            raise MarginsError("--kind", expected="COLUMN=KIND, e.g. note=text", received=repr(pair))
    return {column: kind for column, _, kind in split} or None


def recipe_changes(
    shortcuts: Mapping[str, Any], pairs: list[str], start: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a recipe file says, then what options with a name say, then `--set`: the later wins.

    Args:
        shortcuts: path of a key to value; None where nothing was said.
        pairs: `KEY=VALUE` options.
        start: what a recipe file says.

    Example:
        >>> recipe_changes({"encoder": "tabular", "seed": None}, ["optimizer.learning_rate=0.01"])
        {'encoder': {'name': 'tabular'}, 'optimizer': {'learning_rate': 0.01}}
    """
    changes = deepcopy(dict(start or {}))
    for path, value in shortcuts.items():
        if value is not None:
            _put(changes, path, value)
    for pair in pairs:
        path, sign, text = pair.partition("=")
        if not sign or not path:
            raise MarginsError(
                "--set", expected="KEY=VALUE, e.g. optimizer.learning_rate=0.01", received=repr(pair)
            )
        _put(changes, path, _value(text))
    return changes


def _put(changes: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        below = changes.setdefault(key, {})
        if not isinstance(below, dict):
            raise MarginsError(
                "--set", expected=f"a part below which {last!r} can stand", received=repr(path)
            )
        changes = cast("dict[str, Any]", below)
    if isinstance(value, str) and last in _NAMED:
        changes[last] = {"name": value}
    else:
        changes[last] = value


def _value(text: str) -> Any:
    """A value as YAML reads it: numbers, true, null, lists; anything else is text."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
