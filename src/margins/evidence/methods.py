"""The registry: every published method that the product offers, made from the cards of its components."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from margins.cards import Card, Kind, LossCard, Station, TargetKind, all_cards

ROOMS = (
    "losses", "heads", "encoders", "evaluation", "balance", "diagnose", "distill", "hierarchy", "labels",
    "mining", "pretrain", "retrieval", "robust", "training", "compare",
)  # fmt: skip
"""Packages whose components may carry cards."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method: one published system, or a piece of folklore that has a card.

    Args:
        cards: of its components, the one that stands for it first.
    """

    cards: tuple[Card, ...]

    @property
    def entry(self) -> int | None:
        """Number of the system in the catalogue of published systems."""
        return self.cards[0].entry

    @property
    def name(self) -> str:
        """The names of its components."""
        return "; ".join(dict.fromkeys(card.name for card in self.cards))

    @property
    def papers(self) -> tuple[str, ...]:
        """Where it was published."""
        return tuple(dict.fromkeys(card.paper for card in self.cards))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What its components are."""
        return tuple(dict.fromkeys(card.kind for card in self.cards))

    @property
    def stations(self) -> tuple[Station, ...]:
        """Where they act."""
        return tuple(dict.fromkeys(station for card in self.cards for station in card.stations))

    @property
    def targets(self) -> tuple[TargetKind, ...]:
        """What they are given to learn or to measure by."""
        return tuple(dict.fromkeys(target for card in self.cards for target in card.targets))

    @property
    def forms(self) -> tuple[str, ...]:
        """Forms of its losses."""
        return tuple(dict.fromkeys(card.form for card in self.cards if isinstance(card, LossCard)))

    @property
    def tests(self) -> tuple[str, ...]:
        """The tests of its definition beside those of the shared harness."""
        return tuple(dict.fromkeys(test for card in self.cards for test in card.tests))

    @property
    def studies(self) -> tuple[str, ...]:
        """The studies of its claims."""
        return tuple(dict.fromkeys(card.study for card in self.cards if card.study is not None))

    @property
    def recipes(self) -> tuple[Mapping[str, Any], ...]:
        """Changes to a default recipe that use it."""
        return tuple(card.recipe for card in self.cards if card.recipe is not None)

    def to_data(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "name": self.name, "entry": self.entry, "papers": list(self.papers), "kinds": list(self.kinds),
            "stations": list(self.stations), "targets": list(self.targets), "forms": list(self.forms),
            "components": [
                {"component": card.component, "name": card.name, "summary": card.summary,
                 "kind": card.kind, "limits": list(card.limits)}
                for card in self.cards
            ],
            "recipes": [dict(recipe) for recipe in self.recipes], "tests": list(self.tests),
            "studies": list(self.studies),
        }  # fmt: skip


def all_methods() -> list[Method]:
    """Every method: those without an entry as their components are registered, then the entries by number.

    Components of one entry are one method; a component without one is a method of its own.

    Example:
        >>> [method.name for method in all_methods() if method.entry == 95][0].split(";")[0]
        'Comp-sum losses (generalized cross-entropy)'
    """
    for room in ROOMS:
        importlib.import_module(f"margins.{room}")
    alone: list[Method] = []
    grouped: dict[int, list[Card]] = {}
    for card in all_cards().values():
        if card.entry is None:
            alone.append(Method(cards=(card,)))
        else:
            grouped.setdefault(card.entry, []).append(card)
    return alone + [Method(cards=tuple(sorted(grouped[e], key=_rank))) for e in sorted(grouped)]


def _rank(card: Card) -> tuple[bool, int]:
    """Components whose claim is studied come first, then losses, heads and so on, as they are defined."""
    return card.study is None, get_args(Kind).index(card.kind)
