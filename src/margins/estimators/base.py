"""What the estimators share: parameters, the way from X and y to a model, and what scikit-learn asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import torch

from margins.data.coding import TargetCoding
from margins.data.extras import extra
from margins.data.frame import Frame
from margins.errors import MarginsError, describe
from margins.estimators.merging import MergedRows, merged
from margins.estimators.posing import Asked, posed
from margins.estimators.reading import Kinds, kind_notes, kinds_of, read_rows, without_empty_types
from margins.training.defaults import default_recipe
from margins.training.in_memory import train_problem
from margins.training.machine import Device
from margins.training.model import Model
from margins.training.recipe import Recipe, Task

with extra("tool"):
    import polars as pl
    from sklearn.base import BaseEstimator
    from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
    from sklearn.utils.validation import (
        _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
        check_is_fitted,
    )

Array = npt.NDArray[Any]
LARGEST_SEED = 2**31 - 1
_ROWS_TOGETHER = 32
_CHEAP = frozenset({"tabular", "embeddings", "hashed_text"})


class MarginsEstimator(BaseEstimator):
    """Parameters and training; `MarginsClassifier` and its siblings say what each parameter means."""

    _task: ClassVar[Task]

    kinds: Kinds
    device: Device
    model_: Model
    n_iter_: int
    notes_: list[str]

    def __init__(
        self,
        recipe: Mapping[str, Any] | None = None,
        *,
        kinds: Kinds = None,
        loss: str | None = None,
        max_epochs: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        select_share: float = 0.15,
        random_state: int | np.random.RandomState | None = 0,
        device: Device = "auto",
    ) -> None:
        self.recipe = recipe
        self.kinds = kinds
        self.loss = loss
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.select_share = select_share
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = True
        return tags

    def _rows(self, X: Any, cells: pl.Series, sample_weight: Any) -> MergedRows:
        """The different rows of what was passed to `fit`, with the cells of their targets."""
        frame, given = read_rows(self, X, self.kinds, is_fit=True)
        check_consistent_length(frame.table, cells)
        weight = _check_sample_weight(sample_weight, cells, dtype=np.float64, ensure_non_negative=True)
        kinds = kinds_of(frame, given)
        frame = replace(frame, notes=[*frame.notes, *kind_notes(frame, kinds, given)])
        return merged(frame, kinds, cells, weight)

    def _target(self, y: Any) -> Array:
        if y is None:
            raise MarginsError(
                "y", expected="a target for each row", received="None",
                fix=f"{type(self).__name__} requires y to be passed, but the target y is None",
            )  # fmt: skip
        target = column_or_1d(y, warn=True)
        assert_all_finite(target, input_name="y")
        return target

    def _train(
        self, rows: MergedRows, coding: Callable[[Any], TargetCoding], more: Mapping[str, Any]
    ) -> Self:
        """Trains on the rows; `more` are changes of the recipe under those of the user."""
        seed = self._seed()
        asked = Asked(task=self._task, select_share=self.select_share, seed=seed)
        problem, told = posed(rows, coding, asked)
        below = {"optimizer": {"name": "adamw"}, **more}
        changes = {**below, **self._changes(below), "task": self._task, "seed": seed}
        recipe: Recipe = default_recipe(problem.columns, changes, num_rows=len(rows))
        self.model_, fitted = train_problem(problem, recipe, device=self.device)
        self.n_iter_ = sum(len(phase.history) for phase in fitted)
        self.notes_ = [*told, *rows.frame.notes]
        return self

    def _changes(self, below: Mapping[str, Any]) -> dict[str, Any]:
        """The user's recipe, with the parameters that stand for parts of it, over other changes."""
        given: Any = {} if self.recipe is None else self.recipe
        if not isinstance(given, Mapping):
            raise MarginsError("recipe", expected="a mapping, as a recipe in YAML", received=describe(given))
        changes = dict(cast("Mapping[str, Any]", given))
        for key, instead in (("task", "another estimator"), ("seed", "random_state")):
            if key in changes:
                raise MarginsError(
                    f"recipe: {key}", expected="none in an estimator", received=repr(changes[key]),
                    fix=f"use {instead}",
                )  # fmt: skip
        for path, value in self._named():
            changes = _laid(changes, path, value)
        return {key: _under(below.get(key), value) for key, value in changes.items()}

    def _named(self) -> list[tuple[str, Any]]:
        """Parameters that stand for a part of the recipe, with the place of the part; without unset ones."""
        named = [
            ("objective.loss", self.loss),
            ("max_epochs", self.max_epochs),
            ("optimizer.learning_rate", self.learning_rate),
            ("batch_size", self.batch_size),
        ]
        return [(path, value) for path, value in named if value is not None]

    def _seed(self) -> int:
        state: Any = self.random_state
        if state is None:
            return int(np.random.default_rng().integers(LARGEST_SEED))
        if isinstance(state, np.random.RandomState):
            return int(state.randint(LARGEST_SEED))
        is_whole = isinstance(state, (int, np.integer)) and not isinstance(state, bool)
        if not is_whole or not 0 <= state <= LARGEST_SEED:
            expected = "a whole number in [0, 2^31), a RandomState or None"
            raise MarginsError("random_state", expected=expected, received=repr(state))
        return int(state)

    def _fitted_model(self) -> Model:
        check_is_fitted(self)
        return self.model_

    def _outputs(self, X: Any, compute: Callable[[Frame], Array]) -> Array:
        """What a model computes of the rows of X [N, ...].

        Processors multiply few rows in another order than many. Where it costs little, a few more are
        computed, so that what is said of a row does not depend on the rows beside it.
        """
        frame, _ = read_rows(self, X, self.kinds, is_fit=False)
        frame = replace(frame, table=without_empty_types(frame, self.model_.columns.inputs))
        num = len(frame)
        if self.model_.recipe.encoder.name not in _CHEAP:
            return compute(frame)
        filled = torch.arange(-(-num // _ROWS_TOGETHER) * _ROWS_TOGETHER).clamp(max=num - 1)
        return compute(frame.take(filled))[:num]


def target_name(y: Any) -> str:
    """The name of a column of targets, if it has one."""
    name = getattr(y, "name", None)
    return name if isinstance(name, str) and name else "target"


def _laid(changes: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The changes with one more at "part.key"; the same key in both is refused."""
    part, _, key = path.rpartition(".")
    inner = dict(changes.get(part) or {}) if part else changes
    if key in inner:
        raise MarginsError(
            f"recipe: {path}", expected="it once", received=f"{inner[key]!r}, and {value!r} as a parameter",
            fix="take one of them out",
        )  # fmt: skip
    return {**changes, part: {**inner, key: value}} if part else {**changes, key: value}


def _under(below: Any, value: Any) -> Any:
    """A part over another one, which it replaces when it names another kind."""
    if not isinstance(below, Mapping) or not isinstance(value, Mapping) or "name" in value:
        return value
    return {**below, **value}
