"""Tables of numbers and categories, with gaps, through a small multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from margins.data.columns import InputKind
from margins.data.extras import extra
from margins.data.frame import Frame
from margins.encoders.base import Encoder, EncoderSettings, StoredPreparation, perceptron
from margins.encoders.cells import check_kinds, names_of, numbers_of, rows_in_words
from margins.encoders.inputs import TensorRows
from margins.encoders.numeric import mean_and_deviation
from margins.errors import MarginsError

_LARGEST_WIDTH = 50


@dataclass(frozen=True, eq=False)
class TabularRows(TensorRows):
    """Numbers and categories of rows."""

    numbers: Tensor  # [N, numeric columns] float64, NaN where missing
    categories: Tensor  # [N, categorical columns] int64, 0 where unknown or missing


class TabularPreparation(StoredPreparation):
    """The columns, their vocabularies, and which of them had gaps in the training rows."""

    numeric: list[str]
    with_gaps: list[str]
    vocabularies: dict[str, list[str]]

    def __call__(self, frame: Frame) -> TabularRows:
        """Numbers with NaN for gaps, and the place of each category in its vocabulary, from 1."""
        numbers = [self._numbers(frame, name) for name in self.numeric]
        ids = [self._ids(frame, name, known) for name, known in self.vocabularies.items()]
        return TabularRows(
            _side_by_side(numbers, len(frame), np.float64), _side_by_side(ids, len(frame), np.int64)
        )

    def _numbers(self, frame: Frame, name: str) -> Any:
        values = numbers_of(frame, name)
        gaps = np.flatnonzero(np.isnan(values))
        if len(gaps) and name not in self.with_gaps:
            raise MarginsError(
                f"column {name!r}",
                expected="a number in every row, as in training",
                received=f"none in {rows_in_words(gaps)}",
                fix="fill these cells, or train on rows some of which miss this number",
            )
        return values

    @staticmethod
    def _ids(frame: Frame, name: str, known: list[str]) -> Any:
        with extra("tool"):
            import polars as pl
        places = range(1, len(known) + 1)
        return (
            names_of(frame, name).replace_strict(known, places, default=0, return_dtype=pl.Int64).to_numpy()
        )


class TabularSettings(EncoderSettings):
    """Numeric and categorical columns.

    Use it for tables; for text, images or vectors beside them use `combined`. Numbers are standardised by the
    training rows; a missing one becomes the training mean and sets an indicator, if training had gaps in that
    column, and is refused otherwise. A category of a vocabulary of n has an embedding of width
    min(50, ceil(1.6 n^0.56)); unknown and missing ones share an embedding that starts at zero.

    Args:
        width: of the hidden layers and of the embedding.
        depth: number of hidden layers.
        dropout: share of hidden units left out in training.
    """

    name: Literal["tabular"] = "tabular"
    width: int = Field(default=128, ge=1)
    depth: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)

    def prepare(self, frame: Frame, inputs: Mapping[str, InputKind]) -> TabularPreparation:
        """Vocabularies by name, and which numeric columns have gaps."""
        check_kinds(self.name, inputs, "numeric", "categorical")
        numeric = [name for name, kind in inputs.items() if kind == "numeric"]
        gaps = {name: np.isnan(numbers_of(frame, name)) for name in numeric}
        vocabularies = {
            name: sorted(set(names_of(frame, name).unique().to_list()) - {""})
            for name, kind in inputs.items()
            if kind == "categorical"
        }
        empty = [name for name in numeric if gaps[name].all()]
        empty += [name for name, known in vocabularies.items() if not known]
        if empty:
            raise MarginsError(
                f"column {empty[0]!r}",
                expected="at least one filled cell in the training rows",
                received="empty cells only",
                fix="leave the column out",
            )
        with_gaps = [name for name in numeric if gaps[name].any()]
        return TabularPreparation(numeric=numeric, with_gaps=with_gaps, vocabularies=vocabularies)

    def restore(self, data: Mapping[str, Any]) -> TabularPreparation:
        """The preparation that `to_data` wrote."""
        return TabularPreparation.from_data(data)

    def build(self, preparation: Any, *, generator: torch.Generator) -> TabularEncoder:
        """An untrained encoder for these columns."""
        return TabularEncoder(
            num_columns=len(preparation.numeric),
            with_gaps=[preparation.numeric.index(name) for name in preparation.with_gaps],
            num_categories=[len(known) for known in preparation.vocabularies.values()],
            width=self.width,
            depth=self.depth,
            dropout=self.dropout,
            generator=generator,
        )


class TabularEncoder(Encoder[TabularRows]):
    """Standardised numbers, gap indicators and category embeddings through hidden layers with ReLU.

    Reduces to `NumericEncoder`, weight for weight, with depth 2, no categories and no gaps.

    Args:
        num_columns: numeric columns.
        with_gaps: those of them, by place, that get an indicator of missing numbers.
        num_categories: known categories of each categorical column.
        width: of the hidden layers and of the embedding.
        depth: number of hidden layers.
        dropout: share of hidden units left out in training.
        generator: draws the first weights and the dropout.

    Example:
        >>> encoder = TabularEncoder(num_columns=1, num_categories=[2], width=4,
        ...                          generator=torch.Generator().manual_seed(0))
        >>> rows = TabularRows(torch.tensor([[1.0], [3.0]]).double(), torch.tensor([[2], [0]]))
        >>> encoder.fit(rows)
        >>> encoder(rows).shape
        torch.Size([2, 4])
    """

    mean: Tensor
    deviation: Tensor
    with_gaps: Tensor

    def __init__(
        self,
        *,
        num_columns: int,
        num_categories: Sequence[int] = (),
        with_gaps: Sequence[int] = (),
        width: int = 128,
        depth: int = 2,
        dropout: float = 0.2,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.width = width
        self.tables = nn.ModuleList(_category_table(num, generator) for num in num_categories)
        widths = [embedding_width(num) for num in num_categories]
        num_in = num_columns + len(with_gaps) + sum(widths)
        self.layers = perceptron(num_in, width, depth=depth, dropout=dropout, generator=generator)
        self.register_buffer("mean", torch.zeros(num_columns, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(num_columns, dtype=torch.float64))
        self.register_buffer("with_gaps", torch.tensor(list(with_gaps), dtype=torch.int64))

    def fit(self, inputs: TabularRows) -> None:
        """Mean and deviation of the numbers that are there; a constant column keeps deviation one."""
        mean, deviation = mean_and_deviation(inputs.numbers)
        self.mean, self.deviation = mean.to(self.mean.device), deviation.to(self.mean.device)

    def forward(self, inputs: TabularRows) -> Tensor:
        """Embeddings [B, width]."""
        standard = (inputs.numbers - self.mean) / self.deviation
        parts = [standard.float().nan_to_num(0.0)]
        if len(self.with_gaps):
            parts.append(standard[:, self.with_gaps].isnan().float())
        parts += [table(inputs.categories[:, k]) for k, table in enumerate(self.tables)]
        return self.layers(torch.cat(parts, 1))


def embedding_width(num_categories: int) -> int:
    """The width of the embedding of a category: grows slowly with their number.

    Example:
        >>> [embedding_width(n) for n in (2, 100, 100000)]
        [3, 22, 50]
    """
    return min(_LARGEST_WIDTH, math.ceil(1.6 * num_categories**0.56))


def _category_table(num_categories: int, generator: torch.Generator) -> nn.Embedding:
    width = embedding_width(num_categories)
    # Made without numbers first: its own start would draw from the global generator.
    table = nn.Embedding(num_categories + 1, width, device="meta").to_empty(device="cpu")
    nn.init.normal_(table.weight, std=1 / math.sqrt(width), generator=generator)
    with torch.no_grad():
        table.weight[0] = 0.0
    return table


def _side_by_side(columns: list[Any], num_rows: int, dtype: Any) -> Tensor:
    if not columns:
        return torch.from_numpy(np.zeros((num_rows, 0), dtype))
    return torch.from_numpy(np.stack(columns, axis=1).astype(dtype, copy=False))
