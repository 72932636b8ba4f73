"""`margins profile`: what is in a file, before anything is trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from margins.cli.recipe_options import kinds_of
from margins.cli.tables import console


def profile_file(
    file: Path, *, embeddings: Path | None, roles: dict[str, Any], kinds: list[str], as_json: bool
) -> None:
    """Tell rows, roles, gaps, classes, copies and splits of a file.

    Raises:
        MarginsError: the file or a column cannot be used.
    """
    from margins.compare.profile import profile
    from margins.data.reading import read_frame
    from margins.training.request import Roles

    found = profile(read_frame(file, embeddings=embeddings), Roles(**roles, kinds=kinds_of(kinds)))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=1, allow_nan=False))
        return
    out = console()
    out.print(Text(f"{found.source}: {found.num_rows} rows, {len(found.columns)} columns", style="bold"))
    table = Table(box=box.SIMPLE_HEAD if out.is_terminal else None, pad_edge=False)
    for name in ("column", "role", "filled", "different", "looks like"):
        table.add_column(name, justify="right" if name in ("filled", "different") else "left")
    for column in found.columns:
        table.add_row(
            Text(column.name),
            column.role,
            f"{column.filled:.1%}",
            str(column.num_different),
            Text(column.sample),
        )
    out.print(table)
    for sentence in found.sentences:
        out.print(f"- {sentence}", soft_wrap=True)
