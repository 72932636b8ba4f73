"""Each label looks at the tokens by itself, and its weights say what it looked at."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.encoders.base import linear
from margins.errors import MarginsError, describe
from margins.heads.settings import HeadSettings
from margins.heads.tokens import TokenHead, softmax_of_real

_PAPER = (
    "Biswas, Pham, Zhang, TransICD: Transformer Based Code-wise Attention Model for Explainable ICD Coding, "
    "2021, arXiv 2104.10652"
)


@carded(
    Card(
        name="Label attention (code-wise attention)",
        summary="long texts with many labels, each of which is said in a few words; and to show these",
        paper=_PAPER,
        kind="head",
        stations=("score",),
        targets=("label sets", "classes"),
        entry=18,
        recipe={"encoder": {"name": "transformer_text"}, "head": {"name": "label_attention"}},
        tests=(
            "tests/test_label_attention.py::test_label_attention_equals_the_reference",
            "tests/test_label_attention.py::test_attention_adds_up_to_one_over_real_tokens_and_is_zero_at_padding",
            "tests/test_label_attention.py::test_attention_that_does_not_look_is_the_mean_under_a_linear_head",
        ),
        study="label_attention",
    )
)
class LabelAttention(TokenHead):
    r"""A weighted mean of the token states for every label, with weights of its own, then a linear score.

    $A = \mathrm{softmax}_S(W_2 \tanh(W_1 E))$ over the real tokens, $V = A^\top E$,
    $\mathrm{logit}_l = w_l \cdot V_l + b_l$. With embeddings $e_l$ of the labels' descriptions
    $A = \mathrm{softmax}_S(\tanh(U E) \cdot e_l)$: a label attends by what it is called.

    Use it for texts (or images) in which many labels each show in a small part, and where the part is to be
    shown: `attention`, or `margins.report.attended` for a trained model. With short texts, or labels that
    speak of the whole, the mean of the tokens is as good and cheaper: this head keeps B * L * S weights. The
    weights tell where the states were taken from, and these have seen the other tokens: read them as a
    pointer, not as a proof.

    A row without tokens scores the biases.

    Args:
        width: d, of the token states.
        num_labels: L.
        expansion: r >= 1; the inner width is r d. Not with `label_embeddings`.
        label_embeddings: [L, e] fixed vectors of the labels' descriptions.
        generator: draws the first weights.

    Raises:
        MarginsError: a size below 1, or embeddings of another number of labels.

    Reduces to:
        a linear head on the mean of the tokens where all weights of $W_2$ are 0.

    References:
        Biswas, Pham, Zhang 2021, arXiv 2104.10652; Mullenbach et al. 2018, arXiv 1802.05695 (attention of
        labels, before it).

    Example:
        >>> head = LabelAttention(4, 3, generator=torch.Generator().manual_seed(0))
        >>> states, mask = torch.ones(2, 5, 4), torch.tensor([[True] * 5, [True, True, False, False, False]])
        >>> head(states, mask).shape, head.attention(states, mask).shape
        (torch.Size([2, 3]), torch.Size([2, 3, 5]))
        >>> head.attention(states, mask)[1, 0].tolist()
        [0.5, 0.5, 0.0, 0.0, 0.0]
    """

    label_embeddings: Tensor | None

    def __init__(
        self,
        width: int,
        num_labels: int,
        expansion: int = 2,
        label_embeddings: Float[Tensor, "labels e"] | None = None,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__(width)
        for name, value in (("num_labels", num_labels), ("expansion", expansion)):
            if value < 1:
                raise MarginsError(name, expected="at least 1", received=str(value))
        self.num_labels = num_labels
        if label_embeddings is None:
            self.register_buffer("label_embeddings", None)
            self.inner = linear(width, expansion * width, generator=generator)
            self.outer = linear(expansion * width, num_labels, generator=generator)
        else:
            self.register_buffer("label_embeddings", _checked(label_embeddings, num_labels))
            self.inner = _without_bias(width, label_embeddings.shape[1], generator)
        self.weight = nn.Parameter(torch.empty(num_labels, width))
        self.bias = nn.Parameter(torch.zeros(num_labels))
        bound = 1 / math.sqrt(width)
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def forward(self, states: Float[Tensor, "B L d"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B labels"]:
        """Logits [B, L] of token states [B, S, width] and a mask [B, S], true for real tokens."""
        return self.explained(states, mask)[0]

    def attention(
        self, states: Float[Tensor, "B L d"], mask: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B labels L"]:
        """Weights [B, L, S] of the tokens for each label: they add up to 1, and are 0 at padding."""
        return self._attention(self.real(states, mask), mask)

    def explained(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and attention at once."""
        real = self.real(states, mask)
        attention = self._attention(real, mask)
        # w . (A E) = A (E w): a number for each token and label in place of a vector for each label.
        said = nn.functional.linear(real, self.weight).transpose(1, 2)
        return (attention.to(said.dtype) * said).sum(-1) + self.bias, attention

    def _attention(self, states: Tensor, mask: Tensor) -> Tensor:
        inner = torch.tanh(self.inner(states))
        named = self.label_embeddings
        energies = self.outer(inner) if named is None else inner @ named.to(inner.dtype).T
        return softmax_of_real(energies.transpose(1, 2), mask[:, None, :])


class LabelAttentionSettings(HeadSettings):
    """Attention of each label over the tokens; see `LabelAttention` for when to use it.

    The encoder must give tokens: transformer_text, small_vit, or pretrained_text that is trained.

    Args:
        expansion: inner width over that of the states.
    """

    name: Literal["label_attention"] = "label_attention"
    takes_tokens: ClassVar[bool] = True
    expansion: int = Field(default=2, ge=1)

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> LabelAttention:
        """An untrained head."""
        return LabelAttention(width, num_outputs, self.expansion, generator=generator)


def _checked(embeddings: Tensor, num_labels: int) -> Tensor:
    if embeddings.ndim != 2 or embeddings.shape[0] != num_labels or not embeddings.is_floating_point():
        raise MarginsError(
            "label_embeddings", expected=f"[{num_labels}, e] floats, a row a label",
            received=describe(embeddings),
        )  # fmt: skip
    return embeddings.detach().clone()


def _without_bias(num_in: int, num_out: int, generator: torch.Generator) -> nn.Linear:
    layer = linear(num_in, num_out, generator=generator)
    layer.register_parameter("bias", None)
    return layer
