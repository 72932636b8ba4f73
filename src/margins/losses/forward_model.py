"""Errors of parameters, measured by what the parameters generate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.reduction import RowLosses
from margins.engine.sources import at_least_float32, checked, full_precision
from margins.errors import MarginsError, describe, values_are_readable
from margins.losses.forms.base import Loss, in_range

ForwardModel = Callable[[Mapping[str, Tensor]], Tensor]
"""What parameters generate: named tensors [B, ...] to one tensor [B, ...], differentiably."""


@carded(
    LossCard(
        name="Forward-model (rendering) loss",
        summary="parameters that matter only through what they generate: renderers, simulators, decoders",
        paper="Boss and Lensch, Single Image BRDF Parameter Estimation with a Conditional Adversarial "
        "Network, 2019, arXiv 1910.05148",
        entry=103,
        targets=("maps", "values"),
        distributed="independent",
        comparable=True,
        collapse="that of the mean parameters",
        limits=("generated_weight = 0: the mean absolute error of all parameters",),
        tests=(
            "tests/test_forward_model.py::test_the_loss_is_that_of_what_is_generated",
            "tests/test_forward_model.py::test_the_renderer_is_reciprocal",
            "tests/test_forward_model.py::test_a_white_furnace_gains_no_energy",
            "tests/test_forward_model.py::test_the_renderer_has_the_gradient_of_its_value",
        ),
        study="rendering_loss",
    )
)
class ForwardModelLoss(Loss):
    r"""Absolute error of parameters plus absolute error of what a differentiable model makes of them.

    Use it when several parameters trade off in what they generate, and that is what counts. Not alone
    (`parameter_weight=0`) unless the model is nearly one to one: what it does not see is not learned. A
    frozen network of features as the model makes this the perceptual loss; `PatchAdversarial` adds a critic.

    $L_i = \lambda_p\,|\theta_i - \theta^*_i| + \lambda_r\,|g(R(\theta_i)) - g(R(\theta^*_i))|$, each a mean
    of absolute values over all numbers of the row; $g(x) = \ln(1 + x)$ with `log`, the identity without.

    Args:
        model: R, of named parameters [B, ...]. It must do the same in both calls of a step: draw lights or
            views between steps, not inside.
        log: whether generated values, then >= 0, are compared as $\ln(1 + x)$: highlights weigh less.
        parameter_weight: $\lambda_p$ >= 0.
        generated_weight: $\lambda_r$ >= 0.
        reduction: over rows; see `margins.engine.reduction`.

    Raises:
        MarginsError: a negative weight; parameters of other names or shapes than their targets; a model that
            changes the number of rows, or gives negative values to a logarithm.

    References:
        Boss and Lensch 2019, arXiv 1910.05148; the weights are ours.

    Example:
        >>> def area(shape):
        ...     return shape["width"] * shape["height"]
        >>> loss = ForwardModelLoss(area, log=False, parameter_weight=0.0)
        >>> swapped = {"width": torch.tensor([[3.0]]), "height": torch.tensor([[2.0]])}
        >>> loss(swapped, {"width": torch.tensor([[2.0]]), "height": torch.tensor([[3.0]])})
        tensor(0.)
    """

    form = "outputs"

    def __init__(
        self,
        model: ForwardModel,
        *,
        log: bool = True,
        parameter_weight: float = 1.0,
        generated_weight: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.model = model
        self.log = log
        self.parameter_weight = in_range("parameter_weight", parameter_weight, low=0)
        self.generated_weight = in_range("generated_weight", generated_weight, low=0)

    def forward(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced loss.

        Args:
            outputs: predicted parameters by name, each [B, ...].
            targets: true ones, of the same names and shapes.
            denominator: divisor to use instead of this batch's own.
        """
        _check_named(outputs, targets)
        like = next(iter(outputs.values()))
        with full_precision(like.device):
            return self.rows(outputs, targets).reduce(self.reduction, denominator)

    def rows(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> RowLosses:
        """The loss of each row with all that a reduction needs."""
        _check_named(outputs, targets)
        own = {name: checked(f"outputs[{name!r}]", at_least_float32(x)) for name, x in outputs.items()}
        wanted = {
            name: checked(f"targets[{name!r}]", targets[name].detach().to(x.dtype)) for name, x in own.items()
        }
        gaps = torch.cat([(x - wanted[name]).flatten(1) for name, x in own.items()], 1)
        values = self.parameter_weight * gaps.abs().mean(1)
        if self.generated_weight > 0:
            values = values + self.generated_weight * self._generated_gap(own, wanted)
        return RowLosses(values)

    def _generated_gap(self, own: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            right = self._compared(wanted)
        made = self._compared(own)
        num_rows = next(iter(own.values())).shape[0]
        if made.shape != right.shape or made.ndim == 0 or made.shape[0] != num_rows:
            raise MarginsError(
                "model", expected=f"[B, ...] with B = {num_rows}, of one shape in both calls",
                received=f"{describe(made)} and {describe(right)}",
            )  # fmt: skip
        gaps = (made - right).abs()
        return gaps if gaps.ndim == 1 else gaps.flatten(1).mean(1)

    def _compared(self, parameters: Mapping[str, Tensor]) -> Tensor:
        made = self.model(parameters)
        if not self.log:
            return made
        if values_are_readable(made) and made.numel() and float(made.detach().amin()) < 0:
            raise MarginsError(
                "model", expected="values >= 0 for log=True", received=f"{float(made.detach().amin()):g}",
                fix="compare signed values with log=False",
            )  # fmt: skip
        return torch.log1p(made)


def _check_named(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    if not outputs or set(outputs) != set(targets):
        raise MarginsError(
            "targets", expected=f"parameters {sorted(outputs)}, at least one", received=f"{sorted(targets)}"
        )
    num_rows = {x.shape[0] if x.ndim >= 2 else -1 for x in outputs.values()}
    if len(num_rows) > 1 or -1 in num_rows:
        raise MarginsError(
            "outputs", expected="parameters [B, ...] of at least two axes and one B",
            received=str({name: list(x.shape) for name, x in outputs.items()}),
            fix="one number a row: x[:, None]",
        )  # fmt: skip
    for name, x in outputs.items():
        if targets[name].shape != x.shape or not x.is_floating_point():
            raise MarginsError(
                f"targets[{name!r}]", expected=f"{list(x.shape)} floats, as the outputs",
                received=f"{describe(targets[name])} for {describe(x)}",
            )  # fmt: skip
