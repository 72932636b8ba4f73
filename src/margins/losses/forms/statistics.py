"""The main form: a loss declared by statistics of a row of scores and a function of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.engine.blocks.blockwise import Blockwise
from margins.engine.evaluators import Dense, Evaluator, Rows, SumOfRows
from margins.engine.reduction import RowLosses, check_denominator, divided
from margins.engine.score_rules import Dot, ScoreRule
from margins.engine.sources import Source, checked, factored, matrix_of
from margins.engine.spherical.evaluator import Spherical
from margins.engine.spherical.source import SphericalSource
from margins.engine.statistics import Program, Stage, Statistic
from margins.errors import MarginsError, describe, values_are_readable
from margins.losses.forms.base import Loss, as_columns, as_targets, check_device, refuse_real_values
from margins.targets import Targets
from margins.targets.checks import check_tensor


class StatisticsLoss(Loss):
    """A loss that is a function of statistics of each row; it runs under every evaluator unchanged.

    A subclass gives `statistics` (or `stages`, when phi needs values of earlier passes) and `row`, and says
    by `needs` what a row must have to count.
    """

    form = "statistics"
    needs: ClassVar[frozenset[str]] = frozenset()
    side_names: ClassVar[tuple[str, ...]] = ()
    score_rule: ClassVar[ScoreRule] = Dot()
    takes_columns: ClassVar[bool] = False
    """Whether one score a row, [B], is a problem of its own: independent labels and regression."""

    def statistics(self) -> Mapping[str, Statistic]:
        """The statistics by name, for a loss of one stage."""
        raise NotImplementedError

    def stages(self) -> Program:
        """The passes over the scores; one, of `statistics`, unless a loss says otherwise."""
        return (Stage(self.statistics()),)

    @abstractmethod
    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The loss of each row from its statistics."""

    def units(self, targets: Targets) -> Float[Tensor, " anchors"] | None:
        """How often a row counts in a mean; once, when None."""
        return None

    def check_targets(self, targets: Targets) -> None:
        """Raises MarginsError for targets that the loss has no meaning for; real values, to begin with."""
        refuse_real_values(targets)

    def initial_rows(self, ids: Tensor | None) -> Mapping[str, Tensor]:
        """Row values kept by row id, for a loss with state."""
        return {}

    def observe(self, z: Rows, ids: Tensor | None, valid: Tensor | None) -> None:
        """Updates the state kept by row id; `valid` says which rows count, None that all do."""

    def forward(
        self,
        scores: Float[Tensor, "anchors *candidates"],
        targets: Targets | Tensor,
        *,
        side: Mapping[str, Tensor] | None = None,
        ids: Int[Tensor, " anchors"] | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced loss of a matrix of scores.

        Args:
            scores: [B, C]; finite.
            targets: [B] class ids, [B, C] floats, or `Targets`.
            side: named blocks beside the scores, each [B, 1], [1, C] or [B, C].
            ids: stable ids of the rows in the training data, for a loss with state.
            denominator: divisor to use instead of this batch's own (the trainer's, of a whole step).
        """
        return self.rows(scores, targets, side=side, ids=ids).reduce(self.reduction, denominator)

    def per_anchor(
        self,
        scores: Float[Tensor, "anchors *candidates"],
        targets: Targets | Tensor,
        *,
        side: Mapping[str, Tensor] | None = None,
        ids: Int[Tensor, " anchors"] | None = None,
    ) -> Float[Tensor, " anchors"]:
        """The loss of each row, times its weight, not reduced; a row sum where a mean is over labels."""
        return self.rows(scores, targets, side=side, ids=ids).weighted()

    def rows(
        self,
        scores: Float[Tensor, "anchors *candidates"],
        targets: Targets | Tensor,
        *,
        side: Mapping[str, Tensor] | None = None,
        ids: Int[Tensor, " anchors"] | None = None,
    ) -> RowLosses:
        """Row losses with all that a reduction needs: which rows count, weights, denominators."""
        if scores.ndim == 1 and not self.takes_columns:
            raise MarginsError(
                "scores", expected="[B, C] floats", received=describe(scores),
                fix="one score a row is a problem for BinaryCrossEntropy",
            )  # fmt: skip
        columns, known_targets = as_columns(scores, targets)
        return self.evaluate(matrix_of(columns), known_targets, Dense(), side=side, ids=ids)

    def on_candidates(
        self,
        embeddings: Float[Tensor, "anchors dim"],
        candidates: Float[Tensor, "candidates dim"],
        targets: Targets | Tensor,
        *,
        bias: Float[Tensor, " candidates"] | None = None,
        rule: ScoreRule | None = None,
        evaluator: Evaluator | None = None,
        side: Mapping[str, Tensor] | None = None,
        ids: Int[Tensor, " anchors"] | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The loss of embeddings scored against candidates (class vectors, documents), by any evaluator.

        Args:
            embeddings: [B, d].
            candidates: [C, d].
            targets: as for a matrix of scores [B, C].
            bias: [C], added to the scores.
            rule: how scores are made; the loss's own by default.
            evaluator: `Dense()` (default); `Blockwise()`, which keeps no [B, C] tensor; or `Sharded()`, where
                candidates, bias and side blocks are this rank's own and targets are over those of all ranks.
            side: see `forward`.
            ids: see `forward`.
            denominator: see `forward`.
        """
        evaluator = evaluator or Dense()
        with evaluator.guarded():
            source = factored(rule or self.score_rule, embeddings, candidates, bias)
        return self.on_source(
            source, targets, evaluator=evaluator, side=side, ids=ids, denominator=denominator
        )

    def on_source(
        self,
        source: Source,
        targets: Targets | Tensor,
        *,
        evaluator: Evaluator | None = None,
        side: Mapping[str, Tensor] | None = None,
        ids: Int[Tensor, " anchors"] | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The loss of scores that a head makes only where they are needed: `head.source(embeddings)`.

        Args:
            source: of a spherical head or a linear one.
            targets: as for a matrix of scores [B, C].
            evaluator: `Spherical()` for a spherical head and `Blockwise()` for a linear one by default.
            side: see `forward`.
            ids: see `forward`.
            denominator: see `forward`.
        """
        evaluator = evaluator or (Spherical() if isinstance(source, SphericalSource) else Blockwise())
        with evaluator.guarded():
            made = targets if isinstance(targets, Targets) else None
            known_targets = as_targets(targets, evaluator.whole_shape(source, made))
        is_summed = ids is None and self.reduction != "none"
        sum_of_rows = evaluator.whole_rows(source, known_targets) if is_summed else None
        if sum_of_rows is not None:
            return self._of_whole_rows(sum_of_rows, source, known_targets, side, denominator)
        rows = self.evaluate(source, known_targets, evaluator, side=side, ids=ids)
        return rows.reduce(self.reduction, denominator)

    def _of_whole_rows(
        self,
        sum_of_rows: SumOfRows,
        source: Source,
        targets: Targets,
        side: Mapping[str, Tensor] | None,
        denominator: Tensor | float | None,
    ) -> Float[Tensor, ""]:
        """The reduced loss, which an evaluator finds with its gradient, some whole rows at a time."""
        check_denominator(self.reduction, denominator)
        self._check(source, targets, None)
        given = self._checked_side(side, source.shape)
        every = RowLosses(
            source.like.new_zeros(()).expand(targets.num_anchors), counts=self._valid(targets),
            weight=targets.row_weight, units=self.units(targets),
        )  # fmt: skip
        divisor = None if self.reduction == "sum" else every.denominator(self.reduction)
        divisor = divisor if denominator is None else denominator

        def share(part: Source, own: Targets, beside: Mapping[str, Tensor], by: Evaluator) -> Tensor:
            total = self.evaluate(part, own, by, side=beside).weighted().sum()
            return total if divisor is None else divided(total, divisor)

        return sum_of_rows(share, given)

    def evaluate(
        self,
        source: Source,
        targets: Targets,
        evaluator: Evaluator,
        *,
        side: Mapping[str, Tensor] | None = None,
        ids: Tensor | None = None,
    ) -> RowLosses:
        """Row losses of any source of scores under any evaluator."""
        with evaluator.guarded():
            self._check(source, targets, ids)
            program = self.stages()
            evaluator.check(type(self).__name__, program, source, targets)
            valid = self._valid(targets)
            z = evaluator.run(
                program, source, targets,
                side=self._checked_side(side, source.shape), valid=valid, rows=self.initial_rows(ids),
            )  # fmt: skip
        values = self.row(z)
        if valid is not None:
            values = torch.where(valid, values, 0.0)
        self.observe(z, ids, valid)
        shared, weight = evaluator.shared(values), evaluator.shared(targets.row_weight)
        assert shared is not None  # noqa: S101 - values are a tensor
        return RowLosses(shared, counts=valid, weight=weight, units=self.units(targets))

    def _check(self, source: Source, targets: Targets, ids: Tensor | None) -> None:
        check_device(source.like, targets)
        self.check_targets(targets)
        if targets.num_candidates == 0:
            raise MarginsError("scores", expected="[B, C] with C >= 1", received=str(list(source.shape)))
        if ids is not None and tuple(ids.shape) != (source.shape[0],):
            raise MarginsError("ids", expected=f"[B] = [{source.shape[0]}]", received=describe(ids))

    def _valid(self, targets: Targets) -> Bool[Tensor, " anchors"] | None:
        """Rows that have a target, a weight and what the loss needs; None when all have."""
        valid = targets.known_rows()
        asked: list[Tensor] = []
        if not targets.has_one_positive or targets.num_candidates == 1:
            num_known = targets.num_known()
            asked = [num_known > 0]
            if self.needs:
                num_positives = targets.num_positives()
                needed = {"positives": num_positives > 0, "negatives": num_known > num_positives}
                asked += [needed[name] for name in sorted(self.needs)]
        for condition in asked:
            valid = condition if valid is None else valid & condition
        if valid is not None and values_are_readable(valid) and bool(valid.all()):
            return None
        return valid

    def _checked_side(
        self, side: Mapping[str, Tensor] | None, shape: tuple[int, int]
    ) -> Mapping[str, Tensor]:
        given = dict(side or {})
        if set(given) != set(self.side_names):
            raise MarginsError(
                "side",
                expected=f"the blocks {list(self.side_names)}" if self.side_names else "no side blocks",
                received=f"{sorted(given)}",
                fix="side={'name': tensor of shape [B, 1], [1, C] or [B, C]}" if self.side_names else "",
            )
        for name, block in given.items():
            check_tensor(f"side[{name!r}]", block, "[B or 1, C or 1]")
            fits = block.ndim == 2 and block.shape[0] in (1, shape[0]) and block.shape[1] in (1, shape[1])
            if not fits:
                raise MarginsError(
                    f"side[{name!r}]",
                    expected=f"[B or 1, C or 1] for {list(shape)}",
                    received=describe(block),
                )
            checked(f"side[{name!r}]", block)
        return given


class EmbeddingLoss(StatisticsLoss):
    """A statistics loss whose users hold embeddings and labels: the candidates are batch items."""

    def on_embeddings(
        self,
        embeddings: Float[Tensor, "anchors dim"],
        labels: Int[Tensor, " anchors"] | Targets,
        *,
        references: Float[Tensor, "references dim"] | None = None,
        reference_labels: Int[Tensor, " references"] | None = None,
        same_items: Int[Tensor, " anchors"] | None = None,
        rule: ScoreRule | None = None,
        evaluator: Evaluator | None = None,
        side: Mapping[str, Tensor] | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """Every embedding is an anchor; items of its label are its positives, itself excepted.

        On several ranks it sees the local items only, unless `evaluator=Sharded()`: then each rank brings its
        part of the batch, and every rank gets the loss of the whole. Side blocks are then of all anchors and
        this rank's references.

        Args:
            embeddings: [B, d]; scored as they come by the loss's rule (`Cosine` normalises them).
            labels: [B] integers; equal ones match. Or `Targets` over the references.
            references: [R, d] candidates; the embeddings themselves when None.
            reference_labels: [R] integers, with references.
            same_items: [B] place of each anchor among the references, -1 when it is not there.
            rule: another score rule.
            evaluator: `Dense()` (default), `Blockwise()` or `Sharded()`.
            side: see `forward`.
            denominator: see `forward`.
        """
        evaluator = evaluator or Dense()
        with evaluator.guarded():
            candidates, own = self._posed(embeddings, labels, references, reference_labels, same_items)
            anchors, targets = evaluator.whole_batch(embeddings, candidates, own)
        return self.on_candidates(
            anchors, candidates, targets,
            rule=rule, evaluator=evaluator, side=side, denominator=denominator,
        )  # fmt: skip

    def _posed(
        self,
        embeddings: Tensor,
        labels: Tensor | Targets,
        references: Tensor | None,
        reference_labels: Tensor | None,
        same_items: Tensor | None,
    ) -> tuple[Tensor, Targets]:
        """Candidates and targets of items and labels."""
        if (references is None) != (reference_labels is None) and not isinstance(labels, Targets):
            raise MarginsError(
                "reference_labels",
                expected="references and reference_labels together",
                received="one of them",
            )
        candidates = embeddings if references is None else references
        if isinstance(labels, Targets):
            return candidates, labels
        return candidates, Targets.of_matches(labels, reference_labels, same_items=same_items)
