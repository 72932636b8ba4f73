"""Prototypes of classes that training did not see: normalised softmax, plain softmax, triplets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ground import digits, fit, perceptron, predict
from margins.compare import NovelClassScore, TrainedEmbedding, novel_class
from margins.evidence import Effect, Study
from margins.heads import CosineHead, LinearHead
from margins.losses import CrossEntropy, SemiHardTriplet

WIDTH, EPOCHS = 64, 30


def trained(arm: str, settings: Mapping[str, Any], x: Tensor, y: Tensor, seed: int) -> TrainedEmbedding:
    """An embedding of the pixels, trained on the seen classes; or the pixels themselves."""
    if arm == "pixels":
        return TrainedEmbedding(embed=lambda new: new)
    encoder, draws = perceptron((64, 128, WIDTH), seed), torch.Generator().manual_seed(seed + 1)
    num_classes, loss = int(y.max()) + 1, CrossEntropy()
    network: nn.Module = encoder
    objective: Callable[[Tensor, Tensor], Tensor] = loss
    if arm == "cosine":
        head = CosineHead(WIDTH, num_classes, temperature=settings["temperature"], generator=draws)
        network = nn.Sequential(encoder, head)
    elif arm == "softmax":
        head = LinearHead(WIDTH, num_classes, generator=draws)
        network = (
            nn.Sequential(encoder, nn.ReLU(), head) if settings["relu"] else nn.Sequential(encoder, head)
        )
    else:
        head, triplet = None, SemiHardTriplet(settings["margin"])

        def objective(embeddings: Tensor, labels: Tensor) -> Tensor:
            return triplet.on_embeddings(embeddings, labels)

    fit(
        network, objective, x, y, seed=seed, lr=settings["lr"], epochs=EPOCHS,
        weight_decay=settings["weight_decay"], optimizer="adam",
    )  # fmt: skip
    after = nn.Sequential(encoder, nn.ReLU()) if settings.get("relu") else encoder
    return TrainedEmbedding(
        embed=lambda new: predict(after, new),
        class_vectors=None if head is None else head.weight.detach(),
    )


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Five digits are trained on, five are classified by prototypes; which, follows from the seed."""
    division, kept, seconds = digits(seed), dict[int, TrainedEmbedding](), [0.0]

    def once(x: Tensor, y: Tensor, own_seed: int) -> TrainedEmbedding:
        if own_seed not in kept:
            start = time.perf_counter()
            kept[own_seed] = trained(arm, settings, x, y, own_seed)
            seconds[0] += time.perf_counter() - start
        return kept[own_seed]

    def scores(rows: Any) -> list[NovelClassScore]:
        return novel_class(
            once, tuple(division.train), tuple(rows), num_seen=5, shots=(5, None), num_splits=4, seed=seed
        )

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    found = scores(division.test)
    five = [score for score in found if score.shots == 5]
    return {
        "novel, 5 shots": mean([score.disjoint for score in five]),
        "novel, all shots": mean([score.disjoint for score in found if score.shots is None]),
        "joint, 5 shots": mean([score.joint.overall for score in five]),
        "joint by weights, 5 shots": mean(
            [(score.joint_by_weights or score.joint).overall for score in five]
        ),
        "seen among all": mean([score.joint.seen for score in five]),
        "seconds": seconds[0],
        "select": mean([score.disjoint for score in scores(division.select)]),
    }


RATES = {"lr": (1e-4, 3e-4, 1e-3, 3e-3), "weight_decay": (1e-3, 1e-1)}

STUDY = Study(
    name="cosine_novel_classes",
    cards=("margins.heads.CosineHead", "margins.heads.PrototypeHead", "margins.compare.novel_class"),
    claim="an embedding trained by softmax over cosines tells classes apart that training did not see, "
    "better than plain softmax and than metric learning, and without pairs",
    source="Pereira et al. 2021, arXiv 2102.03243",
    data="scikit-learn digits; five digits drawn for each seed are trained on, four times",
    protocol="divided anew for each seed (50 % train, 10 % select, 40 % test); perceptron 64-128-64, 30 "
    "epochs of AdamW, batches of 64, for all; rate, weight decay and each method's own setting are chosen "
    "by accuracy on novel classes of the select rows; cosine prototypes of 5 rows a class; triplets get as "
    "many epochs, for which they take longer",
    arms={
        "cosine": {**RATES, "temperature": (1 / 64, 1 / 16, 1 / 4)},
        "softmax": {**RATES, "relu": (False, True)},
        "triplet": {**RATES, "margin": (0.1, 0.2, 0.5)},
        "pixels": {},
    },
    budget=8,
    trial=trial,
    effects=(
        Effect(
            "novel classes, 5 shots: accuracy of cosine - plain softmax",
            lambda f: f["cosine"]["novel, 5 shots"] - f["softmax"]["novel, 5 shots"],
            reaches=0.1,
        ),
        Effect(
            "novel classes, 5 shots: not worse than triplets",
            lambda f: f["cosine"]["novel, 5 shots"] - f["triplet"]["novel, 5 shots"],
            above=-0.02,
        ),
        Effect(
            "novel classes, 5 shots: accuracy of cosine - pixels, without any training",
            lambda f: f["cosine"]["novel, 5 shots"] - f["pixels"]["novel, 5 shots"],
        ),
        Effect(
            "all classes, prototypes: accuracy of cosine - plain softmax",
            lambda f: f["cosine"]["joint, 5 shots"] - f["softmax"]["joint, 5 shots"],
        ),
    ),
    num_seeds=8,
    test_to_train=0.8,
)
