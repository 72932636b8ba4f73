"""The commands and their options, as a user meets them in `--help`. The work is done elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from margins import __version__
from margins.cli.stopping import StoppableGroup

app = typer.Typer(
    cls=StoppableGroup,
    help="Which training objective is best on my data, and can I trust the answer?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMPARE_EXAMPLE = (
    "[bold]Example[/bold]: which objective is best at telling the topic of a text?\n\n"
    "    margins compare tickets.csv --input text --target topic --metric macro_f1"
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"margins {__version__}")
        raise typer.Exit


@app.callback()
def margins(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Train, compare and explain discriminative models."""


@app.command(epilog=_COMPARE_EXAMPLE)
def compare(
    file: Annotated[
        Path, typer.Argument(help="The table: a .csv or .csv.gz file with a header.", metavar="FILE")
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input", "-i", metavar="COL[,COL...]",
            help="What the model sees: one text column, or numeric columns. Separate with commas or repeat.",
        ),
    ],
    target: Annotated[str, typer.Option("--target", "-t", metavar="COL", help="The column to predict.")],
    metric: Annotated[
        str,
        typer.Option("--metric", "-m", metavar="NAME", help="What counts as good, e.g. macro_f1, accuracy."),
    ],
    folds: Annotated[
        int, typer.Option(metavar="N", help="Split the rows into N parts and test on each part once.")
    ] = 5,
    repeats: Annotated[
        int, typer.Option(metavar="N", help="Split anew N times; more repeats find smaller differences.")
    ] = 1,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Train N times on each split, each from other first weights.")
    ] = 1,
    recipes: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME...]", help="Compare these with the baseline; by default all."),
    ] = None,
    positive: Annotated[
        str | None, typer.Option(metavar="LABEL", help="With two classes: the one that is looked for.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Most epochs of one training.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the results go: a new folder. By default runs/FILE-TIME."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on standard output, and nothing else.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Where all random choices start from.")] = 0,
) -> None:  # fmt: skip
    """Train several objectives on FILE and say which is best, with honest uncertainty.

    Every recipe gets the same encoder, the same folds and the same seeds. Writes FOLDER/report.html, for
    the browser, and FOLDER/results.json. FILE itself is only read.
    """
    from margins.cli.comparison import Request, compare_file

    request = Request(
        file=file, inputs=_split(*inputs), target=target, metric=metric, folds=folds, repeats=repeats,
        seeds=seeds, recipes=_split(recipes) if recipes is not None else None, positive=positive,
        epochs=epochs, seed=seed,
    )  # fmt: skip
    compare_file(request, out=out, as_json=as_json)


@app.command()
def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
    form: Annotated[
        str | None, typer.Option(metavar="FORM", help="Only methods of this form, e.g. statistics, pairs.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Only methods for this kind of target, e.g. classes, matches."),
    ] = None,
) -> None:
    """List the published methods that margins offers, each with its source."""
    from margins.cli.methods import list_methods

    list_methods(as_json=as_json, form=form, target=target)


@app.command()
def demo(
    quick: Annotated[
        bool, typer.Option("--quick", help="A smaller run, to see that everything works.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the results go.")] = None,
) -> None:
    """Compare objectives on handwritten digits, made hard: no file needed, a few minutes.

    The training rows get rare classes and wrong labels, the test rows stay clean.
    """
    from margins.cli.comparison import compare_digits

    compare_digits(quick=quick, out=out)


def _split(*texts: str) -> list[str]:
    """Take names out of comma-separated lists, blanks around them dropped."""
    return [name for text in texts for part in text.split(",") if (name := part.strip())]
