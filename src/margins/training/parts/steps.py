"""Kinds of `step`: what owns forward, backward and update of one batch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from margins.data.batch import Batch
from margins.data.roles import class_ids
from margins.data.settings import Settings
from margins.engine.sources import Source
from margins.errors import MarginsError
from margins.heads import NoPropHead
from margins.losses import CompSum
from margins.robust import PGD, margin_change, most_changed, movable
from margins.training.engine import Engine, Place, StepReport, concatenated_targets
from margins.training.randomness import generator_of


class Step(Settings):
    """A kind of step."""

    name: Any  # a literal string in each part

    @abstractmethod
    def run(self, engine: Engine, rows: Tensor, place: Place) -> StepReport:
        """Takes one step on these rows (of all ranks) and updates the weights."""


class StandardStep(Step):
    """One forward, one backward, one update.

    With several micro-batches: a loss whose rows are independent is added up part by part and divided once;
    any other sees the scores of the whole batch, and each part is run again for its gradient (gradient
    caching), with the same random numbers. Either way the result is that of one big batch.
    """

    name: Literal["standard"] = "standard"

    def run(self, engine: Engine, rows: Tensor, place: Place) -> StepReport:
        engine.zero_gradients()
        parts = engine.micro_batches(rows)
        if engine.accumulate == 1:
            report = gradients_of(engine, parts[0], rows, place)
        elif engine.objective.has_independent_rows:
            report = _added_up(engine, parts, place)
        else:
            report = _cached(engine, parts, rows, place)
        engine.collect_gradients()
        engine.update()
        return report


class SharpnessAware(Step):
    """Sharpness-aware minimisation: the gradient at the worst point nearby, at twice the cost.

    The weights go up the gradient by `rho`, the gradient there is taken, and the update is made from where
    they were. Both passes draw the same random numbers. For noisy labels and small data.

    Args:
        rho: > 0, the distance.

    References:
        Foret et al., Sharpness-Aware Minimization, 2021, arXiv 2010.01412, eq. 2 and algorithm 1.
    """

    name: Literal["sharpness_aware"] = "sharpness_aware"
    rho: Annotated[float, Field(gt=0)] = 0.05

    def run(self, engine: Engine, rows: Tensor, place: Place) -> StepReport:
        engine.zero_gradients()
        (mine,) = engine.micro_batches(rows)
        report = gradients_of(engine, mine, rows, place)
        engine.collect_gradients()
        before = [p.detach().clone() for p in engine.parameters]
        _climb(engine.parameters, self.rho)
        engine.zero_gradients()
        gradients_of(engine, mine, rows, place)
        engine.collect_gradients()
        with torch.no_grad():
            for parameter, value in zip(engine.parameters, before, strict=True):
                parameter.copy_(value)
        engine.update()
        return report


class SmoothAdversarialStep(Step):
    r"""The recipe's loss, plus how far the margins of each row can be moved inside a ball around its input.

    For inputs that somebody may change a little to do harm; with the loss comp_sum it is the smooth
    adversarial comp-sum loss. It costs about `num_steps + 2` standard steps. For classes, and for numbers,
    vectors or images: numbers are moved in standard deviations of the training rows, pixels of [0, 1] inside
    it, vectors as they are. The search sees the network in evaluation mode; dropout and moved images are the
    same at both ends of a change. Without mixing of rows.

    Args:
        radius: > 0, of the ball.
        norm: "linf", each number by itself, or "l2", the length of a row's change.
        weight: $\nu$ > 0, of the change beside the loss.
        num_steps: of the search.
        step_size: of the search; a quarter of the radius when None.

    References:
        Mao, Mohri, Zhong, Cross-Entropy Loss Functions, 2023, arXiv 2304.07288.
    """

    name: Literal["smooth_adversarial"] = "smooth_adversarial"
    radius: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    norm: Literal["linf", "l2"] = "linf"
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    num_steps: Annotated[int, Field(ge=1)] = 10
    step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def run(self, engine: Engine, rows: Tensor, place: Place) -> StepReport:
        engine.zero_gradients()
        (mine,) = engine.micro_batches(rows)
        batch = engine.batch(mine)
        labels = class_ids(batch.targets)
        scores, embeddings, targets = engine.forward(batch, place, 0)
        scores = plain_scores(self.name, scores, targets.local is batch.targets)
        moved, _, _ = engine.forward(self._moved(engine, batch, labels, place), place, 0)
        assert isinstance(moved, Tensor)  # noqa: S101 - as the scores
        change = margin_change(moved, scores, labels)
        weight = targets.local.row_weight
        change = change.sum() if weight is None else change @ weight.to(change.dtype)
        share = engine.objective(scores, embeddings, engine.with_all_ranks(targets, rows))
        extra = self.weight * change / len(rows)
        loss = engine.loss_of(replace(share, extra=extra if share.extra is None else share.extra + extra))
        report = engine.reported(loss, share.num_degenerate)
        engine.fabric.backward(loss)
        engine.collect_gradients()
        engine.update()
        return report

    def _moved(self, engine: Engine, batch: Batch[Any], labels: Tensor, place: Place) -> Batch[Any]:
        network, numbers = engine.network, movable(engine.network.encoder, batch.inputs)
        attack = PGD(
            self.radius, norm=self.norm, num_steps=self.num_steps, step_size=self.step_size,
            start_noise=min(1e-3, self.radius), low=numbers.low, high=numbers.high,
        )  # fmt: skip
        rank = engine.fabric.global_rank
        found = most_changed(
            lambda values: network(numbers.as_inputs(values))[0],
            numbers.values, labels, attack,
            generator=generator_of(place.seed, "attack", place.epoch, place.step, rank), model=network,
        )  # fmt: skip
        return Batch(numbers.as_inputs(found), batch.targets, batch.ids)


class ErrorNormalizedStep(Step):
    """A step whose gradient is divided by the mean of 1 - p over its rows, so that it never fades.

    For nearly separable classes with few hard rows, a linear head and plain SGD with a large rate; see
    `margins.losses.ErrorNormalized`. An adaptive optimiser such as AdamW undoes the scale of a gradient.
    Without mixing of rows.

    Args:
        floor: > 0, the least divisor.

    References:
        Tyurin 2024, arXiv 2412.08424.
    """

    name: Literal["error_normalized"] = "error_normalized"
    floor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-6

    def run(self, engine: Engine, rows: Tensor, place: Place) -> StepReport:
        engine.zero_gradients()
        (mine,) = engine.micro_batches(rows)
        batch = engine.batch(mine)
        scores, embeddings, targets = engine.forward(batch, place, 0)
        plain = plain_scores(self.name, scores, targets.local is batch.targets)
        share = engine.objective(scores, embeddings, engine.with_all_ranks(targets, rows))
        errors = CompSum(tau=2.0).rows(plain.detach(), batch.targets)
        num_rows = engine.summed(errors.denominator("mean")).clamp(min=1)
        error = engine.summed(errors.weighted().sum()) / num_rows
        loss = engine.loss_of(share)
        report = engine.reported(loss, share.num_degenerate)
        engine.fabric.backward(loss / error.clamp(min=self.floor))
        engine.collect_gradients()
        engine.update()
        return report


class NoPropStep(Step):
    """The blocks of the head `no_prop` learn one after the other, each from its own noisy labels.

    No gradient goes from block to block or to the encoder, and the activations of one block are held at a
    time. In one process.

    References:
        Li, Teh, Pascanu 2025, arXiv 2503.24322.
    """

    name: Literal["no_prop"] = "no_prop"

    def run(self, engine: Engine, rows: Tensor, place: Place) -> StepReport:
        head = engine.network.head
        assert isinstance(head, NoPropHead)  # noqa: S101 - recipes see to it
        if engine.num_ranks > 1:
            raise MarginsError(
                "step", expected="one process with no_prop", received=f"{engine.num_ranks} ranks",
                fix="train on one device",
            )  # fmt: skip
        engine.zero_gradients()
        batch = engine.batch(rows)
        with torch.no_grad(), engine.fabric.autocast():
            embeddings = engine.network.embeddings(batch.inputs)
        total = torch.zeros((), device=embeddings.device)
        for loss in head.each_loss(
            embeddings.float(), class_ids(batch.targets), weight=batch.targets.row_weight,
            generator=generator_of(place.seed, "noise", place.epoch, place.step),
        ):  # fmt: skip
            engine.fabric.backward(loss)
            total += loss.detach()
            del loss
        engine.update()
        return engine.reported(total, 0)


AnyStep = Annotated[
    StandardStep | SharpnessAware | SmoothAdversarialStep | ErrorNormalizedStep | NoPropStep,
    Field(discriminator="name"),
]


def plain_scores(step: str, scores: Tensor | Source, is_unmixed: bool) -> Tensor:
    """The scores of a step that looks at those of whole rows.

    Raises:
        MarginsError: rows are mixed, or the scores are never held at once.
    """
    if not isinstance(scores, Tensor) or not is_unmixed:
        raise MarginsError(
            "step", expected=f"the evaluator dense and no mix with {step}", received="others",
            fix="take them out of the recipe",
        )  # fmt: skip
    return scores


def gradients_of(engine: Engine, mine: Tensor, rows: Tensor, place: Place) -> StepReport:
    """Leaves this rank's part of the gradient of a step in the parameters."""
    scores, embeddings, targets = engine.forward(engine.batch(mine), place, 0)
    share = engine.objective(scores, embeddings, engine.with_all_ranks(targets, rows))
    loss = engine.loss_of(share)
    report = engine.reported(loss, share.num_degenerate)
    engine.fabric.backward(loss)
    return report


