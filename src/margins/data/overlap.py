"""Rows that stand in two roles at once: exact and near duplicates across a division."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from margins.data.columns import Columns
from margins.data.dividing import Division
from margins.data.frame import Frame
from margins.data.near_texts import NearTexts
from margins.data.row_keys import normalised, row_keys

if TYPE_CHECKING:
    import polars as pl

Ints = npt.NDArray[np.int64]
Pairs = tuple[Ints, Ints]
_NEAR_COSINE = 0.999
_MOST_SHOWN = 5
_BLOCK = 2048


@dataclass(frozen=True)
class Overlap:
    """Rows of one role that have a twin in another.

    Args:
        first: the role that comes first (train before select before report).
        second: the role whose rows are counted.
        kind: "exact", the same inputs after normalising; or "near".
        num_rows: rows of the second role with a twin in the first.
        share: of the rows of the second role.
        num_disagreeing: of these rows, those that have a twin with another target.
        pairs: up to five of the pairs, rows from 0, first role first.
    """

    first: str
    second: str
    kind: Literal["exact", "near"]
    num_rows: int
    share: float
    num_disagreeing: int
    pairs: tuple[tuple[int, int], ...]

    @property
    def sentence(self) -> str:
        """What to print.

        Example:
            >>> Overlap("train", "report", "exact", 3, 0.02, 1, ((0, 9),)).sentence
            '3 report rows (2.0%) have the same inputs as train rows, 1 of them with another target; for
            example rows 1 and 10.'
        """
        how = "the same inputs as" if self.kind == "exact" else "nearly the same inputs as"
        other = f", {self.num_disagreeing} of them with another target" if self.num_disagreeing else ""
        a, b = self.pairs[0]
        return (
            f"{self.num_rows} {self.second} rows ({self.share:.1%}) have {how} {self.first} rows{other}; "
            f"for example rows {a + 1} and {b + 1}."
        )


def overlap(frame: Frame, columns: Columns, division: Division) -> list[Overlap]:
    """Rows that stand in two roles, exactly or nearly, for each pair of roles that has any.

    Texts are compared in small letters with single spaces; near are those whose character trigrams have a
    Jaccard similarity of at least 0.9 (of long texts, the first 2000 characters count), and embeddings with
    a cosine of at least 0.999. Images, numbers, categories and inputs of several kinds are compared exactly
    only; `compared_how` says so for printing.

    Args:
        frame: the rows.
        columns: their roles.
        division: the rows of each role.

    Returns:
        one record for each pair of roles and kind with a twin in it; empty when there is none. Near pairs
        leave out the exact ones.
    """
    keys = row_keys(frame, columns)
    search = _near_search(frame, columns)
    targets = target_keys(frame, columns)
    found: list[Overlap] = []
    for (first, a_rows), (second, b_rows) in combinations(division.roles.items(), 2):
        exact = _exact_pairs(keys, a_rows, b_rows)
        found += _told(first, second, "exact", exact, len(b_rows), targets)
        if search is not None:
            a, b = search(a_rows, b_rows)
            is_other = keys[a] != keys[b]
            found += _told(first, second, "near", (a[is_other], b[is_other]), len(b_rows), targets)
    return found


def compared_how(columns: Columns) -> str:
    """A sentence on what counts as a twin.

    Example:
        >>> compared_how(Columns(inputs={"age": "numeric"}))
        'Rows were compared exactly only: inputs of this kind have no near duplicates here.'
    """
    kind = _near_kind(columns)
    if kind == "text":
        return "Texts were compared exactly and nearly (character trigrams, Jaccard at least 0.9)."
    if kind == "embedding":
        return "Embeddings were compared exactly and nearly (cosine at least 0.999)."
    return "Rows were compared exactly only: inputs of this kind have no near duplicates here."


def _near_kind(columns: Columns) -> Literal["text", "embedding"] | None:
    kinds = list(columns.inputs.values())
    if kinds in (["text"], ["text_pair", "text_pair"], ["text", "text"]):
        return "text"
    return "embedding" if kinds == ["embedding"] else None


def _exact_pairs(keys: Ints, first: Ints, second: Ints) -> Pairs:
    """Every pair with the same key."""
    order = np.argsort(keys[first], kind="stable")
    ordered = keys[first][order]
    starts = np.searchsorted(ordered, keys[second], side="left")
    # Of many twins one that agrees and one that does not would do; a few keep the list short.
    counts = np.minimum(np.searchsorted(ordered, keys[second], side="right") - starts, 100)
    before = np.cumsum(counts) - counts
    places = np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
    return first[order[places]], np.repeat(second, counts)


def _near_search(frame: Frame, columns: Columns) -> Callable[[Ints, Ints], Pairs] | None:
    """What finds the near pairs between two lists of rows, where the inputs are of a kind that has any."""
    kind = _near_kind(columns)
    if kind is None:
        return None
    names = list(columns.inputs)
    if kind == "embedding":
        return partial(_near_embeddings, _unit(frame.table[names[0]].to_numpy()))
    texts = normalised(frame.table[names[0]])
    for name in names[1:]:
        texts = texts + "\n" + normalised(frame.table[name])
    return NearTexts(texts).pairs


def _near_embeddings(units: npt.NDArray[np.float32], first: Ints, second: Ints) -> Pairs:
    found: list[Pairs] = []
    for i in range(0, len(first), _BLOCK):
        for j in range(0, len(second), _BLOCK):
            a, b = np.nonzero(units[first[i : i + _BLOCK]] @ units[second[j : j + _BLOCK]].T >= _NEAR_COSINE)
            found.append((first[i + a], second[j + b]))
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of length one; a row of zeros points nowhere and stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)


def target_keys(frame: Frame, columns: Columns) -> Ints:
    """[N] equal where rows have the same target; a set of labels in any order."""
    import polars as pl

    if columns.target is None:
        return np.zeros(len(frame), dtype=np.int64)
    cells: pl.Series = frame.table[columns.target]
    if isinstance(cells.dtype, pl.List):
        cells = cells.cast(pl.List(pl.String)).list.sort().list.join("\n")
    return np.array(cells.rank("dense").fill_null(0).to_numpy(), dtype=np.int64)


def _told(
    first: str,
    second: str,
    kind: Literal["exact", "near"],
    pairs: Pairs,
    num_second: int,
    targets: Ints,
) -> list[Overlap]:
    a, b = pairs
    if not len(a):
        return []
    num = len(np.unique(b))
    num_disagreeing = len(np.unique(b[targets[a] != targets[b]]))
    shown = tuple(zip(a[:_MOST_SHOWN].tolist(), b[:_MOST_SHOWN].tolist(), strict=True))
    return [Overlap(first, second, kind, num, num / num_second, num_disagreeing, shown)]
