"""What scikit-learn users pass as X, as a frame with a kind for each column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from margins.data.columns import InputKind
from margins.data.extras import extra
from margins.data.frame import Frame
from margins.data.nearest import suggestion
from margins.data.reading import read_frame
from margins.data.row_names import named_rows, true_rows
from margins.errors import MarginsError, describe

if TYPE_CHECKING:
    import polars as pl

Kinds = Mapping[str, InputKind] | InputKind | None

TEXT, VECTOR = "text", "vector"


def read_rows(estimator: Any, X: Any, kinds: Kinds, *, is_fit: bool) -> tuple[Frame, Kinds]:
    """X as a frame, checked as scikit-learn checks it.

    Args:
        estimator: remembers the names and the number of columns when it is fitted.
        X: an array [N, d] of numbers, a data frame, or a list or array of texts.
        kinds: see `kinds_of`.
        is_fit: whether this is the data that it is fitted on.

    Returns:
        the rows, and the kinds given, which for texts alone is "text" if nothing was said.

    Raises:
        MarginsError: cells that have no place in a frame.
        ValueError: what scikit-learn refuses: no rows, infinite numbers, another number of columns.
    """
    texts = _texts_of(X)
    if texts is not None:
        return read_frame({TEXT: texts}), "text" if kinds is None else kinds
    with extra("tool"):
        from sklearn.utils.validation import validate_data
    if hasattr(X, "columns") or hasattr(X, "column_names"):
        frame = read_frame(_named_by_texts(X))
        validate_data(estimator, X, reset=is_fit, skip_check_array=True)
        return frame, kinds
    values = validate_data(estimator, X, reset=is_fit, dtype=np.float64, ensure_all_finite="allow-nan")
    return read_frame(_columns_of(values, kinds)), kinds


def kinds_of(frame: Frame, kinds: Kinds) -> dict[str, InputKind]:
    """The kind of each column: numeric, categorical for text and booleans, embedding for lists of floats.

    Args:
        frame: of `read_rows`.
        kinds: of the columns that are otherwise, by name; or one kind for all: "embedding" takes the rows of
            an array as vectors.

    Raises:
        MarginsError: a name that is no column, an unknown kind, or cells that are none by themselves.

    Example:
        >>> frame = read_frame({"age": [31, 45], "city": ["Oslo", "Bonn"], "note": ["new", "old"]})
        >>> kinds_of(frame, {"note": "text"})
        {'age': 'numeric', 'city': 'categorical', 'note': 'text'}
    """
    if isinstance(kinds, str):
        return cast("dict[str, InputKind]", dict.fromkeys(frame.names, kinds))
    given: dict[str, InputKind] = dict(kinds) if kinds else {}
    for name in given:
        if name not in frame.names:
            raise MarginsError(
                "kinds", expected="columns of X", received=repr(name), fix=suggestion(name, frame.names)
            )
    return {name: given.get(name) or _kind(frame, name) for name in frame.names}


def kind_notes(frame: Frame, kinds: Mapping[str, InputKind], given: Kinds) -> list[str]:
    """Notes on columns of text that were taken as categories though hardly any value comes twice."""
    named: set[str] = set(frame.names) if isinstance(given, str) else set(given or {})
    guessed = [name for name, kind in kinds.items() if kind == "categorical" and name not in named]
    return [
        f"Column {name!r} has {num} different values in {len(frame)} rows and is taken as categories; "
        f"kinds={{{name!r}: 'text'}} reads it as text."
        for name in guessed
        if 2 * (num := frame.table[name].n_unique()) > len(frame) >= 20
    ]


def without_empty_types(frame: Frame, kinds: Mapping[str, InputKind]) -> pl.DataFrame:
    """The cells, where a column of numbers without any filled cell is one of gaps."""
    with extra("tool"):
        import polars as pl
    table = frame.table
    empty = [
        name
        for name, kind in kinds.items()
        if kind == "numeric" and name in table.columns and table[name].null_count() == table.height
    ]
    return table.with_columns(pl.col(empty).cast(pl.Float64)) if empty else table


def _texts_of(X: Any) -> list[str] | None:
    """X as texts, if it is a list, tuple, array or series of one text a row."""
    if isinstance(X, np.ndarray):
        cells: list[Any] = X.tolist() if X.ndim == 1 and X.dtype.kind in "OUT" else []
    elif isinstance(X, (list, tuple)):
        cells = list(cast("list[Any]", X))
    elif hasattr(X, "to_list") and not hasattr(X, "columns"):
        cells = X.to_list()
    else:
        return None
    if not any(isinstance(cell, str) for cell in cells):
        return None
    wrong = true_rows(_series([not isinstance(cell, str) for cell in cells]))
    if len(wrong):
        received = f"{describe(cells[int(wrong[0])])} in {named_rows(wrong)}"
        raise MarginsError(
            "X", expected="a text in every row", received=received, fix="fill or drop these rows"
        )
    return cells


def _series(flags: list[bool]) -> pl.Series:
    with extra("tool"):
        import polars as pl
    return pl.Series(flags, dtype=pl.Boolean)


def _named_by_texts(X: Any) -> Any:
    """The data frame with names that are texts: pandas numbers columns that nobody named."""
    names = [str(name) for name in getattr(X, "column_names", None) or X.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise MarginsError("X", expected="column names that differ", received=f"{twice[0]!r} twice")
    return X.set_axis(names, axis=1) if hasattr(X, "set_axis") else X


def _columns_of(values: Any, kinds: Kinds) -> dict[str, Any] | pl.DataFrame:
    if kinds == "embedding":
        with extra("tool"):
            import polars as pl
        vectors = np.ascontiguousarray(values, dtype=np.float32)
        return pl.DataFrame({VECTOR: pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))})
    return {f"x{k}": values[:, k] for k in range(values.shape[1])}


def _kind(frame: Frame, name: str) -> InputKind:
    with extra("tool"):
        import polars as pl
    dtype = frame.table[name].dtype
    if dtype.is_numeric():
        return "numeric"
    if dtype == pl.String or dtype == pl.Boolean:
        return "categorical"
    if isinstance(dtype, pl.Array):
        return "embedding" if len(dtype.shape) == 1 else "image"
    raise MarginsError(
        f"column {name!r}", expected="numbers, text, booleans, vectors or images",
        received=f"cells of type {dtype}", fix="turn it into one of these, or leave it out",
    )  # fmt: skip
