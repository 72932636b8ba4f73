"""Maps: dense predictions, a number for every place of an image or a sequence, one map an item.

Of the form "outputs": places see each other (windows, areas), so no statistic of a row of scores fits.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.engine.reduction import RowLosses
from margins.engine.sources import at_least_float32, checked, full_precision
from margins.errors import MarginsError, describe, values_are_readable
from margins.losses.forms.base import Loss

MapLink = Literal["sigmoid", "identity"]
"""How maps become predictions: "sigmoid" for logits, "identity" for maps that are in [0, 1] already."""


class MapsLoss(Loss):
    """A loss of maps and the maps that they should be, map by map; the reduction is over maps.

    Args:
        link: what the maps are, "sigmoid" for logits or "identity" for numbers in [0, 1]; never guessed.
        reduction: see `margins.engine.reduction`; a map counts when a place of it is known and it has what
            the loss needs.
    """

    form = "outputs"
    needs_positives: ClassVar[bool] = False

    def __init__(self, *, link: MapLink, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        if link not in get_args(MapLink):
            raise MarginsError("link", expected=f"one of {get_args(MapLink)}", received=repr(link))
        self.link: MapLink = link

    @abstractmethod
    def per_map(
        self,
        maps: Float[Tensor, "maps channels *space"],
        targets: Float[Tensor, "maps channels *space"],
        known: Float[Tensor, "maps channels *space"],
    ) -> Float[Tensor, " maps"]:
        """The loss of each map; all come checked, in float32 at least, `known` as 0 and 1."""

    def predicted(self, maps: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The maps as numbers in [0, 1]."""
        return torch.sigmoid(maps) if self.link == "sigmoid" else maps

    def forward(
        self,
        maps: Float[Tensor, "maps channels *space"],
        targets: Float[Tensor, "maps channels *space"],
        *,
        known: Bool[Tensor, "maps channels *space"] | None = None,
        weight: Float[Tensor, " maps"] | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced loss.

        Args:
            maps: [B, C, T] or [B, C, H, W]: logits or numbers in [0, 1], as `link` says.
            targets: of the same shape, in [0, 1].
            known: of the same shape; False at places that do not count, such as padding.
            weight: [B] >= 0, of maps.
            denominator: divisor to use instead of this batch's own.
        """
        with full_precision(maps.device):
            return self.rows(maps, targets, known=known, weight=weight).reduce(self.reduction, denominator)

    def rows(
        self,
        maps: Float[Tensor, "maps channels *space"],
        targets: Float[Tensor, "maps channels *space"],
        *,
        known: Bool[Tensor, "maps channels *space"] | None = None,
        weight: Float[Tensor, " maps"] | None = None,
    ) -> RowLosses:
        """Losses of maps with all that a reduction needs."""
        check_maps(maps, targets, known=known, weight=weight)
        own = checked("maps", at_least_float32(maps))
        if self.link == "identity":
            _check_unit("maps", own)
        wanted = targets.to(own.dtype)
        here = torch.ones_like(wanted) if known is None else known.to(own.dtype)
        values = self.per_map(own, wanted, here)
        counts = (wanted * here if self.needs_positives else here).flatten(1).sum(1) > 0
        return RowLosses(torch.where(counts, values, 0.0), counts=counts, weight=weight)


def check_maps(maps: Tensor, targets: Tensor, *, known: Tensor | None, weight: Tensor | None) -> None:
    """Raises MarginsError for maps, targets, masks or weights that do not fit each other."""
    if maps.ndim < 3 or not maps.is_floating_point():
        raise MarginsError(
            "maps", expected="[B, C, T] or [B, C, H, W] floats", received=describe(maps),
            fix="one channel without its axis: maps[:, None]" if maps.is_floating_point() else "",
        )  # fmt: skip
    if targets.shape != maps.shape or not targets.is_floating_point():
        raise MarginsError(
            "targets", expected=f"{list(maps.shape)} floats, as the maps", received=describe(targets),
            fix="masks of 0 and 1: targets.float()",
        )  # fmt: skip
    if targets.device != maps.device:
        raise MarginsError("targets", expected=f"targets on {maps.device}", received=f"{targets.device}")
    _check_unit("targets", targets)
    if known is not None and (known.shape != maps.shape or known.dtype != torch.bool):
        raise MarginsError(
            "known", expected=f"a mask {list(maps.shape)}, as the maps", received=describe(known),
            fix="known.expand_as(maps)",
        )  # fmt: skip
    if weight is not None and tuple(weight.shape) != (maps.shape[0],):
        raise MarginsError("weight", expected=f"[B] = [{maps.shape[0]}]", received=describe(weight))


def _check_unit(name: str, values: Tensor) -> None:
    if not values_are_readable(values) or values.numel() == 0:
        return
    low, high = (float(x) for x in torch.aminmax(values.detach()))
    if not (low >= 0 and high <= 1):
        raise MarginsError(
            name, expected="numbers in [0, 1]", received=f"values from {low:g} to {high:g}",
            fix="logits go with link='sigmoid'" if name == "maps" else "",
        )  # fmt: skip
