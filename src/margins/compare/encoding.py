"""The encoder that fits a table, and its inputs prepared once for all folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from margins.data import RowInputs, Table
from margins.encoders import Encoder, Numbers, NumericEncoder, TextEncoder, hash_texts
from margins.errors import MarginsError
from margins.heads import LinearHead
from margins.training import Network, Recipe

_BUCKETS = 2**15
# A perceptron's epoch is cheap and its way long: it stops late.
_TEXT_PACE, _NUMERIC_PACE = (30, 6), (100, 15)


@dataclass(frozen=True)
class Encoding:
    """Inputs of all rows, and what makes a fresh encoder for them."""

    inputs: RowInputs
    new_encoder: Callable[[torch.Generator], Encoder[Any]]
    sentence: str

    def new_model(self, num_classes: int, generator: torch.Generator) -> Network:
        """An untrained classifier whose weights and dropout come from `generator`."""
        encoder = self.new_encoder(generator)
        return Network(encoder, LinearHead(encoder.width, num_classes, generator=generator))


def default_training(table: Table, metric: str = "macro_f1") -> Recipe:
    """How every objective is trained on such a table when nothing else is asked for."""
    name, (max_epochs, patience) = (
        ("hashed_text", _TEXT_PACE) if table.texts is not None else ("tabular", _NUMERIC_PACE)
    )
    plain = {"task": "classes", "encoder": {"name": name}, "metric": metric}
    return Recipe.model_validate({**plain, "max_epochs": max_epochs, "patience": patience})


def encoding_of(table: Table) -> Encoding:
    """Hashed n-grams for a text column, standardised numbers otherwise. Nothing is fitted here."""
    if table.texts is not None:
        return Encoding(
            hash_texts(table.texts, buckets=_BUCKETS),
            lambda generator: TextEncoder(buckets=_BUCKETS, generator=generator),
            f"Words, word pairs and character 3- to 5-grams hashed into {_BUCKETS} embeddings of width 128, "
            "weighted by inverse document frequency, summed and trained end to end; linear head",
        )
    if table.numbers is None:
        raise MarginsError("table", expected="texts or numbers", received="neither")
    num_columns = table.numbers.shape[1]
    return Encoding(
        Numbers(torch.from_numpy(table.numbers)),
        lambda generator: NumericEncoder(num_columns=num_columns, generator=generator),
        "Numbers standardised by the training rows, two hidden layers of 128 units with ReLU and dropout "
        "0.2; linear head",
    )
