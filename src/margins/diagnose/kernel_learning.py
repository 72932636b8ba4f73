"""How fast kernel regression learns as rows are added, and what that says of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import as_rows, check_count
from margins.diagnose.power_laws import PowerLaw, power_law
from margins.diagnose.random_functions import Kernel
from margins.errors import MarginsError, describe

_CLEARLY = 1.2  # ratio of exponents from which one kernel is called faster
_BENT = 0.25


@dataclass(frozen=True, kw_only=True)
class LearningExponent:
    """A learning curve of kernel regression.

    Args:
        exponent: beta of error ~ size^-beta.
        low: lower end of its interval over repeats.
        high: upper end.
        sizes: training rows.
        errors: [R, S] mean squared test errors.
        fitted: the line in logarithms.
        warnings: sentences.
    """

    exponent: float
    low: float
    high: float
    sizes: tuple[int, ...]
    errors: Float[Tensor, "repeats sizes"]
    fitted: PowerLaw
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LearningExponents:
    """Learning curves of several kernels on the same rows.

    Args:
        exponents: by the name of the kernel.
        effective_dimensions: by name: the number of inputs times the reference's exponent over its own. A
            kernel that learns twice as fast behaves as if the target had half the dimensions.
        reference: name of the kernel that sees all inputs at once.
        advice: one sentence.
    """

    exponents: dict[str, LearningExponent]
    effective_dimensions: dict[str, float]
    reference: str
    advice: str


def learning_exponent(
    kernel: Kernel,
    inputs: Float[Tensor, "rows ..."],
    targets: Float[Tensor, "rows outputs"],
    *,
    sizes: Sequence[int],
    num_test: int = 500,
    num_repeats: int = 5,
    ridge: float = 1e-10,
    generator: torch.Generator,
) -> LearningExponent:
    r"""The exponent of the learning curve of kernel regression, error $\sim P^{-\beta}$.

    Use it to see which structure of a kernel a target has; see `learning_exponents`. Sizes must reach from
    where learning has begun to where noise does not yet hold the error up: a bend is told as a warning.

    Args:
        kernel: two matrices of rows to their Gram matrix.
        inputs: [N, ...], flattened; N at least the largest size and `num_test` together.
        targets: [N, C]: one-hot, +-1 or values.
        sizes: training rows, 3 or more numbers.
        num_test: rows that are left for the error, others in each repeat.
        num_repeats: divisions of the rows; 2 or more for an interval over them.
        ridge: added to the diagonal, as a share of its mean; the default only keeps the solution finite.
        generator: draws the divisions.

    Raises:
        MarginsError: too few rows or sizes, or a kernel that is not positive.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> x = torch.rand(400, 1, generator=draws)
        >>> found = learning_exponent(lambda a, b: torch.minimum(a, b.T) + 1, x, x.sin(),
        ...                           sizes=[25, 50, 100, 200], num_test=200, generator=draws)
        >>> found.exponent > 1
        True
    """
    x, y = as_rows("inputs", inputs), _values(targets, len(inputs))
    _check_sizes(sizes, num_test, num_repeats, len(x))
    gram = kernel(x, x)
    divisions = [torch.randperm(len(x), generator=generator).to(x.device) for _ in range(num_repeats)]
    errors = torch.stack([_curve(gram, y, order, sizes, num_test, ridge) for order in divisions])
    fitted = power_law(list(sizes), errors.cpu().numpy())
    return LearningExponent(
        exponent=-fitted.slope, low=-fitted.high, high=-fitted.low, sizes=tuple(sizes), errors=errors,
        fitted=fitted, warnings=_warnings(fitted),
    )  # fmt: skip


@carded(
    Card(
        name="Learning exponents of hierarchical kernels",
        summary="whether a convolutional network should learn faster on these data than one without locality",
        paper="Cagnetta, Favero, Wyart, What Can Be Learnt With Wide Convolutional Neural Networks?, 2023, "
        "arXiv 2208.01003",
        kind="diagnostic",
        stations=("before training",),
        targets=("classes", "values"),
        entry=141,
        tests=(
            "tests/test_hierarchical_kernels.py::test_a_curve_of_a_known_exponent_gives_it",
            "tests/test_hierarchical_kernels.py::test_the_error_is_that_of_kernel_regression",
            "tests/test_hierarchical_kernels.py::test_a_local_target_is_advised_a_local_kernel",
        ),
        study="hierarchical_kernels",
    )
)
def learning_exponents(
    kernels: Mapping[str, Kernel],
    inputs: Float[Tensor, "rows ..."],
    targets: Float[Tensor, "rows outputs"],
    *,
    reference: str,
    sizes: Sequence[int],
    num_test: int = 500,
    num_repeats: int = 5,
    ridge: float = 1e-10,
    generator: torch.Generator,
) -> LearningExponents:
    r"""The learning exponents of several kernels, and the dimension of the target that each implies.

    Use it before training, with kernels of `kernel_of`: patches of the whole input as the reference, and
    patches level by level. Where the target depends on small patches, the hierarchical kernel's exponent is
    set by their dimension, not by that of the input, and a convolutional network is worth a try. Kernels
    learn no features: equal exponents do not prove that structure is missing.

    $\hat d = d \, \beta_{reference} / \beta$.

    Args:
        kernels: by name.
        inputs: [N, ...], flattened.
        targets: [N, C]: one-hot, +-1 or values.
        reference: name of the kernel that sees all inputs at once.
        sizes: training rows, 3 or more numbers.
        num_test: rows left for the error.
        num_repeats: divisions of the rows, the same for every kernel.
        ridge: added to the diagonal, as a share of its mean.
        generator: draws the divisions.

    Raises:
        MarginsError: a reference that is no kernel, or as `learning_exponent`.

    References:
        Cagnetta, Favero, Wyart 2023, arXiv 2208.01003.
    """
    if reference not in kernels:
        raise MarginsError("reference", expected=f"one of {list(kernels)}", received=repr(reference))
    seed = int(torch.randint(2**62, (), generator=generator))
    found = {
        name: learning_exponent(
            kernel, inputs, targets, sizes=sizes, num_test=num_test, num_repeats=num_repeats, ridge=ridge,
            generator=torch.Generator().manual_seed(seed),
        )
        for name, kernel in kernels.items()
    }  # fmt: skip
    num_inputs, beta = inputs[0].numel(), found[reference].exponent
    return LearningExponents(
        exponents=found,
        effective_dimensions={
            name: num_inputs * beta / each.exponent if each.exponent > 0 else float("inf")
            for name, each in found.items()
        },
        reference=reference,
        advice=_advice(found, reference),
    )


def _curve(
    gram: Tensor, y: Tensor, order: Tensor, sizes: Sequence[int], num_test: int, ridge: float
) -> Tensor:
    test, rest = order[:num_test], order[num_test:]
    errors: list[Tensor] = []
    for size in sizes:
        train = rest[:size]
        square = gram[train[:, None], train]
        square = square + ridge * square.diagonal().mean() * torch.eye(size).to(square)
        factor, failed = torch.linalg.cholesky_ex(square)
        if int(failed):
            raise MarginsError(
                "kernel", expected="a positive definite Gram matrix", received="one that is not",
                fix="raise ridge, or leave copies out",
            )  # fmt: skip
        weights = torch.cholesky_solve(y[train], factor)
        errors.append((gram[test[:, None], train] @ weights - y[test]).square().mean())
    return torch.stack(errors)


def _values(targets: Tensor, num_rows: int) -> Tensor:
    y = as_rows("targets", targets)
    if len(y) != num_rows:
        raise MarginsError("targets", expected=f"[{num_rows}, C] floats", received=describe(targets))
    return y


def _check_sizes(sizes: Sequence[int], num_test: int, num_repeats: int, num_rows: int) -> None:
    check_count("num_test", num_test)
    check_count("num_repeats", num_repeats)
    if len(sizes) < 3 or min(sizes) < 2 or max(sizes) + num_test > num_rows:
        raise MarginsError(
            "sizes", expected=f"3 or more, from 2 to {num_rows - num_test}", received=str(list(sizes))
        )


def _warnings(fitted: PowerLaw) -> tuple[str, ...]:
    told: list[str] = []
    if fitted.high >= 0:
        told.append("the error does not clearly fall with more rows")
    if fitted.largest_residual > _BENT:
        told.append(f"the curve bends: an error lies {fitted.largest_residual:.0%} off the line")
    return tuple(told)


def _advice(found: Mapping[str, LearningExponent], reference: str) -> str:
    base = found[reference]
    best = max(found, key=lambda name: found[name].exponent)
    gain = found[best].exponent / base.exponent if base.exponent > 0 else float("inf")
    if best == reference or gain < _CLEARLY or found[best].low <= base.high:
        return f"no kernel learns clearly faster than {reference}: nothing speaks for its structure"
    by = f"{gain:.1f} times as fast as" if base.low > 0 else "where nothing is learned by"
    return f"{best} learns {by} {reference}: the target is local, so an architecture of this structure pays"
