"""Ranking metrics: slow loops, ties, lone rows, embeddings in blocks, and only the order of scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as peer

from made_up_predictions import EXACT, RANKING_LOOPS, as_targets, label_sets
from margins.errors import MarginsError, MarginsWarning
from margins.evaluation import Embeddings, all_metrics, find_metric, propensities
from margins.evaluation.ranked import _blocks, _queries
from margins.evaluation.records import Candidates
from margins.targets import Targets


@pytest.mark.parametrize("name", list(RANKING_LOOPS))
def test_ranking_metrics_equal_a_slow_loop_over_all_orders_of_ties(name: str):
    draws = np.random.default_rng(5)
    s = draws.integers(-3, 1, (40, 6)).astype(float)  # negative scores are scores like others
    y = draws.random((40, 6)) < 0.4
    y[~y.any(1), 2] = True
    expected = [RANKING_LOOPS[name](s[i], y[i].astype(int)) for i in range(len(s))]
    assert find_metric(name, task="rankings")(s, as_targets(y)) == pytest.approx(np.mean(expected), **EXACT)
    assert 0.05 < np.mean(expected) < 0.95


def test_map_at_r_without_ties_is_its_textbook_form():
    draws = np.random.default_rng(6)
    s, y = draws.normal(size=(30, 20)), draws.random((30, 20)) < 0.3
    y[:, 0] = True
    expected = []
    for row, relevant in zip(s, y, strict=True):
        hits = relevant[np.argsort(-row)][: relevant.sum()]
        expected.append(np.mean([hits[: i + 1].mean() * hits[i] for i in range(len(hits))]))
    assert find_metric("map@r")(s, as_targets(y)) == pytest.approx(np.mean(expected), **EXACT)


def test_ndcg_of_graded_relevance_equals_scikit_learn():
    draws = np.random.default_rng(7)
    for _ in range(10):
        s = draws.integers(0, 9, (30, 12)).astype(float)
        grades = draws.integers(0, 4, (30, 12)).astype(float)
        grades[:, 0] += 1
        targets = Targets.of_scores(torch.from_numpy(grades))
        for k in (1, 5, 20):
            expected = peer.ndcg_score(grades, s, k=k)
            assert find_metric(f"ndcg@{k}")(s, targets) == pytest.approx(expected, **EXACT)


def test_propensity_scored_precision_is_a_ratio_of_sums():
    draws = np.random.default_rng(8)
    s, y = draws.normal(size=(50, 15)), draws.random((50, 15)) < 0.2
    counts = draws.integers(1, 400, 15)
    given = propensities(counts, 1000, a=0.5, b=0.4)
    c = (math.log(1000) - 1) * 1.4**0.5
    assert given == pytest.approx([1 / (1 + c * (n + 0.4) ** -0.5) for n in counts], **EXACT)
    above = below = 0.0
    for row, relevant in zip(s, y, strict=True):
        gains = relevant / given
        above += gains[np.argsort(-row)[:3]].sum()
        below += np.sort(gains)[::-1][:3].sum()
    metric = find_metric("psp@3", propensities=given)
    assert metric.measure(s, as_targets(y)).value == pytest.approx(above / below, **EXACT)
    even = find_metric("psp@3", propensities=np.ones(15)).measure(s, as_targets(y)).value
    assert even != pytest.approx(above / below, rel=0.01)


@pytest.mark.parametrize(
    "name", [m.name for m in all_metrics("rankings")] + ["auroc", "average_precision", "micro_auroc"]
)
def test_only_the_order_of_scores_matters_for_ranking_metrics(name: str):
    s, y = label_sets(11, num_labels=15)
    metric, targets = find_metric(name), as_targets(y)
    value = metric(s, targets)
    for changed in (s - 100, s * 1000, -np.exp(-s), s.astype(np.float32)):
        assert metric(changed, targets) == pytest.approx(value, **EXACT)
    assert metric(np.roll(s, 1, axis=0), targets) != pytest.approx(value)


@pytest.mark.parametrize("name", [m.name for m in all_metrics("rankings")])
def test_the_order_of_columns_does_not_matter_even_for_constant_scores(name: str):
    _, y = label_sets(12)
    constant = np.zeros(y.shape)
    turned = find_metric(name)(constant, as_targets(y[:, ::-1]))
    assert find_metric(name)(constant, as_targets(y)) == pytest.approx(turned, **EXACT)


@pytest.mark.parametrize("name", [m.name for m in all_metrics("rankings")])
def test_lone_rows_are_counted_and_change_no_mean(name: str):
    s, y = label_sets(13)
    y[:7] = False
    metric = find_metric(name)
    measured = metric.measure(s, as_targets(y))
    assert (measured.num_rows, measured.num_lone) == (33, 7)
    assert measured.value == pytest.approx(metric(s[7:], as_targets(y[7:])), **EXACT)
    with pytest.warns(MarginsWarning, match="MG020 .*7 of 40 rows have nothing relevant"):
        assert metric(s, as_targets(y)) == measured.value
    with pytest.raises(MarginsError, match="none, 40 with nothing relevant"):
        metric(s, as_targets(np.zeros_like(y)))


OF_EMBEDDINGS = [
    "precision@1",
    "precision@5",
    "recall@10",
    "ndcg@10",
    "hits@5",
    "map@r",
    "r_precision",
    "mrr",
]


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_embeddings_in_blocks_equal_their_score_matrix(name: str, monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(1)
    # Whole numbers: the products are exact whatever the block, and full of ties.
    vectors = torch.randint(-2, 3, (97, 3), generator=generator).double()
    labels = torch.randint(0, 8, (97,), generator=generator)
    targets = Targets.of_matches(labels)
    matrix = vectors @ vectors.T
    whole = find_metric(name)(matrix, targets)
    monkeypatch.setattr("margins.evaluation.ranked._QUERIES", 10)
    monkeypatch.setattr("margins.evaluation.ranked._CORPUS", 7)
    assert find_metric(name)(Embeddings(vectors, vectors), targets) == pytest.approx(whole, **EXACT)
    # An item is no candidate for itself, though it is the nearest.
    dropped = [np.delete(matrix[i].numpy(), i) for i in range(97)]
    relevant = [np.delete((labels == labels[i]).numpy(), i) for i in range(97)]
    by_hand = find_metric(name)(np.stack(dropped), as_targets(np.stack(relevant)))
    assert whole == pytest.approx(by_hand, **EXACT)


def test_no_block_of_embeddings_holds_all_pairs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("margins.evaluation.ranked._QUERIES", 16)
    monkeypatch.setattr("margins.evaluation.ranked._CORPUS", 32)
    vectors = torch.randn(100, 4, generator=torch.Generator().manual_seed(2))
    record = Candidates(Embeddings(vectors, vectors), Targets.of_matches(torch.arange(100) % 9))
    sizes = [scores.numel() for part in _queries(record) for _, _, scores in _blocks(part)]
    assert max(sizes) == 16 * 32
    assert sum(sizes) == 100 * 100


def test_metrics_that_need_whole_rows_refuse_embeddings():
    vectors = torch.eye(4)
    with pytest.raises(MarginsError, match="a score matrix"):
        find_metric("lrap")(Embeddings(vectors, vectors), Targets.of_matches(torch.tensor([0, 0, 1, 1])))
