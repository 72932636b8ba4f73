"""Linear classifiers of frozen features, fitted on all rows at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.errors import MarginsError, describe
from margins.targets.checks import check_finite, check_labels, check_range

Solver = Literal["lbfgs", "normalized_gd"]

_PAPER = "Tyurin, From Logistic Regression to the Perceptron Algorithm, 2024, arXiv 2412.08424"


@dataclass(frozen=True, kw_only=True, eq=False)
class Separation:
    """How gradient descent came to separate two classes, or did not.

    Args:
        weight: [d] float64, the last one.
        is_separated: whether every row is on its side.
        num_steps: taken until then, or all of them.
        losses: mean logistic loss before each step and at the end.
        errors: rows on the wrong side or on the boundary, likewise.
        smallest_margins: least $y_i w^T x_i$, not divided by the length of w, likewise.
    """

    weight: Tensor
    is_separated: bool
    num_steps: int
    losses: tuple[float, ...]
    errors: tuple[int, ...]
    smallest_margins: tuple[float, ...]


class LogisticGD:
    r"""Gradient descent on the logistic loss of a linear classifier without intercept, started at 0.

    Use it as the baseline of `NormalizedLogisticGD`. With a large step it is the batch perceptron: its loss
    may rise while it comes nearer, and it stops when no row is wrong, not when the loss is small.

    $w \leftarrow w + \frac{\gamma}{n} \sum_i \sigma_i y_i x_i$ with
    $\sigma_i = 1 / (1 + e^{y_i w^T x_i})$ and $y_i = \pm 1$.

    Args:
        step_size: $\gamma$ > 0.
        max_steps: steps after which it gives up, at least 1.

    Raises:
        MarginsError: an argument out of its range.

    Example:
        >>> found = LogisticGD(1.0).separate(torch.tensor([[1.0, 0.2], [-1.0, 0.1]]), torch.tensor([1, 0]))
        >>> found.is_separated, found.num_steps
        (True, 1)

    References:
        Tyurin 2024, arXiv 2412.08424.
    """

    def __init__(self, step_size: float = 100.0, *, max_steps: int = 10_000) -> None:
        self.step_size = _positive("step_size", step_size)
        self.max_steps = _at_least_one("max_steps", max_steps)

    def separate(self, features: Tensor, labels: Tensor) -> Separation:
        """Goes down until every row is on its side.

        Args:
            features: [N, d] finite floats; append a column of ones for an intercept.
            labels: [N] integers 0 or 1.

        Raises:
            MarginsError: other shapes, other labels, no row.
        """
        rows = _checked(features, labels, 2)
        signed = rows * (2 * labels.double() - 1)[:, None]
        weight = signed.new_zeros(signed.shape[1])
        seen: list[tuple[float, int, float]] = []
        for num_steps in range(self.max_steps + 1):
            margins = signed @ weight
            errors = int((margins <= 0).sum())
            seen.append((float(nn.functional.softplus(-margins).mean()), errors, float(margins.min())))
            if not errors or num_steps == self.max_steps:
                break
            weight = weight + self.step_size * self.weights(margins) @ signed
        losses, wrong, smallest = zip(*seen, strict=True)
        return Separation(
            weight=weight, is_separated=not wrong[-1], num_steps=len(seen) - 1,
            losses=losses, errors=wrong, smallest_margins=smallest,
        )  # fmt: skip

    def weights(self, margins: Tensor) -> Tensor:
        """[N] what each row, times its sign, is weighted by in a step of size one.

        Args:
            margins: [N] $y_i w^T x_i$.
        """
        return torch.sigmoid(-margins) / len(margins)


@carded(
    Card(
        name="Normalized logistic gradient descent",
        summary="few hard or rare rows among many: a separator in few steps, however many rows there are",
        paper=_PAPER,
        kind="training",
        stations=("after training",),
        targets=("classes",),
        entry=98,
        tests=(
            "tests/test_normalized_gd.py::test_large_steps_are_those_of_the_batch_perceptron",
            "tests/test_normalized_gd.py::test_weights_sum_to_one_and_the_solution_has_no_error",
            "tests/test_normalized_gd.py::test_steps_to_separate_hard_rows_are_those_measured",
        ),
        study="normalized_gd",
    )
)
class NormalizedLogisticGD(LogisticGD):
    r"""Gradient descent on the logistic loss, each step divided by the mean error of all rows.

    Use it to separate classes of which one is rare, or rows of which few are hard: plain gradient descent
    needs a number of steps in proportion to the rows there, this one does not. Not on rows that are all
    about as hard: beside a gap in Gaussian rows plain descent with a large step took 5 steps, this one 300.
    Not for classes that overlap: it never settles.

    $w \leftarrow w + \gamma \sum_i \frac{\sigma_i}{\sum_j \sigma_j} y_i x_i$; see `LogisticGD`. With a
    step of at least n over the largest squared length of a row, the number of steps is bounded as that of
    the perceptron is.

    Args:
        step_size: $\gamma$ > 0; large ones are meant.
        max_steps: steps after which it gives up, at least 1.

    Raises:
        MarginsError: an argument out of its range.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0]] * 999 + [[-0.9, 0.3]])
        >>> labels = torch.ones(1000, dtype=torch.long)
        >>> [solver(100.0).separate(rows, labels).num_steps for solver in (LogisticGD, NormalizedLogisticGD)]
        [895, 2]

    References:
        Tyurin 2024, arXiv 2412.08424, Normalized LR+GD.
    """

    def weights(self, margins: Tensor) -> Tensor:
        """[N] shares of the rows in the error, from logarithms; they sum to one."""
        return torch.softmax(nn.functional.logsigmoid(-margins), 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedProbe:
    """A linear classifier, and how it was found.

    Args:
        head: features [B, d] to logits [B, C].
        num_steps: of the solver.
        num_errors: training rows whose largest logit is not that of their class; a tie is an error.
    """

    head: nn.Linear
    num_steps: int
    num_errors: int


@carded(
    Card(
        name="Linear probe",
        summary="frozen features and their labels: logistic regression, or a separator of rare classes",
        paper=_PAPER,
        kind="head",
        stations=("after training",),
        targets=("classes",),
        entry=98,
        tests=(
            "tests/test_normalized_gd.py::test_a_probe_by_lbfgs_is_the_logistic_regression_of_scikit_learn",
            "tests/test_normalized_gd.py::test_a_probe_of_two_classes_takes_the_steps_of_the_binary_method",
        ),
        study="normalized_gd",
    )
)
class LinearProbe:
    r"""Softmax regression on all rows at once, in float64, started at 0.

    Use it to judge frozen embeddings, or as a head when they fit in memory. "lbfgs" finds the optimum of
    cross-entropy with weight decay: take it when classes overlap, and for probabilities. "normalized_gd"
    stops at the first separator: take it to ask whether classes can be separated at all, with rare ones among
    them. Its logits are no log-probabilities.

    "lbfgs": $\min_W \frac1n \sum_i L_{CE} + \frac{\delta}{2} \|W\|^2$, the bias free.
    "normalized_gd": $W \leftarrow W - \gamma \nabla L_{CE} / \frac1n \sum_i (1 - p_{i y_i})$, an extension of
    `NormalizedLogisticGD` to more classes.

    Args:
        solver: "lbfgs" or "normalized_gd".
        weight_decay: $\delta$ >= 0, of "lbfgs"; above 0 where classes can be separated.
        step_size: $\gamma$ > 0, of "normalized_gd".
        max_steps: at least 1.

    Raises:
        MarginsError: an argument out of its range.

    Example:
        >>> features = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
        >>> fitted = LinearProbe("normalized_gd").fit(features, torch.tensor([0, 0, 1, 1]), num_classes=2)
        >>> fitted.num_errors, fitted.head(torch.tensor([[0.5], [3.5]])).argmax(1).tolist()
        (0, [0, 1])

    References:
        Tyurin 2024, arXiv 2412.08424.
    """

    def __init__(
        self,
        solver: Solver = "lbfgs",
        *,
        weight_decay: float = 1e-4,
        step_size: float = 100.0,
        max_steps: int = 1000,
    ) -> None:
        if solver not in get_args(Solver):
            raise MarginsError("solver", expected=f"one of {get_args(Solver)}", received=repr(solver))
        if not (weight_decay >= 0 and math.isfinite(weight_decay)):
            raise MarginsError("weight_decay", expected="a number >= 0", received=str(weight_decay))
        self.solver: Solver = solver
        self.weight_decay = weight_decay
        self.step_size = _positive("step_size", step_size)
        self.max_steps = _at_least_one("max_steps", max_steps)

    def fit(self, features: Tensor, labels: Tensor, *, num_classes: int) -> FittedProbe:
        """The classifier of these rows.

        Args:
            features: [N, d] finite floats.
            labels: [N] integers in [0, num_classes).
            num_classes: at least 2.

        Raises:
            MarginsError: other shapes, labels out of range, no row.
        """
        if num_classes < 2:
            raise MarginsError("num_classes", expected="at least 2", received=str(num_classes))
        rows = _checked(features, labels, num_classes)
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        solve = self._lbfgs if self.solver == "lbfgs" else self._normalized
        weight, num_steps = solve(rows, labels.long(), num_classes)
        scores = rows @ weight.T
        return FittedProbe(
            head=_as_linear(weight, features.dtype), num_steps=num_steps,
            num_errors=int((_own_lead(scores, labels.long()) <= 0).sum()),
        )  # fmt: skip

    def _lbfgs(self, rows: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, int]:
        weight = rows.new_zeros(num_classes, rows.shape[1]).requires_grad_()
        optimiser = torch.optim.LBFGS(
            [weight], max_iter=self.max_steps, history_size=20, line_search_fn="strong_wolfe",
            tolerance_grad=1e-9, tolerance_change=1e-14,
        )  # fmt: skip

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(rows @ weight.T, labels)
            loss = loss + self.weight_decay / 2 * weight[:, :-1].square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimiser.step(closure)  # pyright: ignore[reportArgumentType] - tensors are numbers to it
        return weight.detach(), int(optimiser.state[weight].get("n_iter", 0))

    @torch.no_grad()
    def _normalized(self, rows: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, int]:
        weight = rows.new_zeros(num_classes, rows.shape[1])
        hot = nn.functional.one_hot(labels, num_classes).to(rows)
        for num_steps in range(self.max_steps):
            scores = rows @ weight.T
            if bool((_own_lead(scores, labels) > 0).all()):
                return weight, num_steps
            log_p = scores.log_softmax(1)
            error = -torch.expm1(log_p.gather(1, labels[:, None])).sum()
            weight = weight + self.step_size / error * (hot - log_p.exp()).T @ rows
        return weight, self.max_steps


def _own_lead(scores: Tensor, labels: Tensor) -> Tensor:
    """[N] by how much each row's own score leads the best other one."""
    own = scores.gather(1, labels[:, None])
    others = scores.scatter(1, labels[:, None], -torch.inf).amax(1)
    return own[:, 0] - others


def _as_linear(weight: Tensor, dtype: torch.dtype) -> nn.Linear:
    num_classes, width = weight.shape[0], weight.shape[1] - 1
    # Made without numbers first: a layer's own start would draw from the global generator.
    head = nn.Linear(width, num_classes, device="meta", dtype=dtype).to_empty(device=weight.device)
    with torch.no_grad():
        head.weight.copy_(weight[:, :-1])
        head.bias.copy_(weight[:, -1])
    return head


def _checked(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    if features.ndim != 2 or not features.is_floating_point() or not len(features):
        raise MarginsError("features", expected="[N, d] floats, N >= 1", received=describe(features))
    check_finite("features", features)
    check_labels("labels", labels, dims="[N]")
    check_range("labels", labels, num_classes)
    if labels.shape[0] != features.shape[0]:
        raise MarginsError("labels", expected=f"[N] = [{features.shape[0]}]", received=describe(labels))
    return features.detach().double()


def _positive(name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise MarginsError(name, expected="a finite number above 0", received=str(value))
    return value


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise MarginsError(name, expected="at least 1", received=str(value))
    return value
