"""How a study is declared: the claim, what is trained, and how it will be judged, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from margins.errors import MarginsError

Settings = Mapping[str, Any]
Figures = Mapping[str, Mapping[str, float]]
"""Figures by arm, of one seed."""

FIRST_TUNING_SEED = 100
FIRST_DEVELOPMENT_SEED = 1000
CHOSEN_BY = "select"
"""The figure by which settings are chosen, higher is better; from rows that are not reported."""


@dataclass(frozen=True)
class Effect:
    """A number that a study measures once a seed, and what is claimed of its mean.

    Args:
        name: what is measured, in words, with its direction.
        of: the figures of all arms of one seed to the number.
        above: the claim is that the mean is above this: 0 for an improvement, less for "not worse than".
        reaches: the size that was asked for before the run; recorded beside the outcome. None asks nothing.
    """

    name: str
    of: Callable[[Figures], float]
    above: float = 0.0
    reaches: float | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """A small run in which the claim of a method's authors must show against the baseline that they name.

    The unit of analysis is the seed: one value of each effect a seed, and a t interval of their mean.
    Reported seeds are 0, 1, ...; settings are chosen on seeds from 100 on, development uses those from 1000.

    Args:
        name: of its file, without the ending.
        cards: the components whose claim it tests, as `margins.losses.ALDRKL`.
        claim: of the authors, restated.
        source: where they make it.
        data: what it is measured on.
        protocol: split, network, training, and what is chosen how.
        arms: what is trained, by name, each with its grid: a setting and the values that may be tried.
        trial: (arm, settings, seed) to named figures; "select" chooses among settings.
        effects: the first one gives the outcome.
        budget: settings tried an arm, the same for every arm that has a choice.
        num_seeds: of the report, at least 5.
        num_tuning_seeds: over which the figure that chooses is averaged.
        test_to_train: tested rows over trained ones when seeds divide one finite data set anew, whose scores
            depend on each other; 0 when each seed draws its own data.
        times: whether figures are times, so that nothing else may run beside them.
        missing: what the machine lacks for it, as a sentence, or None; asked before it runs.
        tried: what was tried and changed while developing, before anything was recorded. What was checked
            after a run stands in `studies/remarks.toml`, which is no part of the code that ran.
    """

    name: str
    cards: tuple[str, ...]
    claim: str
    source: str
    data: str
    protocol: str
    arms: Mapping[str, Mapping[str, Sequence[Any]]]
    trial: Callable[[str, Settings, int], Mapping[str, float]]
    effects: tuple[Effect, ...]
    budget: int = 1
    num_seeds: int = 5
    num_tuning_seeds: int = 2
    test_to_train: float = 0.0
    times: bool = False
    missing: Callable[[], str | None] | None = None
    tried: str = ""

    def __post_init__(self) -> None:
        if not self.effects or not self.arms or not self.cards:
            raise MarginsError(
                f"study {self.name}", expected="cards, arms and effects", received="none of one"
            )
        if self.num_seeds < 5 or self.num_tuning_seeds < 1 or self.budget < 1:
            raise MarginsError(
                f"study {self.name}", expected="num_seeds >= 5, num_tuning_seeds >= 1, budget >= 1",
                received=f"{self.num_seeds}, {self.num_tuning_seeds}, {self.budget}",
            )  # fmt: skip
        names = [effect.name for effect in self.effects]
        if len(set(names)) < len(names):
            raise MarginsError(f"effects of {self.name}", expected="a name each", received=str(names))
