"""The trainer against a plain loop by hand on the same network, and how fast data reach a network.

A perceptron of three layers of width 512 with batches of 256, one step after another: forward, cross-entropy,
backward, the same AdamW. The loop by hand does nothing else. The contenders take turns, ten steps each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from torch.nn import functional

from margins.data import SelectRows, TrainRows
from margins.data.frame import Frame
from margins.encoders.base import EncoderSettings
from margins.encoders.embeddings import VectorEncoder, Vectors
from margins.encoders.hashed_text import HashedTextSettings
from margins.encoders.tabular import TabularSettings
from margins.heads import LinearHead
from margins.targets import Targets
from margins.training import Network, Recipe, Trainer
from recording import Row, compared, record

WIDTH, BATCH, NUM_IN, NUM_CLASSES = 512, 256, 64, 10
ROUNDS, STEPS, WARM_UP = 31, 10, 3
OVERHEAD_LIMIT = 1.10
ROWS_A_SECOND = {"tabular, 10 numbers": 200_000, "texts of 10 words": 20_000}


def network() -> Network:
    """Three layers: two hidden ones of width 512 and the head."""
    draws = torch.Generator().manual_seed(0)
    encoder = VectorEncoder([NUM_IN], normalise=False, depth=2, width=WIDTH, dropout=0.0, generator=draws)
    return Network(encoder, LinearHead(WIDTH, NUM_CLASSES, generator=draws))


def rows(num: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and classes."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(num, NUM_IN, generator=draws), torch.randint(NUM_CLASSES, (num,), generator=draws)


def overhead() -> Row:
    """Steps of the trainer and of a loop by hand, in turns."""
    x, y = rows(BATCH * STEPS * (ROUNDS + WARM_UP + 1), 0)
    select = SelectRows(Vectors(x[:BATCH]), Targets.of_classes(y[:BATCH], NUM_CLASSES))
    train = TrainRows(Vectors(x), Targets.of_classes(y, NUM_CLASSES))
    recipe = Recipe(
        task="classes", encoder={"name": "embeddings"}, metric="accuracy", batch_size=BATCH, max_epochs=2
    )
    trainer = Trainer(recipe, network(), train, select, generator=torch.Generator())
    by_hand = network()
    optimizer = recipe.optimizer.build([by_hand])  # the same AdamW: what is compared is the loop
    order = iter(torch.randperm(len(x)).split(BATCH))

    def ours() -> None:
        for _ in range(STEPS):
            trainer.advance()

    def plain() -> None:
        for _ in range(STEPS):
            batch = next(order)
            optimizer.zero_grad()
            logits = by_hand.head(by_hand.encoder.layers(x[batch]))
            functional.cross_entropy(logits, y[batch]).backward()
            optimizer.step()

    times = [(timed(ours), timed(plain)) for _ in range(ROUNDS + WARM_UP)][WARM_UP:]
    columns = compared([a / STEPS for a, _ in times], [b / STEPS for _, b in times])
    size = f"{NUM_IN}-{WIDTH}-{WIDTH}-{NUM_CLASSES}, B {BATCH}"
    return Row(
        name="trainer step", size=size, peer="loop by hand", limit=OVERHEAD_LIMIT, limit_of="ratio", **columns
    )


def data_path(name: str, frame: Frame, settings: EncoderSettings, kinds: dict[str, str]) -> Row:
    """Rows from a frame to batches of 256 inputs: preparation, shuffling, taking."""
    preparation = settings.prepare(frame, kinds)

    def run() -> None:
        inputs = preparation(frame)
        for batch in torch.randperm(len(inputs)).split(BATCH):
            inputs.take(batch)

    times = [timed(run) for _ in range(9)][2:]
    limit = 1e3 * len(frame) / ROWS_A_SECOND[name]
    rate = len(frame) / float(np.median(times))
    print(f"{name}: {rate:,.0f} rows/s")
    columns = compared(times, [limit / 1e3] * len(times))
    return Row(
        name="data path",
        size=f"{name}, {len(frame)} rows",
        peer="the limit",
        limit=limit,
        limit_of="ms",
        **columns,
    )


def timed(run: Callable[[], None]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def made_up_texts(num: int) -> list[str]:
    """Texts of ten words of a vocabulary of 5000."""
    draws = np.random.default_rng(0)
    words = np.array(["".join(draws.choice(list("etaoinshrdlu"), draws.integers(3, 9))) for _ in range(5000)])
    return [" ".join(row) for row in words[draws.integers(5000, size=(num, 10))]]


def main() -> int:
    """Measure, record, and fail when a claim does not hold."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    numbers = np.random.default_rng(0).normal(size=(400_000, 10))
    table = pl.DataFrame({f"x{k}": numbers[:, k] for k in range(10)})
    texts = pl.DataFrame({"text": made_up_texts(40_000)})
    found = [
        overhead(),
        data_path(
            "tabular, 10 numbers", Frame(table=table, source="made up", fingerprint=""), TabularSettings(),
            dict.fromkeys(table.columns, "numeric"),
        ),
        data_path(
            "texts of 10 words", Frame(table=texts, source="made up", fingerprint=""), HashedTextSettings(),
            {"text": "text"},
        ),
    ]  # fmt: skip
    record(found)
    return 0 if all(row.holds for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
