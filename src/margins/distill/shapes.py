"""Targets made easier: shapes without their rarest ways to vary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import Card, carded
from margins.engine.sources import at_least_float32, checked
from margins.errors import MarginsError, describe
from margins.losses.forms.base import in_range


@dataclass(frozen=True)
class ShapeModel:
    """The mean and the main ways to vary of training targets.

    Args:
        mean: [d].
        modes: [m, d] orthonormal rows, the strongest first.
        deviations: [m] standard deviations along the modes.
        limit: standard deviations that a shape may go along a mode.
    """

    mean: Float[Tensor, " dim"]
    modes: Float[Tensor, "modes dim"]
    deviations: Float[Tensor, " modes"]
    limit: float

    def smooth(self, targets: Tensor) -> Tensor:
        """The nearest shapes [B, d] of the model, each mode clipped at `limit` standard deviations."""
        if targets.ndim != 2 or targets.shape[1] != self.mean.shape[0] or not targets.is_floating_point():
            raise MarginsError(
                "targets", expected=f"[B, {self.mean.shape[0]}] floats", received=describe(targets)
            )
        own = at_least_float32(targets)
        mean, modes, most = (x.to(own) for x in (self.mean, self.modes, self.limit * self.deviations))
        along = ((own - mean) @ modes.T).clamp(min=-most, max=most)
        return mean + along @ modes


@carded(
    Card(
        name="Shape-smoothed targets (point distribution model)",
        summary="easier targets for a tolerant teacher: shapes without their rarest ways to vary",
        paper="Cootes et al., Active Shape Models, CVIU 1995; for teachers: Fard and Mahoor 2022, "
        "arXiv 2111.07047",
        kind="targets",
        stations=("before training",),
        targets=("values",),
        entry=30,
        tests=("tests/test_assistive.py::test_all_of_the_variance_and_no_limit_change_nothing",),
        study="assistive_distillation",
    )
)
def shape_smooth(
    targets: Float[Tensor, "items dim"], *, variance: float = 0.9, limit: float = 3.0
) -> ShapeModel:
    r"""A model of shapes, fitted to training targets; its `smooth` gives targets their soft form.

    Use it on coordinates that vary together, to teach the tolerant teacher of `AssistiveRegression`. Fit it
    on training rows only. Not for targets whose numbers have other units or little in common: nothing is rare
    then.

    $\bar x + \sum_k b_k P_k$ over the fewest principal modes that hold a share `variance` of the variance,
    with $|b_k| \le limit \sqrt{\lambda_k}$.

    Args:
        targets: [N, d] floats, N >= 2.
        variance: share that is kept, in (0, 1].
        limit: standard deviations, > 0; infinity for none.

    Raises:
        MarginsError: a setting out of range, fewer than two rows, or rows that are all the same.

    Example:
        >>> line = torch.linspace(-1, 1, 21)[:, None] * torch.tensor([[1.0, 1.0]])
        >>> model = shape_smooth(line, variance=0.9)
        >>> model.smooth(torch.tensor([[0.6, 0.2]]))
        tensor([[0.4000, 0.4000]])

    Reduces to: the targets themselves, with all of the variance and no limit.

    References:
        Cootes et al. 1995; Fard and Mahoor 2022, arXiv 2111.07047.
    """
    in_range("variance", variance, low=0, high=1, open_low=True)
    if not limit > 0:
        raise MarginsError("limit", expected="a number > 0", received=repr(limit))
    if targets.ndim != 2 or targets.shape[0] < 2 or not targets.is_floating_point():
        raise MarginsError("targets", expected="[N, d] floats with N >= 2", received=describe(targets))
    own = checked("targets", at_least_float32(targets)).double()
    mean = own.mean(0)
    _, scale, modes = torch.linalg.svd(own - mean, full_matrices=False)
    spread = scale.square() / (len(own) - 1)
    if not float(spread.sum()) > 0:
        raise MarginsError("targets", expected="rows that differ", received="rows that are all the same")
    share = spread.cumsum(0) / spread.sum()
    num_modes = min(int((share < variance - 1e-12).sum()) + 1, len(share))
    found = (
        x.to(at_least_float32(targets).dtype) for x in (mean, modes[:num_modes], spread[:num_modes].sqrt())
    )
    return ShapeModel(*found, limit=limit)
