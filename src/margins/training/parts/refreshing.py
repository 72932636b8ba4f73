"""Kinds of `refresh`: a pass over the training rows between epochs."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from margins.balance.appearance import AppearanceEquity, Clusterer, Projection
from margins.data.settings import Settings
from margins.heads import LinearHead, NaiveBayesHead


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


class HeadStart(Refresh):
    """A refresh before the first epoch that gives a linear head its first weights."""

    def is_due(self, epoch: int) -> bool:
        return epoch == 0

    @abstractmethod
    def start(
        self, head: LinearHead, embeddings: Tensor, class_ids: Tensor, *, weight: Tensor | None
    ) -> None:
        """Sets the weights of the head.

        Args:
            head: of which there is a score for each class, with training rows or not.
            embeddings: [N, width] of the encoder as it stands, of the training rows.
            class_ids: [N] their classes.
            weight: [N] what they weigh; 1 each when None.
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


class NaiveBayesStart(HeadStart):
    """The head starts where Gaussian naive Bayes stands; see `margins.heads.NaiveBayesHead`.

    For few rows a class on embeddings that do not change. Behind an encoder that is still to be trained it
    starts from embeddings that say little. In a plan it acts again in every phase that keeps it. Naive Bayes
    is too sure: its scores are divided by the temperature at which one half of the rows is likeliest by what
    the other half says, which leaves decisions as they are. A class without training rows starts at half a
    row and no direction.

    Args:
        shrink: share in [0, 1] of each variance that is replaced by the mean over features.

    References:
        Zheng et al. 2023, arXiv 2302.02334.
    """

    name: Literal["naive_bayes_start"] = "naive_bayes_start"
    shrink: Annotated[float, Field(ge=0, le=1)] = 0.5

    @torch.no_grad()
    def start(
        self, head: LinearHead, embeddings: Tensor, class_ids: Tensor, *, weight: Tensor | None
    ) -> None:
        if weight is not None:
            counts = weight > 0
            embeddings, class_ids, weight = embeddings[counts], class_ids[counts], weight[counts]
        seen, place = class_ids.unique(return_inverse=True)
        temperature = self.temperature(embeddings, place, weight=weight)
        layer = self._fitted(embeddings, place, weight).as_linear()
        seen = seen.to(head.weight.device)
        head.weight.zero_()
        head.bias.fill_(math.log(0.5 / len(class_ids)) / temperature)
        head.weight[seen] = (layer.weight / temperature).to(head.weight)
        head.bias[seen] = (layer.bias / temperature).to(head.bias)

    def temperature(self, embeddings: Tensor, class_ids: Tensor, *, weight: Tensor | None = None) -> float:
        """What scores are divided by, 1 to 4096: the rows of each class in turn make two halves.

        Args:
            embeddings: [N, width].
            class_ids: [N] from 0, each with a row.
            weight: [N] > 0; 1 each when None.
        """
        half = _turns(class_ids) % 2
        judged = (class_ids.bincount(weights=half.double()) > 0)[
            class_ids
        ]  # of classes with two rows or more
        if not bool(judged.any()):
            return 1.0
        scores = torch.empty(len(class_ids), int(class_ids.max()) + 1)
        for part in (0, 1):
            taught, others = half != part, half == part
            given = None if weight is None else weight[taught]
            scores[others] = self._fitted(embeddings[taught], class_ids[taught], given, scores.shape[1])(
                embeddings[others]
            ).float()
        rows = torch.ones(len(class_ids)) if weight is None else weight.float()
        grid = [2 ** (step / 4) for step in range(49)]
        losses = [
            float((functional.cross_entropy(scores[judged] / t, class_ids[judged], reduction="none")
                   * rows[judged]).sum())
            for t in grid
        ]  # fmt: skip
        return grid[losses.index(min(losses))]

    def _fitted(
        self, embeddings: Tensor, class_ids: Tensor, weight: Tensor | None, num_classes: int | None = None
    ) -> NaiveBayesHead:
        num_classes = num_classes or int(class_ids.max()) + 1
        head = NaiveBayesHead(embeddings.shape[1], num_classes, shrink=self.shrink)
        return head.partial_fit(embeddings, class_ids, weight=weight)


def _turns(class_ids: Tensor) -> Tensor:
    """[N] how many rows of its class stand before each row."""
    order = class_ids.argsort(stable=True)
    counts = class_ids.bincount()
    turns = torch.empty_like(class_ids)
    turns[order] = torch.arange(len(class_ids)) - (counts.cumsum(0) - counts)[class_ids[order]]
    return turns


AnyRefresh = Annotated[LabelCorrection | AppearanceWeights | NaiveBayesStart, Field(discriminator="name")]
