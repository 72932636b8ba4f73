"""Kinds of `refresh`: a pass over the training rows between epochs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from margins.balance.appearance import AppearanceEquity, Clusterer, Projection
from margins.data.settings import Settings


class Refresh(Settings):
    """A pass over the training rows before an epoch."""

    name: Any  # a literal string in each part

    @abstractmethod
    def is_due(self, epoch: int) -> bool:
        """Whether it runs before this epoch, counted from 0."""


class Relabelling(Refresh):
    """A refresh that changes what rows are trained on as."""

    @abstractmethod
    def class_ids(self, given: Tensor, probabilities: Tensor) -> Tensor:
        """The classes [N] to train on from now on.

        Args:
            given: [N] the classes that the data give.
            probabilities: [N, C] of the model as it stands, on the training rows.
        """


class Reweighing(Refresh):
    """A refresh that changes what rows weigh."""

    @abstractmethod
    def row_weight(self, embeddings: Tensor, *, seed: int) -> Tensor:
        """[N] what rows weigh from now on, times what they weigh in the data.

        Args:
            embeddings: [N, width] of the encoder as it stands, of the training rows.
            seed: of what it draws.
        """


class LabelCorrection(Relabelling):
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


class AppearanceWeights(Reweighing):
    """Rows weigh more, the fewer others look like them; see `margins.balance.AppearanceEquity`.

    For rare looks that no label names. With a pretrained encoder, or images and numbers that show looks by
    themselves, weigh before the first epoch; an encoder that has learned the classes shows little else.
    Weights have mean 1.

    Args:
        start: epochs before the rows are weighed, once.
        eta: floor > 0; the larger, the more alike all rows weigh.
        gamma: sharpness; the larger, the less do looks of middling size gain.
        clusterer: how looks are found.
        projection: of the embeddings, before; "tsne" is slow from some ten thousand rows on.
        num_dims: of the projection.
        num_neighbours: that make a look.

    References:
        Shrivastava et al., Are All Samples Created Equal?, 2023, arXiv 2308.09878.
    """

    name: Literal["appearance_equity"] = "appearance_equity"
    start: Annotated[int, Field(ge=0)] = 0
    eta: Annotated[float, Field(gt=0)] = 1.0
    gamma: Annotated[float, Field(ge=0)] = 5.0
    clusterer: Clusterer = "dbscan"
    projection: Projection | None = "pca"
    num_dims: Annotated[int, Field(ge=1)] = 2
    num_neighbours: Annotated[int, Field(ge=1)] = 10

    def is_due(self, epoch: int) -> bool:
        return epoch == self.start

    def row_weight(self, embeddings: Tensor, *, seed: int) -> Tensor:
        equity = AppearanceEquity(
            eta=self.eta, gamma=self.gamma, clusterer=self.clusterer, projection=self.projection,
            num_dims=self.num_dims, num_neighbours=self.num_neighbours, seed=seed % 2**32,
        )  # fmt: skip
        return equity.fit(embeddings).weight


AnyRefresh = Annotated[LabelCorrection | AppearanceWeights, Field(discriminator="name")]
