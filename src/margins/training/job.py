"""All phases of a recipe on one problem, with checkpoints when there is a folder."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from margins.data.class_coding import ClassCoding
from margins.data.coding import TargetCoding
from margins.data.roles import SelectRows
from margins.data.value_coding import ValueCoding
from margins.errors import MarginsError
from margins.evaluation.select_role import SelectPredictions
from margins.targets import Targets
from margins.training.checkpoint import changed
from margins.training.finishing import fitted_calibration, fitted_cut, fitted_thresholds
from margins.training.model import Model
from margins.training.objective_settings import loss_named
from margins.training.predicting import metric_of, outputs_of, refuse_unmeasurable
from margins.training.prior import PriorLedger, prior_ledger, refuse_double_correction
from margins.training.problem import Prepared, Problem, new_network
from margins.training.recipe import Phase, Recipe
from margins.training.run_folder import LOG, RunFolder
from margins.training.saving import CHECKPOINT, SavedTraining, phase_of, saved_state
from margins.training.trainer import EpochRecord, Fitted, Trainer, Watcher

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Job:
    """A recipe on a problem.

    Args:
        problem: rows with roles and targets. Without select rows every phase trains for all its epochs, and
            nothing is calibrated.
        recipe: with its plan.
        folder: of the run; None trains in memory.
        every_seconds: longest time between two checkpoints.
        watcher: told how it goes.
    """

    def __init__(
        self,
        problem: Problem,
        recipe: Recipe,
        folder: RunFolder | None = None,
        *,
        every_seconds: float = 60.0,
        watcher: Watcher | None = None,
    ) -> None:
        self._problem, self._recipe, self._folder = problem, recipe, folder
        self._every_seconds = every_seconds
        self._watcher = watcher
        columns = problem.columns
        self._preparation = recipe.encoder.prepare(
            problem.training_frame().only(list(columns.inputs)), columns.inputs
        )
        self.prepared: Prepared = problem.prepared(self._preparation)
        self.ledger: PriorLedger | None = self._checked_ledger()
        self._refuse_unusable_roles()
        _refuse_without_order(recipe, problem.coding)
        self._network, self._generator = new_network(recipe, self._preparation, problem.coding.num_outputs)
        # What the encoder itself keeps fixed stays so in every phase.
        self._trainable = [p for p in self._network.parameters() if p.requires_grad]

    def run(self, fabric: Fabric) -> list[Fitted]:
        """Trains every phase that is not done yet, on this device and these ranks; gives all of them."""
        state = None if self._folder is None else saved_state(self._folder.path)
        phases = list(zip(self._recipe.phases(), [Phase(), *self._recipe.plan], strict=True))
        start, done = 0, list[Fitted]()
        if state is not None and self._folder is not None:
            start = phase_of(state, num_phases=len(phases), folder=self._folder.path)
            try:
                done = [_fitted(f) for f in state["earlier"]]
            except (TypeError, LookupError) as error:
                raise changed(self._folder.path / CHECKPOINT, error) from error
        for number in range(start, len(phases)):
            recipe, phase = phases[number]
            if phase.fresh_head:
                fresh, _ = new_network(recipe, self._preparation, self._problem.coding.num_outputs)
                self._network.head.load_state_dict(fresh.head.state_dict())
            done.append(
                self._one_phase(fabric, recipe, phase, number, done, state if number == start else None)
            )
        return done

    def decided(self, fabric: Fabric) -> Model:
        """The model, with what is fitted on the select rows: calibration, thresholds and a cut."""
        problem, rows = self._problem, self._select
        shift = None if self.ledger is None else self.ledger.shift()
        is_fitted = rows is not None and self.ledger is not None
        scores = outputs_of(fabric, self._network, rows.inputs)[0] if rows is not None and is_fitted else None
        model = Model(
            self._recipe, problem.columns, problem.coding, self._preparation, self._network.cpu(),
            prior_shift=None if shift is None else tuple(shift.tolist()),
        )  # fmt: skip
        return model if scores is None or rows is None else self._with_decisions(model, rows, scores)

    def _with_decisions(self, model: Model, rows: SelectRows, scores: torch.Tensor) -> Model:
        assert self.ledger is not None  # noqa: S101 - classes and labels have one
        select = self._select_predictions(rows, scores)
        model = replace(
            model,
            calibration=fitted_calibration(self._recipe, select, prior_shift=self.ledger.shift()),
            thresholds=fitted_thresholds(self._recipe, select),
        )
        return replace(model, cut=fitted_cut(model, scores, rows, self.ledger.population))

    def _checked_ledger(self) -> PriorLedger | None:
        """The shares of classes or labels as training sees them, unless several parts correct them."""
        recipe, names = self._recipe, self._problem.coding.names
        if recipe.task not in ("classes", "label_sets"):
            return None
        targets = self.prepared.train.targets
        counts = torch.bincount(targets.positives().columns, minlength=len(names))
        refuse_double_correction(recipe, counts, names)
        return prior_ledger(recipe, counts, names, num_rows=len(targets))

    def _refuse_unusable_roles(self) -> None:
        # Found out after training, it would cost the whole run.
        problem = self._problem
        for recipe in self._recipe.phases():
            recipe.draw.order(self.prepared.train, torch.Generator().manual_seed(0))
        for role in ("select", "report"):
            rows = torch.from_numpy(getattr(problem.division, role))
            if len(rows):
                self._refuse_unmeasurable(role, problem.targets.take(rows))

    def _refuse_unmeasurable(self, role: str, targets: Targets) -> None:
        for name in dict.fromkeys(recipe.metric for recipe in self._recipe.phases()):
            try:
                refuse_unmeasurable(metric_of(self._recipe.task, name), self._recipe.task, targets)
            except MarginsError as error:
                raise MarginsError(
                    f"metric {name!r}",
                    expected=f"{role} rows that it can judge: {error.argument}: {error.expected}",
                    received=error.received,
                    fix=error.fix or f"choose another metric, or give the role {role} other rows",
                ) from None

    @property
    def _select(self) -> SelectRows | None:
        return self.prepared.select if len(self._problem.division.select) else None

    def _select_predictions(self, rows: SelectRows, scores: Any) -> SelectPredictions:
        if self._recipe.task == "classes":
            return SelectPredictions(scores, rows.class_ids())
        return SelectPredictions(scores, rows.targets)

    def _one_phase(
        self,
        fabric: Fabric,
        recipe: Recipe,
        phase: Phase,
        number: int,
        done: list[Fitted],
        state: dict[str, Any] | None,
    ) -> Fitted:
        for parameter in self._trainable:
            parameter.requires_grad_(True)
        log = _Log(fabric, self._folder, [*done], self._watcher)
        coding = self._problem.coding
        trainer = Trainer(
            recipe, self._network, self.prepared.train, self._select, generator=self._generator,
            fabric=fabric, watcher=log, frozen=tuple(phase.frozen),
            restored=coding.restored if isinstance(coding, ValueCoding) else None,
            folder=None if self._folder is None else self._folder.path,
        )  # fmt: skip
        if self._folder is None:
            return trainer.run()
        saved = SavedTraining(
            trainer, self._folder.path, fingerprint=self._problem.frame.fingerprint, phase=number,
            earlier=[asdict(f) for f in done], every_seconds=self._every_seconds,
        )  # fmt: skip
        if state is not None:
            saved.resume(state)
            log.history = list(trainer.history)
        return saved.run()


class _Log:
    """Writes the run's log after every epoch, and tells loggers and another watcher."""

    def __init__(
        self, fabric: Fabric, folder: RunFolder | None, done: list[Fitted], watcher: Watcher | None
    ) -> None:
        # One rank writes and tells for all.
        is_first = fabric.global_rank == 0
        self._fabric, self._folder, self._watcher = (
            fabric, folder if is_first else None, watcher if is_first else None
        )  # fmt: skip
        self._done = done
        self.history: list[EpochRecord] = []

    def step_done(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        if self._watcher:
            self._watcher.step_done(epoch, step, num_steps, loss)

    def epoch_done(self, record: EpochRecord) -> None:
        self.history.append(record)
        before = sum(len(f.history) for f in self._done)
        numbers = {k: v for k, v in asdict(record).items() if k not in ("epoch", "seconds")}
        self._fabric.log_dict(numbers, step=before + record.epoch)
        if self._folder is not None:
            phases = [*(f.history for f in self._done), self.history]
            rows = [{"phase": n, **asdict(r)} for n, history in enumerate(phases) for r in history]
            self._folder.write_lines(LOG, rows)
        if self._watcher:
            self._watcher.epoch_done(record)


def _refuse_without_order(recipe: Recipe, coding: TargetCoding) -> None:
    """Raises MarginsError for a head or a loss to which classes have an order, of classes without one."""
    if coding.num_outputs < 3 or (isinstance(coding, ClassCoding) and coding.is_ordered):
        return
    for phase in recipe.phases():
        for part, name, reads in (
            ("head", phase.head.name, phase.head.reads_order),
            ("objective.loss", phase.objective.loss, loss_named(phase.objective.loss).reads_order),
        ):
            if reads:
                raise MarginsError(
                    part, expected=f"an order of the classes, for {name} reads one",
                    received="classes that are numbered by how frequent they are",
                    fix="class_order=['low', 'middle', 'high'] or --class-order low,middle,high",
                )  # fmt: skip


def _fitted(data: dict[str, Any]) -> Fitted:
    return Fitted(epoch=data["epoch"], history=[EpochRecord(**record) for record in data["history"]])
