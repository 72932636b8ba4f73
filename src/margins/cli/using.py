"""`margins evaluate`, `predict` and `embed`: a trained model on other rows."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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
    model: Path,
    file_of_rows: Path,
    *,
    embeddings: Path | None,
    probabilities: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write what a model says of every row, as CSV or JSON lines; files of lines and Parquet are streamed.

    Raises:
        MarginsError: no model, a missing column, or an output that exists.
    """
    from margins.training.model import load

    _refuse_existing(out)
    loaded = load(model)
    num = 0
    with _written(out) as file:
        for frame in _frames(file_of_rows, embeddings):
            rows = _rows(loaded, frame, probabilities)
            text = _json(rows) if as_json else _csv(rows, loaded.columns.separator, with_header=num == 0)
            file.write(text.encode())
            num += len(rows)
    if out is not None:
        typer.echo(f"{num} predictions: {out}")


def embed_file(model: Path, file: Path, *, embeddings: Path | None, out: Path) -> None:
    """Write the embedding of every row as an .npy matrix.

    Raises:
        MarginsError: no model, a missing column, or an output that exists.
    """
    from margins.data.reading import read_frame
    from margins.training.model import load

    _refuse_existing(out)
    vectors = load(model).embed(read_frame(file, embeddings=embeddings))
    with _written(out) as written:
        np.save(written, vectors, allow_pickle=False)
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


def _json(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _csv(rows: list[dict[str, Any]], separator: str, *, with_header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if with_header:
        writer.writerow(rows[0] if rows else ["prediction"])
    for row in rows:
        writer.writerow([separator.join(v) if isinstance(v, list) else v for v in row.values()])
    return text.getvalue()


def _frames(path: Path, embeddings: Path | None) -> Iterator[Any]:
    """The rows of a file, piece by piece where its kind allows."""
    from margins.data.reading import read_frame
    from margins.data.stored import suffix_of
    from margins.data.streaming import STREAMED, stream_frames

    if embeddings is None and path.is_file() and suffix_of(path) in STREAMED:
        return stream_frames(path)
    return iter([read_frame(path, embeddings=embeddings)])


def _refuse_existing(out: Path | None) -> None:
    if out is not None and out.exists():
        raise MarginsError(
            "--out", expected="a file that is not there yet", received=f"{out}, which exists",
            fix="name another file; it was not changed",
        )  # fmt: skip


@contextmanager
def _written(out: Path | None) -> Generator[IO[bytes]]:
    """Standard output, or a file that is there only when all of it is."""
    from margins.training.checkpoint import atomic_file

    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with atomic_file(out) as file:
        yield file
