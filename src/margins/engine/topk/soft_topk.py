"""The soft top k of each row of scores: its value, and its gradient by the implicit function theorem."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.engine.sources import at_least_float32, checked, full_precision
from margins.engine.topk.threshold import DEEP, Row, Search, advanced, remaining_error, start
from margins.engine.topk.tiles import Readings, ScoreTiles, seen_in_bins
from margins.errors import MarginsError, OnceDifferentiableError, describe, values_are_readable

MAX_HISTOGRAMS, MAX_PROBES, MAX_BINS = 3, 5, 2048
FINE = 0.05
"""A bin narrow enough for the histogram to stand for the entries."""


def soft_topk(
    scores: Float[Tensor, "rows columns"],
    k: int | Int[Tensor, " rows"],
    *,
    sharpness: float,
    known: Bool[Tensor, "rows columns"] | None = None,
    readings: Readings | None = None,
) -> Float[Tensor, "rows columns"]:
    r"""How far each entry is in the top k of its row: numbers in (0, 1) that add up to k.

    Use it where "in the top k" must be differentiable: retrieval losses, gates, sparse selection. The
    hard top k, `torch.topk`, is several times faster.

    $p_j = \sigma(a (s_j + t))$ with $t$ such that $\sum_j p_j = k$. The gradient is that of the implicit
    function: with $v_j = a p_j (1 - p_j)$ the Jacobian is $\mathrm{diag}(v) - v v^T / \sum v$.
    Value and gradient read the scores at most twelve times, whatever their range.

    Args:
        scores: [B, C] finite floats; computed in float32 at least.
        k: >= 1, one number or [B] integers. A row with at most k known entries has all of them in.
        sharpness: $a$ > 0; the larger, the nearer to the hard top k.
        known: [B, C] booleans; an unknown entry is in no sum and gets 0.
        readings: counts the readings of forward and backward, for tests and benchmarks.

    Returns:
        [B, C].

    Raises:
        MarginsError: k below 1 or above C, scores not finite, sharpness not positive, wrong shapes.

    Example:
        >>> soft_topk(torch.tensor([[3.0, 1.0, 1.0, 1.0]]), 1, sharpness=20.0).round(decimals=3)
        tensor([[1., 0., 0., 0.]])

    References:
        Gupta et al., Dual-Encoders for Extreme Multi-Label Classification, 2024, arXiv 2310.10636.
    """
    return _applied(scores, k, sharpness, known, readings, False)


def log_soft_topk(
    scores: Float[Tensor, "rows columns"],
    k: int | Int[Tensor, " rows"],
    *,
    sharpness: float,
    known: Bool[Tensor, "rows columns"] | None = None,
    readings: Readings | None = None,
) -> Float[Tensor, "rows columns"]:
    """The logarithm of `soft_topk`, right where that rounds to 0 or 1; arguments as there.

    An unknown entry gets -inf.

    Example:
        >>> log_soft_topk(torch.tensor([[2000.0, 0.0]]), 1, sharpness=1.0)
        tensor([[     0., -1000.]])
    """
    return _applied(scores, k, sharpness, known, readings, True)


def _applied(
    scores: Tensor,
    k: int | Tensor,
    sharpness: float,
    known: Tensor | None,
    readings: Readings | None,
    in_logs: bool,
) -> Tensor:
    if scores.ndim != 2 or not scores.is_floating_point() or scores.shape[1] == 0:
        raise MarginsError("scores", expected="[B, C] floats with C >= 1", received=describe(scores))
    if not 0 < sharpness < float("inf"):
        raise MarginsError("sharpness", expected="a number > 0", received=f"{sharpness!r}")
    if known is not None and (known.shape != scores.shape or known.dtype != torch.bool):
        raise MarginsError(
            "known", expected=f"[B, C] = {list(scores.shape)} booleans", received=describe(known)
        )
    with full_precision(scores.device):
        values = at_least_float32(scores)
        wanted = _checked_k(k, values)
        readings = Readings() if readings is None else readings
        return _SoftTopK.apply(values, known, wanted, sharpness, readings, in_logs)  # pyright: ignore[reportReturnType]


def _checked_k(k: int | Tensor, scores: Tensor) -> Row:
    num_rows, num_columns = scores.shape
    if isinstance(k, int):
        k = torch.full((num_rows,), k, device=scores.device)
    if tuple(k.shape) != (num_rows,) or k.is_floating_point() or k.dtype == torch.bool:
        raise MarginsError("k", expected=f"an integer or [B] = [{num_rows}] integers", received=describe(k))
    if values_are_readable(k):
        wrong = k[(k < 1) | (k > num_columns)]
        if wrong.numel():
            raise MarginsError(
                "k", expected=f"in [1, C] with C = {num_columns}", received=str(int(wrong[0])),
                fix="with fewer candidates than k everything is in the top k: clamp k to C",
            )  # fmt: skip
    return k.to(scores.dtype)


class _SoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        known: Tensor | None,
        k: Tensor,
        sharpness: float,
        readings: Readings,
        in_logs: bool,
    ) -> Tensor:
        tiles = ScoreTiles(scores, known, sharpness, readings)
        search, full = _solved(tiles, k)
        result = torch.empty_like(scores)
        for place, tile in tiles.tiles():
            z = torch.add(search.threshold[place, None], tile, alpha=sharpness)
            result[place] = torch.nn.functional.logsigmoid(z) if in_logs else torch.sigmoid(z, out=z)
        ctx.save_for_backward(scores, known, search.threshold, search.half_gap, full)
        ctx.sharpness, ctx.readings, ctx.in_logs = sharpness, readings, in_logs
        return result

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise OnceDifferentiableError(
                "soft_topk gives first derivatives only; write the second by the implicit function theorem"
            )
        scores, known, threshold, half_gap, full = ctx.saved_tensors
        tiles = ScoreTiles(scores, known, ctx.sharpness, ctx.readings)
        gradient = torch.empty_like(scores)
        for place, tile in tiles.tiles():
            z = torch.add(threshold[place, None], tile, alpha=ctx.sharpness)
            found = _gradient(z, half_gap[place, None], upstream[0][place], ctx.in_logs)
            found.mul_(ctx.sharpness).masked_fill_(full[place, None], 0.0)
            if known is not None:
                found.masked_fill_(~known[place], 0.0)
            gradient[place] = found
        ctx.readings.entries += scores.numel()  # the upstream gradient is read as well
        return gradient, None, None, None, None, None


def _gradient(z: Tensor, half_gap: Tensor, upstream: Tensor, in_logs: bool) -> Tensor:
    """Upstream times the Jacobian of (log) p by z."""
    from_side = -z.abs()
    near = torch.sigmoid(from_side)
    slopes = torch.addcmul(near, near, near, value=-1)
    shares = slopes
    if bool((half_gap > 0).any()):
        shares = torch.exp((from_side + half_gap).clamp(max=40.0)) * torch.sigmoid(-from_side).square()
    own = torch.where(z > 0, near, 1 - near) * upstream if in_logs else slopes * upstream
    if in_logs:
        own = torch.where(z == -torch.inf, 0.0, own)  # an unknown entry, whatever reaches it
    total = shares.sum(1, keepdim=True)
    pull = own.sum(1, keepdim=True) / torch.where(total > 0, total, 1.0)
    return own.addcmul_(shares, pull, value=-1)


@torch.no_grad()
def _solved(tiles: ScoreTiles, k: Row) -> tuple[Search, Tensor]:
    """The thresholds to rounding, and which rows have everything in their top k."""
    top, bottom, num_known = tiles.extremes()
    if not bool((top - bottom).isfinite().all()):
        checked("scores", tiles.scores)
    search = start(top, bottom, k, num_known)
    full = k >= num_known
    open_rows = (~full & (top > bottom)).nonzero()[:, 0]
    search, is_deep = _located(tiles, search, open_rows, k, num_known, (bottom, top))
    accuracy = torch.finfo(k.dtype).eps
    for _ in range(MAX_PROBES):
        if not open_rows.numel():
            break
        here = Search(*(v[open_rows] for v in search))
        k_here, known_here = k[open_rows], num_known[open_rows]
        seen = tiles.probe(here, open_rows, k_here, neighbours=is_deep)
        after = advanced(here, seen, k_here, known_here)
        for all_rows, some in zip(search, after, strict=True):
            all_rows[open_rows] = some
        is_deep = is_deep or bool(((seen.num_above == k_here) & (seen.slope < 1e-2)).any())
        moved = (after.threshold - here.threshold).abs() > accuracy * here.threshold.abs()
        moved |= after.half_gap != here.half_gap
        unfinished = (remaining_error(here, seen, k_here, known_here) > accuracy) & moved
        open_rows = open_rows[unfinished]
    return search, full


def _located(
    tiles: ScoreTiles, search: Search, rows: Tensor, k: Row, num_known: Row, extremes: tuple[Row, Row]
) -> tuple[Search, bool]:
    """Thresholds near the roots, found by histograms; and whether some row has a deep gap there."""
    bottom, top = extremes
    is_deep = False
    for _ in range(MAX_HISTOGRAMS):
        if not rows.numel():
            break
        here = Search(*(v[rows] for v in search))
        k_here, known_here = k[rows], num_known[rows]
        reach = known_here.log() + 10  # what lies further away adds less than 1e-4 in all
        low = torch.maximum(-here.high - reach, bottom[rows])
        high = torch.minimum(-here.low + reach, top[rows])
        margin = (high - low) * 1e-3  # no entry stands on the edge
        low, high = low - margin, high + margin
        num_bins = int(((high - low).amax() / FINE).clamp(16, MAX_BINS))
        counts = tiles.histogram(low, high, num_bins, rows)
        after, apart = _read_off(counts, here, k_here, known_here, (low, high))
        for all_rows, some in zip(search, after, strict=True):
            all_rows[rows] = some
        is_deep = is_deep or bool(apart.any())
        rows = rows[((high - low) / num_bins > FINE) & ~apart]
    return search, is_deep


def _read_off(
    counts: Tensor, search: Search, k: Row, num_known: Row, window: tuple[Row, Row]
) -> tuple[Search, Tensor]:
    """Bracket and threshold from a histogram, and whether the k-th and the next value lie far apart."""
    low, high = window
    num_bins = counts.shape[1] - 2
    width = (high - low) / num_bins
    from_top = counts.flip(1).cumsum(1)
    # Bins counted from the top, the open one first.
    of_kth = (from_top < k[:, None]).sum(1)
    of_next = (from_top < (k + 1)[:, None]).sum(1).clamp(max=num_bins + 1)
    upper_edge = torch.where(of_kth == 0, torch.inf, high - (of_kth - 1) * width)
    lower_edge = torch.where(of_next == num_bins + 1, -torch.inf, high - of_next * width)
    slack = (
        width * 1e-2 + high.abs() * 4 * torch.finfo(k.dtype).eps
    )  # an entry on an edge may be binned either way
    bracket_low = torch.maximum(search.low, -upper_edge - slack - (num_known - k).clamp(min=1).log())
    bracket_high = torch.minimum(search.high, -lower_edge + slack + k.log())
    between = (high - of_kth * width, high - (of_next - 1) * width)  # below the k-th's bin, above the next's
    apart = between[0] - between[1] > DEEP
    middle = -(between[0] + between[1]) / 2
    found = Search(search.threshold, bracket_low, torch.maximum(bracket_low, bracket_high), search.half_gap)
    found = _solved_in_bins(counts, found, k, num_known, window)
    return found._replace(threshold=torch.where(apart, middle, found.threshold)), apart


def _solved_in_bins(
    counts: Tensor, search: Search, k: Row, num_known: Row, window: tuple[Row, Row]
) -> Search:
    low, high = window
    num_bins = counts.shape[1] - 2
    places = torch.arange(-1, num_bins + 1, device=counts.device, dtype=k.dtype) + 0.5
    centres = low[:, None] + places * ((high - low) / num_bins)[:, None]
    centres[:, 0], centres[:, -1] = -torch.inf, torch.inf
    trial = search._replace(threshold=(search.low + search.high) / 2)
    for _ in range(12):
        seen = seen_in_bins(centres, counts, trial, k)
        before, trial = trial, advanced(trial, seen, k, num_known)
        if bool(((trial.threshold - before.threshold).abs() < 1e-3).all()):
            break
    return search._replace(threshold=trial.threshold.clamp(search.low, search.high))
