"""`margins evaluate`, `predict` and `embed`: a trained model on other rows."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import typer

from margins.cli.tables import console, score_table
from margins.errors import MarginsError


def evaluate_file(
    model: Path, file: Path, *, embeddings: Path | None, metrics: list[str], as_json: bool
) -> None:
    """Tell how good a model is on rows that have the target.

    Raises:
        MarginsError: no model, a missing column, or an unknown metric.
    """
    from margins.data.reading import read_frame
    from margins.training.evaluating import evaluate
    from margins.training.model import load

    found = evaluate(load(model), read_frame(file, embeddings=embeddings), metrics=metrics)
    if as_json:
        typer.echo(json.dumps(found, indent=1, allow_nan=False))
        return
    out = console()
    out.print(
        score_table({file.name: {k: v["value"] for k, v in found["metrics"].items()}}, boxed=out.is_terminal)
    )
    for name, values in found["metrics"].items():
        if values["low"] is not None:
            out.print(
                f"{name}: {found['confidence']:.0%} interval {values['low']:.4f} to {values['high']:.4f}"
            )
    out.print(f"{found['rows']} rows; intervals by the bootstrap over rows", soft_wrap=True)
    if found["seen"]:
        out.print(f"warning: {found['seen']}", style="yellow", soft_wrap=True)


def predict_file(
    model: Path, file: Path, *, embeddings: Path | None, probabilities: bool, out: Path | None, as_json: bool
) -> None:
    """Write what a model says of every row, as CSV or JSON lines.

    Raises:
        MarginsError: no model, a missing column, or an output that exists.
    """
    from margins.data.reading import read_frame
    from margins.training.model import load

    _refuse_existing(out)
    loaded = load(model)
    frame = read_frame(file, embeddings=embeddings)
    rows = _rows(loaded, frame, probabilities)
    text = (
        "".join(json.dumps(row) + "\n" for row in rows) if as_json else _csv(rows, loaded.columns.separator)
    )
    _write(out, text.encode())


def embed_file(model: Path, file: Path, *, embeddings: Path | None, out: Path) -> None:
    """Write the embedding of every row as an .npy matrix.

    Raises:
        MarginsError: no model, a missing column, or an output that exists.
    """
    from margins.data.reading import read_frame
    from margins.training.model import load

    _refuse_existing(out)
    vectors = load(model).embed(read_frame(file, embeddings=embeddings))
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    _write(out, buffer.getvalue())
    typer.echo(f"{vectors.shape[0]} vectors of width {vectors.shape[1]}: {out}")


def _rows(model: Any, frame: Any, probabilities: bool) -> list[dict[str, Any]]:
    scores = model.scores(frame)
    rows: list[dict[str, Any]] = [{"prediction": _plain(value)} for value in model.decided(scores)]
    if probabilities:
        shares = model.probabilities(scores)
        for row, own in zip(rows, shares.tolist(), strict=True):
            row.update(zip((f"p({name})" for name in model.classes), own, strict=True))
    return rows


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _csv(rows: list[dict[str, Any]], separator: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else ["prediction"])
    for row in rows:
        writer.writerow([separator.join(v) if isinstance(v, list) else v for v in row.values()])
    return text.getvalue()


def _refuse_existing(out: Path | None) -> None:
    if out is not None and out.exists():
        raise MarginsError(
            "--out", expected="a file that is not there yet", received=f"{out}, which exists",
            fix="name another file; it was not changed",
        )  # fmt: skip


def _write(out: Path | None, content: bytes) -> None:
    from margins.training.checkpoint import write_atomically

    if out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        write_atomically(out, content)
