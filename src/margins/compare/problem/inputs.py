"""The inputs of all rows, made once for every fold and recipe that needs them alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from margins.data.frame import Frame
from margins.data.roles import RowInputs
from margins.encoders.base import Preparation
from margins.training.problem import Prepared, Problem


class InputsOf:
    """The inputs of all rows; made anew only when the preparation is in another state than last time.

    Args:
        frame: all rows with the columns that a model sees.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._state: tuple[type, dict[str, Any]] | None = None
        self._inputs: Any = None

    def __call__(self, preparation: Preparation) -> RowInputs:
        """The inputs as this preparation makes them."""
        state = (type(preparation), preparation.to_data())
        if state != self._state:
            self._inputs = None  # two at once may not fit
            self._inputs, self._state = preparation(self._frame), state
        return self._inputs


@dataclass(frozen=True, eq=False)
class SharedInputsProblem(Problem):
    """A problem whose inputs others may have had made already.

    Args:
        inputs_of: makes them, or knows them.
    """

    inputs_of: InputsOf

    def prepared(self, preparation: Preparation) -> Prepared:
        """The rows as the encoder takes them."""
        return Prepared(self, self.inputs_of(preparation))
