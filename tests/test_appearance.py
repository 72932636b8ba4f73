"""Weights by how many rows look alike: their law, their clusters, their table, and training with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from made_up_training import blobs, recipe, seeded, trainer
from margins.balance import AppearanceEquity, equity_weights
from margins.data import TrainRows
from margins.diagnose import appearance_clusters
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.predicting import embeddings_of, outputs_of

SIZES = (200, 60, 20)


def looks(
    seed: int = 0, *, sizes: tuple[int, ...] = SIZES, dim: int = 5, stray: int = 0
) -> tuple[Tensor, Tensor]:
    """Tight clouds of these sizes far from each other, and rows that are alone; with their numbers."""
    draws = seeded(seed)
    centres = 10 * torch.randn(len(sizes), dim, generator=draws)
    of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    rows = centres[of] + 0.3 * torch.randn(len(of), dim, generator=draws)
    alone = 60 * torch.randn(stray, dim, generator=draws)
    return torch.cat([rows, alone]), torch.cat([of, of.new_full((stray,), -1)])


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("gamma", [0.0, 2.0, 5.0])
def test_weights_lie_between_their_floor_and_one(eta: float, gamma: float):
    weight = equity_weights(torch.linspace(0, 1, 101, dtype=torch.float64), eta=eta, gamma=gamma)
    assert float(weight.max()) == pytest.approx(1.0)
    floor = eta / (eta + 1) if gamma else 1.0  # 0^0 is 1
    assert float(weight.min()) == pytest.approx(floor)


def test_rarer_looks_weigh_more():
    weight = equity_weights(torch.linspace(0, 1, 101, dtype=torch.float64), eta=0.5, gamma=5.0)
    assert bool((weight.diff() < 0).all())


def test_a_large_floor_weighs_all_rows_alike():
    weight = equity_weights(torch.linspace(0, 1, 101, dtype=torch.float64), eta=1e9, gamma=2.0)
    torch.testing.assert_close(weight, torch.ones_like(weight), atol=1e-8, rtol=0)


@pytest.mark.parametrize("clusterer", ["dbscan", "hdbscan", "kmeans"])
def test_the_largest_look_weighs_the_floor(clusterer):
    rows, of = looks()
    found = AppearanceEquity(
        eta=0.5, gamma=3.0, clusterer=clusterer, num_clusters=3, projection=None, rescale=False
    ).fit(rows)
    inside = found.clusters == 0
    assert bool((of[inside] == 0).all())
    assert int(inside.sum()) > 150
    torch.testing.assert_close(found.weight[inside], torch.full((int(inside.sum()),), 1 / 3))
    torch.testing.assert_close(found.likelihood[inside], torch.ones(int(inside.sum())))
    expected = equity_weights(found.likelihood, eta=0.5, gamma=3.0)
    torch.testing.assert_close(found.weight, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"clusterer": "dbscan", "projection": None},
        {"clusterer": "dbscan", "projection": "pca"},
        {"clusterer": "dbscan", "projection": "tsne"},
        {"clusterer": "hdbscan", "projection": "pca"},
        {"clusterer": "kmeans", "num_clusters": 3, "projection": "pca"},
        {"clusterer": "knn", "projection": None},
    ],
    ids=lambda s: f"{s['clusterer']}-{s['projection']}",
)
def test_clouds_weigh_the_more_the_smaller_they_are(settings):
    rows, of = looks(1)
    found = AppearanceEquity(gamma=2.0, **settings).fit(rows)
    means = [float(found.weight[of == k].mean()) for k in range(3)]
    assert means[0] < means[1] < means[2]
    assert float(found.weight.mean()) == pytest.approx(1.0, abs=1e-5)


def test_the_clusters_of_far_clouds_are_the_clouds():
    rows, of = looks(2)
    found = AppearanceEquity(clusterer="kmeans", num_clusters=3, projection="pca").fit(rows)
    assert torch.equal(found.clusters, of)  # the largest first
    np.testing.assert_allclose(found.likelihood, np.array(SIZES)[of] / 200)


def test_the_radius_follows_the_data_and_a_fixed_one_may_find_nothing():
    rows, _ = looks(3)
    for scale in (1e-3, 1.0, 1e3):
        found = AppearanceEquity(projection=None).fit(scale * rows)
        assert set(found.clusters.tolist()) >= {0, 1, 2}
    lost = AppearanceEquity(projection=None, radius=0.01).fit(rows)
    assert bool((lost.clusters == -1).all())
    assert float(lost.weight.std()) == 0


def test_rows_that_are_alone_are_the_rarest_unless_they_are_counted_together():
    rows, of = looks(4, stray=80)
    settings = {"projection": None, "radius": 2.5, "rescale": False}
    rare = AppearanceEquity(**settings).fit(rows)
    alone = rare.clusters == -1
    assert int((alone & (of == -1)).sum()) > 60, "vacuous: nothing is alone"
    torch.testing.assert_close(
        rare.likelihood[alone], torch.full((int(alone.sum()),), 1 / 200), rtol=0.1, atol=0
    )
    together = AppearanceEquity(noise="cluster", **settings).fit(rows)
    assert torch.equal(together.clusters, rare.clusters)
    share = float(alone.sum()) / int((rare.clusters == 0).sum())
    torch.testing.assert_close(together.likelihood[alone], torch.full((int(alone.sum()),), share))


def test_the_same_seed_gives_the_same_weights_and_no_global_draw():
    rows, _ = looks(5)
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    settings = {"clusterer": "kmeans", "num_clusters": 7, "projection": "tsne"}
    first, again = (AppearanceEquity(seed=3, **settings).fit(rows).weight for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002


def test_equal_rows_are_one_look():
    rows = torch.cat([torch.zeros(50, 3), torch.ones(12, 3)])
    found = AppearanceEquity(projection=None).fit(rows)
    assert found.clusters.tolist() == [0] * 50 + [1] * 12


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"eta": -1.0}, "eta"), ({"gamma": float("inf")}, "gamma"), ({"clusterer": "ward"}, "clusterer"),
        ({"projection": "umap"}, "projection"), ({"noise": "gone"}, "noise"), ({"radius": 0.0}, "radius"),
        ({"num_dims": 0}, "num_dims"), ({"num_clusters": 1}, "num_clusters"),
        ({"num_neighbours": 0}, "num_neighbours"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(settings, argument):
    with pytest.raises(MarginsError, match=argument):
        AppearanceEquity(**settings)


def test_embeddings_that_cannot_be_used_are_refused():
    for rows in (
        torch.zeros(5, 2),
        torch.full((50, 2), torch.nan),
        torch.zeros(50),
        torch.zeros(50, 2).long(),
    ):
        with pytest.raises(MarginsError, match="embeddings"):
            AppearanceEquity().fit(rows)
    with pytest.raises(MarginsError, match="likelihood"):
        equity_weights(torch.tensor([1.5]))


def test_the_table_lists_rare_looks_first_with_their_rows():
    rows, of = looks(6, stray=30)
    found = AppearanceEquity(projection=None, radius=2.5).fit(rows)
    table = appearance_clusters(found, rows, num_examples=3)
    assert [line.cluster for line in table[:2]] == [-1, max(line.cluster for line in table)]
    assert [line.num_rows for line in table[1:]] == sorted(line.num_rows for line in table[1:])
    assert sum(line.num_rows for line in table) == len(rows)
    assert sum(line.share for line in table) == pytest.approx(1.0)
    for line in table:
        members = found.clusters == line.cluster
        assert all(bool(members[row]) for row in line.examples)
        assert line.weight == pytest.approx(float(found.weight[members].mean()), rel=1e-6)
    largest = table[-1]
    centre = rows[found.clusters == 0].double().mean(0)
    away = (rows[found.clusters == 0].double() - centre).norm(dim=1)
    nearest = (found.clusters == 0).nonzero().flatten()[away.argsort()[:3]]
    assert list(largest.examples) == nearest.tolist()
    assert of[largest.examples[0]] == 0


def test_the_table_needs_clusters_of_the_same_rows():
    rows, _ = looks(7)
    counted = AppearanceEquity(clusterer="knn", projection=None).fit(rows)
    with pytest.raises(MarginsError, match="knn"):
        appearance_clusters(counted, rows)
    with pytest.raises(MarginsError, match="appearance"):
        appearance_clusters(AppearanceEquity().fit(rows), rows[:-1])


def _with_a_rare_look(weight: Tensor | None = None) -> TrainRows:
    inputs, labels = blobs(120, 1)
    inputs.values[110:] -= 30.0
    targets = Targets.of_classes(labels, 3)
    return TrainRows(inputs, targets if weight is None else targets.weigh(rows=weight))


LOOKS = {"refresh": [{"name": "appearance_equity", "num_neighbours": 5}]}


def test_training_weighs_rows_by_their_looks_from_the_first_step_on():
    t = trainer(train=_with_a_rare_look(), dropout=0.0, **LOOKS)
    before = embeddings_of(t.engine.fabric, t.network, t._given.inputs)
    t.advance()
    weight = t.engine.rows.targets.row_weight
    expected = AppearanceEquity(num_neighbours=5).fit(before).weight
    torch.testing.assert_close(weight, expected)
    assert weight[110:].mean() > 1.5 * weight[:110].mean()
    t.run()
    torch.testing.assert_close(t.engine.rows.targets.row_weight, expected)
    assert torch.equal(t.engine.rows.class_ids(), t._given.class_ids())


def test_weights_of_the_data_and_corrected_classes_are_kept_beside_those_of_looks():
    own = 0.5 + torch.arange(120.0) % 3
    correcting = {"name": "label_correction", "start": 1, "confidence": 0.501}
    t = trainer(train=_with_a_rare_look(own), patience=None, refresh=[*LOOKS["refresh"], correcting])
    t.run()
    assert t._row_weight is not None
    torch.testing.assert_close(t.engine.rows.targets.row_weight, own * t._row_weight)
    assert torch.equal(t.engine.rows.class_ids(), t._class_ids)


def test_looks_may_weigh_rows_of_every_task():
    values = {"task": "values", "metric": "rmse", "objective": {"loss": "squared_error"}}
    assert recipe(**values, **LOOKS).refresh[0].name == "appearance_equity"
    with pytest.raises(ValueError, match=r"appearance_equity\.eta: expected greater than 0"):
        recipe(refresh=[{"name": "appearance_equity", "eta": 0.0}])


def test_embeddings_alone_are_those_that_come_with_the_scores():
    t = trainer()
    inputs = blobs(50, 3)[0]
    both = outputs_of(t.engine.fabric, t.network, inputs)[1]
    t.network.train()
    assert torch.equal(embeddings_of(t.engine.fabric, t.network, inputs, rows_at_once=50), both)
    assert t.network.training
