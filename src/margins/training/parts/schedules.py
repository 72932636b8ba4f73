"""Learning rates as pure functions of the step, so that a schedule has no state."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field

from margins.data.settings import Settings

Share = Annotated[float, Field(ge=0, lt=1)]


class Schedule(Settings):
    """The course of the learning rate.

    Args:
        warmup: share of all steps in which the rate rises linearly from near 0.
    """

    name: Any  # a literal string in each part
    warmup: Share = 0.0

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """The factor at this share of the steps after the warm-up, in [0, 1)."""

    def factor(self, step: int, num_steps: int) -> float:
        """What the optimiser's learning rate is multiplied by at step `step` of `num_steps`.

        Example:
            >>> [round(Cosine(warmup=0.2).factor(step, 10), 3) for step in (0, 1, 2, 6, 9)]
            [0.333, 0.667, 1.0, 0.5, 0.038]
        """
        num_warm = math.floor(self.warmup * num_steps)
        if step < num_warm:
            return (step + 1) / (num_warm + 1)
        return self.after_warmup((step - num_warm) / max(num_steps - num_warm, 1))


class Constant(Schedule):
    """The same rate throughout, after the warm-up: for runs that stop early."""

    name: Literal["constant"] = "constant"

    def after_warmup(self, progress: float) -> float:
        return 1.0


class Cosine(Schedule):
    """Half a cosine from the full rate to 0: for runs whose length is known."""

    name: Literal["cosine"] = "cosine"

    def after_warmup(self, progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2


class OneCycle(Schedule):
    """Up from a twenty-fifth and down to nothing, both along a cosine: the fastest for small image nets.

    Args:
        rise: share of the steps until the full rate.
    """

    name: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3

    def after_warmup(self, progress: float) -> float:
        if progress < self.rise:
            return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / self.rise)) / 2
        return (1 + math.cos(math.pi * (progress - self.rise) / (1 - self.rise))) / 2


AnySchedule = Annotated[Constant | Cosine | OneCycle, Field(discriminator="name")]
