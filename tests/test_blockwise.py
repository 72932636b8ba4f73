"""Blockwise where the harness does not look: gates, learned targets, swapped parameters, autocast, memory."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from harness.blockwise import LargestTensor
from margins.engine import Blockwise, Cosine, Custom, Dense, Dot, Evaluator, UnitEuclidean
from margins.engine.blocks import plan, scores
from margins.engine.blocks.scaling import unit_once
from margins.engine.score_rules import unit
from margins.engine.statistics import Repeat, Stage, detached, implicit, logsumexp, squares, total
from margins.errors import MarginsError, OnceDifferentiableError
from margins.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    DecoupledSoftmax,
    InfoNCE,
    LearnedTemperature,
    MultiSimilarity,
    StatisticsLoss,
    SupCon,
)
from margins.targets import Targets

EVALUATORS = (Dense(), Blockwise(3))


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=rng, dtype=torch.float64).requires_grad_()
    w = torch.randn(7, 4, generator=rng, dtype=torch.float64).requires_grad_()
    return x, w, torch.randint(0, 7, (6,), generator=rng)


def test_a_gated_score_rule_learns_alike():
    x, w, labels = _inputs()
    gradients = []
    for evaluator in EVALUATORS:
        torch.manual_seed(1)
        gate = nn.Linear(4, 4).double()
        rule = Custom(lambda a, b, gate=gate: torch.tanh(gate(a)) @ b.T)
        CrossEntropy().on_candidates(x, w, labels, rule=rule, evaluator=evaluator).backward()
        gradients.append(gate.weight.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 1e-3


def test_learned_grades_margins_and_weights_get_their_gradients():
    x, w, _ = _inputs()
    results = []
    for evaluator in EVALUATORS:
        rng = torch.Generator().manual_seed(2)
        made = [torch.rand(6, 7, generator=rng, dtype=torch.float64).requires_grad_() for _ in range(3)]
        grades, margin, weight = made
        targets = Targets.of_scores(grades).margin(entries=margin).weigh(entries=weight + 0.5)
        loss = CrossEntropy().on_candidates(x, w, targets, evaluator=evaluator)
        results.append(torch.autograd.grad(loss, made))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().max() > 1e-4


@pytest.mark.parametrize("smoothed", [True, False])
def test_soft_and_smoothed_targets_without_weights_are_those_of_the_matrix(smoothed):
    x, w, labels = _inputs()
    grades = torch.rand(6, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    soft = Targets.of_classes(labels, 7).smooth(0.3) if smoothed else Targets.of_scores(grades)
    found = []
    for evaluator in EVALUATORS:
        loss = CrossEntropy().on_candidates(x, w, soft, evaluator=evaluator)
        found.append((loss.detach(), *torch.autograd.grad(loss, (x, w))))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().max() > 1e-3


def _both(loss: StatisticsLoss, x: Tensor, w: Tensor, targets: Targets, **options: object) -> list[Tensor]:
    """Row losses and gradients under each evaluator, compared; those of the first."""
    found = []
    for evaluator in EVALUATORS:
        value = loss.on_candidates(x, w, targets, evaluator=evaluator, **options)
        upstream = torch.linspace(-0.4, 0.9, len(value)).to(value)
        found.append([value.detach(), *torch.autograd.grad(value @ upstream, (x, w))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    return found[0]


@pytest.mark.parametrize("loss", [SupCon, DecoupledSoftmax, MultiSimilarity, InfoNCE, BinaryCrossEntropy])
def test_matches_that_are_rare_enough_to_be_listed_give_what_their_masks_give(loss):
    rng = torch.Generator().manual_seed(4)
    x = torch.randn(70, 4, generator=rng, dtype=torch.float64).requires_grad_()
    w = torch.randn(90, 4, generator=rng, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, 60, (90,), generator=rng)
    rows = torch.arange(70)
    itself = (rows + 9 * (rows % 2)).where(rows % 3 > 0, -1)  # that of odd rows has another label
    targets = Targets.of_matches(labels[:70], labels, same_items=itself)
    assert not targets.is_sparse
    assert targets.few_positives() is not None, "vacuous: they are not listed"
    value, *gradients = _both(loss(reduction="none"), x, w, targets)
    assert value.abs().max() > 1e-2
    assert all(g.abs().max() > 1e-4 for g in gradients)


class _KeptSum(StatisticsLoss):
    """Sums of squares, and of scores, of the entries above the row's mean."""

    def stages(self):
        mean = Stage({"sum": total("all")}, {"mean": detached(lambda z: z.sum / z.known_weight)})
        kept = {"lower": total("all", squares, keep=lambda e: e.s - e.row.mean)}
        return mean, Stage({**kept, "kept": total("all", keep=lambda e: e.s - e.row.mean)})

    def row(self, z):
        return z.kept + 0.3 * z.lower


