"""`Targets`: the second of the two objects on which every loss is defined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.errors import MarginsError, describe, values_are_readable
from margins.targets import checks
from margins.targets.composed import Appended, Mixed, both
from margins.targets.dense import DenseGrades, Matches, TreeGrades, Values
from margins.targets.fields import as_field, columns_of, combined, entries_of, rows_of, stacked
from margins.targets.storage import (
    ClassIndex,
    Paired,
    Positives,
    SparseRows,
    Storage,
    column_blocks,
    count_known,
    count_positives,
    map_tensors,
)

if TYPE_CHECKING:
    from margins.taxonomy import Taxonomy

Domain = Literal["all", "positives", "negatives"]


class TargetBlock(NamedTuple):
    """Some columns of a targets matrix, written out. None stands for all known, all 1, all 0."""

    grades: Float[Tensor, "anchors block"]
    known: Bool[Tensor, "anchors block"] | None
    weight: Float[Tensor, "anchors block"] | None
    margin: Float[Tensor, "anchors block"] | None


@dataclass(frozen=True, eq=False)
class Margins:
    """Margins by the entries they are subtracted from; each a field."""

    all: Tensor | None = None  # noqa: A003
    positives: Tensor | None = None
    negatives: Tensor | None = None

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Margins:
        """A copy with `function` applied to every tensor."""
        return map_tensors(self, function)

    def fields(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The three fields: all, positives, negatives."""
        return self.all, self.positives, self.negatives


