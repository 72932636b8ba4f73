"""What runs a trial: plain data in, plain data out, wherever it is run."""

from __future__ import annotations

from typing import Any

from margins.compare.problem.folding import FoldRoles
from margins.compare.problem.inputs import InputsOf
from margins.compare.problem.rows import ComparedRows
from margins.data.settings import validated
from margins.training.in_memory import train_problem
from margins.training.machine import Device
from margins.training.recipe import Recipe


class Bench:
    """Trains one recipe on one place after the other; what they share is made once.

    A trial of the kind "search" is handed no row that judges. One of the kind "outer" opens these rows once,
    when nothing is left to decide.

    Args:
        rows: the data.
        places: the roles of rows, by the digest that trials name them with.
        device: that trains.

    Its `inputs` are those of all rows, for others in the same process.
    """

    def __init__(self, rows: ComparedRows, places: dict[str, FoldRoles], *, device: Device = "cpu") -> None:
        self._rows, self._places = rows, places
        self.device: Device = device
        self.inputs = self._fresh_inputs()

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """The scores of the trial, by role, with how far it trained; whoever runs it measures its time.

        Args:
            task: as `Design.spec` gives it.

        Raises:
            MarginsError: the recipe cannot be trained on these rows.
        """
        roles = self._places[task["roles"]]
        recipe = validated(Recipe, task["recipe"], what="recipe")
        division = roles.division(with_test=task["kind"] == "outer")
        problem = self._rows.problem(division, self.inputs, roles.labels)
        model, fitted = train_problem(problem, recipe, device=self.device)
        epochs = sum(len(phase.history) for phase in fitted)
        scores: dict[str, dict[str, float]] = model.about["scores"]
        value: dict[str, Any] = {
            "select": scores["select"],
            "epoch": fitted[-1].epoch,
            "row_visits": epochs * len(division.train),
            "calibration": model.about.get("calibration"),
        }
        return value if "report" not in scores else {**value, "test": scores["report"]}

    def __getstate__(self) -> dict[str, Any]:
        # Another process makes its own inputs.
        return {k: v for k, v in self.__dict__.items() if k != "inputs"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.inputs = self._fresh_inputs()

    def _fresh_inputs(self) -> InputsOf:
        return InputsOf(self._rows.frame.only(list(self._rows.columns.inputs)))
