"""Every line "reduces to" of every card, as an identity of values."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import margins.losses as L  # noqa: N812
from margins.cards import loss_cards
from margins.heads import nested_log_probabilities
from margins.targets import Targets

torch.manual_seed(0)
S = 2 * torch.randn(8, 5, dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 3, 4, 0, 2, 2])
HOT = functional.one_hot(Y, 5).double()
SETS = (torch.rand(8, 5) < 0.5).double()
SETS[:, 0], SETS[:, 1] = 1.0, 0.0
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
Z = functional.normalize(torch.randn(8, 4, dtype=torch.float64))
MAPS, MASK = S.view(2, 1, 4, 5), HOT.view(2, 1, 4, 5)
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


def _over_levels() -> Pair:
    thresholds = torch.tensor([-2.0, -0.5, 0.5, 3.0], dtype=torch.float64)
    scores = nested_log_probabilities(S[:, 0], thresholds, steepness=2.0)
    levels = (Y[:, None] >= torch.arange(1, 5)).double()
    return L.Cumulative()(scores, Y), L.BinaryCrossEntropy()(2 * (S[:, :1] - thresholds), levels)


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
    ("TruncatedGCE", "threshold = 0: CompSum(tau = 1 + q)"): _close(
        L.TruncatedGCE(0.6, threshold=0.0).per_anchor(S, Y), L.CompSum(1.6).per_anchor(S, Y)
    ),
    ("AsymmetricGCE", "shift -> 0: CompSum(tau = 1 + q)"): _close(
        L.AsymmetricGCE(1e-12, q=0.6).per_anchor(S, Y), L.CompSum(1.6).per_anchor(S, Y), tolerance=1e-8
    ),
    ("AsymmetricGCE", "q = 1: the mean absolute error 1 - p, CompSum(tau=2)"): _close(
        L.AsymmetricGCE(0.6, q=1.0).per_anchor(S, Y), L.CompSum(2.0).per_anchor(S, Y)
    ),
    ("AsymmetricUnhinged", "q = 1: the mean absolute error 1 - p, CompSum(tau=2)"): _close(
        L.AsymmetricUnhinged(3.0, q=1.0).per_anchor(S, Y), L.CompSum(2.0).per_anchor(S, Y)
    ),
    ("NormalizedCrossEntropy", "the mean over all labels: 1 / C"): _close(
        torch.stack([L.NormalizedCrossEntropy().per_anchor(S, Y * 0 + k) for k in range(5)]).mean(0),
        torch.full((8,), 1 / 5, dtype=torch.float64),
    ),
    ("ReverseCrossEntropy", "hard labels: -log_zero times CompSum(tau=2)"): _close(
        L.ReverseCrossEntropy(log_zero=-3.0).per_anchor(S, Y), 3 * L.CompSum(2.0).per_anchor(S, Y)
    ),
    ("SymmetricCrossEntropy", "beta = 0: CrossEntropy"): _close(
        L.SymmetricCrossEntropy(0.0)(S, Y), functional.cross_entropy(S, Y)
    ),
    ("SymmetricCrossEntropy", "beta = 1: ReverseCrossEntropy"): _close(
        L.SymmetricCrossEntropy(1.0)(S, Y), L.ReverseCrossEntropy(log_zero=-4.0)(S, Y)
    ),
    ("JensenShannon", "target_weight -> 0: CrossEntropy"): _close(
        L.JensenShannon(1e-7).per_anchor(S, Y), L.CrossEntropy().per_anchor(S, Y), tolerance=1e-4
    ),
    ("WeightedSum", "one part of weight 1: that part"): _close(
        L.WeightedSum([(1.0, L.LDRKL(2.0, margin=0.3))]).per_anchor(S, Y),
        L.LDRKL(2.0, margin=0.3).per_anchor(S, Y),
    ),
    ("WeightedSum", "weights that add up to 1 of one loss twice: that loss"): _close(
        L.WeightedSum([(0.3, L.CompSum(1.7)), (0.7, L.CompSum(1.7))]).per_anchor(S, Y),
        L.CompSum(1.7).per_anchor(S, Y),
    ),
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
        "CounterfactualPair",
        "one counterfactual an anchor: cross-entropy of the two scores",
    ): _close(
        L.CounterfactualPair(0.5)(S[:, :2], torch.zeros(8, dtype=torch.long)),
        functional.cross_entropy(2 * S[:, :2], torch.zeros(8, dtype=torch.long)),
    ),
    ("CounterfactualPair", "several of them: MannWhitney within rows"): _close(
        L.CounterfactualPair(0.5)(S, Y), L.MannWhitney(temperature=0.5, scope="row")(S, Y)
    ),
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
    ("AnyLoss", "F1, amplify = None: Dice, not squared, smoothing -> 0"): _close(
        L.AnyLoss("f1", amplify=None)(S, SETS), L.Dice(square=False, smoothing=1e-9)(S, SETS), tolerance=1e-5
    ),
    ("AnyLoss", "metric_share = 0, class_weight = None: BinaryCrossEntropy"): _close(
        L.AnyLoss(metric_share=0.0, class_weight=None)(S[:, 0], SETS[:, 0]),
        L.BinaryCrossEntropy()(S[:, :1], SETS[:, :1]),
    ),
    ("Dice", "square = False, smoothing -> 0: AnyLoss of F1, not amplified"): _close(
        L.Dice(square=False, smoothing=1e-9)(S, SETS), L.AnyLoss("f1", amplify=None)(S, SETS), tolerance=1e-5
    ),
    ("Tversky", "alpha = beta = 1/2: Dice of twice the smoothing, not squared"): _close(
        L.Tversky(0.5, 0.5, smoothing=0.7)(S, SETS), L.Dice(square=False, smoothing=1.4)(S, SETS)
    ),
    ("Tversky", "alpha = beta = 1, certain predictions, smoothing -> 0: 1 - Jaccard index"): _close(
        L.Tversky(1.0, 1.0, smoothing=1e-9)(CERTAIN, SETS),
        L.AnyLoss("jaccard", amplify=None)(CERTAIN, SETS),
        tolerance=1e-5,
    ),
    ("Cumulative", "two classes: CrossEntropy"): _close(
        L.Cumulative().per_anchor(S[:, :2], Y % 2),
        functional.cross_entropy(S[:, :2], Y % 2, reduction="none"),
    ),
    ("Cumulative", "scores of a nested head: the mean of BinaryCrossEntropy over its levels"): _close(
        *_over_levels()
    ),
    ("NestedDice", "two classes: Dice of the difference of their scores"): _close(
        L.NestedDice()(S[:, :2], Y % 2), L.Dice()(S[:, 1] - S[:, 0], (Y % 2).double())
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
    ("SSIM", "maps equal to their targets: 0"): _close(
        1 - L.SSIM(link="identity")(MASK, MASK), torch.ones((), dtype=torch.float64)
    ),
    ("SoftIoU", "maps of 0 and 1: 1 - TP / (TP + FP + FN)"): _close(
        L.SoftIoU(link="identity")(MASK.flip(3), MASK),
        1 - ((MASK * MASK.flip(3)).sum((1, 2, 3)) / (MASK + MASK.flip(3) > 0).sum((1, 2, 3))).mean(),
    ),
    ("HybridMask", "ssim = iou = 0: binary cross-entropy of places"): _close(
        L.HybridMask(ssim=0.0, iou=0.0)(MAPS, MASK), functional.binary_cross_entropy_with_logits(MAPS, MASK)
    ),
    ("HybridMask", "bce = ssim = 0: soft IoU"): _close(
        L.HybridMask(bce=0.0, ssim=0.0)(MAPS, MASK), L.SoftIoU(link="sigmoid")(MAPS, MASK)
    ),
    ("DeepSupervision", "one output of full size: the loss itself"): _close(
        L.DeepSupervision(L.HybridMask())({"a": MAPS}, MASK), L.HybridMask()(MAPS, MASK)
    ),
    ("MinOverHypotheses", "one hypothesis, base mse: the mean squared error"): _close(
        L.MinOverHypotheses(1)(S[:, None], HOT), functional.mse_loss(S, HOT)
    ),
    ("MinOverHypotheses", "one hypothesis, base ce: cross-entropy"): _close(
        L.MinOverHypotheses(1, base="ce")(S[:, None], Y), functional.cross_entropy(S, Y)
    ),
    ("MinOverHypotheses", "temperature large: the mean over hypotheses"): _close(
        L.MinOverHypotheses(5, temperature=1e9)(S[:, :, None], HOT[:, :1]),
        (S - HOT[:, :1]).square().mean(),
        1e-7,
    ),
    ("ForwardModelLoss", "generated_weight = 0: the mean absolute error of all parameters"): _close(
        L.ForwardModelLoss(torch.exp, generated_weight=0.0)({"a": S, "b": Z}, {"a": HOT, "b": Z.flip(0)}),
        torch.cat([S - HOT, Z - Z.flip(0)], 1).abs().mean(),
    ),
    ("PatchAdversarial", "features = 0, least squares, critic sure of all: one half"): _close(
        L.PatchAdversarial(features=0.0)([L.Patches(0 * MAPS, ())], [L.Patches(0 * MAPS + 1, ())]),
        torch.tensor(0.5, dtype=torch.float64),
    ),
}


BAGS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])
BAG_TARGETS = torch.softmax(S[:3].flip(1), 1)
BAG_MEANS = torch.stack([S[a == BAGS].mean(0) for a in range(3)])


def _spread_within_bags() -> Tensor:
    return torch.stack([S[a == BAGS].var(0, correction=0).sum() for a in range(3)]).mean()


def _bags_of_one_row() -> None:
    alone, soft = torch.arange(8), S.flip(0).softmax(1)
    for rho in (0.0, 0.4, 1.0):
        found = [L.Aggregated(base, rho=rho)(S, alone, soft) for base in ("squared_error", "cross_entropy")]
        _close(found[0], L.SquaredError()(S, soft))()
        _close(found[1], L.CrossEntropy()(S, soft))()


class _LettersInAnyOrder:
    """A decoder whose scores of labels depend on the last one alone."""

    num_labels = 5

    def start(self, state: Tensor) -> Tensor:
        return state

    def step(self, state: Tensor, memory: Tensor, previous: Tensor, emitted: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.cat([state, torch.ones_like(state[:, :1])], 1) * (1 + 0.3 * previous[:, None])
        scores[:, :5] = scores[:, :5].masked_fill(emitted, -torch.inf)
        return scores.log_softmax(1), memory


def _one_label_a_row() -> None:
    decoder, stop = _LettersInAnyOrder(), torch.full((8,), 5)
    first = decoder.step(S, S, stop, HOT.bool() & False)[0]
    last = decoder.step(S, S, Y, HOT.bool())[0]
    expected = functional.nll_loss(first, Y) + functional.nll_loss(last, stop)
    for strategy in ("sample", "greedy", "beam", "exact", "uniform"):
        _close(L.OrderSearch(strategy, warmup=0)(decoder, S, HOT), expected)()


def _best_of_all_orders() -> Pair:
    decoder, sets = _LettersInAnyOrder(), torch.tensor([[1.0, 0, 1, 0, 1]] * 8).double()
    orders = torch.tensor([[0, 2, 4], [0, 4, 2], [2, 0, 4], [2, 4, 0], [4, 0, 2], [4, 2, 0]])
    all_orders = torch.stack([L.order_log_prob(decoder, S, order.expand(8, -1)) for order in orders])
    return L.OrderSearch("beam", warmup=0, beam_width=6).per_anchor(decoder, S, sets), -all_orders.amax(0)


LIMITS |= {
    ("Aggregated", "bags of one row: SquaredError, or CrossEntropy"): _bags_of_one_row,
    ("Aggregated", "rho = 0: the base between a bag's target and its mean output"): _close(
        L.Aggregated(rho=0.0)(S, BAGS, BAG_TARGETS), L.SquaredError()(BAG_MEANS, BAG_TARGETS)
    ),
    (
        "Aggregated",
        "rho = 1, squared error: rho = 0 plus the mean variance of the scores of a bag",
    ): _close(
        L.Aggregated(rho=1.0)(S, BAGS, BAG_TARGETS),
        L.Aggregated(rho=0.0)(S, BAGS, BAG_TARGETS) + _spread_within_bags(),
    ),
    (
        "OrderSearch",
        "one label a row: its cross-entropy, then that of STOP, whatever the strategy",
    ): _one_label_a_row,
    ("OrderSearch", "beam as wide as there are orders: the best order"): _close(*_best_of_all_orders()),
}


def _orthonormal_is_zero() -> None:
    features = torch.eye(4, dtype=torch.float64)[LABELS]
    assert L.OrthogonalProjection()(features, LABELS).item() == 0.0
    assert L.OrthogonalProjection()(features, LABELS.roll(1)).item() > 0.1


LIMITS["OrthogonalProjection", "orthonormal class directions: 0"] = _orthonormal_is_zero


def _orthonormal_centres_are_zero() -> None:
    loss = L.PrototypeOrthogonalProjection(4, 4).double()
    with torch.no_grad():
        loss.centres.copy_(2 * torch.eye(4))
    features = torch.eye(4, dtype=torch.float64)[LABELS]
    assert loss(features, LABELS).item() == 0.0
    assert loss(features, LABELS.roll(1)).item() > 0.1


LIMITS["PrototypeOrthogonalProjection", "orthonormal centres, features on their own: 0"] = (
    _orthonormal_centres_are_zero
)


def _true_shares_cost_nothing() -> None:
    assert L.ConceptExplanation()(HOT, 3 * HOT).item() == 0.0
    assert L.ConceptExplanation()(HOT.roll(1, 1), HOT).item() > 0.1


LIMITS["ConceptExplanation", "shares equal to the concepts: 0"] = _true_shares_cost_nothing


def _one_concept_has_no_entropy() -> None:
    assert abs(L.AttributionEntropy()(HOT).item()) < 1e-7
    assert L.AttributionEntropy()(S.softmax(1)).item() > 0.1


LIMITS["AttributionEntropy", "all on one concept: 0"] = _one_concept_has_no_entropy


@pytest.mark.parametrize(("component", "limit"), list(LIMITS), ids=[f"{c}: {t}" for c, t in LIMITS])
def test_reduces_to(component: str, limit: str) -> None:
    LIMITS[component, limit]()


def test_every_limit_on_a_card_is_tested_and_no_other() -> None:
    assert set(LIMITS) == {(name, limit) for name, card in loss_cards().items() for limit in card.limits}
