"""What the machine can do: the rates that bound every benchmark, and the arithmetic that none can leave out.

Run as a file it records the rates. The other benchmarks take their limit from here and measure it in the
same run as the contenders.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from recording import Row, percentiles, record

Run = Callable[[], object]
ROWS, ENTRIES, COLUMNS = 1024, 1 << 20, 2048  # the blocks that were fastest of those tried on two cores
NUM_ROUNDS, NUM_WARM_UP = 9, 2


def three_products(anchors: Tensor, candidates: Tensor) -> Run:
    """The products that scores [B, C] and their two gradients need, block by block, and nothing else.

    Args:
        anchors: [B, d].
        candidates: [C, d].

    The gradients go to memory that is there already: no exponential, no fresh memory, no reduction.
    """
    x, w = anchors.detach(), candidates.detach()
    of_x, of_w = torch.zeros_like(x), torch.zeros_like(w)
    rows = min(ROWS, len(x))
    columns = min(ENTRIES * (64 if x.is_cuda else 1) // rows, len(w))  # an accelerator wants long work
    scratch = x.new_empty(rows * columns)

    def run() -> None:
        for part, of_part in zip(w.split(columns), of_w.split(columns), strict=True):
            for block, (some, of_some) in enumerate(zip(x.split(rows), of_x.split(rows), strict=True)):
                scores = scratch[: len(some) * len(part)].view(len(some), len(part))
                torch.mm(some, part.T, out=scores)
                of_some.addmm_(scores, part, beta=1.0, alpha=1e-6)
                of_part.addmm_(scores.T, some, beta=float(block > 0))

    return run


def sort_and_sums(scores: Tensor) -> Run:
    """One sort of the scores and two running sums: the least that a loss of all pairs reads."""
    scores = scores.detach()

    def run() -> None:
        ordered, places = torch.sort(scores)
        ordered.cumsum(0)
        places.cumsum(0)

    return run


@dataclass(frozen=True)
class Rate:
    """Something that the machine does so many times a second."""

    name: str
    amount: float  # of one run, in the unit without its "a second"
    unit: str
    make: Callable[[], Run]


def product(num_rows: int, dim: int, num_columns: int) -> Run:
    """A product of [rows, dim] and [dim, columns], by blocks of columns where it is wide."""
    x, w = torch.randn(num_rows, dim), torch.randn(num_columns, dim)
    block = torch.empty(num_rows, min(num_columns, COLUMNS))

    def run() -> None:
        for part in w.split(COLUMNS):
            torch.mm(x, part.T, out=block[:, : len(part)])

    return run


def copy(num: int) -> Run:
    """A copy of so many floats."""
    source, target = torch.randn(num), torch.zeros(num)
    return lambda: target.copy_(source)


def exponentials(num: int) -> Run:
    """So many exponentials, into memory that is there."""
    source, target = torch.randn(num), torch.zeros(num)
    return lambda: torch.exp(source, out=target)


def sort(num: int) -> Run:
    """A sort of so many floats, with their places."""
    source = torch.randn(num)
    return lambda: torch.sort(source)


def rate_of_product(num_rows: int, dim: int, num_columns: int) -> Rate:
    """The rate of a product."""
    name = f"float32 product, {num_rows} x {dim} x {num_columns:,}"
    return Rate(
        name, 2e-9 * num_rows * dim * num_columns, "GFLOP/s", partial(product, num_rows, dim, num_columns)
    )


RATES = [
    *(rate_of_product(*shape) for shape in ((2048, 2048, 2048), (256, 128, 1_000_000), (1024, 128, 200_000))),
    Rate("copy of 256 MB, read and write", 2e-9 * 256e6, "GB/s", partial(copy, 64_000_000)),
    Rate("exponentials, 8 M", 8e-3, "G/s", partial(exponentials, 8_000_000)),
    Rate("sort with places, 2 M", 2.0, "M/s", partial(sort, 2_000_000)),
]  # fmt: skip


def measured(rate: Rate) -> Row:
    """The row of a rate; the median of its runs."""
    torch.manual_seed(0)
    run = rate.make()
    times: list[float] = []
    for _ in range(NUM_WARM_UP + NUM_ROUNDS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    columns = percentiles("ours", times[NUM_WARM_UP:])
    per_second = rate.amount / (columns["ours_p50"] / 1e3)
    return Row(
        name="machine", size=rate.name, peer="", runs=NUM_ROUNDS,
        rate=round(per_second, 3), rate_of=rate.unit, **columns,
    )  # fmt: skip


def main() -> int:
    """Measures and records; a machine has no limit to hold."""
    record([measured(rate) for rate in RATES])
    return 0


if __name__ == "__main__":
    sys.exit(main())
