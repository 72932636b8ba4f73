"""The order in which a decoder gives the labels of a set, and how it is searched."""

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from margins.errors import MarginsError
from margins.heads import SequentialLabelDecoder
from margins.losses import OrderSearch, order_log_prob
from margins.targets import Targets
from reference import order as reference

STRATEGIES = ("sample", "greedy", "beam", "exact", "uniform")
SETS = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]]).double()


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _decoder(seed: int = 0, num_labels: int = 4) -> SequentialLabelDecoder:
    decoder = SequentialLabelDecoder(3, num_labels, hidden=6, generator=_seeded(seed)).double()
    with torch.no_grad():  # far from uniform, so that orders differ
        decoder.scores.weight.mul_(8)
    return decoder


def _state(num: int = 5, seed: int = 1) -> Tensor:
    return torch.randn(num, 3, generator=_seeded(seed), dtype=torch.float64)


class Table:
    """A decoder whose scores depend on the labels given before alone, not on their order or the row."""

    num_labels = 3

    def __init__(self, seed: int, *, stops: bool) -> None:
        self.scores = 1.5 * torch.randn(8, 4, generator=_seeded(seed), dtype=torch.float64)
        if not stops:  # STOP only when nothing else is left
            self.scores[:, 3] = -50.0

    def start(self, state: Tensor) -> Tensor:
        return state

    def step(self, state: Tensor, memory: Tensor, previous: Tensor, emitted: Tensor) -> tuple[Tensor, Tensor]:
        number = (emitted * torch.tensor([1, 2, 4])).sum(1)
        barred = torch.cat([emitted, torch.zeros(len(state), 1, dtype=torch.bool)], 1)
        return self.scores[number].masked_fill(barred, -torch.inf).log_softmax(1), memory

    def reference(self, emitted: frozenset) -> list[float]:
        barred = torch.tensor([[label in emitted for label in range(3)]])
        return self.step(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), barred)[0][0].exp().tolist()


def _loss(strategy: str, **settings) -> OrderSearch:
    return OrderSearch(strategy, warmup=0, **settings)


def test_probabilities_of_all_sets_in_all_orders_add_up_to_one():
    decoder, state = _decoder(num_labels=3), _state(2)
    total = torch.zeros(2, dtype=torch.float64)
    for size in range(4):
        for order in permutations(range(3), size):
            orders = torch.tensor([order] * 2, dtype=torch.long).reshape(2, size)
            total += order_log_prob(decoder, state, orders).exp().detach()
    torch.testing.assert_close(total, torch.ones_like(total))


def test_the_probability_of_an_order_is_that_of_the_reference():
    table, state = Table(0, stops=True), torch.zeros(1, 1)
    for order in [(), (1,), (2, 0), (0, 2), (1, 0, 2)]:
        found = float(order_log_prob(table, state, torch.tensor([order]).reshape(1, -1).long()))
        assert found == pytest.approx(-reference.order_loss(table.reference, order, stop=3), rel=1e-9)
        padded = torch.tensor([[*order, *[-1] * (3 - len(order))]])
        assert found == pytest.approx(float(order_log_prob(table, state, padded)), rel=1e-12)


def test_exact_equals_brute_force_and_is_below_every_single_order():
    decoder, state = _decoder(), _state()
    found = _loss("exact").per_anchor(decoder, state, SETS)
    for row, labels in enumerate([[0, 2, 3], [], [1], [0, 1, 2, 3], [1, 2]]):
        orders = torch.tensor(list(permutations(labels)), dtype=torch.long)
        singles = -order_log_prob(decoder, state[row].expand(len(orders), -1), orders)
        torch.testing.assert_close(found[row], -(-singles).logsumexp(0))
        assert bool((found[row] <= singles + 1e-12).all())
        assert len(orders) == 1 or singles.max() - singles.min() > 0.1, "vacuous: orders do not differ"
    table = Table(1, stops=True)
    value = _loss("exact")(table, torch.zeros(1, 1), torch.tensor([[1.0, 0.0, 1.0]]))
    by_hand = reference.exact_order_loss(table.reference, [0, 2], stop=3)
    assert float(value) == pytest.approx(by_hand, rel=1e-6)
    for strategy in STRATEGIES:
        value = _loss(strategy).per_anchor(decoder, state, SETS)
        assert bool((value >= found - 1e-12).all()), strategy


