"""Linear regression when only means over bags of rows are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from margins.evidence import Effect, Study
from margins.labels import choose_rho, fit_linear_bags, make_bags
from margins.losses import bag_means

SETTINGS = {"d150_k5": (150, 5), "d50_k5": (50, 5), "d50_k10": (50, 10)}
"""Inputs, and rows a bag."""
NUM_DRAWS = 4  # data sets a setting and seed
FIXED = {"bag_loss": 0.0, "instance_loss": 1.0}


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:  # noqa: ARG001
    """Squared errors of the weights of linear models."""
    return {name: _error(arm, *SETTINGS[name], seed) for name in SETTINGS}


def _error(arm: str, num_inputs: int, bag_size: int, seed: int) -> float:
    total = 0.0
    for number in range(NUM_DRAWS):
        draws = torch.Generator().manual_seed(10_000 * seed + number)
        weight = torch.randn(num_inputs, generator=draws, dtype=torch.float64) / num_inputs**0.5
        x = torch.randn(1000, num_inputs, generator=draws, dtype=torch.float64)
        y = x @ weight + 0.5 * torch.randn(1000, generator=draws, dtype=torch.float64)
        bags = make_bags(1000, bag_size, generator=draws)
        means = bag_means(y, bags, 1000 // bag_size)
        rho = FIXED.get(arm)
        if rho is None:
            rho = choose_rho(x, bags, means, fit_intercept=False, generator=draws).rho
        found = fit_linear_bags(x, bags, means, rho=rho, fit_intercept=False).weight
        total += float((found - weight).square().sum())
    return total / NUM_DRAWS


def _gain(setting: str, end: str) -> Effect:
    return Effect(
        f"squared error of the weights, {setting}: {end} - rho by cross-validation over bags",
        lambda f: f[end][setting] - f["chosen"][setting],
    )


STUDY = Study(
    name="aggregated",
    cards=("margins.losses.Aggregated", "margins.labels.fit_linear_bags", "margins.labels.choose_rho"),
    claim="Between the loss of bags and the loss of rows with their bag's mean there is an interpolation "
    "that is better than both, and cross-validation over bags finds it.",
    source="Javanmard et al. 2024, arXiv 2401.11081",
    data="drawn: 1000 rows, isotropic inputs, weights N(0, I/d), noise 0.5; d = 50 or 150, k = 5 or 10 a bag",
    protocol="linear models in closed form, rho by 5-fold cross-validation over bags; the squared error of "
    f"the weights, averaged over {NUM_DRAWS} data sets a seed",
    arms={"bag_loss": {}, "instance_loss": {}, "chosen": {}},
    budget=1,
    trial=trial,
    effects=(
        _gain("d50_k5", "bag_loss"),
        _gain("d50_k10", "bag_loss"),
        _gain("d150_k5", "bag_loss"),
        _gain("d50_k5", "instance_loss"),
        _gain("d50_k10", "instance_loss"),
        _gain("d150_k5", "instance_loss"),
    ),
    num_seeds=10,
    test_to_train=0.0,
)
