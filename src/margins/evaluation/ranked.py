"""The best candidates of each query, found block by block, with tied candidates treated alike.

The rule of ties: tied candidates share what they gain evenly, as if all their orders were averaged. So no
metric at k depends on the order of the columns, and a constant score earns what chance earns.
Memory: one block of queries by candidates at a time, and k numbers for each query of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from margins.evaluation.records import Candidates, Embeddings, Floats

_QUERIES = 1024  # a block of embeddings' scores is at most 1024 x 8192: 32 MB in float32
_CORPUS = 8192
_ENTRIES = 1 << 25  # of a block of a score matrix

# (grades, columns) -> what a candidate at these columns adds to its query, float64, 0 where not relevant
Gain: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def is_relevant(grades: Tensor, _columns: Tensor) -> Tensor:
    """A gain of one for whatever is relevant."""
    return (grades > 0).double()


def its_grade(grades: Tensor, _columns: Tensor) -> Tensor:
    """The grade itself as the gain."""
    return grades.double()


def shared_gains(record: Candidates, k: int, gain: Gain) -> Floats:
    """[N, k]: what the candidate at each rank gains, shared among those tied with it; 0 beyond the last."""
    parts = [_query_gains(part, min(k, record.targets.num_candidates), gain) for part in _queries(record)]
    found = torch.cat(parts)
    missing = k - found.shape[1]
    return torch.nn.functional.pad(found, (0, missing)).numpy() if missing else found.numpy()


def lowest_ranks(record: Candidates) -> tuple[Floats, Floats]:
    """[N] ranks of the best and of the worst relevant candidate; those tied with it count as before it.

    NaN for a query with nothing relevant.
    """
    parts = [_extreme_ranks(part) for part in _queries(record)]
    best, worst = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return best, worst


def num_relevant(record: Candidates) -> Floats:
    """[N] known relevant candidates; NaN where there is none, which makes the query lone."""
    num = record.targets.num_positives().double().numpy()
    return np.where(num > 0, num, np.nan)


def ideal_gains(record: Candidates, k: int, gain: Gain) -> Floats:
    """[N, k]: the gains of the best possible order."""
    return np.concatenate([_ideal(part, k, gain) for part in _queries(record)])


def label_precision(record: Candidates) -> Floats:
    """[N] means over relevant labels of the share of relevant ones among those scored as high or higher."""
    return np.concatenate([_label_precision(part) for part in _queries(record)])


def _queries(record: Candidates) -> Iterator[Candidates]:
    """Parts of the rows that fit in memory together with their scores."""
    if isinstance(record.scores, Embeddings):
        step = _QUERIES
    else:
        step = max(1, _ENTRIES // max(record.targets.num_candidates, 1))
    if step >= len(record):
        yield record
        return
    for start in range(0, len(record), step):
        yield record.take(np.arange(start, min(start + step, len(record))))


def _blocks(part: Candidates) -> Iterator[tuple[int, int, Tensor]]:
    """Scores of the candidates start to stop, -inf where unknown; the same numbers on every walk."""
    num = part.targets.num_candidates
    step = _CORPUS if isinstance(part.scores, Embeddings) else max(num, 1)
    for start in range(0, num, step):
        stop = min(start + step, num)
        if isinstance(part.scores, Embeddings):
            scores = part.scores.queries @ part.scores.corpus[start:stop].T
        else:
            scores = part.scores.float() if part.scores.dtype == torch.bool else part.scores
        known = part.targets.known(start, stop)
        yield start, stop, scores if known is None else scores.masked_fill(~known, -torch.inf)


def _ideal(part: Candidates, k: int, gain: Gain) -> Floats:
    rows, columns, grades = part.positives()
    gains, number = gain(grades, columns).numpy(), rows.numpy()
    if (gains == 1).all():
        return (np.arange(k) < np.bincount(number, minlength=len(part))[:, None]).astype(np.float64)
    order = np.lexsort((-gains, number))
    starts = np.searchsorted(number, np.arange(len(part)))
    places = np.arange(len(number)) - starts[number]
    kept = places < k
    best = np.zeros((len(part), k))
    best[number[kept], places[kept]] = gains[order][kept]
    return best


def _query_gains(part: Candidates, k: int, gain: Gain) -> Tensor:
    kept = min(k + 1, part.targets.num_candidates)
    scores, columns = _best(part, kept)
    rows = torch.arange(len(part))[:, None].expand_as(columns)
    gains = gain(part.targets.grades_at(rows.reshape(-1), columns.reshape(-1)), columns.reshape(-1))
    gains = torch.where(scores > -torch.inf, gains.reshape(columns.shape), 0.0)
    same = scores[:, 1:] == scores[:, :-1]
    tied = same.any(1).nonzero()[:, 0]
    if len(tied):
        gains[tied] = _evened(gains[tied], same[tied])
    if kept > k:
        cut = same[:, -1].nonzero()[:, 0]
        if len(cut):
            edge = scores[:, -1:]
            means = _edge_means(part, edge, gain)[:, None].expand_as(gains)
            gains = torch.where((scores == edge) & same[:, -1:], means, gains)
    return gains[:, :k]


def _best(part: Candidates, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of each row and where they are, in falling order."""
    best: tuple[Tensor, Tensor] | None = None
    for start, stop, scores in _blocks(part):
        values, columns = scores.topk(min(k, stop - start), dim=1)
        columns = columns + start
        if best is not None:
            values, columns = torch.cat([best[0], values], 1), torch.cat([best[1], columns], 1)
            values, places = values.topk(min(k, values.shape[1]), dim=1)
            columns = columns.gather(1, places)
        best = values, columns
    if best is None:
        return torch.zeros(len(part), 0), torch.zeros(len(part), 0, dtype=torch.long)
    return best


