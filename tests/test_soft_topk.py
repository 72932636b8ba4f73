"""The soft top k: right numbers from few readings, whatever the rows; its gradient; what it never holds."""

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.blockwise import LargestTensor
from harness.problems import make_problem
from margins.engine import Blockwise, Dense, Evaluator, log_soft_topk, soft_topk
from margins.engine.evaluators import Pass
from margins.engine.sources import ScoreMatrix
from margins.engine.statistics import Statistic
from margins.engine.topk.tiles import Readings, ScoreTiles
from margins.errors import MarginsError, OnceDifferentiableError
from margins.losses import SoftTopK
from margins.targets import Targets
from reference.topk import log_shares, soft_top_k

LIMIT = 12
"""Readings of the scores that forward and backward may take together."""
DTYPES = (torch.float32, torch.float64)


def _staircase(num_columns: int, rng: torch.Generator) -> Tensor:
    return 37.0 * torch.randperm(num_columns, generator=rng)


ROWS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "normal": lambda n, g: torch.randn(n, generator=g),
    "heavy-tailed": lambda n, g: torch.randn(n, generator=g) / (torch.rand(n, generator=g) + 1e-4),
    "log-normal": lambda n, g: (5 * torch.randn(n, generator=g)).exp(),
    "all equal": lambda n, _: torch.full((n,), 3.0),
    "huge outlier": lambda n, g: torch.cat([torch.tensor([1e6]), torch.randn(n - 1, generator=g)]),
    "low outlier": lambda n, g: torch.cat([torch.tensor([-1e6]), torch.randn(n - 1, generator=g)]),
    "ties": lambda n, g: torch.randint(0, 5, (n,), generator=g).float(),
    "range 1e4": lambda n, g: 1e4 * torch.rand(n, generator=g),
    "two groups": lambda n, _: torch.cat([torch.full((n // 2,), -5e3), torch.full((n - n // 2,), 5e3)]),
    "staircase": _staircase,
    "offset": lambda n, g: 1e4 + torch.randn(n, generator=g),
}  # fmt: skip


def _grain(values: Tensor) -> float:
    """How far rounding of the inputs and of the threshold, the reference's own included, moves a logit."""
    return (torch.finfo(values.dtype).eps + 1e-13) * (20 + 8 * float(values.detach().abs().max()))


def _check_value(found: Tensor, values: Tensor, k: int) -> None:
    for got, row in zip(found, values, strict=True):
        expected = np.asarray(log_shares(row.double().tolist(), k))
        logs = got.double().numpy()
        np.testing.assert_allclose(np.exp(logs), np.exp(expected), rtol=0, atol=_grain(values))
        np.testing.assert_allclose(logs, expected, rtol=_grain(values), atol=_grain(values))


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("num_columns", [7, 300])
def test_every_kind_of_rows_is_solved_to_rounding_in_twelve_readings(kind: str, num_columns: int) -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.stack([ROWS[kind](num_columns, rng) for _ in range(2 if num_columns == 7 else 1)])
    ks = sorted({1, 3, num_columns // 2, num_columns - 1})
    most = 0.0
    for dtype, k, sharpness in product(DTYPES, ks, (0.01, 1.0, 100.0)):
        scores, readings = rows.to(dtype).requires_grad_(), Readings()
        found = log_soft_topk(scores, k, sharpness=sharpness, readings=readings)
        _check_value(found.detach(), scores.detach() * sharpness, k)
        (gradient,) = torch.autograd.grad(found[:, 0].sum(), scores)
        assert bool(torch.isfinite(gradient).all())
        most = max(most, readings.passes)
    assert 4 <= most <= LIMIT, "vacuous: the readings are not counted"


def test_many_columns_take_six_readings_for_ordinary_rows() -> None:
    scores = torch.randn(4, 50_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    readings = Readings()
    found = soft_topk(scores, 100, sharpness=2.0, readings=readings)
    found.sum().backward()
    torch.testing.assert_close(found.sum(1), torch.full((4,), 100.0), rtol=1e-5, atol=0)
    assert readings.passes <= 7


def test_a_reading_of_some_rows_counts_as_their_share() -> None:
    readings = Readings()
    tiles = ScoreTiles(torch.zeros(4, 10), None, 1.0, readings)
    assert len(list(tiles.tiles(torch.tensor([1, 3])))) == 1
    assert readings.passes == 0.5
    tiles.extremes()
    assert readings.passes == 1.5


class _Scans(Evaluator):
    """An evaluator that counts its passes over the scores."""

    def __init__(self, inner: Evaluator) -> None:
        self.inner, self.number = inner, 0

    def scan(self, statistics: tuple[Statistic, ...], here: Pass) -> list[Tensor]:
        self.number += 1
        return self.inner.scan(statistics, here)


@pytest.mark.parametrize("kind", ROWS)
def test_the_loss_of_every_kind_of_rows_takes_twelve_passes_and_is_that_of_the_operator(kind: str) -> None:
    rng = torch.Generator().manual_seed(1)
    rows = torch.stack([ROWS[kind](200, rng) for _ in range(3)])
    targets = Targets.of_label_sets([[0], [0, 1], [199]], 200)
    grades = targets.grades(0, 200)
    most = 0
    for dtype, k, sharpness in product(DTYPES, (1, 100, 199), (0.01, 1.0, 100.0)):
        scores, evaluator = rows.to(dtype).requires_grad_(), _Scans(Dense())
        found = SoftTopK(k, sharpness=sharpness).evaluate(ScoreMatrix(scores), targets, evaluator).values
        logs = log_soft_topk(scores, k, sharpness=sharpness)
        expected = -(logs * grades.to(dtype)).sum(1) / grades.sum(1)
        grain = 2 * _grain(rows.to(dtype) * sharpness) + 20 * torch.finfo(dtype).eps ** 0.75
        torch.testing.assert_close(found, expected, rtol=grain, atol=grain)
        gradients = [torch.autograd.grad(v.sum(), scores)[0] for v in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=0, atol=20 * grain * sharpness)
        most = max(most, evaluator.number + 1)  # backward makes the pass at the root again
    assert 3 <= most <= LIMIT, "vacuous: the passes are not counted"


@pytest.mark.parametrize("function", [soft_topk, log_soft_topk])
def test_the_gradient_is_that_of_the_value(function: Callable[..., Tensor]) -> None:
    rng = torch.Generator().manual_seed(2)
    scores = torch.randn(5, 8, generator=rng, dtype=torch.float64).requires_grad_()
    k = torch.tensor([1, 2, 4, 7, 8])
    known = torch.rand(5, 8, generator=rng) < 0.8
    known[-1] = True

    def value(x: Tensor, **options: Tensor) -> Tensor:
        return function(x, k, sharpness=1.7, **options).clamp(min=-1e6)

    assert torch.autograd.gradcheck(value, scores)
    assert torch.autograd.gradcheck(partial(value, known=known), scores)


def test_the_gradient_of_the_logarithm_holds_across_a_gap_that_no_share_bridges() -> None:
    scores = torch.tensor([[900.0, 898.0, -900.0, -901.0]], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(log_soft_topk(scores, 2, sharpness=1.0)[0, 2], scores)
    # t = (log-sum-exp of minus the two above - log-sum-exp of the two below) / 2.
    above = torch.softmax(-scores[0, :2].detach(), 0)
    below = torch.softmax(scores[0, 2:].detach(), 0)
    expected = torch.cat([-above / 2, torch.tensor([1.0, 0.0]).double() - below / 2])
    torch.testing.assert_close(gradient[0], expected)


def test_a_row_with_no_more_than_k_candidates_has_all_of_them_in() -> None:
    scores = torch.randn(2, 4, requires_grad=True)
    known = torch.tensor([[True, True, False, False], [True, True, True, True]])
    found = soft_topk(scores, 2, sharpness=1.0, known=known)
    assert found[0].tolist() == [1.0, 1.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(found.square().sum(), scores)
    assert gradient[0].tolist() == [0.0] * 4
    assert gradient[1].abs().max() > 1e-3
    torch.testing.assert_close(found[1].sum(), torch.tensor(2.0))


def test_an_unknown_entry_is_an_entry_that_is_not_there() -> None:
    scores = torch.randn(3, 9, dtype=torch.float64)
    known = torch.ones(3, 9, dtype=torch.bool)
    known[:, 4:6] = False
    scores[:, 4], scores[:, 5] = 1e3, -1e3
    found = soft_topk(scores, 3, sharpness=2.0, known=known)
    expected = soft_topk(scores[:, known[0]], 3, sharpness=2.0)
    torch.testing.assert_close(found[:, known[0]], expected)
    assert bool((found[:, 4:6] == 0).all())


def test_half_precision_is_computed_in_float32() -> None:
    scores = torch.randn(2, 50).to(torch.bfloat16)
    found = soft_topk(scores, 5, sharpness=2.0)
    torch.testing.assert_close(found, soft_topk(scores.float(), 5, sharpness=2.0), rtol=0, atol=0)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("k", lambda s: soft_topk(s, 0, sharpness=1.0)),
        ("k", lambda s: soft_topk(s, 5, sharpness=1.0)),
        ("k", lambda s: soft_topk(s, torch.tensor([0, 2]), sharpness=1.0)),
        ("sharpness", lambda s: soft_topk(s, 1, sharpness=0.0)),
        ("scores", lambda s: soft_topk(s * torch.inf, 1, sharpness=1.0)),
        ("k", lambda _: SoftTopK(0)),
        ("sharpness", lambda _: SoftTopK(sharpness=-1.0)),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(argument: str, call: Callable[[Tensor], object]) -> None:
    with pytest.raises(MarginsError) as raised:
        call(torch.ones(2, 4))
    assert raised.value.argument == argument


def test_a_second_derivative_is_refused() -> None:
    scores = torch.randn(2, 4, requires_grad=True)
    with pytest.raises(OnceDifferentiableError, match="soft_topk"):
        torch.autograd.grad(soft_topk(scores, 2, sharpness=1.0)[0, 0], scores, create_graph=True)


@pytest.mark.parametrize("k", [2, "positives"])
def test_the_loss_passes_gradcheck_under_both_evaluators(k) -> None:
    rng = torch.Generator().manual_seed(3)
    x, w = (torch.randn(n, 1, generator=rng, dtype=torch.float64).requires_grad_() for n in (3, 5))
    targets = Targets.of_label_sets([[0], [1, 2], [0, 3, 4]], 5)
    for evaluator in (Dense(), Blockwise(3)):

        def value(a: Tensor, b: Tensor, evaluator: Evaluator = evaluator) -> Tensor:
            return SoftTopK(k, sharpness=1.3).on_candidates(a, b, targets, evaluator=evaluator)

        assert torch.autograd.gradcheck(value, (x, w), fast_mode=True)


@pytest.mark.parametrize("kind", ["label sets", "matches"])
def test_k_may_be_the_number_of_positives_of_the_row(kind: str) -> None:
    problem = make_problem(kind, 5, entry_weights=False)
    loss = SoftTopK("positives", sharpness=0.7)
    expected = soft_top_k(*problem.arrays, k=None, sharpness=0.7)
    np.testing.assert_allclose(loss.per_anchor(problem.scores, problem.targets), expected, rtol=1e-9, atol=0)
    two = soft_top_k(*problem.arrays, k=2, sharpness=0.7)
    assert np.abs(np.subtract(expected, two)).max() > 0.1, "vacuous: every row has two"


def test_wide_rows_in_blocks_equal_the_dense_ones_and_hold_no_matrix() -> None:
    rng = torch.Generator().manual_seed(4)
    x, w = 30 * torch.randn(24, 4, generator=rng).double(), 30 * torch.randn(400, 4, generator=rng).double()
    x, w = x.requires_grad_(), w.requires_grad_()
    labels = torch.randint(0, 400, (24,), generator=rng)
    loss = SoftTopK(5, sharpness=3.0)
    dense = loss.on_candidates(x, w, labels)
    expected = torch.autograd.grad(dense, (x, w))
    with LargestTensor() as seen:
        found = loss.on_candidates(x, w, labels, evaluator=Blockwise(100))
        gradients = torch.autograd.grad(found, (x, w))
    torch.testing.assert_close(found, dense)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert seen.elements < 24 * 400 / 2
