"""Test errors of random functions of a Gaussian process that pass through the training rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import as_rows, check_count, check_positive
from margins.diagnose.quadratic_form import QuadraticForm
from margins.errors import MarginsError, describe

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows [N, d] and [M, d] to their Gram matrix [N, M]."""

_ENTRIES = 1 << 22  # numbers drawn, or of the Gram matrix, held at once
_LARGEST_DENSE = 8192  # training rows whose Gram matrix is factorised


@dataclass(frozen=True, kw_only=True)
class KernelErrors:
    """Errors of sampled functions, and the law that they are drawn from.

    Args:
        errors: [S] mean squared errors over test rows and outputs.
        law: of an error, exactly: `-law.log_cdf(target)` is the information without any fit.
    """

    errors: Tensor
    law: QuadraticForm


@carded(
    Card(
        name="Inductive bias of a kernel",
        summary="the reference space of an inductive bias: what smoothness alone knows",
        paper="Boopathy et al., Towards Exact Computation of Inductive Bias, 2024, arXiv 2406.15941",
        kind="diagnostic",
        stations=("before training",),
        targets=("classes", "values"),
        entry=41,
        tests=(
            "tests/test_inductive_bias.py::test_sampled_functions_have_the_errors_of_the_posterior",
            "tests/test_inductive_bias.py::test_the_law_of_the_errors_is_the_law_of_the_samples",
        ),
        study="inductive_bias",
    )
)
def kernel_errors(
    inputs: Float[Tensor, "rows ..."],
    targets: Float[Tensor, "rows outputs"],
    test_inputs: Float[Tensor, "others ..."],
    test_targets: Float[Tensor, "others outputs"],
    *,
    kernel: Kernel,
    num_samples: int = 10_000,
    jitter: float = 1e-8,
    generator: torch.Generator,
) -> KernelErrors:
    r"""Mean squared test errors of functions drawn from the posterior of a kernel, without noise.

    Use it for `inductive_bias` where no architecture is at hand, and as what architectures are compared
    with. The result depends on the kernel's width as much as on the data: hold it fixed over tasks, or take
    `median_width` of each and say so. Up to 8,192 training rows are factorised; more go through conjugate
    gradients, which need many steps for wide kernels.

    $M = K_{tX} K_{XX}^{-1} Y$, $C = K_{tt} - K_{tX} K_{XX}^{-1} K_{Xt}$, $f = M + C^{1/2} \zeta$.

    Args:
        inputs: [N, ...] training rows, flattened.
        targets: [N, C], one-hot or values.
        test_inputs: [T, ...]; T eigenvalues are computed, so some hundreds to some thousands.
        test_targets: [T, C].
        kernel: two matrices of rows to their Gram matrix.
        num_samples: functions drawn.
        jitter: added to the diagonal of the training rows, as a share of its mean.
        generator: draws the functions.

    Raises:
        MarginsError: shapes that do not fit, numbers that are not finite, a kernel that is not positive.

    Example:
        >>> x = torch.linspace(0, 1, 9)[:, None]
        >>> found = kernel_errors(x[::2], x[::2], x[1::2], x[1::2], kernel=rbf_kernel(0.5), num_samples=100,
        ...                       generator=torch.Generator().manual_seed(0))
        >>> bool(found.errors.max() < 0.1)
        True

    References:
        Boopathy et al. 2024, arXiv 2406.15941.
    """
    x, y = as_rows("inputs", inputs), as_rows("targets", targets)
    others, truth = as_rows("test_inputs", test_inputs), as_rows("test_targets", test_targets)
    if len(x) != len(y) or len(others) != len(truth):
        raise MarginsError("targets", expected="one a row", received=f"{describe(targets)} for {len(x)} rows")
    if x.shape[1] != others.shape[1] or y.shape[1] != truth.shape[1]:
        raise MarginsError("test_inputs, test_targets", expected=f"{x.shape[1]} and {y.shape[1]} columns",
                           received=f"{others.shape[1]} and {truth.shape[1]}")  # fmt: skip
    check_positive("jitter", jitter)
    check_count("num_samples", num_samples)
    cross = kernel(x, others)
    solved = _solved(kernel, x, torch.cat([cross, y], 1), jitter)
    mean = cross.T @ solved[:, len(others) :]
    covariance = kernel(others, others) - cross.T @ solved[:, : len(others)]
    variances, directions = torch.linalg.eigh((covariance + covariance.T) / 2)
    offsets = directions.T @ (mean - truth)
    variances = variances.clamp(min=0.0)
    law = QuadraticForm(
        variances=(variances / truth.numel()).cpu().numpy(),
        squared_offsets=(offsets.square().sum(1) / truth.numel()).cpu().numpy(),
        num_outputs=truth.shape[1],
    )
    return KernelErrors(errors=_sampled(variances, offsets, num_samples, generator), law=law)


