"""How much several representations of the same rows hold beyond one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import as_rows
from margins.errors import MarginsError


@dataclass(frozen=True, kw_only=True, eq=False)
class Richness:
    """What several representations have in common.

    Args:
        alignment: [n, n] linear CKA of each two; 1 on the diagonal.
        mean_alignment: over different ones; near 1, another one adds little. NaN of a single one.
        ranks: effective rank of each.
        joint_rank: effective rank of all side by side, each standardised.
    """

    alignment: Float[Tensor, "n n"]
    mean_alignment: float
    ranks: tuple[float, ...]
    joint_rank: float


@carded(
    Card(
        name="Richness of representations",
        summary="before encoders are concatenated or distilled: whether they hold different features",
        paper="Zhang and Bottou, Learning useful representations for shifting tasks and distributions, 2023, "
        "arXiv 2212.07346; Kornblith et al., Similarity of Neural Network Representations Revisited, 2019, "
        "arXiv 1905.00414",
        kind="diagnostic",
        stations=("after training",),
        targets=("none",),
        entry=60,
        tests=("tests/test_concatenated.py::test_copies_are_aligned_and_independent_blocks_are_not",),
    )
)
def richness(representations: Sequence[Float[Tensor, "N _"]]) -> Richness:
    """Alignment of each two representations of the same rows, and the ranks that they fill.

    Use it on encoders of several seeds: aligned ones have learned the same, and concatenating them gains
    nothing. Alignment does not say that what differs is useful: a probe on the target task does.

    Args:
        representations: [N, d] each, of the same rows; many more rows than features, or chance aligns them.

    Raises:
        MarginsError: none, or tensors that do not fit.

    Example:
        >>> rows = torch.eye(4)
        >>> found = richness([rows, 3 * rows])
        >>> round(found.mean_alignment, 6), round(found.joint_rank, 6)
        (1.0, 3.0)
    """
    if not representations:
        raise MarginsError("representations", expected="at least one", received="none")
    num = len(representations)
    alignment = torch.eye(num, dtype=torch.float64)
    for first in range(num):
        for second in range(first):
            value = linear_cka(representations[first], representations[second])
            alignment[first, second] = alignment[second, first] = value
    different = ~torch.eye(num, dtype=torch.bool)
    standardised = [_standardised(as_rows("representations", r, least=2)) for r in representations]
    return Richness(
        alignment=alignment,
        mean_alignment=float(alignment[different].mean()),
        ranks=tuple(effective_rank(r) for r in representations),
        joint_rank=effective_rank(torch.cat(standardised, 1)),
    )


def linear_cka(first: Float[Tensor, "N _"], second: Float[Tensor, "N _"]) -> float:
    r"""Linear centred kernel alignment $\|X^\top Y\|_F^2 / (\|X^\top X\|_F \|Y^\top Y\|_F)$, in [0, 1].

    Features are centred. It does not change when either representation is rotated, scaled or shifted; 0 where
    one of them does not vary.

    Args:
        first: [N, d].
        second: [N, e], of the same rows.

    Raises:
        MarginsError: other shapes.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])
        >>> round(linear_cka(x, 4 * x.flip(1) - 1), 6)
        1.0

    References:
        Kornblith et al. 2019, arXiv 1905.00414.
    """
    x, y = as_rows("first", first, least=2), as_rows("second", second, least=2)
    if len(x) != len(y):
        raise MarginsError("second", expected=f"as many rows: {len(x)}", received=str(len(y)))
    x, y = x - x.mean(0), y - y.mean(0)
    own = math.sqrt(float((x.T @ x).square().sum()) * float((y.T @ y).square().sum()))
    return float((x.T @ y).square().sum()) / own if own > 0 else 0.0


def effective_rank(embeddings: Float[Tensor, "N d"]) -> float:
    r"""$\exp(-\sum_i p_i \log p_i)$ of the singular values of the centred rows over their sum.

    Between 1 and the rank; 0 where nothing varies.

    Args:
        embeddings: [N, d].

    Example:
        >>> round(effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 6)
        2.0

    References:
        Roy and Vetterli, The Effective Rank, EUSIPCO 2007.
    """
    rows = as_rows("embeddings", embeddings, least=2)
    values = torch.linalg.svdvals(rows - rows.mean(0))
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values / total
    return math.exp(-float(torch.special.xlogy(shares, shares).sum()))


def _standardised(rows: Tensor) -> Tensor:
    deviation = rows.std(0, correction=0)
    varies = deviation > 1e-9 * (1 + rows.mean(0).abs())
    return (rows - rows.mean(0)) * torch.where(varies, 1 / deviation.clamp(min=1e-300), 0.0)
