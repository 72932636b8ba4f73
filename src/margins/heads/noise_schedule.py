"""How much of a label is left in a noisy one, block by block, and how a block takes noise off."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from margins.errors import MarginsError


def signal_shares(num_blocks: int, *, first: float = 0.01, last: float = 0.99) -> Float[Tensor, " T+1"]:
    r"""The shares of signal before, between and after blocks: $\sin^2$ of angles in equal steps, in float64.

    Args:
        num_blocks: T.
        first: share before the first block, in (0, last).
        last: share after the last block, below 1.

    Raises:
        MarginsError: shares out of their range.

    Example:
        >>> signal_shares(2, first=0.1, last=0.9)
        tensor([0.1000, 0.5000, 0.9000], dtype=torch.float64)
    """
    if not 0 < first < last < 1:
        raise MarginsError("signal", expected="0 < first < last < 1", received=f"{first}, {last}")
    ends = [math.asin(math.sqrt(share)) for share in (first, last)]
    return torch.linspace(ends[0], ends[1], num_blocks + 1, dtype=torch.float64).sin().square()


def posterior_coefficients(alpha_bar: Float[Tensor, " T+1"]) -> tuple[Tensor, Tensor, Tensor]:
    r"""a, b and c [T] of $z_t = a_t \hat u + b_t z_{t-1} + \sqrt{c_t} \epsilon$.

    They are such that, if $\hat u = u_y$ and $z_{t-1} \sim N(\sqrt{\bar\alpha_{t-1}} u_y,
    (1 - \bar\alpha_{t-1}) I)$, then $z_t \sim N(\sqrt{\bar\alpha_t} u_y, (1 - \bar\alpha_t) I)$.

    Example:
        >>> a, b, c = posterior_coefficients(torch.tensor([0.2, 0.8]))
        >>> round(float(a + b * 0.2**0.5), 4) == round(0.8**0.5, 4)
        True
    """
    before, now = alpha_bar[:-1], alpha_bar[1:]
    ratio = before / now
    a = now.sqrt() * (1 - ratio) / (1 - before)
    b = ratio.sqrt() * (1 - now) / (1 - before)
    c = (1 - now) * (1 - ratio) / (1 - before)
    return a, b, c
