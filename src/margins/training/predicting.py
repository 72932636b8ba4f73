"""What a network says of rows, and how good that is by a metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.data.roles import RowInputs, SelectRows, class_ids
from margins.engine import gather_rows
from margins.evaluation import Metric, find_metric
from margins.evaluation.records import Embeddings
from margins.evaluation.records import Task as MetricTask
from margins.targets import Targets
from margins.training.network import Network
from margins.training.parts.drawing import share_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Restoring = Callable[[Tensor], Tensor]
Floats = npt.NDArray[np.float64]

ROWS_AT_ONCE = 2048
_METRIC_TASKS: dict[str, MetricTask] = {
    "classes": "classes", "label_sets": "label_sets", "values": "values", "matches": "rankings",
}  # fmt: skip


def metric_of(task: str, name: str) -> Metric:
    """The metric of this name, for the task of a recipe.

    Raises:
        MarginsError: there is none, or it is of another task.
    """
    return find_metric(name, task=_METRIC_TASKS[task])


@torch.no_grad()
def outputs_of(
    fabric: Fabric, network: Network, inputs: RowInputs, *, rows_at_once: int = ROWS_AT_ONCE
) -> tuple[Tensor, Tensor]:
    """Scores and embeddings of all rows in float32 on the CPU; ranks share the work and all get the whole.

    The network's mode, training or not, is the same after the call.
    """
    scores, embeddings = _by_parts(fabric, network, network, inputs, rows_at_once)
    return scores, embeddings


@torch.no_grad()
def embeddings_of(
    fabric: Fabric, network: Network, inputs: RowInputs, *, rows_at_once: int = ROWS_AT_ONCE
) -> Tensor:
    """Embeddings of all rows as `outputs_of` gives them; no scores are made."""
    (embeddings,) = _by_parts(
        fabric, network, lambda part: (network.embeddings(part),), inputs, rows_at_once
    )  # fmt: skip
    return embeddings


def _by_parts(
    fabric: Fabric,
    network: Network,
    outputs: Callable[[Any], tuple[Tensor, ...]],
    inputs: RowInputs,
    rows_at_once: int,
) -> list[Tensor]:
    was_training = network.training
    network.eval()
    rows = share_of(torch.arange(len(inputs)), part=fabric.global_rank, parts=fabric.world_size)
    found = [_on_device(fabric, outputs, inputs.take(part)) for part in rows.split(rows_at_once)]
    network.train(was_training)
    return [gather_rows(torch.cat(parts)).cpu() for parts in zip(*found, strict=True)]


def _on_device(
    fabric: Fabric, outputs: Callable[[Any], tuple[Tensor, ...]], inputs: Any
) -> tuple[Tensor, ...]:
    on_device = inputs if fabric.device.type == "cpu" else inputs.to(fabric.device)
    with fabric.autocast():
        return tuple(output.float() for output in outputs(on_device))


def score_of(
    fabric: Fabric,
    network: Network,
    rows: SelectRows,
    metric: Metric,
    task: str,
    restored: Restoring | None = None,
) -> float:
    """The metric of the network on rows of the select role; see `measured`."""
    return measured(metric, task, outputs_of(fabric, network, rows.inputs)[0], rows.targets, restored)


def measured(
    metric: Metric, task: str, scores: Tensor, targets: Targets, restored: Restoring | None = None
) -> float:
    """The metric of scores [N, C], or for the task "matches" of embeddings [N, d] against each other.

    Args:
        metric: of the task.
        task: of the recipe.
        scores: as the network gives them.
        targets: of the same rows.
        restored: values of training back to their own unit.
    """
    weight = None if targets.row_weight is None else targets.row_weight.double().numpy()
    return metric.measure(*judged(metric, task, scores, unweighted(targets), restored), weight=weight).value


def refuse_unmeasurable(metric: Metric, task: str, targets: Targets) -> None:
    """Raises MarginsError where classes or weights leave the metric undefined, whatever is predicted."""
    num = targets.num_candidates
    # No two equal in a row: metrics at k look closer at ties, which with many labels takes long.
    measured(metric, task, torch.linspace(-1.0, 1.0, num).expand(len(targets), num), targets)


def judged(
    metric: Metric, task: str, scores: Tensor, targets: Targets, restored: Restoring | None = None
) -> tuple[Any, Any]:
    """Predictions and truth as this metric takes them."""
    if task == "matches":
        unit = torch.nn.functional.normalize(scores, dim=1)
        return Embeddings(unit, unit), Targets.of_matches(class_ids(targets))
    if task == "label_sets":
        # Most metrics look at the order alone: with many labels a copy as probabilities would cost more.
        is_order = metric.kind in ("candidates", "ranking")
        return (scores if is_order else scores.double().sigmoid()), targets
    if task == "values":
        pair = scores.double(), targets.grades(0, targets.num_candidates).double()
        predicted, true = pair if restored is None else (restored(pair[0]), restored(pair[1]))
        return predicted.numpy(), true.numpy()
    return probabilities_of(scores), class_ids(targets).numpy()


def probabilities_of(scores: Tensor) -> Floats:
    """[N, C] softmax in float64."""
    return scores.double().softmax(1).numpy()


def unweighted(targets: Targets) -> Targets:
    """The same targets, every row counting once."""
    return targets if targets.row_weight is None else replace(targets, row_weight=None)
