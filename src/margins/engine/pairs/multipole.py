"""Pair sums of a smooth function in O(n): a fast multipole method on the line.

1. Items are gathered into moments of their box, positives and negatives apart.
2. Boxes act on near boxes by small matrices, and on all others at once by the asymptotes of the function:
   their sums over the boxes below and above are running sums.
3. The value is the product of the negatives' moments with the field that the positives make; the slope of an
   item is the field of the other side at its place, a polynomial.

Neither the number of pairs nor the range of the scores enters the time, but through the number of boxes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from margins.engine.pairs.boxes import Boxes, boxes_of, last_far, parts_of
from margins.engine.pairs.functions import Asymptote, Smooth
from margins.engine.pairs.plan import Plan, box_width, plan_of
from margins.engine.pairs.problem import PairProblem, Swept

_PART = 1 << 16  # items at once: the working set stays in the caches
_WINDOW_ELEMENTS = 1 << 19
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-7}
_VANISHED = 746.0  # exp(-746) is zero

POSITIVE, NEGATIVE = 0, 1
BELOW, ABOVE = 0, 1


def multipole_sums(problem: PairProblem, function: Smooth, *, with_slopes: bool) -> Swept:
    """Time proportional to items plus boxes, memory to the boxes; every number in float64."""
    width = box_width(problem.temperature)
    boxes = boxes_of(problem.scores, width)
    tolerance = _TOLERANCE[problem.scores.dtype]
    plan = plan_of(function, width / problem.temperature, tolerance, span=boxes.span).to(
        problem.scores.device
    )
    moments = _moments(problem, boxes, plan.degree)
    on_negatives = [_onto_negatives(plan.value)] + [_onto_negatives(plan.slope)] * with_slopes
    value, *field = _near(moments[POSITIVE], boxes, on_negatives)
    has_far = boxes.span is None or boxes.span > plan.num_near
    far = [_Far.of(moments, boxes, plan, direction) for direction in (BELOW, ABOVE)] if has_far else None
    if far:
        _add_far_value(value, far, function, plan)
    sums = (moments[NEGATIVE] * value).sum((1, 2))
    if not with_slopes:
        return Swept(sums, None)
    (on_positives,) = _near(moments[NEGATIVE], boxes, [plan.slope.flatten(0, 1)])
    fields = torch.stack([-on_positives, *field])
    if far:
        _add_far_slopes(fields, far, function, plan)
    return Swept(sums, _slopes(problem, boxes, fields / problem.temperature))


def _onto_negatives(matrices: Tensor) -> Tensor:
    """[D K, K] from the moments of positives in boxes -reach..reach away to a field on negatives."""
    return matrices.flip(0).transpose(1, 2).flatten(0, 1)


def _moments(problem: PairProblem, boxes: Boxes, degree: int) -> Tensor:
    """[2, G, B, K] sums of w u^k over the positives and over the negatives of each box."""
    rows, num_boxes = boxes.shape
    total = rows * num_boxes
    moments = torch.zeros((degree, 2 * total), dtype=torch.float64, device=problem.scores.device)
    for part in parts_of(problem.scores.shape[0], problem.scores.shape[1], _PART):
        index, inside = _indices(problem, boxes, part)
        power = problem.weight[part].double().reshape(-1)
        for k in range(degree):
            moments[k].scatter_add_(0, index, power)
            if k < degree - 1:
                power = power * inside
    return moments.view(degree, 2, rows, num_boxes).permute(1, 2, 3, 0).contiguous()


def _slopes(problem: PairProblem, boxes: Boxes, fields: Tensor) -> Tensor:
    """[G, I] weight of each item times the polynomial of its box at its place; `fields` [2, G, B, K]."""
    degree = fields.shape[-1]
    coefficients = fields.permute(3, 0, 1, 2).reshape(degree, -1)
    slopes = torch.empty_like(problem.scores)
    for part in parts_of(problem.scores.shape[0], problem.scores.shape[1], _PART):
        index, inside = _indices(problem, boxes, part)
        slope = coefficients[-1].index_select(0, index)
        for k in range(degree - 2, -1, -1):
            slope.mul_(inside).add_(coefficients[k].index_select(0, index))
        slopes[part] = slope.view(slopes[part].shape) * problem.weight[part]
    return slopes


def _indices(problem: PairProblem, boxes: Boxes, part: tuple[slice, slice]) -> tuple[Tensor, Tensor]:
    """Index of each item's box among those of the positives and then those of the negatives; u inside it."""
    slots, inside = boxes.places(problem.scores, part)
    return (slots + boxes.numbers.numel() * ~problem.positive[part]).reshape(-1), inside.view(-1)


