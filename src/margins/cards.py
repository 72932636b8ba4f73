"""The card of a published method: a small typed record that stands next to its component.

Tables in the documentation, `margins methods`, the shared test harness and the page of evidence are generated
from the cards. A card says what a method *is*; which tests apply to a loss follows from its declared form,
never from a flag on the card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from margins.errors import MarginsError

Distributed = Literal["independent", "gathered", "sharded", "global"]
"""What several ranks must exchange: nothing; the other ranks' candidates; statistics of divided
candidates; sums over the whole batch."""

TargetKind = Literal[
    "classes", "label sets", "scores", "matches", "pairs", "taxonomy", "values", "bags", "maps", "none"
]
"""What a component is given to learn or measure by; maps are dense predictions, bags share one target."""

Kind = Literal[
    "loss", "penalty", "head", "encoder", "sampler", "targets", "weights", "negatives", "step", "refresh",
    "training", "decision", "diagnostic", "protocol", "data",
]  # fmt: skip
"""What sort of thing a component is."""

Station = Literal[
    "draw", "mix inputs", "encode", "mix features", "gather candidates", "score", "select", "set targets",
    "loss", "penalties", "update", "observe", "step", "refresh", "plan", "protocol", "before training",
    "after training",
]  # fmt: skip
"""Where in the way of a batch it acts, which larger kind it is, or that it stands outside training."""

_REGISTRY: dict[str, Card] = {}
T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a reader, the documentation and the tests need to know of one component of a method.

    Args:
        name: the field's name for the method.
        summary: one line: when to use it.
        paper: title, year and arXiv number or venue; for folklore, the oldest good source.
        kind: what sort of thing it is.
        stations: where in the way of a batch it acts.
        targets: the kinds of targets it is meant for.
        entry: number of the system in the catalogue of published systems, if it has one. Components of one
            entry are one method.
        limits: identities "reduces to", one line each; every line is a test.
        recipe: changes to a default recipe that use it; None for what no recipe trains.
        tests: the tests of its definition beside those of the shared harness, as `tests/FILE.py::NAME`.
        study: name of the study of its claim, once there is one.
        component: where it is imported from; filled in by `carded`.
    """

    name: str
    summary: str
    paper: str
    kind: Kind
    stations: tuple[Station, ...]
    targets: tuple[TargetKind, ...]
    entry: int | None = None
    limits: tuple[str, ...] = ()
    recipe: Mapping[str, Any] | None = None
    tests: tuple[str, ...] = ()
    study: str | None = None
    component: str = ""


@dataclass(frozen=True, kw_only=True)
class LossCard(Card):
    """The card of a loss: what a trainer must know too.

    Args:
        distributed: what several ranks must exchange for the result to equal one process.
        comparable: whether its value may be compared between runs and against other methods.
        collapse: the value at which a collapsed model sits, as a formula, or why there is none.
        form: which of the forms of a loss it has; filled in by `carded`.
    """

    kind: Kind = "loss"
    stations: tuple[Station, ...] = ("loss",)
    distributed: Distributed
    comparable: bool
    collapse: str
    form: str = ""


def carded(card: Card) -> Callable[[T], T]:
    """Decorator of a class or a function: registers `card` for it and hangs it on it as `card`."""

    def register(component: T) -> T:
        name = component.__name__
        path = f"{'.'.join(component.__module__.split('.')[:2])}.{name}"
        if path in _REGISTRY:
            raise MarginsError("card", expected="one card a component", received=f"a second one for {path}")
        complete = replace(card, component=path)
        if isinstance(complete, LossCard):
            complete = replace(complete, form=str(getattr(component, "form", "")))
        _REGISTRY[path] = complete
        setattr(component, "card", complete)  # noqa: B010  (the type checker does not know the attribute)
        return component

    return register


def all_cards() -> dict[str, Card]:
    """Every registered card by component, in order of registration.

    A card is registered when its component is defined: `margins.evidence.all_methods` imports them all.
    """
    return dict(_REGISTRY)


def loss_cards() -> dict[str, LossCard]:
    """The cards of losses by class name; import `margins.losses` first."""
    return {
        card.component.rpartition(".")[2]: card for card in _REGISTRY.values() if isinstance(card, LossCard)
    }
