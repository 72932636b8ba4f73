"""Whether classes can be separated by a linear classifier of their features, and how hard it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import as_rows, check_labels
from margins.errors import MarginsError
from margins.heads.probe import LinearProbe


@dataclass(frozen=True, kw_only=True)
class Separability:
    """What a search for a separator found.

    Args:
        is_separated: whether one was found. If not, there may be none, or it is too hard to find.
        num_steps: taken.
        num_errors: rows on the wrong side of the last classifier.
        margin: distance of the nearest row to the boundary between its class and another, in the features'
            unit; of the last classifier, below 0 if a row is wrong.
        radius: largest distance of a row from the mean of all.
    """

    is_separated: bool
    num_steps: int
    num_errors: int
    margin: float
    radius: float


@carded(
    Card(
        name="Separability of features",
        summary="before fitting a head: can a linear one be right on every row, and by what margin?",
        paper="Tyurin, From Logistic Regression to the Perceptron Algorithm, 2024, arXiv 2412.08424",
        kind="diagnostic",
        stations=("before training", "after training"),
        targets=("classes",),
        entry=98,
        tests=(
            "tests/test_normalized_gd.py::test_separability_finds_the_margin_and_says_when_there_is_none",
        ),
        study="normalized_gd",
    )
)
def separability(
    features: Float[Tensor, "rows dim"],
    labels: Int[Tensor, " rows"],
    *,
    step_size: float = 100.0,
    max_steps: int = 1000,
) -> Separability:
    r"""Steps of normalised gradient descent until a linear classifier is right on every row.

    Use it on embeddings, to see whether their classes, rare ones included, can be told apart by a linear head
    at all, and to compare encoders on rows that are hard. A high loss during the search does not mean that it
    is far from its end. Do not read a margin as the largest one: the first separator is taken. Features of
    more dimensions than rows can nearly always be separated, which then says nothing.

    Features are centred and divided by their radius first, so that the step size means the same for all.

    Args:
        features: [N, d] finite.
        labels: [N] class ids from 0; at least two classes.
        step_size: > 0, of `margins.heads.LinearProbe`.
        max_steps: after which the search ends.

    Raises:
        MarginsError: shapes that do not fit, fewer than two classes.

    Example:
        >>> found = separability(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1]))
        >>> found.is_separated, found.num_errors, 0 < found.margin <= 2
        (True, 0, True)

    References:
        Tyurin 2024, arXiv 2412.08424.
    """
    rows = as_rows("features", features, least=2)
    check_labels("labels", labels, len(rows))
    num_classes = int(labels.max()) + 1
    if num_classes < 2:
        raise MarginsError("labels", expected="at least two classes", received="one")
    centred = rows - rows.mean(0)
    radius = float(centred.norm(dim=1).max())
    scale = radius or 1.0
    probe = LinearProbe("normalized_gd", step_size=step_size, max_steps=max_steps)
    fitted = probe.fit(centred / scale, labels, num_classes=num_classes)
    with torch.no_grad():
        margin = _smallest_distance(fitted.head.weight, fitted.head(centred / scale), labels.long()) * scale
    return Separability(
        is_separated=not fitted.num_errors,
        num_steps=fitted.num_steps,
        num_errors=fitted.num_errors,
        margin=margin,
        radius=radius,
    )


def _smallest_distance(weight: Tensor, scores: Tensor, labels: Tensor) -> float:
    """The least of (s_y - s_k) / |w_y - w_k| over rows and other classes; 0 for classes of equal weights."""
    lead = scores.gather(1, labels[:, None]) - scores
    length = torch.cdist(weight, weight)[labels]
    distance = torch.where(length > 0, lead / length.clamp(min=torch.finfo(length.dtype).tiny), 0.0)
    return float(distance.scatter(1, labels[:, None], torch.inf).min())
