"""What a search may change of a recipe, as plain data, and the values that it tries."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from margins.data.extras import extra
from margins.data.settings import Settings
from margins.errors import MarginsError
from margins.training.randomness import seed_of

Number = Annotated[float, Field(allow_inf_nan=False)]


class Span(Settings):
    """Numbers between two ends.

    Args:
        kind: says that it is one.
        low: the lower end.
        high: the upper end.
        log: whether ratios count alike, not differences.
        times_default: the ends multiply the value that the recipe has without a search.
    """

    kind: Literal["span"] = "span"
    low: Number
    high: Number
    log: bool = False
    times_default: bool = False

    @model_validator(mode="after")
    def _rises(self) -> Span:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise MarginsError(
                "low, high", expected="low < high, and with log both above 0",
                received=f"{self.low}, {self.high}",
            )  # fmt: skip
        return self


class Choice(Settings):
    """One of several values, each as likely.

    Args:
        kind: says that it is one.
        options: numbers, words, true, false or null; at least two.
    """

    kind: Literal["choice"] = "choice"
    options: Annotated[tuple[float | int | str | bool | None, ...], Field(min_length=2)]


Dimension = Annotated[Span | Choice, Field(discriminator="kind")]
Space = dict[str, Dimension]
"""Path of a key in a recipe to what it may be."""

EVERYONES: Space = {
    "optimizer.learning_rate": Span(low=0.25, high=4.0, log=True, times_default=True),
    "optimizer.weight_decay": Span(low=0.1, high=10.0, log=True, times_default=True),
}
"""What every recipe tunes, the baseline too."""


def suggestion_of(space: Space, recipe: str, place: str, number: int, seed: int) -> dict[str, Any]:
    """The values of a trial: a pure function of the recipe's name, the place, the number and the seed.

    Trial 0 changes nothing: the defaults are always among those tried. Later ones are drawn at random, by
    Optuna's sampler, so that a resumed or a shared search tries the same.

    Args:
        space: of the recipe.
        recipe: its name.
        place: repeat and fold, the same however many repeats there are.
        number: of the trial.
        seed: of the comparison.

    Example:
        >>> space = {"objective.settings.gamma": Span(low=0.5, high=5.0)}
        >>> suggestion_of(space, "focal", "0/1", 0, seed=0)
        {}
        >>> found = suggestion_of(space, "focal", "0/1", 3, seed=0)
        >>> 0.5 <= found["objective.settings.gamma"] <= 5.0
        True
        >>> found == suggestion_of(space, "focal", "0/1", 3, seed=0)
        True
    """
    if number == 0 or not space:
        return {}
    with extra("tool"):
        import optuna
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of every study
    try:
        sampler = optuna.samplers.RandomSampler(seed=seed_of(seed, recipe, place, number) % 2**32)
        trial = optuna.create_study(sampler=sampler).ask({k: _distribution(d) for k, d in space.items()})
    finally:
        optuna.logging.set_verbosity(verbosity)
    return dict(trial.params)


def laid_over(recipe: Mapping[str, Any], space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as plain data with these values of a search in it.

    Raises:
        MarginsError: a path that the recipe does not have.

    Example:
        >>> space = {"optimizer.learning_rate": Span(low=0.5, high=2, times_default=True)}
        >>> laid_over({"optimizer": {"learning_rate": 0.01}}, space, {"optimizer.learning_rate": 2.0})
        {'optimizer': {'learning_rate': 0.02}}
    """
    changed = deepcopy(dict(recipe))
    for path, value in values.items():
        *above, last = path.split(".")
        part: Any = changed
        for key in above:
            part = part.get(key) if isinstance(part, dict) else None
        is_free = above[-1:] == ["settings"]  # hyperparameters of a loss have defaults that are not written
        if not isinstance(part, dict) or (last not in part and not is_free):
            raise MarginsError(
                "space", expected="a key of the recipe", received=repr(path),
                fix="write it as in a recipe, e.g. optimizer.learning_rate",
            )  # fmt: skip
        dimension = space[path]
        scaled = isinstance(dimension, Span) and dimension.times_default
        part[last] = part[last] * value if scaled else value
    return changed


def _distribution(dimension: Span | Choice) -> Any:
    import optuna

    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution(dimension.options)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
