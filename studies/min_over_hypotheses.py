"""Several answers of which the best is trained: a curve of two branches, digits blurred in unknown ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ground import digits, fit, perceptron, predict
from margins.encoders.convolution import convolution
from margins.evidence import Effect, Study
from margins.heads import MultiHypothesisConv
from margins.losses import MinOverHypotheses

TRAIN, SELECT = 0.5, 0.1
STEPS, PASSES = 1500, 20
LOSSES: dict[str, dict[str, Any]] = {
    "one": {"num": (1, 1)},
    "winner takes all": {"num": (2, 4)},
    "relaxed": {"num": (2, 4), "relax": 0.05},
    "annealed": {"num": (2, 4), "relax": 0.05, "anneal": True},
    "multiplexed": {"num": (2, 4), "multiplex": True},
}


def curve(seed: int, number: int) -> tuple[Tensor, Tensor]:
    """Points of y = sin x or y = - sin x, by chance, with noise of variance 0.01."""
    draws = torch.Generator().manual_seed(seed)
    x = 0.5 + 2 * torch.rand(number, 1, generator=draws)
    sign = torch.where(torch.rand(number, 1, generator=draws) < 0.5, 1.0, -1.0)
    return x, sign * torch.sin(x) + 0.1 * torch.randn(number, 1, generator=draws)


def blurred(images: Tensor, seed: int) -> Tensor:
    """Images [N, 1, 8, 8], each under a random kernel of 3 x 3 and a little noise."""
    draws = torch.Generator().manual_seed(seed)
    kernels = torch.rand(len(images), 1, 3, 3, generator=draws).pow(3)
    kernels = kernels / kernels.sum((2, 3), keepdim=True)
    moved = functional.conv2d(images.transpose(0, 1), kernels, padding=1, groups=len(images)).transpose(0, 1)
    return moved + 0.05 * torch.randn(images.shape, generator=draws)


class Branches(nn.Module):
    """A perceptron with H numbers of one output: [B, H, 1]."""

    def __init__(self, num_hypotheses: int, seed: int) -> None:
        super().__init__()
        self.body = perceptron((1, 64, 64, num_hypotheses), seed)

    def forward(self, x: Tensor) -> Tensor:
        """Hypotheses of [B, 1]."""
        return self.body(x)[..., None]


class Restorer(nn.Module):
    """Three convolutions and a head of H images, each a change of the given one."""

    def __init__(self, num_hypotheses: int, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        layers: list[nn.Module] = []
        for num_in in (1, 16, 16):
            layers += [convolution(num_in, 16, kernel=3, step=1, generator=draws), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = MultiHypothesisConv(16, 1, num_hypotheses=num_hypotheses, generator=draws)

    def forward(self, images: Tensor) -> Tensor:
        """Hypotheses [B, H, 1, 8, 8]."""
        return self.head(self.body(images.contiguous(memory_format=torch.channels_last)), images)


def trial(arm: str, _settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Trains both networks and measures the best hypothesis of each row, and the best one on the whole."""
    own = LOSSES[arm]
    options = {"relax": own.get("relax", 0.0), "multiplex": own.get("multiplex", False)}
    on_curve, on_images = own["num"]

    x, y = curve(seed, 1000)
    loss = MinOverHypotheses(on_curve, anneal_epochs=STEPS // 2 if "anneal" in own else None, **options)
    network = fit(
        Branches(on_curve, seed), loss, x[:500], y[:500], seed=seed, lr=0.01, epochs=STEPS, batch_size=500,
        optimizer="adam", cosine=True,
    )  # fmt: skip
    of_curve = loss.report(predict(network, x[500:]), y[500:])

    rows = digits(seed, train=TRAIN, select=SELECT)
    sharp = [r.x.view(-1, 1, 8, 8) for r in (rows.train, rows.test)]
    seen = [blurred(images, seed + shift) for images, shift in zip(sharp, (0, 10_000), strict=True)]
    loss = MinOverHypotheses(
        on_images, base="psnr", anneal_epochs=PASSES // 2 if "anneal" in own else None, **options
    )
    network = fit(
        Restorer(on_images, seed), loss, seen[0], sharp[0], seed=seed, lr=0.01, epochs=PASSES, batch_size=32,
        optimizer="adam", cosine=True,
    )  # fmt: skip
    of_images = loss.report(predict(network, seen[1]), sharp[1])
    num_dead = len(of_curve.dead()) + len(of_images.dead())
    return {
        "curve, best of each": of_curve.oracle,
        "PSNR, best of each": -of_images.oracle,
        "PSNR, best single": -of_images.single,
        "alive": 1 - num_dead / (len(of_curve.win_rates) + len(of_images.win_rates)),
    }


def lead(first: str, second: str, figure: str) -> Any:
    """How much more the first has of a figure."""
    return lambda f: f[first][figure] - f[second][figure]


STUDY = Study(
    name="min_over_hypotheses",
    cards=(
        "margins.losses.MinOverHypotheses",
        "margins.heads.MultiHypothesisConv",
        "margins.heads.MultiHypothesisHead",
    ),
    claim="Where many answers are right, several outputs of which only the best is trained restore images "
    "better than one output: by 0.11 to 0.18 dB for the best of each image, 0.04 to 0.08 dB for the best "
    "single output.",
    source="Liu et al. 2022, arXiv 2208.13029, abstract",
    data="500 points of plus or minus sin x with noise of variance 0.01, and scikit-learn's digits, each "
    "blurred by a random kernel of 3 x 3 that is not told: half to train, 40 % to test",
    protocol="a perceptron 64-64 with 1,500 steps of Adam, and three convolutions of 16 channels with 20 "
    "passes; one output, or two for the curve and four for the digits, from the same features. Nothing is "
    "tuned. Relaxation 0.05, annealed over the first half.",
    arms={arm: {} for arm in LOSSES},
    trial=trial,
    effects=(
        Effect(
            "PSNR in dB, best of four outputs of each image - one output",
            lead("winner takes all", "one", "PSNR, best of each"),
            reaches=0.1,
        ),
        Effect(
            "PSNR in dB, best single output of four - one output",
            lead("winner takes all", "one", "PSNR, best single"),
            reaches=0.04,
        ),
        Effect(
            "squared error on the curve, one output - the best of two",
            lead("one", "winner takes all", "curve, best of each"),
            reaches=0.5,
        ),
        Effect(
            "squared error on the curve, relaxed - annealed",
            lead("relaxed", "annealed", "curve, best of each"),
        ),
        Effect("share of outputs that win, annealed", lambda f: f["annealed"]["alive"], above=0.99),
        Effect(
            "PSNR in dB, best of ten multiplexed outputs - best of four",
            lead("multiplexed", "winner takes all", "PSNR, best of each"),
        ),
    ),
    num_seeds=10,
    test_to_train=0.4 / 0.5,
)
