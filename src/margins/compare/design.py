"""What is fixed before a comparison runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from margins.compare.classes import ClassRows
from margins.data.splits import OuterFold
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.training import Preset, Recipe
from margins.training.defaults import default_recipe

Ints = npt.NDArray[np.int64]

SELECT_SHARE = 0.2

_OWN = {
    "objective": "recipes= names the objectives that are compared",
    "metric": "metric= says it",
    "seed": "seed= says it",
    "plan": "a comparison trains one phase so far",
    "decisions": "probabilities are judged as the network gives them",
}


@dataclass(frozen=True)
class Spoiling:
    """A change of the rows outside each outer test fold: an experiment on data made worse on purpose.

    Args:
        change: takes row numbers, their labels and a generator; gives the row numbers kept and their labels.
        sentence: what it does, for the protocol.
    """

    change: Callable[[Ints, Ints, np.random.Generator], tuple[Ints, Ints]]
    sentence: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """All that trials share.

    Args:
        rows: the data.
        folds: over all repeats.
        recipes: the objectives that are compared.
        num_seeds: trainings of each on each fold.
        seed: where all random choices start from.
        metric: judges, and chooses epochs.
        training: the recipe whose objective is replaced in turn.
        spoiling: of the rows outside each fold.
    """

    rows: ClassRows
    folds: Sequence[OuterFold]
    recipes: Sequence[Preset]
    num_seeds: int
    seed: int
    metric: Metric
    training: Recipe
    spoiling: Spoiling | None = None


def shared_recipe(rows: ClassRows, metric: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe that all objectives are trained by.

    Args:
        rows: the data.
        metric: chooses the epoch.
        changes: keys that are not to have their defaults, nested as in YAML.

    Raises:
        MarginsError: a key that is not shared, or a change that does not fit.

    Example:
        >>> from margins.compare.classes import class_rows
        >>> from margins.data.reading import read_frame
        >>> rows = class_rows(read_frame({"size": [1.5, 2.5, 3.5], "label": ["a", "b", "a"]}))
        >>> shared_recipe(rows, "accuracy", {"optimizer": {"learning_rate": 0.01}}).optimizer.learning_rate
        0.01
    """
    given = dict(changes or {})
    for key, fix in _OWN.items():
        if key in given:
            raise MarginsError(
                f"training: {key}", expected="parts of a recipe that all share", received=key, fix=fix
            )
    if given.get("task", "classes") != "classes":
        raise MarginsError("training: task", expected="classes", received=repr(given["task"]))
    return default_recipe(rows.columns, {**given, "metric": metric}, num_rows=len(rows))
