"""How steeply the label must change over the inputs: rows of different classes that lie close together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import as_rows, check_count, check_labels
from margins.errors import MarginsError

_ENTRIES = 1 << 22  # distances held at once
_HIGH = 0.999


@dataclass(frozen=True, kw_only=True)
class LabelSharpness:
    """Steepness of the label over pairs of rows; a rate per unit of the inputs.

    Args:
        largest: over the pairs; grows with their number, so compare equal numbers only.
        high: the 99.9 % quantile over pairs of different classes, which a single pair does not move.
        num_items: rows of which all pairs were looked at.
        num_contradictions: pairs of equal inputs and different classes, of infinite steepness; left out.
        warnings: sentences.
    """

    largest: float
    high: float
    num_items: int
    num_contradictions: int
    warnings: tuple[str, ...]


@carded(
    Card(
        name="Label sharpness",
        summary="before training: how close classes lie, which goes with how easily models are attacked",
        paper="Konz, Mazurowski, The Effect of Intrinsic Dataset Properties on Generalization, 2024, "
        "arXiv 2401.08865",
        kind="diagnostic",
        stations=("before training",),
        targets=("classes",),
        entry=28,
        limits=("one pair at distance r: 1 / r", "inputs times s: sharpness over s"),
        tests=(
            "tests/test_intrinsic_dimension.py::test_two_rows_of_two_classes_are_as_sharp_as_they_are_close",
            "tests/test_intrinsic_dimension.py::test_sharpness_falls_as_inputs_are_stretched",
            "tests/test_intrinsic_dimension.py::test_the_nearest_enemy_is_the_limit_of_all_pairs",
        ),
        study="intrinsic_dimension",
    )
)
def label_sharpness(
    inputs: Float[Tensor, "rows ..."],
    labels: Int[Tensor, " rows"],
    *,
    num_items: int = 1000,
    generator: torch.Generator,
) -> LabelSharpness:
    r"""The largest $1[y_i \ne y_j] / \|x_i - x_j\|$ over pairs of rows, and a calmer quantile.

    Use it before training to compare data sets of like inputs, scaled alike (to [0, 1], say); read `high`
    first, for one odd pair makes the largest. It is a rate per unit of the inputs: across units or
    dimensions it cannot be compared. `nearest_enemy_sharpness` is its exact limit.

    Args:
        inputs: [N, ...], flattened.
        labels: [N] class ids.
        num_items: at most so many rows, drawn at random.
        generator: draws them.

    Raises:
        MarginsError: fewer than two rows, rows of one class alone, numbers that are not finite.

    Example:
        >>> x, y = torch.tensor([[0.0, 0.0], [0.0, 0.5]]), torch.tensor([0, 1])
        >>> label_sharpness(x, y, generator=torch.Generator()).largest
        2.0

    References:
        Konz, Mazurowski 2024, arXiv 2401.08865, here for several classes too.
    """
    rows = _checked(inputs, labels)
    chosen = torch.randperm(len(rows), generator=generator)[: check_count("num_items", num_items, least=2)]
    chosen = chosen.to(rows.device)
    rows, labels = rows[chosen], labels.to(rows.device)[chosen]
    distances = torch.cat([_enemy_distances(rows, labels, part) for part in _parts(len(rows))])
    # Each pair was met twice, which moves neither the maximum nor the quantile.
    told: list[str] = []
    num_equal = int((distances == 0).sum()) // 2
    distances = distances[distances > 0]
    if not len(distances):
        raise MarginsError("labels", expected="rows of two classes with different inputs",
                           received=f"none among {len(rows)} rows", fix="raise num_items")  # fmt: skip
    if num_equal:
        told.append(
            f"{num_equal} pairs have equal inputs and different classes: no continuous rule can tell them"
        )
    rates = (1 / distances).sort().values
    return LabelSharpness(
        largest=float(rates[-1]), high=float(rates[math.ceil(_HIGH * len(rates)) - 1]),
        num_items=len(rows), num_contradictions=num_equal, warnings=tuple(told),
    )  # fmt: skip


def nearest_enemy_sharpness(inputs: Float[Tensor, "rows ..."], labels: Int[Tensor, " rows"]) -> float:
    """One over the least distance between two rows of different classes: `label_sharpness` of all pairs.

    Use it where N squared distances can be paid. Equal inputs of different classes are left out.

    Args:
        inputs: [N, ...], flattened.
        labels: [N] class ids.

    Raises:
        MarginsError: as `label_sharpness`.

    Example:
        >>> nearest_enemy_sharpness(torch.tensor([[0.0], [1.0], [4.0]]), torch.tensor([0, 0, 1]))
        0.3333333333333333
    """
    rows = _checked(inputs, labels)
    least = torch.inf
    for part in _parts(len(rows)):
        distances = _enemy_distances(rows, labels.to(rows.device), part)
        distances = distances[distances > 0]
        least = min(least, float(distances.min())) if len(distances) else least
    if least == torch.inf:
        raise MarginsError("inputs", expected="classes with different inputs", received="equal ones alone")
    return 1 / least


def _checked(inputs: Tensor, labels: Tensor) -> Tensor:
    rows = as_rows("inputs", inputs, least=2)
    check_labels("labels", labels, len(rows))
    if len(labels.unique()) < 2:
        raise MarginsError("labels", expected="rows of two classes or more", received="one class")
    return rows


def _parts(num_rows: int) -> tuple[Tensor, ...]:
    return torch.arange(num_rows).split(max(1, _ENTRIES // num_rows))


def _enemy_distances(rows: Tensor, labels: Tensor, part: Tensor) -> Tensor:
    """Distances of some rows to all rows of other classes; not by a product, which cancels."""
    part = part.to(rows.device)
    distances = torch.cdist(rows[part], rows, compute_mode="donot_use_mm_for_euclid_dist")
    return distances[labels[part, None] != labels]
