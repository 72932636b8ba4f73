"""What has to be trained to judge one recipe in one place: a search on select rows, then what it found.

Each is a generator that gives the trials it needs next and is sent their outcomes, so that whatever runs them
(one process or many machines, from the start or after a crash) the same trials follow.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from margins.compare.candidates.candidate import Candidate
from margins.compare.candidates.spaces import suggestion_of
from margins.compare.planning import Design, digest_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One training.

    Args:
        recipe: name of the candidate.
        place: which of the design's places.
        spec: all that its outcome depends on.
    """

    recipe: str
    place: int
    spec: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """The same for trials that must come out alike."""
        return digest_of(self.spec)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial gave: a value, or why there is none."""

    value: dict[str, Any] | None
    error: str | None
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A setting of hyperparameters in a search.

    Args:
        number: of the trial.
        values: path to value; none of them for the defaults.
        epochs: most it was trained for.
        score: on the select rows; None if it failed.
    """

    number: int
    values: dict[str, Any]
    epochs: int
    score: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """A recipe in one place.

    Args:
        values: of its hyperparameters, as the search found them.
        tried: all that the search tried.
        outcomes: of the trainings that were judged, one a seed.
        row_visits: of the search.
        seconds: of all its trainings.
        peak_bytes: the most memory that one of them took; None where it was not measured.
    """

    values: dict[str, Any]
    tried: list[Tried]
    outcomes: list[dict[str, Any]]
    row_visits: int
    seconds: float
    peak_bytes: int | None

    def score(self, metric: str) -> float:
        """On the rows that judge, averaged over seeds."""
        return fmean(outcome["test"][metric] for outcome in self.outcomes)


class RecipeFailedError(Exception):
    """A recipe could not be trained in a place; says why."""


Strand = Generator[list[Trial], list[Outcome], Any]


def judged_in(
    design: Design, place: int, candidate: Candidate
) -> Generator[list[Trial], list[Outcome], Judged]:
    """Searches on the select rows, trains what was found from several seeds, judges each on the test rows.

    Raises:
        RecipeFailedError: every setting failed, or the one found fails with some seed.
    """
    search = _Search(design, place, candidate)
    values = yield from search.run()
    outcomes = yield from judged_with(design, place, candidate, values, seeds=range(1, design.num_seeds + 1))
    spent = [*search.outcomes, *outcomes]
    return Judged(
        values=values, tried=search.tried, outcomes=[o.value for o in outcomes if o.value is not None],
        row_visits=sum(o.value["row_visits"] for o in search.outcomes if o.value is not None),
        seconds=sum(o.seconds for o in spent),
        peak_bytes=max((o.peak_bytes for o in spent if o.peak_bytes is not None), default=None),
    )  # fmt: skip


def judged_with(
    design: Design, place: int, candidate: Candidate, values: Mapping[str, Any], *, seeds: Sequence[int]
) -> Generator[list[Trial], list[Outcome], list[Outcome]]:
    """Trains with these hyperparameters from each seed; every one is judged on the test rows.

    Raises:
        RecipeFailedError: one of them fails.
    """
    outcomes = yield [
        _trial(design, place, "outer", candidate, values, seed=design.seed_of(place, n)) for n in seeds
    ]
    for outcome in outcomes:
        if outcome.value is None:
            raise RecipeFailedError(outcome.error)
    return outcomes


def found_in(
    design: Design, place: int, candidate: Candidate
) -> Generator[list[Trial], list[Outcome], dict[str, Any]]:
    """The hyperparameters that the search finds, nothing judged.

    Raises:
        RecipeFailedError: every setting failed.
    """
    return (yield from _Search(design, place, candidate).run())


class _Search:
    """Successive halving of random settings: no trial goes on before all of its rung are done."""

    def __init__(self, design: Design, place: int, candidate: Candidate) -> None:
        self._design, self._place, self._candidate = design, place, candidate
        self.tried: list[Tried] = []
        self.outcomes: list[Outcome] = []

    def run(self) -> Generator[list[Trial], list[Outcome], dict[str, Any]]:
        """The best values on the select rows; of equal ones the earliest."""
        design = self._design
        rungs = design.budget.rungs(design.training.max_epochs)
        if not rungs:
            return {}
        space, name, roles = self._candidate.whole_space, self._candidate.name, design.places[self._place]
        place = f"{roles.repeat}/{roles.fold}"
        settings = {n: suggestion_of(space, name, place, n, design.seed) for n in range(rungs[0][0])}
        best: list[Tried] = []
        for num, epochs in rungs:
            numbers = [t.number for t in best[:num]] or list(settings)
            best = yield from self._rung({n: settings[n] for n in numbers}, epochs)
        return best[0].values

    def _rung(
        self, settings: Mapping[int, dict[str, Any]], epochs: int
    ) -> Generator[list[Trial], list[Outcome], list[Tried]]:
        """All of a rung, the best first; those that failed are left out."""
        design, place = self._design, self._place
        seed = design.seed_of(place, 0)
        outcomes = yield [
            _trial(design, place, "search", self._candidate, values, seed=seed, max_epochs=epochs)
            for values in settings.values()
        ]
        self.outcomes += outcomes
        tried = [
            Tried(number=n, values=values, epochs=epochs, score=_select_score(outcome, design.metric.name))
            for (n, values), outcome in zip(settings.items(), outcomes, strict=True)
        ]
        self.tried += tried
        done = [t for t in tried if t.score is not None]
        if not done:
            raise RecipeFailedError(outcomes[0].error)
        return sorted(done, key=lambda t: (-design.metric.improvement(t.score or 0.0), t.number))


def _select_score(outcome: Outcome, metric: str) -> float | None:
    return None if outcome.value is None else float(outcome.value["select"][metric])


def _trial(
    design: Design, place: int, kind: str, candidate: Candidate, values: Mapping[str, Any], **more: Any
) -> Trial:
    return Trial(recipe=candidate.name, place=place, spec=design.spec(place, kind, candidate, values, **more))
