"""What training minimises: a loss, how targets and scores are set for it, and what several ranks exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from margins.data.roles import class_ids
from margins.engine import gather_rows
from margins.engine.evaluators import Dense, Evaluator
from margins.engine.reduction import RowLosses
from margins.engine.sources import Source, factored
from margins.losses import Aggregated, bag_means, label_margins
from margins.losses.forms import EmbeddingLoss, StatisticsLoss
from margins.targets import Targets
from margins.training.objective_settings import ObjectiveSettings, TargetSettings, new_loss

_EFFECTIVE_BETA = 0.999


@dataclass(frozen=True, eq=False)
class StepTargets:
    """The targets of a step, as one rank sees them.

    Args:
        local: of this rank's rows.
        whole: of the rows of all ranks, in their order.
        start: how many of them come before this rank's.
        ids: [B] numbers of this rank's rows in the data.
        num_ranks: among which the step is shared.
    """

    local: Targets
    whole: Targets
    start: int
    ids: Tensor
    num_ranks: int = 1


@dataclass(frozen=True, eq=False)
class StepLoss:
    """A rank's share: the step's loss is the sum of all totals over the sum of all denominators, plus extras.

    Args:
        total: on the graph.
        denominator: what counts, detached.
        extra: penalties, divided already; None without any.
        num_degenerate: rows that lacked what the loss needs.
    """

    total: Tensor
    denominator: Tensor
    extra: Tensor | None = None
    num_degenerate: int = 0


class Objective(nn.Module):
    """The loss of a recipe. Its own parameters are trained, its state is checkpointed.

    Args:
        settings: the loss, how targets are set, penalties.
        class_counts: [C] training rows of each class or label; None where there are none.
        evaluator: of a loss of sources of scores; None when it gets all scores.
        num_rows: training rows, for label sets; None where classes exclude each other.
        bag_size: rows of a step that stand together as a bag, for a loss of bags.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        class_counts: Tensor | None,
        evaluator: Evaluator | None = None,
        *,
        num_rows: int | None = None,
        bag_size: int = 1,
    ) -> None:
        super().__init__()
        self._bag_size = bag_size
        self.evaluator = evaluator
        self.loss = new_loss(settings.loss, settings.settings)
        self.penalties = nn.ModuleList(new_loss(p.loss, p.settings) for p in settings.penalties)
        self._penalty_weights = [p.weight for p in settings.penalties]
        self._log_softmax = settings.link == "log_softmax"
        self._set_targets = targets_setter(settings.targets, class_counts, num_rows)

    @property
    def has_independent_rows(self) -> bool:
        """Whether losses of parts of a batch add up to that of the whole."""
        return self.loss.card.distributed == "independent" and not self.penalties

    def forward(self, scores: Tensor | Source, embeddings: Tensor, targets: StepTargets) -> StepLoss:
        """The share of a step's loss that is this rank's.

        Args:
            scores: [B, C] of the head, or with an evaluator the head's source of them; for an embedding loss
                [B, d], the embeddings it compares.
            embeddings: [B, width] of the encoder, for penalties.
            targets: of the step.
        """
        rows = self._main(scores, targets) if isinstance(scores, Tensor) else self._sourced(scores, targets)
        if not self.penalties:
            return rows
        gathered, labels = gather_rows(embeddings), class_ids(targets.whole)
        parts = zip(self._penalty_weights, self.penalties, strict=True)
        extra = sum((weight * penalty(gathered, labels) for weight, penalty in parts), gathered.new_zeros(()))
        return StepLoss(rows.total, rows.denominator, extra / targets.num_ranks, rows.num_degenerate)

    def start_epoch(self, epoch: int) -> None:
        """Tells a loss that changes with epochs."""
        begin: Callable[[int], None] | None = getattr(self.loss, "start_epoch", None)
        if begin is not None:
            begin(epoch)

    def _sourced(self, source: Source, targets: StepTargets) -> StepLoss:
        loss, evaluator = self.loss, self.evaluator
        assert isinstance(loss, StatisticsLoss) and evaluator is not None  # noqa: S101, PT018 - recipes see to it
        return self._share(
            loss.evaluate(source, self._set_targets(targets.local), evaluator, ids=targets.ids), 1
        )

    def _main(self, scores: Tensor, targets: StepTargets) -> StepLoss:
        scores = scores.float().log_softmax(1) if self._log_softmax else scores
        if isinstance(self.loss, EmbeddingLoss):
            return self._share(self._matched(scores, targets), 1)
        if self.loss.card.distributed == "independent":
            local = self._set_targets(targets.local)
            if isinstance(self.loss, StatisticsLoss):
                return self._share(self.loss.rows(scores, local, ids=targets.ids), 1)
            return self._share(self._rows_of(scores, local), 1)
        # The loss is a function of the whole batch: every rank computes all of it and answers for its part.
        gathered, whole = gather_rows(scores), self._set_targets(targets.whole)
        if isinstance(self.loss, Aggregated):
            return self._share(self._bagged(self.loss, gathered, whole), targets.num_ranks)
        if hasattr(self.loss, "rows"):
            return self._share(self._rows_of(gathered, whole), targets.num_ranks)
        value: Tensor = self.loss(gathered, whole) / targets.num_ranks
        return StepLoss(value, value.new_tensor(1 / targets.num_ranks))

    def _matched(self, embeddings: Tensor, targets: StepTargets) -> RowLosses:
        loss = self.loss
        assert isinstance(loss, EmbeddingLoss)  # noqa: S101 - asked before
        references, labels = gather_rows(embeddings), class_ids(targets.whole)
        place = torch.arange(targets.start, targets.start + len(embeddings), device=labels.device)
        matches = Targets.of_matches(labels[place], labels, same_items=place)
        matches = matches if targets.local.row_weight is None else matches.weigh(
            rows=targets.local.row_weight
        )  # fmt: skip
        return loss.evaluate(factored(loss.score_rule, embeddings, references), matches, Dense())

    def _bagged(self, loss: Aggregated, scores: Tensor, targets: Targets) -> RowLosses:
        # The loss is given the means of bags alone; whole bags stand one after the other in a step.
        bags = torch.arange(len(scores), device=scores.device) // self._bag_size
        grades = targets.grades(0, targets.num_candidates).to(scores.device, torch.float32)
        return loss.bags(scores, bags, bag_means(grades, bags, -(-len(scores) // self._bag_size)))

    def _rows_of(self, scores: Tensor, targets: Targets) -> RowLosses:
        rows: Callable[[Tensor, Targets], RowLosses] = getattr(self.loss, "rows")  # noqa: B009 - forms differ
        return rows(scores, targets)

    def _share(self, rows: RowLosses, num_ranks: int) -> StepLoss:
        total, denominator = rows.weighted().sum(), rows.denominator(self.loss.reduction).detach()
        if num_ranks > 1:
            total, denominator = total / num_ranks, denominator / num_ranks
        return StepLoss(total, denominator, None, rows.num_degenerate)


def targets_setter(
    settings: TargetSettings, class_counts: Tensor | None, num_rows: int | None = None
) -> Callable[[Targets], Targets]:
    """What the station `set targets` does to the targets of every batch; arguments as for `Objective`."""
    changes: list[Callable[[Targets], Targets]] = []
    if settings.smooth:
        changes.append(lambda targets: targets.smooth(settings.smooth))
    if class_counts is not None:
        changes += _by_frequency(settings, class_counts, num_rows)

    def set_targets(targets: Targets) -> Targets:
        for change in changes:
            targets = change(targets)
        return targets

    return set_targets


def _by_frequency(
    settings: TargetSettings, class_counts: Tensor, num_rows: int | None
) -> list[Callable[[Targets], Targets]]:
    changes: list[Callable[[Targets], Targets]] = []
    counts = class_counts.float().clamp(min=1)
    if settings.logit_adjustment:
        # Training adds tau * log prior to the scores; a margin is subtracted. Prediction uses plain scores.
        log_prior = torch.log(counts / counts.sum())
        if num_rows is not None:  # each label is a choice of its own, between it and its absence
            log_prior = label_shares(class_counts, num_rows).logit().float()
        adjustment = -settings.logit_adjustment * log_prior
        changes.append(lambda targets: targets.margin(candidates=adjustment.to(targets.device)))
    if settings.class_margins:
        margin = _class_margins(settings.class_margins, class_counts, is_sets=num_rows is not None)
        changes.append(lambda targets: targets.margin(candidates=margin.to(targets.device), on="positives"))
    if settings.class_weight:
        weight = class_weights(settings.class_weight, counts)
        changes.append(lambda targets: targets.weigh_classes(weight.to(targets.device)))
    return changes


def _class_margins(largest: float, class_counts: Tensor, *, is_sets: bool) -> Tensor:
    margin = label_margins(class_counts, strength=largest)
    return margin if is_sets else margin * (largest / margin.max())


def class_weights(rule: str, counts: Tensor) -> Tensor:
    """[C] weights of classes with these numbers of rows [C], such that rows weigh 1 on average.

    Example:
        >>> class_weights("balanced", torch.tensor([30.0, 10.0]))
        tensor([0.6667, 2.0000])
    """
    raw = 1 / counts if rule == "balanced" else (1 - _EFFECTIVE_BETA) / (1 - _EFFECTIVE_BETA**counts)
    return raw * counts.sum() / (raw * counts).sum()


def label_shares(counts: Tensor, num_rows: int) -> Tensor:
    """[L] shares of rows with each label, in float64, half a row away from none and from all at least.

    Example:
        >>> label_shares(torch.tensor([0, 5, 20]), 20)
        tensor([0.0250, 0.2500, 0.9750], dtype=torch.float64)
    """
    return (counts.double() / num_rows).clamp(0.5 / num_rows, 1 - 0.5 / num_rows)
