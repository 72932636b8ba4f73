"""Kernels of infinitely wide convolutional networks whose patches do not overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import as_rows
from margins.errors import MarginsError

_ENTRIES = 1 << 17  # of the Gram matrix, at once


@carded(
    Card(
        name="Hierarchical kernel",
        summary="whether locality helps, without training a network; with kernel regression, a predictor too",
        paper="Cagnetta, Favero, Wyart, What Can Be Learnt With Wide Convolutional Neural Networks?, 2023, "
        "arXiv 2208.01003",
        kind="diagnostic",
        stations=("before training",),
        targets=("classes", "values"),
        entry=141,
        limits=(
            "one level, one patch: the arc-cosine kernel of degree 1 and its tangent kernel",
            "one level: the mean over patches of kernels of one patch",
        ),
        tests=(
            "tests/test_hierarchical_kernels.py::test_one_patch_is_the_kernel_of_one_wide_layer",
            "tests/test_hierarchical_kernels.py::test_a_wide_random_network_has_this_gram_matrix",
            "tests/test_hierarchical_kernels.py::test_a_wide_network_has_this_tangent_kernel",
            "tests/test_hierarchical_kernels.py::test_gram_matrices_are_positive",
        ),
        study="hierarchical_kernels",
    )
)
def hierarchical_kernel(
    inputs: Float[Tensor, "rows dim"],
    others: Float[Tensor, "others dim"],
    *,
    patches: Sequence[int],
    kind: Literal["rfk", "ntk"] = "ntk",
) -> Float[Tensor, "rows others"]:
    r"""The Gram matrix of a deep convolutional kernel with patches that do not overlap.

    Use it with `learning_exponents` to see whether local structure speeds up learning, on rows whose
    coordinates have an order. Patches that cut the structure in the wrong places hide it, and a kernel learns
    no features: an exponent that does not improve does not prove that a trained network's would not.

    With $\kappa_0(t) = (\pi - \arccos t) / \pi$ and
    $\kappa_1(t) = (t (\pi - \arccos t) + \sqrt{1 - t^2}) / \pi$, for the first level on patches $x_i$ and
    from there on means $m$ over the units of a patch:
    $K_i = |x_i| |z_i| \kappa_1(\cos)$, then $K_i = \kappa_1(m_K)$, for norms of one;
    tangent kernels $\Theta_i = K_i + |x_i| |z_i| \cos \kappa_0(\cos)$, then
    $\Theta_i = \kappa_1(m_K) + m_\Theta \kappa_0(m_K)$; the result is the mean over the last units. Patches
    of other norms keep them: $m_K$ is divided by the norms before $\kappa_1$ and multiplied by them after.

    Args:
        inputs: [N, d].
        others: [M, d].
        patches: numbers of entries of a first patch, then of units joined at each further level; each
            divides what the level before left. `[d]` is fully connected, `[s]` local without a hierarchy.
        kind: "rfk", of random features with a trained last layer, or "ntk", with all layers trained a little.

    Returns:
        [N, M] in float64.

    Raises:
        MarginsError: patches that do not divide, shapes that do not fit.

    Example:
        >>> x = torch.eye(2)
        >>> hierarchical_kernel(x, x, patches=[2], kind="rfk").round(decimals=4).tolist()
        [[1.0, 0.3183], [0.3183, 1.0]]

    References:
        Cagnetta, Favero, Wyart 2023, arXiv 2208.01003; Cho, Saul 2009 (arc-cosine kernels).
    """
    if kind not in ("rfk", "ntk"):
        raise MarginsError("kind", expected="'rfk' or 'ntk'", received=repr(kind))
    x, z = as_rows("inputs", inputs), as_rows("others", others)
    if x.shape[1] != z.shape[1]:
        raise MarginsError("others", expected=f"{x.shape[1]} columns", received=str(z.shape[1]))
    num_units = _checked_patches(patches, x.shape[1])
    # Few rows at a time: a unit's matrices then stay in the processor's cache.
    parts = x.split(max(1, _ENTRIES // len(z)))
    return torch.cat([_Walk(part, z, patches, kind == "ntk").mean(num_units) for part in parts])


def kernel_of(
    patches: Sequence[int], *, kind: Literal["rfk", "ntk"] = "ntk"
) -> Callable[[Tensor, Tensor], Tensor]:
    """`hierarchical_kernel` with these patches, as a function of two matrices of rows.

    Example:
        >>> kernel_of([4])(torch.ones(1, 4), torch.ones(1, 4)).tolist()
        [[8.0]]
    """
    return lambda inputs, others: hierarchical_kernel(inputs, others, patches=patches, kind=kind)


@dataclass(frozen=True)
class _Unit:
    """A unit's kernel and tangent kernel [N, M], and its kernel of each row with itself, [N] and [M]."""

    kernel: Tensor
    tangent: Tensor
    inputs: Tensor
    others: Tensor


@dataclass(frozen=True)
class _Walk:
    """Units one after the other, deepest first: memory grows with the levels, not with the units."""

    x: Tensor
    z: Tensor
    patches: Sequence[int]
    is_tangent: bool

    def mean(self, num_units: int) -> Tensor:
        """The mean over the units of the last level."""
        total = torch.zeros(len(self.x), len(self.z)).to(self.x)
        for place in range(num_units):
            last = self.unit(len(self.patches), place)
            total += last.tangent if self.is_tangent else last.kernel
        return total / num_units

    def unit(self, level: int, place: int) -> _Unit:
        """The unit at a place of a level; level 0 are the patches of the inputs, before any layer."""
        if level == 0:
            size = self.patches[0]
            x, z = (rows[:, place * size : (place + 1) * size] for rows in (self.x, self.z))
            product = x @ z.T
            return _Unit(product, product, x.square().sum(1), z.square().sum(1))
        size = 1 if level == 1 else self.patches[level - 1]
        below = [self.unit(level - 1, place * size + part) for part in range(size)]
        return self._layer(below[0] if size == 1 else _mean_of(below))

    def _layer(self, below: _Unit) -> _Unit:
        norms = (below.inputs[:, None] * below.others).sqrt()
        cosines = (below.kernel / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(-1.0, 1.0)
        angles = math.pi - cosines.arccos()
        kernel = norms * (cosines * angles + (1 - cosines.square()).sqrt()) / math.pi
        tangent = kernel + below.tangent * angles / math.pi if self.is_tangent else kernel
        return _Unit(kernel, tangent, below.inputs, below.others)


def _mean_of(units: list[_Unit]) -> _Unit:
    first, *others = units
    kernel, tangent = first.kernel.clone(), first.tangent.clone()
    inputs, rest = first.inputs.clone(), first.others.clone()
    for unit in others:
        kernel += unit.kernel
        tangent += unit.tangent
        inputs, rest = inputs + unit.inputs, rest + unit.others
    return _Unit(kernel / len(units), tangent / len(units), inputs / len(units), rest / len(units))


def _checked_patches(patches: Sequence[int], num_entries: int) -> int:
    """The number of units of the last level."""
    left = num_entries
    for size in patches:
        if size < 1 or left % size:
            raise MarginsError(
                "patches", expected=f"sizes whose product divides {num_entries}, level by level",
                received=str(list(patches)),
            )  # fmt: skip
        left //= size
    if not len(patches):
        raise MarginsError("patches", expected="one size a level", received="none")
    return left
