"""Texts with many labels: heads, evaluators and losses side by side, same encoder, batches and epochs.

    python benchmarks/many_labels.py [--data FOLDER] [--only NAME] [--out FILE] [--threads N]

The data are the nouns of Open English WordNet: a definition, and as its labels all that the noun is a kind of
(7,704 labels, 10.3 a row). They are no part of the repository: the folder is --data, the environment variable
WORDNET_THINGS, or ../shared/data/wordnet_things beside the repository. Each case trains in a fresh process.
Rows go to benchmarks/many_labels.csv.

Learning rates were chosen for each loss and head by map@r on the select rows, from a coarse grid at 6
epochs; the report rows had no part in that. Several are at the upper end of their grid.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import margins
from margins.evaluation import find_metric, propensities
from margins.targets import Targets
from margins.taxonomy import Taxonomy
from margins.training.trainer import EpochRecord
from recording import ROOT, append, circumstances

RESULTS = ROOT / "benchmarks" / "many_labels.csv"
METRICS = (*(f"{name}@{k}" for name in ("precision", "psp", "ndcg") for k in (1, 3, 5)), "map@r")
SAME: dict[str, Any] = {
    "encoder": {"name": "hashed_text", "width": 128},
    "max_epochs": 8,
    "patience": None,
    "batch_size": 256,
    "schedule": {"name": "one_cycle"},
    "metric": "map@r",
    "decisions": {"thresholds": None},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loss with a head and an evaluator.

    Args:
        loss: its name in recipes.
        rate: learning rate of the encoder, and of a linear head.
        head_rate: of a spherical head, which this case then has.
        evaluator: of a linear head.
        settings: of the loss.
    """

    loss: str
    rate: float
    head_rate: float | None = None
    evaluator: str = "dense"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def way(self) -> str:
        """The head, and for a linear one how its scores are made."""
        return "spherical" if self.head_rate else f"linear, {self.evaluator}"

    @property
    def name(self) -> str:
        """What --only looks for."""
        return f"{self.loss}: {self.way}"

    def recipe(self) -> dict[str, Any]:
        """What is other than in the default recipe."""
        head = (
            {"name": "linear"}
            if self.head_rate is None
            else {"name": "spherical", "learning_rate": self.head_rate}
        )
        return {
            **SAME, "head": head, "evaluator": self.evaluator,
            "objective": {"loss": self.loss, "settings": self.settings},
            "optimizer": {"name": "adamw", "learning_rate": self.rate},
        }  # fmt: skip


CASES = (
    Case(loss="binary_cross_entropy", rate=0.1),
    Case(loss="binary_cross_entropy", rate=0.1, evaluator="blockwise"),
    Case(loss="cross_entropy", rate=0.01),
    Case(loss="cross_entropy", rate=0.01, evaluator="blockwise"),
    Case(loss="squared_error", rate=0.01),  # 0.03 is a little better at 6 epochs, and breaks off at 8
    Case(loss="squared_error", rate=0.1, head_rate=0.3),
    Case(loss="z_loss", rate=0.03),
    Case(loss="z_loss", rate=0.03, head_rate=50.0),
)


@dataclass(frozen=True, kw_only=True)
class Things:
    """The data.

    Args:
        texts: of every row.
        labels: of every row, the names of all that stands above it.
        splits: "train" or "test" of every row.
    """

    texts: list[str]
    labels: list[list[str]]
    splits: list[str]

    def of(self, split: str) -> tuple[list[str], list[list[str]]]:
        """The texts and labels of one split."""
        rows = [row for row, own in enumerate(self.splits) if own == split]
        return [self.texts[row] for row in rows], [self.labels[row] for row in rows]


def ancestors(edges: Sequence[tuple[str, str]], names: Sequence[str]) -> list[list[str]]:
    """All that stands above each of these nodes, sorted; `edges` are (node, parent).

    Example:
        >>> ancestors([("owl", "bird"), ("bird", "animal"), ("owl", "hunter")], ["owl", "animal"])
        [['animal', 'bird', 'hunter'], []]
    """
    nodes = dict.fromkeys([*names, *(name for edge in edges for name in edge)])
    taxonomy = Taxonomy.from_edges(((parent, node) for node, parent in edges), nodes=nodes)
    return [
        sorted(taxonomy.names[above] for above in taxonomy.ancestors(taxonomy.index(name))) for name in names
    ]


def read(folder: Path) -> Things:
    """The data of a folder."""
    with gzip.open(folder / "edges.csv.gz", "rt", newline="") as file:
        edges = [(row["node"], row["parent"]) for row in csv.DictReader(file)]
    with gzip.open(folder / "synsets.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return Things(
        texts=[row["text"] for row in rows],
        labels=ancestors(edges, [row["id"] for row in rows]),
        splits=[row["split"] for row in rows],
    )


