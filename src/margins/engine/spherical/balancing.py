"""Keeps the factors of a spherical layer well conditioned: what U has stretched or shrunk is moved into V.

None of this changes W = V U + 1 w' beyond rounding of V.
"""

from __future__ import annotations

import torch
from torch import Tensor

from margins.engine.spherical.factored_weights import FactoredWeights

_REPAIRED_BEYOND = 2.0  # singular values over their middle
_LOOKED_AT_BEYOND = 8.0  # bounds on them, between two regular looks
_LARGEST_SCALE = 1e6  # of U as a whole, which costs V no precision
_BLOCK = 65_536


def balance(weights: FactoredWeights, *, every: int) -> None:
    """Looks at the singular values of U when it is time, and repairs those that are far from their middle."""
    low, high = weights.reach.tolist()
    is_near = low > 1 / _LOOKED_AT_BEYOND and high < _LOOKED_AT_BEYOND
    if int(weights.counts[0]) < every and is_near:
        return
    weights.counts[0] = 0
    left, values, right = torch.linalg.svd(weights.factor)
    middle = float(values.median())
    wrong = (values > _REPAIRED_BEYOND * middle) | (values < middle / _REPAIRED_BEYOND)
    is_far = not 1 / _LARGEST_SCALE < middle < _LARGEST_SCALE
    if is_far or int(wrong.sum()) > len(values) / 3:
        _take_in(weights)
        return
    if bool(wrong.any()):
        _repair(weights, left[:, wrong], values[wrong] / middle, right[wrong], middle)
        values = torch.where(wrong, middle, values)
    weights.reach = torch.stack([values.min(), values.max()]) / middle


def _repair(weights: FactoredWeights, left: Tensor, sizes: Tensor, right: Tensor, middle: float) -> None:
    """Singular values of these left and right vectors become the middle one; V is stretched by their sizes.

    V (1 - (1 - size) u u') (U + (1 - size) middle u v') = V U for a singular value size * middle, 0 included.
    """
    missing = left * (1 - sizes)
    weights.factor = weights.factor + middle * missing @ right
    for block in weights.table.split(_BLOCK):
        rows = block.double()
        block.copy_(rows.addmm_(rows @ left, missing.T, alpha=-1.0))
    weights.counts[1] += len(sizes)


def _take_in(weights: FactoredWeights) -> None:
    """V becomes W, and the statistics of W are taken anew."""
    for block in weights.table.split(_BLOCK):
        block.copy_(torch.addmm(weights.shift, block.double(), weights.factor))
    weights.begin_anew()
    weights.counts[2] += 1
