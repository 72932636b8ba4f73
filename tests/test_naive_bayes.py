"""Heads in closed form against scikit-learn and Bayes' rule; learning curves and where they cross."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from torch import nn

from made_up_training import blobs, recipe, train_rows, trainer
from margins.data import TrainRows
from margins.errors import MarginsError
from margins.heads import (
    BernoulliNaiveBayesHead,
    LinearHead,
    MultinomialNaiveBayesHead,
    NaiveBayesHead,
)
from margins.targets import Targets
from margins.training.parts.refreshing import NaiveBayesStart
from margins.training.predicting import embeddings_of
from reference import closed_forms

K, D = 4, 6


def rows(num: int = 90, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor([0.4, 0.3, 0.2, 0.1]), num, replacement=True, generator=rng)
    centres = torch.randn(K, D, generator=rng, dtype=torch.float64)
    spread = 0.5 + torch.rand(K, D, generator=rng, dtype=torch.float64)
    noise = torch.randn(num, D, generator=rng, dtype=torch.float64)
    return centres[labels] + spread[labels] * noise, labels


def counted(num: int = 90, seed: int = 0, *, most: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    features, labels = rows(num, seed)
    return features.add(1).clamp(0, most).round(), labels


def log_posterior(scores: torch.Tensor) -> np.ndarray[Any, Any]:
    return scores.log_softmax(1).numpy()


def test_variances_of_each_class_give_the_gaussian_classifier_of_scikit_learn():
    x, y = rows()
    peer = GaussianNB().fit(x.numpy(), y.numpy())
    head = NaiveBayesHead(D, K, variance="per_class", added_variance=peer.epsilon_).partial_fit(x, y)
    new = 2 * rows(40, seed=1)[0]
    np.testing.assert_allclose(log_posterior(head(new)), peer.predict_log_proba(new.numpy()), atol=1e-9)
    assert not np.allclose(
        log_posterior(head(new)), log_posterior(NaiveBayesHead(D, K).partial_fit(x, y)(new))
    )


def test_a_shared_variance_gives_the_diagonal_discriminant():
    x, y = rows()
    head = NaiveBayesHead(D, K).partial_fit(x, y)
    within = torch.zeros(D, dtype=torch.float64)
    means = torch.stack([x[y == k].mean(0) for k in range(K)])
    for row, label in zip(x, y, strict=True):
        within += (row - means[label]).square() / len(x)
    expected = torch.stack(
        [
            math.log(float((y == k).double().mean())) - ((x - means[k]).square() / (within + 1e-9)).sum(1) / 2
            for k in range(K)
        ],
        1,
    )
    np.testing.assert_allclose(log_posterior(head(x)), log_posterior(expected), atol=1e-9)


class OnlyTheDiagonal(BaseEstimator):
    """The covariance of scikit-learn's discriminant analysis, without what stands beside its diagonal."""

    def fit(self, features: Any) -> OnlyTheDiagonal:
        self.covariance_ = np.diag(features.var(0) + 1e-9)
        return self


def test_a_shared_variance_gives_scikit_learns_discriminant_with_a_diagonal_covariance():
    x, y = rows()
    peer = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=OnlyTheDiagonal())
    expected = peer.fit(x.numpy(), y.numpy()).predict_log_proba(x.numpy())
    assert (expected.max(1) < -0.3).any(), "vacuous: certain everywhere"
    found = log_posterior(NaiveBayesHead(D, K).partial_fit(x, y)(x))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)  # it solves by least squares


def test_posteriors_sum_to_one_and_are_those_of_bayes_rule():
    x, y = rows()
    head = NaiveBayesHead(D, K, prior="uniform", shrink=0.3).partial_fit(x, y)
    variances, shares = head.variances(), head.counts / head.counts.sum()
    plain = NaiveBayesHead(D, K).partial_fit(x, y).variances()
    torch.testing.assert_close(variances, 0.7 * plain + 0.3 * plain.mean(1, keepdim=True))
    densities = torch.distributions.Normal(head.mean, variances.sqrt()).log_prob(x[:, None]).sum(2).exp()
    posterior = head(x).softmax(1)
    torch.testing.assert_close(posterior.sum(1), torch.ones(len(x), dtype=torch.float64))
    torch.testing.assert_close(posterior, densities / densities.sum(1, keepdim=True))
    head.prior = "counts"
    weighted = shares * densities
    torch.testing.assert_close(head(x).softmax(1), weighted / weighted.sum(1, keepdim=True))


