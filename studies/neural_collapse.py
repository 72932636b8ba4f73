"""Networks trained long past zero error, on balanced and on imbalanced digits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ground import digits, fit, perceptron
from margins.diagnose import NeuralCollapse, neural_collapse, predict_collapse
from margins.evidence import Effect, Study

NUM_CLASSES = 10
COUNTS = {"balanced": [80] * NUM_CLASSES, "imbalanced": [80, 80, 80, 80, 80, 40, 30, 20, 15, 10]}
NUM_LARGE = 5
DECAY, RATE, EPOCHS, BATCH = 1e-3, 1e-3, 500, 100


class Tailed(nn.Module):
    """Two hidden layers with ReLU, then three linear ones without a bias, the last of them the head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed + 1)
        tail: list[nn.Module] = []
        for num_in, num_out in ((128, 64), (64, 64), (64, NUM_CLASSES)):
            layer = nn.Linear(num_in, num_out, bias=False, device="meta").to_empty(device="cpu")
            nn.init.normal_(layer.weight, std=num_in**-0.5, generator=draws)
            tail.append(layer)
        self.body = nn.Sequential(perceptron([64, 128, 128], seed), nn.ReLU())
        self.tail = nn.Sequential(*tail)

    def forward(self, x: Tensor) -> Tensor:
        """Scores and what enters the linear layers, side by side."""
        features = self.body(x)
        return torch.cat([self.tail(features), features], 1)


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:  # noqa: ARG001
    """The geometry at the first epoch without an error on the training rows, and at the end."""
    x, y = _rows(COUNTS[arm], seed)
    network = Tailed(seed)
    seen: dict[str, NeuralCollapse] = {}

    def loss(found: Tensor, targets: Tensor) -> Tensor:
        scores, features = found.split([NUM_CLASSES, found.shape[1] - NUM_CLASSES], 1)
        size = len(x) * features.square().sum(1).mean() + sum(
            w.square().sum() for w in network.tail.parameters()
        )
        return (scores - targets).square().sum(1).mean() / 2 + DECAY / 2 * size

    def look(epoch: int) -> None:
        if "first" not in seen or epoch == EPOCHS - 1:
            found, scores, _ = _geometry(network, x, y)
            if bool((scores.argmax(1) == y).all()):
                seen.setdefault("first", found)

    targets = nn.functional.one_hot(y, NUM_CLASSES).float()
    fit(
        network, loss, x, targets, seed=seed, lr=RATE, epochs=EPOCHS, batch_size=BATCH, optimizer="adam",
        cosine=True, after_epoch=look,
    )  # fmt: skip
    last, scores, means = _geometry(network, x, y)
    first = seen.get("first", last)  # without such an epoch nothing fell
    predicted = predict_collapse(COUNTS[arm], weight_decay=[DECAY] * 3, feature_decay=DECAY)
    own = torch.stack([scores[y == k, k].mean() for k in range(NUM_CLASSES)])
    return {
        "nc1_first": first.nc1, "nc1_last": last.nc1, "nc1_fall": math.log10(first.nc1 / last.nc1),
        "orthogonal_first": first.nc2_orthogonal, "orthogonal_last": last.nc2_orthogonal,
        "off_diagonal_first": first.off_diagonal, "off_diagonal_last": last.off_diagonal,
        "cosine_of_large": _mean_cosine(means[:NUM_LARGE]),
        "weights_as_predicted": _rank_correlation(last.weight_norms or (), predicted.weight_energies),
        "means_as_predicted": _rank_correlation(last.mean_norms, predicted.head_feature_energies),
        "furthest_output": float((own - torch.tensor(predicted.outputs)).abs().max()),
        "predicted_rarest": predicted.outputs[-1], "output_of_rarest": float(own[-1]),
    }  # fmt: skip


def _rows(counts: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    train = digits(seed, train=0.6).train
    places = torch.cat([(train.y == k).nonzero().flatten()[:num] for k, num in enumerate(counts)])
    return train.x[places], train.y[places]


@torch.no_grad()
def _geometry(network: Tailed, x: Tensor, y: Tensor) -> tuple[NeuralCollapse, Tensor, Tensor]:
    """Metrics of what the head takes, the scores, and the class means."""
    features, weight = network.tail[:-1](network.body(x)), next(iter(network.tail[-1].parameters()))
    means = torch.stack([features[y == k].mean(0) for k in range(NUM_CLASSES)])
    return neural_collapse(features, y, weight), features @ weight.T, means


def _mean_cosine(means: Tensor) -> float:
    unit = nn.functional.normalize(means, dim=1)
    cosines = (unit @ unit.T).abs()
    return float((cosines.sum() - cosines.diagonal().sum()) / (len(means) * (len(means) - 1)))


def _rank_correlation(found: Sequence[float], predicted: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(found, predicted).statistic) if len(set(predicted)) > 1 else 0.0


STUDY = Study(
    name="neural_collapse",
    cards=("margins.diagnose.neural_collapse", "margins.diagnose.predict_collapse"),
    claim="Trained on past zero error with weight decay, features of a class shrink to their mean; with "
    "squared error and no bias class means become orthogonal, of lengths that follow the class's rows when "
    "classes are imbalanced.",
    source="Dang et al. 2023, arXiv 2301.00437",
    data="scikit-learn digits, 80 training rows a class; imbalanced: 80 in five classes, then 40, 30, 20, "
    "15, 10",
    protocol="two hidden layers of 128 with ReLU and three linear ones without a bias, squared error with a "
    f"decay of {DECAY:g} on the linear layers and on the features that enter them, Adam {RATE:g} for "
    f"{EPOCHS} epochs; figures on the training rows, at the first epoch without an error and at the end; "
    "nothing is tuned",
    arms={"balanced": {}, "imbalanced": {}},
    budget=1,
    trial=trial,
    tried="The design was changed while developing, after figures were seen. With ordinary weight decay, 5 "
    "seeds, NC1 fell (by 1.30 and 1.35 powers of ten) but the geometry did not follow: one minus the "
    "cosine of large classes was 0.84 where 0.95 was asked, and rank correlations were -0.05 and -0.26. "
    "Here features are decayed explicitly, the setting that the theory solves, so nothing is said about "
    "ordinary weight decay.",
    effects=(
        Effect(
            "decimal logarithm of NC1 at the first epoch without an error over NC1 at the end, balanced",
            lambda f: f["balanced"]["nc1_fall"],
            above=0.0,
            reaches=1.0,
        ),
        Effect(
            "the same, imbalanced",
            lambda f: f["imbalanced"]["nc1_fall"],
            above=0.0,
            reaches=1.0,
        ),
        Effect(
            "1 - mean cosine between the means of the five large classes, imbalanced",
            lambda f: 1 - f["imbalanced"]["cosine_of_large"],
            above=0.95,
        ),
        Effect(
            "1 - largest distance of a class's output from the predicted one, imbalanced",
            lambda f: 1 - f["imbalanced"]["furthest_output"],
            above=0.95,
        ),
        Effect(
            "rank correlation of the lengths of head rows with the predicted ones, imbalanced",
            lambda f: f["imbalanced"]["weights_as_predicted"],
            above=0.8,
        ),
        Effect(
            "rank correlation of the lengths of class means with the predicted ones, imbalanced",
            lambda f: f["imbalanced"]["means_as_predicted"],
            above=0.8,
        ),
    ),
    num_seeds=5,
    test_to_train=0.4 / 0.6,
)