def _near(sources: Tensor, boxes: Boxes, matrices: list[Tensor]) -> list[Tensor]:
    """[G, B, K] coefficients over u of the fields that boxes near each box make, one for each matrix."""
    rows, num_boxes, degree = sources.shape
    matrix = torch.cat(matrices, 1)
    num_near = matrix.shape[0] // degree // 2
    table = torch.cat([sources.flatten(0, 1), sources.new_zeros(1, degree)])  # index -1: no such box
    fields = sources.new_empty(rows, num_boxes, matrix.shape[1])
    for part in parts_of(rows, num_boxes, max(1, _WINDOW_ELEMENTS // matrix.shape[0])):
        index = boxes.neighbours(part, num_near)
        windows = table[index].view(index.shape[0], -1)
        fields[part] = (windows @ matrix).view(fields[part].shape)
    return [field.contiguous() for field in fields.split(degree, 2)]


class _Far(NamedTuple):
    """What lies beyond the near boxes on one side of every box, for sources of both sides.

    Distances are in units of x and from the centre of the box: sum w, sum w distance, sum w exp(-k distance).
    """

    mass: Tensor  # [2, G, B]
    distance: Tensor  # [2, G, B]
    tails: Tensor  # [T, 2, G, B]

    @classmethod
    def of(cls, moments: Tensor, boxes: Boxes, plan: Plan, direction: int) -> _Far:
        """Of the boxes below or above; looking up is looking down on the mirrored line."""
        numbers, half = boxes.numbers, plan.width / 2
        offset = -half * moments[..., 1]
        tails = torch.einsum("tk,sgbk->tsgb", plan.growth[1 - direction], moments)
        mass = moments[..., 0]
        if direction == BELOW:
            return cls._below(mass, offset, tails, numbers, plan)
        mirrored = cls._below(mass.flip(-1), -offset.flip(-1), tails.flip(-1), -numbers.flip(-1), plan)
        return cls(*(x.flip(-1) for x in mirrored))

    @classmethod
    def _below(cls, mass: Tensor, offset: Tensor, tails: Tensor, numbers: Tensor, plan: Plan) -> _Far:
        numbers = numbers.contiguous()
        mass = mass.cumsum(-1)
        distance = offset.cumsum(-1)
        distance[..., 1:] += (mass[..., :-1] * numbers.diff(dim=-1) * plan.width).cumsum(-1)
        tails = _decayed(tails, numbers, plan.width)
        last = last_far(numbers, plan.num_near)
        is_there, last = last >= 0, last.clamp(min=0)
        gap = (numbers - numbers.gather(1, last)) * plan.width  # from whole numbers: exact at any offset
        mass, distance, tails = (x.gather(-1, last.expand_as(x)) * is_there for x in (mass, distance, tails))
        return cls(mass, distance + mass * gap, tails * _decay(gap, tails.shape[0]))


def _decay(gap: Tensor, num_tails: int) -> Tensor:
    rates = torch.arange(1, num_tails + 1, dtype=gap.dtype, device=gap.device)
    return torch.exp(-rates[:, None, None, None] * gap)


def _decayed(tails: Tensor, numbers: Tensor, width: float) -> Tensor:
    """Sums over a box and all below it of tails that decay with the distance, by doubling the span."""
    num_boxes = numbers.shape[-1]
    step = 1
    while step < num_boxes and step * width < _VANISHED:
        gap = (numbers[:, step:] - numbers[:, :-step]) * width
        more = _decay(gap, tails.shape[0]) * tails[..., :-step]
        tails = torch.cat([tails[..., :step], tails[..., step:] + more], -1)
        step *= 2
    return tails


def _add_far_value(value: Tensor, far: list[_Far], function: Smooth, plan: Plan) -> None:
    """The field of ell on negatives: x = distance + u h / 2 for what is below, else -distance + u h / 2."""
    for direction, side, sign in ((BELOW, function.right, 1), (ABOVE, function.left, -1)):
        found = far[direction]
        mass, distance = found.mass[POSITIVE], found.distance[POSITIVE]
        value[..., 0] += side.constant * mass + sign * side.slope * distance
        value[..., 1] += side.slope * mass * (plan.width / 2)
        if side.tails:
            value += _tail_field(
                side, found.tails[:, POSITIVE], plan.growth[direction], [1] * len(side.tails)
            )


def _add_far_slopes(fields: Tensor, far: list[_Far], function: Smooth, plan: Plan) -> None:
    """The same of the derivative, which a positive feels with the opposite sign and from the other side."""
    for target, outward, direction in (
        (NEGATIVE, 1, BELOW), (NEGATIVE, -1, ABOVE), (POSITIVE, 1, ABOVE), (POSITIVE, -1, BELOW)
    ):  # fmt: skip
        side = function.right if outward == 1 else function.left
        sign = 1 if target == NEGATIVE else -1
        found, source = far[direction], 1 - target
        fields[target, ..., 0] += sign * side.slope * found.mass[source]
        if side.tails:
            factors = [-sign * outward * k for k in range(1, len(side.tails) + 1)]
            fields[target] += _tail_field(side, found.tails[:, source], plan.growth[direction], factors)


def _tail_field(side: Asymptote, tails: Tensor, growth: Tensor, factors: list[int]) -> Tensor:
    """[G, B, K] of the sum over k of factor_k tail_k (sum over sources) times the growth inside the box."""
    scale = [factor * tail for factor, tail in zip(factors, side.tails, strict=True)]
    weights = torch.tensor(scale, dtype=tails.dtype, device=tails.device)
    num = len(scale)
    return torch.einsum("t,tgb,tk->gbk", weights, tails[:num], growth[:num])
