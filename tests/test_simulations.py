"""What verdicts promise, shown by simulation: coverage, false calls, power, and repeats added after looking.

Two sources of folds. A Gaussian model with exactly the dependence that the correction assumes; and small
learners, trained on every fold of generated data, whose dependence nobody assumed. Each law stands beside the
same count with the mechanism off, which shows that the law can be broken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from margins.evaluation.statistics import corrected_t, detectable_difference
from margins.evaluation.verdicts import judge_pairs

Fitted = tuple[np.ndarray, np.ndarray]  # weights [B, d] and offsets [B] of linear rules for B data sets
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], Fitted]  # with a strength [B]
Recipe = Callable[[np.ndarray, np.ndarray, np.random.Generator], Fitted]  # of rows [B, n, d], signs [B, n]

ROWS, WIDTH = 100, 8
MEAN, SCALES = np.full(WIDTH, 0.25), np.linspace(0.5, 1.5, WIDTH)


# Folds whose dependence is the assumed one.


def correlated_folds(
    draws: np.random.Generator, num: int, folds: int, ratio: float, *, spread: float = 1.0
) -> np.ndarray:
    """[num, folds] scores of mean 0; their mean has the variance spread^2 (1/J + ratio)."""
    return spread * (draws.normal(0, math.sqrt(ratio), (num, 1)) + draws.normal(0, 1, (num, folds)))


# Learners, for B data sets at once.


def signs(num_sets: int, num: int = ROWS) -> np.ndarray:
    """[B, n] the true class, -1 in the first half of the rows and 1 in the second."""
    return np.tile(np.where(np.arange(num) < num // 2, -1.0, 1.0), (num_sets, 1))


def generated(draws: np.random.Generator, num_sets: int, num: int = ROWS, blocks: int = 1) -> np.ndarray:
    """[B, n, d] two Gaussian classes; the blocks of columns are independent and equally distributed."""
    mean, scales = np.tile(MEAN, blocks), np.tile(SCALES, blocks)
    noise = draws.normal(size=(num_sets, num, WIDTH * blocks))
    return noise * scales + signs(num_sets, num)[..., None] * mean


def rows_of(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The given rows [B, k] of each data set."""
    return np.take_along_axis(table, rows[..., None] if table.ndim == 3 else rows, 1)


def accuracy(fitted: Fitted, x: np.ndarray, s: np.ndarray) -> np.ndarray:
    """[B] shares of rows on the right side."""
    return (((x @ fitted[0][..., None])[..., 0] + fitted[1][:, None]) * s > 0).mean(1)


