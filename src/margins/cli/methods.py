"""`margins methods`: the published methods that the product offers, and what studies found of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from margins.cards import Kind, Station, TargetKind
from margins.errors import MarginsError
from margins.evidence import Method, StudyRecord, all_methods, known_results

PLAIN_WIDTH = 200


def list_methods(
    *,
    as_json: bool,
    form: str | None = None,
    target: str | None = None,
    kind: str | None = None,
    station: str | None = None,
    paper: str | None = None,
) -> None:
    """Print the methods, all or those that fit every filter.

    Args:
        as_json: everything, as JSON.
        form: of a loss.
        target: kind of target.
        kind: of component.
        station: where it acts.
        paper: words of its name or paper, in any case.

    Raises:
        MarginsError: a filter that names what does not exist.
    """
    methods, results = all_methods(), known_results()
    forms = sorted({form for method in methods for form in method.forms})
    _refuse_unknown("--form", form, forms)
    _refuse_unknown("--target", target, list(get_args(TargetKind)))
    _refuse_unknown("--kind", kind, list(get_args(Kind)))
    _refuse_unknown("--station", station, list(get_args(Station)))
    chosen = [
        method
        for method in methods
        if form in (None, *method.forms)
        and target in (None, *method.targets)
        and kind in (None, *method.kinds)
        and station in (None, *method.stations)
        and (paper is None or _is_in(paper, method))
    ]
    if as_json:
        data = [{**method.to_data(), "evidence": _evidence(method, results)} for method in chosen]
        typer.echo(json.dumps(data, indent=1, ensure_ascii=False))
    else:
        _print_table(chosen, results)


def _refuse_unknown(option: str, asked: str | None, known: Sequence[str]) -> None:
    if asked is not None and asked not in known:
        raise MarginsError(option, expected=f"one of {', '.join(known)}", received=repr(asked))


def _is_in(words: str, method: Method) -> bool:
    return words.casefold() in " ".join([method.name, *method.papers]).casefold()


def _evidence(method: Method, results: Mapping[str, StudyRecord]) -> list[dict[str, Any]]:
    """What the studies of a method found, the first effect of each."""
    return [
        {"study": name, "outcome": record.outcome, "commit": record.commit,
         "effects": [effect.model_dump(include={"name", "mean", "low", "high", "outcome"})
                     for effect in record.effects]}
        for name in method.studies if (record := results.get(name)) is not None
    ]  # fmt: skip


def _print_table(methods: list[Method], results: Mapping[str, StudyRecord]) -> None:
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    table.add_column("method", ratio=1)
    table.add_column("kind")
    table.add_column("targets")
    table.add_column("when to use it", ratio=2)
    table.add_column("its claim here")
    table.add_column("source", ratio=1)
    for method in methods:
        parts = [card.component.removeprefix("margins.") for card in method.cards]
        found = [results[name].outcome for name in method.studies if name in results]
        table.add_row(
            Text(f"{method.name}\n", style="bold").append("\n".join(parts), style="dim not bold"),
            Text("\n".join([*method.kinds, *(f"form {form}" for form in method.forms)])),
            Text(", ".join(method.targets)), Text("\n".join(card.summary for card in method.cards)),
            Text("\n".join(found)), Text("\n".join(method.papers)),
        )  # fmt: skip
    console.print(table)
    console.print(f"{len(methods)} methods")
