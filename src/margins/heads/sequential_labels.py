"""Label sets given one label after the other, until STOP."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.encoders.base import linear
from margins.errors import MarginsError


@carded(
    Card(
        name="Sequential label decoder",
        summary="label sets whose labels depend on each other: each is given in the light of those before",
        paper="Vinyals, Bengio, Kudlur, Order Matters: Sequence to sequence for sets, 2016, arXiv 1511.06391",
        kind="head",
        stations=("score",),
        targets=("label sets",),
        entry=89,
        tests=("tests/test_order_search.py::test_probabilities_of_all_sets_in_all_orders_add_up_to_one",),
        study="order_search",
    )
)
class SequentialLabelDecoder(nn.Module):
    r"""A recurrent network that gives the labels of a row one by one, each once, and then STOP.

    $P(y_1, \dots, y_n, \mathrm{STOP} \mid x) = \prod_t P(y_t \mid y_{<t}, x)$, each factor a softmax over the
    labels that have not been given, and STOP. Trained by `margins.losses.OrderSearch`, or along an order of
    one's own by `margins.losses.order_log_prob`.

    For sets of few labels that constrain each other. With thousands of labels, or many a row, independent
    scores (binary cross-entropy) are faster and usually as good.

    Args:
        width: of the states, which encode the rows.
        num_labels: L; STOP is number L.
        hidden: units of the recurrent state.
        generator: draws the first weights.

    References:
        Vinyals, Bengio, Kudlur 2016, arXiv 1511.06391.

    Example:
        >>> decoder = SequentialLabelDecoder(4, 3, hidden=8, generator=torch.Generator().manual_seed(0))
        >>> decoder.decode(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, width: int, num_labels: int, *, hidden: int = 64, generator: torch.Generator) -> None:
        super().__init__()
        if min(width, num_labels, hidden) < 1:
            raise MarginsError(
                "width, num_labels, hidden", expected="at least 1 each",
                received=f"{width}, {num_labels}, {hidden}",
            )  # fmt: skip
        self.num_labels = num_labels
        self.first = linear(width, hidden, generator=generator)
        self.labels = nn.Parameter(torch.randn(num_labels + 1, hidden, generator=generator))
        # Made without numbers first: its own start would draw from the global generator.
        self.cell = nn.GRUCell(width + hidden, hidden, device="meta").to_empty(device="cpu")
        for parameter in self.cell.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden), generator=generator)
        self.scores = linear(hidden, num_labels + 1, generator=generator)

    def start(self, state: Tensor) -> Tensor:
        """The first memory [B, hidden] of states [B, width]."""
        return torch.tanh(self.first(state))

    def step(self, state: Tensor, memory: Tensor, previous: Tensor, emitted: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, L + 1] of what comes next, STOP last, and the next memory.

        Args:
            state: [B, width].
            memory: [B, hidden].
            previous: [B] the label before; L before the first.
            emitted: [B, L] true for labels that were given: their log-probability is -inf.
        """
        memory = self.cell(torch.cat([state, self.labels[previous]], dim=1), memory)
        barred = torch.cat([emitted, torch.zeros_like(emitted[:, :1])], dim=1)
        return self.scores(memory).masked_fill(barred, -torch.inf).log_softmax(1), memory

    @torch.no_grad()
    def decode(self, state: Tensor) -> Tensor:
        """[B, L] true for the labels that come before STOP when the likeliest is taken at each step."""
        emitted = torch.zeros(len(state), self.num_labels, dtype=torch.bool, device=state.device)
        memory, going = self.start(state), torch.ones_like(emitted[:, 0])
        previous = torch.full((len(state),), self.num_labels, device=state.device)
        for _ in range(self.num_labels):
            log_probs, memory = self.step(state, memory, previous, emitted)
            previous = log_probs.argmax(1)
            going = going & (previous < self.num_labels)
            if not bool(going.any()):
                break
            given = nn.functional.one_hot(previous, self.num_labels + 1)[:, :-1].bool()
            emitted = emitted | (given & going[:, None])
        return emitted
