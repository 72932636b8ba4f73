"""Training a sequential decoder of label sets, whose order nobody knows."""

from __future__ import annotations

from itertools import permutations
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.reduction import RowLosses
from margins.engine.sources import at_least_float32, full_precision
from margins.errors import MarginsError
from margins.losses.forms.base import Loss, as_targets, in_range
from margins.targets import Targets

Strategy = Literal["sample", "greedy", "beam", "exact", "uniform"]


@runtime_checkable
class SequentialDecoder(Protocol):
    """What gives the labels of a row one after the other, and then stops."""

    @property
    def num_labels(self) -> int:
        """L; STOP is number L of what can come next."""
        ...

    def start(self, state: Tensor) -> Tensor:
        """What it remembers before the first label, [B, h], of states [B, d]."""
        ...

    def step(self, state: Tensor, memory: Tensor, previous: Tensor, emitted: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, L + 1] of what comes next, and what is remembered then.

        Args:
            state: [B, d].
            memory: [B, h].
            previous: [B] the label before, L before the first.
            emitted: [B, L] true for labels that cannot come again: -inf.
        """
        ...


@carded(
    LossCard(
        name="Output order search",
        summary="label sets by a decoder that gives labels one by one: the order is searched while training",
        paper="Vinyals, Bengio, Kudlur, Order Matters: Sequence to sequence for sets, 2016, arXiv 1511.06391",
        entry=89,
        targets=("label sets",),
        distributed="independent",
        comparable=False,
        collapse="none: it is the level of the orders that were found; only 'exact' is that of the sets",
        limits=(
            "one label a row: its cross-entropy, then that of STOP, whatever the strategy",
            "beam as wide as there are orders: the best order",
        ),
        tests=(
            "tests/test_order_search.py::test_exact_equals_brute_force_and_is_below_every_single_order",
            "tests/test_order_search.py::test_orders_are_sampled_as_often_as_they_are_likely",
        ),
        study="order_search",
    )
)
class OrderSearch(Loss):
    r"""Minus the log-probability of the labels of a row, in an order that the decoder finds easy.

    $L_i = -\log P(y_{\pi(1)}, \dots, y_{\pi(n)}, \mathrm{STOP} \mid x_i)$, the order $\pi$ chosen without
    gradient: "sample" draws label after label among those that remain, each with its probability; "greedy"
    takes the likeliest that remains, and "beam" follows several orders and takes the likeliest, but both
    soon know the first order that they found and no other; "uniform" draws any. "exact" sums over all orders
    instead, for sets of at most `max_exact` labels. "sample" is not a draw from $P(\pi \mid x, Y)$ unless all
    the probability lies on labels that remain: it does not see what comes after a choice.

    Use it when labels depend on each other and no natural order is known. It is no use for labels that are
    independent given the input (binary cross-entropy is simpler and as good), and it decodes label by label.

    No other form fits: the scores of a step depend on the labels before it.

    Args:
        strategy: how orders are chosen.
        warmup: calls in training mode, >= 0, in which "sample", "greedy" and "beam" take uniform orders.
        beam_width: orders that "beam" follows, >= 1.
        max_exact: most labels of a row for "exact", at most 8.
        seed: of the loss's own generator, whose state is saved with the module.
        reduction: see `margins.engine.reduction`; a row without labels has STOP alone to give, and counts.

    References:
        Vinyals, Bengio, Kudlur 2016, arXiv 1511.06391, section 5.2.

    Example:
        >>> class Coins:  # every label that is left, and STOP, as likely
        ...     num_labels = 3
        ...     def start(self, state): return state
        ...     def step(self, state, memory, previous, emitted):
        ...         scores = torch.zeros(len(state), 4)
        ...         scores[:, :3].masked_fill_(emitted, -torch.inf)
        ...         return scores.log_softmax(1), memory
        >>> sets = torch.tensor([[1.0, 1.0, 0.0]])
        >>> loss = OrderSearch("exact")(Coins(), torch.zeros(1, 1), sets)  # 2 orders of 1/4 * 1/3 * 1/2
        >>> round(float(loss.exp()), 4)
        12.0
    """

    form = "outputs"

    def __init__(
        self,
        strategy: Strategy = "sample",
        *,
        warmup: int = 1000,
        beam_width: int = 4,
        max_exact: int = 6,
        seed: int = 0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if strategy not in get_args(Strategy):
            raise MarginsError("strategy", expected=f"one of {get_args(Strategy)}", received=repr(strategy))
        self.strategy: Strategy = strategy
        self.warmup = int(in_range("warmup", warmup, low=0))
        self.beam_width = int(in_range("beam_width", beam_width, low=1))
        self.max_exact = int(in_range("max_exact", max_exact, low=1, high=8))
        self._calls = 0
        self._generator = torch.Generator().manual_seed(seed)

    def forward(
        self,
        decoder: SequentialDecoder,
        state: Float[Tensor, "rows dim"],
        label_sets: Targets | Tensor,
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced loss of a batch.

        Args:
            decoder: gives labels one by one.
            state: [B, d] what the decoder starts from.
            label_sets: `Targets.of_label_sets`, or [B, L] floats 0 or 1.
            denominator: number of rows of the whole step.

        Raises:
            MarginsError: shapes that do not fit, unknown labels, or for "exact" too many in a row.
        """
        return self.rows(decoder, state, label_sets).reduce(self.reduction, denominator)

    def per_anchor(
        self, decoder: SequentialDecoder, state: Float[Tensor, "rows dim"], label_sets: Targets | Tensor
    ) -> Float[Tensor, " rows"]:
        """The loss of each row, times its weight, not reduced."""
        return self.rows(decoder, state, label_sets).weighted()

    def rows(
        self, decoder: SequentialDecoder, state: Float[Tensor, "rows dim"], label_sets: Targets | Tensor
    ) -> RowLosses:
        """Row losses with all that a reduction needs."""
        targets = as_targets(label_sets, (state.shape[0], decoder.num_labels))
        if targets.known(0, targets.num_candidates) is not None:
            raise MarginsError(
                "label_sets", expected="labels that are all known", received="unknown entries",
                fix="leave such rows out",
            )  # fmt: skip
        there = targets.positive(0, targets.num_candidates)
        with full_precision(state.device):
            state = at_least_float32(state)
            if self.strategy == "exact":
                values = -self._over_all_orders(decoder, state, there)
            else:
                values = -order_log_prob(decoder, state, self.orders(decoder, state, there))
        counts = targets.known_rows()
        values = values if counts is None else torch.where(counts, values, 0.0)
        return RowLosses(values, counts=counts, weight=targets.row_weight)

    @torch.no_grad()
    def orders(
        self, decoder: SequentialDecoder, state: Float[Tensor, "rows dim"], there: Bool[Tensor, "rows labels"]
    ) -> Int[Tensor, "rows most"]:
        """[B, n] the labels of each row in the order that was chosen, -1 after the last.

        A call in training mode counts as one of the warm-up.
        """
        strategy = self.strategy
        if self.training:
            self._calls += 1
            strategy = "uniform" if self._calls <= self.warmup else strategy
        most = int(there.sum(1).max()) if there.shape[0] else 0
        if strategy == "uniform":
            keys = torch.rand(there.shape, generator=self._generator).to(there.device)
            return _filled(keys.masked_fill(~there, 2.0).argsort(1)[:, :most], there)
        if strategy == "beam":
            return _by_beam(decoder, state, there, self.beam_width)
        return self._one_by_one(decoder, state, there, is_drawn=strategy == "sample")

    def get_extra_state(self) -> dict[str, Tensor]:
        """The generator's state and the calls so far."""
        return {"generator": self._generator.get_state(), "calls": torch.tensor(self._calls)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restores the generator and the calls."""
        self._generator.set_state(state["generator"].cpu())
        self._calls = int(state["calls"])

    def _one_by_one(
        self, decoder: SequentialDecoder, state: Tensor, there: Tensor, *, is_drawn: bool
    ) -> Tensor:
        rows = torch.arange(there.shape[0], device=there.device)
        remaining, memory = there.clone(), decoder.start(state)
        previous = torch.full_like(rows, decoder.num_labels)
        chosen: list[Tensor] = []
        for _ in range(int(there.sum(1).max()) if len(rows) else 0):
            log_probs, memory = decoder.step(state, memory, previous, there & ~remaining)
            keys = at_least_float32(log_probs)[:, :-1].masked_fill(~remaining, -torch.inf)
            if is_drawn:  # the largest after adding Gumbel noise is a draw
                noise = torch.empty(keys.shape).exponential_(generator=self._generator)
                keys = keys - noise.log().to(keys)
            previous = keys.argmax(1)
            remaining[rows, previous] = False
            chosen.append(previous)
        order = torch.stack(chosen, 1) if chosen else there.new_zeros((len(rows), 0), dtype=torch.long)
        return _filled(order, there)

    def _over_all_orders(self, decoder: SequentialDecoder, state: Tensor, there: Tensor) -> Tensor:
        counts = there.sum(1)
        if there.shape[0] and int(counts.max()) > self.max_exact:
            raise MarginsError(
                "label_sets", expected=f'at most {self.max_exact} labels a row with strategy "exact"',
                received=f"{int(counts.max())}", fix='use strategy "sample"',
            )  # fmt: skip
        places, values = [torch.nonzero(counts < 0)[:, 0]], [state[:0].sum(1)]
        for num in counts.unique().tolist():
            rows = torch.nonzero(counts == num)[:, 0]
            labels = torch.nonzero(there[rows])[:, 1].reshape(len(rows), num)
            all_orders = list(permutations(range(num)))
            picked = torch.tensor(all_orders, dtype=torch.long, device=there.device)
            orders = labels[:, picked].flatten(0, 1)
            singles = order_log_prob(decoder, state[rows].repeat_interleave(len(all_orders), 0), orders)
            places.append(rows)
            values.append(singles.reshape(len(rows), -1).logsumexp(1))
        return torch.cat(values)[torch.cat(places).argsort()]


def order_log_prob(
    decoder: SequentialDecoder, state: Float[Tensor, "rows dim"], orders: Int[Tensor, "rows most"]
) -> Float[Tensor, " rows"]:
    """[B] log-probability that the decoder gives these labels in this order, and then stops.

    Args:
        decoder: gives labels one by one.
        state: [B, d].
        orders: [B, n] labels, each once a row, -1 after the last.
    """
    lengths, stop = (orders >= 0).sum(1), decoder.num_labels
    memory, previous = decoder.start(state), torch.full_like(lengths, stop)
    emitted = torch.zeros(orders.shape[0], stop, dtype=torch.bool, device=orders.device)
    total = at_least_float32(state).sum(1) * 0  # on the graph, whatever the batch
    for place in range(orders.shape[1] + 1):
        log_probs, memory = decoder.step(state, memory, previous, emitted)
        ended = torch.full_like(previous, -1)
        label = orders[:, place] if place < orders.shape[1] else ended
        previous = torch.where(label >= 0, label, stop)
        given = at_least_float32(log_probs).gather(1, previous[:, None])[:, 0]
        total = total + torch.where(lengths >= place, given, 0.0)
        emitted = emitted | torch.nn.functional.one_hot(previous, stop + 1)[:, :stop].bool()
    return total


def _filled(order: Tensor, there: Tensor) -> Tensor:
    """The orders with -1 after the last label of each row."""
    places = torch.arange(order.shape[1], device=order.device)
    return torch.where(places < there.sum(1, keepdim=True), order, -1)


def _by_beam(decoder: SequentialDecoder, state: Tensor, there: Tensor, width: int) -> Tensor:
    """The likeliest order of each row among those that are never out of the best `width` on the way."""
    num_rows, num_labels = there.shape
    counts = there.sum(1)
    most = int(counts.max()) if num_rows else 0
    flat = torch.arange(num_rows, device=there.device).repeat_interleave(width)
    state, sets = state[flat], there[flat]
    memory, remaining = decoder.start(state), sets.clone()
    previous = torch.full_like(flat, num_labels)
    orders = torch.full((len(flat), most), -1, device=there.device)
    scores = state.new_full((num_rows, width), -torch.inf)
    scores[:, 0] = 0.0  # one order to begin with: the empty one
    for place in range(most + 1):
        log_probs, memory = decoder.step(state, memory, previous, sets & ~remaining)
        log_probs = at_least_float32(log_probs)
        stops = (counts == place)[:, None]
        scores = torch.where(stops, scores + log_probs[:, -1].reshape(num_rows, width), scores)
        if place == most:
            break
        onward = log_probs[:, :-1].masked_fill(~remaining, -torch.inf).reshape(num_rows, width, -1)
        best = (scores[:, :, None] + onward).flatten(1).topk(width, 1)
        goes_on = (counts > place)[:, None]
        parent = torch.where(goes_on, best.indices // num_labels, torch.arange(width, device=flat.device))
        scores = torch.where(goes_on, best.values, scores)
        rows = (torch.arange(num_rows, device=flat.device)[:, None] * width + parent).flatten()
        label = (best.indices % num_labels).flatten()
        memory, remaining, orders, previous = memory[rows], remaining[rows], orders[rows], previous[rows]
        on = goes_on.expand(-1, width).flatten()
        previous = torch.where(on, label, previous)
        orders[:, place] = torch.where(on, label, -1)
        remaining = remaining & ~(on[:, None] & torch.nn.functional.one_hot(label, num_labels).bool())
    best_beam = scores.argmax(1)
    return orders.reshape(num_rows, width, most)[torch.arange(num_rows), best_beam]