def _evened(gains: Tensor, same: Tensor) -> Tensor:
    """Each gain replaced by the mean of its run of equal scores."""
    first = torch.zeros(gains.shape[0], 1, dtype=torch.long)
    run = torch.cat([first, (~same).long().cumsum(1)], 1)
    sums = torch.zeros_like(gains).scatter_add(1, run, gains)
    sizes = torch.zeros_like(gains).scatter_add(1, run, torch.ones_like(gains))
    return (sums / sizes.clamp(min=1)).gather(1, run)


def _edge_means(part: Candidates, edge: Tensor, gain: Gain) -> Tensor:
    """[n] mean gain of all candidates whose score is that of the edge, also those that were not kept."""
    total = torch.zeros(len(part), dtype=torch.float64)
    size = torch.zeros(len(part), dtype=torch.float64)
    for start, _, scores in _blocks(part):
        rows, columns = (scores == edge).nonzero(as_tuple=True)
        columns = columns + start
        gains = gain(part.targets.grades_at(rows, columns), columns)
        finite = edge[rows, 0] > -torch.inf
        total.index_add_(0, rows, torch.where(finite, gains, 0.0))
        size.index_add_(0, rows, torch.ones_like(gains))
    return total / size.clamp(min=1)


def _extreme_ranks(part: Candidates) -> tuple[Floats, Floats]:
    best = torch.full((len(part), 1), -torch.inf, dtype=torch.float64)
    worst = torch.full((len(part), 1), torch.inf, dtype=torch.float64)
    for start, stop, scores in _blocks(part):
        positive = part.targets.positive(start, stop) & (scores > -torch.inf)
        best = torch.maximum(best, scores.masked_fill(~positive, -torch.inf).amax(1, keepdim=True))
        worst = torch.minimum(worst, scores.masked_fill(~positive, torch.inf).amin(1, keepdim=True))
    lone = (best == -torch.inf)[:, 0].numpy()
    ranks = torch.zeros(2, len(part), dtype=torch.float64)
    for _, _, scores in _blocks(part):
        ranks += torch.stack([(scores >= edge.to(scores.dtype)).sum(1) for edge in (best, worst)])
    best_rank, worst_rank = (np.where(lone, np.nan, side.numpy()) for side in ranks)
    return best_rank, worst_rank


def _label_precision(part: Candidates) -> Floats:
    part.matrix()  # refuses embeddings
    scores = next(_blocks(part))[2]
    rows, columns, _ = part.positives()
    num = torch.bincount(rows, minlength=len(part))
    places = torch.arange(len(rows)) - (num.cumsum(0) - num)[rows]
    width = int(num.max()) if len(rows) else 0
    own = torch.full((len(part), width), torch.inf, dtype=scores.dtype)
    own[rows, places] = scores[rows, columns]
    own = own.sort(1).values
    above = scores.shape[1] - torch.searchsorted(scores.sort(1).values, own)
    right = num[:, None] - torch.searchsorted(own, own)
    real = torch.arange(width) < num[:, None]
    shares = torch.where(real, right.double() / above.clamp(min=1), 0.0)
    return (shares.sum(1) / num).numpy()  # 0 / 0 = NaN for a lone row