def _frequencies(loss: OrderSearch, decoder: Table, num: int) -> Counter:
    there = torch.ones(num, 3, dtype=torch.bool)
    orders = loss.orders(decoder, torch.zeros(num, 1, dtype=torch.float64), there)
    return Counter(tuple(row) for row in orders.tolist())


def test_orders_are_sampled_as_often_as_they_are_likely():
    """Where only remaining labels can come; else as often as the product of their shares among these."""
    table, orders = Table(2, stops=False), list(permutations(range(3)))
    counts = _frequencies(_loss("sample"), table, 6000)
    posterior = [reference.order_posterior(table.reference, o, stop=3) for o in orders]
    assert chisquare([counts[o] for o in orders], 6000 * np.array(posterior)).pvalue > 0.01
    assert max(posterior) > 2 * min(posterior), "vacuous: all orders are as likely"

    table = Table(3, stops=True)
    counts = _frequencies(_loss("sample"), table, 6000)
    ancestral = [reference.sampled_order_probability(table.reference, o) for o in orders]
    posterior = [reference.order_posterior(table.reference, o, stop=3) for o in orders]
    assert chisquare([counts[o] for o in orders], 6000 * np.array(ancestral)).pvalue > 0.01
    assert chisquare([counts[o] for o in orders], 6000 * np.array(posterior)).pvalue < 1e-6
    assert sum(ancestral) == pytest.approx(1)


def test_uniform_orders_are_uniform_and_those_of_the_warmup_too():
    table, orders = Table(2, stops=False), list(permutations(range(3)))
    for loss in (_loss("uniform"), OrderSearch("greedy", warmup=1)):
        counts = _frequencies(loss, table, 6000)
        assert chisquare([counts[o] for o in orders]).pvalue > 0.01
    assert len(_frequencies(loss, table, 100)) == 1  # the warm-up is over
    loss = OrderSearch("greedy", warmup=1).eval()
    assert len(_frequencies(loss, table, 100)) == 1  # and outside training there is none


