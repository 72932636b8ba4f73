"""`margins inductive-bias`: how much must be known to reach an error on the rows of a file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import typer

from margins.cli.recipe_options import kinds_of
from margins.cli.tables import console


def inductive_bias_of_file(
    file: Path,
    *,
    embeddings: Path | None,
    roles: dict[str, Any],
    kinds: list[str],
    as_json: bool,
    **options: Any,
) -> None:
    """Tell the information that a target error takes, with its interval and what to mind.

    Raises:
        MarginsError: the file, a column or an option cannot be used.
    """
    from margins.compare.needed_information import needed_information
    from margins.data.reading import read_frame
    from margins.training.request import Roles

    frame = read_frame(file, embeddings=embeddings)
    found = needed_information(
        frame, Roles(**roles, kinds=kinds_of(kinds)), tell=lambda text: typer.echo(text, err=True), **options
    )
    if as_json:
        typer.echo(json.dumps(_finite(dataclasses.asdict(found)), indent=1, allow_nan=False))
        return
    bias, out = found.bias, console()
    out.print(
        f"{found.space}: {bias.information:.1f} {bias.unit} to an error of {bias.target_error:g}, "
        f"95% interval {bias.low:.1f} to {bias.high:.1f}",
        soft_wrap=True,
    )
    if found.exact is not None:
        out.print(f"by the exact law of this space: {found.exact:.1f} {bias.unit}", soft_wrap=True)
    for sentence in found.sentences:
        out.print(f"- {sentence}", soft_wrap=True)
    for warning in bias.warnings:
        out.print(f"warning: {warning}", style="yellow", soft_wrap=True)


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    """The same with None for what is infinite, which JSON has no word for."""
    plain: dict[str, Any] = {}
    for key, value in data.items():
        is_endless = isinstance(value, float) and not math.isfinite(value)
        plain[key] = _finite(value) if isinstance(value, dict) else None if is_endless else value
    return plain
