"""Dense losses against the same formula written by hand in torch, and against torch's fused function.

Forward and backward to the scores or embeddings. The contenders take turns in one process; what is
compared is the median of the ratios of neighbouring runs. Peak memory is that of one step in a fresh process.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from margins.losses import BinaryCrossEntropy, CrossEntropy, InfoNCE, SupCon
from recording import Row, compared, record

NUM_ROUNDS = 101
NUM_WARM_UP = 10
LIMIT_BY_HAND = 1.15

Step = Callable[[], Tensor]
Inputs = Sequence[Tensor]


@dataclass(frozen=True)
class Problem:
    """Inputs of a size, and the ways to compute one loss of them. The first `num_learned` inputs learn."""

    size: str
    num_learned: int
    make: Callable[[int], Inputs]  # from the number of rows
    ways: dict[str, Callable[..., Tensor]]


def class_logits(num_rows: int) -> Inputs:
    """Logits over 1000 classes, and class ids."""
    return torch.randn(num_rows, 1000), torch.randint(0, 1000, (num_rows,))


def label_logits(num_rows: int) -> Inputs:
    """Logits of 1000 labels, and a multi-hot matrix with about five positives a row."""
    return torch.randn(num_rows, 1000), (torch.rand(num_rows, 1000) < 0.005).float()


def pairs(num_rows: int) -> Inputs:
    """Embeddings of queries and of their documents."""
    return torch.randn(num_rows, 128), torch.randn(num_rows, 128)


def labelled(num_rows: int) -> Inputs:
    """Embeddings of four items a class."""
    return torch.randn(num_rows, 128), torch.randperm(num_rows) // 4


def cross_entropy_by_hand(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of log-partition minus own score."""
    return (logits.logsumexp(1) - logits.gather(1, labels[:, None])[:, 0]).mean()


def binary_cross_entropy_by_hand(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of softplus minus the score where positive."""
    return (functional.softplus(logits) - labels * logits).mean()


def info_nce_by_hand(queries: Tensor, documents: Tensor) -> Tensor:
    """Log-partition over the batch minus the diagonal."""
    scores = functional.normalize(queries) @ functional.normalize(documents).T / 0.05
    return (scores.logsumexp(1) - scores.diagonal()).mean()


def info_nce_by_cross_entropy(queries: Tensor, documents: Tensor) -> Tensor:
    """The same by torch's fused cross-entropy."""
    scores = functional.normalize(queries) @ functional.normalize(documents).T / 0.05
    return functional.cross_entropy(scores, torch.arange(len(scores)))


def sup_con_by_hand(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Log-partition over the others minus the mean score of the positives; every row has a positive."""
    unit = functional.normalize(embeddings)
    scores = unit @ unit.T / 0.1
    itself = torch.eye(len(labels), dtype=torch.bool)
    positive = (labels[:, None] == labels) & ~itself
    partition = scores.masked_fill(itself, -torch.inf).logsumexp(1)
    return (partition - (scores * positive).sum(1) / positive.sum(1)).mean()


PROBLEMS = {
    "CrossEntropy": Problem(
        "B 1024, C 1000",
        1,
        class_logits,
        {
            "margins": CrossEntropy(),
            "by hand": cross_entropy_by_hand,
            "torch fused": functional.cross_entropy,
        },
    ),
    "BinaryCrossEntropy": Problem(
        "B 1024, C 1000",
        1,
        label_logits,
        {
            "margins": BinaryCrossEntropy(),
            "by hand": binary_cross_entropy_by_hand,
            "torch fused": functional.binary_cross_entropy_with_logits,
        },
    ),
    "InfoNCE": Problem(
        "B 1024, d 128",
        2,
        pairs,
        {
            "margins": InfoNCE(0.05).on_pairs,
            "by hand": info_nce_by_hand,
            "torch fused": info_nce_by_cross_entropy,
        },
    ),
    "SupCon": Problem(
        "B 1024, d 128, 4 a class",
        1,
        labelled,
        {"margins": SupCon(0.1).on_embeddings, "by hand": sup_con_by_hand},
    ),
}


def step_of(name: str, way: str, num_rows: int = 1024) -> Step:
    """Forward and backward of one contender on seeded inputs; returns the loss."""
    torch.manual_seed(0)
    problem = PROBLEMS[name]
    inputs = problem.make(num_rows)
    leaves = [x.requires_grad_() for x in inputs[: problem.num_learned]]
    loss_of = problem.ways[way]

    def step() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        loss = loss_of(*inputs)
        loss.backward()
        return loss.detach()

    return step


def take_turns(
    steps: dict[str, Step], num_rounds: int = NUM_ROUNDS, num_warm_up: int = NUM_WARM_UP
) -> dict[str, list[float]]:
    """Seconds of each contender in every round."""
    times: dict[str, list[float]] = {way: [] for way in steps}
    for turn in range(num_warm_up + num_rounds):
        for way, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= num_warm_up:
                times[way].append(time.perf_counter() - start)
    return times


def peak_mib(name: str, way: str) -> float | None:
    """Growth of resident memory over the inputs in the first step of a fresh process; None off Linux."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (name, way))


def _peak_here(name: str, way: str) -> float:
    step_of(
        name, way, 16
    )()  # libraries, threads and kernels are loaded by a step that is too small to matter
    step = step_of(name, way)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _memory_mib("VmRSS")
    step()
    return round(_memory_mib("VmHWM") - before, 1)


def _memory_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def rows_of(name: str) -> list[Row]:
    """One row a peer."""
    problem = PROBLEMS[name]
    steps = {way: step_of(name, way) for way in problem.ways}
    values = torch.stack([step() for step in steps.values()])
    torch.testing.assert_close(values, values[:1].expand(len(values)), msg=f"{name}: the contenders differ")
    times = take_turns(steps)
    peaks = {way: peak_mib(name, way) for way in problem.ways}
    return [
        Row(
            name=name, size=problem.size, peer=way,
            ours_peak_mib=peaks["margins"], peer_peak_mib=peaks[way],
            limit=LIMIT_BY_HAND if way == "by hand" else None, limit_of="ratio" if way == "by hand" else "",
            **compared(times["margins"], times[way]),
        )
        for way in problem.ways
        if way != "margins"
    ]  # fmt: skip


def main() -> int:
    """Measures, records, and says by the exit code whether the limits hold."""
    rows = [row for name in PROBLEMS for row in rows_of(name)]
    record(rows)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
