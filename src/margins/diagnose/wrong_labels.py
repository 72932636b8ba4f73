"""Whether a score of rows tells wrong labels from right ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import check_count
from margins.errors import MarginsError, describe


@dataclass(frozen=True, kw_only=True)
class NoiseScores:
    """How a score is spread over rows with wrong labels and over rows with right ones.

    Args:
        auroc: share of pairs of a wrong and a right row of which the wrong one scores higher; ties are half.
            0.5 tells nothing.
        edges: of the bins, one more than there are.
        wrong: share of the wrong rows in each bin.
        right: share of the right rows in each bin.
        wrong_mean: mean score of the wrong rows.
        right_mean: mean score of the right rows.
    """

    auroc: float
    edges: tuple[float, ...]
    wrong: tuple[float, ...]
    right: tuple[float, ...]
    wrong_mean: float
    right_mean: float


@carded(
    Card(
        name="Noise scores of rows",
        summary="labels made wrong on purpose: does a row's temperature or loss find them?",
        paper="Zhu, Ying, Yang, Label Distributionally Robust Losses, 2023, arXiv 2112.14869",
        kind="diagnostic",
        stations=("after training",),
        targets=("classes",),
        entry=3,
        tests=(
            "tests/test_robust_losses.py::test_noise_scores_count_pairs_as_loops_do",
            "tests/test_robust_losses.py::test_the_loss_of_a_row_finds_wrong_labels_and_its_temperature_hardly",
        ),
    )
)
def noise_scores(
    score: Float[Tensor, " rows"], is_wrong: Bool[Tensor, " rows"], *, num_bins: int = 20
) -> NoiseScores:
    """Histograms of a score over wrongly and rightly labelled rows, and how often it ranks a pair rightly.

    Use it where wrong labels are known: after flipping some on purpose, or on a checked sample. It compares
    scores for finding wrong labels: the temperatures of `ALDRKL`, a loss's `per_anchor`, one minus the
    probability of the label. On digits with 30 to 60 % wrong labels the loss of a row had an AUROC above
    0.95, its temperature one between 0.4 and 0.65: it is no sign of a wrong label there.

    Args:
        score: [N] finite; higher is meant to say that the label is wrong.
        is_wrong: [N] which labels are wrong; some, and not all.
        num_bins: of equal width between the lowest and the highest score.

    Raises:
        MarginsError: shapes that do not fit, no row of one kind, scores that are not finite.

    Example:
        >>> is_wrong = torch.tensor([False, False, True])
        >>> found = noise_scores(torch.tensor([0.1, 0.2, 0.9]), is_wrong, num_bins=2)
        >>> found.auroc, found.right, found.wrong
        (1.0, (1.0, 0.0), (0.0, 1.0))

    References:
        Zhu, Ying, Yang 2023, arXiv 2112.14869 (temperatures as a sign of noise).
    """
    if score.ndim != 1 or not score.is_floating_point() or not bool(score.isfinite().all()):
        raise MarginsError("score", expected="[N] finite floats", received=describe(score))
    if is_wrong.shape != score.shape or is_wrong.dtype != torch.bool:
        raise MarginsError(
            "is_wrong", expected=f"[N] = {list(score.shape)} booleans", received=describe(is_wrong)
        )
    num_wrong = int(is_wrong.sum())
    if not 0 < num_wrong < len(score):
        raise MarginsError(
            "is_wrong", expected="rows of both kinds", received=f"{num_wrong} of {len(score)} wrong"
        )
    check_count("num_bins", num_bins)
    values = score.detach().double().cpu()
    kinds = is_wrong.cpu()
    wrong, right = values[kinds], values[~kinds]
    low, high = float(values.min()), float(values.max())
    edges = torch.linspace(low, high if high > low else low + 1, num_bins + 1, dtype=torch.float64)
    return NoiseScores(
        auroc=_auroc(values, kinds),
        edges=tuple(edges.tolist()),
        wrong=_shares(wrong, edges),
        right=_shares(right, edges),
        wrong_mean=float(wrong.mean()),
        right_mean=float(right.mean()),
    )


def _auroc(values: Tensor, is_wrong: Tensor) -> float:
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    # The mean rank of tied rows, counted from 1.
    ranks = (counts.cumsum(0).double() - (counts.double() - 1) / 2)[place]
    num_wrong, num_right = int(is_wrong.sum()), int((~is_wrong).sum())
    return float((ranks[is_wrong].sum() - num_wrong * (num_wrong + 1) / 2) / (num_wrong * num_right))


def _shares(values: Tensor, edges: Tensor) -> tuple[float, ...]:
    num_bins = len(edges) - 1
    bins = torch.bucketize(values, edges[1:-1], right=True)
    return tuple((torch.bincount(bins, minlength=num_bins).double() / len(values)).tolist())