def test_a_sum_of_what_is_kept_has_the_gradient_of_what_is_kept():
    x, w, labels = _inputs()
    _, gradient, _ = _both(_KeptSum(reduction="none"), x, w, Targets.of_classes(labels, 7))
    whole = torch.autograd.grad((x @ w.T).sum() + 0.3 * (x @ w.T).square().sum(), x)[0]
    assert (gradient - whole).abs().max() > 1e-2, "vacuous: everything is kept"


class _GatedDot(nn.Module):
    """A rule that looks like a product of prepared vectors, and learns."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def prepared(self, vectors: Tensor) -> Tensor:
        return vectors * self.gate

    def forward(self, embeddings: Tensor, candidates: Tensor) -> Tensor:
        return self.prepared(embeddings) @ self.prepared(candidates).T

    def pairs(self, embeddings: Tensor, candidates: Tensor) -> Tensor:
        return (self.prepared(embeddings) * self.prepared(candidates)).sum(1)


def test_a_rule_with_prepared_vectors_of_its_own_may_learn():
    x, w, labels = _inputs()
    rule, found = _GatedDot(), []
    for evaluator in EVALUATORS:
        value = CrossEntropy().on_candidates(x, w, labels, rule=rule, evaluator=evaluator)
        found.append(torch.autograd.grad(value, rule.gate)[0])
    torch.testing.assert_close(*found)
    assert found[0].abs() > 1e-3


class _Wrapped(nn.Module):
    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__()
        self.loss, self.evaluator = InfoNCE(LearnedTemperature(0.1)), evaluator

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        return self.loss.on_pairs(queries, documents, evaluator=self.evaluator)


def test_parameters_swapped_between_forward_and_backward_are_refused_not_misread():
    x, w, _ = _inputs()
    swapped = {"loss.temperature.log_excess": torch.tensor(0.0, requires_grad=True)}
    functional_call(_Wrapped(Dense()), swapped, (x, w)).backward()
    value = functional_call(_Wrapped(Blockwise(3)), swapped, (x, w))
    with pytest.raises(MarginsError, match="functional_call"):
        value.backward()


def test_autocast_around_the_forward_changes_nothing():
    x, w, labels = (t.detach() for t in _inputs())
    x, w = x.float().requires_grad_(), w.float().requires_grad_()
    for evaluator in EVALUATORS:
        plain = CrossEntropy().on_candidates(x, w, labels, evaluator=evaluator)
        expected = torch.autograd.grad(plain, (x, w))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = CrossEntropy().on_candidates(x, w, labels, evaluator=evaluator)
        assert torch.equal(inside, plain)
        for a, b in zip(torch.autograd.grad(inside, (x, w)), expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_inputs_are_let_go_after_backward_though_the_loss_lives(evaluator):
    _, w, labels = _inputs()
    leaf = torch.randn(6, 4, dtype=torch.float64).requires_grad_()
    embeddings = leaf * 2
    loss = CrossEntropy().on_candidates(embeddings, w, labels, evaluator=evaluator)
    watched = weakref.ref(embeddings)
    loss.backward()
    del embeddings
    gc.collect()
    assert watched() is None
    assert loss.requires_grad


class _SoftTopK(StatisticsLoss):
    """-log of a positive's share in a soft top k: the threshold is a fixed point, found by Newton steps."""

    def stages(self):
        start = Stage({"any": total("all", lambda e: 0 * e.s)}, {"t": implicit(lambda z: z.any)})
        step = Stage(
            {
                "inside": total("all", lambda e: (e.s + e.row.t).sigmoid()),
                "slope": total("all", lambda e: (e.s + e.row.t).sigmoid() * (-(e.s + e.row.t)).sigmoid()),
            },
            {"t": implicit(lambda z: z.t - (z.inside - 2.0) / z.slope)},
        )
        return start, Repeat((step,), 40), Stage({"loss": total("targets", self._phi)})

    def _phi(self, e):
        return -torch.nn.functional.logsigmoid(e.s + e.row.t)

    def row(self, z):
        return z.loss


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_an_implicit_row_value_is_differentiated_by_the_implicit_function_theorem(evaluator):
    x, w, labels = _inputs()
    loss = _SoftTopK()

    def value(a: Tensor, b: Tensor) -> Tensor:
        return loss.on_candidates(a, b, labels, evaluator=evaluator)

    x = (0.3 * x.detach()).requires_grad_()  # near enough to the start for plain Newton steps
    assert torch.autograd.gradcheck(value, (x, w))
    shares = (x @ w.T).detach()
    low, high = torch.full((6, 1), -50.0).double(), torch.full((6, 1), 50.0).double()
    for _ in range(80):  # the threshold by bisection
        middle = (low + high) / 2
        too_few = (shares + middle).sigmoid().sum(1, keepdim=True) < 2
        low, high = torch.where(too_few, middle, low), torch.where(too_few, high, middle)
    expected = -torch.nn.functional.logsigmoid(shares + low)[torch.arange(6), labels].mean()
    torch.testing.assert_close(value(x, w), expected)


