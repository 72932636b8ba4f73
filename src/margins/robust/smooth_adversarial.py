"""A smooth objective of adversarial training: the loss at the input, and how far margins can be moved."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.errors import MarginsError
from margins.losses import CompSum
from margins.losses.forms.base import in_range
from margins.robust.pgd import PGD, evaluating
from margins.targets import Targets


@carded(
    Card(
        name="Smooth adversarial comp-sum loss",
        summary="inputs may be changed a little to do harm: margins that cannot be moved far",
        paper="Mao, Mohri, Zhong, Cross-Entropy Loss Functions, 2023, arXiv 2304.07288",
        kind="training",
        stations=("loss", "step"),
        targets=("classes",),
        entry=95,
        recipe={
            "step": {"name": "smooth_adversarial", "radius": 0.1},
            "objective": {"loss": "comp_sum", "settings": {"tau": 1.0}},
        },
        tests=(
            "tests/test_smooth_adversarial.py::test_the_objective_is_its_definition_for_a_linear_model",
            "tests/test_smooth_adversarial.py::test_weight_zero_is_the_clean_loss",
            "tests/test_smooth_adversarial.py::test_ascent_reaches_the_largest_stretch_of_a_linear_model",
        ),
        study="smooth_adversarial",
    )
)
class SmoothAdversarial:
    r"""The comp-sum loss at the inputs, plus the largest change of the margins inside a ball around them.

    Use it against small changes of numeric inputs that are chosen to do harm. It costs about `num_steps + 2`
    trainings, and some accuracy on inputs that nobody changed: not where changes are random, or where nobody
    gains by them. Tune the weight, and judge by an attack with more steps than training used.

    With $\Delta_k(x) = s_y(x) - s_k(x)$ for $k \ne y$:
    $L = \Phi_\tau\left(\sum_k e^{-\Delta_k(x) / \rho}\right)
    + \nu \sup_{\|x' - x\| \le \gamma} \|\Delta(x') - \Delta(x)\|_2$.
    The supremum is sought by `attack` with the model in evaluation mode, and its place taken as a constant;
    the gradient runs through the margins at both places.

    Args:
        attack: the ball, and how it is searched; its start must not be the input itself.
        tau: in [0, 2], of `CompSum`.
        temperature: $\rho$ > 0 of the first term.
        weight: $\nu$ >= 0; 0 makes no search.
        reduction: "mean" or "sum".

    Raises:
        MarginsError: an argument out of its range.

    References:
        Mao, Mohri, Zhong 2023, arXiv 2304.07288, smooth adversarial comp-sum losses.

    Example:
        >>> model = nn.Linear(1, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[1.0], [-1.0]])})
        >>> objective = SmoothAdversarial(PGD(0.5), weight=1.0)  # scores move by 0.5, their margin by 1
        >>> x, y = torch.tensor([[3.0]]), torch.tensor([0])
        >>> loss = objective(model, x, y, generator=torch.Generator().manual_seed(0))
        >>> round((loss - CompSum(1.0)(model(x), y)).item(), 4)
        1.0
    """

    def __init__(
        self,
        attack: PGD,
        *,
        tau: float = 1.0,
        temperature: float = 1.0,
        weight: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        if not attack.start_noise > 0:
            raise MarginsError(
                "attack", expected="a start_noise above 0", received="0",
                fix="at the input itself margins have not moved, and nothing says where to go",
            )  # fmt: skip
        if reduction not in ("mean", "sum"):
            raise MarginsError("reduction", expected="'mean' or 'sum'", received=repr(reduction))
        self.attack = attack
        self.loss = CompSum(tau, reduction=reduction)
        self.temperature = in_range("temperature", temperature, low=0, open_low=True)
        self.weight = in_range("weight", weight, low=0)

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Int[Tensor, " rows"],
        *,
        generator: torch.Generator,
    ) -> Tensor:
        """The objective of a batch, on the graph of the model's weights.

        Args:
            model: inputs [B, ...] to scores [B, C].
            inputs: [B, ...] floats.
            labels: [B] class ids.
            generator: draws the start of the search.
        """
        scores = model(inputs)
        rows = self.loss.rows(scores / self.temperature, Targets.of_classes(labels, scores.shape[1]))
        clean = rows.reduce(self.loss.reduction)
        if self.weight == 0:
            return clean
        moved = self.search(model, inputs, labels, generator=generator)
        change = margin_change(model(moved), scores, labels)
        total = change.sum()
        return clean + self.weight * (total if self.loss.reduction == "sum" else total / max(len(change), 1))

    def search(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Int[Tensor, " rows"],
        *,
        generator: torch.Generator,
    ) -> Tensor:
        """[B, ...] inputs in the ball at which margins are far from those at its centre."""
        return most_changed(model, inputs, labels, self.attack, generator=generator, model=model)


def most_changed(
    scores_of: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Int[Tensor, " rows"],
    attack: PGD,
    *,
    generator: torch.Generator,
    model: nn.Module,
) -> Tensor:
    """[B, ...] inputs in the ball of an attack at which margins have moved far.

    Args:
        scores_of: inputs [B, ...] to scores [B, C].
        inputs: [B, ...] floats.
        labels: [B] class ids.
        attack: the ball, and how it is searched.
        generator: draws the start.
        model: what is in evaluation mode meanwhile.
    """
    with evaluating(model), torch.no_grad():
        still = scores_of(inputs)
    return attack.ascend(
        lambda moved: margin_change(scores_of(moved), still, labels),
        inputs,
        generator=generator,
        model=model,
    )


def margin_change(
    moved: Float[Tensor, "rows classes"],
    scores: Float[Tensor, "rows classes"],
    labels: Int[Tensor, " rows"],
) -> Float[Tensor, " rows"]:
    r"""$\|\Delta(x') - \Delta(x)\|_2$: how far the margins of each label over the other classes have moved.

    Args:
        moved: [B, C] scores at x'.
        scores: [B, C] scores at x.
        labels: [B] class ids.

    Example:
        >>> scores = torch.tensor([[1.0, 0.0, 0.0]])
        >>> margin_change(scores + torch.tensor([[2.0, 2.0, 2.0]]), scores, torch.tensor([0]))
        tensor([0.])
        >>> margin_change(scores + torch.tensor([[0.0, 3.0, 4.0]]), scores, torch.tensor([0]))
        tensor([5.])
    """
    change = moved - scores
    square = (change.gather(1, labels[:, None]) - change).square().sum(1)
    # The slope of a length is infinite at 0, where it is taken for 0.
    is_moved = square > 0
    return torch.where(is_moved, torch.where(is_moved, square, 1.0).sqrt(), 0.0)
