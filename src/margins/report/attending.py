"""What a trained model looked at: the tokens of each label, the concepts of each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.data.frame import Frame
from margins.data.nearest import suggestion
from margins.encoders import TokenGrid, TokenNames
from margins.errors import MarginsError
from margins.heads import ConceptHead, LabelAttention
from margins.training.model import Model

Floats = npt.NDArray[np.float32]

_ROWS_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class Attended:
    """What a label looked at in a row.

    Args:
        label: its name.
        tokens: words, or places of patches as "row 2, column 1"; those of the largest weights first.
        places: where they stand among the tokens of the row, from 0.
        weights: theirs; those of all tokens of the row add up to 1.
    """

    label: str
    tokens: tuple[str, ...]
    places: tuple[int, ...]
    weights: tuple[float, ...]


@torch.no_grad()
def attended(
    model: Model, data: Any, *, labels: Sequence[str] | None = None, top: int | None = 5
) -> list[list[Attended]]:
    """The tokens that labels looked at, by the weights of a model with the head label_attention.

    Use it to show where in a text (or an image) a label was found, and to find labels that look at what has
    nothing to do with them. The states of tokens have seen other tokens: a weight is a pointer to a place,
    not a proof that the words there are the cause.

    Args:
        model: trained with `head: {name: label_attention}`.
        data: rows, as `Model.predict` takes them.
        labels: names of the labels to explain in every row; those that the model gives the row when None.
        top: how many tokens of a label, at least 1; all of them when None.

    Returns:
        for each row its labels, in the order asked for.

    Raises:
        MarginsError: another head, an unknown label, or a top below 1.

    Example:
        >>> from margins import train
        >>> rows = {"text": ["a lost card", "no login here"] * 40, "tags": ["card", "login"] * 40}
        >>> encoder = {"name": "transformer_text", "width": 16, "depth": 1, "heads": 2}
        >>> roles = {"kinds": {"text": "text"}, "target": "tags", "target_kind": "label_set"}
        >>> recipe = {"encoder": encoder, "head": {"name": "label_attention"}, "max_epochs": 2}
        >>> model = train(rows, recipe=recipe, **roles).model
        >>> found = attended(model, ["my lost card"], labels=["card"], top=None)[0][0]
        >>> sorted(found.tokens), round(sum(found.weights), 4)
        (['<start>', 'card', 'lost', 'my'], 1.0)
    """
    head = model.network.head
    if not isinstance(head, LabelAttention):
        raise _wrong_head(model, "label_attention")
    if top is not None and top < 1:
        raise MarginsError("top", expected="at least 1, or None for all", received=str(top))
    frame, found = model.frame_of(data), list[list[Attended]]()
    asked = [_number(label, model.classes) for label in labels or ()]
    numbers = _given(model, frame) if labels is None else [asked] * len(frame)
    for start, part, states, mask in _tokens(model, frame):
        attention = head.attention(states, mask)
        for row, names in enumerate(_names(model, part)):
            weights = attention[row][:, mask[row]]
            found.append([_attended(model.classes[k], names, weights[k], top) for k in numbers[start + row]])
    return found


@torch.no_grad()
def concept_shares(model: Model, data: Any) -> dict[str, list[Floats]]:
    """How much each concept has in the predictions of a model with the head concepts.

    Concepts have no names: number s is what `margins.losses.ConceptExplanation` taught as s, or, without
    labels, whatever was found. Look at the rows with the largest shares of one to see what it is.

    Args:
        model: trained with `head: {name: concepts}`.
        data: rows, as `Model.predict` takes them.

    Returns:
        by stream, for each row: of "whole" [S] shares that add up to 1, of "patches" [L, S] of every token.

    Raises:
        MarginsError: another head.
    """
    head = model.network.head
    if not isinstance(head, ConceptHead):
        raise _wrong_head(model, "concepts")
    found: dict[str, list[Floats]] = {name: [] for name in head.streams}
    for _, _, states, mask in _tokens(model, model.frame_of(data)):
        for name, shares in head.explained(states, mask)[1].items():
            rows = zip(shares, mask, strict=True)
            found[name] += [(s[m] if name == "patches" else s).numpy() for s, m in rows]
    return found


def _tokens(model: Model, frame: Frame) -> Iterator[tuple[int, Frame, Tensor, Tensor]]:
    """Parts of the rows: the number of the first one, the part, and the states and mask of its tokens."""
    network = model.network.eval()
    for rows in torch.arange(len(frame)).split(_ROWS_AT_ONCE):
        part = frame.take(rows)
        yield int(rows[0]), part, *network.tokens(model.preparation(part))


def _names(model: Model, frame: Frame) -> list[list[str]]:
    encoder, preparation = model.network.encoder, model.preparation
    if isinstance(preparation, TokenNames):
        return preparation.token_names(frame)
    if not isinstance(encoder, TokenGrid):
        raise MarginsError(
            "model", expected="an encoder whose tokens have names", received=model.recipe.encoder.name
        )
    rows, columns = encoder.grid
    places = [f"row {row + 1}, column {column + 1}" for row in range(rows) for column in range(columns)]
    return [places] * len(frame)


def _given(model: Model, frame: Frame) -> list[list[int]]:
    """The numbers of the labels that the model gives each row."""
    number = {name: k for k, name in enumerate(model.classes)}
    decided = model.predict(frame)
    return [[number[n] for n in (labels if isinstance(labels, list) else [labels])] for labels in decided]


def _attended(label: str, names: list[str], weights: Tensor, top: int | None) -> Attended:
    order = weights.argsort(descending=True, stable=True)[:top].tolist()
    return Attended(
        label=label, tokens=tuple(names[k] for k in order), places=tuple(order),
        weights=tuple(weights[order].tolist()),
    )  # fmt: skip


def _number(label: str, names: list[str]) -> int:
    if label not in names:
        raise MarginsError(
            "labels", expected="labels of the model", received=repr(label), fix=suggestion(label, names)
        )
    return names.index(label)


def _wrong_head(model: Model, wanted: str) -> MarginsError:
    return MarginsError(
        "model", expected=f"one with the head {wanted}", received=f"one with {model.recipe.head.name}",
        fix=f"train with head: {{name: {wanted}}}",
    )  # fmt: skip
