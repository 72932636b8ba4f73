"""`Targets`: the second of the two objects on which every loss is defined."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from margins.errors import MarginsError, describe, values_are_readable
from margins.targets import checks
from margins.targets.dense import DenseGrades, Matches, TreeGrades, Values
from margins.targets.storage import ClassIndex, Paired, SparseRows
from margins.targets.transforming import TransformedTargets
from margins.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False, repr=False)
class Targets(TransformedTargets):
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
        if isinstance(label_sets, Tensor):
            raise MarginsError(
                "label_sets",
                expected="a list of lists, or (offsets, columns)",
                received=describe(label_sets),
                fix="a multi-hot matrix: Targets.of_scores(matrix.float())",
            )
        if isinstance(label_sets, tuple) and len(label_sets) == 2 and isinstance(label_sets[0], Tensor):
            offsets, columns = cast("tuple[Tensor, Tensor]", label_sets)
        else:
            rows = cast("Sequence[Sequence[int]]", label_sets)
            offsets, columns = _compressed(rows)
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
            if same_items.shape[0] > 0:  # without anchors there may be no candidates either
                checks.check_range("same_items", same_items, candidate_labels.shape[0], ignored=-1)
        same_items = None if same_items is None else same_items.long()
        return cls(Matches(anchor_labels.long(), candidate_labels.long(), same_items))

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
        return cls(TreeGrades(labels.long(), taxonomy, decay, radius))

    @classmethod
    def of_values(cls, values: Tensor) -> Targets:
        """Real values to be met by the scores (regression): [B] or [B, C] finite floats."""
        matrix = values[:, None] if values.ndim == 1 else values
        checks.check_matrix("values", matrix, "[B, C]")
        checks.check_finite("values", matrix)
        return cls(Values(matrix))


def _compressed(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    try:
        offsets = torch.tensor([0, *[len(r) for r in rows]]).cumsum(0)
        listed = [operator.index(c) for r in rows for c in r]
    except TypeError as error:
        raise MarginsError(
            "label_sets", expected="a list of lists of integers", received=str(error),
            fix="one label a row: Targets.of_classes",
        ) from None  # fmt: skip
    return offsets, torch.tensor(listed, dtype=torch.long)


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
