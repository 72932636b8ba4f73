"""The paired bootstrap: equal to taking the drawn rows and seeds, and covering as it says over both."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from margins.errors import MarginsError
from margins.evaluation import find_metric
from margins.evaluation.paired_bootstrap import paired_bootstrap
from margins.targets import Targets

ROWS, SEEDS = 40, 3
Sides = tuple[list[np.ndarray], list[np.ndarray], np.ndarray | torch.Tensor]


def data_for(name: str, seed: int = 0) -> Sides:
    """Three predictions a side and a truth; the first side is better. Some rows of label sets are lone."""
    draws, task = np.random.default_rng(seed), find_metric(name).tasks[0]
    if task == "classes":
        truth = draws.integers(0, 3, ROWS)
        right = np.eye(3)[truth]
    elif task == "values":
        truth = draws.normal(size=ROWS)
        right = truth
    else:
        right = (draws.random((ROWS, 12)) < 0.3).astype(float)
        right[::9] = 0
        truth = torch.from_numpy(right).float()
    sides = [[part * right + draws.random(right.shape) for _ in range(SEEDS)] for part in (0.6, 0.3)]
    if task == "classes":
        sides = [[p / p.sum(1, keepdims=True) for p in side] for side in sides]
    return sides[0], sides[1], truth


def as_truth(part: np.ndarray | torch.Tensor) -> np.ndarray | Targets:
    return Targets.of_scores(part) if isinstance(part, torch.Tensor) else part


def slow_interval(name: str, sides: Sides, seed: int, groups: np.ndarray) -> tuple[float, float]:
    """The same by taking rows and models, one resample at a time."""
    metric, (first, second, truth) = find_metric(name), sides
    for_seeds, for_units = np.random.default_rng(seed).spawn(2)
    num = len(np.unique(groups))
    values = []
    for seeds, units in zip(
        for_seeds.integers(0, SEEDS, (100, SEEDS)), for_units.integers(0, num, (100, num)), strict=True
    ):
        rows = np.concatenate([np.flatnonzero(groups == unit) for unit in units])
        part = as_truth(truth[rows])
        each = [metric.measure(side[s][rows], part).value for s in seeds for side in (first, second)]
        values.append(np.mean(each[::2]) - np.mean(each[1::2]))
    low, high = np.quantile(values, [0.05, 0.95])
    return float(low), float(high)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "auroc", "log_loss", "spearman", "ndcg@10"])
def test_the_interval_is_that_of_taking_the_drawn_rows_of_the_drawn_models(name: str, grouped: bool):
    groups = np.arange(ROWS) // 2 if grouped else np.arange(ROWS)
    first, second, truth = data_for(name)
    found = paired_bootstrap(
        find_metric(name), first, second, as_truth(truth), seed=5, num=100, confidence=0.9,
        groups=groups if grouped else None,
    )  # fmt: skip
    assert (found.low, found.high) == pytest.approx(slow_interval(name, (first, second, truth), 5, groups))
    assert found.low < found.value < found.high
    assert (found.num_seeds, found.num_units) == (SEEDS, len(np.unique(groups)))
    values = [[find_metric(name).measure(p, as_truth(truth)).value for p in s] for s in (first, second)]
    assert found.value == pytest.approx(np.mean(values[0]) - np.mean(values[1]))


@pytest.mark.parametrize("name", ["accuracy", "auroc"])
def test_swapping_the_models_turns_the_interval_round_and_a_model_does_not_differ_from_itself(name: str):
    metric, (first, second, truth) = find_metric(name), data_for(name)
    one = paired_bootstrap(metric, first, second, truth, seed=1, num=100)
    other = paired_bootstrap(metric, second, first, truth, seed=1, num=100)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    itself = paired_bootstrap(metric, first, first, truth, seed=1, num=100)
    assert (itself.value, itself.low, itself.high) == (0.0, 0.0, 0.0)
    assert one.value > 0


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_a_doubled_weight_is_a_doubled_row_of_its_group(name: str):
    first, second, truth = data_for(name)
    groups, twice = np.arange(ROWS) // 4, np.concatenate([np.arange(ROWS), np.arange(5)])
    weight = 1.0 + (np.arange(ROWS) < 5)
    found = paired_bootstrap(
        find_metric(name), first, second, truth, seed=2, num=100, groups=groups, weight=weight
    )
    repeated = paired_bootstrap(
        find_metric(name), [p[twice] for p in first], [p[twice] for p in second], truth[twice], seed=2,
        num=100, groups=groups[twice],
    )  # fmt: skip
    plain = paired_bootstrap(find_metric(name), first, second, truth, seed=2, num=100, groups=groups)
    assert (found.value, found.low, found.high) == pytest.approx(
        (repeated.value, repeated.low, repeated.high)
    )
    assert found.value != plain.value


def coverage(num_seeds: int, *, averages: bool = False, pairs: bool = True) -> tuple[float, float]:
    """How often the interval holds the true difference 0.2 of mean errors, and its mean width.

    Both models err alike on hard items, and each pair of seeds differs by a draw of its own. `averages` hides
    the seeds from the bootstrap: one model of mean errors. Without `pairs` the second model's items are of
    another order, so the interval does not know what the two have in common.
    """
    draws, covered, width = np.random.default_rng(4), 0, 0.0
    for trial in range(200):
        hard = 3 + draws.normal(0, 1, 60)
        first = [hard + draws.normal(0.2, 0.3) + draws.normal(0, 0.2, 60) for _ in range(num_seeds)]
        second = [hard + draws.normal(0, 0.2, 60) for _ in range(num_seeds)]
        if averages:
            first, second = [np.mean(first, axis=0)], [np.mean(second, axis=0)]
        if not pairs:
            second = [draws.permutation(e) for e in second]
        found = paired_bootstrap(
            find_metric("mae"), first, second, np.zeros(60), seed=trial, num=200, confidence=0.9
        )
        covered += found.low <= 0.2 <= found.high
        width += (found.high - found.low) / 200
    return covered / 200, width


def test_over_seeds_and_items_it_covers_as_it_says_and_over_items_alone_it_does_not():
    # 0.9 nominal; the standard error of 200 trials is 0.02, and ten seeds cost a little.
    assert 0.82 <= coverage(10)[0] <= 0.96
    assert coverage(10, averages=True)[0] < 0.6
    assert 0.6 < coverage(3)[0] < 0.8  # too few seeds, as the documentation says


def test_what_the_models_have_in_common_does_not_widen_the_interval():
    assert coverage(10)[1] < 0.7 * coverage(10, pairs=False)[1]


def test_with_one_seed_it_speaks_of_items_and_says_so():
    draws = np.random.default_rng(6)
    errors = draws.normal(3, 1, (2, 60))
    found = paired_bootstrap(find_metric("mae"), [errors[0]], [errors[1]], np.zeros(60), seed=0, num=4000)
    reach = 1.96 * (errors[0] - errors[1]).std() / np.sqrt(60)
    assert found.num_seeds == 1
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach), abs=0.05)


def test_it_is_repeated_by_its_seed_and_says_what_was_left_out():
    labels = np.array([0] * 17 + [1] * 3)
    p = np.eye(2)[labels] * 0.6 + 0.2
    p[0], poor = [0.3, 0.7], np.eye(2)[np.arange(20) % 2] * 0.6 + 0.2
    runs = [
        paired_bootstrap(find_metric("auroc"), [p], [poor], labels, seed=seed, num=100) for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert 1 <= runs[0].num_undefined < 10  # 0.85 ** 20 = 0.04 of the resamples lack the class
    with pytest.raises(MarginsError, match="without one"):
        paired_bootstrap(find_metric("auroc"), [p[:18]], [poor[:18]], labels[:18], seed=0, num=100)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"num": 10}, "at least 100"),
        ({"confidence": 1.0}, "confidence"),
        ({"groups": np.zeros(3, int)}, "groups"),
        ({"groups": np.zeros(ROWS, int)}, "at least two"),
        ({"weight": np.ones(3)}, "weight"),
        ({"first": []}, "first: expected a list of predictions"),
        ({"second": data_for("accuracy")[1][0]}, "second: expected a list of predictions"),
        ({"second": data_for("accuracy")[1][:2]}, "as many seeds as first: 3"),
        ({"second": [p[:5] for p in data_for("accuracy")[1]]}, "labels"),
    ],
)
def test_what_is_no_paired_bootstrap_is_refused_by_name(change: dict, word: str):
    first, second, truth = data_for("accuracy")
    given = {"first": first, "second": second, "truth": truth, "seed": 0, **change}
    with pytest.raises(MarginsError) as refused:
        paired_bootstrap(find_metric("accuracy"), **given)
    assert word in str(refused.value)
