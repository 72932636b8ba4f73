"""What a step works with: the network, the objective and the machine, with every rank and precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from margins.data.batch import Batch
from margins.data.roles import TrainRows
from margins.engine.sources import Source
from margins.heads import OwnsUpdate
from margins.training.network import Network
from margins.training.objective import Objective, StepLoss, StepTargets
from margins.training.parts.drawing import share_of
from margins.training.parts.mixing import Mix
from margins.training.randomness import reseed

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricOptimizer  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True)
class Place:
    """Where in a run a step stands."""

    seed: int
    epoch: int
    step: int  # of the epoch


@dataclass(frozen=True, eq=False)
class StepReport:
    """What a step leaves behind.

    Args:
        loss: of the whole step, over all ranks and micro-batches.
        num_degenerate: rows of it that lacked what the loss needs.
    """

    loss: float
    num_degenerate: int


class Engine:
    """Forward, backward and exchange for the steps of a run.

    Args:
        fabric: the device, the precision, the ranks.
        network: on the device.
        objective: on the device.
        optimizer: of both, set up by fabric.
        rows: the training rows.
        mix: the station.
        generator: what the network's own modules draw from.
        clip_norm: largest norm of the gradient; None does not clip.
        accumulate: micro-batches a step.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: Network,
        objective: Objective,
        optimizer: _FabricOptimizer,
        *,
        rows: TrainRows,
        mix: Mix,
        generator: torch.Generator,
        clip_norm: float | None,
        accumulate: int,
    ) -> None:
        self.fabric, self.network, self.objective, self.optimizer = fabric, network, objective, optimizer
        self.rows, self._mix, self._generator = rows, mix, generator
        self._clip_norm = clip_norm
        self.accumulate = accumulate
        self._own_head = network.head if isinstance(network.head, OwnsUpdate) else None
        self.share_of_rate = 1.0  # of the largest learning rate, for a head that takes its own steps
        self.parameters = [
            p for module in (network, objective) for p in module.parameters() if p.requires_grad
        ]

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What keeps half-precision gradients in range; None in other precisions."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    @property
    def num_ranks(self) -> int:
        """How many processes share each step."""
        return self.fabric.world_size

    def micro_batches(self, step: Tensor) -> list[Tensor]:
        """The rows of a step that are this rank's, part by part; none is empty, or there is only one."""
        if self.num_ranks == self.accumulate == 1:
            return [step]
        mine = share_of(step, part=self.fabric.global_rank, parts=self.num_ranks)
        parts = [part for part in mine.tensor_split(self.accumulate) if len(part)]
        return parts or [mine]

    def batch(self, rows: Tensor) -> Batch[Any]:
        """These rows on the device."""
        batch = self.rows.batch(rows)
        if self.fabric.device.type == "cpu":
            return batch
        device = self.fabric.device
        return Batch(batch.inputs.to(device), batch.targets.to(device), batch.ids.to(device))

    def forward(
        self, batch: Batch[Any], place: Place, part: int
    ) -> tuple[Tensor | Source, Tensor, StepTargets]:
        """Scores, embeddings and targets of a micro-batch; the same call draws the same random numbers.

        In place of the scores stands the head's source of them when the objective has an evaluator.

        Args:
            batch: the rows.
            place: of the step.
            part: which micro-batch of the step.
        """
        draws = (place.seed, "step", place.epoch, place.step, part, self.fabric.global_rank)
        reseed(self._generator, *draws)
        plan = self._mix.plan(len(batch), (*draws, "mix"))
        score = self.network if self.objective.evaluator is None else self.network.source
        with self.fabric.autocast():
            scores, embeddings = score(batch.inputs, plan)
        targets = batch.targets if plan is None else plan.targets(batch.targets)
        return scores, embeddings, StepTargets(targets, targets, 0, batch.ids)

    def with_all_ranks(self, own: StepTargets, step: Tensor) -> StepTargets:
        """The targets with those of the other ranks, whose rows every rank knows."""
        if self.num_ranks == 1:
            return own
        parts = [share_of(step, part=p, parts=self.num_ranks) for p in range(self.num_ranks)]
        start = sum(len(part) for part in parts[: self.fabric.global_rank])
        whole = self.rows.targets.take(step).to(own.local.device)
        return StepTargets(own.local, whole, start, own.ids, self.num_ranks)

    def loss_of(self, share: StepLoss) -> Tensor:
        """What this rank differentiates: its part of the loss of the step; all parts add up to it."""
        loss = share.total / _positive(self.summed(share.denominator))
        return loss if share.extra is None else loss + share.extra

    def summed(self, value: Tensor) -> Tensor:
        """The sum over ranks of a detached tensor."""
        if self.num_ranks > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value

    def reported(self, loss: Tensor, num_degenerate: int) -> StepReport:
        """The report of a step from every rank's part."""
        total = self.summed(loss.detach())
        return StepReport(float(total), num_degenerate)

    def collect_gradients(self) -> None:
        """Adds up the gradients of all ranks; a parameter without one anywhere stays without."""
        if self.num_ranks == 1:
            return
        has = torch.tensor([p.grad is not None for p in self.parameters], dtype=torch.int32)
        has = self.summed(has.to(self.fabric.device)) > 0
        for parameter, anywhere in zip(self.parameters, has.tolist(), strict=True):
            if anywhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def scale_gradients(self, factor: Tensor) -> None:
        """Multiplies all gradients."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        if self._own_head is not None:
            self._own_head.scale_gradient(factor)

    def zero_gradients(self) -> None:
        """Forgets all gradients."""
        self.optimizer.zero_grad()
        if self._own_head is not None:
            self._own_head.zero_gradient()

    def update(self) -> None:
        """Clips, and lets the optimiser step, and the head if it does so itself."""
        if self._clip_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer.optimizer)
            self._clip(self._clip_norm)
        self.optimizer.step()
        if self._own_head is not None:
            self._own_head.update(self.share_of_rate)

    def _clip(self, largest: float) -> None:
        if self._own_head is None:
            torch.nn.utils.clip_grad_norm_(self.parameters, largest)
            return
        norms = [p.grad.norm().double() for p in self.parameters if p.grad is not None]
        norm = torch.stack([*norms, self._own_head.gradient_norm()]).norm()
        self.scale_gradients((largest / (norm + 1e-6)).clamp(max=1.0))  # torch's own rule


def _positive(divisor: Tensor) -> Tensor | float:
    """The divisor, or 1 where nothing counts: such a step has loss 0, on the graph."""
    if divisor.device.type == "cpu":  # a number costs less than a tensor, and nothing waits for it here
        return float(divisor) or 1.0
    return torch.where(divisor > 0, divisor, 1.0)


def concatenated_targets(parts: Sequence[StepTargets]) -> StepTargets:
    """The targets of all micro-batches of a rank."""
    if len(parts) == 1:
        return parts[0]
    local = type(parts[0].local).cat([part.local for part in parts])
    return StepTargets(local, local, 0, torch.cat([part.ids for part in parts]))
