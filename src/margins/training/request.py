"""What a run was asked to do, as plain data: all that is needed to repeat it, but for the data themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from pydantic import TypeAdapter, ValidationError

from margins.data.columns import InputKind, TargetKind
from margins.data.nearest import suggestion
from margins.errors import MarginsError
from margins.training.machine import Device
from margins.training.saving import EVERY_SECONDS


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which columns play which role, where the user says so; the rest is guessed where it is unambiguous.

    Args:
        inputs: columns that the model sees.
        target: the column to predict.
        kinds: what an input is, where its cells would say otherwise.
        target_kind: what the target's cells mean.
        separator: between the labels of a set or the steps of a path.
        class_order: classes from the lowest to the highest, where they are grades or levels.
        weight: of rows.
        group: whose rows stay in one role.
        domain: where a row comes from.
        id: names a row.
        split: the role of each row.
        time: order in which rows are divided.
    """

    inputs: list[str] | None = None
    target: str | None = None
    kinds: dict[str, InputKind] | None = None
    target_kind: TargetKind | None = None
    separator: str | None = None
    class_order: list[str] | None = None
    weight: str | None = None
    group: str | None = None
    domain: str | None = None
    id: str | None = None
    split: str | None = None
    time: str | None = None

    @classmethod
    def of(cls, named: Mapping[str, Any]) -> Roles:
        """Roles from keywords.

        Raises:
            MarginsError: a keyword that is none; the nearest is suggested.
        """
        known = list(cls.__dataclass_fields__)
        for name in named:
            if name not in known:
                raise MarginsError(
                    name, expected="a role of a column or an argument of train", received=repr(name),
                    fix=suggestion(name, known),
                )  # fmt: skip
        return cls(**named)


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that a run needs to be repeated, but for the data itself.

    Args:
        roles: of columns.
        changes: keys of a recipe that are not to have their defaults.
        select_share: of the rows, where no column says.
        report_share: of the rows, where no column says.
        division_seed: of the division; the recipe's seed when None.
        device: "auto", "cpu" or "cuda".
        every_seconds: longest time between two checkpoints.
        threads: of torch on the CPU; None takes what suits the encoder. Other numbers of threads add up in
            another order, so a run keeps its own.
    """

    roles: Roles = Roles()
    changes: Mapping[str, Any] | None = None
    select_share: float = 0.15
    report_share: float = 0.15
    division_seed: int | None = None
    device: Device = "auto"
    every_seconds: float = EVERY_SECONDS
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise MarginsError("threads", expected="at least 1", received=str(self.threads))
        if not (math.isfinite(self.every_seconds) and self.every_seconds >= 0):
            raise MarginsError(
                "every_seconds", expected="a finite number of at least 0", received=str(self.every_seconds)
            )
        if self.device not in get_args(Device):
            raise MarginsError("device", expected="auto, cpu or cuda", received=repr(self.device))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise MarginsError(
                "device", expected="a device that is here", received="'cuda', and torch finds none",
                fix="say auto or cpu",
            )  # fmt: skip

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Request:
        """The request that `dataclasses.asdict` made plain.

        Raises:
            MarginsError: it did not.
        """
        try:
            return TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise MarginsError(
                f"request: {place}", expected=first["msg"], received=repr(first["input"])[:100]
            ) from None
