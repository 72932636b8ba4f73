"""`margins methods`: the cards of what the product offers."""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import get_args

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from margins.cards import Card, TargetKind, all_cards
from margins.errors import MarginsError

PLAIN_WIDTH = 200


def list_methods(*, as_json: bool, form: str | None, target: str | None) -> None:
    """Print the cards, all or those of one form and for one kind of target.

    Raises:
        MarginsError: no method has this form, or the kind of target does not exist.
    """
    importlib.import_module("margins.losses")  # cards register when their components are defined
    cards = list(all_cards().values())
    _refuse_unknown("--form", form, sorted({card.form for card in cards}))
    _refuse_unknown("--target", target, list(get_args(TargetKind)))
    chosen = [
        card for card in cards if form in (None, card.form) and (target is None or target in card.targets)
    ]
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(card) for card in chosen], indent=1, ensure_ascii=False))
    else:
        _print_table(chosen)


def _refuse_unknown(option: str, asked: str | None, known: list[str]) -> None:
    if asked is not None and asked not in known:
        raise MarginsError(option, expected=f"one of {', '.join(known)}", received=repr(asked))


def _print_table(cards: list[Card]) -> None:
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    table.add_column("method")
    table.add_column("form", no_wrap=True)
    table.add_column("targets")
    table.add_column("when to use it", ratio=2)
    table.add_column("source", ratio=1)
    for card in cards:
        name = Text(f"{card.name}\n", style="bold").append(
            card.component.rpartition(".")[2], style="dim not bold"
        )
        table.add_row(
            name, Text(card.form), Text(", ".join(card.targets)), Text(card.summary), Text(card.paper)
        )
    console.print(table)
    console.print(f"{len(cards)} methods")
