"""The options that several commands share, in the panels of `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

COLUMNS, TRAINING, RUN = "What the columns are", "How it is trained", "The run"


def _column(help: str, *names: str) -> Any:  # noqa: A002 - typer's word
    return typer.Option(*names, metavar="COL", help=help, rich_help_panel=COLUMNS)


File = Annotated[
    Path,
    typer.Argument(
        help="The rows: .csv, .tsv, .parquet, .jsonl, .npz, .npy, idx, or a folder of images.", metavar="FILE"
    ),
]
ModelFolder = Annotated[Path, typer.Argument(help="The folder of a run or of a model.", metavar="MODEL")]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print JSON on standard output, and nothing else there.", rich_help_panel=RUN
    ),
]
Vectors = Annotated[
    Path | None,
    typer.Option(
        "--embeddings", metavar="FILE", help="An .npy or .npz file with a vector for each row.",
        rich_help_panel=COLUMNS,
    ),
]  # fmt: skip
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", metavar="COL[,COL...]", help="What the model sees. By default what is clear.",
        rich_help_panel=COLUMNS,
    ),
]  # fmt: skip
TargetColumn = Annotated[str | None, _column("The column to predict.", "--target", "-t")]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind", metavar="COL=KIND",
        help="What an input is: text, text_pair, image, numeric, categorical, embedding. May be repeated.",
        rich_help_panel=COLUMNS,
    ),
]  # fmt: skip
TargetKind = Annotated[
    str | None,
    typer.Option(
        "--target-kind", metavar="KIND", help="What the target is: label, label_set, path, value.",
        rich_help_panel=COLUMNS,
    ),
]  # fmt: skip
Separator = Annotated[
    str | None,
    typer.Option(
        "--separator", metavar="TEXT", help="Between labels of a set or steps of a path.",
        rich_help_panel=COLUMNS,
    ),
]  # fmt: skip
ClassOrder = Annotated[
    str | None,
    typer.Option(
        "--class-order", metavar="NAME,NAME...",
        help="All classes from the lowest to the highest, where they are grades or levels.",
        rich_help_panel=COLUMNS,
    ),
]  # fmt: skip
Weight = Annotated[str | None, _column("Column of row weights.", "--weight")]
Group = Annotated[str | None, _column("Rows of one value stay in one role (user, patient).", "--group")]
Domain = Annotated[str | None, _column("Where a row comes from.", "--domain")]
RowId = Annotated[str | None, _column("Column that names rows.", "--id")]
Split = Annotated[str | None, _column("Column that says train, select or report of each row.", "--split")]
Time = Annotated[str | None, _column("Train on the oldest rows, report on the newest.", "--time")]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder", metavar="NAME", help="What reads the inputs. By default by their kinds.",
        rich_help_panel=TRAINING,
    ),
]  # fmt: skip
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any key of the recipe. May be repeated.",
        rich_help_panel=TRAINING,
    ),
]  # fmt: skip
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs", metavar="N", help="Passes over the training rows at most.", rich_help_panel=TRAINING
    ),
]


def names_in(*texts: str) -> list[str]:
    """Take names out of comma-separated lists, blanks around them dropped."""
    return [name for text in texts for part in text.split(",") if (name := part.strip())]


def roles_of(
    inputs: list[str] | None, class_order: str | None = None, **columns: str | None
) -> dict[str, Any]:
    """What the options say of columns, by the names of `Roles`."""
    found: dict[str, Any] = {"inputs": names_in(*inputs) if inputs else None, **columns}
    return found if class_order is None else {**found, "class_order": names_in(class_order)}
