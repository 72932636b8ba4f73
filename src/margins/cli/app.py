"""The command line: which commands there are."""

from __future__ import annotations

from typing import Annotated

import typer

from margins import __version__
from margins.cli.commands import comparing, looking, training, using
from margins.cli.stopping import StoppableGroup

app = typer.Typer(
    cls=StoppableGroup,
    help="Which training objective is best on my data, and can I trust the answer?",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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


app.command(epilog=comparing.COMPARE_EXAMPLE)(comparing.compare)
app.command(epilog=training.TRAIN_EXAMPLES)(training.train)
for _command in (
    using.evaluate, using.predict, using.embed, looking.profile, looking.inductive_bias, training.explain_nan,
    comparing.merge, looking.methods, comparing.demo,
):  # fmt: skip
    app.command()(_command)
