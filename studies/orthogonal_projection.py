"""Orthogonal projection beside cross-entropy: geometry, accuracy, wrong labels, and classes to come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ground import digits, fit, flipped, perceptron, predict
from margins.compare import TrainedEmbedding, novel_class
from margins.evidence import Effect, Study
from margins.heads import LinearHead
from margins.losses import CrossEntropy, OrthogonalProjection

WIDTH, EPOCHS = 64, 30


class Classifying(nn.Module):
    """Cross-entropy of a linear head on features, with a penalty on the features."""

    def __init__(self, num_classes: int, weight: float, seed: int) -> None:
        super().__init__()
        self.head = LinearHead(WIDTH, num_classes, generator=torch.Generator().manual_seed(seed))
        self.loss, self.penalty, self.weight = CrossEntropy(), OrthogonalProjection(), weight

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch."""
        loss = self.loss(self.head(features), labels)
        return loss + self.weight * self.penalty(features, labels) if self.weight else loss


def trained(
    settings: Mapping[str, Any], x: Tensor, y: Tensor, num_classes: int, seed: int
) -> tuple[nn.Module, Classifying]:
    """Features that end in ReLU, and the head on them."""
    features = nn.Sequential(perceptron((64, 128, WIDTH), seed), nn.ReLU())
    loss = Classifying(num_classes, settings.get("weight", 0.0), seed + 1)
    fit(
        features, loss, x, y, seed=seed, lr=settings["lr"], epochs=EPOCHS,
        weight_decay=settings["weight_decay"], cosine=True,
    )  # fmt: skip
    return features, loss


def accuracy_of(features: nn.Module, loss: Classifying, x: Tensor, y: Tensor) -> float:
    """Of the head on the features."""
    return float((predict(nn.Sequential(features, loss.head), x).argmax(1) == y).double().mean())


def mean_cosine(features: Tensor, labels: Tensor) -> float:
    """Mean size of the cosine between each two class means."""
    means = torch.stack([features[labels == k].mean(0) for k in labels.unique()])
    cosines = nn.functional.normalize(means) @ nn.functional.normalize(means).T
    apart = ~torch.eye(len(means), dtype=torch.bool)
    return float(cosines[apart].abs().mean())


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Three trainings: on all digits, with two labels of five wrong, and on five digits alone."""
    assert ("weight" in settings) == (arm == "orthogonal_projection")  # noqa: S101
    division = digits(seed)
    train, select, test = division.train, division.select, division.test
    clean = trained(settings, train.x, train.y, 10, seed)
    wrong = flipped(train.y, 0.4, seed, kind="next", num_classes=10)
    noisy = trained(settings, train.x, wrong, 10, seed)

    def of_seen(x: Tensor, y: Tensor, own_seed: int) -> TrainedEmbedding:
        features, _ = trained(settings, x, y, 5, own_seed)
        return TrainedEmbedding(embed=lambda new: predict(features, new))

    novel = novel_class(of_seen, tuple(train), tuple(test), num_seen=5, shots=(5,), num_splits=2, seed=seed)
    chosen_by = [accuracy_of(*clean, *select), accuracy_of(*noisy, *select)]
    return {
        "accuracy": accuracy_of(*clean, *test),
        "cosine": mean_cosine(predict(clean[0], test.x), test.y),
        "accuracy, wrong labels": accuracy_of(*noisy, *test),
        "novel, 5 shots": sum(score.disjoint for score in novel) / len(novel),
        "select": sum(chosen_by) / 2,
    }


def gain(figure: str) -> Any:
    """With the penalty minus without it."""
    return lambda f: f["orthogonal_projection"][figure] - f["cross_entropy"][figure]


RATES = {"lr": (0.01, 0.03, 0.1), "weight_decay": (1e-4, 5e-3)}

STUDY = Study(
    name="orthogonal_projection",
    cards=("margins.losses.OrthogonalProjection",),
    claim="the penalty makes features of different classes orthogonal at no cost in accuracy, and helps "
    "with wrong labels",
    source="Ranasinghe et al. 2021, arXiv 2103.14021, figure 1 and tables 2, 5",
    data="scikit-learn digits; with 40 % of training labels moved to the next class; five digits drawn for "
    "each seed",
    protocol="divided anew for each seed (50 % train, 10 % select, 40 % test); perceptron 64-128-64 with a "
    "final ReLU, 30 epochs of SGD on a falling rate; the penalty has weight 1 and gamma 0.5; rate and "
    "weight decay are chosen by the mean accuracy of the clean and the noisy training on clean select rows; "
    "cosines are of the class means of test rows; new classes by cosine prototypes of 5 rows",
    arms={
        "cross_entropy": RATES,
        "orthogonal_projection": {**RATES, "weight": (1.0,)},
    },
    budget=6,
    trial=trial,
    effects=(
        Effect(
            "share of the mean |cosine| of class means that the penalty removes",
            lambda f: 1 - f["orthogonal_projection"]["cosine"] / f["cross_entropy"]["cosine"],
            reaches=0.5,
        ),
        Effect("accuracy with it - without", gain("accuracy"), above=-0.005),
        Effect("wrong labels: accuracy with it - without", gain("accuracy, wrong labels"), above=-0.01),
        Effect(
            "a known harm: accuracy lost on new classes after five training classes",
            lambda f: -gain("novel, 5 shots")(f),
        ),
    ),
    num_seeds=7,
    test_to_train=0.8,
)
