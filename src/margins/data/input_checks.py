"""Whether the cells of a column can be what its kind says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.data.row_names import named_rows, true_rows
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl


def check_inputs(frame: Frame, inputs: Mapping[str, InputKind]) -> None:
    """Refuses columns whose cells cannot be of their kind, and numbers that are not finite.

    Raises:
        MarginsError: with the column, what stands in it and where.
    """
    for name, kind in inputs.items():
        cells = frame.table[name]
        if not _fits(cells, kind):
            raise MarginsError(
                f"inputs: column {name!r}",
                expected=_EXPECTED[kind],
                received=_received(cells),
                fix="choose another kind with kinds=",
            )
        if kind == "numeric":
            _check_finite(cells)
    pair = [name for name, kind in inputs.items() if kind == "text_pair"]
    if len(pair) not in (0, 2):
        raise MarginsError(
            "inputs",
            expected="two columns of kind text_pair: queries, then documents",
            received=f"{len(pair)} ({', '.join(pair)})",
        )


_EXPECTED: dict[InputKind, str] = {
    "text": "text",
    "text_pair": "text",
    "image": "paths of images, or arrays [h, w] or [h, w, c] of UInt8",
    "numeric": "numbers",
    "categorical": "text, whole numbers or booleans",
    "embedding": "arrays [d] of floats",
}


def _fits(cells: pl.Series, kind: InputKind) -> bool:
    import polars as pl

    dtype: Any = cells.dtype
    num_dims = len(dtype.shape) if isinstance(dtype, pl.Array) else 0
    return {
        "text": dtype == pl.String,
        "text_pair": dtype == pl.String,
        "image": num_dims > 1 or dtype == pl.String,
        "numeric": dtype in (pl.Int64, pl.Float64, pl.Boolean),
        "categorical": dtype in (pl.String, pl.Int64, pl.Boolean),
        "embedding": num_dims == 1,
    }[kind]


def _received(cells: pl.Series) -> str:
    import polars as pl

    if cells.dtype != pl.String:
        return f"{cells.dtype} cells"
    odd = true_rows(cells.is_not_null() & cells.str.strip_chars().cast(pl.Float64, strict=False).is_null())
    return f"{cells[int(odd[0])]!r} in {named_rows(odd)}" if len(odd) else "text cells"


def _check_finite(cells: pl.Series) -> None:
    import polars as pl

    if cells.dtype != pl.Float64:
        return
    wrong = true_rows(~cells.is_finite())
    if len(wrong):
        raise MarginsError(
            f"inputs: column {cells.name!r}",
            expected="finite numbers, or empty cells where one is missing",
            received=f"{cells[int(wrong[0])]} in {named_rows(wrong)}",
            fix="correct these rows, or empty the cells",
        )
