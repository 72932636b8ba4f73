"""The logistic loss of all positive/negative pairs: LibAUC lists them, ours need not.

The limit is one sort and two running sums: what a piecewise-polynomial surrogate needs. For the logistic one
it is a yardstick and no bound: a multipole method needs no full order.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from contest import OURS, Contest, Inputs, LossOf, Way, run_all
from limits import Run, sort_and_sums
from margins.losses import MannWhitney


def scored(num: int) -> Inputs:
    """Scores of which a tenth are of positives, which score higher."""
    labels = (torch.arange(num) % 10 == 0).float()[torch.randperm(num)]
    return torch.randn(num) + labels, labels


def ours() -> LossOf:
    """All pairs, by sums over the sorted scores."""
    return MannWhitney("logistic")


def libauc() -> LossOf:
    """All pairs, listed."""
    from libauc.losses.auc import PairwiseAUCLoss

    loss = PairwiseAUCLoss(surr_loss="logistic")
    return lambda scores, labels: loss(scores, labels)


def by_hand() -> LossOf:
    """All pairs, listed, in plain torch."""
    return lambda scores, labels: functional.softplus(
        scores[labels == 0][None] - scores[labels == 1][:, None]
    ).mean()


def limit(scores: Tensor, _: Tensor) -> Run:
    """A sort."""
    return sort_and_sums(scores)


def contest(num: int, named: str, *, alone: int = 0, ratio: float | None = None) -> Contest:
    """The contest at a size."""
    return Contest(
        name="pairs, logistic", size=f"n {named}, 10 % positive",
        inputs=partial(scored, num), small=partial(scored, 100), num_learned=1, limit=limit, rounds=15,
        ways={
            OURS: Way(make=ours),
            "LibAUC PairwiseAUCLoss": Way(make=libauc, alone=alone, ratio=ratio, package="libauc"),
            "torch by hand": Way(make=by_hand, alone=7 if alone else 0),
        },
    )  # fmt: skip


CONTESTS = [contest(2000, "2 k"), contest(32_000, "32 k", alone=3, ratio=1 / 300)]

if __name__ == "__main__":
    sys.exit(run_all(CONTESTS))
