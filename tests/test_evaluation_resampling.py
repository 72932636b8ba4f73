"""Streaming equals the whole, intervals cover as often as they say, groups of classes average their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from margins.errors import MarginsError
from margins.evaluation import (
    Accumulator,
    ClassGroups,
    Embeddings,
    Metric,
    all_metrics,
    bootstrap_interval,
    breakdown,
    class_values,
    find_metric,
)
from margins.evaluation.forms import Whole
from margins.targets import Targets


def data_for(metric: Metric, *, num: int = 57, seed: int = 0) -> tuple[np.ndarray, np.ndarray | torch.Tensor]:
    """Predictions and a truth for any metric; the truth is a dense matrix for label sets."""
    draws = np.random.default_rng(seed)
    if metric.tasks[0] == "classes":
        labels = draws.integers(0, 4, num)
        p = draws.random((num, 4)) + 0.4 * np.eye(4)[labels]
        return p / p.sum(1, keepdims=True), labels
    if metric.tasks[0] == "values":
        values = draws.normal(size=num)
        return values + draws.normal(size=num), values
    truth = draws.random((num, 15)) < 0.2
    truth[::9] = False  # lone rows
    return draws.random((num, 15)), torch.from_numpy(truth).float()


def as_truth(part: np.ndarray | torch.Tensor) -> np.ndarray | Targets:
    return Targets.of_scores(part) if isinstance(part, torch.Tensor) else part


@pytest.mark.parametrize("metric", all_metrics(), ids=lambda m: m.name)
def test_batches_in_two_accumulators_merged_equal_all_rows_at_once(metric: Metric):
    predictions, truth = data_for(metric)
    weight = np.random.default_rng(1).random(57) if metric.name != "spearman" else None
    first, second = Accumulator(metric), Accumulator(metric)
    for start, stop in ((0, 5), (5, 30), (30, 31), (31, 57)):
        own = None if weight is None else weight[start:stop]
        batch = predictions[start:stop].copy(), as_truth(truth[start:stop])
        (first if start < 10 else second).update(*batch, weight=own)
        batch[0][:] = 0.5  # a kept batch is a copy
    first.merge(second)
    found, whole = first.result(), metric.measure(predictions, as_truth(truth), weight=weight)
    assert found.value == pytest.approx(whole.value, rel=1e-12, abs=1e-12)
    assert (found.num_rows, found.num_lone) == (whole.num_rows, whole.num_lone)
    assert whole.value not in (0, 1) or metric.name in ("top_3", "top_5", "hits@10", "subset_accuracy")
    keeps_rows = first.num_bytes > 57 * 8
    assert keeps_rows == (isinstance(metric.compute, Whole) or metric.name == "classwise_ece")


def test_memory_of_sums_does_not_grow_and_that_of_others_does():
    sizes: dict[str, list[int]] = {"macro_f1": [], "auroc": []}
    for name, seen in sizes.items():
        accumulator = Accumulator(find_metric(name))
        for seed in range(3):
            accumulator.update(*data_for(find_metric(name), seed=seed))
            seen.append(accumulator.num_bytes)
    assert sizes["macro_f1"] == [96] * 3
    assert sizes["auroc"] == [57 * n * (4 + 1 + 1) * 8 for n in (1, 2, 3)]


def test_accumulators_of_embeddings_take_batches_of_queries():
    vectors = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 6
    targets, metric = Targets.of_matches(labels), find_metric("map@r")
    seen = Accumulator(metric)
    for rows in torch.arange(40).split(16):
        seen.update(Embeddings(vectors[rows], vectors), targets.take(rows))
    assert seen.result().value == pytest.approx(metric(Embeddings(vectors, vectors), targets))


def test_accumulators_refuse_what_does_not_add_up():
    seen = Accumulator(find_metric("macro_f1"))
    with pytest.raises(MarginsError, match="at least one update"):
        seen.result()
    with pytest.raises(MarginsError, match="an accumulator of macro_f1, got accuracy"):
        seen.merge(Accumulator(find_metric("accuracy")))
    seen.update(np.eye(2), np.array([0, 1]))
    with pytest.raises(MarginsError, match="number of classes"):
        seen.update(np.eye(3), np.array([0, 1, 2]))
    assert seen.result().num_rows == 2  # the refused batch left nothing behind


def slow_percentile(name: str, seed: int, num: int) -> tuple[float, float]:
    """The percentile interval by taking rows, one resample at a time."""
    metric = find_metric(name)
    predictions, truth = data_for(metric)
    draws = np.random.default_rng(seed).integers(0, 57, (num, 57))
    values = [metric.measure(predictions[rows], as_truth(truth[rows])).value for rows in draws]
    return tuple(np.quantile(values, [0.05, 0.95]))


@pytest.mark.parametrize(
    "name", ["accuracy", "macro_f1", "auroc", "log_loss", "rmse", "spearman", "r2", "ndcg@10", "ece"]
)
def test_the_percentile_interval_is_that_of_taking_the_drawn_rows(name: str):
    metric = find_metric(name)
    predictions, truth = data_for(metric)
    found = bootstrap_interval(
        metric, predictions, as_truth(truth), seed=4, num=200, confidence=0.9, method="percentile"
    )
    assert (found.low, found.high) == pytest.approx(slow_percentile(name, 4, 200), rel=1e-10)
    assert found.low < found.value < found.high or name == "ece"


def test_bca_of_a_mean_equals_an_independent_computation():
    from scipy import stats

    draws = np.random.default_rng(3)
    error = draws.exponential(size=40)
    found = bootstrap_interval(find_metric("mae"), error, np.zeros(40), seed=0, num=20000)
    peer = stats.bootstrap((error,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(1))
    reach = found.high - found.low
    assert found.low == pytest.approx(peer.confidence_interval.low, abs=0.03 * reach)
    assert found.high == pytest.approx(peer.confidence_interval.high, abs=0.03 * reach)
    plain = bootstrap_interval(
        find_metric("mae"), error, np.zeros(40), seed=0, num=20000, method="percentile"
    )
    assert found.high > plain.high + 0.03 * reach  # the skewness shows


def coverage(num_trials: int, *, grouped: bool) -> float:
    """How often the interval holds the truth; errors are 1 on average, alike within families of five."""
    draws, covered = np.random.default_rng(7), 0
    for trial in range(num_trials):
        families = np.repeat(np.arange(50), 5)
        error = draws.exponential(size=50)[families]
        found = bootstrap_interval(
            find_metric("mae"), error, np.zeros(250), seed=trial, num=200, confidence=0.9,
            groups=families if grouped else None,
        )  # fmt: skip
        covered += found.low <= 1 <= found.high
    return covered / num_trials


def test_intervals_over_groups_cover_as_they_say_and_over_dependent_rows_do_not():
    # 0.9 nominal; the standard error of 200 trials is 0.02, and few units cost BCa and percentile a little.
    assert 0.82 <= coverage(200, grouped=True) <= 0.96
    assert coverage(200, grouped=False) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_intervals_of_auroc_cover_as_they_say(method: str):
    draws, covered = np.random.default_rng(11), 0
    truth = 0.7602499389065233  # Phi(1 / sqrt(2)): normal scores one apart
    for trial in range(400):
        labels = (np.arange(120) < 40).astype(int)
        p = 1 / (1 + np.exp(-(draws.normal(size=120) + labels)))
        found = bootstrap_interval(
            find_metric("auroc"), np.stack([1 - p, p], 1), labels, seed=trial, num=400, confidence=0.9,
            method=method,
        )  # fmt: skip
        covered += found.low <= truth <= found.high
    assert 0.86 <= covered / 400 <= 0.94


def test_an_interval_is_repeated_by_its_seed_and_says_what_was_left_out():
    p = np.eye(2)[[0] * 17 + [1] * 3] * 0.6 + 0.2
    labels = np.array([0] * 17 + [1] * 3)
    p[0] = [0.4, 0.6]
    runs = [bootstrap_interval(find_metric("auroc"), p, labels, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert 10 < runs[0].num_undefined < 100  # 0.85 ** 20 = 0.04 of the resamples lack the class
    with pytest.raises(MarginsError, match="without one"):
        bootstrap_interval(find_metric("auroc"), p[:18], labels[:18], seed=0)
    same = bootstrap_interval(find_metric("accuracy"), p[1:], labels[1:], seed=0)
    assert (same.low, same.high) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num": 10}, "at least 100"),
        ({"confidence": 1.0}, "confidence"),
        ({"method": "normal"}, "bca or percentile"),
        ({"groups": np.zeros(3, int)}, "groups"),
        ({"groups": np.zeros(57, int)}, "at least two"),
    ],
)
def test_bootstrap_settings_that_are_none_are_refused(settings: dict, words: str):
    metric = find_metric("accuracy")
    with pytest.raises(MarginsError, match=words):
        bootstrap_interval(metric, *data_for(metric), seed=0, **settings)


def test_class_groups_follow_their_rule():
    counts = np.array([500, 100, 101, 20, 19, 0, 100])
    assert ClassGroups.by_rows(counts).members.tolist() == [0, 1, 0, 1, 2, 2, 1]
    assert ClassGroups.thirds(counts).members.tolist() == [0, 0, 0, 1, 2, 2, 1]
    assert np.bincount(ClassGroups.thirds(np.arange(9)).members).tolist() == [3, 3, 3]


@pytest.mark.parametrize("name", [m.name for m in all_metrics() if m.per_class is not None])
def test_groups_average_the_values_of_their_classes_and_count_absent_ones(name: str):
    metric = find_metric(name)
    predictions, labels = data_for(metric)
    labels = np.where(labels == 2, 1, labels)  # class 2 has no row
    groups = ClassGroups.thirds(np.array([4, 3, 2, 1]))
    values = class_values(metric, predictions, labels)
    scores = breakdown(metric, predictions, labels, groups)
    assert [s.name for s in scores] == ["head", "medium", "tail"]
    assert scores[0].value == pytest.approx(values[:2].mean())
    if name == "classwise_ece":
        return
    assert np.isnan(values[2])
    assert (scores[1].num_classes, scores[1].num_absent) == (0, 1)
    if name != "g_mean":
        assert np.nanmean(values) == pytest.approx(metric(predictions, labels))


def test_breakdown_refuses_what_has_no_classes():
    metric = find_metric("accuracy")
    groups = ClassGroups.thirds(np.array([1, 2, 3]))
    with pytest.raises(MarginsError, match="a value for each class, got accuracy; one of macro_f1"):
        breakdown(metric, *data_for(metric), groups)
    with pytest.raises(MarginsError, match="groups"):
        breakdown(find_metric("macro_f1"), *data_for(metric), groups)
    with pytest.raises(MarginsError, match="training_counts"):
        ClassGroups.thirds(np.array([1.0]))
    with pytest.raises(MarginsError, match="0 < few <= many"):
        ClassGroups.by_rows(np.array([1]), many=5, few=20)


def test_resamples_equal_to_the_value_stand_half_on_each_side():
    # Half of 20 rows are right: everything is symmetric, so no bias may be found.
    p, labels = np.eye(2)[[0] * 20], np.array([0, 1] * 10)
    found = bootstrap_interval(find_metric("accuracy"), p, labels, seed=0, num=20000)
    plain = bootstrap_interval(find_metric("accuracy"), p, labels, seed=0, num=20000, method="percentile")
    assert (found.low, found.high) == (plain.low, plain.high)
    assert found.low + found.high == pytest.approx(1.0)
