"""A data set made into a problem for a recipe: who plays which role, what is predicted, what a model sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.data.coding import TargetCoding
from margins.data.columns import Columns
from margins.data.dividing import Division, divide
from margins.data.fitting_codings import fit_coding, numbered_by
from margins.data.frame import Frame
from margins.data.roles import ReportRows, RowInputs, SelectRows, TrainRows
from margins.data.weights import weights
from margins.encoders.base import Encoder, Preparation
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.network import Network
from margins.training.randomness import seed_of
from margins.training.recipe import Recipe

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows with roles and targets.

    Args:
        frame: all rows.
        columns: what each column is for.
        coding: of the target; what it fits on numbers, it fits on the training rows.
        division: which rows train, select and report.
        targets: of all rows, with their weights.
    """

    frame: Frame
    columns: Columns
    coding: TargetCoding
    division: Division
    targets: Targets

    def prepared(self, preparation: Preparation) -> Prepared:
        """The rows as the encoder takes them."""
        return Prepared(self, preparation(self.frame.only(list(self.columns.inputs))))

    def training_frame(self) -> Frame:
        """The rows that preprocessing may be fitted on."""
        return self.frame.take(torch.from_numpy(self.division.train))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A problem whose inputs are ready for an encoder."""

    problem: Problem
    inputs: RowInputs

    @cached_property
    def train(self) -> TrainRows:
        """The training rows."""
        return TrainRows(*self._of(self.problem.division.train))

    @cached_property
    def select(self) -> SelectRows:
        """The rows that choose."""
        return SelectRows(*self._of(self.problem.division.select))

    @cached_property
    def report(self) -> ReportRows | None:
        """The rows that judge; None when the division has none."""
        rows = self.problem.division.report
        return ReportRows(*self._of(rows)[:2]) if len(rows) else None

    def _of(self, rows: Ints) -> tuple[RowInputs, Targets, Tensor]:
        at = torch.from_numpy(rows)
        return self.inputs.take(at), self.problem.targets.take(at), at


def pose(
    frame: Frame,
    columns: Columns,
    *,
    seed: int = 0,
    select_share: float = 0.15,
    report_share: float = 0.15,
) -> tuple[Problem, list[str]]:
    """Gives every row a role and a target.

    Args:
        frame: the rows.
        columns: with a target.
        seed: of the division.
        select_share: of the rows, for the choice of epochs and thresholds.
        report_share: of the rows, to judge the finished model.

    Returns:
        the problem, and a sentence for everything that was decided or is odd.

    Raises:
        MarginsError: no target, cells that cannot be used, or too few rows.
    """
    if columns.target is None or columns.target_kind is None:
        raise MarginsError("target", expected="a column to predict", received="none", fix="name one")
    cells = frame.table[columns.target]
    coding = fit_coding(
        cells, columns.target_kind, separator=columns.separator, class_order=columns.class_order
    )
    targets = coding.targets(cells)
    division = divide(
        frame, columns, targets, seed=seed, select_share=select_share, report_share=report_share
    )
    for role in ("train", "select"):
        if not len(getattr(division, role)):
            raise MarginsError(
                f"rows of the role {role}", expected="at least one", received=f"none of {len(frame)} rows",
                fix="give more rows or another share",
            )  # fmt: skip
    if columns.target_kind == "value":
        coding = fit_coding(cells, "value", train=division.train)
    else:
        coding = numbered_by(coding, targets.take(torch.from_numpy(division.train)))
    targets = coding.targets(cells)
    weight = weights(frame, columns)
    for role in ("train", "select"):
        if weight is not None and not bool(weight[torch.from_numpy(getattr(division, role))].any()):
            raise MarginsError(
                f"weight {columns.weight!r}", expected=f"a row of the role {role} that weighs something",
                received="0 in all of them", fix="correct the weights, or divide the rows otherwise",
            )  # fmt: skip
    targets = targets if weight is None else targets.weigh(rows=weight.float())
    told = [*division.sentences, *frame.notes, *coding.notes]
    return Problem(frame, columns, coding, division, targets), told


def new_network(
    recipe: Recipe, preparation: Preparation, num_outputs: int
) -> tuple[Network, torch.Generator]:
    """An untrained network, and the generator that its modules draw from."""
    generator = torch.Generator().manual_seed(seed_of(recipe.seed, "network"))
    encoder: Encoder[Any] = recipe.encoder.build(preparation, generator=generator)
    head = recipe.head.build(encoder.width, num_outputs, generator=generator)
    return Network(encoder, head), generator
