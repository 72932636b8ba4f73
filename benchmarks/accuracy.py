"""Trainings from defaults against plain baselines on the same rows, both sides in one run.

    python benchmarks/accuracy.py texts.csv [--minilm FOLDER]
    python benchmarks/accuracy.py train-images-idx3-ubyte.gz --test t10k-images-idx3-ubyte.gz

Texts: the built-in encoder against TF-IDF with logistic regression; with --minilm a frozen sentence encoder
against logistic regression on the same vectors. Images: the small network, with no peer. The baselines of
texts get the best of three strengths of regularisation, chosen on the select rows. Rows go to
benchmarks/accuracy.csv.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from margins.data.reading import read_frame
from margins.training.evaluating import evaluate
from margins.training.fit import Trained, train
from recording import ROOT, circumstances

RESULTS = ROOT / "benchmarks" / "accuracy.csv"
STRENGTHS = (1.0, 10.0, 100.0)


def trained(path: Path, recipe: dict[str, Any], **roles: Any) -> tuple[Trained, float]:
    """A training from defaults but for these keys, and its seconds from the file to the scores."""
    started = time.perf_counter()
    found = train(path, recipe={"metric": "accuracy", **recipe}, tell=print, **roles)
    return found, time.perf_counter() - started


def baseline(run: Trained, x: Any, y: Any, *, vectoriser: bool) -> tuple[float, float]:
    """Accuracy on the report rows, and seconds, of logistic regression on the same rows."""
    rows = run.division
    started = time.perf_counter()
    models = []
    for strength in STRENGTHS:
        regression = LogisticRegression(C=strength, max_iter=1000)
        model = (
            make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), regression)
            if vectoriser
            else regression
        )
        model.fit(x[rows.train], y[rows.train])
        models.append((model.score(x[rows.select], y[rows.select]), model))
    best = max(models, key=lambda found: found[0])[1]
    return float(best.score(x[rows.report], y[rows.report])), time.perf_counter() - started


def texts(path: Path, minilm: Path | None, target: str) -> list[dict[str, Any]]:
    """The rows of a file of texts."""
    frame = read_frame(path)
    x, y = (np.array(frame.table[name].to_list(), dtype=object) for name in ("text", target))
    run, seconds = trained(path, {}, inputs=["text"], target=target)
    peer, peer_seconds = baseline(run, x, y, vectoriser=True)
    rows = [row(path, "hashed_text", run, seconds, "TF-IDF + logistic regression", peer, peer_seconds)]
    if minilm is not None:
        encoder = {"name": "pretrained_text", "model": str(minilm)}
        run, seconds = trained(path, {"encoder": encoder}, inputs=["text"], target=target)
        vectors = run.model.embed(frame)
        peer, peer_seconds = baseline(run, vectors, y, vectoriser=False)
        rows.append(
            row(path, "frozen MiniLM", run, seconds, "logistic regression on its vectors", peer, peer_seconds)
        )
    return rows


def images(path: Path, test: Path) -> list[dict[str, Any]]:
    """The row of a file of images, judged on another."""
    run, seconds = trained(path, {}, report_share=0.0, select_share=0.1)
    score = evaluate(run.model, read_frame(test), metrics=["accuracy"])["metrics"]["accuracy"]["value"]
    found = row(path, run.model.recipe.encoder.name, run, seconds, "", None, None)
    return [{**found, "ours": round(score, 4)}]


def row(
    path: Path,
    name: str,
    run: Trained,
    seconds: float,
    peer: str,
    score: float | None,
    peer_seconds: float | None,
) -> dict[str, Any]:
    """What is recorded of a comparison."""
    ours = run.scores.get("report", run.scores["select"])["accuracy"]
    return {
        "data": path.name, "encoder": name, "metric": "accuracy", "ours": round(ours, 4),
        "seconds": round(seconds, 1), "epochs": len(run.fitted[0].history), "peer": peer,
        "theirs": "" if score is None else round(score, 4),
        "peer_seconds": "" if peer_seconds is None else round(peer_seconds, 1),
    }  # fmt: skip


def main() -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--minilm", type=Path)
    parser.add_argument("--target", default="label")
    asked = parser.parse_args()
    torch.set_num_threads(2)
    rows = images(asked.data, asked.test) if asked.test else texts(asked.data, asked.minilm, asked.target)
    where = circumstances()
    is_new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*where, *rows[0]], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows({**where, **found} for found in rows)
    for found in rows:
        print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
