"""Metrics of every task against scikit-learn; weights, unknown entries, and what is refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as peer

from made_up_predictions import EXACT, RANKING_LOOPS, as_targets, classes, label_sets
from margins.errors import MarginsError
from margins.evaluation import all_metrics, find_metric
from margins.targets import Targets


def macro_of(score: Callable[..., float]) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    """Class 1 of two, else the mean over classes with rows, of a metric of one column."""

    def compute(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        columns = [1] if p.shape[1] == 2 else np.unique(y[w > 0])
        return float(np.mean([score(y == c, p[:, c], sample_weight=w) for c in columns]))

    return compute


def f_peer(beta: float, average: Any) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    def compute(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        counted = np.unique(y[w > 0]) if average == "macro" else None
        return peer.fbeta_score(
            y, p.argmax(1), beta=beta, labels=counted, average=average, sample_weight=w, zero_division=0
        )

    return compute


def g_mean_by_recalls(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    recalls = peer.recall_score(
        y, p.argmax(1), labels=np.unique(y[w > 0]), average=None, sample_weight=w, zero_division=0
    )
    return float(np.prod(recalls) ** (1 / len(recalls)))


def ece_by_loop(confidence: np.ndarray, right: np.ndarray, w: np.ndarray) -> float:
    total = 0.0
    for b in range(15):
        inside = [i for i, c in enumerate(confidence) if b == min(max(math.ceil(c * 15) - 1, 0), 14)]
        total += abs(sum(w[i] * (confidence[i] - right[i]) for i in inside))
    return total / w.sum()


# scikit-learn prefers the class of highest number among ties; with the columns turned around, ours.
def top_peer(k: int) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    def compute(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        num = p.shape[1]
        if num == 2:
            return 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # k >= C is perfect, which it says in a warning
            turned = p[:, ::-1]
            return peer.top_k_accuracy_score(num - 1 - y, turned, k=k, labels=np.arange(num), sample_weight=w)

    return compute


CLASS_PEERS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "macro_f1": f_peer(1, "macro"),
    "micro_f1": f_peer(1, "micro"),
    "weighted_f1": f_peer(1, "weighted"),
    "macro_f0.5": f_peer(0.5, "macro"),
    "macro_f2": f_peer(2, "macro"),
    "f2": f_peer(2, "macro"),
    "micro_f3": f_peer(3, "micro"),
    "accuracy": lambda p, y, w: peer.accuracy_score(y, p.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda p, y, w: float(
        np.mean(
            peer.recall_score(
                y, p.argmax(1), labels=np.unique(y[w > 0]), average=None, sample_weight=w, zero_division=0
            )
        )
    ),
    "g_mean": g_mean_by_recalls,
    "mcc": lambda p, y, w: peer.matthews_corrcoef(y, p.argmax(1), sample_weight=w),
    "auroc": macro_of(peer.roc_auc_score),
    "average_precision": macro_of(peer.average_precision_score),
    "log_loss": lambda p, y, w: peer.log_loss(y, p, labels=np.arange(p.shape[1]), sample_weight=w),
    "brier": lambda p, y, w: peer.brier_score_loss(
        y, p if p.shape[1] > 2 else p[:, 1], labels=np.arange(p.shape[1]), sample_weight=w
    ),
    "top_1": lambda p, y, w: peer.accuracy_score(y, p.argmax(1), sample_weight=w),
    "top_2": top_peer(2),
    "top_3": top_peer(3),
    "ece": lambda p, y, w: ece_by_loop(p.max(1), p.argmax(1) == y, w),
    "classwise_ece": lambda p, y, w: float(
        np.mean([ece_by_loop(p[:, c], y == c, w) for c in range(p.shape[1])])
    ),
}


@pytest.mark.parametrize("name", list(CLASS_PEERS))
def test_class_metrics_equal_their_peer_with_ties_missing_classes_and_weights(name: str):
    metric, values = find_metric(name), []
    for seed in range(40):
        p, y, w = classes(seed)
        if len(np.unique(y[w > 0])) < 2:
            continue
        for weight in (w, None):
            given = np.ones(len(y)) if weight is None else weight
            value = metric(p, y, weight=weight)
            assert value == pytest.approx(CLASS_PEERS[name](p, y, given), **EXACT), (seed, weight is None)
            values.append(value)
    assert len(set(values)) > 20  # different cases, not one number


def test_every_listed_metric_has_a_peer_in_these_tests():
    tested = {*CLASS_PEERS, *SET_PEERS, *RANKING_LOOPS, *VALUE_PEERS}
    at = {f"{name}@{k}" for name in ("precision", "recall", "hits", "ndcg") for k in (1, 5, 10)}
    assert {m.name for m in all_metrics()} <= tested | at | {"top_5"}


@pytest.mark.parametrize("name", ["mcc", "accuracy", "macro_f1", "log_loss", "brier", "g_mean"])
def test_decisions_on_rows_of_one_class_are_measured(name: str):
    p, _, w = classes(3)
    y = np.zeros(len(p), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn notes that there is one class only
        expected = CLASS_PEERS[name](p, y, w)
    assert find_metric(name)(p, y, weight=w) == pytest.approx(expected, **EXACT)


def set_f(beta: float, average: Any) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    def compute(s: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        labels = np.flatnonzero(w @ y) if average == "macro" else None
        return peer.fbeta_score(
            y, s >= 0.5, beta=beta, average=average, labels=labels, sample_weight=w, zero_division=0
        )

    return compute


def of_columns(score: Callable[..., float]) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    def compute(s: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        usable = [c for c in range(y.shape[1]) if 0 < w @ y[:, c] < w.sum()]
        return float(np.mean([score(y[:, c], s[:, c], sample_weight=w) for c in usable]))

    return compute


def entry_log_loss(s: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    losses = -np.log(np.maximum(np.where(y, s, 1 - s), np.finfo(float).tiny)).mean(1)
    return float(w @ losses / w.sum())


SET_PEERS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "macro_f1": set_f(1, "macro"),
    "micro_f1": set_f(1, "micro"),
    "weighted_f1": set_f(1, "weighted"),
    "f2": set_f(2, "macro"),
    "subset_accuracy": lambda s, y, w: peer.accuracy_score(y, s >= 0.5, sample_weight=w),
    "hamming_loss": lambda s, y, w: peer.hamming_loss(y, s >= 0.5, sample_weight=w),
    "auroc": of_columns(peer.roc_auc_score),
    "average_precision": of_columns(peer.average_precision_score),
    "micro_auroc": lambda s, y, w: peer.roc_auc_score(y, s, average="micro", sample_weight=w),
    "micro_average_precision": lambda s, y, w: peer.average_precision_score(
        y, s, average="micro", sample_weight=w
    ),
    "lrap": lambda s, y, w: peer.label_ranking_average_precision_score(y, s, sample_weight=w),
    "coverage": lambda s, y, w: peer.coverage_error(y, s, sample_weight=w),
    "ndcg@3": lambda s, y, w: peer.ndcg_score(y, s, k=3, sample_weight=w),
    "ndcg@10": lambda s, y, w: peer.ndcg_score(y, s, k=10, sample_weight=w),
    "log_loss": entry_log_loss,
    "brier": lambda s, y, w: float(w @ ((s - y) ** 2).mean(1) / w.sum()),
}


@pytest.mark.parametrize("name", list(SET_PEERS))
def test_label_set_metrics_equal_their_peer_with_ties_and_weights(name: str):
    metric, values = find_metric(name, task="label_sets"), []
    for seed in range(30):
        s, y = label_sets(seed, with_ties=seed % 3 > 0)
        w = np.random.default_rng(seed).integers(0, 3, len(s)) + (np.arange(len(s)) < 5).astype(float)
        for targets in (as_targets(y), Targets.of_scores(torch.from_numpy(y).float())):
            value = metric(s, targets, weight=w)
            assert value == pytest.approx(SET_PEERS[name](s, y, w), **EXACT), seed
        values.append(value)
    assert len(set(values)) > 5


@pytest.mark.parametrize(
    "name", ["auroc", "average_precision", "macro_f1", "hamming_loss", "log_loss", "brier"]
)
def test_an_unknown_entry_is_as_if_it_were_not_there(name: str):
    s, y = label_sets(14, with_ties=False)
    unknown = np.random.default_rng(14).random(y.shape) < 0.3
    unknown[:, 0] = False
    targets = as_targets(y).ignore(entries=torch.from_numpy(unknown))
    turned = np.where(unknown, 1 - s, s)  # whatever is said there does not matter
    metric = find_metric(name)
    assert metric.measure(s, targets) == metric.measure(turned, targets)
    assert metric(s, targets) != pytest.approx(metric(turned, as_targets(y)))
    if name == "auroc":
        columns = [
            peer.roc_auc_score(y[~u, c], s[~u, c]) for c, u in enumerate(unknown.T) if 0 < y[~u, c].mean() < 1
        ]
        assert metric(s, targets) == pytest.approx(np.mean(columns), **EXACT)


VALUE_PEERS: dict[str, Callable[..., float]] = {
    "mae": peer.mean_absolute_error,
    "rmse": peer.root_mean_squared_error,
    "r2": peer.r2_score,
    "spearman": lambda y, p, **_: float(
        np.mean([stats.spearmanr(a, b).statistic for a, b in zip(y.T, p.T, strict=True)])
    ),
}


@pytest.mark.parametrize("num_outputs", [1, 3])
@pytest.mark.parametrize("name", list(VALUE_PEERS))
def test_value_metrics_equal_their_peer(name: str, num_outputs: int):
    draws = np.random.default_rng(9)
    for offset in (0.0, 1e4):
        y = draws.integers(0, 30, (50, num_outputs)) + offset
        p = y + draws.integers(-9, 10, y.shape)
        w = draws.random(50)
        metric = find_metric(name)
        weights = [None] if name == "spearman" else [None, w]
        for weight in weights:
            expected = VALUE_PEERS[name](y, p, sample_weight=weight)
            assert metric(p, y, weight=weight) == pytest.approx(expected, rel=1e-11)
            assert metric(torch.from_numpy(p), torch.from_numpy(y), weight=weight) == metric(
                p, y, weight=weight
            )


def test_r_squared_of_a_constant_truth_is_scikit_learns():
    y = np.full(4, 2.0)
    for p in (y, y + 1):
        assert find_metric("r2")(p, y) == peer.r2_score(y, p)


@pytest.mark.parametrize("name", [m.name for m in all_metrics("classes")])
def test_a_doubled_weight_is_a_repeated_row(name: str):
    p, y, _ = classes(21)
    w = np.random.default_rng(21).integers(0, 3, len(y))
    w[:6] = 1
    rows = np.repeat(np.arange(len(y)), w)
    value = find_metric(name)(p, y, weight=w)
    assert value == pytest.approx(find_metric(name)(p[rows], y[rows]), **EXACT)
    assert value != pytest.approx(find_metric(name)(p, y)) or name in ("top_3", "top_5")


@pytest.mark.parametrize("metric", all_metrics(), ids=lambda m: m.name)
def test_no_metric_writes_into_what_it_is_given(metric):
    s, y = label_sets(15, with_ties=False)
    p, labels, _ = classes(15)
    values = np.random.default_rng(0).normal(size=20)
    given = {"classes": (p, labels), "values": (values, values**2)}.get(metric.tasks[0], (s, as_targets(y)))
    before = given[0].copy()
    given[0].flags.writeable = False
    metric(*given)
    assert (given[0] == before).all()


SETS = as_targets(np.eye(3, dtype=bool))


@pytest.mark.parametrize(
    ("name", "predictions", "truth", "words"),
    [
        ("macro_f1", np.eye(3) * 5, SETS, ("probabilities in [0, 1]", "sigmoid", "Thresholds")),
        ("log_loss", np.eye(3) * 5, np.arange(3), ("sum to one", "softmax")),
        ("brier", np.eye(3) * 5, SETS, ("[0, 1]", "sigmoid")),
        ("ndcg@5", np.eye(3), np.eye(3), ("truth", "Targets", "of_scores")),
        ("ndcg@5", np.eye(3), np.arange(3), ("truth", "Targets")),
        ("ndcg@5", np.eye(3)[:2], SETS, ("scores", "[3, 3]", "[2, 3]")),
        ("ndcg@5", np.eye(3) * np.nan, SETS, ("scores", "finite")),
        ("ndcg@5", [[1.0]], SETS, ("scores", "list")),
        ("mrr", np.eye(3), SETS.weigh(rows=torch.ones(3)), ("truth", "weight=")),
        ("accuracy", np.eye(3), SETS, ("truth", "class ids")),
        ("accuracy", np.eye(3), np.ones(3), ("labels", "integers")),
        ("mae", np.ones(3), np.ones(4), ("predictions", "[4]", "[3]")),
        ("mae", np.ones(3), np.ones(3) * np.nan, ("truth", "finite")),
        ("mae", np.ones(3), SETS, ("truth", "real values")),
        ("spearman", np.ones(3), np.arange(3.0), ("vary", "constant")),
        ("auroc", np.eye(3), as_targets(np.zeros((3, 3), bool)), ("positive and negative",)),
    ],
)
def test_what_is_no_prediction_of_the_task_is_refused(name: str, predictions, truth, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        find_metric(name)(predictions, truth)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("weight", [np.ones(2), -np.ones(4), np.zeros(4), np.full(4, np.nan), [1, 1, 1, 1]])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(MarginsError, match="weight"):
        find_metric("accuracy")(np.full((4, 2), 0.5), np.array([0, 1, 0, 1]), weight=weight)


def test_spearman_refuses_weights():
    with pytest.raises(MarginsError, match="weight: expected none for spearman"):
        find_metric("spearman")(np.arange(3.0), np.arange(3.0), weight=np.ones(3))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ndgc@10", "did you mean ndcg@10"), ("f0", "beta > 0"), ("precision@0", "did you mean precision@"),
        ("psp@5", "propensities"), ("recal@5", "did you mean recall@5"), ("top5", "did you mean top_5"),
    ],
)  # fmt: skip
def test_names_with_numbers_are_read_and_mistyped_ones_refused(name: str, words: str):
    with pytest.raises(MarginsError, match=words):
        find_metric(name)


def test_a_metric_of_another_task_is_refused_by_name():
    assert find_metric("ndcg@7").name == "ndcg@7"
    with pytest.raises(MarginsError, match="a metric of classes, got mae, of values; one of macro_f1"):
        find_metric("mae", task="classes")
    with pytest.raises(MarginsError, match="propensities: expected none"):
        find_metric("ndcg@7", propensities=np.ones(3))


@pytest.mark.parametrize("name", ["subset_accuracy", "hamming_loss", "log_loss", "brier"])
def test_a_row_of_which_nothing_is_known_is_lone_for_entry_metrics_too(name: str):
    s, y = label_sets(16)
    unknown = np.zeros(y.shape, bool)
    unknown[3] = True
    measured = find_metric(name).measure(s, as_targets(y).ignore(entries=torch.from_numpy(unknown)))
    assert (measured.num_rows, measured.num_lone) == (39, 1)
    rest = np.delete(np.arange(40), 3)
    assert measured.value == pytest.approx(find_metric(name)(s[rest], as_targets(y[rest])), **EXACT)
