"""Any encoder's settings as one type, and which encoder reads which kinds of columns by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from margins.data.columns import InputKind
from margins.encoders.base import EncoderSettings
from margins.encoders.combined import CombinedSettings
from margins.encoders.convolution import SmallResNetSettings
from margins.encoders.embeddings import EmbeddingSettings
from margins.encoders.hashed_text import HashedTextSettings
from margins.encoders.pretrained_text import PretrainedTextSettings
from margins.encoders.tabular import TabularSettings
from margins.encoders.transformer_text import TransformerTextSettings
from margins.encoders.vision_transformer import SmallViTSettings
from margins.errors import MarginsError

AnyEncoder = Annotated[
    TabularSettings
    | HashedTextSettings
    | TransformerTextSettings
    | PretrainedTextSettings
    | SmallResNetSettings
    | SmallViTSettings
    | EmbeddingSettings
    | CombinedSettings,
    Field(discriminator="name"),
]
"""The settings of any encoder; in data, `name` tells which."""


def default_encoder(inputs: Mapping[str, InputKind]) -> EncoderSettings:
    """The encoder to start with, by the kinds of the columns alone.

    Args:
        inputs: columns and their kinds.

    Returns:
        settings with their defaults: `tabular`, `hashed_text`, `small_resnet`, `embeddings`, or `combined`
        when kinds are mixed.

    Raises:
        MarginsError: no column.

    Example:
        >>> default_encoder({"age": "numeric", "city": "categorical"}).name
        'tabular'
        >>> default_encoder({"age": "numeric", "note": "text"}).name
        'combined'
    """
    if not inputs:
        raise MarginsError("inputs", expected="at least one column", received="none")
    kinds = set(inputs.values())
    if kinds <= {"numeric", "categorical"}:
        return TabularSettings()
    if kinds in ({"text"}, {"text_pair"}):
        return HashedTextSettings()
    if kinds == {"image"}:
        return SmallResNetSettings()
    return EmbeddingSettings() if kinds == {"embedding"} else CombinedSettings()
