"""Commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from margins.cli import options

TRAIN_EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "    margins train tickets.csv --target topic\n\n"
    "    margins train photos/ --epochs 10\n\n"
    "    margins train posts.jsonl --input text --target tags --target-kind label_set --metric micro_f1\n\n"
    "    margins train people.parquet --target income --set optimizer.learning_rate=0.01\n\n"
    "    margins train --resume runs/tickets-20260101T120000Z"
)


def train(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The rows: .csv, .tsv, .parquet, .jsonl, .npz, .npy, idx, or a folder of images.",
            metavar="FILE", show_default=False,
        ),
    ] = None,
    inputs: options.Inputs = None,
    target: options.TargetColumn = None,
    kind: options.Kinds = None,
    target_kind: options.TargetKind = None,
    separator: options.Separator = None,
    class_order: options.ClassOrder = None,
    weight: options.Weight = None,
    group: options.Group = None,
    domain: options.Domain = None,
    row_id: options.RowId = None,
    split: options.Split = None,
    time: options.Time = None,
    embeddings: options.Vectors = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", "-m", metavar="NAME", help="What chooses the best epoch.",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The objective; `margins methods` lists them.",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="'matches' trains embeddings in which rows of a class are near.",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    encoder: options.EncoderName = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A recipe in YAML; other options win.", rich_help_panel=options.TRAINING
        ),
    ] = None,
    changes: options.Changes = None,
    epochs: options.Epochs = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Rows a step.", rich_help_panel=options.TRAINING)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(metavar="X", help="Of the optimiser.", rich_help_panel=options.TRAINING),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="P", help="32, bf16 or fp16.", rich_help_panel=options.TRAINING)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Where all random choices start from.", rich_help_panel=options.TRAINING
        ),
    ] = None,
    select_share: Annotated[
        float,
        typer.Option(
            metavar="X", help="Rows that choose epochs and thresholds.", rich_help_panel=options.TRAINING
        ),
    ] = 0.15,
    report_share: Annotated[
        float,
        typer.Option(
            metavar="X", help="Rows that judge the finished model.", rich_help_panel=options.TRAINING
        ),
    ] = 0.15,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where the run goes: a new folder. By default runs/FILE-TIME.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Go on with a run that was stopped or killed.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    checkpoint_every: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Most work that a crash may cost.", rich_help_panel=options.RUN
        ),
    ] = 60.0,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu or cuda.", rich_help_panel=options.RUN)
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Of the CPU. By default what suits the encoder.", rich_help_panel=options.RUN
        ),
    ] = None,
    logger: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Curves also for tensorboard, mlflow or csv.", rich_help_panel=options.RUN
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Train a model on FILE and say how good it is.

    Everything that is not said is decided from the data, and told. A run that was killed goes on where it
    was, with --resume, to the same numbers. FILE itself is only read.
    """
    from margins.cli.training import TrainRequest, train_file

    request = TrainRequest(
        file=file, resume=resume, out=out, recipe=recipe, changes=changes or [], embeddings=embeddings,
        roles=options.roles_of(
            inputs, class_order, target=target, target_kind=target_kind, separator=separator, weight=weight,
            group=group, domain=domain, id=row_id, split=split, time=time,
        ),
        kinds=kind or [],
        shortcuts={
            "task": task, "metric": metric, "objective.loss": loss, "encoder": encoder, "max_epochs": epochs,
            "batch_size": batch_size, "optimizer.learning_rate": learning_rate, "precision": precision,
            "seed": seed,
        },
        select_share=select_share, report_share=report_share, device=device, threads=threads,
        checkpoint_every=checkpoint_every, logger=logger,
    )  # fmt: skip
    train_file(request, as_json=as_json)


def explain_nan(
    run: Annotated[Path, typer.Argument(help="The folder of the run that stopped.", metavar="RUN")],
    as_json: options.Json = False,
) -> None:
    """Say what a run met when it stopped at a number that is not finite."""
    from margins.cli.training import explain_nan as explain

    explain(run, as_json=as_json)
