"""Odd or even digits through ten concepts: what the detour costs, and whether concepts become the digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ground import digits
from margins.encoders import linear
from margins.encoders.attention import TransformerBlocks
from margins.evidence import Effect, Study
from margins.heads import ConceptHead, LinearHead
from margins.losses import ConceptExplanation, CrossEntropy

WIDTH, PATCH, EPOCHS, DIGITS = 48, 4, 25, 10
LABELLED = 0.1  # of the training rows, whose digit is told as the concept
EXPLANATION = 5.0  # the authors' weight


class Network(nn.Module):
    """Patches of 4 x 4 pixels through two blocks; then a head on their mean, or the head of concepts."""

    def __init__(self, seed: int, *, has_concepts: bool) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.patches = linear(PATCH * PATCH, WIDTH, generator=draws)
        self.places = nn.Parameter(torch.randn((8 // PATCH) ** 2, WIDTH, generator=draws) * WIDTH**-0.5)
        self.blocks = TransformerBlocks(width=WIDTH, depth=2, heads=2, generator=draws)
        if has_concepts:
            self.head: nn.Module = ConceptHead(WIDTH, 2, num_concepts=DIGITS, generator=draws)
        else:
            self.head = LinearHead(WIDTH, 2, generator=draws)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits [B, 2] and shares [B, 10] of the concepts, if there are any."""
        squares = nn.functional.unfold(x.view(-1, 1, 8, 8), PATCH, stride=PATCH).transpose(1, 2)
        states = self.blocks(self.patches(squares) + self.places)[-1]
        if not isinstance(self.head, ConceptHead):
            return self.head(states.mean(1)), None
        logits, shares = self.head.explained(states, torch.ones(states.shape[:2], dtype=torch.bool))
        return logits, shares["whole"]


def concepts_of(digit: Tensor, seed: int) -> Tensor:
    """The digit as a concept of as many rows of each as come to the share; NaN for the others."""
    draws = torch.Generator().manual_seed(seed)
    concepts = torch.full((len(digit), DIGITS), torch.nan)
    for k in range(DIGITS):
        own = (digit == k).nonzero()[:, 0]
        told = own[torch.randperm(len(own), generator=draws)[: round(LABELLED * len(own))]]
        concepts[told] = nn.functional.one_hot(digit[told], DIGITS).float()
    return concepts


def trained(arm: str, x: Tensor, digit: Tensor, lr: float, seed: int) -> Network:
    """A network that was taught odd and even, and with the arm "taught concepts" some digits."""
    network = Network(seed, has_concepts=arm != "plain head")
    concepts = concepts_of(digit, seed)
    cross_entropy, explanation = CrossEntropy(), ConceptExplanation()
    weight = EXPLANATION if arm == "taught concepts" else 0.0
    steps = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.01)
    size = 64
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(steps, EPOCHS * (len(x) // size))
    draws = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=draws)[: len(x) // size * size].split(size):
            steps.zero_grad()
            logits, shares = network(x[rows])
            loss = cross_entropy(logits, digit[rows] % 2)
            if shares is not None and weight:
                loss = loss + weight * explanation(shares, concepts[rows])
            loss.backward()
            steps.step()
            falling.step()
    return network.eval()


def matched(shares: Tensor, digit: Tensor) -> float:
    """The share of rows whose largest concept is that of their digit, under the best one-to-one naming."""
    from scipy.optimize import linear_sum_assignment

    table = torch.zeros(DIGITS, DIGITS)
    table.index_put_((shares.argmax(1), digit), torch.ones(len(digit)), accumulate=True)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return float(table[rows, columns].sum()) / len(digit)


@torch.no_grad()
def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Trains on half of the digits, and measures odd or even, and whether concepts are digits."""
    rows = digits(seed, train=0.5, select=0.1)
    with torch.enable_grad():
        network = trained(arm, *rows.train, settings["lr"], seed)
    right = {}
    for role, (x, digit) in (("select", rows.select), ("test", rows.test)):
        logits, shares = network(x)
        right[role] = float((logits.argmax(1) == digit % 2).float().mean())
    found = {"select": right["select"], "accuracy": right["test"]}
    if shares is not None:
        found["argmax is the digit"] = float((shares.argmax(1) == digit).float().mean())
        found["matched"] = matched(shares, digit)
    return found


GRID = {"lr": (0.001, 0.003)}
STUDY = Study(
    name="concept_head",
    cards=(
        "margins.heads.ConceptHead", "margins.losses.ConceptExplanation", "margins.losses.AttributionEntropy",
    ),
    claim="Predictions that go through concepts, some of which are labelled, are as accurate as without and "
    "are explained by these concepts.",
    source="Hong, Park, Pavlic 2024, arXiv 2305.15775 (MNIST, odd and even through ten concepts)",
    data="scikit-learn digits, odd or even; the digit is told as the concept of 10 % of the training rows",
    protocol="half of the rows train, a tenth chooses, the rest is tested; patches of 4 x 4 pixels, two "
    "transformer blocks of width 48, AdamW, 25 passes, batches of 64, the rate falls to 0. The learning rate "
    "is chosen by accuracy on the rows kept for it, 2 values an arm. The head has ten concepts of the whole "
    "image in slots, without noise in tests; the explanation weighs 5.",
    arms={"plain head": GRID, "taught concepts": GRID, "found concepts": GRID},
    budget=2,
    trial=trial,
    effects=(
        Effect(
            "accuracy, taught concepts - plain head",
            lambda f: f["taught concepts"]["accuracy"] - f["plain head"]["accuracy"], above=-0.005,
        ),
        Effect(
            "share of test rows whose largest concept is their digit",
            lambda f: f["taught concepts"]["argmax is the digit"], above=0.9,
        ),
        Effect(
            "the same of concepts that were not taught, under the best naming",
            lambda f: f["found concepts"]["matched"], above=0.3,
        ),
    ),
    test_to_train=0.8,
)  # fmt: skip
