"""The objective of a recipe as plain data: a loss by name, and how targets and scores are set for it."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from margins import losses
from margins.data.nearest import suggestion
from margins.data.settings import Settings
from margins.errors import MarginsError
from margins.losses import Loss

ClassWeight = Literal["balanced", "effective_number"]


class TargetSettings(Settings):
    """The station `set targets`: what is done to the targets of a batch before the loss sees them.

    Args:
        smooth: share of each row's mass that is spread over all classes, in [0, 1).
        logit_adjustment: tau; training adds tau * log prior to the scores, prediction does not (Menon et al.
            2021, arXiv 2007.07314). For label sets, with binary_cross_entropy or binary_focal, it adds tau
            times the log-odds of each label's share.
        class_margins: the largest margin; a class with n rows gets one in proportion to n ** -1/4. For label
            sets, with binary_cross_entropy, the margin of a label with one row; n rows divide it by n ** 1/4
            (`margins.losses.label_margins`), and thresholds take the place of probabilities.
        class_weight: rows weigh 1 / count of their class ("balanced") or by the effective number of rows
            with beta 0.999; on average 1.
    """

    smooth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    logit_adjustment: Annotated[float, Field(ge=0)] = 0.0
    class_margins: Annotated[float, Field(ge=0)] = 0.0
    class_weight: ClassWeight | None = None

    @property
    def changes_prior(self) -> list[str]:
        """Which of them make rare classes count more."""
        named = {"logit_adjustment": self.logit_adjustment > 0, "class_weight": self.class_weight is not None}
        return [name for name, is_on in named.items() if is_on]


class PenaltySettings(Settings):
    """A loss of features added to the main one.

    Args:
        loss: its name.
        weight: its factor.
        settings: its hyperparameters.
    """

    loss: str
    weight: Annotated[float, Field(gt=0)] = 1.0
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_made(self) -> PenaltySettings:
        if loss_named(self.loss).form != "features":
            raise MarginsError(
                "penalties", expected="a loss of features", received=self.loss,
                fix=f"known: {', '.join(names_of_losses('features'))}",
            )  # fmt: skip
        new_loss(self.loss, self.settings)
        return self


class ObjectiveSettings(Settings):
    """What training minimises.

    Args:
        loss: name of a loss, e.g. "cross_entropy"; `margins methods` lists them.
        settings: its hyperparameters, by name.
        link: "log_softmax" gives the loss log-probabilities in place of logits.
        targets: how the targets are set.
        penalties: losses of features added to it.
    """

    loss: str = "cross_entropy"
    settings: dict[str, Any] = Field(default_factory=dict)
    link: Literal["none", "log_softmax"] = "none"
    targets: TargetSettings = TargetSettings()
    penalties: tuple[PenaltySettings, ...] = ()

    @model_validator(mode="after")
    def _can_be_made(self) -> ObjectiveSettings:
        new_loss(self.loss, self.settings)
        return self


@cache
def _losses() -> dict[str, type[Loss]]:
    found = [getattr(losses, name) for name in losses.__all__]
    classes = [c for c in found if isinstance(c, type) and issubclass(c, Loss) and hasattr(c, "card")]
    return {snake_case(c.__name__): c for c in classes}


def snake_case(name: str) -> str:
    """A class name as recipes write it.

    Example:
        >>> [snake_case(name) for name in ("CrossEntropy", "ALDRKL", "InfoNCE", "ZLoss", "SupCon")]
        ['cross_entropy', 'aldrkl', 'info_nce', 'z_loss', 'sup_con']
    """
    spaced = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", re.sub(r"([a-z])([A-Z])", r"\1_\2", name))
    return spaced.lower()


def names_of_losses(*forms: str) -> list[str]:
    """The names of all losses, or of those of these forms."""
    return [name for name, c in _losses().items() if not forms or c.form in forms]


def loss_named(name: str) -> type[Loss]:
    """The class of the loss with this name, written as in recipes or as the class is.

    Raises:
        MarginsError: there is none; the nearest name is suggested.
    """
    known = _losses()
    key = name if name in known else snake_case(name)
    if key not in known:
        raise MarginsError(
            "loss", expected="the name of a loss", received=repr(name), fix=suggestion(name, list(known))
        )
    return known[key]


def new_loss(name: str, settings: dict[str, Any]) -> Loss:
    """A fresh loss.

    The parts of a weighted sum are pairs of a weight and a loss, by name or with settings:
    `[[1.0, normalized_cross_entropy], [0.5, {comp_sum: {tau: 2.0}}]]`.

    Example:
        >>> parts = [[1.0, "normalized_cross_entropy"], [0.5, {"comp_sum": {"tau": 2.0}}]]
        >>> new_loss("weighted_sum", {"parts": parts}).weights
        (1.0, 0.5)

    Raises:
        MarginsError: an unknown loss or hyperparameter, or a value out of its range.
    """
    kind = loss_named(name)
    known = [p for p in inspect.signature(kind.__init__).parameters if p not in ("self", "reduction")]
    for key in settings:
        if key not in known:
            raise MarginsError(
                f"settings of {name}", expected="a known hyperparameter", received=repr(key),
                fix=suggestion(key, known) if known else "it has none",
            )  # fmt: skip
    try:
        # YAML has no tuples, and no loss takes a list.
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
        if kind is losses.WeightedSum and "parts" in given:
            given["parts"] = [_part(part) for part in given["parts"]]
        return kind(**given)
    except TypeError as error:
        raise MarginsError(
            f"settings of {name}",
            expected=f"values for {', '.join(known)}",
            received=" ".join(str(error).split())[:200],
        ) from None


def _part(part: Any) -> tuple[float, Loss]:
    """A weight and a loss of a weighted sum, as recipes write them."""
    pair: list[Any] = list(part) if isinstance(part, (list, tuple)) else []
    named = pair[1] if len(pair) == 2 else None
    if isinstance(named, str):
        return pair[0], new_loss(named, {})
    if isinstance(named, dict) and len(named) == 1:
        ((name, settings),) = named.items()
        return pair[0], new_loss(str(name), dict(settings or {}))
    raise MarginsError(
        "settings of weighted_sum: parts", expected="pairs of a weight and the name of a loss",
        received=repr(part), fix="[[1.0, normalized_cross_entropy], [0.5, {comp_sum: {tau: 2.0}}]]",
    )  # fmt: skip
