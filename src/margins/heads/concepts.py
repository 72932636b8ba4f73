"""Predictions that go through a small set of concepts, with the share of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.encoders.base import generator_on, linear
from margins.encoders.pooling import masked_mean
from margins.errors import MarginsError
from margins.heads.settings import HeadSettings
from margins.heads.tokens import TokenHead, softmax_of_real

_PAPER = (
    "Hong, Park, Pavlic, Concept-Centric Transformers: Enhancing Model Interpretability through "
    "Object-Centric Concept Learning within a Shared Global Workspace, 2024, arXiv 2305.15775"
)
_LEAST_SHARE = 1e-8  # of a token in every slot, before shares are divided by their sum over tokens
_FIRST_DEVIATION = 0.1  # of what slots start from, in training

Stream = Literal["whole", "patches", "free"]


class SlotMemory(nn.Module):
    r"""Slots that compete for the tokens, and take in what they win.

    $a = \mathrm{softmax}_S(k q^\top)$ over slots, $k = W_k \mathrm{LN}(X) / \sqrt d$,
    $q = W_q \mathrm{LN}(\mathrm{slots})$; over tokens divided by its sum; then
    $\mathrm{slots} \leftarrow \mathrm{GRU}(a^\top W_v \mathrm{LN}(X), \mathrm{slots})$, several times. Slot s
    starts from a vector of its own, so that it always means the same, and in training from noise around it.

    Args:
        width: d, of tokens and slots.
        num_slots: S.
        iterations: how often, >= 1.
        generator: draws the first weights and the noise.
    """

    def __init__(
        self, width: int, num_slots: int, *, iterations: int = 1, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.iterations, self.generator = iterations, generator
        self.mean = nn.Parameter(torch.zeros(width))
        self.log_deviation = nn.Parameter(torch.full((width,), math.log(_FIRST_DEVIATION)))
        self.places = nn.Parameter(torch.randn(num_slots, width, generator=generator) / math.sqrt(width))
        self.token_norm, self.slot_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.key, self.value, self.query = (_plain(width, width, generator) for _ in range(3))
        # Made without numbers first: its own start would draw from the global generator.
        self.cell = nn.GRUCell(width, width, device="meta").to_empty(device="cpu")
        for parameter in self.cell.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width), generator=generator)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Slots [B, S, d] and the last shares [B, L, S] of the tokens in them.

        Args:
            tokens: [B, L, d], zeros at padding.
            mask: [B, L] bool, true for real tokens.
        """
        normal = self.token_norm(tokens)
        keys, values = self.key(normal) / math.sqrt(tokens.shape[2]), self.value(normal)
        slots, shares = self._first(tokens.shape[0]), values
        for _ in range(self.iterations):
            slots, shares = self._step(slots, keys, values, mask)
        return slots, shares

    def _first(self, num_rows: int) -> Tensor:
        start = (self.mean + self.places).expand(num_rows, -1, -1)
        if not self.training:
            return start
        generator = generator_on(start.device, self.generator)
        noise = torch.randn(start.shape, generator=generator, device=start.device, dtype=start.dtype)
        return start + self.log_deviation.exp() * noise

    def _step(self, slots: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        energies = keys @ self.query(self.slot_norm(slots)).transpose(1, 2)
        shares = (energies.softmax(2) + _LEAST_SHARE) * mask[..., None]
        shares = shares / shares.sum(1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
        taken = shares.transpose(1, 2) @ values
        new = self.cell(taken.flatten(0, 1), slots.reshape(-1, slots.shape[2]))
        return new.reshape(slots.shape), shares


class ConceptAttention(nn.Module):
    r"""Attention of queries over concepts, whose outputs are class logits at once.

    $\alpha_h = \mathrm{softmax}_S(q_h \cdot k_{hs} / \sqrt{d / H})$ for each of H heads, logits
    $W_o [\alpha_1 V_1, \dots, \alpha_H V_H] + b$: linear in the shares. The attribution is their mean over
    heads.

    Args:
        width: d, of queries and concepts; a multiple of `num_heads`.
        num_classes: number of logits.
        num_heads: H.
        generator: draws the first weights.
    """

    def __init__(self, width: int, num_classes: int, *, num_heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (_plain(width, width, generator) for _ in range(3))
        self.out = linear(width, num_classes, generator=generator)

    def forward(self, queries: Tensor, concepts: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, N, C] and attribution [B, N, S] of queries [B, N, d] over concepts [B, S, d]."""
        q, k, v = (
            projected.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for projected in (self.query(queries), self.key(concepts), self.value(concepts))
        )
        shares = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(3)
        joined = (shares @ v).transpose(1, 2).flatten(2)
        return self.out(joined), shares.mean(1)


class _Stream(nn.Module):
    """Concepts and the attention over them: of all tokens together, or of each."""

    concepts: Tensor | None

    def __init__(
        self,
        width: int,
        num_classes: int,
        num_concepts: int,
        *,
        is_pooled: bool,
        slots: bool,
        iterations: int,
        num_heads: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.pool = nn.Parameter(torch.zeros(width)) if is_pooled else None
        self.memory = None
        self.register_parameter("concepts", None)
        if slots:
            self.memory = SlotMemory(width, num_concepts, iterations=iterations, generator=generator)
        else:
            first = torch.randn(num_concepts, width, generator=generator) / math.sqrt(width)
            self.concepts = nn.Parameter(first)
        self.attention = ConceptAttention(width, num_classes, num_heads=num_heads, generator=generator)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C], and attribution [B, S] of the whole or [B, L, S] of the tokens."""
        logits, shares = self.attention(self._queries(tokens, mask), self._concepts(tokens, mask))
        if self.pool is not None:
            return logits[:, 0], shares[:, 0]
        return masked_mean(logits, mask), shares * mask[..., None]

    def _queries(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.pool is None:
            return tokens
        weights = softmax_of_real(tokens @ self.pool, mask).to(tokens.dtype)
        return (weights[..., None] * tokens).sum(1, keepdim=True)

    def _concepts(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.memory is not None:
            return self.memory(tokens, mask)[0]
        assert self.concepts is not None  # noqa: S101 - one of the two is there
        return self.concepts.expand(tokens.shape[0], -1, -1)


@carded(
    Card(
        name="Concept-centric head",
        summary="class predictions out of a few concepts: taught where concepts are labelled, else found",
        paper=_PAPER,
        kind="head",
        stations=("score",),
        targets=("classes", "label sets"),
        entry=94,
        recipe={"encoder": {"name": "transformer_text"}, "head": {"name": "concepts"}},
        tests=(
            "tests/test_concepts.py::test_without_slots_it_is_the_cross_attention_of_a_concept_transformer",
            "tests/test_concepts.py::test_a_step_of_the_slots_equals_the_reference",
            "tests/test_concepts.py::test_attributions_add_up_to_one",
            "tests/test_concepts.py::test_the_order_of_tokens_moves_the_attributions_of_patches_alone",
        ),
        study="concept_head",
    )
)
class ConceptHead(TokenHead):
    r"""Class logits as a sum over concepts, each with a share: $\sum_s \alpha_s (V_s W) + b$.

    The tokens fill S slots (`SlotMemory`), and a query attends over these (`ConceptAttention`); $\alpha$ is
    the attribution. Streams, whose logits are added: "whole" asks once for the row, with its tokens pooled by
    learned weights; "patches" asks for every token and averages the logits over them; "free" is as "whole",
    for concepts that no label teaches.

    Use it where each prediction must be explained by few named concepts and these are labelled on some rows:
    train with `margins.losses.ConceptExplanation` beside the loss of the classes. Without such labels the
    concepts that are found need not be those of people, and shares tend to stay even; and slots depend on the
    row, so that a share is not all that a prediction rests on. `slots=False` gives concepts that are the same
    for every row, as in Concept Transformers.

    Args:
        width: d, of the token states; a multiple of `num_heads`.
        num_classes: number of logits.
        num_concepts: of the stream "whole"; 0 leaves it out.
        num_patch_concepts: of the stream "patches"; 0 leaves it out.
        num_free_concepts: of the stream "free"; 0 leaves it out.
        slots: whether concepts are slots, filled anew for each row; else learned vectors.
        iterations: of the slots, >= 1.
        num_heads: of the attention over concepts.
        generator: draws the first weights, and in training the noise around which slots start.

    Raises:
        MarginsError: no concept at all, or sizes that do not fit each other.

    References:
        Hong, Park, Pavlic 2024, arXiv 2305.15775; Locatello et al., Slot Attention, 2020, arXiv 2006.15055;
        Rigotti et al., Concept Transformers, ICLR 2022 (without slots).

    Example:
        >>> head = ConceptHead(8, 2, num_concepts=5, generator=torch.Generator().manual_seed(0)).eval()
        >>> logits, shares = head.explained(torch.ones(3, 4, 8), torch.ones(3, 4, dtype=torch.bool))
        >>> logits.shape, shares["whole"].shape
        (torch.Size([3, 2]), torch.Size([3, 5]))
        >>> bool(((shares["whole"].sum(1) - 1).abs() < 1e-6).all())
        True
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        num_concepts: int = 10,
        num_patch_concepts: int = 0,
        num_free_concepts: int = 0,
        slots: bool = True,
        iterations: int = 1,
        num_heads: int = 2,
        generator: torch.Generator,
    ) -> None:
        super().__init__(width)
        sizes: dict[Stream, int] = {
            "whole": num_concepts, "patches": num_patch_concepts, "free": num_free_concepts,
        }  # fmt: skip
        _refuse_sizes(width, num_classes, sizes, iterations, num_heads)
        self.num_classes = num_classes
        self.streams = nn.ModuleDict(
            {
                name: _Stream(
                    width, num_classes, size, is_pooled=name != "patches", slots=slots,
                    iterations=iterations, num_heads=num_heads, generator=generator,
                )
                for name, size in sizes.items()
                if size
            }
        )  # fmt: skip

    def forward(
        self, states: Float[Tensor, "B L d"], mask: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B classes"]:
        """Logits [B, C] of token states [B, L, width] and a mask [B, L], true for real tokens."""
        return self.explained(states, mask)[0]

    def explained(
        self, states: Float[Tensor, "B L d"], mask: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B classes"], Mapping[Stream, Tensor]]:
        """Logits and the attribution of each stream.

        Returns:
            logits [B, C], and for "whole" and "free" [B, S] shares that add up to 1; for "patches" [B, L, S],
            each real token's adding up to 1, zeros at padding.
        """
        tokens = self.real(states, mask)
        found: dict[Stream, Tensor] = {}
        logits = tokens.new_zeros(tokens.shape[0], self.num_classes)
        for name, stream in self._named():
            part, found[name] = stream(tokens, mask)
            logits = logits + part
        return logits, found

    def _named(self) -> list[tuple[Stream, nn.Module]]:
        order: tuple[Stream, ...] = ("whole", "patches", "free")
        return [(name, self.streams[name]) for name in order if name in self.streams]


class ConceptSettings(HeadSettings):
    """A head of concepts; see `ConceptHead` for when to use it. A recipe finds concepts without their labels.

    The encoder must give tokens: transformer_text, small_vit, or pretrained_text that is trained.

    Args:
        num_concepts: of the row as a whole; 0 leaves that stream out.
        num_patch_concepts: of each token; 0 leaves that stream out.
        slots: whether concepts are filled anew for each row.
        iterations: of the slots.
        num_heads: of the attention over concepts; must divide the encoder's width.
    """

    name: Literal["concepts"] = "concepts"
    takes_tokens: ClassVar[bool] = True
    num_concepts: int = Field(default=10, ge=0)
    num_patch_concepts: int = Field(default=0, ge=0)
    slots: bool = True
    iterations: int = Field(default=1, ge=1)
    num_heads: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _has_concepts(self) -> Self:
        if not self.num_concepts + self.num_patch_concepts:
            raise MarginsError("num_concepts, num_patch_concepts", expected="one above 0", received="0 and 0")
        return self

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> ConceptHead:
        """An untrained head."""
        return ConceptHead(
            width, num_outputs, num_concepts=self.num_concepts, num_patch_concepts=self.num_patch_concepts,
            slots=self.slots, iterations=self.iterations, num_heads=self.num_heads, generator=generator,
        )  # fmt: skip


def _refuse_sizes(
    width: int, num_classes: int, sizes: Mapping[Stream, int], iterations: int, num_heads: int
) -> None:
    for name, value in (("num_classes", num_classes), ("iterations", iterations), ("num_heads", num_heads)):
        if value < 1:
            raise MarginsError(name, expected="at least 1", received=str(value))
    if min(sizes.values()) < 0 or not any(sizes.values()):
        raise MarginsError(
            "num_concepts, num_patch_concepts, num_free_concepts", expected="at least 0, one above it",
            received=", ".join(map(str, sizes.values())),
        )  # fmt: skip
    if width % num_heads:
        raise MarginsError("num_heads", expected=f"a divisor of the width {width}", received=str(num_heads))


def _plain(num_in: int, num_out: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer without a bias."""
    layer = linear(num_in, num_out, generator=generator)
    layer.register_parameter("bias", None)
    return layer
