"""The trainer: runs a recipe on training rows, keeps the best weights by the select rows, loses nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from margins.data.roles import SelectRows, TrainRows
from margins.errors import MarginsError
from margins.heads import LinearHead, OwnsUpdate
from margins.targets import Targets
from margins.training import nonfinite
from margins.training.checkpoint import copied, first_not_finite
from margins.training.engine import Engine, Place, StepReport
from margins.training.machine import one_cpu
from margins.training.network import Network
from margins.training.objective import Objective
from margins.training.parts.averaging import AveragedWeights
from margins.training.parts.drawing import Bags
from margins.training.parts.refreshing import AnyRefresh, HeadStart, Reweighing
from margins.training.predicting import Restoring, embeddings_of, metric_of, outputs_of, score_of
from margins.training.prior import refuse_double_correction
from margins.training.randomness import global_state_kept, seed_of
from margins.training.recipe import Recipe
from margins.training.without_scores import evaluator_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricOptimizer  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """How an epoch went.

    Args:
        epoch: counted from 1.
        loss: mean over its steps; comparable between recipes only where the loss says so.
        select_score: of the select rows, by the recipe's metric; NaN without any.
        learning_rate: of its last step.
        num_degenerate: rows that lacked what the loss needs, over the epoch.
        seconds: training and selection.
    """

    epoch: int
    loss: float
    select_score: float
    learning_rate: float
    num_degenerate: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a training went. The network itself holds the weights of `epoch`."""

    epoch: int  # whose weights were kept, counted from 1
    history: list[EpochRecord]

    @property
    def select_scores(self) -> list[float]:
        """After each epoch."""
        return [record.select_score for record in self.history]

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return sum(record.seconds for record in self.history)


