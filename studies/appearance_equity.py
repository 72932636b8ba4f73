"""Whether weights by appearance help rows of a rare look that no class label names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ground import digits, fit, perceptron, predict
from margins.balance import AppearanceEquity
from margins.evidence import Effect, Study
from margins.losses import CrossEntropy
from margins.targets import Targets

RARE_SHARE = 0.05
EPOCHS = 60
RATES = (0.003, 0.01, 0.03)


def another_look(images: Tensor) -> Tensor:
    """The images mirrored and inverted."""
    return 1 - images.reshape(-1, 8, 8).flip(2).reshape(-1, 64)


def some_with_another_look(images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """The images, of which a share of each class has the rare look."""
    draws = torch.Generator().manual_seed(seed)
    is_rare = torch.zeros(len(images), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        num = max(1, round(RARE_SHARE * len(rows)))
        is_rare[rows[torch.randperm(len(rows), generator=draws)[:num]]] = True
    return torch.where(is_rare[:, None], another_look(images), images)


def weights(arm: str, settings: Mapping[str, Any], images: Tensor, labels: Tensor) -> Tensor:
    """What the rows weigh, 1 on average."""
    if arm == "plain":
        return torch.ones(len(images))
    if arm == "class_balanced":
        return (len(labels) / (labels.bincount() * len(labels.unique())))[labels]
    return AppearanceEquity(eta=settings["eta"]).fit(images).weight


def accuracies(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Of the same images in the rare and in the common look."""
    return tuple(
        float((predict(network, x).argmax(1) == labels).float().mean())
        for x in (another_look(images), images)
    )


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Accuracies after training with weighted rows, by look."""
    rows = digits(seed, train=0.7)
    x, y = some_with_another_look(*rows.train, seed), rows.train.y
    weight, loss = weights(arm, settings, x, y), CrossEntropy()

    def weighted(scores: Tensor, at: Tensor) -> Tensor:
        return loss(scores, Targets.of_classes(y[at], 10).weigh(rows=weight[at]))

    network = fit(
        perceptron((64, 64, 10), seed), weighted, x, torch.arange(len(x)), seed=seed, epochs=EPOCHS,
        lr=settings["lr"], weight_decay=settings["weight_decay"], optimizer="adam", cosine=True,
    )  # fmt: skip
    rare, common = accuracies(network, *rows.test)
    return {"rare": rare, "common": common, "select": sum(accuracies(network, *rows.select)) / 2}


STUDY = Study(
    name="appearance_equity",
    cards=("margins.balance.AppearanceEquity",),
    claim="Weights by the density of a row's appearance help inputs that look rare, which no balancing of "
    "classes reaches, and cost the common ones nothing.",
    source="Shrivastava et al. 2023, arXiv 2308.09878",
    data="scikit-learn digits, 5 % of the training images of each class mirrored and inverted",
    protocol="seven tenths of the digits train, one chooses, the rest is tested in both looks; a perceptron "
    f"of 64 units, {EPOCHS} epochs of AdamW, cosine schedule; learning rate and weight decay, or learning "
    "rate and floor of the weights, by the mean accuracy of both looks on the choosing rows; weights of "
    "AppearanceEquity on the pixels, 1 on average",
    arms={
        "plain": {"lr": RATES, "weight_decay": (0.0, 0.1)},
        "class_balanced": {"lr": RATES, "weight_decay": (0.0, 0.1)},
        "appearance": {"lr": RATES, "weight_decay": (0.1,), "eta": (0.3, 1.0)},
    },
    budget=6,
    trial=trial,
    effects=(
        Effect(
            "accuracy on the rare look, by appearance - plain",
            lambda f: f["appearance"]["rare"] - f["plain"]["rare"],
            reaches=0.03,
        ),
        Effect(
            "accuracy on the common look, by appearance - plain",
            lambda f: f["appearance"]["common"] - f["plain"]["common"],
            above=-0.005,
        ),
        Effect(
            "accuracy on the rare look, by appearance - class-balanced",
            lambda f: f["appearance"]["rare"] - f["class_balanced"]["rare"],
            reaches=0.03,
        ),
    ),
    num_seeds=16,
    num_tuning_seeds=3,
    test_to_train=0.2 / 0.7,
)
