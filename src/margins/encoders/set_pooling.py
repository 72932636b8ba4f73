"""From the states of the items of a set to one vector, whatever their order and number."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.encoders.base import linear
from margins.errors import MarginsError, describe

SetPoolName = Literal["mean", "sum", "attention", "pma", "set2set"]
"""The mean or the sum of the items; gated attention; attention of a learned seed; process steps."""


class SetPool(nn.Module):
    """One vector a set out of the states of its items; their order and the padding do not matter.

    A set without items gives zeros.

    Args:
        width: of the states, at least 1.
    """

    width: int
    """Of what comes out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise MarginsError("width", expected="at least 1", received=str(width))
        self.width = width
        self._width_in = width

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools.

        Args:
            states: [A, L, d] of items; what stands at padding is not looked at.
            mask: [A, L] bool, true for real items, wherever the padding stands.

        Returns:
            [A, width].
        """
        if states.ndim != 3 or states.shape[2] != self._width_in:
            raise MarginsError("states", expected=f"[A, L, {self._width_in}]", received=describe(states))
        if mask.shape != states.shape[:2] or mask.dtype != torch.bool:
            raise MarginsError(
                "mask", expected=f"{list(states.shape[:2])} bool, true for items", received=describe(mask)
            )
        # Filled, not multiplied: what stands at padding may be NaN, and 0 * NaN is NaN.
        pooled = self.pooled(states.masked_fill(~mask[..., None], 0.0), mask)
        return pooled.masked_fill(~mask.any(1, keepdim=True), 0.0)

    @abstractmethod
    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """The vectors [A, width] of states that are zero at padding; of an empty set anything finite."""


_SUMS = "Zaheer et al., Deep Sets, 2017, arXiv 1703.06114"


@carded(
    Card(
        name="Deep Sets pooling (mean)",
        summary="a set is what its items are on average; the size of the set does not matter",
        paper=_SUMS,
        kind="encoder",
        stations=("encode",),
        targets=("bags",),
        entry=100,
        tests=(
            "tests/test_sets.py::test_pools_do_not_see_the_order_of_items",
            "tests/test_sets.py::test_mean_pooling_under_a_linear_classifier_averages_the_items_logits",
        ),
        study="set_labels",
    )
)
class MeanSetPool(SetPool):
    """The mean of the items.

    Under a linear classifier the logits of a set are the mean of its items' logits: the plain choice, and
    the one whose items can be told apart best afterwards.

    Args:
        width: of the states.

    References:
        Zaheer et al. 2017, arXiv 1703.06114.

    Example:
        >>> states, mask = torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])
        >>> MeanSetPool(1)(states, mask)
        tensor([[2.]])
    """

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        return states.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


@carded(
    Card(
        name="Deep Sets pooling (sum)",
        summary="a set is what its items add up to, as for counts; larger sets give larger vectors",
        paper=_SUMS,
        kind="encoder",
        stations=("encode",),
        targets=("bags",),
        entry=100,
        tests=("tests/test_sets.py::test_pools_do_not_see_the_order_of_items",),
    )
)
class SumSetPool(SetPool):
    """The sum of the items: for labels that depend on how many there are. It needs sets of like sizes.

    Args:
        width: of the states.

    References:
        Zaheer et al. 2017, arXiv 1703.06114.

    Example:
        >>> states, mask = torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])
        >>> SumSetPool(1)(states, mask)
        tensor([[4.]])
    """

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        return states.sum(1)


@carded(
    Card(
        name="Gated attention pooling",
        summary="a few items decide the label of the set, and it should say which",
        paper="Ilse, Tomczak, Welling, Attention-based Deep Multiple Instance Learning, 2018, "
        "arXiv 1802.04712",
        kind="encoder",
        stations=("encode",),
        targets=("bags",),
        entry=100,
        tests=("tests/test_sets.py::test_gated_attention_is_its_formula",),
    )
)
class GatedAttentionSetPool(SetPool):
    r"""A weighted mean of the items whose weights a small gated network gives.

    $a_i = \mathrm{softmax}_i\, w^\top (\tanh(V e_i) \odot \sigma(U e_i))$, pooled $\sum_i a_i e_i$. `weights`
    shows which items mattered; they explain the pooling, not the label.

    Args:
        width: of the states.
        hidden: units of the gate; as the width when None.
        generator: draws the first weights.

    References:
        Ilse, Tomczak, Welling 2018, arXiv 1802.04712, eq. 9.

    Example:
        >>> pool = GatedAttentionSetPool(2, generator=torch.Generator().manual_seed(0))
        >>> pool(torch.ones(1, 3, 2), torch.ones(1, 3, dtype=torch.bool))
        tensor([[1., 1.]], grad_fn=...)
    """

    def __init__(self, width: int, *, hidden: int | None = None, generator: torch.Generator) -> None:
        super().__init__(width)
        hidden = width if hidden is None else hidden
        self.values = linear(width, hidden, generator=generator)
        self.gates = linear(width, hidden, generator=generator)
        self.scores = linear(hidden, 1, generator=generator)

    def weights(self, states: Tensor, mask: Tensor) -> Tensor:
        """[A, L] shares of the items in their set, 0 at padding."""
        gated = torch.tanh(self.values(states)) * torch.sigmoid(self.gates(states))
        return _masked_softmax(self.scores(gated)[..., 0], mask)

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        return (self.weights(states, mask)[..., None] * states).sum(1)


@carded(
    Card(
        name="Pooling by multi-head attention (PMA)",
        summary="a learned question to a set in several heads, where one weighting of items is too little",
        paper="Lee et al., Set Transformer, 2019, arXiv 1810.00825",
        kind="encoder",
        stations=("encode",),
        targets=("bags",),
        entry=100,
        tests=("tests/test_sets.py::test_pma_attends_as_torch_does",),
    )
)
class PMASetPool(SetPool):
    r"""A learned seed attends to the items in several heads; then a perceptron.

    $h = \mathrm{LN}(s + \mathrm{MHA}(s, z, z))$ with $z = \mathrm{ReLU}(W e)$, and
    $\mathrm{LN}(h + \mathrm{ReLU}(W' h))$.

    Items do not see each other before: put `TransformerBlocks` below it for that.

    Args:
        width: of the states; a multiple of `heads`.
        heads: of the attention.
        generator: draws the first weights.

    References:
        Lee et al. 2019, arXiv 1810.00825, eq. 6-7 and 11.

    Example:
        >>> pool = PMASetPool(8, heads=2, generator=torch.Generator().manual_seed(0))
        >>> pool(torch.zeros(3, 5, 8), torch.ones(3, 5, dtype=torch.bool)).shape
        torch.Size([3, 8])
    """

    def __init__(self, width: int, *, heads: int = 4, generator: torch.Generator) -> None:
        super().__init__(width)
        if heads < 1 or width % heads:
            raise MarginsError(
                "width, heads", expected="a width that the heads divide", received=f"{width}, {heads}"
            )
        self.heads = heads
        self.seed = nn.Parameter(torch.randn(width, generator=generator) / math.sqrt(width))
        self.before, self.after = (linear(width, width, generator=generator) for _ in range(2))
        self.query, self.outgoing = (linear(width, width, generator=generator) for _ in range(2))
        self.keys_and_values = linear(width, 2 * width, generator=generator)
        self.attended_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        attended = self.attended_norm(self.seed + self.outgoing(self._attended(states, mask)))
        return self.norm(attended + torch.relu(self.after(attended)))

    def _attended(self, states: Tensor, mask: Tensor) -> Tensor:
        num, length, width = states.shape
        split = self.keys_and_values(torch.relu(self.before(states)))
        keys, values = split.reshape(num, length, 2, self.heads, -1).unbind(2)
        query = self.query(self.seed).reshape(self.heads, -1)
        scores = torch.einsum("hd,alhd->alh", query, keys) / math.sqrt(width // self.heads)
        weights = _masked_softmax(scores, mask[..., None].expand_as(scores))
        return (weights[..., None] * values).sum(1).reshape(num, width)


@carded(
    Card(
        name="Set2Set (Read-Process-Write)",
        summary="items must be looked at again in the light of others, as to sort them; slower than one look",
        paper="Vinyals, Bengio, Kudlur, Order Matters: Sequence to sequence for sets, 2016, arXiv 1511.06391",
        kind="encoder",
        stations=("encode",),
        targets=("bags", "label sets"),
        entry=89,
        tests=(
            "tests/test_sets.py::test_pools_do_not_see_the_order_of_items",
            "tests/test_sets.py::test_a_first_step_from_a_zero_state_is_the_mean",
        ),
        study="set2set_sorting",
    )
)
class Set2Set(SetPool):
    r"""Process steps: a recurrent state asks the items, and takes in the answer, several times.

    $q_t = \mathrm{LSTM}(q^*_{t-1})$, $a_{i,t} = \mathrm{softmax}_i(e_i^\top q_t)$,
    $r_t = \sum_i a_{i,t} e_i$, $q^*_t = [q_t ; r_t]$ from $q^*_0 = 0$. The states are the memories: let a
    small perceptron make them. The output is twice as wide as they are; without steps it is zeros.

    Args:
        width: of the states; twice that comes out.
        steps: T >= 0; usually 1, 5 or 10.
        generator: draws the first weights.

    References:
        Vinyals, Bengio, Kudlur 2016, arXiv 1511.06391, eq. 3-7.

    Example:
        >>> pool = Set2Set(4, steps=3, generator=torch.Generator().manual_seed(0))
        >>> pool(torch.zeros(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)).shape
        torch.Size([2, 8])
    """

    def __init__(self, width: int, *, steps: int = 5, generator: torch.Generator) -> None:
        super().__init__(width)
        if steps < 0:
            raise MarginsError("steps", expected="at least 0", received=str(steps))
        self.width, self.steps = 2 * width, steps
        # Made without numbers first: its own start would draw from the global generator.
        self.cell = nn.LSTMCell(2 * width, width, device="meta").to_empty(device="cpu")
        for parameter in self.cell.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width), generator=generator)

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.processed(states, mask)[0]

    def processed(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The vectors [A, 2 d], and the state and the cell [A, d] of the LSTM for a decoder to go on from."""
        found = states.new_zeros(len(states), self.width)
        hidden, cell = states.new_zeros(2, len(states), self.width // 2).unbind(0)
        for _ in range(self.steps):
            hidden, cell = self.cell(found, (hidden, cell))
            weights = _masked_softmax((states * hidden[:, None, :]).sum(-1), mask)
            found = torch.cat([hidden, (weights[..., None] * states).sum(1)], dim=1)
        return found, hidden, cell


def new_set_pool(
    name: SetPoolName, width: int, *, heads: int = 4, steps: int = 5, generator: torch.Generator
) -> SetPool:
    """The pooling of this name.

    Args:
        name: which.
        width: of the states.
        heads: of "pma".
        steps: of "set2set".
        generator: draws the first weights of those that learn.

    Raises:
        MarginsError: an unknown name, or settings out of range.

    Example:
        >>> new_set_pool("set2set", 4, generator=torch.Generator().manual_seed(0)).width
        8
    """
    if name == "mean":
        return MeanSetPool(width)
    if name == "sum":
        return SumSetPool(width)
    if name == "attention":
        return GatedAttentionSetPool(width, generator=generator)
    if name == "pma":
        return PMASetPool(width, heads=heads, generator=generator)
    if name == "set2set":
        return Set2Set(width, steps=steps, generator=generator)
    raise MarginsError("name", expected=f"one of {get_args(SetPoolName)}", received=repr(name))


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the items (axis 1) where the mask is true, 0 elsewhere; all 0 for an empty set."""
    # A row of -inf alone would give NaN; such a row is zeroed.
    shown = mask | ~mask.any(1, keepdim=True)
    return scores.masked_fill(~shown, -math.inf).softmax(1) * mask
