"""Label sets of many labels: each way to train them, what is measured of them, and the page made of that."""

from __future__ import annotations

import csv
import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import margins
from margins.evaluation import find_metric
from margins.heads import LinearHead, SphericalHead
from margins.targets import Targets
from margins.training.fit import Trained
from test_benchmarks import ROOT, loaded

many_labels, page = loaded("many_labels"), loaded("many_labels_page")
NUM_LEAVES = 40
BINARY: dict[str, Any] = {
    "objective": {"loss": "binary_cross_entropy"}, "optimizer": {"learning_rate": 0.1}
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "dense": BINARY,
    "blockwise": {**BINARY, "evaluator": "blockwise"},
    "spherical": {
        "objective": {"loss": "squared_error"},
        "optimizer": {"learning_rate": 0.02},
        "head": {"name": "spherical", "learning_rate": 0.2},
    },
}


def definitions(num: int = 400) -> dict[str, Any]:
    """Each text names a leaf of a binary tree; its labels are all nodes above."""
    draws = np.random.default_rng(0)
    leaves = NUM_LEAVES + draws.integers(0, NUM_LEAVES, num)
    edges = [(f"n{k}", f"n{k // 2}") for k in range(2, 2 * NUM_LEAVES)]
    texts = [f"word{leaf} {draws.integers(1000)}" for leaf in leaves]
    return {"text": texts, "labels": many_labels.ancestors(edges, [f"n{leaf}" for leaf in leaves])}


def trained(way: str, **changes: Any) -> Trained:
    recipe = {
        "encoder": {"name": "hashed_text", "width": 16, "buckets": 1024, "drop_ngrams": 0.0},
        "max_epochs": 12,
        "metric": "map@r",
        **WAYS[way],
        **changes,
    }
    roles: dict[str, Any] = {"inputs": ["text"], "target": "labels", "target_kind": "label_set"}
    return margins.train(definitions(), recipe=recipe, threads=1, **roles)


@pytest.mark.parametrize("way", WAYS)
def test_label_sets_train_with_each_head_and_evaluator(way: str):
    run = trained(way)
    assert isinstance(run.model.network.head, SphericalHead if way == "spherical" else LinearHead)
    names, table = run.model.classes, definitions()
    truth = Targets.of_label_sets([[names.index(x) for x in row] for row in table["labels"]], len(names))
    counts = torch.from_numpy(many_labels.counts_of(table["labels"], names)).float()
    known = many_labels.label_propensities(table["labels"], names)
    metrics = [find_metric("map@r", task="label_sets")]
    metrics.append(find_metric("psp@3", task="label_sets", propensities=known))
    for metric in metrics:
        guess = metric(counts.expand(truth.shape), truth)
        assert guess < 0.6, "vacuous: one guess for all rows would do"
        assert metric(run.model.scores(table), truth) > guess + 0.2


def test_dense_and_blockwise_end_with_the_same_weights():
    dense, ours = (trained(way, max_epochs=3, optimizer={"name": "sgd", "learning_rate": 1.0}) for way in (
        "dense", "blockwise"
    ))  # fmt: skip
    one, other = (run.model.network.state_dict() for run in (dense, ours))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-5)
    start = trained("dense", max_epochs=1, optimizer={"name": "sgd", "learning_rate": 1e-12})
    moved = one["head.weight"] - start.model.network.state_dict()["head.weight"]
    assert moved.abs().max() > 1e-2, "vacuous: the head did not learn"


def test_ancestors_are_all_nodes_above_by_every_way():
    edges = [("owl", "bird"), ("bird", "animal"), ("owl", "hunter"), ("hunter", "role"), ("animal", "thing")]
    found = many_labels.ancestors([*edges, ("role", "thing")], ["owl", "bird", "thing"])
    assert found == [["animal", "bird", "hunter", "role", "thing"], ["animal", "thing"], []]


def test_propensities_are_those_of_jain_et_al_from_counts_of_training_rows():
    labels = [["a"], ["a", "b"], ["a"], ["a", "c"], []]
    scale = (np.log(5) - 1) * 2.5**0.55
    wanted = [1 / (1 + scale * (count + 1.5) ** -0.55) for count in (1, 4, 1, 0)]
    found = many_labels.label_propensities(labels, ["b", "a", "c", "unseen"])
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_scores_of_a_row_are_judged_against_its_own_labels():
    things = many_labels.Things(
        texts=["x"] * 4, labels=[["a"], ["a", "b"], ["a"], ["b"]], splits=["train", "train", "train", "test"]
    )
    right, wrong = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert many_labels.judged(right, things, ["a", "b"])["precision@1"] == 1.0
    assert many_labels.judged(wrong, things, ["a", "b"])["precision@1"] == 0.0


def test_without_the_data_the_script_says_so_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert many_labels.main(["--data", str(tmp_path), "--out", str(tmp_path / "rows.csv")]) == 0
    assert "skipped: no " in capsys.readouterr().out
    assert not (tmp_path / "rows.csv").exists()


def test_examples_of_the_script_are_right():
    found = doctest.testmod(many_labels)
    assert found.attempted >= 2
    assert found.failed == 0


def made_up_row(**changes: str) -> dict[str, str]:
    metrics = dict.fromkeys(many_labels.METRICS, "0.5")
    numbers = {"step_ms": "12.34", "epoch_seconds": "3.5", "select_seconds": "0.5", "total_seconds": "60.4"}
    sizes = {"steps_mib": "120", "peak_mib": "1500", "labels": "9", "train_rows": "8"}
    plain = {
        "commit": "abc", "date": "d", "device": "cpu", "versions": "v", "way": "spherical", "loss": "z_loss",
        "settings": '{"rate": 0.01, "head_rate": 10.0}', "epochs": "8", "kept_epoch": "7",
    }  # fmt: skip
    return {**plain, **metrics, **numbers, **sizes, **changes}


def test_the_page_shows_the_last_row_of_each_way(tmp_path: Path):
    untrained = dict.fromkeys(
        ("step_ms", "epoch_seconds", "select_seconds", "total_seconds", "steps_mib", "peak_mib"), ""
    )
    rows = [
        made_up_row(way="the most frequent labels", loss="", settings="{}", **untrained),
        made_up_row(**{"psp@5": "0.1111"}),
        made_up_row(**{"psp@5": "0.2222"}),
    ]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    quality, cost = page.quality(path), page.cost(path)
    assert "22.2" in quality
    assert "11.1" not in quality
    assert "| the most frequent labels | 50.0 |" in quality
    assert "| `ZLoss`, spherical | 12.3 ms | 3.0 s | 0.5 s | 60 s | 120 MiB | 1,500 MiB |" in cost
    assert "0.01; head 10" in cost
    assert "most frequent" not in cost
    assert page.quality(tmp_path / "none.csv") == "Not measured yet."


def test_every_recorded_row_is_of_a_way_that_the_script_has():
    path = ROOT / "benchmarks" / "many_labels.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = {(case.way, case.loss) for case in many_labels.CASES} | {("the most frequent labels", "")}
    assert rows
    assert {(row["way"], row["loss"]) for row in rows} <= known