def class_means(x: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[B, d] of each class."""
    low, high = (((s == v)[..., None] * x).sum(1) / (s == v).sum(1)[:, None] for v in (-1, 1))
    return low, high


def nearest_centroid(x: np.ndarray, s: np.ndarray, draws: np.random.Generator) -> Fitted:
    low, high = class_means(x, s)
    return high - low, ((low**2).sum(1) - (high**2).sum(1)) / 2


def naive_bayes(x: np.ndarray, s: np.ndarray, draws: np.random.Generator) -> Fitted:
    """Gaussian, with one variance a column for both classes."""
    low, high = class_means(x, s)
    own = np.where((s > 0)[..., None], high[:, None], low[:, None])
    variance = ((x - own) ** 2).mean(1)
    return (high - low) / variance, ((low**2 - high**2) / variance).sum(1) / 2


def ridge(x: np.ndarray, s: np.ndarray, strength: np.ndarray, draws: np.random.Generator) -> Fitted:
    centred = x - x.mean(1, keepdims=True)
    squares = centred.transpose(0, 2, 1) @ centred + strength[:, None, None] * np.eye(x.shape[2])
    weights = np.linalg.solve(squares, centred.transpose(0, 2, 1) @ s[..., None])[..., 0]
    return weights, s.mean(1) - (weights * x.mean(1)).sum(1)


def plain_ridge(x: np.ndarray, s: np.ndarray, draws: np.random.Generator) -> Fitted:
    return ridge(x, s, np.ones(len(x)), draws)


def sigmoid_descent(x: np.ndarray, s: np.ndarray, rate: np.ndarray, draws: np.random.Generator) -> Fitted:
    """Logistic regression with one output: 20 stochastic steps of 16 rows from zero."""
    weights, offset = np.zeros((len(x), x.shape[2])), np.zeros(len(x))
    for _ in range(20):
        rows = draws.integers(0, x.shape[1], (len(x), 16))
        z, t = rows_of(x, rows), rows_of(s, rows)
        scores = (z @ weights[..., None])[..., 0] + offset[:, None]
        slope = -t / (1 + np.exp(t * scores)) / 16
        weights -= rate[:, None] * (slope[:, None] @ z)[:, 0]
        offset -= rate * slope.sum(1)
    return weights, offset


def softmax_descent(x: np.ndarray, s: np.ndarray, rate: np.ndarray, draws: np.random.Generator) -> Fitted:
    """The same with two outputs and half the rate: each step moves their difference as far as the one."""
    weights, offset = np.zeros((len(x), x.shape[2], 2)), np.zeros((len(x), 1, 2))
    for _ in range(20):
        rows = draws.integers(0, x.shape[1], (len(x), 16))
        z, true = rows_of(x, rows), np.eye(2)[(rows_of(s, rows) > 0).astype(int)]
        powers = np.exp(z @ weights + offset)
        slope = (powers / powers.sum(2, keepdims=True) - true) / 16
        weights -= rate[:, None, None] / 2 * (z.transpose(0, 2, 1) @ slope)
        offset -= rate[:, None, None] / 2 * slope.sum(1, keepdims=True)
    return weights[..., 1] - weights[..., 0], offset[:, 0, 1] - offset[:, 0, 0]


def searched(fit: Fit, low: float, high: float) -> Recipe:
    """Four strengths drawn from 10^low to 10^high; the best on a quarter of the training rows is kept."""

    def recipe(x: np.ndarray, s: np.ndarray, draws: np.random.Generator) -> Fitted:
        order = draws.random(s.shape).argsort(1)
        select, own = np.split(order, [s.shape[1] // 4], axis=1)
        best, kept = np.full(len(x), -1.0), (np.zeros((len(x), x.shape[2])), np.zeros(len(x)))
        for _ in range(4):
            strength = 10 ** draws.uniform(low, high, len(x))
            fitted = fit(rows_of(x, own), rows_of(s, own), strength, draws)
            found = accuracy(fitted, rows_of(x, select), rows_of(s, select))
            wins = found > best
            kept = (np.where(wins[:, None], fitted[0], kept[0]), np.where(wins, fitted[1], kept[1]))
            best = np.maximum(found, best)
        return kept

    return recipe


def turned(recipe: Recipe, basis: np.ndarray) -> Recipe:
    """The recipe on features turned by an orthogonal matrix; its rules are turned back."""

    def on_turned(x: np.ndarray, s: np.ndarray, draws: np.random.Generator) -> Fitted:
        weights, offset = recipe(x @ basis, s, draws)
        return weights @ basis.T, offset

    return on_turned


def on_block(recipe: Recipe, block: int) -> Recipe:
    """The recipe on one block of the columns."""

    def on_columns(x: np.ndarray, s: np.ndarray, draws: np.random.Generator) -> Fitted:
        columns = slice(block * WIDTH, (block + 1) * WIDTH)
        weights = np.zeros((len(x), x.shape[2]))
        weights[:, columns], offset = recipe(x[..., columns], s, draws)
        return weights, offset

    return on_columns


def fold_scores(x: np.ndarray, recipes: list[Recipe], folds: int, repeats: int, *, seed: int) -> np.ndarray:
    """[recipes, B, J] accuracies on the test folds of repeated stratified cross-validation.

    All recipes see the same folds. Each has draws of its own, for its search, its split and its batches.
    """
    draws, *own = np.random.default_rng(seed).spawn(1 + len(recipes))
    num_sets, num = x.shape[:2]
    s, found = signs(num_sets, num), []
    for _ in range(repeats):
        halves = draws.random((num_sets, 2, num // 2)).argsort(2) + np.array([[0], [num // 2]])
        parts = halves.reshape(num_sets, 2, folds, -1)
        for fold in range(folds):
            test = parts[:, :, fold].reshape(num_sets, -1)
            train = np.delete(parts, fold, 2).reshape(num_sets, -1)
            fitted = [
                recipe(rows_of(x, train), rows_of(s, train), d)
                for recipe, d in zip(recipes, own, strict=True)
            ]
            found.append([accuracy(each, rows_of(x, test), rows_of(s, test)) for each in fitted])
    return np.array(found).transpose(1, 2, 0)


def true_accuracy(recipe: Recipe, num_train: int, *, seed: int) -> float:
    """Mean over 4000 training sets of the exact accuracy of what was trained: the classes are Gaussian."""
    draws = np.random.default_rng(seed)
    x = generated(draws, 4000, num_train)
    weights, offset = recipe(x, signs(4000, num_train), draws)
    spread = np.sqrt((weights**2 * SCALES**2).sum(1))
    sides = [stats.norm.cdf((weights @ MEAN + turn * offset) / spread) for turn in (-1, 1)]
    return float(np.mean(sides))


def coverage(differences: np.ndarray, true: float, ratio: float) -> float:
    tests = [corrected_t(row, test_to_train=ratio) for row in differences]
    return float(np.mean([t.low <= true <= t.high for t in tests]))


def test_two_outputs_at_half_the_rate_are_one_output():
    x = generated(np.random.default_rng(0), 5)
    one, two = (
        fit(x, signs(5), np.full(5, 0.5), np.random.default_rng(1))
        for fit in (sigmoid_descent, softmax_descent)
    )
    assert two[0] == pytest.approx(one[0])
    assert two[1] == pytest.approx(one[1])
    assert abs(one[0]).min() > 0


def test_the_exact_accuracy_is_the_share_of_many_new_rows():
    draws = np.random.default_rng(2)
    fitted = nearest_centroid(generated(draws, 1000, 80), signs(1000, 80), draws)
    shares = accuracy(fitted, generated(draws, 1000, 400), signs(1000, 400))
    assert true_accuracy(nearest_centroid, 80, seed=3) == pytest.approx(shares.mean(), abs=0.004)
    assert 0.7 < shares.mean() < 0.8


# The interval.


@pytest.mark.parametrize(("num_folds", "ratio"), [(5, 1 / 4), (10, 1 / 9), (20, 1 / 4), (15, 1 / 2)])
def test_of_2000_gaussian_draws_the_interval_covers_95_in_100_and_uncorrected_far_fewer(
    num_folds: int, ratio: float
):
    folds = 0.3 + correlated_folds(np.random.default_rng(num_folds), 2000, num_folds, ratio)
    assert 0.93 <= coverage(folds, 0.3, ratio) <= 0.97
    assert coverage(folds, 0.3, 0.0) < 0.9


@pytest.mark.parametrize(
    ("pair", "folds", "repeats"),
    [
        ((nearest_centroid, plain_ridge), 5, 2),
        ((naive_bayes, nearest_centroid), 10, 2),
        ((naive_bayes, plain_ridge), 5, 6),
    ],
    ids=["centroid-ridge", "bayes-centroid", "bayes-ridge"],
)
def test_the_interval_covers_the_true_difference_of_trained_learners_and_uncorrected_clearly_less(
    pair: tuple[Recipe, Recipe], folds: int, repeats: int
):
    num_train = ROWS - ROWS // folds
    first, second = (true_accuracy(recipe, num_train, seed=4) for recipe in pair)
    assert abs(first - second) > 0.005
    x = generated(np.random.default_rng(5), 400)
    scores = fold_scores(x, list(pair), folds, repeats, seed=6)
    corrected = coverage(scores[0] - scores[1], first - second, 1 / (folds - 1))
    plain = coverage(scores[0] - scores[1], first - second, 0.0)
    assert corrected >= 0.93
    assert plain < corrected - 0.05


# Comparisons in which no recipe is better.


def num_false(scores: np.ndarray, ratio: float) -> int:
    """Of B comparisons with scores [recipes, B, J]: those that call any recipe better."""
    names = "abcdefg"[: len(scores)]
    judged = [
        judge_pairs(dict(zip(names, each, strict=True)), test_to_train=ratio, rope=None)
        for each in scores.transpose(1, 0, 2)
    ]
    return sum(any(p.verdict == "better" for p in pairs) for pairs in judged)


def num_false_of_plain_tests(scores: np.ndarray) -> int:
    """The same by ordinary paired t tests, each at 0.05 by itself."""
    lowest = [stats.ttest_rel(a, b, axis=1).pvalue for a, b in combinations(scores, 2)]
    return int((np.min(lowest, axis=0) <= 0.05).sum())


def equal_by_construction() -> tuple[np.ndarray, list[Recipe]]:
    """One learner under four names: twice as it is, on turned features, with two outputs for one."""
    descent = searched(sigmoid_descent, -2, 0.5)
    basis = np.linalg.qr(np.random.default_rng(7).normal(size=(WIDTH, WIDTH)))[0]
    recipes = [descent, descent, turned(descent, basis), searched(softmax_descent, -2, 0.5)]
    return generated(np.random.default_rng(8), 200), recipes


def equal_by_symmetry() -> tuple[np.ndarray, list[Recipe]]:
    """One learner on three equally distributed blocks of columns: each data set favours one by chance."""
    recipes = [on_block(searched(ridge, -1, 3), block) for block in range(3)]
    return generated(np.random.default_rng(9), 200, blocks=3), recipes


@pytest.mark.parametrize("made", [equal_by_construction, equal_by_symmetry])
def test_of_200_comparisons_of_equal_recipes_at_most_18_call_one_better(
    made: Callable[[], tuple[np.ndarray, list[Recipe]]],
):
    x, recipes = made()
    scores = fold_scores(x, recipes, 5, 2, seed=10)
    assert 0.65 < scores.mean() < 0.85
    assert scores.mean((1, 2)) == pytest.approx(scores.mean(), abs=0.01)
    assert num_false(scores, 0.25) <= 18
    assert num_false_of_plain_tests(scores) > 18


def test_without_the_correction_holm_alone_calls_equals_better_in_more_than_18_of_200():
    x, recipes = equal_by_symmetry()
    assert num_false(fold_scores(x, recipes, 5, 2, seed=10), 0.0) > 18


# Power.


def share_called_better(size: float, num: int, ratio: float, *, recipes: int) -> float:
    """How often the first of several recipes is called better than the second, which is `size` behind.

    The other recipes stand halfway, so that Holm's first step alone can call them.
    """
    draws, called = np.random.default_rng(11), 0
    noise = [correlated_folds(draws, 2000, num, ratio, spread=math.sqrt(0.5)) for _ in range(recipes)]
    noise[0] += size / 2
    noise[1] -= size / 2
    names = "abcdefg"[:recipes]
    for each in np.stack(noise, axis=1):
        pairs = judge_pairs(dict(zip(names, each, strict=True)), test_to_train=ratio, rope=None)
        called += any((p.first, p.second, p.verdict) == ("a", "b", "better") for p in pairs)
    return called / 2000


@pytest.mark.parametrize(("recipes", "num", "ratio"), [(2, 5, 1 / 4), (3, 10, 1 / 9)])
def test_a_detectable_difference_at_the_first_step_of_holm_is_called_better_in_80_of_100(
    recipes: int, num: int, ratio: float
):
    alpha = 0.05 / math.comb(recipes, 2)
    size = detectable_difference(1.0, num, test_to_train=ratio, alpha=alpha)
    full = share_called_better(size, num, ratio, recipes=recipes)
    half = share_called_better(size / 2, num, ratio, recipes=recipes)
    assert 0.75 <= full <= 0.85
    assert half < 0.5


# Repeats added after looking.


def rates_of_looking(*, looks: int) -> tuple[float, float, float]:
    """Of 1000 comparisons of equals: better at the first look, at any look, at any if withdrawn."""
    draws = np.random.default_rng(12)
    folds = correlated_folds(draws, 1000, 5 * looks, 1 / 4)
    first = np.zeros(1000, bool)
    ever, withdrawn = first.copy(), first.copy()
    for look in range(looks):
        for trial, row in enumerate(folds[:, : 5 * (look + 1)]):
            if ever[trial]:
                continue
            scores = {"a": row, "b": np.zeros(len(row))}
            ever[trial] = judge_pairs(scores, test_to_train=0.25, rope=None)[0].verdict == "better"
            later = judge_pairs(scores, test_to_train=0.25, rope=None, looked=True)[0].verdict
            withdrawn[trial] |= later != "undecided"
        if look == 0:
            first = ever.copy()
    return first.mean(), ever.mean(), withdrawn.mean()


def test_repeats_added_until_one_is_better_call_too_many_and_none_once_withdrawn():
    first, ever, withdrawn = rates_of_looking(looks=6)
    assert first == pytest.approx(0.05, abs=0.02)
    assert ever > 0.075
    assert withdrawn == 0