def label_propensities(labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray[Any, Any]:
    """[C] propensities by Jain et al. 2016 (A = 0.55, B = 1.5) of these names, from training rows' labels.

    Example:
        >>> label_propensities([["a"], ["a", "b"], ["a"]], ["b", "a"]).round(3)
        array([0.91 , 0.933])
    """
    counts = counts_of(labels, names)
    return propensities(counts, len(labels), a=0.55, b=1.5)


def counts_of(labels: Sequence[Sequence[str]], names: Sequence[str]) -> np.ndarray[Any, Any]:
    """[C] how many rows have each of these names."""
    place = {name: number for number, name in enumerate(names)}
    columns = [place[name] for row in labels for name in row]
    return np.bincount(np.array(columns, dtype=np.int64), minlength=len(names))


def judged(scores: Tensor, things: Things, names: Sequence[str]) -> dict[str, float]:
    """The metrics of scores [N, C] of the test rows."""
    place = {name: number for number, name in enumerate(names)}
    truth = Targets.of_label_sets([[place[name] for name in row] for row in things.of("test")[1]], len(names))
    known = label_propensities(things.of("train")[1], names)
    found: dict[str, float] = {}
    for name in METRICS:
        given = {"propensities": known} if name.startswith("psp") else {}
        metric = find_metric(name, task="label_sets", **given)
        found[name] = round(metric.measure(scores, truth).value, 4)
    return found


class Watch:
    """Times of steps, and the most memory held during the steps of the first epoch and in all, in MiB."""

    def __init__(self) -> None:
        self.before = memory_mib("VmRSS")
        self.steps: list[float] = []
        self.selecting: list[float] = []
        self.of_steps = self.of_all = 0.0
        self._last = 0.0

    def step_done(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        """Notes its time; the first of an epoch has none."""
        now = time.perf_counter()
        if step > 0:
            self.steps.append(now - self._last)
        if epoch == 0 and step == 0:
            self._note()
        if epoch == 0 and step == num_steps - 1:
            self.of_steps = self._note()
        self._last = time.perf_counter()

    def epoch_done(self, record: EpochRecord) -> None:
        """Notes how long the select rows took."""
        self.selecting.append(time.perf_counter() - self._last)

    def end(self) -> None:
        """Notes the rest."""
        self._note()

    def _note(self) -> float:
        """The peak since the last note, over what the process held before."""
        peak = memory_mib("VmHWM") - self.before
        self.of_all = max(self.of_all, peak)
        clear = Path("/proc/self/clear_refs")
        if clear.exists():
            clear.write_text("5")
        return peak


def memory_mib(key: str) -> float:
    """Memory of this process; NaN where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith(key)) / 1024


def measured(case: Case, folder: Path, threads: int) -> dict[str, Any]:
    """Trains a case here and judges it."""
    torch.set_num_threads(threads)
    things = read(folder)
    table = {"text": things.texts, "labels": things.labels, "split": things.splits}
    watch, started = Watch(), time.perf_counter()
    trained = margins.train(
        table, inputs=["text"], target="labels", target_kind="label_set", split="split",
        recipe=case.recipe(), watcher=watch, threads=threads, device="cpu",
    )  # fmt: skip
    seconds = time.perf_counter() - started
    watch.end()
    history = trained.fitted[0].history
    model = trained.model
    return {
        "way": case.way, "loss": case.loss, "settings": json.dumps(settings_of(case)),
        "labels": len(model.classes), "train_rows": len(trained.division.train),
        "epochs": len(history), "kept_epoch": trained.fitted[0].epoch,
        **judged(model.scores(things.of("test")[0]), things, model.classes),
        "select_map@r": round(trained.scores["select"]["map@r"], 4),
        "step_ms": round(statistics.median(watch.steps) * 1e3, 2),
        "epoch_seconds": round(statistics.median(record.seconds for record in history), 2),
        "select_seconds": round(statistics.median(watch.selecting), 2),
        "total_seconds": round(seconds, 1),
        "steps_mib": round(watch.of_steps), "peak_mib": round(watch.of_all),
    }  # fmt: skip


def settings_of(case: Case) -> dict[str, Any]:
    """What is needed to repeat a row, beside its head, evaluator and loss."""
    rates = {"rate": case.rate} | ({} if case.head_rate is None else {"head_rate": case.head_rate})
    loss = {"loss": case.settings} if case.settings else {}
    return {"width": SAME["encoder"]["width"], "batch": SAME["batch_size"], **rates, **loss}


def most_frequent(folder: Path) -> dict[str, Any]:
    """What a guess gives that is the same for all rows: the labels that most training rows have."""
    things = read(folder)
    names = sorted({name for row in things.labels for name in row})
    counts = torch.from_numpy(counts_of(things.of("train")[1], names)).float()
    # A small slope divides equal counts; it costs time to share what ties gain.
    scores = (counts - torch.linspace(0, 0.5, len(names))).expand(len(things.of("test")[0]), -1)
    return {
        "way": "the most frequent labels", "loss": "", "settings": "{}", "labels": len(names),
        "train_rows": len(things.of("train")[0]), **judged(scores, things, names),
    }  # fmt: skip


def folder_of(given: Path | None) -> Path:
    """Where the data should be."""
    named = os.environ.get("WORDNET_THINGS")
    return given or (Path(named) if named else ROOT.parent / "shared" / "data" / "wordnet_things")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder wordnet_things")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where rows go")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    asked = parser.parse_args(arguments)
    folder = folder_of(asked.data)
    if not (folder / "synsets.jsonl.gz").is_file():
        print(f"skipped: no {folder / 'synsets.jsonl.gz'}; --data or WORDNET_THINGS names the folder")
        return 0
    torch.set_num_threads(asked.threads)
    where = circumstances()
    rows: list[dict[str, Any]] = []
    if not asked.only:
        rows.append(most_frequent(folder))
    for case in CASES:
        if asked.only in case.name:
            # A fresh process each: memory is counted from nothing, and no cache is warm.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                rows.append(pool.submit(measured, case, folder, asked.threads).result())
            print(rows[-1], flush=True)
    if not rows:
        print(f"no case has {asked.only!r} in its name: {', '.join(case.name for case in CASES)}")
        return 2
    columns = list(dict.fromkeys(key for row in rows for key in row))
    append(asked.out, [{**where, **row} for row in rows], [*where, *columns])
    return 0


if __name__ == "__main__":
    sys.exit(main())
