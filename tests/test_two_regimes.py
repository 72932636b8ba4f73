"""Learning curves of classifiers, where they cross, and made-up classes on which that is known."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from margins.compare import fit_logistic_regression, fit_naive_bayes, learning_curve
from margins.diagnose import GaussianClasses, LearningCurve, two_regimes
from margins.errors import MarginsError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def curve_of(first: list[float], second: list[float], *, seed: int = 1) -> LearningCurve:
    rng, noise, repeats = np.random.default_rng(seed), 0.01, 6
    sizes = tuple(10 * 2**k for k in range(len(first)))
    shared = 0.05 * rng.normal(size=(len(sizes), repeats))  # what both share must not blur their difference
    errors = {
        name: np.array(means)[:, None] + shared + noise * rng.normal(size=shared.shape)
        for name, means in (("first", first), ("second", second))
    }
    return LearningCurve(sizes=sizes, errors=errors)


def test_a_crossing_is_found_with_sizes_on_both_sides_of_it():
    curve = curve_of([0.3, 0.25, 0.2, 0.2, 0.2], [0.5, 0.35, 0.198, 0.15, 0.1])
    found = two_regimes(curve, "first", "second")
    assert found.regimes == "two regimes"
    assert found.after == 20
    assert found.after < found.crossing <= found.before
    assert found.before == 80
    assert two_regimes(curve, "second", "first").regimes == "reversed"
    means = [found.differences[size].mean for size in curve.sizes]
    np.testing.assert_allclose(means, curve.means("first") - curve.means("second"))
    apart = np.sqrt(2 * curve.errors["first"].var(1, ddof=1))
    spread = [test.spread for test in found.differences.values()]
    assert np.mean(spread) < np.mean(apart) / 3, "vacuous: nothing is shared"


@pytest.mark.parametrize(
    ("first", "second", "regimes"),
    [
        ([0.3, 0.2, 0.1], [0.5, 0.4, 0.3], "first throughout"),
        ([0.5, 0.4, 0.3], [0.3, 0.2, 0.1], "second throughout"),
    ],
)
def test_curves_that_do_not_cross_have_one_regime(first: list[float], second: list[float], regimes: str):
    found = two_regimes(curve_of(first, second), "first", "second")
    assert found.regimes == regimes
    assert found.crossing is None


def test_equal_classifiers_are_told_apart_no_more_often_than_the_confidence_allows():
    same = [0.3, 0.2, 0.1, 0.1]
    found = [two_regimes(curve_of(same, same, seed=s), "first", "second", confidence=0.9) for s in range(200)]
    decided = sum(f.regimes != "undecided" for f in found)
    assert 5 < decided < 33  # 20 on average at most, 4.2 of standard deviation


def test_the_intervals_of_all_sizes_hold_together():
    curve = curve_of([0.2] * 4, [0.2] * 4)
    alone = LearningCurve(sizes=(10,), errors={n: e[:1] for n, e in curve.errors.items()})
    together = two_regimes(curve, "first", "second", confidence=0.8).differences[10]
    assert two_regimes(alone, "first", "second", confidence=0.95).differences[10] == together


def test_differences_without_spread_are_no_basis_for_a_regime():
    errors = {"a": np.full((2, 3), 0.1), "b": np.full((2, 3), 0.2)}
    found = two_regimes(LearningCurve(sizes=(5, 10), errors=errors), "a", "b")
    assert found.regimes == "undecided"
    assert found.differences[5].mean == pytest.approx(-0.1)


def test_the_sufficient_size_is_the_first_within_reach_of_the_last():
    curve = LearningCurve(sizes=(5, 10, 20, 40), errors={"a": np.array([[0.5], [0.12], [0.14], [0.1]])})
    assert [curve.sufficient_size("a", within=w) for w in (0.0, 0.03, 0.5)] == [40, 10, 5]


def test_all_classifiers_see_the_same_rows_with_every_class_among_them():
    labels = torch.tensor([0] * 40 + [1] * 8 + [2] * 2)
    features = torch.arange(50.0)[:, None]
    seen: dict[str, list[tuple[Any, ...]]] = {"one": [], "other": []}

    def fit(name: str, x: torch.Tensor, y: torch.Tensor) -> Any:
        assert torch.equal(labels[x[:, 0].long()], y)
        seen[name].append(tuple(x[:, 0].tolist()))
        return lambda new: torch.zeros(len(new), dtype=torch.long)

    heads = {name: partial(fit, name) for name in seen}
    curve = learning_curve(
        heads, (features, labels), (features, labels), sizes=(5, 50), num_repeats=4, seed=0
    )
    assert seen["one"] == seen["other"]
    assert all(set(labels[list(map(int, rows))].tolist()) == {0, 1, 2} for rows in seen["one"])
    assert all(len(set(rows)) == len(rows) for rows in seen["one"])
    assert len(set(seen["one"][:4])) == 4, "vacuous: one draw"
    np.testing.assert_allclose(curve.errors["one"], 0.2)
    again = learning_curve(heads, (features, labels), (features, labels), sizes=(5,), num_repeats=4, seed=0)
    assert again.sizes == (5,)
    assert seen["one"][8:] == seen["one"][:4]


@pytest.mark.parametrize("correlated", [False, True])
def test_gaussian_classes_have_the_moments_that_they_say(correlated: bool):
    classes = GaussianClasses(6, 3, mean_scale=0.5, correlated=correlated, generator=seeded())
    assert classes.means[:, 0].tolist() == [-0.5, 0.5, 1.0]
    x, y = classes.draw(60_000, generator=seeded(1))
    assert np.allclose(np.bincount(y) / len(y), 1 / 3, atol=0.01)
    for k in range(3):
        torch.testing.assert_close(x[y == k].mean(0), classes.means[k], atol=0.06, rtol=0)
        torch.testing.assert_close(x[y == k].T.cov(), classes.covariance, atol=0.3, rtol=0.05)
    off = classes.covariance - classes.covariance.diag().diag()
    assert (off.abs().max() > 0.3) == correlated


def test_naive_bayes_comes_to_the_best_error_where_its_assumption_holds():
    classes = GaussianClasses(50, mean_scale=0.15, generator=seeded())
    x, y = classes.draw(30_000, generator=seeded(1))
    new, truth = classes.draw(30_000, generator=seeded(2))
    error = float((fit_naive_bayes(x, y)(new) != truth).double().mean())
    distance = 2 * 0.15 * math.sqrt(25 / 50 + 25)
    assert classes.best_error() == pytest.approx(0.5 * math.erfc(distance / 2 / math.sqrt(2)))
    assert error == pytest.approx(classes.best_error(), abs=0.006)
    right = GaussianClasses(50, mean_scale=0.15, correlated=True, generator=seeded())
    assert right.best_error() != pytest.approx(classes.best_error(), abs=0.01)


def test_naive_bayes_needs_fewer_rows_than_logistic_regression_and_then_they_meet():
    # Width 200, 5 draws: the errors that were measured when the method was described.
    expected = {40: (0.206, 0.494), 640: (0.076, 0.131)}
    generator = seeded(7)
    classes = GaussianClasses(200, mean_scale=0.15, generator=generator)
    train, test = classes.draw(5000, generator=generator), classes.draw(3000, generator=generator)
    heads = {"nb": fit_naive_bayes, "lr": fit_plainly}
    curve = learning_curve(heads, train, test, sizes=(40, 640), num_repeats=5, seed=0)
    for size, nb, lr in zip(curve.sizes, curve.means("nb"), curve.means("lr"), strict=True):
        assert nb == pytest.approx(expected[size][0], abs=0.04)
        assert lr == pytest.approx(expected[size][1], abs=0.04)
    assert two_regimes(curve, "nb", "lr").regimes == "first throughout"


def fit_plainly(features: torch.Tensor, labels: torch.Tensor) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(features.numpy(), labels.numpy())
    return lambda new: torch.from_numpy(model.predict(new.numpy()))


def test_logistic_regression_sees_its_features_between_zero_and_one():
    x, y = GaussianClasses(4, generator=seeded()).draw(80, generator=seeded(1))
    plain, scaled = fit_logistic_regression(x, y), fit_logistic_regression(1e3 * x - 7, y)
    assert torch.equal(plain(x), scaled(1e3 * x - 7))
    constant = torch.cat([x, torch.ones(80, 1)], 1)
    assert torch.equal(fit_logistic_regression(constant, y)(constant), plain(x))
    assert (plain(x) == y).double().mean() > 0.8, "vacuous: it learned nothing"


ONE = {"a": np.zeros((1, 2))}
ROWS = (torch.eye(4), torch.arange(4))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: LearningCurve(sizes=(5, 5), errors={"a": np.zeros((2, 1))}), ("sizes", "grow")),
        (lambda: LearningCurve(sizes=(5,), errors={"a": np.zeros((2, 1))}), ("errors", "[S, R]")),
        (lambda: LearningCurve(sizes=(5,), errors={"a": np.array([[np.nan]])}), ("errors['a']", "finite")),
        (lambda: LearningCurve(sizes=(5,), errors=ONE).means("b"), ("name", "'a'")),
        (lambda: LearningCurve(sizes=(5,), errors=ONE).sufficient_size("a", within=-1), ("within", ">= 0")),
        (
            lambda: two_regimes(LearningCurve(sizes=(5,), errors=ONE), "a", "a", confidence=1.0),
            ("confidence", "(0, 1)"),
        ),
        (lambda: GaussianClasses(0, generator=seeded()), ("width", "at least 1")),
        (lambda: GaussianClasses(3, 1, generator=seeded()), ("num_classes", "at least 2")),
        (lambda: GaussianClasses(3, 3, generator=seeded()).best_error(), ("best_error", "two classes")),
        (lambda: learning_curve({}, ROWS, (torch.eye(3), ROWS[1]), sizes=(4,), seed=0), ("test", "[N, d]")),
        (lambda: learning_curve({}, ROWS, ROWS, sizes=(3,), seed=0), ("sizes", "from 4", "to 4")),
        (lambda: learning_curve({}, ROWS, ROWS, sizes=(5,), seed=0), ("sizes", "5")),
        (lambda: learning_curve({}, ROWS, ROWS, sizes=(4,), num_repeats=0, seed=0), ("num_repeats",)),
        (
            lambda: learning_curve(
                {},
                (torch.zeros(5001, 1), torch.tensor([0] * 5000 + [1])),
                (torch.zeros(1, 1), torch.zeros(1, dtype=torch.long)),
                sizes=(2,),
                seed=0,
            ),
            ("sizes", "1000 draws"),
        ),
    ],
)
def test_what_makes_no_curve_is_refused(act: Any, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        act()
    for word in words:
        assert word in str(refused.value)
