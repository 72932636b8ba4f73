"""Transformations of targets: each returns new ones and leaves the old as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.errors import MarginsError, describe, values_are_readable
from margins.targets import checks
from margins.targets.columns import Columns
from margins.targets.composed import Appended, Mixed
from margins.targets.fields import as_field, combined, rows_of, stacked
from margins.targets.reading import Margins, ReadTargets
from margins.targets.storage import map_tensors

Domain = Literal["all", "positives", "negatives"]
Own = TypeVar("Own", bound="TransformedTargets")


@dataclass(frozen=True, eq=False, repr=False)
class TransformedTargets(ReadTargets):
    """Mixing, smoothing, ignoring, weighing, margins, appending, taking rows, joining, moving."""

    @property
    def parts(self) -> tuple[tuple[TransformedTargets, Tensor], ...]:
        """What `mix` was given, each with its share [B, 1]; itself with share 1 when nothing was mixed."""
        if isinstance(self.storage, Mixed):
            return (self.storage.first, self.storage.share), (self.storage.second, 1 - self.storage.share)
        return ((self, torch.ones(self.num_anchors, 1, device=self.device)),)

    def mix(self: Own, other: Own, share: Float[Tensor, " anchors"] | float) -> Own:
        """Share * self + (1 - share) * other (mixup and its relatives); `parts` keeps both and the share.

        Args:
            other: targets of the mixing partners, same shape.
            share: in [0, 1], one number or [B].
        """
        self._check_same("mix(other)", other, axes="both")
        column = torch.as_tensor(share, device=self.device)
        column = column if column.is_floating_point() else column.to(torch.get_default_dtype())
        if column.ndim > 1 or (column.ndim == 1 and column.shape[0] != self.num_anchors):
            raise MarginsError(
                "share", expected=f"a number or [B] = [{self.num_anchors}]", received=describe(column)
            )
        if values_are_readable(column) and not bool(((column >= 0) & (column <= 1)).all()):
            raise MarginsError("share", expected="values in [0, 1]", received=f"{column.tolist()}")
        column = column.reshape(-1, 1).expand(self.num_anchors, 1)
        first, second = replace(self, row_weight=None), replace(other, row_weight=None)
        mixed = Mixed(first, second, column)
        weights = self.row_weight, other.row_weight
        if weights[0] is None and weights[1] is None:
            return type(self)(mixed)
        ones = torch.ones(self.num_anchors, device=self.device)
        both_weights = (ones[:, None] if w is None else w[:, None] for w in weights)
        first_weight, second_weight = both_weights
        # Weight 0 is no target: a row ignored in a part is ignored, unless that part has no share in it.
        gone = ((first_weight == 0) & (column > 0)) | ((second_weight == 0) & (column < 1))
        blended = mixed.blend(first_weight, second_weight).masked_fill(gone, 0.0)
        return type(self)(mixed, row_weight=blended[:, 0])

    def smooth(self: Own, amount: float) -> Own:
        """Moves a share of the target onto all known entries evenly, as label smoothing does.

        No entry becomes positive by it. Grade = (1 - amount) * grade + amount / number of known entries.

        Args:
            amount: in [0, 1).
        """
        if not 0 <= amount < 1:
            raise MarginsError("smooth(amount)", expected="in [0, 1)", received=f"{amount}")
        if not self.storage.has_positives:
            raise MarginsError("smooth", expected="targets with positives", received="real values")
        return replace(self, smoothing=1 - (1 - self.smoothing) * (1 - amount))

    def ignore(
        self: Own,
        *,
        rows: Bool[Tensor, " anchors"] | None = None,
        candidates: Bool[Tensor, " candidates"] | None = None,
        entries: Bool[Tensor, "anchors candidates"] | None = None,
    ) -> Own:
        """Declares rows, columns or entries unknown where the mask is True.

        An unknown entry takes part in no sum, count or maximum; a row ignored whole does not count.
        """
        mask = as_field("ignore", self.shape, rows=rows, candidates=candidates, entries=entries)
        if mask.dtype != torch.bool:
            raise MarginsError("ignore", expected="a boolean mask", received=describe(mask))
        if rows is not None:
            return self.weigh(rows=(~rows).to(torch.get_default_dtype()))
        return replace(self, unknown=combined(self.unknown, mask, torch.logical_or))

    def weigh(
        self: Own,
        *,
        rows: Float[Tensor, " anchors"] | None = None,
        candidates: Float[Tensor, " candidates"] | None = None,
        entries: Float[Tensor, "anchors candidates"] | None = None,
    ) -> Own:
        """Multiplies the weight of rows, columns or entries; weight 0 means unknown.

        A row weight multiplies the row's loss. An entry weight multiplies its term in a sum and its
        exponential in a logsumexp.
        """
        weight = as_field("weigh", self.shape, rows=rows, candidates=candidates, entries=entries)
        if weight.dtype == torch.bool:
            raise MarginsError(
                "weigh", expected="numbers >= 0", received=describe(weight), fix="masks: .ignore(rows=~mask)"
            )
        checks.check_not_negative("weigh", weight)
        if rows is not None:
            return replace(self, row_weight=combined(self.row_weight, rows, torch.mul))
        return replace(self, entry_weight=combined(self.entry_weight, weight, torch.mul))

    def weigh_classes(self: Own, class_weight: Float[Tensor, " candidates"]) -> Own:
        """Weighs each row by the weight of its class: the mean of several by grade, 1 for none."""
        field_of_class = as_field("class_weight", self.shape, candidates=class_weight)
        checks.check_not_negative("class_weight", field_of_class)
        listed = self.positives()
        terms = listed.values * class_weight[listed.columns]
        total = terms.new_zeros(self.num_anchors).index_add(0, listed.rows, terms)
        mass = listed.values.new_zeros(self.num_anchors).index_add(0, listed.rows, listed.values)
        return self.weigh(rows=torch.where(mass > 0, total / mass.clamp(min=1e-30), 1.0))

    def margin(
        self: Own,
        *,
        rows: Float[Tensor, " anchors"] | None = None,
        candidates: Float[Tensor, " candidates"] | None = None,
        entries: Float[Tensor, "anchors candidates"] | None = None,
        on: Domain = "all",
    ) -> Own:
        """A margin that is subtracted from the scores before the loss; a second call adds to the first.

        Args:
            rows: one margin a row; candidates: one a column; entries: one an entry. Exactly one of them.
            candidates: see rows. `candidates=-tau * log_prior` is logit adjustment.
            entries: see rows.
            on: which entries it is subtracted from.
        """
        value = as_field("margin", self.shape, rows=rows, candidates=candidates, entries=entries)
        checks.check_finite("margin", value)
        if on not in ("all", "positives", "negatives"):
            raise MarginsError("margin(on=)", expected="'all', 'positives' or 'negatives'", received=repr(on))
        joined = combined(getattr(self.margins, on), value, torch.add)
        return replace(self, margins=replace(self.margins, **{on: joined}))

    def append(self: Own, more: Own) -> Own:
        """The candidates of `more` after one's own, for the same anchors (mined negatives, a queue)."""
        self._check_same("append(more)", more, axes="anchors")
        if more.row_weight is not None:
            raise MarginsError(
                "append(more)", expected="columns without row weights", received="row weights",
                fix="weigh the rows after appending",
            )  # fmt: skip
        return type(self)(Appended((replace(self, row_weight=None), more)), row_weight=self.row_weight)

    def take(self: Own, rows: Tensor | slice) -> Own:
        """Some anchors: an index tensor (repeats allowed), a boolean mask or a slice."""
        num_anchors = self.num_anchors
        index = (
            torch.arange(num_anchors, device=self.device)[rows]
            if isinstance(rows, slice)
            else checks.index_of("rows", rows, num_anchors)
        )
        margins = (rows_of(f, index, num_anchors) for f in self.margins.fields())
        return type(self)(
            self.storage.take(index),
            row_weight=None if self.row_weight is None else self.row_weight[index],
            unknown=rows_of(self.unknown, index, num_anchors),
            entry_weight=rows_of(self.entry_weight, index, num_anchors),
            margins=Margins(*margins),
            smoothing=self.smoothing,
        )

    __getitem__ = take

    def between(self: Own, start: int, stop: int) -> Own:
        """Consecutive anchors, as `take` gives them, but without a copy of matrices."""
        num_anchors = self.num_anchors

        def cut(field: Tensor | None) -> Tensor | None:
            if field is None or (field.shape[0] == 1 and num_anchors != 1):
                return field
            return field[start:stop]

        return type(self)(
            self.storage.between(start, stop),
            row_weight=None if self.row_weight is None else self.row_weight[start:stop],
            unknown=cut(self.unknown),
            entry_weight=cut(self.entry_weight),
            margins=Margins(*(cut(f) for f in self.margins.fields())),
            smoothing=self.smoothing,
        )

    def columns(self: Own, start: int, stop: int) -> Own:
        """A view of candidates start to stop, for the same anchors; whole rows still decide what they did.

        Smoothing spreads over the row's known entries in all columns, and rows keep their weights.

        Args:
            start: first column, at least 0.
            stop: one past the last, at most C; equal to start for no columns.
        """
        if not 0 <= start <= stop <= self.num_candidates:
            raise MarginsError(
                "columns(start, stop)",
                expected=f"0 <= start <= stop <= C = {self.num_candidates}",
                received=f"{start}, {stop}",
            )
        return type(self)(Columns(self, start, stop), row_weight=self.row_weight)

    @classmethod
    def cat(cls: type[Own], parts: Sequence[Own]) -> Own:
        """The anchors of all parts, one after the other, over the same candidates."""
        if not parts:
            raise MarginsError("parts", expected="at least one Targets", received="none")
        kinds = {type(p.storage) for p in parts}
        if (
            len(kinds) > 1
            or len({p.num_candidates for p in parts}) > 1
            or len({p.smoothing for p in parts}) > 1
        ):
            raise MarginsError(
                "parts",
                expected="the same kind of targets, number of candidates and smoothing",
                received=", ".join(repr(p) for p in parts),
            )
        heights = [p.num_anchors for p in parts]
        weights = stacked(
            [None if p.row_weight is None else p.row_weight[:, None] for p in parts], heights, 1.0
        )
        by_domain = zip(*(p.margins.fields() for p in parts), strict=True)
        return cls(
            parts[0].storage.cat([p.storage for p in parts]),
            row_weight=None if weights is None else weights[:, 0],
            unknown=stacked([p.unknown for p in parts], heights, False),
            entry_weight=stacked([p.entry_weight for p in parts], heights, 1.0),
            margins=Margins(*(stacked(fields, heights, 0.0) for fields in by_domain)),
            smoothing=parts[0].smoothing,
        )

    def map_tensors(self: Own, function: Callable[[Tensor], Tensor]) -> Own:
        """A copy with `function` applied to every tensor inside."""
        return map_tensors(self, function)

    def to(self: Own, device: torch.device | str, *, non_blocking: bool = False) -> Own:
        """A copy on another device."""
        return self.map_tensors(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self: Own) -> Own:
        """A copy in page-locked memory, for data loaders."""
        return self.map_tensors(lambda t: t.pin_memory())

    def _check_same(self: Own, name: str, other: Own, *, axes: Literal["both", "anchors"]) -> None:
        same = self.shape == other.shape if axes == "both" else self.num_anchors == other.num_anchors
        if not same:
            wanted = list(self.shape) if axes == "both" else [self.num_anchors, "C"]
            raise MarginsError(name, expected=f"targets of shape {wanted}", received=repr(other))
