"""Networks trained long past zero error, on balanced and on imbalanced digits."""

from __future__ import annotations

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
DECAY, RATE, EPOCHS, BATCH = 5e-4, 0.05, 1500, 100


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:  # noqa: ARG001
    """The geometry at the first epoch without an error on the training rows, and at the end."""
    x, y = _rows(COUNTS[arm], seed)
    network = _network(seed)
    seen: dict[str, NeuralCollapse] = {}

    def look(epoch: int) -> None:
        if "first" not in seen or epoch == EPOCHS - 1:
            found, wrong = _geometry(network, x, y)
            if wrong == 0 and "first" not in seen:
                seen["first"] = found
            seen["last"] = found

    targets = nn.functional.one_hot(y, NUM_CLASSES).float()
    fit(
        network, lambda scores, t: (scores - t).square().sum(1).mean() / 2, x, targets, seed=seed, lr=RATE,
        epochs=EPOCHS, batch_size=BATCH, weight_decay=DECAY, cosine=True, after_epoch=look,
    )  # fmt: skip
    first, last = seen["first"], seen["last"]
    predicted = predict_collapse(COUNTS[arm], weight_decay=[DECAY] * 3, feature_decay=DECAY)
    means = _means(network, x, y)[:NUM_LARGE]
    return {
        "nc1_first": first.nc1, "nc1_last": last.nc1,
        "nc1_fall": float(torch.tensor(first.nc1 / last.nc1).log10()),
        "orthogonal_first": first.nc2_orthogonal, "orthogonal_last": last.nc2_orthogonal,
        "off_diagonal_first": first.off_diagonal, "off_diagonal_last": last.off_diagonal,
        "cosine_of_large": _mean_cosine(means),
        "weights_as_predicted": _rank_correlation(last.weight_norms or (), predicted.weight_energies),
        "means_as_predicted": _rank_correlation(last.mean_norms, predicted.head_feature_energies),
    }  # fmt: skip


def _rows(counts: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    train = digits(seed, train=0.6).train
    places = torch.cat([(train.y == k).nonzero().flatten()[:num] for k, num in enumerate(counts)])
    return train.x[places], train.y[places]


def _network(seed: int) -> nn.Sequential:
    """Two hidden layers with ReLU, then three linear ones without a bias, the last of them the head."""
    draws = torch.Generator().manual_seed(seed + 1)
    tail: list[nn.Module] = []
    for num_in, num_out in ((128, 64), (64, 64), (64, NUM_CLASSES)):
        layer = nn.Linear(num_in, num_out, bias=False, device="meta").to_empty(device="cpu")
        nn.init.normal_(layer.weight, std=num_in**-0.5, generator=draws)
        tail.append(layer)
    return nn.Sequential(perceptron([64, 128, 128], seed), nn.ReLU(), *tail)


@torch.no_grad()
def _geometry(network: nn.Sequential, x: Tensor, y: Tensor) -> tuple[NeuralCollapse, int]:
    features, weight = network[:-1](x), next(iter(network[-1].parameters()))
    return neural_collapse(features, y, weight), int(((features @ weight.T).argmax(1) != y).sum())


@torch.no_grad()
def _means(network: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    features = network[:-1](x)
    return torch.stack([features[y == k].mean(0) for k in range(NUM_CLASSES)])


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
    protocol="two hidden layers of 128 with ReLU and three linear ones without a bias, squared error, SGD "
    f"with weight decay {DECAY:g} for {EPOCHS} epochs; figures on the training rows, at the first epoch "
    "without an error and at the end; nothing is tuned",
    arms={"balanced": {}, "imbalanced": {}},
    budget=1,
    trial=trial,
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
