"""Boxes of scores along the line: which box an item is in, which boxes are near, which are the last far ones.

A row has its boxes in rising order. Where the boxes from the lowest to the highest are not many more than the
items, all of them are kept and an item finds its own by arithmetic; else the scores are sorted once and
only boxes with items are kept, so that the range of the scores costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from margins.errors import MarginsError

_FEW = 1024  # so many boxes are worth no sort
_ITEMS_A_BOX = 4

Part = tuple[slice, slice]


@dataclass(frozen=True)
class Boxes:
    """The boxes of every row.

    Args:
        width: of a box, in units of the scores; a power of two.
        numbers: [G, B] of the boxes in rising order, whole numbers in float64; a row with fewer boxes repeats
            its last.
        slots: [G, I] place of each item's box in `numbers`; None when the numbers have no gaps.
    """

    width: float
    numbers: Tensor
    slots: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and boxes a row."""
        return self.numbers.shape[0], self.numbers.shape[1]

    @property
    def span(self) -> int | None:
        """How many boxes a row covers with those that are missing; None where that may be any number."""
        return self.shape[1] if self.slots is None else None

    def places(self, scores: Tensor, part: Part) -> tuple[Tensor, Tensor]:
        """Of the items of a part: the index of the box among all of all rows, and u in [-1, 1) inside it."""
        rows, num_boxes = self.shape
        place = scores[part].double() * (1 / self.width)
        number = place.floor()
        inside = (place - number).mul_(2).sub_(1)
        lowest = self.numbers[part[0], :1]
        slots = (number - lowest).long() if self.slots is None else self.slots[part]
        if rows > 1:
            slots = slots + torch.arange(0, rows * num_boxes, num_boxes, device=slots.device)[part[0], None]
        return slots, inside

    def neighbours(self, part: Part, reach: int) -> Tensor:
        """[boxes, 2 reach + 1] indices of the boxes whose number is -reach..reach more; -1 where none is."""
        num_boxes = self.shape[1]
        numbers = self.numbers[part]
        steps = torch.arange(-reach, reach + 1, device=numbers.device)
        if self.slots is None:
            slots = torch.arange(num_boxes, device=numbers.device)[part[1], None] + steps
            is_there = (slots >= 0) & (slots < num_boxes)
            slots, is_there = (x.expand(numbers.shape[0], -1, -1) for x in (slots, is_there))
        else:
            wanted = (numbers[:, :, None] + steps).flatten(1)
            slots = torch.searchsorted(self.numbers[part[0]], wanted).clamp_(max=num_boxes - 1)
            found = self.numbers[part[0]].gather(1, slots).view(*numbers.shape, -1)
            is_there = found - numbers[:, :, None] == steps
            slots = slots.view_as(found)
        first = torch.arange(0, self.numbers.numel(), num_boxes, device=numbers.device)[part[0], None, None]
        return torch.where(is_there, slots + first, -1).flatten(0, 1)


def last_far(numbers: Tensor, reach: int) -> Tensor:
    """[G, B] place of the highest box that is more than `reach` lower; -1 where there is none."""
    found = torch.searchsorted(numbers, numbers - reach) - 1
    above = numbers.gather(1, found + 1)  # rounding of numbers beyond 2^53 may have stopped one short
    return torch.where(numbers - above > reach, found + 1, found)


def parts_of(rows: int, columns: int, size: int) -> Iterator[Part]:
    """Blocks of a matrix of at most `size` elements: whole rows, or pieces of one."""
    height, width = max(1, size // max(1, columns)), min(columns, size)
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            yield slice(top, min(top + height, rows)), slice(left, min(left + width, columns))


def boxes_of(scores: Tensor, width: float) -> Boxes:
    """The boxes of every row of scores.

    Raises:
        MarginsError: scores so large that in units of the temperature they are no longer numbers.
    """
    low, high = (x.double().div_(width).floor_() for x in torch.aminmax(scores, dim=1, keepdim=True))
    widest = float((high - low).max()) + 1
    if not widest < torch.inf:
        raise MarginsError(
            "scores",
            expected="[groups, items] finite, also after division by the temperature",
            received=f"{float(scores.min()):g} to {float(scores.max()):g}",
            fix="raise the temperature",
        )
    rows, items = scores.shape
    if rows * widest <= scores.numel() // _ITEMS_A_BOX + _FEW:
        steps = torch.arange(int(widest), dtype=torch.float64, device=scores.device)
        return Boxes(width, low + steps, None)
    # Not in place: `double` of scores in float64 is the caller's tensor.
    numbers, order = (scores.double() / width).floor_().sort(dim=1)
    is_new = numbers[:, 1:] != numbers[:, :-1]
    places = torch.zeros((rows, items), dtype=torch.long, device=scores.device)
    torch.cumsum(is_new, 1, out=places[:, 1:])
    num_boxes = int(places[:, -1].max()) + 1
    kept = numbers[:, -1:].repeat(1, num_boxes).scatter_(1, places, numbers)
    return Boxes(width, kept, torch.empty_like(places).scatter_(1, order, places))