@dataclass(frozen=True, eq=False, repr=False)
class Targets:
    """Which candidates each anchor should score high, how strongly, what is unknown, what weighs how much.

    Immutable; shape (anchors, candidates). Build one with a constructor `of_...`, refine it by the
    transformations, each of which returns a new `Targets`. A loss also takes a plain `LongTensor[B]` or
    `FloatTensor[B, C]` with the meaning that torch gives it; `Targets` is for everything beyond that.

    Example:
        >>> targets = Targets.of_classes(torch.tensor([2, 0]), num_classes=3)
        >>> targets.block(0, 3).grades
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
        >>> targets.smooth(0.3).block(0, 3).grades
        tensor([[0.1000, 0.1000, 0.8000],
                [0.8000, 0.1000, 0.1000]])
    """

    storage: Storage
    row_weight: Float[Tensor, " anchors"] | None = None
    unknown: Tensor | None = None
    entry_weight: Tensor | None = None
    margins: Margins = field(default_factory=Margins)
    smoothing: float = 0.0

    # ------------------------------------------------------------------ constructors

    @classmethod
    def of_classes(cls, labels: Tensor, num_classes: int, *, ignore_index: int = -100) -> Targets:
        """One class a row.

        Args:
            labels: [B] integers in [0, num_classes), or `ignore_index` for a row without a target.
            num_classes: C, at least 1.
            ignore_index: a negative number, as in `torch.nn.functional.cross_entropy`.

        Raises:
            MarginsError: wrong shape or dtype, or a label out of range.
        """
        checks.check_labels("labels", labels)
        if ignore_index >= 0:
            raise MarginsError(
                "ignore_index",
                expected="a negative number",
                received=str(ignore_index),
                fix="to leave out rows of a class, call .ignore(rows=labels == c)",
            )
        checks.check_range("labels", labels, num_classes, ignored=ignore_index)
        may_ignore = not values_are_readable(labels) or bool((labels < 0).any())
        return cls(ClassIndex(labels.long(), num_classes, may_ignore))

    @classmethod
    def of_label_sets(
        cls, label_sets: Sequence[Sequence[int]] | tuple[Tensor, Tensor], num_classes: int
    ) -> Targets:
        """Several labels a row, held sparsely.

        Args:
            label_sets: a list of lists of label numbers in [0, num_classes), or compressed rows: a pair
                (offsets [B + 1], columns [number of labels]) of integer tensors. A row may be empty.
            num_classes: C.

        Raises:
            MarginsError: a label out of range, or twice in one row.
        """
        if isinstance(label_sets, tuple) and len(label_sets) == 2 and isinstance(label_sets[0], Tensor):
            offsets, columns = cast("tuple[Tensor, Tensor]", label_sets)
        else:
            rows = cast("Sequence[Sequence[int]]", label_sets)
            offsets = torch.tensor([0, *[len(r) for r in rows]]).cumsum(0)
            columns = torch.tensor([c for r in rows for c in r], dtype=torch.long)
        checks.check_labels("label_sets", columns, dims="[number of labels]")
        checks.check_labels("offsets", offsets, dims="[B + 1]")
        checks.check_range("label_sets", columns, num_classes)
        _check_offsets(offsets, columns)
        ones = torch.ones(columns.shape, device=columns.device)
        raw = SparseRows(offsets.long(), columns.long(), ones, num_classes)
        merged = SparseRows.from_positives(raw.positives(), raw.num_anchors, num_classes)
        if merged.columns.shape != columns.shape:
            raise MarginsError("label_sets", expected="each label once in a row", received="a label twice")
        return cls(merged)

    @classmethod
    def of_scores(cls, grades: Tensor) -> Targets:
        """Soft, distilled, multi-hot or graded labels: [B, C] floats >= 0, 0 = not positive.

        Raises:
            MarginsError: not a float matrix, non-finite or negative.
        """
        checks.check_matrix("grades", grades, "[B, C]")
        return cls(DenseGrades(grades, checks.check_not_negative("grades", grades)))

    @classmethod
    def of_matches(
        cls,
        anchor_labels: Tensor,
        candidate_labels: Tensor | None = None,
        *,
        same_items: Tensor | None = None,
    ) -> Targets:
        """Anchor and candidate match when their labels are equal (metric learning).

        Args:
            anchor_labels: [B] integers.
            candidate_labels: [C] integers; None when the candidates are the anchors themselves, and then
                each anchor is unknown to itself.
            same_items: [B] column of the anchor itself among the candidates, -1 when it is not there.
        """
        checks.check_labels("anchor_labels", anchor_labels)
        if candidate_labels is None:
            candidate_labels = anchor_labels
            if same_items is None:
                same_items = torch.arange(anchor_labels.shape[0], device=anchor_labels.device)
        checks.check_labels("candidate_labels", candidate_labels, dims="[C]")
        if same_items is not None:
            checks.check_labels("same_items", same_items)
            if same_items.shape != anchor_labels.shape:
                raise MarginsError(
                    "same_items", expected=f"[B] = {list(anchor_labels.shape)}", received=describe(same_items)
                )
            checks.check_range("same_items", same_items, candidate_labels.shape[0], ignored=-1)
        return cls(Matches(anchor_labels, candidate_labels, same_items))

    @classmethod
    def of_pairs(
        cls,
        num_pairs: int,
        *,
        extra: int = 0,
        item_ids: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Targets:
        """Anchor i belongs to candidate i; every other candidate is a negative.

        Args:
            num_pairs: B.
            extra: number of negatives appended after the B paired candidates (mined ones, a queue).
            item_ids: [B + extra] integers naming each candidate's item, so that a duplicate of the
                anchor's own item elsewhere is unknown, not a false negative.
            device: where to build it; that of `item_ids` when they are given.
        """
        if num_pairs < 0 or extra < 0:
            raise MarginsError("num_pairs, extra", expected=">= 0", received=f"{num_pairs}, {extra}")
        if item_ids is not None:
            checks.check_labels("item_ids", item_ids, dims="[B + extra]")
            if item_ids.shape[0] != num_pairs + extra:
                raise MarginsError(
                    "item_ids", expected=f"[B + extra] = [{num_pairs + extra}]", received=describe(item_ids)
                )
            device = item_ids.device
        partners = torch.arange(num_pairs, device=device)
        anchor_ids = None if item_ids is None else item_ids[:num_pairs]
        return cls(Paired(partners, num_pairs + extra, anchor_ids, item_ids))

    @classmethod
    def of_taxonomy(
        cls, labels: Tensor, taxonomy: Taxonomy, *, decay: float = 0.5, radius: int = 2
    ) -> Targets:
        """Every node of a taxonomy is a candidate, graded by its nearness: decay ** distance.

        For "all ancestors are labels too" use `of_label_sets(taxonomy.ancestor_sets(labels), ...)`.

        Args:
            labels: [B] node numbers.
            taxonomy: tree or directed acyclic graph of labels.
            decay: in (0, 1].
            radius: nodes further away than this many steps have grade 0.
        """
        if not 0 < decay <= 1 or radius < 0:
            raise MarginsError(
                "decay, radius", expected="decay in (0, 1], radius >= 0", received=f"{decay}, {radius}"
            )
        checks.check_labels("labels", labels)
        checks.check_range("labels", labels, taxonomy.num_nodes)
        ids, steps = taxonomy.ancestor_table
        return cls(TreeGrades(labels.long(), ids.to(labels.device), steps.to(labels.device), decay, radius))

    @classmethod
    def of_values(cls, values: Tensor) -> Targets:
        """Real values to be met by the scores (regression): [B] or [B, C] finite floats."""
        matrix = values[:, None] if values.ndim == 1 else values
        checks.check_matrix("values", matrix, "[B, C]")
        checks.check_finite("values", matrix)
        return cls(Values(matrix))

    # ------------------------------------------------------------------ shape

    @property
    def num_anchors(self) -> int:
        """B, the number of rows."""
        return self.storage.num_anchors

    @property
    def num_candidates(self) -> int:
        """C, the number of columns."""
        return self.storage.num_candidates

    @property
    def shape(self) -> tuple[int, int]:
        """(anchors, candidates)."""
        return self.num_anchors, self.num_candidates

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.storage.device

    @property
    def is_sparse(self) -> bool:
        """Whether the positives are listed at a cost of their number, with grade 0 everywhere else."""
        return self.storage.is_sparse and self.smoothing == 0

    @property
    def has_one_positive(self) -> bool:
        """Whether every known row has exactly one positive of grade 1, all entries known, all weights 1."""
        plain = self.unknown is None and self.entry_weight is None and self.smoothing == 0
        return plain and self.storage.has_one_positive

    @property
    def parts(self) -> tuple[tuple[Targets, Tensor], ...]:
        """What `mix` was given, each with its share [B, 1]; itself with share 1 when nothing was mixed."""
        if isinstance(self.storage, Mixed):
            return (self.storage.first, self.storage.share), (self.storage.second, 1 - self.storage.share)
        return ((self, torch.ones(self.num_anchors, 1, device=self.device)),)

    def __len__(self) -> int:
        return self.num_anchors

    def __repr__(self) -> str:
        layers = [n for n in ("row_weight", "unknown", "entry_weight") if getattr(self, n) is not None]
        layers += [f"margin on {d}" for d, m in vars(self.margins).items() if m is not None]
        layers += [f"smoothing {self.smoothing:g}"] if self.smoothing else []
        extra = f" with {', '.join(layers)}" if layers else ""
        return f"Targets[{self.num_anchors} x {self.num_candidates}, {type(self.storage).__name__}{extra}]"

    # ------------------------------------------------------------------ what evaluators call

    def block(self, start: int, stop: int) -> TargetBlock:
        """Grades, known-mask, weight and margin of columns start to stop."""
        return TargetBlock(
            self.grades(start, stop),
            self.known(start, stop),
            self.weight_of(start, stop),
            self.margin_of(start, stop),
        )

    def positives(self) -> Positives:
        """Every positive entry: rows ascending, columns, grades. Unknown entries are listed too."""
        listed = self.storage.positives()
        if self.smoothing == 0:
            return listed
        return listed._replace(values=self.grades_at(listed.rows, listed.columns))

    def grades(
        self, start: int, stop: int, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "anchors block"]:
        """Strength of each entry of the columns, smoothing included, computed in `dtype`."""
        grades = self.storage.grades(start, stop)
        grades = grades if dtype is None else grades.to(dtype)
        if self.smoothing == 0:
            return grades
        return (1 - self.smoothing) * grades + self._background(grades.dtype)

    def grades_at(
        self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Strength of single entries, smoothing included."""
        grades = self.storage.grades_at(rows, columns)
        if self.smoothing == 0:
            return grades
        return (1 - self.smoothing) * grades + self._background(grades.dtype)[rows, 0]

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        """Which entries are positive; smoothing makes none positive that was not."""
        return self.storage.positive(start, stop)

    def positive_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which single entries are positive."""
        return self.storage.positive_at(rows, columns)

    def known(self, start: int, stop: int) -> Bool[Tensor, "anchors block"] | None:
        """Which entries are known: not ignored, weight above 0; None when all are."""
        unknown, weight = columns_of(self.unknown, start, stop), columns_of(self.entry_weight, start, stop)
        return both(
            self.storage.known(start, stop),
            None if unknown is None else ~unknown,
            None if weight is None else weight > 0,
        )

    def known_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        """Which single entries are known; None when all are."""
        unknown, weight = entries_of(self.unknown, rows, columns), entries_of(self.entry_weight, rows, columns)
        return both(
            self.storage.known_at(rows, columns),
            None if unknown is None else ~unknown,
            None if weight is None else weight > 0,
        )

    def weight_of(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        """Entry weights of the columns; None when all are 1."""
        own = columns_of(self.entry_weight, start, stop)
        return combined(self.storage.weight(start, stop), own, torch.mul)

    def weight_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        """Weights of single entries; None when all are 1."""
        own = entries_of(self.entry_weight, rows, columns)
        return combined(self.storage.weight_at(rows, columns), own, torch.mul)

    def margin_of(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        """Margins to subtract from the scores of the columns; None when all are 0."""
        everywhere, positives, negatives = (columns_of(f, start, stop) for f in self.margins.fields())
        total = combined(self.storage.margin(start, stop), everywhere, torch.add)
        if positives is not None or negatives is not None:
            total = _add_by_domain(total, self.positive(start, stop), positives, negatives)
        return total

    def margin_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        """Margins of single entries; None when all are 0."""
        everywhere, positives, negatives = (entries_of(f, rows, columns) for f in self.margins.fields())
        total = combined(self.storage.margin_at(rows, columns), everywhere, torch.add)
        if positives is not None or negatives is not None:
            total = _add_by_domain(total, self.positive_at(rows, columns), positives, negatives)
        return total

    def known_rows(self) -> Bool[Tensor, " anchors"] | None:
        """Rows that have a target and a weight above 0; None when all do."""
        weighty = None if self.row_weight is None else self.row_weight > 0
        return both(self.storage.known_rows(), weighty)

    def num_known(self) -> Int[Tensor, " anchors"]:
        """Known entries of each row."""
        if self.unknown is None and self.entry_weight is None:
            return self.storage.num_known()
        return count_known(self)

    def num_positives(self) -> Int[Tensor, " anchors"]:
        """Known positive entries of each row."""
        if self.unknown is None and self.entry_weight is None:
            return self.storage.num_positives()
        return count_positives(self)

    def mass(self, dtype: torch.dtype | None = None) -> Float[Tensor, " anchors"]:
        """Sum of weight * grade over the known entries of each row."""
        if self.is_sparse:
            rows, columns, values = self.positives()
            if self.has_one_positive:
                return values
            terms = self._counted(values, self.weight_at(rows, columns), self.known_at(rows, columns))
            return terms.new_zeros(self.num_anchors).index_add(0, rows, terms)
        if isinstance(self.storage, Matches) and self.unknown is None and self.entry_weight is None:
            return self.num_positives().to(torch.get_default_dtype())
        return self._block_sums(lambda start, stop: self.grades(start, stop, dtype))

    def known_weight(self) -> Float[Tensor, " anchors"]:
        """Sum of the weights of the known entries of each row: their number when all weights are 1."""
        if self.weight_of(0, 0) is None:
            return self.num_known().to(torch.get_default_dtype())
        return self._block_sums(lambda start, stop: torch.ones(1, stop - start, device=self.device))

    def _block_sums(self, read: Callable[[int, int], Tensor]) -> Float[Tensor, " anchors"]:
        total: Tensor = torch.zeros((), device=self.device)
        for start, stop in column_blocks(self.num_candidates):
            block = self._counted(read(start, stop), self.weight_of(start, stop), self.known(start, stop))
            total = block.expand(self.num_anchors, stop - start).sum(1) + total
        return total

    @staticmethod
    def _counted(values: Tensor, weight: Tensor | None, known: Tensor | None) -> Tensor:
        weighted = values if weight is None else values * weight
        return weighted if known is None else torch.where(known, weighted, 0.0)

    def _background(self, dtype: torch.dtype) -> Float[Tensor, "anchors 1"]:
        return self.smoothing / self.num_known().clamp(min=1)[:, None].to(dtype)

    # ------------------------------------------------------------------ transformations

    def mix(self, other: Targets, share: Float[Tensor, " anchors"] | float) -> Targets:
        """share * self + (1 - share) * other (mixup and its relatives); `parts` keeps both and the share.

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
        if values_are_readable(column) and bool(((column < 0) | (column > 1)).any()):
            raise MarginsError("share", expected="values in [0, 1]", received=f"{column.tolist()}")
        column = column.reshape(-1, 1).expand(self.num_anchors, 1)
        first, second = replace(self, row_weight=None), replace(other, row_weight=None)
        mixed = Mixed(first, second, column)
        weights = self.row_weight, other.row_weight
        if weights[0] is None and weights[1] is None:
            return Targets(mixed)
        ones = torch.ones(self.num_anchors, device=self.device)
        both_weights = (ones[:, None] if w is None else w[:, None] for w in weights)
        return Targets(mixed, row_weight=mixed.blend(*both_weights)[:, 0])

    def smooth(self, amount: float) -> Targets:
        """Moves a share of the target onto all known entries evenly, as label smoothing does.

        No entry becomes positive by it. Grade = (1 - amount) * grade + amount / number of known entries.

        Args:
            amount: in [0, 1).
        """
        if not 0 <= amount < 1:
            raise MarginsError("smooth(amount)", expected="in [0, 1)", received=f"{amount}")
        if isinstance(self.storage, Values):
            raise MarginsError("smooth", expected="targets with positives", received="real values")
        return replace(self, smoothing=1 - (1 - self.smoothing) * (1 - amount))

    def ignore(
        self,
        *,
        rows: Bool[Tensor, " anchors"] | None = None,
        candidates: Bool[Tensor, " candidates"] | None = None,
        entries: Bool[Tensor, "anchors candidates"] | None = None,
    ) -> Targets:
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
        self,
        *,
        rows: Float[Tensor, " anchors"] | None = None,
        candidates: Float[Tensor, " candidates"] | None = None,
        entries: Float[Tensor, "anchors candidates"] | None = None,
    ) -> Targets:
        """Multiplies the weight of rows, columns or entries; weight 0 means unknown.

        A row weight multiplies the row's loss. An entry weight multiplies its term in a sum and its
        exponential in a logsumexp.
        """
        weight = as_field("weigh", self.shape, rows=rows, candidates=candidates, entries=entries)
        checks.check_not_negative("weigh", weight)
        if rows is not None:
            return replace(self, row_weight=combined(self.row_weight, rows, torch.mul))
        return replace(self, entry_weight=combined(self.entry_weight, weight, torch.mul))

    def weigh_classes(self, class_weight: Float[Tensor, " candidates"]) -> Targets:
        """Weighs each row by the weight of its class; the mean over its grades when it has several."""
        field_of_class = as_field("class_weight", self.shape, candidates=class_weight)
        checks.check_not_negative("class_weight", field_of_class)
        listed = self.positives()
        zeros = torch.zeros(self.num_anchors, device=self.device)
        total = zeros.index_add(0, listed.rows, listed.values * class_weight[listed.columns])
        mass = zeros.index_add(0, listed.rows, listed.values)
        return self.weigh(rows=torch.where(mass > 0, total / mass.clamp(min=1e-30), 0.0))

    def margin(
        self,
        *,
        rows: Float[Tensor, " anchors"] | None = None,
        candidates: Float[Tensor, " candidates"] | None = None,
        entries: Float[Tensor, "anchors candidates"] | None = None,
        on: Domain = "all",
    ) -> Targets:
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

    def append(self, more: Targets) -> Targets:
        """The candidates of `more` after one's own, for the same anchors (mined negatives, a queue)."""
        self._check_same("append(more)", more, axes="anchors")
        if more.row_weight is not None:
            raise MarginsError(
                "append(more)", expected="columns without row weights", received="row weights",
                fix="weigh the rows after appending",
            )  # fmt: skip
        return Targets(Appended((replace(self, row_weight=None), more)), row_weight=self.row_weight)

    def take(self, rows: Tensor | slice) -> Targets:
        """Some anchors: an index tensor (repeats allowed), a boolean mask or a slice."""
        if isinstance(rows, slice):
            index = torch.arange(self.num_anchors, device=self.device)[rows]
        elif rows.dtype == torch.bool:
            index = rows.nonzero()[:, 0]
        else:
            index = rows
        num_anchors = self.num_anchors
        margins = (rows_of(f, index, num_anchors) for f in self.margins.fields())
        return Targets(
            self.storage.take(index),
            row_weight=None if self.row_weight is None else self.row_weight[index],
            unknown=rows_of(self.unknown, index, num_anchors),
            entry_weight=rows_of(self.entry_weight, index, num_anchors),
            margins=Margins(*margins),
            smoothing=self.smoothing,
        )

    __getitem__ = take

    @classmethod
    def cat(cls, parts: Sequence[Targets]) -> Targets:
        """The anchors of all parts, one after the other, over the same candidates."""
        if not parts:
            raise MarginsError("parts", expected="at least one Targets", received="none")
        kinds = {type(p.storage) for p in parts}
        if len(kinds) > 1 or len({p.num_candidates for p in parts}) > 1 or len({p.smoothing for p in parts}) > 1:
            raise MarginsError(
                "parts",
                expected="the same kind of targets, number of candidates and smoothing",
                received=", ".join(repr(p) for p in parts),
            )
        heights = [p.num_anchors for p in parts]
        weights = stacked([None if p.row_weight is None else p.row_weight[:, None] for p in parts], heights, 1.0)
        by_domain = zip(*(p.margins.fields() for p in parts), strict=True)
        return cls(
            parts[0].storage.cat([p.storage for p in parts]),
            row_weight=None if weights is None else weights[:, 0],
            unknown=stacked([p.unknown for p in parts], heights, False),
            entry_weight=stacked([p.entry_weight for p in parts], heights, 1.0),
            margins=Margins(*(stacked(fields, heights, 0.0) for fields in by_domain)),
            smoothing=parts[0].smoothing,
        )

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Targets:
        """A copy with `function` applied to every tensor inside."""
        return map_tensors(self, function)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Targets:
        """A copy on another device."""
        return self.map_tensors(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Targets:
        """A copy in page-locked memory, for data loaders."""
        return self.map_tensors(lambda t: t.pin_memory())

    def _check_same(self, name: str, other: Targets, *, axes: Literal["both", "anchors"]) -> None:
        same = self.shape == other.shape if axes == "both" else self.num_anchors == other.num_anchors
        if not same:
            wanted = list(self.shape) if axes == "both" else [self.num_anchors, "C"]
            raise MarginsError(name, expected=f"targets of shape {wanted}", received=repr(other))


def _add_by_domain(
    total: Tensor | None, positive: Tensor, on_positives: Tensor | None, on_negatives: Tensor | None
) -> Tensor:
    zero = torch.zeros((), device=positive.device)
    chosen = torch.where(
        positive,
        zero if on_positives is None else on_positives,
        zero if on_negatives is None else on_negatives,
    )
    return chosen if total is None else total + chosen


def _check_offsets(offsets: Tensor, columns: Tensor) -> None:
    if not values_are_readable(offsets):
        return
    rising = offsets.shape[0] > 0 and bool((offsets.diff() >= 0).all())
    if not rising or int(offsets[0]) != 0 or int(offsets[-1]) != columns.shape[0]:
        raise MarginsError(
            "offsets",
            expected=f"[B + 1] rising integers from 0 to {columns.shape[0]}, the number of labels",
            received=f"{offsets.tolist()[:8]}",
        )
