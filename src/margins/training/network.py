"""An encoder with a head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from margins.encoders import Encoder, TokenEncoder
from margins.encoders.pooling import masked_mean
from margins.engine.sources import Source
from margins.errors import MarginsError
from margins.heads import TokenHead
from margins.training.parts.mixing import MixingPlan


class Network(nn.Module):
    """Inputs of rows to scores, by way of embeddings.

    Args:
        encoder: inputs to embeddings [B, width].
        head: embeddings to scores [B, C]. A `TokenHead` is given the states of the encoder's tokens in their
            place, and the embedding of a row is the mean of these.

    Raises:
        MarginsError: a head that reads tokens behind an encoder without them.
    """

    def __init__(self, encoder: Encoder[Any], head: nn.Module) -> None:
        super().__init__()
        if isinstance(head, TokenHead) and not isinstance(encoder, TokenEncoder):
            raise MarginsError(
                "encoder", expected=f"one that gives tokens, for {type(head).__name__} reads them",
                received=type(encoder).__name__,
                fix="transformer_text (not of text pairs) and small_vit are some; or use head linear",
            )  # fmt: skip
        self.encoder = encoder
        self.head = head

    def forward(self, inputs: Any, mixing: MixingPlan | None = None) -> tuple[Tensor, Tensor]:
        """Scores [B, C] and embeddings [B, width], mixed between encoder and head if there is a plan."""
        if isinstance(self.head, TokenHead):
            return self._of_tokens(inputs, self.head, mixing)
        embeddings = self._embedded(inputs, mixing)
        return self.head(embeddings), embeddings

    def source(self, inputs: Any, mixing: MixingPlan | None = None) -> tuple[Source, Tensor]:
        """As `forward`, with what an evaluator makes scores of in place of the scores."""
        embeddings = self._embedded(inputs, mixing)
        source: Source = self.head.source(embeddings)  # pyright: ignore[reportCallIssue] - recipes see to it
        return source, embeddings

    def embeddings(self, inputs: Any) -> Tensor:
        """Embeddings [B, width] as `forward` gives them; no scores are made."""
        if isinstance(self.head, TokenHead):
            return masked_mean(*self.tokens(inputs))
        return self.encoder(inputs)

    def tokens(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """States [B, L, width] and mask [B, L] of the tokens, as a head that reads them is given."""
        encoder = self.encoder
        assert isinstance(encoder, TokenEncoder)  # noqa: S101 - asked of networks of tokens alone
        return encoder.tokens(inputs)

    def _of_tokens(self, inputs: Any, head: TokenHead, mixing: MixingPlan | None) -> tuple[Tensor, Tensor]:
        if mixing is not None:
            raise MarginsError(
                "mix", expected="none with a head that reads tokens", received="a plan of mixing",
                fix="take it out: tokens of two rows have no common places",
            )  # fmt: skip
        states, mask = self.tokens(inputs)
        return head(states, mask), masked_mean(states, mask)

    def _embedded(self, inputs: Any, mixing: MixingPlan | None) -> Tensor:
        embeddings = self.encoder(inputs)
        return embeddings if mixing is None else mixing.features(embeddings)