def _added_up(engine: Engine, parts: list[Tensor], place: Place) -> StepReport:
    total = denominator = torch.zeros((), device=engine.fabric.device)
    num_degenerate = 0
    for number, part in enumerate(parts):
        scores, embeddings, targets = engine.forward(engine.batch(part), place, number)
        share = engine.objective(scores, embeddings, targets)
        engine.fabric.backward(share.total)
        total, denominator = total + share.total.detach(), denominator + share.denominator
        num_degenerate += share.num_degenerate
    # The divisor is known only now, when all parts have been counted.
    divisor = engine.summed(denominator).clamp(min=torch.finfo(torch.float32).tiny)
    engine.scale_gradients(1 / divisor)
    return engine.reported(total / divisor, num_degenerate)


def _cached(engine: Engine, parts: list[Tensor], rows: Tensor, place: Place) -> StepReport:
    # A recipe whose head makes no scores has independent rows, and does not come here.
    with torch.no_grad():
        seen = [engine.forward(engine.batch(part), place, number) for number, part in enumerate(parts)]
    scores = torch.cat([s for s, _, _ in seen if isinstance(s, Tensor)]).requires_grad_()
    embeddings = torch.cat([e for _, e, _ in seen]).requires_grad_()
    targets = concatenated_targets([t for _, _, t in seen])
    share = engine.objective(scores, embeddings, engine.with_all_ranks(targets, rows))
    loss = engine.loss_of(share)
    report = engine.reported(loss, share.num_degenerate)
    engine.fabric.backward(loss)
    start = 0
    for number, part in enumerate(parts):
        outputs = [o for o in engine.forward(engine.batch(part), place, number)[:2] if isinstance(o, Tensor)]
        place_of = slice(start, start + len(part))
        start += len(part)
        # As a product whose gradient is the cached one: a precision's scaler is in it already.
        pairs = zip(outputs, (scores.grad, embeddings.grad), strict=True)
        with_gradient = [(o, g[place_of]) for o, g in pairs if g is not None and o.requires_grad]
        torch.autograd.backward([o for o, _ in with_gradient], [g for _, g in with_gradient])
    return report


@torch.no_grad()
def _climb(parameters: list[torch.nn.Parameter], rho: float) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    norm = torch.stack([g.norm() for g in gradients]).norm()
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.add_(parameter.grad, alpha=float(rho / norm.clamp(min=1e-12)))
