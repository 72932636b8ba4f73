"""The commands and their options, as a user meets them in `--help`. The work is done elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from margins import __version__
from margins.cli import options
from margins.cli.stopping import StoppableGroup

app = typer.Typer(
    cls=StoppableGroup,
    help="Which training objective is best on my data, and can I trust the answer?",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TRAIN_EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "    margins train tickets.csv --target topic\n\n"
    "    margins train photos/ --epochs 10\n\n"
    "    margins train posts.jsonl --input text --target tags --target-kind label_set --metric micro_f1\n\n"
    "    margins train people.parquet --target income --set optimizer.learning_rate=0.01\n\n"
    "    margins train --resume runs/tickets-20260101T120000Z"
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
        roles={
            "inputs": _split(*inputs) if inputs else None, "target": target, "target_kind": target_kind,
            "separator": separator, "class_order": class_order and _split(class_order), "weight": weight,
            "group": group, "split": split,
        },
        kinds=kind or [], candidates=_split(candidates) if candidates is not None else None,
        positive=positive, budget=budget, rope=rope, spread=spread, report_share=report_share,
        shortcuts={"encoder": encoder, "max_epochs": epochs}, changes=changes or [],
        accept_double_correction=accept_double_correction, on=on, device=device, force=force,
    )  # fmt: skip
    compare_file(request, out=out, as_json=as_json)


@app.command(epilog=_TRAIN_EXAMPLES)
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
        roles={
            "inputs": _split(*inputs) if inputs else None, "target": target, "target_kind": target_kind,
            "separator": separator, "class_order": class_order and _split(class_order), "weight": weight,
            "group": group, "domain": domain, "id": row_id, "split": split, "time": time,
        },
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


@app.command()
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

    evaluate_file(model, file, embeddings=embeddings, metrics=_split(*(metric or [])), as_json=as_json)


@app.command()
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


@app.command()
def embed(
    model: options.ModelFolder,
    file: options.File,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new .npy file.")],
    embeddings: options.Vectors = None,
) -> None:
    """Write the embedding of every row of FILE as a matrix."""
    from margins.cli.using import embed_file

    embed_file(model, file, embeddings=embeddings, out=out)


@app.command()
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

    roles = {
        "inputs": _split(*inputs) if inputs else None, "target": target, "target_kind": target_kind,
        "separator": separator, "group": group, "split": split,
    }  # fmt: skip
    profile_file(file, embeddings=embeddings, roles=roles, kinds=kind or [], as_json=as_json)


@app.command()
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

    roles = {
        "inputs": _split(*inputs) if inputs else None, "target": target, "target_kind": target_kind,
        "separator": separator, "group": group, "split": split,
    }  # fmt: skip
    inductive_bias_of_file(
        file, embeddings=embeddings, roles=roles, kinds=kind or [], as_json=as_json, space=space,
        target_error=target_error, num_rows=rows, num_hypotheses=trials, unit=unit, seed=seed,
    )  # fmt: skip


@app.command()
def explain_nan(
    run: Annotated[Path, typer.Argument(help="The folder of the run that stopped.", metavar="RUN")],
    as_json: options.Json = False,
) -> None:
    """Say what a run met when it stopped at a number that is not finite."""
    from margins.cli.training import explain_nan as explain

    explain(run, as_json=as_json)


@app.command()
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


@app.command()
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
