"""Texts through a pretrained transformer: frozen, trained as a whole, or through low-rank changes."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor, nn

from margins.data.columns import InputKind
from margins.data.extras import extra
from margins.data.frame import Frame
from margins.encoders.base import Dropout, Encoder, EncoderSettings
from margins.encoders.cells import texts_of
from margins.encoders.embeddings import VectorEncoder, Vectors
from margins.encoders.pooling import Pooling, PoolingName, new_pooling
from margins.encoders.pretrained_model import PretrainedModel, TokenIds, load_model, own_pooling
from margins.encoders.text_columns import TextPreparation, columns_of_text, compared
from margins.encoders.vector_cache import VectorCache
from margins.errors import MarginsError

Mode = Literal["frozen", "finetune", "lora"]


class PretrainedTextPreparation(TextPreparation):
    """Texts to token ids, or with a frozen model to vectors, each distinct text once.

    The model itself is not part of its data: it is loaded again by its name, and refused when its weights or
    its vocabulary are no longer those of training.
    """

    model: str
    mode: Mode
    pooling: PoolingName
    max_tokens: int
    width: int
    sha256: str
    download: bool = Field(default=False, exclude=True)
    cache: str | None = Field(default=None, exclude=True)
    batch_size: int = Field(default=64, exclude=True)
    device: str = Field(default="cpu", exclude=True)
    _loaded: PretrainedModel | None = PrivateAttr(default=None)
    _vectors: dict[str, Tensor] = PrivateAttr(default_factory=dict[str, Tensor])

    def inputs_of(self, columns: list[list[str]]) -> TokenIds | Vectors:
        """Token ids or vectors of the rows, whose texts of several columns are joined by line breaks."""
        texts = ["\n".join(row) for row in zip(*columns, strict=True)]
        if self.mode != "frozen":
            return self.pretrained.tokenised(texts, max_tokens=self.max_tokens)
        self._add_vectors(texts)
        if not texts:
            return Vectors(torch.zeros(0, self.width))
        return Vectors(torch.stack([self._vectors[text] for text in texts]))

    def token_names(self, frame: Frame) -> list[list[str]]:
        """The tokens of each row as the model's vocabulary writes them, special ones included."""
        columns = zip(*(texts_of(frame, name) for name in self.columns), strict=True)
        tokens = self.pretrained.tokenised(["\n".join(row) for row in columns], max_tokens=self.max_tokens)
        rows = tokens.ids.split(tokens.offsets.diff().tolist())
        return [self.pretrained.tokenizer.convert_ids_to_tokens(row.tolist()) for row in rows]

    def keep(self, loaded: PretrainedModel) -> None:
        """Takes the model as loaded already."""
        self._loaded = loaded

    @property
    def pretrained(self) -> PretrainedModel:
        """The model, loaded when it is first asked for.

        Raises:
            MarginsError: it is not there, or not the one of training.
        """
        if self._loaded is None:
            self._loaded = load_model(self.model, download=self.download)
        if self._loaded.sha256 != self.sha256:
            raise MarginsError(
                f"model {self.model!r}",
                expected="the weights and vocabulary of training",
                received="others",
                fix="name the folder that holds the model as it was",
            )
        return self._loaded

    def _add_vectors(self, texts: Sequence[str]) -> None:
        """Brings the vectors of these texts into memory: from there, from the cache, or out of the model."""
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        cache = None
        if new and self.cache is not None:
            maker = f"{self.sha256} {self.pooling} {self.max_tokens}"
            cache = VectorCache(Path(self.cache), maker=maker)
            self._vectors.update(cache.find(new))
            new = [text for text in new if text not in self._vectors]
        if not new:
            return
        computed = dict(zip(new, self._computed(new), strict=True))
        self._vectors.update(computed)
        if cache is not None:
            cache.add(computed)

    @torch.no_grad()
    def _computed(self, texts: list[str]) -> Tensor:
        """Vectors [N, width], computed in batches of texts of like length."""
        model = self.pretrained
        network = model.network.to(self.device).eval()
        pooling = new_pooling(self.pooling, width=self.width, num_layers=model.num_layers)
        tokens = model.tokenised(texts, max_tokens=self.max_tokens)
        vectors = torch.empty(len(texts), self.width)
        for rows in tokens.offsets.diff().argsort(descending=True).split(self.batch_size):
            vectors[rows] = _pooled(network, pooling, tokens.take(rows).to(self.device)).cpu()
        return vectors


