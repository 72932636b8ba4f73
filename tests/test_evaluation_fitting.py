"""Calibration, thresholds and the change of prior: best by an independent search, on select rows alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from margins.data.roles import SelectRows
from margins.errors import MarginsError
from margins.evaluation.calibration import (
    Calibration,
    Isotonic,
    Platt,
    Temperature,
    VectorScaling,
    calibration_from,
)
from margins.evaluation.prior import corrected_for_prior
from margins.evaluation.select_role import SelectPredictions
from margins.evaluation.thresholds import (
    BinaryThreshold,
    Cost,
    Thresholds,
    fit_binary_threshold,
    fit_thresholds,
)
from margins.targets import Targets

METHODS = [Temperature, VectorScaling, Platt, Isotonic]


def made_up(seed: int, *, num: int = 400, num_classes: int = 2, factor: float = 2.5) -> SelectPredictions:
    """Logits that are too sure of themselves by a factor, and shifted."""
    draws = np.random.default_rng(seed)
    honest = draws.normal(0, 1.5, (num, num_classes))
    p = np.exp(log_softmax(honest, 1))
    labels = (p.cumsum(1) < draws.random((num, 1))).sum(1).clip(max=num_classes - 1)
    return SelectPredictions(factor * honest + np.linspace(-0.3, 0.3, num_classes), labels)


def log_loss(p: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(p[np.arange(len(labels)), labels]).mean())


def uncalibrated(select: SelectPredictions) -> np.ndarray:
    return np.exp(log_softmax(select.numbers(), axis=1))


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("factor", [0.2, 1.0, 2.5, 20.0])
def test_temperature_is_the_minimum_that_an_independent_search_finds(num_classes: int, factor: float):
    for seed in range(5):
        select = made_up(seed, num_classes=num_classes, factor=factor)
        z, y = select.numbers(), select.class_ids()

        def loss(log_t: float, z: np.ndarray = z, y: np.ndarray = y) -> float:
            return -log_softmax(z / np.exp(log_t), axis=1)[np.arange(len(y)), y].mean()

        found = Temperature.fit(select).temperature
        search = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
        assert found == pytest.approx(np.exp(search.x), rel=1e-6)
        # Nor can the search see a difference in the loss, and the slope there is zero.
        assert loss(np.log(found)) <= search.fun + 1e-15
        p = np.exp(log_softmax(z / found, 1))
        assert abs((p * z).sum(1).mean() - z[np.arange(len(y)), y].mean()) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_calibration_never_raises_the_select_log_loss_and_mends_what_is_wrong(
    method: type[Calibration], factor: float
):
    for seed in range(5):
        for num_classes in (2,) if method is Platt else (2, 4):
            select = made_up(seed, num_classes=num_classes, factor=factor)
            y = select.class_ids()
            before = log_loss(uncalibrated(select), y)
            p = method.fit(select).probabilities(select.logits)
            assert p.sum(1) == pytest.approx(np.ones(len(p)))
            assert log_loss(p, y) <= before
            if factor != 1.0:
                fresh = made_up(seed + 100, num_classes=num_classes, factor=factor, num=4000)
                mended = log_loss(Temperature.fit(select).probabilities(fresh.logits), fresh.class_ids())
                assert mended < log_loss(uncalibrated(fresh), fresh.class_ids())


def extreme(kind: str) -> SelectPredictions:
    labels = np.array([0, 1, 0, 1, 1])
    logits = {
        "every row right": np.eye(2)[labels] * 3,
        "every row wrong": np.eye(2)[1 - labels] * 3,
        "nothing said": np.zeros((5, 2)),
        "huge": np.eye(2)[labels] * 1e4,
    }[kind]
    return SelectPredictions(logits, labels)


@pytest.mark.parametrize("kind", ["every row right", "every row wrong", "nothing said", "huge"])
@pytest.mark.parametrize("method", METHODS)
def test_calibration_is_finite_and_no_worse_on_extreme_rows(method: type[Calibration], kind: str):
    select = extreme(kind)
    p = method.fit(select).probabilities(select.logits)
    assert np.isfinite(p).all()
    y = select.class_ids()
    own = -log_softmax(select.numbers(), axis=1)[np.arange(5), y].mean()
    assert log_loss(np.maximum(p, 1e-300), y) <= own
    # An isotonic map leaves no probability at zero that was none before.
    if kind != "huge" and method is Isotonic:
        assert (p > 0).all()


def test_temperature_says_when_it_stands_at_a_bound():
    assert Temperature.fit(extreme("every row right")) == Temperature(temperature=0.01, at_bound=True)
    assert Temperature.fit(extreme("every row wrong")) == Temperature(temperature=100.0, at_bound=True)
    assert Temperature.fit(extreme("nothing said")) == Temperature(temperature=1.0)
    assert not Temperature.fit(made_up(0)).at_bound


# An offset

PRIOR = np.array([0.9, 0.07, 0.03])
OFFSET = np.log(PRIOR) - np.log(1 / 3)  # of training on equal shares


def planted(
    t0: float, seed: int = 0, *, num: int = 20000, num_classes: int = 3
) -> tuple[SelectPredictions, np.ndarray]:
    """Scores: t0 times the log probabilities under equal shares; and the probabilities under PRIOR."""
    draws = np.random.default_rng(seed)
    fair = log_softmax(draws.normal(0, 1.5, (num, num_classes)), axis=1)
    p = np.exp(log_softmax(fair + OFFSET[:num_classes], axis=1))
    labels = (p.cumsum(1) < draws.random((num, 1))).sum(1).clip(max=num_classes - 1)
    return SelectPredictions(t0 * fair, labels), p


@pytest.mark.parametrize("t0", [0.4, 1.0, 3.0])
def test_with_the_offset_a_temperature_finds_the_planted_one_and_the_true_probabilities(t0: float):
    select, true = planted(t0)
    found = Temperature.fit(select, offset=OFFSET)
    assert found.temperature == pytest.approx(t0, rel=0.05)
    p = found.probabilities(select.logits)
    assert np.abs(p - true).max() < 0.02
    # The other order, over scores with the offset in them, is right only where nothing is to be divided.
    moved = SelectPredictions(select.numbers() + OFFSET, select.labels)
    other = Temperature.fit(moved)
    off = np.abs(other.probabilities(moved.logits) - true).mean()
    gap = log_loss(other.probabilities(moved.logits), select.class_ids()) - log_loss(p, select.class_ids())
    if t0 == 1.0:
        assert off < 0.01
        assert abs(gap) < 1e-3
    else:
        assert abs(other.temperature / t0 - 1) > 0.05
        assert off > 5 * np.abs(p - true).mean()
        assert gap > 0.01
    alone = np.abs(Temperature.fit(select).probabilities(select.logits) - true).mean()
    assert alone > 0.1


@pytest.mark.parametrize("t0", [0.3, 1.0, 4.0])
def test_a_temperature_with_an_offset_is_the_minimum_that_an_independent_search_finds(t0: float):
    for seed in range(5):
        select, _ = planted(t0, seed, num=500)
        z, y = select.numbers(), select.class_ids()

        def loss(log_t: float, z: np.ndarray = z, y: np.ndarray = y) -> float:
            return -log_softmax(z / np.exp(log_t) + OFFSET, axis=1)[np.arange(len(y)), y].mean()

        found = Temperature.fit(select, offset=OFFSET).temperature
        search = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
        assert found == pytest.approx(np.exp(search.x), rel=1e-6)
        assert loss(np.log(found)) <= search.fun + 1e-15


@pytest.mark.parametrize("method", METHODS)
def test_an_offset_that_moves_nothing_changes_nothing(method: type[Calibration]):
    for num_classes in (2,) if method is Platt else (2, 4):
        select = made_up(7, num_classes=num_classes)
        without = method.fit(select)
        assert without.offset is None
        for same in (np.zeros(num_classes), np.full(num_classes, 0.7)):
            found = method.fit(select, offset=same)
            p = found.probabilities(select.logits)
            close = 1e-12 if method is Temperature else 1e-6
            assert p == pytest.approx(without.probabilities(select.logits), abs=close)
            if isinstance(found, Temperature) and isinstance(without, Temperature):
                assert found.temperature == pytest.approx(without.temperature, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("t0", [0.3, 1.0, 4.0])
def test_calibration_with_an_offset_is_never_worse_than_the_offset_alone_and_comes_back_from_json(
    method: type[Calibration], t0: float
):
    for seed in range(3):
        num_classes = 2 if method is Platt else 3
        select, _ = planted(t0, seed, num=300, num_classes=num_classes)
        offset, y = OFFSET[:num_classes], select.class_ids()
        fitted = method.fit(select, offset=torch.from_numpy(offset))
        p = fitted.probabilities(select.logits)
        assert p.sum(1) == pytest.approx(np.ones(len(p)))
        assert log_loss(p, y) <= log_loss(np.exp(log_softmax(select.numbers() + offset, axis=1)), y)
        if method in (VectorScaling, Platt):
            best = Temperature.fit(select, offset=offset).probabilities(select.logits)
            assert log_loss(p, y) <= log_loss(best, y) + 1e-15
        back = calibration_from(json.loads(json.dumps(fitted.to_data())))
        assert back.offset == tuple(offset.tolist())
        assert (back.probabilities(select.logits) == p).all()
        unmoved = {key: value for key, value in fitted.to_data().items() if key != "offset"}
        older = calibration_from(unmoved)
        assert older.offset is None
        assert np.abs(older.probabilities(select.logits) - p).max() > 0.05


def test_an_offset_that_does_not_fit_is_refused():
    select = made_up(0)
    for bad in (np.zeros(3), np.array([0.0, -np.inf]), np.array([0, 1])):
        with pytest.raises(MarginsError, match="offset"):
            Temperature.fit(select, offset=bad)
    with pytest.raises(MarginsError, match="logits"):
        Temperature(temperature=1.0, offset=(0.0, 1.0)).probabilities(np.zeros((1, 3)))


def test_vector_scaling_mends_a_shift_that_a_temperature_cannot():
    select = made_up(3, num_classes=4, num=2000)
    shifted = SelectPredictions(select.numbers() + np.array([2.0, 0, 0, -2]), select.labels)
    losses = [
        log_loss(m.fit(shifted).probabilities(shifted.logits), shifted.class_ids()) for m in METHODS[:2]
    ]
    assert losses[1] < losses[0] - 0.05


@pytest.mark.parametrize("method", [VectorScaling, Platt])
def test_what_has_more_parameters_is_never_worse_on_select_rows_than_a_temperature(method: Any):
    for select in (
        extreme("every row right"),
        extreme("nothing said"),
        *(made_up(s, num=30) for s in range(5)),
    ):
        y = select.class_ids()
        losses = [log_loss(m.fit(select).probabilities(select.logits), y) for m in (method, Temperature)]
        assert losses[0] <= losses[1] + 1e-15


def test_platt_is_a_logistic_regression_on_the_log_odds():
    select = made_up(4, num=3000)
    odds = np.diff(select.numbers(), axis=1)
    peer_fit = LogisticRegression(C=1e6, tol=1e-10).fit(odds, select.class_ids())
    found = Platt.fit(select)
    assert found.probabilities(select.logits) == pytest.approx(peer_fit.predict_proba(odds), abs=2e-3)
    assert abs(found.slope - 1) > 0.3


def test_isotonic_rises_with_the_uncalibrated_probability_of_two_classes():
    select = made_up(5)
    plain, p = uncalibrated(select)[:, 1], Isotonic.fit(select).probabilities(select.logits)[:, 1]
    assert (np.diff(p[np.argsort(plain)]) >= -1e-12).all()
    assert len(np.unique(p.round(3))) > 10


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_comes_back_from_json_as_it_was(method: type[Calibration]):
    select = made_up(6)
    fitted = method.fit(select)
    back = calibration_from(json.loads(json.dumps(fitted.to_data())))
    assert type(back) is method
    assert (back.probabilities(select.logits) == fitted.probabilities(select.logits)).all()


class _Inputs:
    def __len__(self) -> int:
        return 2

    def take(self, rows: torch.Tensor) -> _Inputs:
        return self


@pytest.mark.parametrize("fit", [*(m.fit for m in METHODS), fit_thresholds, fit_binary_threshold])
@pytest.mark.parametrize(
    "other", [(np.eye(2), np.array([0, 1])), SelectRows(_Inputs(), torch.tensor([0, 1])), None]
)
def test_only_predictions_of_the_select_role_are_fitted_on(fit: Any, other: Any):
    with pytest.raises(MarginsError, match="SelectPredictions"):
        fit(other)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (np.eye(2)[0], np.array([0, 1]), ("logits", "[N, C]")),
        (np.eye(2, dtype=int), np.array([0, 1]), ("logits", "floats")),
        (np.full((2, 2), np.inf), np.array([0, 1]), ("logits", "finite")),
        (np.eye(2), np.array([0, 2]), ("labels", "[0, 2)")),
        (np.eye(2), np.array([0]), ("labels", "N = 2")),
        (np.eye(2), np.array([0.0, 1.0]), ("labels", "integers")),
        (np.eye(2), Targets.of_classes(torch.tensor([0]), 2), ("labels", "[2, 2]", "[1, 2]")),
    ],
)
def test_select_predictions_that_do_not_fit_are_refused(logits: Any, labels: Any, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        SelectPredictions(logits, labels)
    for word in words:
        assert word in str(refused.value)


def test_calibrations_refuse_what_they_are_not_for():
    with pytest.raises(MarginsError, match=r"two classes.*VectorScaling"):
        Platt.fit(made_up(0, num_classes=3))
    with pytest.raises(MarginsError, match="class ids"):
        Temperature.fit(SelectPredictions(np.eye(2), Targets.of_scores(torch.eye(2))))
    with pytest.raises(MarginsError, match="did you mean temperature"):
        calibration_from({"method": "temprature"})
    with pytest.raises(MarginsError, match="what platt saved"):
        calibration_from({"method": "platt"})
    with pytest.raises(MarginsError, match="logits"):
        VectorScaling.fit(made_up(0)).probabilities(np.zeros((2, 3)))


# Thresholds


def label_sets(
    seed: int, *, num: int = 30, num_labels: int = 6, steps: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    truth = draws.random((num, num_labels)) < draws.random(num_labels)
    truth[0], truth[1] = True, False
    scores = truth * 2.0 + draws.integers(-steps, steps, truth.shape)
    return scores, truth


def as_select(scores: np.ndarray, truth: np.ndarray) -> SelectPredictions:
    return SelectPredictions(scores, Targets.of_scores(torch.from_numpy(truth).float()))


def worth(goal: Any, truth: np.ndarray, given: np.ndarray) -> float:
    if isinstance(goal, Cost):
        return -float(
            goal.false_positive * (given & ~truth).sum() + goal.false_negative * (truth & ~given).sum()
        )
    if goal == "balanced_accuracy":
        return (given[truth].mean() + (~given[~truth]).mean()) / 2
    square = float(goal[1:]) ** 2
    return (1 + square) * (truth & given).sum() / max(square * truth.sum() + given.sum(), 1e-9)


GOALS = ["f1", "f2", "f0.5", "balanced_accuracy", Cost(false_positive=1, false_negative=4)]


@pytest.mark.parametrize("goal", GOALS, ids=str)
@pytest.mark.parametrize("scope", ["per_label", "global"])
def test_no_cut_is_better_than_the_threshold(goal: Any, scope: Any):
    for seed in range(15):
        s, y = label_sets(seed)
        found = fit_thresholds(as_select(s, y), goal, scope=scope, min_positives=1)
        given = found.decide(s)
        cuts = [*np.unique(s), s.max() + 1]
        assert found.is_global.all() == (scope == "global")
        columns = [(s[:, c], y[:, c], given[:, c]) for c in range(y.shape[1])]
        if scope == "global":
            columns = [(s.ravel(), y.ravel(), given.ravel())]
        for scores, truth, decided in columns:
            values = [worth(goal, truth, scores >= cut) for cut in cuts]
            best = max(values)
            assert worth(goal, truth, decided) == pytest.approx(best, abs=1e-12)
            # Of equal cuts the one that accepts fewest: the highest.
            highest = max(cut for cut, value in zip(cuts, values, strict=True) if value > best - 1e-12)
            assert (decided == (scores >= highest)).all()
            assert best > min(worth(goal, truth, scores >= cut) for cut in cuts)


def test_a_label_with_few_positives_takes_the_global_threshold():
    s, y = label_sets(2)
    y[:, 0] = False
    y[:4, 0] = True
    s[:, 0] += 1000  # its own best cut would be up there
    y[:, 1] = True  # a label without negatives has nothing to cut
    select = as_select(s, y)
    found = fit_thresholds(select)
    everywhere = fit_thresholds(select, scope="global")
    assert found.is_global.tolist()[:2] == [True, True]
    assert not found.is_global.all()
    assert (found.values[found.is_global] == everywhere.values[0]).all()
    assert not fit_thresholds(select, min_positives=4).is_global[0]


def test_a_threshold_lies_halfway_and_among_equal_cuts_accepts_fewest():
    select = as_select(np.array([[4.0], [2.0], [1.0], [0.0]]), np.array([[True], [True], [False], [False]]))
    assert fit_thresholds(select, min_positives=1).values.tolist() == [1.5]
    even = as_select(np.array([[3.0], [2.0], [1.0]]), np.array([[True], [False], [True]]))
    cost = Cost(false_positive=1, false_negative=1)
    assert fit_thresholds(even, cost, min_positives=1).decide(even.numbers()).sum() == 1


def test_equal_scores_are_never_divided_and_neighbours_in_float64_are():
    tied = as_select(np.zeros((4, 1)), np.array([[True], [False], [False], [True]]))
    assert fit_thresholds(tied, min_positives=1).decide(np.zeros((2, 1))).all()
    one = np.nextafter(1.0, 2)
    near = as_select(np.array([[one], [1.0]]), np.array([[True], [False]]))
    assert fit_thresholds(near, min_positives=1).decide(near.numbers()).tolist() == [[True], [False]]
    never = Cost(false_positive=1, false_negative=0)
    assert not fit_thresholds(near, never, min_positives=1).decide(near.numbers()).any()


def test_unknown_entries_move_no_threshold():
    s, y = label_sets(4)
    unknown = np.random.default_rng(4).random(y.shape) < 0.3
    targets = Targets.of_scores(torch.from_numpy(y).float()).ignore(entries=torch.from_numpy(unknown))
    found = fit_thresholds(SelectPredictions(s, targets), min_positives=1)
    for c in range(y.shape[1]):
        seen = ~unknown[:, c]
        cuts = [worth("f1", y[seen, c], s[seen, c] >= cut) for cut in [*np.unique(s[:, c]), 99]]
        assert worth("f1", y[seen, c], found.decide(s)[seen, c]) == pytest.approx(max(cuts))
    common = fit_thresholds(SelectPredictions(s, targets), "balanced_accuracy", scope="global")
    changed = np.where(unknown, 50.0, s)
    again = fit_thresholds(SelectPredictions(changed, targets), "balanced_accuracy", scope="global")
    assert again.values[0] == common.values[0]
    seen = ~unknown
    cuts = [worth("balanced_accuracy", y[seen], s[seen] >= cut) for cut in np.unique(s)]
    found_worth = worth("balanced_accuracy", y[seen], s[seen] >= common.values[0])
    assert found_worth == pytest.approx(max(cuts))


def test_a_global_threshold_may_accept_nothing():
    s, y = label_sets(7)
    never = fit_thresholds(as_select(s, y), Cost(false_positive=1, false_negative=0), scope="global")
    assert not never.decide(s).any()
    always = fit_thresholds(as_select(s, y), Cost(false_positive=0, false_negative=1), scope="global")
    assert always.decide(s)[y].all()
    assert not always.decide(s).all()


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_the_binary_threshold_is_the_best_cut_of_the_log_odds(goal: Any):
    for seed in range(10):
        select = made_up(seed, num=60)
        found = fit_binary_threshold(select, goal)
        y, odds = select.class_ids() == 1, np.diff(select.numbers(), axis=1)[:, 0]
        best = max(worth(goal, y, odds >= cut) for cut in [*odds, odds.max() + 1])
        decided = found.decide(select.logits)
        assert worth(goal, y, decided == 1) == pytest.approx(best, abs=1e-12)
        assert 0 < decided.sum() <= 60


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_thresholds_come_back_from_json_as_they_were(goal: Any):
    s, y = label_sets(5)
    found = fit_thresholds(as_select(s, y), goal)
    back = Thresholds.from_data(json.loads(json.dumps(found.to_data())))
    assert back.goal == goal
    assert (back.values == found.values).all()
    assert (back.is_global == found.is_global).all()
    binary = fit_binary_threshold(made_up(0), goal)
    assert BinaryThreshold.from_data(json.loads(json.dumps(binary.to_data()))) == binary


def test_thresholds_refuse_what_they_cannot_serve():
    s, y = label_sets(6)
    for call, words in (
        (lambda: fit_thresholds(as_select(s, y), "f"), "goal: expected f1"),
        (lambda: fit_thresholds(as_select(s, y), "balanced_acuracy"), "did you mean balanced_accuracy"),
        (lambda: fit_thresholds(as_select(s, np.zeros_like(y))), "at least one positive"),
        (lambda: fit_thresholds(made_up(0)), "fit_binary_threshold"),
        (lambda: fit_thresholds(as_select(s, y), min_positives=0), "at least 1"),
        (lambda: fit_thresholds(as_select(s, y)).decide(s[:, :2]), r"\[N, 6\]"),
        (lambda: fit_binary_threshold(made_up(0, num_classes=3)), r"\[N, 2\]"),
        (lambda: fit_binary_threshold(SelectPredictions(np.eye(2), np.zeros(2, int))), "both classes"),
        (lambda: Cost(false_positive=0, false_negative=0), "prices"),
    ):
        with pytest.raises(MarginsError, match=words):
            call()


# The change of prior


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_the_corrected_softmax_is_bayes_rule_and_is_undone_by_the_way_back(kind: str):
    draws = np.random.default_rng(1)
    before, after = draws.dirichlet(np.ones(4)), draws.dirichlet(np.ones(4))
    likelihood = draws.random((20, 4))
    joint = likelihood * before
    logits: Any = np.log(joint / joint.sum(1, keepdims=True))
    logits = torch.from_numpy(logits) if kind == "tensor" else logits
    kept = logits.clone() if kind == "tensor" else logits.copy()
    corrected = corrected_for_prior(logits, trained_on=before, of=after)
    wanted = likelihood * after / (likelihood * after).sum(1, keepdims=True)
    assert np.exp(log_softmax(np.asarray(corrected), 1)) == pytest.approx(wanted, abs=1e-12)
    assert type(corrected) is type(logits)
    back = corrected_for_prior(corrected, trained_on=after, of=before)
    assert np.asarray(back) == pytest.approx(np.asarray(logits))
    assert (np.asarray(logits) == np.asarray(kept)).all()


def test_a_class_that_is_not_there_gets_no_probability_and_gradients_pass():
    logits = torch.zeros(1, 2, requires_grad=True)
    even, one = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    p = corrected_for_prior(logits, trained_on=even, of=one).softmax(1)
    assert p.tolist() == [[1.0, 0.0]]
    assert corrected_for_prior(logits, trained_on=even, of=even).requires_grad


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([0.5, 0.4], [0.5, 0.5], "trained_on: .*sum to one"),
        ([1.0, 0.0], [0.5, 0.5], "trained_on: .*> 0, got 0 for class 1"),
        ([0.5, 0.5], [1.5, -0.5], "of: .*>= 0"),
        ([0.5, 0.5], [1.0], r"of: expected \[C\] = \[2\]"),
    ],
)
def test_shares_that_are_none_are_refused(before: list[float], after: list[float], words: str):
    with pytest.raises(MarginsError, match=words):
        corrected_for_prior(np.zeros((1, 2)), trained_on=np.array(before), of=np.array(after))


def test_the_global_threshold_counts_known_positives_alone():
    s, y = np.array([[3.0], [2.0], [1.0], [0.0]]), np.array([[True], [False], [True], [False]])
    unknown = torch.tensor([[False], [False], [True], [False]])
    targets = Targets.of_scores(torch.from_numpy(y).float()).ignore(entries=unknown)
    assert fit_thresholds(SelectPredictions(s, targets), scope="global").values.tolist() == [2.5]