class Watcher(Protocol):
    """Told how a training goes."""

    def step_done(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        """A step of an epoch is done; all are counted from 0."""

    def epoch_done(self, record: EpochRecord) -> None:
        """An epoch is done."""


@dataclass
class _Progress:
    """Where the training stands, all of it plain data."""

    epoch: int = 0
    step: int = 0  # of the epoch, the next to take
    loss_sum: float = 0.0  # over the epoch's steps so far
    num_degenerate: int = 0
    seconds: float = 0.0
    best: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """A training of one network by one recipe, which can be stopped after any step and gone on with.

    Args:
        recipe: how.
        network: trained in place; its encoder is fitted on the training rows first.
        train_rows: the only rows that gradients and fitted preprocessing see.
        select_rows: decide which epoch is kept; with None no training stops early and the last one is.
        generator: the one that the network's own modules draw from.
        fabric: device, precision and ranks; one process on the CPU by default.
        watcher: told how it goes.
        frozen: names of parts of the network, "encoder" or "head", that keep their weights.
        restored: values of training back to their own unit, for the select score.
        folder: where a bundle is left when a number is not finite; none is left without.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        train_rows: TrainRows,
        select_rows: SelectRows | None,
        *,
        generator: torch.Generator,
        fabric: Fabric | None = None,
        watcher: Watcher | None = None,
        frozen: tuple[str, ...] = (),
        restored: Restoring | None = None,
        folder: Path | None = None,
    ) -> None:
        self.recipe, self.network = recipe, network
        self._given, self._select = train_rows, select_rows
        self._metric = metric_of(recipe.task, recipe.metric)
        self._watcher, self._folder, self._restored = watcher, folder, restored
        fabric = fabric or one_cpu(recipe.precision)
        network.encoder.fit(train_rows.inputs)
        for name in frozen:
            network.get_submodule(name).requires_grad_(False)
        if isinstance(network.head, OwnsUpdate):
            _refuse_ranks(fabric.world_size)
            network.head.requires_grad_("head" not in frozen)
        network.to(fabric.device)
        objective = _objective(recipe, train_rows.targets).to(fabric.device)
        # A fused optimiser would undo the scaling of half precision itself, after the clipping.
        optimizer = recipe.optimizer.build([network, objective], fused=recipe.precision != "fp16")
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self.engine = Engine(
            fabric, network, objective, cast("_FabricOptimizer", fabric.setup_optimizers(optimizer)),
            rows=train_rows, mix=recipe.mix, generator=generator, clip_norm=recipe.clip_norm,
            accumulate=recipe.accumulate,
        )  # fmt: skip
        self._batch_size = recipe.rows_a_step(len(train_rows))
        self._averaged = AveragedWeights(network, recipe.averaging)
        self._class_ids: Tensor | None = None  # as a refresh has changed them
        self._row_weight: Tensor | None = None  # by a refresh, beside that of the data
        self._best: dict[str, Any] = {}
        self._progress = _Progress()
        self._steps = self._epoch_steps()
        self._previous = torch.zeros(0, dtype=torch.long)

    @property
    def history(self) -> list[EpochRecord]:
        """The epochs that are done."""
        return [EpochRecord(**record) for record in self._progress.history]

    @property
    def is_done(self) -> bool:
        """Whether there is no step left to take."""
        p, patience = self._progress, self.recipe.patience
        waited = len(p.history) - 1 - p.best
        return p.epoch >= self.recipe.max_epochs or (
            patience is not None and p.best >= 0 and p.step == 0 and waited >= patience
        )

    def run(self, after_step: Callable[[], None] | None = None) -> Fitted:
        """Trains to the end and leaves the network with the weights of the best epoch.

        Args:
            after_step: called when a step, with what follows it, is done; may save, and may raise to stop.

        Raises:
            MarginsError: something is no longer finite.
        """
        with global_state_kept():
            while not self.is_done:
                self.advance()
                if after_step is not None:
                    after_step()
        return self.finish()

    def advance(self) -> None:
        """Takes one step, and all that comes at the end of an epoch after its last one."""
        p, started = self._progress, time.perf_counter()
        if p.step == 0:
            self._begin_epoch()
        rows, place = self._steps[p.step], Place(self.recipe.seed, p.epoch, p.step)
        rate = self._set_rate()
        if not self.network.training:
            self.network.train()
        report = self._taken(rows, place, rate)
        ends_epoch = p.step + 1 == len(self._steps)
        self._averaged.after_step(progress=(p.epoch + 1) / self.recipe.max_epochs, ends_epoch=ends_epoch)
        self._previous = rows
        p.loss_sum += report.loss
        p.num_degenerate += report.num_degenerate
        p.step += 1
        p.seconds += time.perf_counter() - started
        if self._watcher:
            self._watcher.step_done(p.epoch, p.step - 1, len(self._steps), report.loss)
        if ends_epoch:
            self._end_epoch(rate)

    def finish(self) -> Fitted:
        """Gives the network the weights of the best epoch."""
        if self._best:
            self.network.load_state_dict(self._best)
        self.network.eval()
        return Fitted(epoch=self._progress.best + 1, history=self.history)

    def state_dict(self) -> dict[str, Any]:
        """All that has state."""
        scaler = self.engine.scaler
        return {
            "progress": asdict(self._progress),
            "network": self.network.state_dict(),
            "objective": self.engine.objective.state_dict(),
            "optimizer": self.engine.optimizer.state_dict(),
            "averaged": self._averaged.state_dict(),
            "best": self._best,
            "class_ids": self._class_ids,
            "row_weight": self._row_weight,
            "scaler": {} if scaler is None else scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave; the next step is the one that would have come then."""
        self._progress = _Progress(**state["progress"])
        self.network.load_state_dict(state["network"])
        self.engine.objective.load_state_dict(state["objective"])
        self.engine.optimizer.load_state_dict(state["optimizer"])
        self._averaged.load_state_dict(state["averaged"])
        self._best = state["best"]
        self._class_ids, self._row_weight = state["class_ids"], state["row_weight"]
        self._retarget()
        scaler = self.engine.scaler
        if scaler is not None:
            scaler.load_state_dict(state["scaler"])
        self._steps = self._epoch_steps()
        if not 0 <= self._progress.step < len(self._steps):
            raise ValueError(f"step {self._progress.step} of {len(self._steps)}")

    def _epoch_steps(self) -> list[Tensor]:
        return list(
            self.recipe.draw.epoch(
                self.engine.rows, batch_size=self._batch_size, seed=self.recipe.seed,
                epoch=self._progress.epoch,
            )
        )  # fmt: skip

    def _begin_epoch(self) -> None:
        p = self._progress
        for refresh in self.recipe.refresh:
            if refresh.is_due(p.epoch):
                self._refresh(refresh)
        self._steps = self._epoch_steps()
        self.engine.objective.train()
        self.engine.objective.start_epoch(p.epoch)

    def _refresh(self, refresh: AnyRefresh) -> None:
        fabric, given = self.engine.fabric, self._given
        if isinstance(refresh, HeadStart):
            head = self.network.head
            assert isinstance(head, LinearHead)  # noqa: S101 - recipes see to it
            embeddings = embeddings_of(fabric, self.network, given.inputs)
            refresh.start(head, embeddings, given.class_ids(), weight=given.targets.row_weight)
            return
        if isinstance(refresh, Reweighing):
            embeddings = embeddings_of(fabric, self.network, given.inputs)
            seed = seed_of(self.recipe.seed, "refresh", self._progress.epoch)
            self._row_weight = refresh.row_weight(embeddings, seed=seed)
        else:
            scores = outputs_of(fabric, self.network, given.inputs)[0]
            self._class_ids = refresh.class_ids(given.class_ids(), scores.double().softmax(1))
        self._retarget()

    def _retarget(self) -> None:
        """Gives the engine the rows as the refreshes have made them."""
        if self._class_ids is None and self._row_weight is None:
            return
        targets = self._given.targets
        if self._class_ids is not None:
            weight = targets.row_weight
            targets = Targets.of_classes(self._class_ids, targets.num_candidates)
            targets = targets if weight is None else targets.weigh(rows=weight)
        if self._row_weight is not None:
            targets = targets.weigh(rows=self._row_weight)
        self.engine.rows = TrainRows(self._given.inputs, targets, self._given.ids)

    def _set_rate(self) -> float:
        p, num = self._progress, len(self._steps)
        factor = self.recipe.schedule.factor(p.epoch * num + p.step, self.recipe.max_epochs * num)
        for group, rate in zip(self.engine.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self.engine.share_of_rate = factor
        return self._rates[0] * factor

    def _taken(self, rows: Tensor, place: Place, rate: float) -> StepReport:
        try:
            report = self.recipe.step.run(self.engine, rows, place)
        except MarginsError:
            found = self._look(rows, place, rate)
            if found.tensor == "loss":
                raise
            raise self._failure(found) from None
        if not math.isfinite(report.loss):
            raise self._failure(self._look(rows, place, rate))
        return report

    def _failure(self, found: nonfinite.NonFinite) -> MarginsError:
        return found.error(None if self._folder is None else found.save(self._folder))

    def _look(self, rows: Tensor, place: Place, rate: float) -> nonfinite.NonFinite:
        part = self.engine.micro_batches(rows)[0]

        def forward() -> Tensor:
            try:
                scores, _, targets = self.engine.forward(self.engine.batch(part), place, 0)
            except MarginsError:  # embeddings or weights that a source of scores refuses
                return torch.full((1,), torch.nan)
            if isinstance(scores, Tensor):
                return scores
            listed = targets.local.positives()
            return scores.listed(listed.rows, listed.columns, in_order=False)

        tensor, scores = nonfinite.first_nonfinite(self.network, forward)
        scaler = self.engine.scaler
        return nonfinite.NonFinite(
            tensor=tensor, epoch=place.epoch, step=place.step, learning_rate=rate,
            row_ids=self._ids(rows), previous_row_ids=self._ids(self._previous),
            objective=self.recipe.objective.model_dump(mode="json"),
            scaler={} if scaler is None else {"scale": float(scaler.get_scale())},
            **nonfinite.describe_step(scores, self.network),
        )  # fmt: skip

    def _ids(self, rows: Tensor) -> list[int]:
        ids = self._given.ids
        return (rows if ids is None else ids[rows]).tolist()

    def _end_epoch(self, rate: float) -> None:
        p, started = self._progress, time.perf_counter()
        if first_not_finite(self.network.state_dict()) is not None:
            raise self._failure(
                self._look(self._previous, Place(self.recipe.seed, p.epoch, p.step - 1), rate)
            )
        self._refuse_nothing_to_learn()
        with self._averaged.in_place():
            score = self._select_score()
            is_best = self._is_best(score)
            if is_best:
                self._best = copied(self.network.state_dict())
        record = EpochRecord(
            epoch=p.epoch + 1, loss=p.loss_sum / len(self._steps), select_score=score, learning_rate=rate,
            num_degenerate=p.num_degenerate, seconds=p.seconds + time.perf_counter() - started,
        )  # fmt: skip
        p.best = p.epoch if is_best else p.best
        self._progress = _Progress(epoch=p.epoch + 1, best=p.best, history=[*p.history, asdict(record)])
        if self._watcher:
            self._watcher.epoch_done(record)

    def _refuse_nothing_to_learn(self) -> None:
        drawn = sum(len(step) for step in self._steps)
        if self._progress.num_degenerate >= drawn:
            raise MarginsError(
                "objective.loss", expected="rows that have what it needs (a positive, a negative, a target)",
                received=f"none in all {len(self._steps)} batches of an epoch",
                fix="use draw several_per_class or larger batches, or another loss",
            )  # fmt: skip

    def _select_score(self) -> float:
        if self._select is None:
            return math.nan
        return score_of(
            self.engine.fabric, self.network, self._select, self._metric, self.recipe.task, self._restored
        )

    def _is_best(self, score: float) -> bool:
        p = self._progress
        if self._select is None or p.best < 0:
            return True  # without rows to choose the last epoch is the best, and patience never ends
        return self._metric.improvement(score - p.history[p.best]["select_score"]) > 0


def _refuse_ranks(num_ranks: int) -> None:
    if num_ranks > 1:
        raise MarginsError(
            "head", expected="one process for a spherical head", received=f"{num_ranks} ranks",
            fix="train on one device, or use head linear with evaluator blockwise",
        )  # fmt: skip


def _objective(recipe: Recipe, targets: Targets) -> Objective:
    bag_size = recipe.draw.size if isinstance(recipe.draw, Bags) else 1
    if recipe.task not in ("classes", "label_sets"):
        return Objective(recipe.objective, None, evaluator_of(recipe), bag_size=bag_size)
    counts = torch.bincount(targets.positives().columns, minlength=targets.num_candidates)
    refuse_double_correction(recipe, counts, [str(c) for c in range(len(counts))])
    num_rows = len(targets) if recipe.task == "label_sets" else None
    return Objective(recipe.objective, counts, evaluator_of(recipe), num_rows=num_rows, bag_size=bag_size)
