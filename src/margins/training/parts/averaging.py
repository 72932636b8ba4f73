"""Averages of the weights along the way, which are judged and kept in place of the last ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.data.settings import Settings


class Averaging(Settings):
    """Which average of the weights is kept."""

    name: Any  # a literal string in each part

    @abstractmethod
    def share_of_new(self, num_averaged: int, *, progress: float, ends_epoch: bool) -> float:
        """How much the new weights count in the average after a step; 0 leaves it as it is.

        Args:
            num_averaged: weights that went in so far.
            progress: share of all epochs that is behind, in (0, 1].
            ends_epoch: whether the step is the last of its epoch.
        """


class NoAveraging(Averaging):
    """The weights as they are."""

    name: Literal["none"] = "none"

    def share_of_new(self, num_averaged: int, *, progress: float, ends_epoch: bool) -> float:
        return 0.0


class EMA(Averaging):
    """An exponential moving average over steps; it starts as a plain mean, so that it has no bias.

    Args:
        decay: weight of the old average, once enough steps went in.
    """

    name: Literal["ema"] = "ema"
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999

    def share_of_new(self, num_averaged: int, *, progress: float, ends_epoch: bool) -> float:
        return max(1 - self.decay, 1 / (num_averaged + 1))


class EpochMean(Averaging):
    """The plain mean of the weights at the ends of the last epochs (stochastic weight averaging).

    Args:
        start: share of `max_epochs` after which epochs go in; until then the weights are as they are.
    """

    name: Literal["epoch_mean"] = "epoch_mean"
    start: Annotated[float, Field(ge=0, lt=1)] = 0.75

    def share_of_new(self, num_averaged: int, *, progress: float, ends_epoch: bool) -> float:
        return 1 / (num_averaged + 1) if ends_epoch and progress > self.start else 0.0


AnyAveraging = Annotated[NoAveraging | EMA | EpochMean, Field(discriminator="name")]


class AveragedWeights:
    """The average of a module's trainable parameters, as it stands.

    Args:
        module: whose parameters are averaged; buffers are not.
        how: which average.
    """

    def __init__(self, module: nn.Module, how: Averaging) -> None:
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._how = how
        self._mean: list[Tensor] = []
        self._num = 0

    @torch.no_grad()
    def after_step(self, *, progress: float, ends_epoch: bool) -> None:
        """Takes the weights in, if it is time to."""
        share = self._how.share_of_new(self._num, progress=progress, ends_epoch=ends_epoch)
        if not share:
            return
        if not self._mean:
            self._mean = [p.detach().clone() for p in self._parameters]
        else:
            for mean, parameter in zip(self._mean, self._parameters, strict=True):
                mean.lerp_(parameter, share)
        self._num += 1

    @contextmanager
    def in_place(self) -> Generator[None]:
        """The module has the average for weights inside the block, and its own afterwards."""
        if not self._mean:
            yield
            return
        own = [p.detach().clone() for p in self._parameters]
        self._put(self._mean)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, object]:
        """All that it has."""
        return {"mean": self._mean, "num": self._num}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """What `state_dict` gave."""
        mean, num = state["mean"], state["num"]
        assert isinstance(mean, list) and isinstance(num, int)  # noqa: S101, PT018 - the checkpoint was checked
        self._mean = [m.to(p.device) for m, p in zip(mean, self._parameters, strict=bool(mean))]
        self._num = num
