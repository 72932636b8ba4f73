"""What every rank runs: trainings of several objectives, whose weights and losses the first rank writes down.

Started by `torchrun`, or alone as one process: `python rank_job.py OUT.safetensors`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from made_up_training import SUP_CON, blobs, trainer
from margins.data import TrainRows
from margins.targets import Targets
from margins.training.checkpoint import write_checkpoint
from margins.training.machine import machine
from margins.training.predicting import outputs_of

STEPS = 20
SGD = {"name": "sgd", "learning_rate": 0.01}
ANY_LOSS = {"loss": "any_loss", "settings": {"metric": "f1", "link": "softmax", "average": "macro"}}
MANN_WHITNEY = {"loss": "mann_whitney", "settings": {"scope": "column"}}
INFO_NCE = {**SUP_CON, "objective": {"loss": "info_nce"}, "num_outputs": 8}
JOBS: dict[str, dict[str, Any]] = {
    "CrossEntropy": {},
    "InfoNCE": INFO_NCE,
    "SupCon": {**SUP_CON, "num_outputs": 8},
    "AnyLoss": {"objective": ANY_LOSS},
    "MannWhitney": {"objective": MANN_WHITNEY},
    "EnsLoss": {"objective": {"loss": "ens_loss"}},
    "clipped, accumulated": {"accumulate": 2, "clip_norm": 0.5},
    "SupCon, accumulated": {**SUP_CON, "num_outputs": 8, "accumulate": 3},
    "penalty": {"objective": {"loss": "cross_entropy", "penalties": [{"loss": "orthogonal_projection"}]}},
    "sharpness aware": {"step": {"name": "sharpness_aware"}},
    "corrected labels": {
        "refresh": [{"name": "label_correction", "start": 1, "confidence": 0.501}],
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
    },
    "started at naive Bayes": {"refresh": [{"name": "naive_bayes_start"}]},
    "over the mean error": {"step": {"name": "error_normalized"}},
    "weighed by looks": {"refresh": [{"name": "appearance_equity", "num_neighbours": 5}]},
}


def rows() -> TrainRows:
    """121 rows in steps of 20: the last one has a single row, which one rank gets and the others do not."""
    inputs, labels = blobs(121, 1)
    weight = 0.5 + torch.arange(121) % 4
    return TrainRows(inputs, Targets.of_classes(labels, 3).weigh(rows=weight))


def run(name: str, fabric: Any) -> dict[str, Any]:
    """The weights and losses after some steps, and the scores of all rows."""
    t = trainer(
        train=rows(), fabric=fabric, dropout=0.0, min_steps=6, max_epochs=4, patience=None,
        **{"optimizer": SGD, **JOBS[name]},
    )  # fmt: skip
    for _ in range(STEPS):
        t.advance()
    return {
        "weights": {k: v.clone() for k, v in t.network.state_dict().items()},
        "losses": [record.loss for record in t.history],
        "select_scores": [record.select_score for record in t.history],
        "last step": len(t._steps[-1]),
        "scores": outputs_of(fabric, t.network, blobs(31, 5)[0])[0],
    }


def main() -> None:
    """Run all jobs."""
    torch.set_num_threads(1)
    with machine(device="cpu") as fabric:
        found = {name: run(name, fabric) for name in JOBS}
        if fabric.global_rank == 0:
            write_checkpoint(Path(sys.argv[1]), {**found, "ranks": fabric.world_size})


if __name__ == "__main__":
    main()
