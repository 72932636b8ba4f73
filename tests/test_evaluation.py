"""Metrics: three rows by hand, scikit-learn's definitions, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as peer

from margins.errors import MarginsError
from margins.evaluation import all_metrics, find_metric

# Guesses 0, 0, 1, 2 for labels 0, 1, 1, 2: F1 is 2/3, 2/3, 1.
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
LABELS = np.array([0, 1, 1, 2])
BY_HAND = {
    "macro_f1": (2 / 3 + 2 / 3 + 1) / 3,
    "micro_f1": 0.75,
    "weighted_f1": (2 / 3 + 2 * 2 / 3 + 1) / 4,
    "accuracy": 0.75,
    "balanced_accuracy": (1 + 0.5 + 1) / 3,
    "average_precision": 1.0,
    "auroc": 1.0,
    "log_loss": -(math.log(0.7) + math.log(0.3) + math.log(0.8) + math.log(0.6)) / 4,
}


def made_up(num: int, num_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, num_classes, num)
    logits = draws.normal(0, 1, (num, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True), labels


@pytest.mark.parametrize("name", list(BY_HAND))
def test_metric_equals_the_case_by_hand(name: str):
    assert find_metric(name)(PROBABILITIES, LABELS) == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize("num_classes", [2, 5])
def test_metrics_equal_scikit_learn_where_every_class_has_rows(num_classes: int):
    p, y = made_up(300, num_classes, seed=num_classes)
    guesses = p.argmax(1)
    s = p[:, 1] if num_classes == 2 else p
    one_hot = y if num_classes == 2 else np.eye(num_classes)[y]
    auroc = peer.roc_auc_score(y, s) if num_classes == 2 else peer.roc_auc_score(y, s, multi_class="ovr")
    expected = {
        "macro_f1": peer.f1_score(y, guesses, average="macro"),
        "micro_f1": peer.f1_score(y, guesses, average="micro"),
        "weighted_f1": peer.f1_score(y, guesses, average="weighted"),
        "accuracy": peer.accuracy_score(y, guesses),
        "balanced_accuracy": peer.balanced_accuracy_score(y, guesses),
        "average_precision": peer.average_precision_score(one_hot, s),
        "auroc": auroc,
        "log_loss": peer.log_loss(y, p),
    }
    for name, number in expected.items():
        value = find_metric(name)(p, y)
        assert value == pytest.approx(number), name
        assert not math.isclose(value, 1.0)


def test_with_two_classes_ranking_metrics_take_class_one_as_positive():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 0, 1, 0])
    # Class 1 stands third: precision 1/3 there. Seen from class 0 it would be more.
    assert find_metric("average_precision")(p, labels) == pytest.approx(1 / 3)
    assert find_metric("average_precision")(p[:, ::-1].copy(), 1 - labels) > 0.5


@pytest.mark.parametrize("name", ["macro_f1", "balanced_accuracy", "average_precision", "auroc"])
def test_a_class_without_rows_does_not_enter_a_macro_average(name: str):
    with_empty = np.concatenate([PROBABILITIES, np.zeros((4, 1))], axis=1)
    assert find_metric(name)(with_empty, LABELS) == pytest.approx(BY_HAND[name])


def test_f1_of_a_class_that_is_guessed_but_has_no_row_counts_only_as_wrong_guesses():
    guessed = np.eye(3)[[0, 1, 2]]
    labels = np.array([0, 1, 1])
    assert find_metric("macro_f1")(guessed, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert find_metric("micro_f1")(guessed, labels) == pytest.approx(2 / 3)


def test_ranking_metrics_see_only_the_order_of_rows():
    p, y = made_up(200, 2, seed=9)
    squeezed = p**3 / (p**3).sum(1, keepdims=True)
    for name in ("average_precision", "auroc"):
        assert find_metric(name)(p, y) == pytest.approx(find_metric(name)(squeezed, y))
    assert find_metric("log_loss")(p, y) != pytest.approx(find_metric("log_loss")(squeezed, y))


def test_log_loss_of_a_probability_that_rounded_to_zero_is_finite():
    value = find_metric("log_loss")(np.array([[1.0, 0.0]]), np.array([1]))
    assert 700 < value < math.inf


@pytest.mark.parametrize("metric", all_metrics("classes"), ids=lambda m: m.name)
def test_chance_level_is_the_metric_of_the_best_constant_guess(metric):
    for counts in ([70, 30], [50, 30, 20]):
        labels = np.repeat(np.arange(len(counts)), counts)
        shares = np.array(counts) / sum(counts)
        constants = [*np.eye(len(counts)), shares] if metric.kind != "probability" else [shares]
        values = [metric(np.tile(c, (len(labels), 1)), labels) for c in constants]
        best = max(values, key=metric.improvement)
        if metric.name.startswith("top_"):  # a constant that also orders the classes
            best = np.sort(shares)[::-1][: int(metric.name[4:])].sum()
        assert metric.chance(shares) == pytest.approx(best if metric.name != "auroc" else 0.5, abs=1e-9)


def test_improvement_is_positive_in_the_direction_of_better():
    assert find_metric("log_loss").improvement(-0.1) == 0.1
    assert find_metric("accuracy").improvement(-0.1) == -0.1


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        (PROBABILITIES[:, 0], LABELS, ("probabilities", "[N, C]", "[4]")),
        (PROBABILITIES[:0], LABELS[:0], ("probabilities", "N >= 1")),
        (PROBABILITIES[:, :1], LABELS, ("probabilities", "C >= 2")),
        (PROBABILITIES, LABELS[:2], ("labels", "N = 4", "[2]")),
        (PROBABILITIES * np.nan, LABELS, ("probabilities", "finite")),
        (PROBABILITIES, LABELS + 1, ("labels", "[0, 3)", "1 to 3")),
        (PROBABILITIES, LABELS - 1, ("labels", "[0, 3)", "-1 to 1")),
    ],
)
def test_input_that_is_no_prediction_is_refused(probabilities, labels, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        find_metric("accuracy")(probabilities, labels)
    for word in words:
        assert word in str(refused.value)


def test_ranking_metrics_refuse_rows_of_one_class_alone():
    with pytest.raises(MarginsError, match="at least two classes"):
        find_metric("auroc")(PROBABILITIES, np.zeros(4, int))


@pytest.mark.parametrize(
    ("name", "meant"),
    [("macrof1", "macro_f1"), ("acuracy", "accuracy"), ("AUROC", "auroc"), ("logloss", "log_loss")],
)
def test_an_unknown_metric_is_refused_with_the_nearest_name(name: str, meant: str):
    with pytest.raises(MarginsError, match=f"did you mean {meant}"):
        find_metric(name)
