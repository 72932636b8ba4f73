"""Several encoders side by side, for tables that mix text, numbers, categories, images and vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.encoders.base import Encoder, EncoderSettings, Preparation, linear
from margins.encoders.cells import check_kinds
from margins.encoders.convolution import SmallResNetSettings
from margins.encoders.embeddings import EmbeddingSettings
from margins.encoders.hashed_text import HashedTextSettings
from margins.encoders.inputs import Parts
from margins.encoders.pretrained_text import PretrainedTextSettings
from margins.encoders.tabular import TabularSettings
from margins.encoders.transformer_text import TransformerTextSettings
from margins.encoders.vision_transformer import SmallViTSettings
from margins.errors import MarginsError

_PART_OF: dict[InputKind, str] = {
    "text": "text",
    "text_pair": "text_pair",
    "image": "image",
    "numeric": "tabular",
    "categorical": "tabular",
    "embedding": "embeddings",
}

AnyText = Annotated[
    HashedTextSettings | TransformerTextSettings | PretrainedTextSettings, Field(discriminator="name")
]
AnyImage = Annotated[SmallResNetSettings | SmallViTSettings, Field(discriminator="name")]


class CombinedPreparation(Preparation):
    """The preparation of each part."""

    def __init__(self, parts: Mapping[str, Preparation]) -> None:
        self.parts = dict(parts)

    def __call__(self, frame: Frame) -> Parts:
        """The inputs of every part."""
        return Parts({name: part(frame) for name, part in self.parts.items()})

    def to_data(self) -> dict[str, Any]:
        """The data of every part."""
        return {name: part.to_data() for name, part in self.parts.items()}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> CombinedPreparation:
        """Not possible without the settings, which know each part: use `CombinedSettings.restore`."""
        raise MarginsError(
            "data",
            expected="the settings of the parts beside it",
            received=f"data of {', '.join(data)} alone",
            fix="call CombinedSettings.restore(data)",
        )


class CombinedSettings(EncoderSettings):
    """One encoder for each kind of column, their embeddings side by side, then one linear layer with ReLU.

    Use it for mixed tables. Numeric and categorical columns go to `tabular`, embeddings to `embeddings`,
    images to `image`, texts to `text`, and a pair of texts to one more encoder with the same settings.

    Args:
        width: of the embedding.
        tabular: settings of the part for numbers and categories.
        embeddings: of the part for vectors.
        text: of the part for texts, and of that for a pair of texts.
        image: of the part for images.
    """

    name: Literal["combined"] = "combined"
    width: int = Field(default=128, ge=1)
    tabular: TabularSettings = TabularSettings()
    embeddings: EmbeddingSettings = EmbeddingSettings()
    text: AnyText = HashedTextSettings()
    image: AnyImage = SmallResNetSettings()

    def prepare(self, frame: Frame, inputs: Mapping[str, InputKind]) -> CombinedPreparation:
        """The preparation of each part, on its columns."""
        check_kinds(self.name, inputs, *_PART_OF)
        parts: dict[str, dict[str, InputKind]] = {}
        for column, kind in inputs.items():
            parts.setdefault(_PART_OF[kind], {})[column] = kind
        return CombinedPreparation({p: self._settings(p).prepare(frame, own) for p, own in parts.items()})

    def restore(self, data: Mapping[str, Any]) -> CombinedPreparation:
        """The preparation that `to_data` wrote."""
        return CombinedPreparation({part: self._settings(part).restore(own) for part, own in data.items()})

    def build(self, preparation: Any, *, generator: torch.Generator) -> CombinedEncoder:
        """An untrained encoder for these parts."""
        encoders = {
            name: self._settings(name).build(part, generator=generator)
            for name, part in preparation.parts.items()
        }
        return CombinedEncoder(encoders, width=self.width, generator=generator)

    def _settings(self, part: str) -> EncoderSettings:
        settings = {
            "tabular": self.tabular,
            "embeddings": self.embeddings,
            "text": self.text,
            "text_pair": self.text,
            "image": self.image,
        }
        if part not in settings:
            raise MarginsError("part", expected=f"one of {', '.join(settings)}", received=repr(part))
        return settings[part]


class CombinedEncoder(Encoder[Parts]):
    """Embeddings of the parts side by side, through one linear layer with ReLU.

    Args:
        encoders: by the name of their part.
        width: of the embedding.
        generator: draws the first weights of the last layer.
    """

    def __init__(
        self, encoders: Mapping[str, Encoder[Any]], *, width: int = 128, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.width = width
        self.encoders = nn.ModuleDict(encoders)
        self.last = linear(sum(e.width for e in encoders.values()), width, generator=generator)

    def fit(self, inputs: Parts) -> None:
        """Fits every part."""
        for name, encoder in self.encoders.items():
            encoder.fit(inputs.parts[name])  # type: ignore[operator]

    def forward(self, inputs: Parts) -> Tensor:
        """Embeddings [B, width]."""
        embedded = [encoder(inputs.parts[name]) for name, encoder in self.encoders.items()]
        return nn.functional.relu(self.last(torch.cat(embedded, 1)))