def test_greedy_takes_the_likeliest_label_and_beam_the_likeliest_order():
    differ = 0
    for seed in range(20):
        table = Table(seed, stops=True)
        (greedy,) = _frequencies(_loss("greedy"), table, 1)
        (best,) = _frequencies(_loss("beam", beam_width=6), table, 1)
        (narrow,) = _frequencies(_loss("beam", beam_width=1), table, 1)
        assert greedy == narrow == reference.greedy_order(table.reference, range(3))
        assert best == reference.best_order(table.reference, range(3))
        differ += greedy != best
    assert differ > 0, "vacuous: greedy is always best"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_orders_hold_the_labels_of_their_row_and_nothing_after_them(strategy):
    if strategy == "exact":
        return
    orders = _loss(strategy, beam_width=2).orders(_decoder(), _state(), SETS > 0)
    for row, labels in zip(orders.tolist(), SETS.bool(), strict=True):
        size = int(labels.sum())
        assert sorted(row[:size]) == torch.nonzero(labels)[:, 0].tolist()
        assert row[size:] == [-1] * (4 - size)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_row_does_not_see_the_others(strategy):
    decoder, state = _decoder(), _state()
    if strategy in ("sample", "uniform"):
        return  # their draws differ
    whole = _loss(strategy, beam_width=3).per_anchor(decoder, state, SETS)
    for row in range(5):
        alone = _loss(strategy, beam_width=3).per_anchor(decoder, state[row : row + 1], SETS[row : row + 1])
        torch.testing.assert_close(alone[0], whole[row])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_gradient_is_that_of_the_chosen_order(strategy):
    decoder, state = _decoder(), _state().requires_grad_()

    def value(given: Tensor) -> Tensor:
        return _loss(strategy, seed=4)(decoder, given, SETS)

    found = torch.autograd.grad(value(state), [state, *decoder.parameters()])
    assert all(bool(torch.isfinite(g).all()) for g in found)
    assert found[0].abs().max() > 1e-3
    if strategy == "exact":
        assert torch.autograd.gradcheck(value, (state,))
        return
    loss = _loss(strategy, seed=4)
    orders = loss.orders(decoder, state, SETS > 0)
    expected = torch.autograd.grad(-order_log_prob(decoder, state, orders).mean(), state)[0]
    torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_label_is_its_cross_entropy_and_then_that_of_stop(strategy):
    decoder, state = _decoder(), _state()
    labels = torch.tensor([0, 1, 2, 3, 0])
    sets = torch.nn.functional.one_hot(labels, 4).double()
    first, memory = decoder.step(state, decoder.start(state), torch.full((5,), 4), sets.bool() & False)
    second, _ = decoder.step(state, memory, labels, sets.bool())
    expected = -first[torch.arange(5), labels] - second[:, 4]
    torch.testing.assert_close(_loss(strategy).per_anchor(decoder, state, sets), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reductions_and_weights_are_those_of_the_house(strategy):
    decoder, state = _decoder(), _state()
    rows = _loss(strategy, seed=2, reduction="none")(decoder, state, SETS)
    torch.testing.assert_close(_loss(strategy, seed=2)(decoder, state, SETS), rows.mean())
    weight = torch.tensor([1.0, 2.0, 0.0, 3.0, 1.0], dtype=torch.float64)
    targets = Targets.of_scores(SETS).weigh(rows=weight)
    found = _loss(strategy, seed=2, reduction="weighted_mean")(decoder, state, targets)
    torch.testing.assert_close(found, (rows * weight).sum() / weight.sum())
    part = _loss(strategy, seed=2)(decoder, state, SETS, denominator=50)
    torch.testing.assert_close(part, rows.sum() / 50)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_without_rows_or_labels_is_finite_and_on_the_graph(strategy):
    decoder = _decoder()
    for num in (0, 3):
        state = _state(num).requires_grad_()
        value = _loss(strategy)(decoder, state, torch.zeros(num, 4, dtype=torch.float64))
        (grad,) = torch.autograd.grad(value, state)
        assert bool(torch.isfinite(value))
        assert (value.item() == 0) == (num == 0)
        assert grad.shape == state.shape


def test_draws_resume_where_they_stopped_and_touch_no_global_state():
    decoder, state, there = _decoder(), _state(), SETS > 0
    before = torch.random.get_rng_state()
    first = OrderSearch("sample", warmup=2, seed=3)
    first.orders(decoder, state, there)
    second = OrderSearch("sample", warmup=2)
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        assert torch.equal(first.orders(decoder, state, there), second.orders(decoder, state, there))
    assert torch.equal(before, torch.random.get_rng_state())


def test_inputs_are_left_alone_and_half_precision_is_summed_in_float32():
    decoder, state, sets = _decoder().float(), _state().float(), SETS.clone()
    copies = state.clone(), sets.clone()
    found = _loss("greedy")(decoder, state, sets)
    assert found.dtype == torch.float32
    assert torch.equal(state, copies[0])
    assert torch.equal(sets, copies[1])


def test_a_trained_decoder_gives_the_sets_back():
    state, sets = torch.eye(3).double(), torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]]).double()
    decoder, loss = _decoder(), OrderSearch("sample", warmup=20)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.05)
    assert not torch.equal(decoder.decode(state), sets.bool()), "vacuous: nothing to learn"
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(decoder, state, sets)
        value.backward()
        optimizer.step()
    assert torch.equal(decoder.decode(state), sets.bool())
    assert value < math.log(6)


UNKNOWN = Targets.of_scores(SETS).ignore(entries=SETS > 0)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (lambda: OrderSearch(warmup=-1), "warmup"),
        (lambda: OrderSearch("exact", max_exact=9), "max_exact"),
        (lambda: OrderSearch("beam", beam_width=0), "beam_width"),
        (lambda: OrderSearch("exact", max_exact=3)(_decoder(), _state(), SETS), "label_sets"),
        (lambda: OrderSearch()(_decoder(), _state(), SETS[:, :3]), "targets"),
        (lambda: OrderSearch()(_decoder(), _state(), UNKNOWN), "label_sets"),
        (lambda: SequentialLabelDecoder(3, 0, generator=_seeded()), "width, num_labels, hidden"),
    ],
)  # fmt: skip
def test_what_cannot_be_ordered_is_refused_by_name(given, named):
    with pytest.raises(MarginsError) as caught:
        given()
    assert caught.value.argument == named
