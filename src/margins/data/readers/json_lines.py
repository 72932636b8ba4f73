"""JSON lines: one object a line, plain or gzipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from margins.data.extras import extra
from margins.data.readers.raw import Raw
from margins.data.stored import decoded, stored_bytes, unpacked
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl

_FIX = "write one JSON object a line, with null for what is missing"


def read_json_lines(path: Path) -> Raw:
    """A whole file of JSON lines; blank lines are no rows.

    Raises:
        MarginsError: the file is missing, a folder, broken, not UTF-8 or empty, or a line is no JSON object.
    """
    text = decoded(path, unpacked(path, stored_bytes(path, expected="a file of JSON lines"))).strip()
    if not text:
        raise MarginsError(path.name, expected="JSON objects, one a line", received="an empty file")
    table = parsed(path, text.encode())
    if not table.width:
        raise MarginsError(path.name, expected="objects with names and values", received="empty objects")
    return Raw(table)


def parsed(path: Path, content: bytes, *, line: int = 0, schema: Any = None) -> pl.DataFrame:
    """The rows of these lines; `line` is the number of lines in the file before them."""
    with extra("tool"):
        import polars as pl
    try:
        return pl.read_ndjson(content, schema=schema, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise _first_wrong(path, content, line=line, reason=reason) from error


def _first_wrong(path: Path, content: bytes, *, line: int, reason: str) -> MarginsError:
    received = f"values that do not fit together ({reason})"
    for number, text in enumerate(content.split(b"\n"), line + 1):
        if not text.strip():
            continue
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except ValueError as error:
            received = f"line {number}, which is no JSON ({error})"
            break
        if not isinstance(value, dict):
            received = f"line {number}, which is no object: {text[:40].decode(errors='replace')}"
            break
    return MarginsError(path.name, expected="one JSON object a line", received=received, fix=_FIX)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