def test_a_statistic_may_not_take_the_name_of_a_count_that_every_row_has():
    with pytest.raises(MarginsError, match="mass"):
        Stage({"mass": total("all")})


def test_a_block_size_below_one_is_refused():
    with pytest.raises(MarginsError, match="block_size"):
        Blockwise(0)


@pytest.mark.parametrize("rule", [Dot(), Cosine(), UnitEuclidean()])
def test_scores_that_are_kept_give_what_those_made_again_give(rule):
    x, w, labels = _inputs()
    bias = torch.linspace(-1, 1, 7, dtype=torch.float64).requires_grad_()
    found = []
    for evaluator in (Dense(), Blockwise(3, 4), Blockwise(3, 4, keep_bytes=1 << 10)):
        loss = MultiSimilarity(reduction="sum").on_candidates(
            x, w, Targets.of_matches(labels, torch.arange(7)), bias=bias, rule=rule, evaluator=evaluator
        )
        twice = [torch.autograd.grad(loss, (x, w, bias), retain_graph=True) for _ in range(2)]
        for a, b in zip(*twice, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        found.append((loss.detach(), *twice[0]))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b)
            assert a.abs().max() > 1e-3


def test_kept_scores_are_made_once_and_others_in_every_pass():
    x, w, labels = _inputs()
    targets = Targets.of_matches(labels, torch.arange(7))

    def products(evaluator: Evaluator) -> int:
        with _Products() as seen:
            MultiSimilarity().on_candidates(x, w, targets, evaluator=evaluator).backward()
        return seen.count

    again, kept = products(Blockwise(3, 4)), products(Blockwise(3, 4, keep_bytes=6 * 7 * 8))
    assert again == products(Blockwise(3, 4, keep_bytes=6 * 7 * 8 - 1))
    assert (again, kept) == (5 * 6, 3 * 6)  # six blocks


class _Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += any(name in str(func) for name in ("aten.mm", "aten.addmm"))
        return func(*args, **(kwargs or {}))


def test_the_plan_tells_what_will_be_kept():
    small = Blockwise().plan(1024, 1024, 128)
    assert small.keeps_scores
    assert small.bytes > 1024 * 1024 * 4
    large = Blockwise().plan(16384, 16384, 384)
    assert not large.keeps_scores
    assert large.bytes > (large.rows_at_once or 0) * 16384 * 4 > 0
    few = Blockwise().plan(256, 10**6, 384)
    assert (few.keeps_scores, few.rows_at_once) == (False, None)
    assert Blockwise(64).plan(1024, 1024, 128).keeps_scores is False
    with pytest.raises(MarginsError, match="keep_bytes"):
        Blockwise(keep_bytes=-1)


def test_a_reduced_loss_of_whole_rows_holds_no_matrix_of_scores(monkeypatch):
    monkeypatch.setattr(plan, "_KEPT", 0)
    monkeypatch.setattr(plan, "_FEWEST_AT_ONCE", 2)
    monkeypatch.setattr(plan, "_LONG", 1)
    monkeypatch.setattr(plan, "_AT_ONCE", 8 * 64 * 4)
    x, w = torch.randn(64, 4, requires_grad=True), torch.randn(64, 4, requires_grad=True)
    with LargestTensor() as seen:
        InfoNCE().on_pairs(x, w, evaluator=Blockwise()).backward()
    assert seen.elements < 64 * 64 / 4
    loss = InfoNCE().on_pairs(x, w, evaluator=Blockwise())
    with pytest.raises(OnceDifferentiableError, match="dense evaluator"):
        torch.autograd.grad(loss, x, create_graph=True)
    with torch.no_grad():
        torch.testing.assert_close(InfoNCE().on_pairs(x, w, evaluator=Blockwise()), loss.detach())
    x.grad = None
    plain = InfoNCE().on_pairs(x, w, rule=Dot(), evaluator=Blockwise())  # straight to the leaves
    plain.backward(retain_graph=True)
    assert x.grad is not None
    once = x.grad.clone()
    plain.backward()
    torch.testing.assert_close(x.grad, 2 * once)


