"""Which settings of an arm are tried: the same number for every arm that has a choice."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any


def settings_to_try(grid: Mapping[str, Sequence[Any]], budget: int) -> list[dict[str, Any]]:
    """The whole grid where it is small enough, else as many of its points as the budget has, evenly drawn.

    The draw depends on the grid and the budget alone.

    Args:
        grid: the values of each setting; none at all is one way to train.
        budget: largest number of settings.

    Example:
        >>> settings_to_try({"lr": (0.1, 0.2), "depth": (3,)}, 4)
        [{'lr': 0.1, 'depth': 3}, {'lr': 0.2, 'depth': 3}]
        >>> len(settings_to_try({"lr": (1, 2, 3), "decay": (1, 2, 3)}, 4))
        4
    """
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    if len(points) <= budget:
        return points
    chosen = random.Random(repr((sorted(grid), budget))).sample(range(len(points)), budget)
    return [points[place] for place in sorted(chosen)]
