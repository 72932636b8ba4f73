"""Every line "reduces to" of every card, as an identity of values."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import margins.losses as L  # noqa: N812
from margins.cards import loss_cards
from margins.targets import Targets

torch.manual_seed(0)
S = 2 * torch.randn(8, 5, dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 3, 4, 0, 2, 2])
HOT = functional.one_hot(Y, 5).double()
SETS = (torch.rand(8, 5) < 0.5).double()
SETS[:, 0], SETS[:, 1] = 1.0, 0.0
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
Z = functional.normalize(torch.randn(8, 4, dtype=torch.float64))
CERTAIN = torch.where(torch.rand(8, 5) < 0.5, 40.0, -40.0).double()

Pair = tuple[Tensor, Tensor]


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> Callable[[], None]:
    def check() -> None:
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        assert a.abs().max() > 1e-6, "vacuous: zero"

    return check


def _p(q: Tensor = S) -> Tensor:
    return torch.softmax(q, 1)[torch.arange(8), Y]


def _mean_gap(scores: Tensor) -> Tensor:
    own = (scores * HOT).sum(1, keepdim=True)
    return (scores - own)[HOT == 0].mean()


def _hinge(lam: float) -> Pair:
    gaps = S - S.gather(1, Y[:, None]) + 0.3 * (1 - HOT)
    return L.LDRKL(lam, margin=0.3).per_anchor(S, Y), gaps.amax(1)


def _f1(hard: Tensor, true: Tensor) -> Tensor:
    hard, true = hard[:, true.any(0)], true[:, true.any(0)]  # a column without a positive has no F1
    tp = (hard * true).sum(0)
    return 1 - (2 * tp / (hard.sum(0) + true.sum(0))).mean()


def _settled() -> Pair:
    memory, exact = L.ALDRKLMemory(8, 3.0), L.ALDRKL(3.0, iterations=200)
    memory.lam = memory.lam.double()
    for _ in range(200):
        found = memory(S, Y, ids=torch.arange(8))
    return found, exact(S, Y)


def _ldr_at_its_temperature() -> Pair:
    loss = L.ALDRKLMemory(1, 4.0, alpha=2.0, normalise="l1")
    loss.lam = loss.lam.double()
    scores, label = S[:1], Y[:1]
    for _ in range(300):
        found = loss(scores, label, ids=torch.zeros(1, dtype=torch.long))
    lam = float(loss.lam)
    normal = scores / scores.abs().mean()
    penalty = 2.0 * math.log(5) / (2 * 4.0) * (lam - 4.0) ** 2
    return found, L.LDRKL(lam, margin=0.1)(normal, label) - penalty


def _hinge_slopes() -> Pair:
    # Draws so large that every slope is clipped at -1: the gradient of max(0, 1 - m) below margin 1.
    scores = torch.rand(8, dtype=torch.float64).requires_grad_()
    loss = L.EnsLoss(lam=0.0, clip=1e-9 + 1.0)
    loss.coefficients = lambda s, g, k: (
        L.stochastic.slopes_of(  # type: ignore[method-assign]
            (2 * g - 1) * s, torch.full_like(s, 50.0), k, lam=0.0, clip=1.0
        )
        * (2 * g - 1)
    )
    (grad,) = torch.autograd.grad(loss(scores, torch.ones(8, dtype=torch.float64)), scores)
    (hinge,) = torch.autograd.grad((1 - scores).clamp(min=0).mean(), scores)
    return grad, hinge


def _series() -> Pair:
    small = 1e-4 * S
    # e^s and 1 + s + s^2/2 differ in third order.
    return L.TaylorSoftmax().per_anchor(small, Y), L.CrossEntropy().per_anchor(small, Y)


def _hard_top_two() -> Pair:
    ordered = S.sort(1, descending=True).values
    edge = (ordered[:, 1] + ordered[:, 2]) / 2  # midway between the second and the third
    distance = (edge - S[torch.arange(8), Y]).clamp(min=0)
    return L.SoftTopK(2, sharpness=1e4).per_anchor(S, Y) / 1e4, distance


def _zero(value: Tensor) -> Callable[[], None]:
    def check() -> None:
        assert value.abs() < 1e-80

    return check


def _pair_of_candidates() -> Pair:
    scores, grades = S[:, :2], torch.tensor([[1.0, 0.0]]).double().expand(8, 2)
    gap = 1 - 1 / math.log2(3)
    return L.LambdaRank().per_anchor(scores, grades), gap * functional.softplus(scores[:, 1] - scores[:, 0])


def _upper_bound() -> None:
    labels, scores = (torch.arange(8) % 2).double(), S[:, 0]
    positive, negative = scores[labels > 0], scores[labels == 0]
    wrong = (positive[:, None] < negative).double().mean()
    assert wrong > 0
    assert L.MannWhitney()(scores, labels) / math.log(2) >= wrong


LIMITS: dict[tuple[str, str], Callable[[], None]] = {
    ("CrossEntropy", "torch.nn.functional.cross_entropy"): _close(
        L.CrossEntropy()(S, Targets.of_classes(Y, 5).smooth(0.2)),
        functional.cross_entropy(S, Y, label_smoothing=0.2),
    ),
    ("CrossEntropy", "CompSum(tau=1)"): _close(
        L.CrossEntropy().per_anchor(S, Y), L.CompSum(1.0).per_anchor(S, Y)
    ),
    ("CrossEntropy", "LDRKL(lam=1) + log C"): _close(
        L.CrossEntropy().per_anchor(S, Y), L.LDRKL(1.0).per_anchor(S, Y) + math.log(5)
    ),
    ("Focal", "gamma = 0: CrossEntropy"): _close(
        L.Focal(0.0).per_anchor(S, Y), functional.cross_entropy(S, Y, reduction="none")
    ),
    ("CompSum", "tau = 0: sum of exponentials of the score differences"): _close(
        L.CompSum(0.0).per_anchor(S, Y), (S - S.gather(1, Y[:, None])).exp().sum(1) - 1
    ),
    ("CompSum", "tau = 1: CrossEntropy"): _close(L.CompSum(1.0)(S, Y), functional.cross_entropy(S, Y)),
    ("CompSum", "tau = 1 + q: generalized cross-entropy (1 - p^q) / q"): _close(
        L.CompSum(1.7).per_anchor(S, Y), (1 - _p() ** 0.7) / 0.7
    ),
    ("CompSum", "tau = 2: mean absolute error 1 - p"): _close(L.CompSum(2.0).per_anchor(S, Y), 1 - _p()),
    ("BinaryCrossEntropy", "torch.nn.functional.binary_cross_entropy_with_logits"): _close(
        L.BinaryCrossEntropy()(S, SETS), functional.binary_cross_entropy_with_logits(S, SETS)
    ),
    ("BinaryFocal", "gamma = 0: BinaryCrossEntropy"): _close(
        L.BinaryFocal(0.0)(S, SETS), L.BinaryCrossEntropy()(S, SETS)
    ),
    ("LDRKL", "lam = 1, margin = 0: CrossEntropy - log K"): _close(
        L.LDRKL(1.0)(S, Y), functional.cross_entropy(S, Y) - math.log(5)
    ),
    ("LDRKL", "lam -> 0: the multi-class hinge"): _close(*_hinge(1e-5), tolerance=1e-4),
    ("ALDRKL", "lambda given: LDRKL on normalised scores, minus the penalty"): _close(
        *_ldr_at_its_temperature()
    ),
    ("ALDRKLMemory", "visited often with fixed scores: ALDRKL"): _close(*_settled()),
    ("ZLoss", "scores shifted and scaled: the same value"): _close(
        L.ZLoss(0.5, 1.0).per_anchor(S, Y), L.ZLoss(0.5, 1.0).per_anchor(3 * S - 7, Y), tolerance=1e-9
    ),
    ("SquaredError", "torch.nn.functional.mse_loss times C"): _close(
        L.SquaredError()(S, SETS), functional.mse_loss(S, SETS) * 5
    ),
    ("SphericalSoftmax", "scores negated: the same value"): _close(
        L.SphericalSoftmax()(S, Y), L.SphericalSoftmax()(-S, Y)
    ),
    ("TaylorSoftmax", "scores near 0: CrossEntropy to second order"): _close(*_series(), tolerance=1e-11),
    ("InfoNCE", "temperature = 1, one positive: CrossEntropy"): _close(
        L.InfoNCE(1.0)(S, Y), functional.cross_entropy(S, Y)
    ),
    ("InfoNCE", "one positive: SupCon"): _close(
        L.InfoNCE(0.3).on_embeddings(Z, LABELS), L.SupCon(0.3).on_embeddings(Z, LABELS)
    ),
    ("SupCon", "one positive: InfoNCE"): _close(L.SupCon(0.3)(S, Y), functional.cross_entropy(S / 0.3, Y)),
    ("DecoupledSoftmax", "one positive: InfoNCE"): _close(
        L.DecoupledSoftmax(0.3)(S, Y), functional.cross_entropy(S / 0.3, Y)
    ),
    ("SoftInfoNCE", "alpha = 0: InfoNCE"): _close(
        L.SoftInfoNCE(0.3, alpha=0.0)(S, Y, side={"similarity": S.flip(0)}),
        functional.cross_entropy(S / 0.3, Y),
    ),
    ("SoftTopK", "k = 1, two candidates: cross-entropy at half the sharpness"): _close(
        L.SoftTopK(1, sharpness=3.0).per_anchor(S[:, :2], Y % 2),
        functional.cross_entropy(1.5 * S[:, :2], Y % 2, reduction="none"),
    ),
    (
        "SoftTopK",
        "sharpness large: 0 inside the hard top k, sharpness times the distance to its edge outside",
    ): _close(*_hard_top_two(), tolerance=1e-8),
    ("SoftTopK", "k at least the number of candidates: 0"): _zero(L.SoftTopK(5)(S, Y)),
    ("MultiSimilarity", "epsilon = None: no mining"): _close(
        L.MultiSimilarity(2.0, 5.0, epsilon=None)(S, SETS),
        (
            functional.softplus(torch.logsumexp((-2 * (S - 0.5)).masked_fill(SETS == 0, -torch.inf), 1)) / 2
            + functional.softplus(torch.logsumexp((5 * (S - 0.5)).masked_fill(SETS > 0, -torch.inf), 1)) / 5
        ).mean(),
    ),
    ("MultiSimilarity", "epsilon large: the same as no mining"): _close(
        L.MultiSimilarity(epsilon=1e3)(S, SETS), L.MultiSimilarity(epsilon=None)(S, SETS)
    ),
    (
        "MannWhitney",
        "one positive and one negative a row, scope 'row': CrossEntropy of the two",
    ): _close(
        L.MannWhitney(scope="row")(S[:, :2], torch.zeros(8, dtype=torch.long)),
        functional.cross_entropy(S[:, :2], torch.zeros(8, dtype=torch.long)),
    ),
    ("MannWhitney", "divided by log 2 (logistic): an upper bound of 1 - AUC"): _upper_bound,
    (
        "SemiHardTriplet",
        "margin large, every negative below its positive: margin plus the mean score difference",
    ): _close(L.SemiHardTriplet(100.0)(S + 20 * HOT, Y), 100 + _mean_gap(S + 20 * HOT)),
    ("LambdaRank", "two candidates, one relevant: |swap gain| times the logistic loss of the pair"): _close(
        *_pair_of_candidates()
    ),
    ("AnyLoss", "certain predictions: 1 - the metric itself"): _close(
        L.AnyLoss("f1", amplify=33.0)(CERTAIN, SETS), _f1((CERTAIN > 0).double(), SETS), tolerance=1e-4
    ),
    ("AnyLoss", "amplify large: 1 - the metric at threshold 1/2"): _close(
        L.AnyLoss("f1", amplify=33.0)(50 * S, SETS), _f1((S > 0).double(), SETS), tolerance=1e-4
    ),
    ("Dice", "certain predictions, smoothing -> 0: 1 - F1"): _close(
        L.Dice(smoothing=1e-9)(CERTAIN, SETS), _f1((CERTAIN > 0).double(), SETS), tolerance=1e-6
    ),
    ("EnsLoss", "all slopes -1 below margin 1: the gradient of the hinge"): _close(
        *_hinge_slopes(), tolerance=2e-6
    ),
    ("MultiHead", "one head of weight 1: that head's loss"): _close(
        L.MultiHead({"a": L.CrossEntropy()})({"a": S}, {"a": Y}), functional.cross_entropy(S, Y)
    ),
}


def _orthonormal_is_zero() -> None:
    features = torch.eye(4, dtype=torch.float64)[LABELS]
    assert L.OrthogonalProjection()(features, LABELS).item() == 0.0
    assert L.OrthogonalProjection()(features, LABELS.roll(1)).item() > 0.1


LIMITS["OrthogonalProjection", "orthonormal class directions: 0"] = _orthonormal_is_zero


@pytest.mark.parametrize(("component", "limit"), list(LIMITS), ids=[f"{c}: {t}" for c, t in LIMITS])
def test_reduces_to(component: str, limit: str) -> None:
    LIMITS[component, limit]()


def test_every_limit_on_a_card_is_tested_and_no_other() -> None:
    assert set(LIMITS) == {(name, limit) for name, card in loss_cards().items() for limit in card.limits}