def rbf_kernel(width: float = 1.0) -> Kernel:
    r"""$\exp(-\|x - z\|^2 / (2 \, width^2))$.

    Example:
        >>> round(float(rbf_kernel(2.0)(torch.zeros(1, 1), torch.full((1, 1), 2.0))), 4)
        0.6065
    """
    check_positive("width", width)

    def kernel(first: Tensor, second: Tensor) -> Tensor:
        return (torch.cdist(first, second).square() / (-2 * width * width)).exp()

    return kernel


def median_width(
    inputs: Float[Tensor, "rows ..."], *, num_rows: int = 1000, generator: torch.Generator
) -> float:
    """The median distance of two rows: a usual width of a kernel when nothing else is known.

    Args:
        inputs: [N, ...], flattened.
        num_rows: at most so many, drawn at random.
        generator: draws them.

    Raises:
        MarginsError: fewer than two rows, or most of them equal.

    Example:
        >>> median_width(torch.tensor([[0.0], [1.0], [3.0]]), generator=torch.Generator())
        2.0
    """
    rows = as_rows("inputs", inputs, least=2)
    rows = rows[torch.randperm(len(rows), generator=generator)[:num_rows].to(rows.device)]
    width = float(torch.pdist(rows).median())
    if width == 0:
        raise MarginsError("inputs", expected="rows that differ", received="equal ones for the most part")
    return width


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    right: Float[Tensor, "rows columns"],
    *,
    tolerance: float = 1e-8,
    max_steps: int = 5000,
) -> Tensor:
    """Solves a positive definite system for several right sides at once, by products with it alone.

    Args:
        product: [N, C] to the matrix times it.
        right: [N, C].
        tolerance: of the residual of every column, as a share of the column's length.
        max_steps: at most.

    Raises:
        MarginsError: not there after `max_steps`.

    Example:
        >>> matrix = torch.tensor([[2.0, 0.0], [0.0, 4.0]]).double()
        >>> conjugate_gradients(lambda v: matrix @ v, torch.ones(2, 1).double()).flatten().tolist()
        [0.5, 0.25]
    """
    found, residual = torch.zeros_like(right), right.clone()
    direction, energy = residual.clone(), residual.square().sum(0)
    enough = tolerance**2 * right.square().sum(0)
    for _ in range(max_steps):
        if bool((energy <= enough).all()):
            return found
        moved = product(direction)
        step = energy / (direction * moved).sum(0).clamp(min=torch.finfo(right.dtype).tiny)
        step = torch.where(energy <= enough, 0.0, step)
        found, residual = found + step * direction, residual - step * moved
        after = residual.square().sum(0)
        direction = residual + (after / energy.clamp(min=torch.finfo(right.dtype).tiny)) * direction
        energy = after
    raise MarginsError("kernel", expected=f"a solution in {max_steps} steps",
                       received="a residual that is too large", fix="raise jitter")  # fmt: skip


def _solved(kernel: Kernel, x: Tensor, right: Tensor, jitter: float) -> Tensor:
    if len(x) > _LARGEST_DENSE:
        return conjugate_gradients(lambda v: _product(kernel, x, v, jitter), right)
    gram = kernel(x, x)
    gram = gram + jitter * gram.diagonal().mean() * torch.eye(len(x)).to(gram)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        raise MarginsError(
            "kernel", expected="a positive definite Gram matrix", received="one that is not",
            fix="raise jitter, or leave copies out",
        )  # fmt: skip
    return torch.cholesky_solve(right, factor)


def _product(kernel: Kernel, x: Tensor, vectors: Tensor, jitter: float) -> Tensor:
    size = max(1, _ENTRIES // len(x))
    diagonal = float(kernel(x[:1], x[:1]))
    return torch.cat([kernel(part, x) @ vectors for part in x.split(size)]) + jitter * diagonal * vectors


def _sampled(variances: Tensor, offsets: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
    """Mean squares of sqrt(variance) z + offset, in the eigenbasis, where the errors are the same."""
    size = max(1, _ENTRIES // offsets.numel())
    found: list[Tensor] = []
    for start in range(0, num_samples, size):
        shape = (min(size, num_samples - start), *offsets.shape)
        noise = torch.randn(shape, generator=generator, dtype=offsets.dtype).to(offsets.device)
        found.append((variances.sqrt()[:, None] * noise + offsets).square().mean((1, 2)))
    return torch.cat(found)
