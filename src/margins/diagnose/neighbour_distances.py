"""In how many directions data vary: an estimate from distances to nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import as_rows, check_count, check_share
from margins.errors import MarginsError

_ENTRIES = 1 << 22  # distances held at once

Method = Literal["mle", "twonn"]


@dataclass(frozen=True, kw_only=True)
class IntrinsicDimension:
    """An estimate with a bootstrap interval over the anchors.

    Args:
        value: the estimate.
        low: lower end.
        high: upper end; the interval is of the draw of anchors alone and holds nothing of the bias.
        method: that it comes from.
        num_anchors: rows at which it was measured.
        num_rows: different rows in which neighbours were looked for.
        num_copies: rows that equal another one, and were left out.
        warnings: sentences.
    """

    value: float
    low: float
    high: float
    method: Method
    num_anchors: int
    num_rows: int
    num_copies: int
    warnings: tuple[str, ...]


@carded(
    Card(
        name="Intrinsic dimension",
        summary="before training: how many directions data vary in, which sets how fast more rows help",
        paper="Konz, Mazurowski, The Effect of Intrinsic Dataset Properties on Generalization, 2024, "
        "arXiv 2401.08865; Levina, Bickel 2004; Facco et al. 2017, arXiv 1803.06992",
        kind="diagnostic",
        stations=("before training", "after training"),
        targets=("none",),
        entry=28,
        tests=(
            "tests/test_intrinsic_dimension.py::test_a_known_dimension_is_found",
            "tests/test_intrinsic_dimension.py::test_nearest_neighbours_say_too_little_in_many_dimensions",
            "tests/test_intrinsic_dimension.py::test_an_estimate_equals_its_definition_in_loops",
        ),
        study="intrinsic_dimension",
    )
)
def intrinsic_dimension(
    inputs: Float[Tensor, "rows ..."],
    *,
    method: Method = "mle",
    num_neighbours: int = 20,
    num_anchors: int = 1000,
    num_resamples: int = 200,
    confidence: float = 0.95,
    generator: torch.Generator,
) -> IntrinsicDimension:
    r"""The dimension of the surface on which rows lie, by nearest neighbours.

    Use it before training, on inputs in comparable units; and on the activations of a layer, to see what the
    network makes of them. Both estimates are too small in many dimensions (about 10 % at 10, more beyond
    that) and see noise as dimensions: compare data sets of like size, and read no digits. Not for categories
    or counts, whose many equal distances mean nothing here.

    With distances $T_1 \le \dots \le T_k$ to the neighbours of a row among the different rows:
    "mle": $1/d$ is the mean over anchors of $\frac{1}{k - 1} \sum_{j < k} \log (T_k / T_j)$;
    "twonn": $d = (n - 1) / \sum_i \log (T_2 / T_1)$ over $n$ anchors, which looks closer and varies more.

    Args:
        inputs: [N, ...], flattened.
        method: "mle" or "twonn".
        num_neighbours: $k$ >= 2 of "mle"; "twonn" looks at two.
        num_anchors: at most so many rows, drawn at random, are measured at.
        num_resamples: of the anchors, for the interval.
        confidence: of the interval.
        generator: draws anchors and resamples.

    Raises:
        MarginsError: too few different rows, numbers that are not finite, arguments out of range.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> plane = torch.randn(2000, 2, generator=draws) @ torch.randn(2, 30, generator=draws)
        >>> round(intrinsic_dimension(plane, generator=draws).value, 1)
        2.0

    References:
        Levina, Bickel 2004, NeurIPS, averaged as MacKay and Ghahramani 2005; Facco et al. 2017,
        arXiv 1803.06992; Konz, Mazurowski 2024, arXiv 2401.08865.
    """
    if method not in ("mle", "twonn"):
        raise MarginsError("method", expected="'mle' or 'twonn'", received=repr(method))
    num_near = 2 if method == "twonn" else check_count("num_neighbours", num_neighbours, least=2)
    check_count("num_anchors", num_anchors, least=2)
    check_count("num_resamples", num_resamples, least=100)
    check_share("confidence", confidence)
    rows = as_rows("inputs", inputs)
    different = torch.unique(rows, dim=0)
    if len(different) < num_near + 2:
        raise MarginsError(
            "inputs", expected=f"at least {num_near + 2} different rows", received=str(len(different))
        )
    order = torch.randperm(len(different), generator=generator)[:num_anchors].to(rows.device)
    near = neighbour_distances(different, order, num_near)
    inverse = (near[:, -1:] / near[:, :-1]).log().sum(1) / (num_near - 1)
    if method == "twonn":
        inverse = inverse * (len(inverse) / (len(inverse) - 1))
    if not bool(inverse.sum() > 0):
        raise MarginsError("inputs", expected="distances that differ", received="neighbours all as far")
    low, high = _interval(inverse, num_resamples, confidence, generator)
    num_copies = len(rows) - len(different)
    return IntrinsicDimension(
        value=float(1 / inverse.mean()), low=low, high=high, method=method, num_anchors=len(order),
        num_rows=len(different), num_copies=num_copies,
        warnings=_warnings(float(1 / inverse.mean()), len(rows), num_copies),
    )  # fmt: skip


def neighbour_distances(rows: Tensor, anchors: Tensor, num_near: int) -> Tensor:
    """Sorted distances [A, num_near] of some of the rows to their nearest others; rows differ.

    Neighbours are found by a matrix product, in blocks; their distances are then computed without
    cancellation.
    """
    centred = rows - rows.mean(0)
    half = centred.square().sum(1) / 2
    found: list[Tensor] = []
    for part in anchors.split(max(1, _ENTRIES // len(rows))):
        closeness = centred[part] @ centred.T - half
        closeness[torch.arange(len(part)), part] = -torch.inf
        near = closeness.topk(num_near, dim=1).indices
        for some, theirs in zip(part.split(256), near.split(256), strict=True):
            found.append((centred[theirs] - centred[some][:, None]).norm(dim=2).sort(dim=1).values)
    return torch.cat(found)


def _interval(
    inverse: Tensor, num_resamples: int, confidence: float, generator: torch.Generator
) -> tuple[float, float]:
    draws = torch.randint(len(inverse), (num_resamples, len(inverse)), generator=generator)
    means = inverse[draws.to(inverse.device)].mean(1)
    tail = (1 - confidence) / 2
    low, high = (1 / means).quantile(torch.tensor([tail, 1 - tail]).to(means)).tolist()
    return low, high


def _warnings(value: float, num_rows: int, num_copies: int) -> tuple[str, ...]:
    told: list[str] = []
    if value > 10:
        told.append(f"an estimate of {value:.1f} is too low: nearest neighbours underrate many dimensions")
    if num_copies > num_rows / 10:
        told.append(f"{num_copies} of {num_rows} rows equal another one and were left out")
    return tuple(told)
