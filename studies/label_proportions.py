"""A classifier of which only the class shares of bags of rows are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ground import Rows, accuracy, digits, perceptron
from margins.evidence import Effect, Study
from margins.labels import BagSampler, local_bags, make_bags
from margins.losses import Aggregated, bag_means

BAG_SIZE = 12
RATES = (0.001, 0.003, 0.006, 0.01, 0.02, 0.03)


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:  # noqa: ARG001
    """The accuracy on single rows; settings are chosen by held-out bags, without any row's label."""
    rows = digits(seed)
    draws = torch.Generator().manual_seed(seed)
    network = perceptron([64, 64, 10], seed)
    x, bags, shares = _bagged(rows.train, draws)
    loss = Aggregated("cross_entropy", rho=settings["rho"])
    optimizer = torch.optim.AdamW(network.parameters(), settings["lr"])
    sampler = BagSampler(bags, bags_per_batch=5, generator=draws)
    for _ in range(40):
        for batch in sampler:
            local, which = local_bags(bags[batch])
            optimizer.zero_grad()
            loss(network(x[batch]), local, shares[which]).backward()
            optimizer.step()
    held_x, held_bags, held_shares = _bagged(rows.select, draws)
    with torch.no_grad():
        held = Aggregated("cross_entropy", rho=0.0)(network(held_x), held_bags, held_shares)
    return {"select": -float(held), "test": accuracy(network, *rows.test)}


def _bagged(rows: Rows, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    bags = make_bags(len(rows.x), BAG_SIZE, generator=draws)
    hot = torch.nn.functional.one_hot(rows.y, 10).float()
    return rows.x, bags, bag_means(hot, bags, int(bags.max()) + 1)


STUDY = Study(
    name="label_proportions",
    cards=("margins.losses.Aggregated", "margins.labels.BagSampler"),
    claim="Between the loss of bags and the loss of rows with their bag's mean there is an interpolation "
    "that is better than both, for classifiers too.",
    source="Javanmard et al. 2024, arXiv 2401.11081, experiments beyond linear models",
    data=f"scikit-learn digits, random bags of {BAG_SIZE} training rows with the shares of their classes",
    protocol="perceptron of 64 units, 40 epochs of AdamW on 5 bags a step; learning rate, and rho of the "
    "interpolation, by the bag loss of held-out bags",
    arms={
        "bag_loss": {"rho": (0.0,), "lr": RATES},
        "instance_loss": {"rho": (1.0,), "lr": RATES},
        "interpolated": {"rho": (0.01, 0.05, 0.2), "lr": (0.003, 0.01)},
    },
    budget=6,
    trial=trial,
    effects=(
        Effect(
            "accuracy, interpolated - bag loss",
            lambda f: f["interpolated"]["test"] - f["bag_loss"]["test"],
        ),
        Effect(
            "accuracy, interpolated - instance loss",
            lambda f: f["interpolated"]["test"] - f["instance_loss"]["test"],
        ),
    ),
    num_seeds=10,
    test_to_train=0.8,
    tried="On development seeds the bag loss was as good as any interpolation: bags of 12 still say enough.",
)
