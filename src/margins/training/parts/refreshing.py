"""Kinds of `refresh`: a pass over the training rows between epochs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from margins.data.settings import Settings


class Refresh(Settings):
    """A pass over the training rows before an epoch."""

    name: Any  # a literal string in each part

    @abstractmethod
    def is_due(self, epoch: int) -> bool:
        """Whether it runs before this epoch, counted from 0."""

    @abstractmethod
    def class_ids(self, given: Tensor, probabilities: Tensor) -> Tensor:
        """The classes [N] to train on from now on.

        Args:
            given: [N] the classes that the data give.
            probabilities: [N, C] of the model as it stands, on the training rows.
        """


class LabelCorrection(Refresh):
    """Rows of which the model is sure that they belong elsewhere are trained on as that class.

    For wrong labels. The classes that the data give stay the reference: every time all rows are judged anew,
    so a row can get its given class back. A model that has begun to memorise confirms wrong labels: start
    early.

    Args:
        start: epochs before the first correction.
        confidence: probability of the other class from which on it is taken.

    References:
        Tanaka et al., Joint Optimization Framework, 2018, arXiv 1803.11364 (the idea of replacing labels by
        predictions; there all rows, here only sure ones).
    """

    name: Literal["label_correction"] = "label_correction"
    start: Annotated[int, Field(ge=1)] = 3
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9

    def is_due(self, epoch: int) -> bool:
        return epoch >= self.start

    def class_ids(self, given: Tensor, probabilities: Tensor) -> Tensor:
        sure, guess = probabilities.max(1)
        return torch.where(sure >= self.confidence, guess, given)


AnyRefresh = Annotated[LabelCorrection, Field(discriminator="name")]
