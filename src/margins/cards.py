"""The card of a published method: a small typed record that stands next to its component.

Tables in the documentation, `margins methods` and the shared test harness are generated from the cards.
A card says what a method *is*; which tests apply follows from the component's declared form, never from
a flag on the card.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from margins.errors import MarginsError

Distributed = Literal["independent", "gathered", "sharded", "global"]
"""What several ranks must exchange: nothing; the other ranks' candidates; statistics of divided
candidates; sums over the whole batch."""

TargetKind = Literal["classes", "label sets", "scores", "matches", "pairs", "taxonomy", "values"]

_REGISTRY: dict[str, Card] = {}
T = TypeVar("T", bound=type)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reader, the documentation and the harness need to know of one method.

    Args:
        name: the field's name for the method.
        summary: one line: when to use it.
        paper: title, year and arXiv number or venue; for folklore, the oldest good source.
        entry: number of the system in the catalogue of published systems, if it has one.
        stations: where in the way of a batch it acts.
        targets: the kinds of targets it is meant for.
        distributed: what several ranks must exchange for the result to equal one process.
        comparable: whether its value may be compared between runs and against other methods.
        collapse: the value at which a collapsed model sits, as a formula, or why there is none.
        limits: identities "reduces to", one line each; every line is a test.
        study: name of the study of its claim, once there is one.
        component: where it is imported from; filled in by `carded`.
        form: which of the forms of a loss it has; filled in by `carded`.
    """

    name: str
    summary: str
    paper: str
    targets: tuple[TargetKind, ...]
    distributed: Distributed
    comparable: bool
    collapse: str
    limits: tuple[str, ...] = ()
    stations: tuple[str, ...] = ("loss",)
    entry: int | None = None
    study: str | None = None
    component: str = ""
    form: str = ""


def carded(card: Card) -> Callable[[T], T]:
    """Class decorator: registers `card` for the component and hangs it on the class as `card`."""

    def register(component: T) -> T:
        name = component.__name__
        if name in _REGISTRY:
            raise MarginsError("card", expected="one card a component", received=f"a second one for {name}")
        public_module = component.__module__.rsplit(".", 1)[0]
        form = str(getattr(component, "form", ""))
        complete = replace(card, component=f"{public_module}.{name}", form=form)
        _REGISTRY[name] = complete
        setattr(component, "card", complete)  # noqa: B010  (the type checker does not know the attribute)
        return component

    return register


def all_cards() -> dict[str, Card]:
    """Every registered card by component name, in order of registration.

    Import `margins.losses` first: a card is registered when its component is defined.
    """
    return dict(_REGISTRY)