def make(kind: str, **options: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
    if kind == "bernoulli":
        return BernoulliNaiveBayesHead(D, K, **options), *counted(most=1)
    if kind == "multinomial":
        return MultinomialNaiveBayesHead(D, K, **options), *counted()
    return NaiveBayesHead(D, K, variance=kind, **options), *rows()


every_kind = pytest.mark.parametrize("kind", ["shared", "per_class", "bernoulli", "multinomial"])


@every_kind
@pytest.mark.parametrize("sizes", [[90], [1] * 90, [3, 40, 0, 7, 40]])
def test_blocks_in_any_division_give_the_head_of_all_rows(kind: str, sizes: list[int]):
    head, x, y = make(kind)
    whole = copy.deepcopy(head).partial_fit(x, y)
    for block, labels in zip(x.split(sizes), y.split(sizes), strict=True):
        head.partial_fit(block, labels)
    assert len(y[:3].unique()) < K, "vacuous: every block holds every class"
    torch.testing.assert_close(head(x), whole(x), rtol=1e-10, atol=1e-10)
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(head.get_buffer(name), buffer, rtol=1e-10, atol=1e-10)


@every_kind
def test_a_row_of_weight_two_is_a_row_given_twice(kind: str):
    head, x, y = make(kind)
    weight = torch.arange(len(y)) % 3
    repeated = copy.deepcopy(head).partial_fit(x.repeat_interleave(weight, 0), y.repeat_interleave(weight))
    torch.testing.assert_close(head.partial_fit(x, y, weight=weight.float())(x), repeated(x))


@every_kind
def test_forgetting_weighs_each_block_less_with_every_later_one(kind: str):
    head, x, y = make(kind, forgetting=0.5)
    parts = list(zip(x.split(30), y.split(30), strict=True))
    for block, labels in parts:
        head.partial_fit(block, labels)
    weight = torch.tensor([0.25, 0.5, 1.0]).repeat_interleave(30)
    weighted, all_alike = make(kind)[0].partial_fit(x, y, weight=weight), make(kind)[0].partial_fit(x, y)
    torch.testing.assert_close(head(x), weighted(x))
    assert not torch.allclose(head(x), all_alike(x))


@pytest.mark.parametrize("kind", ["shared", "bernoulli", "multinomial"])
def test_the_linear_layer_has_the_same_posteriors_and_starts_a_trainable_head(kind: str):
    head, x, y = make(kind)
    before = torch.get_rng_state()
    layer = head.partial_fit(x, y).as_linear(torch.float64)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(layer(x).log_softmax(1), head(x).log_softmax(1))
    trainable = LinearHead(D, K, generator=torch.Generator().manual_seed(0))
    trainable.load_state_dict(layer.state_dict())
    assert torch.equal(trainable(x.float()).argmax(1), head(x).argmax(1))
    layer(x).sum().backward()
    assert layer.weight.grad is not None


def blocks() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Two blocks of rows; the second lacks a class."""
    x, y = rows()
    later = (y > 0) & (torch.arange(len(y)) >= 40)
    return (x[:40], y[:40]), (x[later], y[later])


@pytest.mark.parametrize("prior", ["counts", "uniform"])
def test_scores_of_streamed_blocks_equal_the_reference(prior: Any):
    one, other = (closed_forms.class_statistics(x.numpy(), y.numpy(), K) for x, y in blocks())
    statistics = closed_forms.merged_statistics(one, other, keep=0.6)
    options = {"shrink": 0.3, "prior": "empirical" if prior == "counts" else prior}
    weight, bias = closed_forms.naive_bayes_linear(statistics, **options)
    new = rows(20, seed=5)[0]
    expected = {"shared": new.numpy() @ np.array(weight).T + np.array(bias)}
    expected["per_class"] = np.array(
        [closed_forms.naive_bayes_quadratic(statistics, x, **options) for x in new.numpy()]
    )
    for variance, scores in expected.items():
        head = NaiveBayesHead(D, K, variance=variance, prior=prior, shrink=0.3, forgetting=0.6)  # type: ignore[arg-type]
        for block in blocks():
            head.partial_fit(*block)
        np.testing.assert_allclose(
            log_posterior(head(new)), log_posterior(torch.from_numpy(scores)), atol=1e-9
        )


def test_weights_are_means_over_the_variance_up_to_what_all_classes_share():
    x, y = rows()
    head = NaiveBayesHead(D, K).partial_fit(x, y)
    layer = head.as_linear(torch.float64)
    expected = head.mean / head.variances()
    bias = head.log_prior() - (head.mean.square() / head.variances()).sum(1) / 2
    found, shared = layer.weight.detach(), expected[0] - layer.weight.detach()[0]
    torch.testing.assert_close(found, expected - shared)
    differences = x @ (expected - expected[0]).T + bias - bias[0]
    torch.testing.assert_close(layer(x).detach() - layer(x).detach()[:, :1], differences)


@pytest.mark.parametrize("prior", ["counts", "uniform"])
def test_heads_of_counts_are_those_of_scikit_learn(prior: str):
    for head, (x, y), peer in (
        (BernoulliNaiveBayesHead(D, K, prior=prior), counted(most=1), BernoulliNB),
        (MultinomialNaiveBayesHead(D, K, prior=prior, smoothing=0.5), counted(), MultinomialNB),
    ):
        fitted = peer(alpha=head.smoothing, fit_prior=prior == "counts").fit(x.numpy(), y.numpy())
        found = log_posterior(head.partial_fit(x, y)(x))
        np.testing.assert_allclose(found, fitted.predict_log_proba(x.numpy()), atol=1e-10)


def test_a_feature_that_never_varies_has_no_say_in_any_precision():
    x, y = rows()
    constant = torch.full((len(x), 1), 7.0, dtype=torch.float64)
    plain, more = NaiveBayesHead(D, K).partial_fit(x, y), NaiveBayesHead(D + 1, K)
    more.partial_fit(torch.cat([x, constant], 1), y)
    with_it = torch.cat([x, constant], 1).float()
    found = more.as_linear()(with_it).log_softmax(1)
    torch.testing.assert_close(found, plain(x).log_softmax(1).float(), atol=2e-4, rtol=1e-4)


def test_a_class_without_rows_is_never_chosen_and_has_no_linear_layer():
    x, y = rows()
    for prior in ("counts", "uniform"):
        head = NaiveBayesHead(D, K + 1, prior=prior).partial_fit(x, y)
        assert bool((head(x)[:, K] == -torch.inf).all())
        assert bool(torch.isfinite(head(x)[:, :K]).all())
        with pytest.raises(MarginsError, match=r"rows of every class.*\[4\]"):
            head.as_linear()


def test_the_state_of_a_head_goes_on_in_another():
    x, y = rows()
    whole = NaiveBayesHead(D, K).partial_fit(x, y)
    half, other = NaiveBayesHead(D, K).partial_fit(x[:50], y[:50]), NaiveBayesHead(D, K)
    other.load_state_dict(half.state_dict())
    torch.testing.assert_close(other.partial_fit(x[50:], y[50:])(x), whole(x))


def test_embeddings_and_their_graph_are_left_alone():
    x, y = rows()
    kept = x.clone()
    head = NaiveBayesHead(D, K).partial_fit(x.requires_grad_(), y)
    assert not head.mean.requires_grad
    (grad,) = torch.autograd.grad(head(x).log_softmax(1)[:, 0].sum(), x)
    assert grad.abs().max() > 1e-3
    assert torch.equal(x.detach(), kept)
    assert head(x.detach().half()).dtype == torch.float32


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: NaiveBayesHead(0, K), ("width", "at least 1")),
        (lambda: NaiveBayesHead(D, K, variance="full"), ("variance", "shared")),  # type: ignore[arg-type]
        (lambda: NaiveBayesHead(D, K, prior="flat"), ("prior", "uniform")),  # type: ignore[arg-type]
        (lambda: NaiveBayesHead(D, K, shrink=1.1), ("shrink", "[0, 1]")),
        (lambda: NaiveBayesHead(D, K, added_variance=0.0), ("added_variance", "positive")),
        (lambda: NaiveBayesHead(D, K, forgetting=0.0), ("forgetting", "(0, 1]")),
        (lambda: MultinomialNaiveBayesHead(D, K, smoothing=0.0), ("smoothing", "positive")),
        (lambda: NaiveBayesHead(D, K)(rows()[0]), ("head", "partial_fit")),
        (lambda: NaiveBayesHead(D, K).partial_fit(rows()[0][:, 1:], rows()[1]), ("embeddings", "[B, 6]")),
        (lambda: NaiveBayesHead(D, K).partial_fit(*counted())(counted()[0].long()), ("embeddings", "floats")),
        (lambda: NaiveBayesHead(D, 2).partial_fit(*rows()), ("labels", "[0, 2)")),
        (lambda: NaiveBayesHead(D, K).partial_fit(rows()[0][1:], rows()[1]), ("labels", "[89]")),
        (lambda: NaiveBayesHead(D, K).partial_fit(rows()[0] / 0, rows()[1]), ("embeddings", "finite")),
        (
            lambda: NaiveBayesHead(D, K).partial_fit(*rows(), weight=-torch.ones(90)),
            ("weight", "finite numbers >= 0"),
        ),
        (lambda: BernoulliNaiveBayesHead(D, K).partial_fit(*counted()), ("embeddings", "0 and 1")),
        (lambda: MultinomialNaiveBayesHead(D, K).partial_fit(*rows()), ("embeddings", "0 or more")),
        (
            lambda: NaiveBayesHead(D, K, variance="per_class").partial_fit(*rows()).as_linear(),
            ("as_linear", "variance='shared'"),
        ),
    ],
)
def test_what_makes_no_head_is_refused(act: Any, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        act()
    for word in words:
        assert word in str(refused.value)


# --- the start of a head in training ----------------------------------------------------------------------


def _started(**changes: Any) -> Any:
    t = trainer(refresh=[{"name": "naive_bayes_start", "shrink": 0.3}], dropout=0.0, **changes)
    inside = embeddings_of(t.engine.fabric, t.network, t._given.inputs)
    t._begin_epoch()
    return t, inside


@pytest.mark.parametrize("weighed", [False, True])
def test_training_starts_where_naive_bayes_of_the_embeddings_stands(weighed: bool):
    rows = train_rows()
    weight = torch.arange(120.0) % 4 if weighed else None
    targets = rows.targets if weight is None else rows.targets.weigh(rows=weight)
    t, inside = _started(train=TrainRows(rows.inputs, targets))
    expected = NaiveBayesHead(16, 3, shrink=0.3).partial_fit(inside, rows.class_ids(), weight=weight)
    kept = slice(None) if weight is None else weight > 0
    temperature = t.recipe.refresh[0].temperature(
        inside[kept], rows.class_ids()[kept], weight=None if weight is None else weight[kept]
    )
    found = (temperature * t.network.head(inside).double()).log_softmax(1)
    torch.testing.assert_close(found, expected(inside.double()).log_softmax(1), rtol=1e-4, atol=1e-4)
    before = t.network.head.weight.detach().clone()
    t.run()
    assert not torch.equal(t.network.head.weight, before), "the head is trained on"


def test_a_class_without_rows_starts_without_a_direction():
    inputs, labels = blobs(120, 1)
    kept = labels != 1
    rows = TrainRows(inputs.take(kept.nonzero()[:, 0]), Targets.of_classes(labels[kept], 3))
    t, inside = _started(train=rows)
    assert t.network.head.weight[1].tolist() == [0.0] * 16
    classes = (labels[kept] == 2).long()
    temperature = t.recipe.refresh[0].temperature(inside, classes)
    assert t.network.head.bias[1].item() == pytest.approx(math.log(0.5 / 80) / temperature)
    two = NaiveBayesHead(16, 2, shrink=0.3).partial_fit(inside, classes)
    found = (temperature * t.network.head(inside)[:, [0, 2]].double()).log_softmax(1)
    torch.testing.assert_close(found, two(inside.double()).log_softmax(1), rtol=1e-4, atol=1e-4)


def test_the_temperature_makes_the_other_half_likeliest():
    draws = torch.Generator().manual_seed(3)
    labels = torch.arange(60) % 3
    # Every feature stands there four times, which naive Bayes takes for four witnesses.
    rows = (torch.eye(3, 8)[labels] + torch.randn(60, 8, generator=draws)).repeat(1, 4)
    start = NaiveBayesStart(shrink=0.0)
    found = start.temperature(rows, labels)
    half = torch.arange(60) // 3 % 2
    scores = torch.empty(60, 3)
    for part in (0, 1):
        head = NaiveBayesHead(32, 3).partial_fit(rows[half != part], labels[half != part])
        scores[half == part] = head(rows[half == part])
    losses = {
        t: nn.functional.cross_entropy(scores / t, labels).item() for t in (found / 1.2, found, found * 1.2)
    }
    assert min(losses, key=losses.get) == found > 4
    assert losses[found] < 0.5 * nn.functional.cross_entropy(scores, labels).item()
    assert start.temperature(rows[:3], labels[:3]) == 1.0, "one row a class: there is nothing to judge by"
    assert start.temperature(rows[:5], labels[:5]) >= 1.0, "a class of one row beside others of two"


def test_the_start_is_that_of_the_first_epoch_alone_and_of_linear_heads_of_classes():
    start = NaiveBayesStart()
    assert [start.is_due(epoch) for epoch in range(3)] == [True, False, False]
    both = {"refresh": [{"name": "naive_bayes_start"}]}
    with pytest.raises(ValueError, match="the head linear with naive_bayes_start"):
        recipe(head={"name": "cosine"}, **both)
    with pytest.raises(ValueError, match="the task classes with it"):
        recipe(task="values", metric="rmse", objective={"loss": "squared_error"}, **both)
