"""How much accuracy a model loses when inputs move a little the wrong way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.diagnose.checking import as_rows, check_labels, check_positive
from margins.errors import MarginsError

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Fragility:
    """Accuracy before and after one step of the fast gradient sign method.

    Args:
        accuracy: of the inputs as they are.
        radii: how far each entry was moved.
        drops: accuracy lost at each radius; negative where the step happened to help.
    """

    accuracy: float
    radii: tuple[float, ...]
    drops: tuple[float, ...]


@carded(
    Card(
        name="FGSM accuracy drop",
        summary="after training: how easily a model is attacked; a lower bound on what an attack can do",
        paper="Goodfellow, Shlens, Szegedy, Explaining and Harnessing Adversarial Examples, 2014, "
        "arXiv 1412.6572; beside label sharpness in Konz, Mazurowski 2024, arXiv 2401.08865",
        kind="diagnostic",
        stations=("after training",),
        targets=("classes",),
        entry=28,
        tests=(
            "tests/test_intrinsic_dimension.py::test_a_linear_model_loses_the_rows_within_reach_of_its_boundary",
        ),
        study="intrinsic_dimension",
    )
)
def fragility(
    model: Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "rows ..."],
    labels: Int[Tensor, " rows"],
    *,
    radii: Sequence[float] = (1 / 255, 2 / 255, 4 / 255, 8 / 255),
    box: tuple[float, float] | None = (0.0, 1.0),
) -> Fragility:
    r"""The accuracy that a model loses at $x + r \, sign \nabla_x CE$, clipped to the box.

    Use it to compare models or data sets in passing. It is one step: a model that resists it may fall to a
    stronger attack (`margins.robust.PGD`), above all when its gradients vanish, so it proves no robustness.

    Args:
        model: inputs to logits [N, C]; give it in evaluation mode.
        inputs: [N, ...] floats.
        labels: [N] class ids.
        radii: in the unit of the inputs, each above 0.
        box: where inputs live; None for anywhere.

    Raises:
        MarginsError: labels that do not fit, a radius that is not above 0, inputs outside the box.

    Example:
        >>> found = fragility(lambda x: torch.cat([-x, x], 1), torch.tensor([[0.1], [0.9]]),
        ...                   torch.tensor([1, 1]), radii=[0.2], box=None)
        >>> found.accuracy, found.drops
        (1.0, (0.5,))

    References:
        Goodfellow et al. 2014, arXiv 1412.6572.
    """
    as_rows("inputs", inputs)
    check_labels("labels", labels, len(inputs))
    for radius in radii:
        check_positive("radii", radius)
    low, high = box if box is not None else (-torch.inf, torch.inf)
    if float(inputs.min()) < low or float(inputs.max()) > high:
        raise MarginsError(
            "inputs", expected=f"numbers in {[low, high]}",
            received=f"{float(inputs.min()):g} to {float(inputs.max()):g}",
            fix="name the box that they live in, or None",
        )  # fmt: skip
    right = torch.zeros(1 + len(radii), dtype=torch.float64)
    for rows, theirs in zip(inputs.split(_ROWS_AT_ONCE), labels.split(_ROWS_AT_ONCE), strict=True):
        signs = _gradient(model, rows, theirs).sign()
        for place, radius in enumerate((0.0, *radii)):
            with torch.no_grad():
                scores = model((rows + radius * signs).clamp(low, high))
            right[place] += (scores.argmax(1) == theirs).sum()
    accuracies = (right / len(inputs)).tolist()
    return Fragility(
        accuracy=accuracies[0], radii=tuple(radii), drops=tuple(accuracies[0] - a for a in accuracies[1:])
    )


def _gradient(model: Callable[[Tensor], Tensor], rows: Tensor, labels: Tensor) -> Tensor:
    with torch.enable_grad():
        moved = rows.detach().clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(moved), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
    return gradient
