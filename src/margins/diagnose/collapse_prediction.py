"""Which classes a last layer under weight decay will keep, and how large it will make them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from margins.cards import Card, carded
from margins.diagnose.checking import check_positive
from margins.errors import MarginsError

_HALVINGS = 200


@dataclass(frozen=True, kw_only=True)
class CollapsePrediction:
    """Where training ends, class by class; the classes are orthogonal to each other.

    Args:
        outputs: what each class gets at its own output; 1 is perfect, 0 is collapsed.
        weight_energies: squared length of each class's row of the head.
        feature_energies: squared length of the features that enter the linear layers, each class's own.
        head_feature_energies: squared length of the features that the head takes; the same at depth 1.
        collapsed: the classes whose output is 0.
        collapse_count: classes of this many rows or fewer collapse, at this number of rows in all.
        warnings: sentences; empty when no class collapses.
    """

    outputs: tuple[float, ...]
    weight_energies: tuple[float, ...]
    feature_energies: tuple[float, ...]
    head_feature_energies: tuple[float, ...]
    collapsed: tuple[int, ...]
    collapse_count: float
    warnings: tuple[str, ...]


@carded(
    Card(
        name="Minority collapse prediction",
        summary="before training: which rare classes weight decay will collapse to nothing",
        paper="Dang et al., Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data, 2023, "
        "arXiv 2301.00437",
        kind="diagnostic",
        stations=("before training",),
        targets=("classes",),
        entry=99,
        tests=(
            "tests/test_neural_collapse.py::test_gradient_descent_ends_where_the_closed_form_says",
            "tests/test_neural_collapse.py::test_two_layers_end_where_the_scalar_problem_says",
            "tests/test_neural_collapse.py::test_a_class_collapses_exactly_at_the_count_that_is_told",
        ),
        study="neural_collapse",
    )
)
def predict_collapse(
    counts: Sequence[int], *, weight_decay: Sequence[float], feature_decay: float
) -> CollapsePrediction:
    r"""Outputs, norms and collapsed classes of a linear tail trained to its end on free features.

    Use it to choose a weight decay that leaves the rare classes alone. It solves squared error to one-hot
    targets without a bias, with features that are free and decayed themselves; for a network whose features
    are not decayed it is no prediction. It is the least loss: at depth 2 and more a collapsed class is a
    local minimum too, in which gradient descent may end though the class could be kept. With cross-entropy
    the threshold is another one.

    $\min \frac{1}{2N} \|W_M \cdots W_1 H - Y\|_F^2 + \sum_j \frac{\lambda_j}{2} \|W_j\|^2
    + \frac{\lambda_H}{2} \|H\|^2$ falls apart into one problem a class: with
    $c_k = n_k \lambda_H \prod_j \lambda_j$, minimise over $x \ge 0$
    $\frac{n_k}{2N} (x - 1)^2 + \frac{M + 1}{2} (c_k x^2)^{1 / (M + 1)}$. At depth $M = 1$ that is
    $x_k = \max(0, 1 - N \sqrt{\lambda_W \lambda_H / n_k})$.

    Args:
        counts: rows of each class, >= 1.
        weight_decay: $\lambda_j > 0$ of each linear layer, the head's last; one number for a head alone.
        feature_decay: $\lambda_H > 0$ of the features.

    Raises:
        MarginsError: no class, counts below 1, decays that are not above 0.

    Example:
        >>> found = predict_collapse([500, 100, 20, 5], weight_decay=[5e-3], feature_decay=5e-3)
        >>> [round(x, 4) for x in found.outputs]
        [0.8602, 0.6875, 0.3012, 0.0]
        >>> found.collapsed, round(found.collapse_count, 1)
        ((3,), 9.8)

    References:
        Dang et al. 2023, arXiv 2301.00437.
    """
    if not len(counts) or min(counts) < 1:
        raise MarginsError("counts", expected="numbers of rows of at least 1", received=str(list(counts)))
    if not len(weight_decay):
        raise MarginsError("weight_decay", expected="one number a linear layer", received="none")
    for decay in (*weight_decay, feature_decay):
        check_positive("weight_decay, feature_decay", decay)
    total, product = sum(counts), feature_decay * math.prod(weight_decay)
    outputs = [_output(count, total, product, len(weight_decay)) for count in counts]
    # The penalties of all factors of a class are equal: lambda_j sigma_j^2 = lambda_H n |h|^2 = shared.
    shared = [
        (count * product * x * x) ** (1 / (len(weight_decay) + 1))
        for count, x in zip(counts, outputs, strict=True)
    ]
    weights = [each / weight_decay[-1] for each in shared]
    collapsed = tuple(k for k, x in enumerate(outputs) if x == 0)
    threshold = _collapse_count(total, product, len(weight_decay))
    return CollapsePrediction(
        outputs=tuple(outputs),
        weight_energies=tuple(weights),
        feature_energies=tuple(s / (n * feature_decay) for s, n in zip(shared, counts, strict=True)),
        head_feature_energies=tuple(x * x / w if w else 0.0 for x, w in zip(outputs, weights, strict=True)),
        collapsed=collapsed,
        collapse_count=threshold,
        warnings=(_warning(collapsed, counts, threshold),) if collapsed else (),
    )


def _output(count: int, total: int, product: float, depth: int) -> float:
    """The minimiser x of the problem of one class.

    A stationary point solves (1 - x) x^a = pull with a = (depth - 1) / (depth + 1); the left side rises up to
    x = (depth - 1) / (2 depth) and falls from there to x = 1, and the larger root is the minimum. At
    x = (depth - 1) / depth that minimum is as high as x = 0.
    """
    pull = total / count * (count * product) ** (1 / (depth + 1))
    if pull >= _largest_pull(depth):
        return 0.0
    power = (depth - 1) / (depth + 1)
    low, high = (depth - 1) / depth, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) * middle**power > pull else (low, middle)
    return (low + high) / 2


def _largest_pull(depth: int) -> float:
    last = (depth - 1) / depth
    return (1 - last) * last ** ((depth - 1) / (depth + 1))


def _collapse_count(total: int, product: float, depth: int) -> float:
    return (total / _largest_pull(depth)) ** ((depth + 1) / depth) * product ** (1 / depth)


def _warning(collapsed: Sequence[int], counts: Sequence[int], threshold: float) -> str:
    named = ", ".join(f"{k} ({counts[k]} rows)" for k in collapsed[:10])
    more = f" and {len(collapsed) - 10} more" if len(collapsed) > 10 else ""
    return (
        f"classes {named}{more} are predicted to collapse: at this weight decay all of {threshold:.1f} rows "
        "or fewer do"
    )
