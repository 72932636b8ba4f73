"""What a comp-sum loss can reach at best, and what its excess says of the excess of errors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import Card, carded
from margins.errors import MarginsError, describe
from margins.losses import CompSum

_PAPER = "Mao, Mohri, Zhong, Cross-Entropy Loss Functions, 2023, arXiv 2304.07288"


def comp_sum_infimum(
    label_distribution: Float[Tensor, "rows classes"], *, tau: float
) -> Float[Tensor, " rows"]:
    r"""The least expected comp-sum loss of rows whose labels have these distributions, over all scores.

    $\tau = 1$: the entropy $-\sum_k q_k \log q_k$. $\tau = 2$: $1 - \max_k q_k$. Else
    $((\sum_k q_k^{1/(2-\tau)})^{2-\tau} - 1) / (1 - \tau)$, at the softmax in proportion to
    $q^{1/(2-\tau)}$.

    Args:
        label_distribution: [N, C] shares that sum to one in every row.
        tau: in [0, 2], as of `CompSum`.

    Returns:
        [N] float64.

    Raises:
        MarginsError: rows that are no distributions, tau out of range.

    Example:
        >>> comp_sum_infimum(torch.tensor([[0.5, 0.5]]), tau=2.0)
        tensor([0.5000], dtype=torch.float64)
    """
    _check_tau(tau)
    q = _distributions(label_distribution)
    if tau == 1:
        return -torch.xlogy(q, q).sum(1)
    if tau == 2:
        return 1 - q.amax(1)
    rest = 2 - tau
    return (torch.expm1(rest * torch.logsumexp(q.log() / rest, 1)) / (1 - tau)).clamp(min=0.0)


@carded(
    Card(
        name="Minimizability gap of comp-sum losses",
        summary="soft labels of rows are known: how much of a loss no model of a class could avoid",
        paper=_PAPER,
        kind="diagnostic",
        stations=("after training",),
        targets=("scores",),
        entry=95,
        tests=(
            "tests/test_robust_losses.py::test_the_infimum_is_what_a_minimiser_finds",
            "tests/test_robust_losses.py::test_the_gap_of_a_model_that_can_say_anything_is_zero",
        ),
    )
)
def minimizability_gap(
    loss: CompSum, label_distribution: Float[Tensor, "rows classes"], *, best_in_class: float
) -> float:
    r"""How far the best model of a class stays above what could be reached row by row.

    Use it on data with several labels a row, to say whether a model's loss is due to the labels, which no
    model can mend, or to the class of models. Without soft labels it is not defined: with one label a row the
    infimum is 0, and the gap the training loss itself.

    $M = \inf_{h \in H} E[\ell(h, x, y)] - E_x[\inf_s E_{y | x}[\ell(s, y)]]$.

    Args:
        loss: whose gap.
        label_distribution: [N, C] shares of the labels of each row.
        best_in_class: mean loss of the best model of the class on these rows and shares; in practice of the
            best one that was found, which makes the gap an upper bound.

    Raises:
        MarginsError: rows that are no distributions, a loss below the infimum.

    Example:
        >>> q = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> no_input = CompSum(1.0)(torch.zeros(2, 2), q)  # of a model that sees no input
        >>> round(minimizability_gap(CompSum(1.0), q, best_in_class=float(no_input)), 4)
        0.3681

    References:
        Mao, Mohri, Zhong 2023, arXiv 2304.07288, minimizability gaps.
    """
    least = float(comp_sum_infimum(label_distribution, tau=loss.tau).mean())
    if not (math.isfinite(best_in_class) and best_in_class >= least - 1e-6 * max(1.0, abs(least))):
        raise MarginsError(
            "best_in_class", expected=f"a mean loss of at least {least:.6g}", received=str(best_in_class),
            fix="the mean of the loss with these distributions as targets, over the same rows",
        )  # fmt: skip
    return best_in_class - least


def consistency_transform(error_excess: float, *, tau: float, num_classes: int) -> float:
    r"""$T_\tau$: the least excess of a comp-sum loss that an excess of errors costs.

    Both excesses are over the best of a symmetric and complete class of models, with its minimizability gap
    added. With $A = \left(\frac{(1+t)^{1/(2-\tau)} + (1-t)^{1/(2-\tau)}}{2}\right)^{2-\tau}$:

    $\frac{2^{1-\tau}}{1-\tau} (1 - A)$ below 1; $\frac12 ((1+t) \log(1+t) + (1-t) \log(1-t))$ at 1;
    $\frac{A - 1}{(\tau-1) C^{\tau-1}}$ between 1 and 2; $t / C$ at 2.

    Args:
        error_excess: t in [0, 1].
        tau: in [0, 2].
        num_classes: C >= 2.

    Raises:
        MarginsError: an argument out of its range.

    Example:
        >>> round(consistency_transform(1.0, tau=1.0, num_classes=2), 4), round(math.log(2), 4)
        (0.6931, 0.6931)

    References:
        Mao, Mohri, Zhong 2023, arXiv 2304.07288, bounds of comp-sum losses.
    """
    _check_tau(tau)
    if not 0 <= error_excess <= 1:
        raise MarginsError("error_excess", expected="a number in [0, 1]", received=str(error_excess))
    if num_classes < 2:
        raise MarginsError("num_classes", expected="at least 2", received=str(num_classes))
    if tau == 2:
        return error_excess / num_classes
    up = math.log1p(error_excess)
    down = math.log1p(-error_excess) if error_excess < 1 else -math.inf
    if tau == 1:
        low = 0.0 if error_excess == 1 else (1 - error_excess) * down
        return ((1 + error_excess) * up + low) / 2
    rest = 2 - tau
    # A - 1 from logarithms, so that nothing overflows near tau = 2 or cancels near tau = 1.
    growth = math.expm1(up + rest * (math.log1p(math.exp((down - up) / rest)) - math.log(2)))
    return max(0.0, growth / (tau - 1) * (2 ** (1 - tau) if tau < 1 else num_classes ** (1 - tau)))


@carded(
    Card(
        name="Error bound of comp-sum losses",
        summary="from the excess of a comp-sum loss to a bound on the excess of errors",
        paper=_PAPER,
        kind="diagnostic",
        stations=("after training",),
        targets=("classes", "scores"),
        entry=95,
        tests=(
            "tests/test_robust_losses.py::test_the_bound_inverts_the_transform_and_holds_on_random_problems",
        ),
    )
)
def error_bound(loss_excess: float, *, tau: float, num_classes: int) -> float:
    r"""$\Gamma_\tau = T_\tau^{-1}$: the most errors beyond the best that an excess of a comp-sum loss allows.

    Use it to compare what losses of different tau promise: the bound goes as the square root near 0 for
    tau < 2 and is linear at 2. It says nothing of how hard a loss is to train, which grows with tau.

    Args:
        loss_excess: >= 0, over the best of the class, plus the minimizability gap of the loss.
        tau: in [0, 2].
        num_classes: C >= 2.

    Returns:
        in [0, 1]: the excess of errors plus its own minimizability gap is at most this.

    Raises:
        MarginsError: an argument out of its range.

    Example:
        >>> round(error_bound(0.05, tau=2.0, num_classes=10), 6)
        0.5

    References:
        Mao, Mohri, Zhong 2023, arXiv 2304.07288, bounds of comp-sum losses.
    """
    if not loss_excess >= 0:
        raise MarginsError("loss_excess", expected="a number >= 0", received=str(loss_excess))
    if loss_excess >= consistency_transform(1.0, tau=tau, num_classes=num_classes):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if consistency_transform(middle, tau=tau, num_classes=num_classes) < loss_excess:
            low = middle
        else:
            high = middle
    return high


def _check_tau(tau: float) -> None:
    if not 0 <= tau <= 2:
        raise MarginsError("tau", expected="a number in [0, 2]", received=str(tau))


def _distributions(given: Tensor) -> Tensor:
    is_matrix = given.ndim == 2 and given.is_floating_point() and given.shape[1] > 0
    q = given.detach().double() if is_matrix else torch.zeros(0, 1)
    if not is_matrix or bool((q < 0).any()) or bool(((q.sum(1) - 1).abs() > 1e-4).any()):
        raise MarginsError(
            "label_distribution", expected="[N, C] shares >= 0 that sum to one in every row",
            received=describe(given), fix="counts / counts.sum(1, keepdim=True)",
        )  # fmt: skip
    return q