def test_vectors_scaled_once_have_the_gradient_of_vectors_scaled():
    rng = torch.Generator().manual_seed(5)
    vectors = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    vectors[2] = 0
    upstream = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    found = []
    for scale in (unit, unit_once):
        leaf = vectors.clone().requires_grad_()
        scaled = scale(leaf)
        found.append((scaled.detach(), *torch.autograd.grad(scaled, leaf, upstream)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert not found[1][1][2].any()
    assert found[1][1][1].abs().max() > 1e-2


@pytest.mark.parametrize("loss", [CrossEntropy, BinaryCrossEntropy, SupCon])
def test_products_of_half_precision_vectors_are_added_up_in_float32(loss, monkeypatch):
    """What tensor cores do, done here by products in float32 of the same numbers."""
    taken = []

    def product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        assert left.dtype == right.dtype == torch.bfloat16
        found = left.float() @ right.float()
        taken.append(found.shape)
        return found if out is None else out.copy_(found)

    monkeypatch.setattr(scores, "on_tensor_cores", lambda _, vectors: vectors.dtype == torch.bfloat16)
    monkeypatch.setattr(scores, "half_product", product)
    rng = torch.Generator().manual_seed(6)
    x, w = torch.randn(60, 16, generator=rng).bfloat16(), torch.randn(90, 16, generator=rng).bfloat16()
    bias, labels = torch.randn(90, generator=rng), torch.randint(0, 90, (60,), generator=rng)
    found = []
    for dtype, evaluator in ((torch.float32, Dense()), (torch.bfloat16, Blockwise(40, 25))):
        leaves = [x.to(dtype).requires_grad_(), w.to(dtype).requires_grad_(), bias.clone().requires_grad_()]
        value = loss().on_candidates(
            *leaves[:2], Targets.of_classes(labels, 90), bias=leaves[2], rule=Dot(), evaluator=evaluator
        )
        gradients = torch.autograd.grad(value, leaves)
        assert gradients[0].dtype == dtype
        found.append((value.detach(), *(g.float() for g in gradients)))
    assert len(taken) == 4 * 9, "vacuous: the products were made otherwise"
    torch.testing.assert_close(found[1][0], found[0][0])
    for exact, rounded in zip(found[0][1:], found[1][1:], strict=True):
        assert (rounded - exact).norm() < 5e-3 * exact.norm()


class _Outside(CrossEntropy):
    """Reads a learned number that is no parameter of the loss."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.borrowed = [scale]

    def statistics(self):
        return {
            "log_partition": logsumexp("all", lambda e: e.s * self.borrowed[0]),
            "own": total("targets", lambda e: e.s * self.borrowed[0]),
        }


def test_whole_rows_find_the_gradient_of_what_a_loss_reads_from_elsewhere(monkeypatch):
    for name, number in (("_KEPT", 0), ("_FEWEST_AT_ONCE", 2), ("_LONG", 1), ("_AT_ONCE", 3 * 7 * 8)):
        monkeypatch.setattr(plan, name, number)
    x, w, labels = _inputs()
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    found = []
    for evaluator in (Dense(), Blockwise()):
        value = _Outside(scale).on_candidates(x, w, labels, evaluator=evaluator)
        found.append(torch.autograd.grad(value, (scale, x, w)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().max() > 1e-3


def test_an_accelerator_gets_longer_blocks_and_no_whole_rows(monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda _: 2**40)
    monkeypatch.setattr(plan, "kernels_on", lambda _: "torch")
    batch = Blockwise().plan(16_384, 16_384, 384, device="cuda")
    assert batch.rows_at_once is None
    blocks = [Blockwise().plan(1024, c, 128, device="cuda") for c in (100_000, 500_000, 10_000_000)]
    mebibytes = [b.rows * b.columns * 4 / 2**20 for b in blocks]
    assert mebibytes == pytest.approx([64, 122, 256], rel=0.02)