class PretrainedTextSettings(EncoderSettings):
    """A pretrained transformer of the transformers or sentence-transformers family.

    Use it whenever one fits the language of the texts: it needs far fewer labels than what is trained from
    scratch. `frozen` computes a vector a text once and trains the head alone: fast, and strong for small
    data. `finetune` trains everything; `lora` trains low-rank changes of its linear layers. Nothing is
    downloaded unless `download` is set. Several columns are joined by line breaks; two columns of kind
    `text_pair` go through one encoder and are compared (`PairEncoder`). The model's own dropout is off, for
    it draws from the global generator. Needs the extra `text`.

    Args:
        model: a folder, or a name on the hub.
        mode: what is trained.
        pooling: how the states of tokens become one vector; None for the way that a sentence-transformers
            model was trained with, the mean for others. Frozen models offer mean, cls and last.
        max_tokens: tokens beyond it are left out.
        normalise: whether vectors are scaled to length one; states of tokens, for heads that read these, are
            not.
        dropout: share of the vector, or of the states, left out in training; not with `frozen`.
        lora_rank: rank of the changes of each linear layer, which are doubled (alpha is twice the rank).
        download: whether a model that is not on this machine may be fetched from the hub.
        cache: folder that keeps the vectors of a frozen model; None keeps them in memory alone.
        batch_size: texts at once through a frozen model.
        device: where a frozen model computes.
    """

    name: Literal["pretrained_text"] = "pretrained_text"
    model: str
    mode: Mode = "frozen"
    pooling: PoolingName | None = None
    max_tokens: int = Field(default=128, ge=1)
    normalise: bool = True
    dropout: float = Field(default=0.1, ge=0, lt=1)
    lora_rank: int = Field(default=8, ge=1)
    download: bool = False
    cache: str | None = None
    batch_size: int = Field(default=64, ge=1)
    device: str = "cpu"

    @property
    def has_tokens(self) -> bool:
        """Of models that are trained; of a frozen one the vectors alone are kept."""
        return self.mode != "frozen"

    @property
    def is_fixed(self) -> bool:
        """Of a frozen model."""
        return self.mode == "frozen"

    @model_validator(mode="after")
    def _pooling_fits_mode(self) -> Self:
        if self.mode == "frozen" and self.pooling in ("attention", "layers"):
            raise MarginsError(
                "pooling",
                expected="mean, cls or last with a frozen model",
                received=self.pooling,
                fix="pooling that learns needs mode finetune or lora",
            )
        return self

    def prepare(self, frame: Frame, inputs: Mapping[str, InputKind]) -> PretrainedTextPreparation:
        """The columns, and the model by the digest of its weights."""
        columns, is_pair = columns_of_text(self.name, inputs)
        loaded = load_model(self.model, download=self.download)
        preparation = PretrainedTextPreparation(
            columns=columns,
            is_pair=is_pair,
            mode=self.mode,
            pooling=self.pooling or own_pooling(self.model, download=self.download),
            max_tokens=self.max_tokens,
            width=loaded.width,
            sha256=loaded.sha256,
            **self._of_this_machine(),
        )
        preparation.keep(loaded)
        preparation(frame.take(torch.zeros(0, dtype=torch.int64)))  # names what cannot be used before a run
        return preparation

    def restore(self, data: Mapping[str, Any]) -> PretrainedTextPreparation:
        """The preparation that `to_data` wrote, with the model where these settings say it is."""
        return PretrainedTextPreparation.from_data({**data, **self._of_this_machine()})

    def build(self, preparation: Any, *, generator: torch.Generator) -> Encoder[Any]:
        """An encoder with the pretrained weights, or for a frozen model one of its vectors."""
        if self.mode == "frozen":
            tower: Encoder[Any] = VectorEncoder(
                [preparation.width], normalise=self.normalise, generator=generator
            )
        else:
            loaded: PretrainedModel = preparation.pretrained
            network = copy.deepcopy(loaded.network)  # the preparation may build several encoders
            if self.mode == "lora":
                network = _with_lora(network, self.lora_rank, generator)
            pooling = new_pooling(preparation.pooling, width=loaded.width, num_layers=loaded.num_layers)
            tower = PretrainedTextEncoder(
                network,
                pooling,
                width=loaded.width,
                normalise=self.normalise,
                dropout=self.dropout,
                generator=generator,
            )
        return compared(tower, is_pair=preparation.is_pair)

    def _of_this_machine(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "download": self.download,
            "cache": self.cache,
            "batch_size": self.batch_size,
            "device": self.device,
        }


class PretrainedTextEncoder(Encoder[TokenIds]):
    """A pretrained network that is trained on, its token states pooled into one vector; nothing to fit.

    Args:
        network: of the transformers family.
        pooling: token states to one vector.
        width: of the states and of the embedding.
        normalise: whether the vector is scaled to length one.
        dropout: share of the vector left out in training.
        generator: draws the dropout.
    """

    def __init__(
        self,
        network: nn.Module,
        pooling: Pooling,
        *,
        width: int,
        normalise: bool = True,
        dropout: float = 0.1,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.width, self.normalise = width, normalise
        self.network, self.pooling = network, pooling
        self.dropout = Dropout(dropout, generator=generator)

    def fit(self, inputs: TokenIds) -> None:
        """Nothing: each row is treated by itself."""

    def forward(self, inputs: TokenIds) -> Tensor:
        """Embeddings [B, width]."""
        if not len(inputs):
            return torch.zeros(0, self.width, device=inputs.ids.device)
        pooled = _pooled(self.network, self.pooling, inputs)
        return self.dropout(nn.functional.normalize(pooled, dim=1) if self.normalise else pooled)

    def tokens(self, inputs: TokenIds) -> tuple[Tensor, Tensor]:
        """States [B, longest, width] of the last layer, and which of them are real; none is scaled."""
        if not len(inputs):
            states = torch.zeros(0, 1, self.width, device=inputs.ids.device)
            return states, states.new_zeros(0, 1, dtype=torch.bool)
        layers, mask = _layers(self.network, inputs)
        return self.dropout(layers[-1]), mask


def _pooled(network: nn.Module, pooling: Pooling, tokens: TokenIds) -> Tensor:
    return pooling(*_layers(network, tokens))


def _layers(network: nn.Module, tokens: TokenIds) -> tuple[Sequence[Tensor], Tensor]:
    """The states of all layers, and which are of real tokens."""
    ids, mask = tokens.padded()
    states = network(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
    return states.hidden_states, mask


def _with_lora(network: Any, rank: int, generator: torch.Generator) -> nn.Module:
    """The network with its weights fixed and low-rank changes of its linear layers, which start at zero."""
    with extra("text"):
        from peft import LoraConfig, get_peft_model
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft asks transformers for things that are to be renamed.
        warnings.simplefilter("ignore", FutureWarning)
        changed = get_peft_model(
            network, LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear")
        )
    for name, weight in changed.named_parameters():
        if "lora_A" in name:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    return changed
