"""A field: a value for every entry of a targets matrix, stored as small as it is.

A field is a 2-D tensor that broadcasts to [anchors, candidates]: [1, 1], [anchors, 1], [1, candidates] or
whole. Slicing and gathering respect the axes that are not there. None is the neutral field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from margins.errors import MarginsError, describe

Field = Shaped[Tensor, "rows columns"]


def columns_of(field: Tensor | None, start: int, stop: int) -> Tensor | None:
    """The part of a field over columns start to stop."""
    return field if field is None or field.shape[1] == 1 else field[:, start:stop]


def entries_of(
    field: Tensor | None, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]
) -> Shaped[Tensor, " n"] | None:
    """Single entries of a field."""
    if field is None:
        return None
    row = rows if field.shape[0] > 1 else torch.zeros_like(rows)
    column = columns if field.shape[1] > 1 else torch.zeros_like(columns)
    return field[row, column]


def rows_of(field: Tensor | None, rows: Int[Tensor, " taken"], num_anchors: int) -> Tensor | None:
    """The part of a field over some rows."""
    return field if field is None or (field.shape[0] == 1 and num_anchors != 1) else field[rows]


def combined(
    first: Tensor | None, second: Tensor | None, how: Callable[[Tensor, Tensor], Tensor]
) -> Tensor | None:
    """Two layers as one; None is neutral."""
    if first is None or second is None:
        return second if first is None else first
    return how(first, second)


def stacked(parts: Sequence[Tensor | None], heights: Sequence[int], neutral: float | bool) -> Tensor | None:
    """The fields of several targets, one above the other."""
    given = [p for p in parts if p is not None]
    if not given:
        return None
    if len(given) == len(parts) and all(p is given[0] and p.shape[0] == 1 for p in given):
        return given[0]
    width = max(p.shape[1] for p in given)
    filler = given[0].new_full((1, 1), neutral)
    return torch.cat(
        [(filler if p is None else p).expand(h, width) for p, h in zip(parts, heights, strict=True)]
    )


def as_field(
    name: str,
    shape: tuple[int, int],
    *,
    rows: Tensor | None = None,
    candidates: Tensor | None = None,
    entries: Tensor | None = None,
) -> Field:
    """The one of `rows` [B], `candidates` [C] and `entries` [B, C] that was given, as a field."""
    given = {
        k: v for k, v in {"rows": rows, "candidates": candidates, "entries": entries}.items() if v is not None
    }
    if len(given) != 1:
        raise MarginsError(
            name,
            expected="exactly one of rows=[B], candidates=[C], entries=[B, C]",
            received=", ".join(given) or "none of them",
            fix="chain two calls to give two layers",
        )
    axis, value = next(iter(given.items()))
    wanted = {"rows": (shape[0],), "candidates": (shape[1],), "entries": shape}[axis]
    if tuple(value.shape) != wanted:
        letters = {"rows": "[B]", "candidates": "[C]", "entries": "[B, C]"}[axis]
        raise MarginsError(
            f"{name}({axis}=)", expected=f"{letters} = {list(wanted)}", received=describe(value)
        )
    if axis == "entries":
        return value
    return value[:, None] if axis == "rows" else value[None, :]
