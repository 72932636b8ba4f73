"""Commands that use a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from margins.cli import options


def evaluate(
    model: options.ModelFolder,
    file: options.File,
    embeddings: options.Vectors = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", metavar="NAME[,NAME...]", help="What to measure.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say how good a trained model is on other rows, with intervals.

    FILE needs the columns that the model reads and the one it predicts.
    """
    from margins.cli.using import evaluate_file

    metrics = options.names_in(*(metric or []))
    evaluate_file(model, file, embeddings=embeddings, metrics=metrics, as_json=as_json)


def predict(
    model: options.ModelFolder,
    file: options.File,
    embeddings: options.Vectors = None,
    probabilities: Annotated[
        bool, typer.Option("--proba", help="The probability of every class beside the prediction.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A new file; standard output by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines in place of CSV.")] = False,
) -> None:
    """Write what a trained model says of every row of FILE, in their order."""
    from margins.cli.using import predict_file

    predict_file(model, file, embeddings=embeddings, probabilities=probabilities, out=out, as_json=as_json)


def embed(
    model: options.ModelFolder,
    file: options.File,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new .npy file.")],
    embeddings: options.Vectors = None,
) -> None:
    """Write the embedding of every row of FILE as a matrix."""
    from margins.cli.using import embed_file

    embed_file(model, file, embeddings=embeddings, out=out)
