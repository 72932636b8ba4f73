"""Targets of a batch that is divided over ranks, made of those that each rank has for its own part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from margins.engine.across_ranks.gather import gather_counted
from margins.engine.across_ranks.ranks import Ranks
from margins.errors import MarginsError
from margins.targets import Targets
from margins.targets.dense import Matches
from margins.targets.storage import Paired


def kind_of(targets: Targets) -> str:
    """What ranks must agree on: the storage and the layers.

    Raises:
        MarginsError: targets that cannot be joined.
    """
    plain = replace(targets, row_weight=None)
    has_layers = repr(plain) != repr(Targets(targets.storage))
    if has_layers or not isinstance(targets.storage, (Matches, Paired)):
        raise MarginsError(
            "targets",
            expected="pairs or matches, perhaps with row weights, of this rank's own part",
            received=repr(targets),
            fix="give targets over the candidates of all ranks to on_candidates, with gathered anchors",
        )
    storage = targets.storage
    optional = storage.same_items if isinstance(storage, Matches) else storage.candidate_ids
    return f"{type(storage).__name__}, {optional is not None}, {targets.row_weight is not None}"


def targets_of_all(
    targets: Targets, num_anchors: Sequence[int], num_candidates: Sequence[int], ranks: Ranks
) -> Targets:
    """Targets of the anchors of all ranks over the candidates of all ranks.

    Args:
        targets: of this rank's anchors over its candidates.
        num_anchors: of each rank.
        num_candidates: of each rank.
        ranks: the ranks.
    """

    def of_anchors(tensor: Tensor) -> Tensor:
        return gather_counted(tensor, num_anchors, ranks.group)

    def of_candidates(tensor: Tensor) -> Tensor:
        return gather_counted(tensor, num_candidates, ranks.group)

    before = sum(num_candidates[: ranks.rank])
    storage = targets.storage
    if isinstance(storage, Paired):
        whole = _pairs(storage, before, sum(num_candidates), of_anchors, of_candidates)
    else:
        assert isinstance(storage, Matches)  # noqa: S101 - kind_of has asked
        whole = _matches(storage, before, of_anchors, of_candidates)
    weight = None if targets.row_weight is None else of_anchors(targets.row_weight)
    return Targets(whole, row_weight=weight)


Gather = Callable[[Tensor], Tensor]


def _pairs(own: Paired, before: int, num_columns: int, anchors: Gather, candidates: Gather) -> Paired:
    partners = anchors(own.partners + before)
    if own.anchor_ids is None or own.candidate_ids is None:
        return Paired(partners, num_columns, None, None)
    return Paired(partners, num_columns, anchors(own.anchor_ids), candidates(own.candidate_ids))


def _matches(own: Matches, before: int, anchors: Gather, candidates: Gather) -> Matches:
    same = None if own.same_items is None else torch.where(own.same_items < 0, -1, own.same_items + before)
    return Matches(
        anchors(own.anchor_labels), candidates(own.candidate_labels), None if same is None else anchors(same)
    )
