"""Commands that compare objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from margins.cli import options

COMPARE_EXAMPLE = (
    "[bold]Example[/bold]: which objective is best at telling the topic of a text?\n\n"
    "    margins compare tickets.csv --input text --target topic --metric macro_f1"
)


def compare(
    file: options.File,
    metric: Annotated[
        str,
        typer.Option("--metric", "-m", metavar="NAME", help="What counts as good, e.g. macro_f1, accuracy."),
    ],
    inputs: options.Inputs = None,
    target: options.TargetColumn = None,
    kind: options.Kinds = None,
    target_kind: options.TargetKind = None,
    weight: options.Weight = None,
    group: options.Group = None,
    embeddings: options.Vectors = None,
    separator: options.Separator = None,
    class_order: options.ClassOrder = None,
    split: options.Split = None,
    folds: Annotated[
        int, typer.Option(metavar="N", help="Split the rows into N parts and test on each part once.")
    ] = 5,
    repeats: Annotated[
        int, typer.Option(metavar="N", help="Split anew N times; more repeats find smaller differences.")
    ] = 1,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Train N times on each split, each from other first weights.")
    ] = 1,
    budget: Annotated[
        str,
        typer.Option(
            metavar="B",
            help="Of every recipe's search: quick (none), standard (8 trials), thorough (24), N or N:PASSES.",
        ),
    ] = "quick",
    candidates: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME...]",
            help="Compare these, or those in a YAML file, with the baseline; else what the data ask for.",
        ),
    ] = None,
    rope: Annotated[
        str, typer.Option(metavar="X", help="Differences up to X do not matter; auto: 0.01 where it fits.")
    ] = "auto",
    spread: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="How differences vary over folds, if you know: saves the pilot.",
        ),
    ] = None,
    report_share: Annotated[
        float, typer.Option(metavar="X", help="Rows kept to judge the winner once, at the end; 0 for none.")
    ] = 0.15,
    positive: Annotated[
        str | None, typer.Option(metavar="LABEL", help="With two classes: the one that is looked for.")
    ] = None,
    encoder: options.EncoderName = None,
    changes: options.Changes = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Most epochs of one training.")] = None,
    accept_double_correction: Annotated[
        bool,
        typer.Option("--accept-double-correction", help="Two parts may both make rare classes count more."),
    ] = False,
    on: Annotated[
        str,
        typer.Option(metavar="WHERE", help="Where trials run: local, processes:N, ray or ray:ADDRESS."),
    ] = "local",
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu or cuda, of each training.")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Trials, results and model. By default runs/FILE-DIGEST, the same for the same question.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Put trials of other data in FOLDER aside and begin anew.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on standard output, and nothing else.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Where all random choices start from.")] = 0,
) -> None:  # fmt: skip
    """Train several objectives on FILE and say which is best, with honest uncertainty.

    Every recipe gets the same encoder, folds, seeds and budget. Writes FOLDER/report.html, for the browser,
    FOLDER/results.json and the winner's model. A run that was stopped or killed goes on where it was, with
    the same command. FILE itself is only read.
    """
    from margins.cli.comparison import Request, compare_file

    request = Request(
        file=file, embeddings=embeddings, metric=metric, folds=folds, repeats=repeats, seeds=seeds, seed=seed,
        roles=options.roles_of(
            inputs, class_order, target=target, target_kind=target_kind, separator=separator, weight=weight,
            group=group, split=split,
        ),
        kinds=kind or [], candidates=options.names_in(candidates) if candidates is not None else None,
        positive=positive, budget=budget, rope=rope, spread=spread, report_share=report_share,
        shortcuts={"encoder": encoder, "max_epochs": epochs}, changes=changes or [],
        accept_double_correction=accept_double_correction, on=on, device=device, force=force,
    )  # fmt: skip
    compare_file(request, out=out, as_json=as_json)


def merge(
    into: Annotated[Path, typer.Argument(help="The folder that takes over.", metavar="FOLDER")],
    others: Annotated[
        list[Path], typer.Argument(help="Folders of the same comparison elsewhere.", metavar="OTHER...")
    ],
) -> None:
    """Take the finished trials of other folders of a comparison over into one.

    Run the comparison there again afterwards: it trains only what no folder had.
    """
    from margins.cli.comparison import merge_folders

    merge_folders(into, others)


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
