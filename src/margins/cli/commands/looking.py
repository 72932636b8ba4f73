"""Commands that look at data, and at what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from margins.cli import options


def profile(
    file: options.File,
    inputs: options.Inputs = None,
    target: options.TargetColumn = None,
    kind: options.Kinds = None,
    target_kind: options.TargetKind = None,
    separator: options.Separator = None,
    group: options.Group = None,
    split: options.Split = None,
    embeddings: options.Vectors = None,
    as_json: options.Json = False,
) -> None:
    """Say what is in FILE before anything is trained: roles, gaps, classes, copies, leaks between splits."""
    from margins.cli.profiling import profile_file

    roles = options.roles_of(
        inputs, target=target, target_kind=target_kind, separator=separator, group=group, split=split
    )
    profile_file(file, embeddings=embeddings, roles=roles, kinds=kind or [], as_json=as_json)


def inductive_bias(
    file: options.File,
    space: Annotated[
        str, typer.Option(metavar="SPACE", help="Of the hypotheses: rbf, mlp, or cnn for images.")
    ],
    target_error: Annotated[
        float,
        typer.Option(metavar="X", help="Mean squared error to reach, of one-hot or standardised targets."),
    ],
    inputs: options.Inputs = None,
    target: options.TargetColumn = None,
    kind: options.Kinds = None,
    target_kind: options.TargetKind = None,
    separator: options.Separator = None,
    group: options.Group = None,
    split: options.Split = None,
    embeddings: options.Vectors = None,
    rows: Annotated[int, typer.Option(metavar="N", help="Training rows that a hypothesis fits.")] = 200,
    trials: Annotated[
        int | None, typer.Option(metavar="N", help="Hypotheses; by default 2000 functions or 50 networks.")
    ] = None,
    unit: Annotated[str, typer.Option(metavar="UNIT", help="bits or nats.")] = "bits",
    seed: Annotated[int, typer.Option(metavar="N", help="Where all random choices start from.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Say how much must be known beforehand to reach an error on FILE, by a space of hypotheses.

    Numbers, vectors or images. Compare spaces on the same rows and error: what one needs less, it knows.
    """
    from margins.cli.inductive_bias import inductive_bias_of_file

    roles = options.roles_of(
        inputs, target=target, target_kind=target_kind, separator=separator, group=group, split=split
    )
    inductive_bias_of_file(
        file, embeddings=embeddings, roles=roles, kinds=kind or [], as_json=as_json, space=space,
        target_error=target_error, num_rows=rows, num_hypotheses=trials, unit=unit, seed=seed,
    )  # fmt: skip


def methods(
    form: Annotated[
        str | None, typer.Option(metavar="FORM", help="Only losses of this form, e.g. statistics, pairs.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Only methods for this kind of target, e.g. classes, matches."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only this kind of method: loss, head, diagnostic, ...")
    ] = None,
    station: Annotated[
        str | None,
        typer.Option(metavar="STATION", help="Only what acts at this station of training, e.g. score, loss."),
    ] = None,
    paper: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Only those with these words in name or paper.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything that the cards and the studies say, as JSON.")
    ] = False,
) -> None:
    """List the published methods that margins offers, with their sources and what studies of them found."""
    from margins.cli.methods import list_methods

    list_methods(as_json=as_json, form=form, target=target, kind=kind, station=station, paper=paper)
