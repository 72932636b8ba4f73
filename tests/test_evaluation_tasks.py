"""Metrics of every task: scikit-learn, slow loops where it has none, ties, unknown entries, lone rows."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as peer

from margins.errors import MarginsError, MarginsWarning
from margins.evaluation import Embeddings, all_metrics, find_metric, propensities
from margins.evaluation.ranked import _blocks, _queries
from margins.targets import Targets

EXACT = {"rel": 1e-12, "abs": 1e-12}


def classes(seed: int, *, num: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities in steps (so with ties), labels that may leave classes out, weights that may be 0."""
    draws = np.random.default_rng(seed)
    num_classes = int(draws.integers(2, 7))
    present = draws.choice(num_classes, int(draws.integers(2, num_classes + 1)), replace=False)
    steps = draws.integers(1, 6, (num, num_classes)).astype(float)
    labels = draws.choice(present, num)
    labels[: len(present)] = present
    weight = draws.integers(0, 4, num).astype(float)
    weight[: len(present)] = 1.0
    return steps / steps.sum(1, keepdims=True), labels, weight


def label_sets(
    seed: int, *, num: int = 40, with_ties: bool = True, num_labels: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores in [0, 1], in steps when there shall be ties, and a multi-hot truth without empty rows."""
    draws = np.random.default_rng(seed)
    num_labels = num_labels or int(draws.integers(3, 12))
    scores = draws.integers(0, 5, (num, num_labels)) / 4 if with_ties else draws.random((num, num_labels))
    truth = draws.random((num, num_labels)) < draws.random(num_labels) * 0.6
    truth[np.arange(num), draws.integers(0, num_labels, num)] = True
    return scores, truth


def as_targets(truth: np.ndarray) -> Targets:
    return Targets.of_label_sets([np.flatnonzero(row).tolist() for row in truth], truth.shape[1])


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


def averaged_over_orders(scores: np.ndarray, of_order: Callable[[list[int]], float]) -> float:
    """The mean of a metric over every order that the scores allow."""
    runs = [list(np.flatnonzero(scores == v)) for v in sorted(set(scores), reverse=True)]
    orders = [
        list(itertools.chain(*chosen))
        for chosen in itertools.product(*(list(itertools.permutations(run)) for run in runs))
    ]
    return float(np.mean([of_order(order) for order in orders]))


def rank_of(scores: np.ndarray, j: int) -> int:
    return int((scores >= scores[j]).sum())


def best_rank(s: np.ndarray, y: np.ndarray) -> int:
    return min(rank_of(s, j) for j in np.flatnonzero(y))


def shared_map_at_r(s: np.ndarray, y: np.ndarray) -> float:
    order = np.argsort(-s, kind="stable")
    shared = [float(np.mean([y[i] for i in range(len(s)) if s[i] == s[j]])) for j in order]
    r = int(y.sum())
    return sum(sum(shared[: i + 1]) / (i + 1) * shared[i] for i in range(r)) / r


RANKING_LOOPS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "precision@1": lambda s, y: averaged_over_orders(s, lambda o: float(y[o[0]])),
    "precision@4": lambda s, y: averaged_over_orders(s, lambda o: sum(y[j] for j in o[:4]) / 4),
    "precision@9": lambda s, y: averaged_over_orders(s, lambda o: sum(y[j] for j in o[:9]) / 9),
    "recall@2": lambda s, y: averaged_over_orders(s, lambda o: sum(y[j] for j in o[:2]) / sum(y)),
    "r_precision": lambda s, y: averaged_over_orders(s, lambda o: sum(y[j] for j in o[: sum(y)]) / sum(y)),
    "map@r": shared_map_at_r,
    "mrr": lambda s, y: 1 / best_rank(s, y),
    "hits@2": lambda s, y: float(best_rank(s, y) <= 2),
}


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
    from margins.evaluation.records import Candidates

    record = Candidates(Embeddings(vectors, vectors), Targets.of_matches(torch.arange(100) % 9))
    sizes = [scores.numel() for part in _queries(record) for _, _, scores in _blocks(part)]
    assert max(sizes) == 16 * 32
    assert sum(sizes) == 100 * 100


def test_metrics_that_need_whole_rows_refuse_embeddings():
    vectors = torch.eye(4)
    with pytest.raises(MarginsError, match="a score matrix"):
        find_metric("lrap")(Embeddings(vectors, vectors), Targets.of_matches(torch.tensor([0, 0, 1, 1])))


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
