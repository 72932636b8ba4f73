"""Cosines to class vectors and prototypes, and how well they serve classes that training did not see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import nn

from margins.compare import TrainedEmbedding, novel_class
from margins.errors import MarginsError
from margins.heads import CosineHead, PrototypeHead, largest_temperature
from margins.losses import CrossEntropy
from margins.targets import Targets

K, D = 5, 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(num: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = seeded(seed)
    labels = torch.arange(num) % K
    centres = torch.randn(K, D, generator=rng, dtype=torch.float64)
    lengths = 0.1 + 3 * torch.rand(num, 1, generator=rng, dtype=torch.float64)
    noise = 1.2 * torch.randn(num, D, generator=rng, dtype=torch.float64)
    return lengths * (centres[labels] + noise), labels


def test_cosine_logits_are_bounded_and_do_not_see_lengths():
    head = CosineHead(D, K, temperature=1 / 16, generator=seeded()).double()
    x, _ = rows()
    logits = head(x)
    assert logits.abs().max() <= 16
    torch.testing.assert_close(head(9 * x), logits)
    torch.testing.assert_close(head(head.weight.detach()).diag(), torch.full((K,), 16.0).double())
    with torch.no_grad():
        head.weight.mul_(torch.tensor([1.0, 2.0, 5.0, 0.1, 7.0])[:, None])
    torch.testing.assert_close(head(x), logits)
    assert logits.std() > 1, "vacuous: all alike"


def simplex(num: int) -> torch.Tensor:
    """[K, K] unit vectors with cosine -1 / (K - 1) between each two."""
    return nn.functional.normalize(torch.eye(num, dtype=torch.float64) - 1 / num)


@pytest.mark.parametrize("num", [2, 3, 10, 1000])
@pytest.mark.parametrize("probability", [0.6, 0.99])
def test_a_regular_simplex_reaches_the_probability_at_the_largest_temperature(num: int, probability: float):
    temperature = largest_temperature(num, probability)
    scale = (num - 1) / num * math.log((num - 1) * probability / (1 - probability))
    assert temperature == pytest.approx(1 / scale)
    vertices = simplex(num)
    head = CosineHead(num, num, temperature=temperature, generator=seeded()).double()
    head.load_state_dict({**head.state_dict(), "weight": vertices})
    with torch.no_grad():
        torch.testing.assert_close(
            head(vertices).softmax(1).diag(), torch.full((num,), probability, dtype=torch.float64),
            rtol=1e-6, atol=0,
        )  # fmt: skip


def test_no_vectors_do_better_than_the_simplex():
    temperature = largest_temperature(K, 0.9)
    for seed in range(20):
        vectors = nn.functional.normalize(torch.randn(K, D, generator=seeded(seed)).double())
        probabilities = (vectors @ vectors.T / temperature).softmax(1).diag()
        assert probabilities.log().mean() < math.log(0.9)


def test_a_margin_on_the_cosine_is_one_over_the_temperature_on_the_score():
    x, y = rows()
    head = CosineHead(D, K, temperature=0.2, generator=seeded()).double()
    cosines = nn.functional.cosine_similarity(x[:, None], head.weight[None], dim=-1)
    own = nn.functional.one_hot(y, K)
    expected = nn.functional.cross_entropy((cosines - 0.35 * own) / 0.2, y)
    margin = torch.full((len(y),), 0.35 / 0.2, dtype=torch.float64)
    found = CrossEntropy()(head(x), Targets.of_classes(y, K).margin(rows=margin, on="positives"))
    torch.testing.assert_close(found, expected)
    assert found > CrossEntropy()(head(x), y) + 0.1


def test_prototypes_of_all_rows_are_the_classifier_of_class_means():
    x, y = rows()
    new = rows(40, seed=1)[0]
    head = PrototypeHead.from_support(x, y)
    unit = nn.functional.normalize(x).numpy()
    peer = NearestCentroid().fit(unit, y.numpy())
    peer.centroids_ = peer.centroids_ / np.linalg.norm(peer.centroids_, axis=1, keepdims=True)
    assert head.predict(new).tolist() == peer.predict(nn.functional.normalize(new).numpy()).tolist()
    assert len(set(head.predict(new).tolist())) == K, "vacuous: one class for all"
    torch.testing.assert_close(head.prototypes, torch.from_numpy(peer.centroids_))
    torch.testing.assert_close(PrototypeHead.from_support(5 * x, y)(new), head(new))
    longer = torch.where(torch.arange(len(x))[:, None] == 0, 50.0, 1.0)
    torch.testing.assert_close(PrototypeHead.from_support(longer * x, y)(7 * new), head(new))


def test_one_row_a_class_is_the_nearest_neighbour():
    x, y = rows(K)
    new = rows(30, seed=2)[0]
    cosines = nn.functional.cosine_similarity(new[:, None], x[None], dim=-1)
    torch.testing.assert_close(PrototypeHead.from_support(x, y)(new), cosines)


def test_classes_may_be_added_one_by_one():
    x, y = rows()
    whole = PrototypeHead.from_support(x, y + 10)
    found = PrototypeHead.from_support(x[y == 0], y[y == 0] + 10)
    for k in range(1, K):
        found = found.joined(PrototypeHead.from_support(x[y == k], y[y == k] + 10))
    assert found.classes.tolist() == [10, 11, 12, 13, 14]
    torch.testing.assert_close(found(x), whole(x))
    assert torch.equal(found.predict(x), whole.predict(x))


def test_prototypes_travel_with_the_state_and_take_no_gradient():
    x, y = rows()
    head = PrototypeHead.from_support(x.requires_grad_(), y)
    other = PrototypeHead(torch.zeros_like(head.prototypes), torch.zeros(K).long() + torch.arange(K))
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(x), head(x))
    assert not list(head.parameters())
    (grad,) = torch.autograd.grad(head(x)[:, 0].sum(), x)
    assert grad.abs().max() > 1e-3


def test_a_zero_embedding_scores_zero_everywhere():
    x, y = rows()
    head = PrototypeHead.from_support(torch.cat([x, torch.zeros(1, D).double()]), torch.cat([y, y[:1]]))
    torch.testing.assert_close(head.prototypes, PrototypeHead.from_support(x, y).prototypes)
    assert (head(torch.zeros(1, D)) == 0).all()


def divided() -> tuple[Any, Any]:
    x, y = rows(100)
    return (x[:50], 3 * y[:50]), (x[50:], 3 * y[50:])


def test_the_protocol_trains_on_seen_classes_alone_and_is_judged_on_test_rows():
    train, test = divided()
    given: list[tuple[torch.Tensor, torch.Tensor, int]] = []
    embedded: list[torch.Tensor] = []

    def training(x: torch.Tensor, y: torch.Tensor, seed: int) -> TrainedEmbedding:
        given.append((x, y, seed))
        return TrainedEmbedding(embed=lambda new: (embedded.append(new), new)[1])

    found = novel_class(training, train, test, num_seen=3, shots=(1, None), num_splits=4, seed=0)
    assert [(score.split, score.shots) for score in found] == [(s, n) for s in range(4) for n in (1, None)]
    assert len({score.seen for score in found}) > 1, "vacuous: one division"
    for (x, y, _), score in zip(given, found[::2], strict=True):
        places = torch.isin(train[1], torch.tensor(score.seen))
        assert torch.equal(x, train[0][places])
        assert torch.equal(torch.tensor(score.seen)[y], train[1][places])
    assert len({seed for *_, seed in given}) == 4
    assert all(score.joint_by_weights is None for score in found)
    last = found[-1]
    is_novel = ~torch.isin(test[1], torch.tensor(last.seen))
    trained_novel = ~torch.isin(train[1], torch.tensor(last.seen))
    head = PrototypeHead.from_support(train[0][trained_novel], train[1][trained_novel])
    right = head.predict(test[0][is_novel]) == test[1][is_novel]
    assert last.disjoint == float(right.double().mean())
    whole = PrototypeHead.from_support(*train)
    expected = (whole.predict(test[0]) == test[1]).double()
    assert last.joint.overall == float(expected.mean())
    assert last.joint.novel == float(expected[is_novel].mean())
    assert last.joint.seen == float(expected[~is_novel].mean())
    assert 0 < last.joint.novel < last.disjoint < 1, "vacuous: too easy or too hard"


def test_methods_of_one_seed_get_the_same_classes_and_support():
    train, test = divided()

    def plain(x: torch.Tensor, y: torch.Tensor, seed: int) -> TrainedEmbedding:
        torch.randn(1, generator=seeded(seed))
        return TrainedEmbedding(embed=lambda new: new)

    def longer(x: torch.Tensor, y: torch.Tensor, seed: int) -> TrainedEmbedding:
        return TrainedEmbedding(embed=lambda new: 2 * new, class_vectors=torch.randn(3, D).double())

    one, other = (novel_class(f, train, test, num_seen=3, shots=(2,), seed=5) for f in (plain, longer))
    assert [(s.seen, s.disjoint, s.joint) for s in one] == [(s.seen, s.disjoint, s.joint) for s in other]
    different = novel_class(plain, train, test, num_seen=3, shots=(2,), seed=6)
    assert [s.disjoint for s in different] != [s.disjoint for s in one]


def test_a_perfect_embedding_gets_everything_right_in_both_protocols():
    _, y = rows()
    data = (torch.eye(K)[y], y)

    def training(x: torch.Tensor, labels: torch.Tensor, seed: int) -> TrainedEmbedding:
        vectors = torch.stack([x[labels == k][0] for k in range(3)])
        return TrainedEmbedding(embed=lambda new: new, class_vectors=vectors)

    for score in novel_class(training, data, data, num_seen=3, seed=0, shots=(1, 3)):
        assert score.disjoint == score.joint.overall == 1
        assert score.joint_by_weights == score.joint

    def wrong_weights(x: torch.Tensor, labels: torch.Tensor, seed: int) -> TrainedEmbedding:
        return TrainedEmbedding(embed=lambda new: new, class_vectors=-torch.ones(3, K))

    for score in novel_class(wrong_weights, data, data, num_seen=3, seed=0, shots=(1,)):
        assert score.joint_by_weights is not None
        assert (score.joint_by_weights.seen, score.joint_by_weights.novel) == (0, 1)


def no_training(x: torch.Tensor, y: torch.Tensor, seed: int) -> TrainedEmbedding:
    raise AssertionError("it should have been refused before")


X, Y = rows()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: largest_temperature(1, 0.9), ("num_classes", "at least 2")),
        (lambda: largest_temperature(4, 0.25), ("probability", "(1 / 4, 1)")),
        (lambda: PrototypeHead.from_support(X[:0], Y[:0]), ("embeddings", "M >= 1")),
        (lambda: PrototypeHead.from_support(X, Y[1:]), ("labels", "[60]")),
        (lambda: PrototypeHead.from_support(X / 0, Y), ("embeddings", "finite")),
        (lambda: PrototypeHead(X, Y), ("classes", "no class twice")),
        (lambda: PrototypeHead(X[:2], Y[:2]).joined(PrototypeHead(X[:1, 1:], Y[4:5])), ("other", "width 8")),
        (lambda: PrototypeHead(X[:2], Y[:2]).joined(PrototypeHead(X[:1], Y[:1])), ("no class twice",)),
        (lambda: novel_class(no_training, (X, Y), (X, Y), num_seen=5, seed=0), ("num_seen", "[1, 4]")),
        (lambda: novel_class(no_training, (X, Y), (X, Y), num_seen=2, shots=(13,), seed=0), ("shots", "12")),
        (lambda: novel_class(no_training, (X, Y), (X[:3], Y[:3]), num_seen=2, seed=0), ("test labels",)),
        (lambda: novel_class(no_training, (X, Y[1:]), (X, Y), num_seen=2, seed=0), ("train",)),
        (
            lambda: novel_class(no_training, (X, Y), (X, Y), num_seen=2, num_splits=0, shots=(1,), seed=0),
            ("num_splits",),
        ),
    ],
)
def test_what_makes_no_prototypes_is_refused(act: Any, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        act()
    for word in words:
        assert word in str(refused.value)
