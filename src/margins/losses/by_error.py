"""A loss over the share of probability that a batch still gets wrong, so that steps stay long to the end."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.engine.reduction import RowLosses, divided
from margins.errors import MarginsError
from margins.losses.forms.base import in_range
from margins.losses.forms.statistics import StatisticsLoss
from margins.losses.softmax import CompSum, CrossEntropy
from margins.targets import Targets


@carded(
    Card(
        name="Cross-entropy over its mean error",
        summary="nearly separable data with a few hard rows: gradients do not fade when most rows are right",
        paper="Tyurin, From Logistic Regression to the Perceptron Algorithm, 2024, arXiv 2412.08424",
        kind="loss",
        stations=("loss",),
        targets=("classes", "scores"),
        entry=98,
        recipe={"step": {"name": "error_normalized"}, "optimizer": {"name": "sgd", "learning_rate": 0.1}},
        tests=(
            "tests/test_normalized_gd.py::test_the_gradient_is_that_of_the_loss_over_the_mean_error",
            "tests/test_normalized_gd.py::test_one_row_gets_the_perceptron_step_whatever_its_scores",
        ),
    )
)
class ErrorNormalized(nn.Module):
    r"""A loss divided by the mean of 1 - p over the batch, which is taken as a constant.

    Use it with plain gradient descent and a large step for linear heads on data that can be separated but for
    few or rare rows. Do not use it where labels are wrong or classes overlap: it never slows down, and with
    an adaptive optimiser such as AdamW, which undoes the scale of a gradient, it does little.

    $L / sg\left(\frac{1}{B} \sum_i (1 - p_{i y_i})\right)$; the gradient of cross-entropy is then a convex
    combination of those of the batch perceptron, weighted by how wrong each row is. The value is no level.

    Args:
        loss: of one softmax a row; cross-entropy when None.
        floor: > 0, the least divisor: a batch that is right to rounding gets the gradient over this.

    Raises:
        MarginsError: a loss that is not declared by statistics of its rows, or that reduces to no number.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.0, 8.0]], dtype=torch.float64, requires_grad=True)
        >>> ErrorNormalized()(scores, torch.tensor([1])).backward()
        >>> scores.grad.round(decimals=6).tolist()
        [[1.0, -1.0]]

    References:
        Tyurin 2024, arXiv 2412.08424, for two classes; more are an extension of this package.
    """

    def __init__(self, loss: StatisticsLoss | None = None, *, floor: float = 1e-6) -> None:
        super().__init__()
        self.loss = CrossEntropy() if loss is None else loss
        if not isinstance(self.loss, StatisticsLoss) or self.loss.reduction == "none":  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MarginsError(
                "loss", expected="a loss of scores and targets that reduces to a number", received=repr(loss),
                fix="CrossEntropy() is one",
            )  # fmt: skip
        self.floor = in_range("floor", floor, low=0, open_low=True)
        self._error = CompSum(tau=2.0)

    def forward(
        self, scores: Float[Tensor, "anchors candidates"], targets: Targets | Tensor, **more: Any
    ) -> Float[Tensor, ""]:
        """The loss over the mean error of the same rows.

        Args:
            scores: [B, C].
            targets: [B] class ids, [B, C] grades, or `Targets`.
            more: what the loss itself takes beside them.
        """
        rows: RowLosses = self._error.rows(scores.detach(), targets)
        mean = "weighted_mean" if self.loss.reduction == "weighted_mean" else "mean"
        error = divided(rows.weighted().sum(), rows.denominator(mean))
        return self.loss(scores, targets, **more) / error.clamp(min=self.floor)
