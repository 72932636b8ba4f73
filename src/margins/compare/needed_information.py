"""What a data set asks to be known beforehand: the inductive bias that a target error takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from margins.compare.numeric_rows import numeric_rows, standardised
from margins.data.choosing import choose_columns
from margins.data.frame import Frame
from margins.diagnose import (
    InductiveBias,
    cnn,
    inductive_bias,
    kernel_errors,
    median_width,
    mlp,
    network_errors,
    rbf_kernel,
)
from margins.diagnose.prior_knowledge import Unit
from margins.encoders import SmallResNetSettings
from margins.errors import MarginsError
from margins.training.problem import Problem, pose
from margins.training.request import Roles

Space = Literal["rbf", "mlp", "cnn"]

_MOST_TEST_ROWS = 500
_LARGEST_SIDE = 32  # of images: networks are many, and small
_FITTED = 0.05  # of the error of a constant, at which a network counts as fitted
_NUM_HYPOTHESES = {"rbf": 2000, "mlp": 50, "cnn": 50}


@dataclass(frozen=True, kw_only=True)
class NeededInformation:
    """The information that a target error takes in one hypothesis space.

    Args:
        space: of the hypotheses.
        bias: the estimate, its interval and its warnings.
        exact: the same by the exact law of the errors; None for networks, which have none.
        constant_error: the error of predicting the mean of the training targets: what nothing is worth.
        num_train: rows that each hypothesis fits.
        num_test: rows that its error is measured on.
        num_unfitted: networks that did not fit, and are left out.
        sentences: what was decided, and what to mind.
    """

    space: Space
    bias: InductiveBias
    exact: float | None
    constant_error: float
    num_train: int
    num_test: int
    num_unfitted: int
    sentences: list[str]


def needed_information(
    frame: Frame,
    roles: Roles | None = None,
    *,
    space: Space,
    target_error: float,
    num_rows: int = 200,
    num_hypotheses: int | None = None,
    unit: Unit = "bits",
    seed: int = 0,
    tell: Callable[[str], object] = str,
) -> NeededInformation:
    """How much must be known to get to a mean squared error, over hypotheses that fit some training rows.

    Use it to compare spaces on the same rows, target error and seed: what one needs less than another is
    what it knows of the task. Errors are squared differences from one-hot targets, or from numbers in
    deviations, averaged over rows and outputs. See `margins.diagnose.inductive_bias` for how far the figure
    can be trusted.

    Args:
        frame: the rows: numbers, vectors, or one column of images.
        roles: of columns, where the user says so.
        space: "rbf", functions of a Gaussian process of the median width; "mlp", perceptrons of two layers
            of 64; "cnn", of two convolutions of 16 channels, for images.
        target_error: above 0.
        num_rows: of the training role, at most.
        num_hypotheses: 2000 functions or 50 networks by default.
        unit: "bits" or "nats".
        seed: of the division, the rows and the hypotheses.
        tell: is called with a sentence before what takes time.

    Raises:
        MarginsError: columns that are no numbers or images, or arguments out of range.
    """
    if space not in get_args(Space):
        raise MarginsError("space", expected=f"one of {', '.join(get_args(Space))}", received=repr(space))
    num = _NUM_HYPOTHESES[space] if num_hypotheses is None else num_hypotheses
    if num < 10 or num_rows < 2:
        raise MarginsError(
            "trials, rows", expected="10 hypotheses and 2 rows or more", received=f"{num}, {num_rows}"
        )
    columns, decided = choose_columns(frame, **asdict(roles or Roles()))
    problem, odd = pose(frame, columns, seed=seed)
    draws = torch.Generator().manual_seed(seed)
    train, test = _chosen(problem, num_rows, draws)
    inputs, targets = _inputs(problem, train, space), _targets(problem)
    constant = float((targets[test] - targets[train].mean(0)).square().mean())
    tell(f"{num} hypotheses ({space}) that fit {len(train)} rows, judged on {len(test)} others")
    sides = inputs[train], targets[train], inputs[test], targets[test]
    errors, exact, num_unfitted = _errors(sides, space, num, target_error, constant, draws)
    bias = inductive_bias(errors, target_error, unit=unit, seed=seed)
    sentences = [*decided, *odd]
    per = math.log(2) if unit == "bits" else 1.0
    sentences.append(f"A constant prediction has an error of {constant:.4g}; the target is {target_error:g}.")
    if num_unfitted:
        sentences.append(f"{num_unfitted} networks did not fit the training rows and are left out.")
    return NeededInformation(
        space=space, bias=bias, exact=None if exact is None else exact / per,
        constant_error=constant, num_train=len(train), num_test=len(test), num_unfitted=num_unfitted,
        sentences=sentences,
    )  # fmt: skip


def _chosen(problem: Problem, num_rows: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    division = problem.division
    train = torch.from_numpy(division.train)
    rest = torch.from_numpy(np.sort(np.concatenate([division.select, division.report])))
    order, other = (torch.randperm(len(rows), generator=draws) for rows in (train, rest))
    return train[order[:num_rows]], rest[other[:_MOST_TEST_ROWS]]


def _inputs(problem: Problem, train: Tensor, space: Space) -> Tensor:
    """[N, d] standardised, or [N, channels, height, width]."""
    inputs = problem.columns.inputs
    is_image = list(inputs.values()) == ["image"]
    if space == "cnn" and not is_image:
        raise MarginsError("space", expected="one column of images for cnn", received=_kinds(problem),
                           fix="choose mlp or rbf")  # fmt: skip
    if is_image:
        preparation = SmallResNetSettings().prepare(problem.training_frame(), inputs)
        scale = min(1.0, _LARGEST_SIDE / max(preparation.height, preparation.width))
        size = {side: max(1, round(scale * getattr(preparation, side))) for side in ("height", "width")}
        rows = preparation.model_copy(update=size)(problem.frame.only(list(inputs))).pixels.float()
        mean = rows[train].mean((0, 2, 3), keepdim=True)
        return (rows - mean) / rows[train].std((0, 2, 3), keepdim=True).clamp(min=1.0)
    rows = numeric_rows(problem.frame, inputs)
    if rows is None:
        raise MarginsError("inputs", expected="numbers, vectors or one column of images",
                           received=_kinds(problem), fix="choose such columns with --input")  # fmt: skip
    return standardised(rows, train).float()


def _kinds(problem: Problem) -> str:
    named = [f"{name} ({kind})" for name, kind in problem.columns.inputs.items()]
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def _targets(problem: Problem) -> Tensor:
    kind = problem.columns.target_kind
    if kind not in ("label", "label_set", "value"):
        raise MarginsError("target", expected="a label, a label set or a value", received=str(kind))
    return problem.targets.grades(0, problem.targets.num_candidates).float()


def _errors(
    sides: tuple[Tensor, Tensor, Tensor, Tensor], space: Space, num: int, target_error: float,
    constant: float, draws: torch.Generator,
) -> tuple[Tensor, float | None, int]:  # fmt: skip
    """Errors of the hypotheses, the exact information in nats, and how many did not fit."""
    x, y = sides[:2]
    if space == "rbf":
        kernel = rbf_kernel(median_width(x, generator=draws))
        sampled = kernel_errors(*sides, kernel=kernel, num_samples=num, jitter=1e-6, generator=draws)
        return sampled.errors, -sampled.law.log_cdf(target_error), 0
    build = mlp(x[0].numel(), y.shape[1]) if space == "mlp" else cnn(x.shape[1], y.shape[1])
    trained = network_errors(
        build, *sides, num_trials=num, fitted_below=_FITTED * constant, at_once=50 if space == "mlp" else 1,
        generator=draws,
    )  # fmt: skip
    return trained.errors, None, trained.num_unfitted
