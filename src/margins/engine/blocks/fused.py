"""Steps over a block that an accelerator does in one kernel: made by torch's compiler from the plain formula.

On the CPU, and where no compiler is there, the formulas run as they stand. Which of the two it is, a block
plan tells (`Blockwise().plan(...).kernels`); a compiler that fails is told by a warning.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from margins.errors import MarginsWarning

Kernels = Literal["torch", "compiled"]
_LOG2_E = math.log2(math.e)
_FAILED = "MG010"


def kernels_on(device: torch.device) -> Kernels:
    """How steps over a block run on a device."""
    return "compiled" if device.type == "cuda" and _compiler_works() else "torch"


@functools.cache
def _compiler_works() -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        probe = torch.ones(4, 4, device="cuda")
        torch.compile(_shifted_exp, dynamic=True)(probe, probe[0])
    except Exception as error:  # whatever the compiler's tool chain lacks
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        warnings.warn(
            MarginsWarning(_FAILED, f"torch.compile does not work here, blocks use plain kernels: {said}"),
            stacklevel=2,
        )
        return False
    return True


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def exp_of_difference(
    x: Float[Tensor, "anchors block"],
    shift: Float[Tensor, " anchors"],
    factor: Float[Tensor, " anchors"] | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "anchors block"]:
    """exp(x - shift) row by row; may overwrite x. By powers of two, which torch makes three times faster.

    The difference comes first, so that nothing is lost where scores are large and near each other.

    Args:
        x: exponents.
        shift: of each row.
        factor: of each row, times the powers; None for 1.
        dtype: of the result; that of x when None.
    """
    dtype = dtype or x.dtype
    if kernels_on(x.device) == "compiled":
        if factor is None and dtype == x.dtype:
            return _compiled(_shifted_exp)(x, shift)
        factor = torch.ones_like(shift) if factor is None else factor
        return _compiled(_scaled_exp)(x, shift, factor, torch.empty(0, dtype=dtype, device=x.device))
    powers = x.sub_(shift[:, None]).mul_(_LOG2_E).exp2_()
    return (powers if factor is None else powers.mul_(factor[:, None])).to(dtype)


def more_logsumexp(
    shift: Float[Tensor, " anchors"], total: Float[Tensor, " anchors"], x: Float[Tensor, "anchors block"]
) -> tuple[Float[Tensor, " anchors"], Float[Tensor, " anchors"]]:
    """A logsumexp, kept as a shift and a sum of shifted exponentials, with more terms; overwrites x."""
    if kernels_on(x.device) == "compiled":
        return _compiled(_more)(shift, total, x)
    larger = torch.maximum(shift, x.amax(1))
    finite = torch.where(larger.isneginf(), 0.0, larger)
    return larger, total * (shift - finite).exp() + exp_of_difference(x, finite).sum(1)


def _shifted_exp(x: Tensor, shift: Tensor) -> Tensor:
    return torch.exp(x - shift[:, None])


def _scaled_exp(x: Tensor, shift: Tensor, factor: Tensor, like: Tensor) -> Tensor:
    return (torch.exp(x - shift[:, None]) * factor[:, None]).to(like.dtype)


def _more(shift: Tensor, total: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    larger = torch.maximum(shift, x.amax(1))
    finite = torch.where(larger.isneginf(), 0.0, larger)
    return larger, total * (shift - finite).exp() + _shifted_exp(x, finite).sum(1)
