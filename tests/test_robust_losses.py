"""Laws of losses for wrong labels, and of what is said of them: temperatures, infima, bounds."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from margins.diagnose import (
    comp_sum_infimum,
    consistency_transform,
    error_bound,
    minimizability_gap,
    noise_scores,
)
from margins.errors import MarginsError
from margins.evaluation import recalibrate_comp_sum
from margins.losses import (
    ALDRKL,
    LDRKL,
    ALDRKLMemory,
    AsymmetricGCE,
    BinaryCrossEntropy,
    CompSum,
    CrossEntropy,
    ErrorNormalized,
    JensenShannon,
    NormalizedCrossEntropy,
    ReverseCrossEntropy,
    SoftInfoNCE,
    SymmetricCrossEntropy,
    TruncatedGCE,
    WeightedSum,
)
from margins.targets import Targets
from reference import comp_sum, robust

DRAWS = torch.Generator().manual_seed(0)
S = 2 * torch.randn(8, 5, generator=DRAWS, dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 3, 4, 0, 2, 2])
SOFT = torch.rand(8, 5, generator=DRAWS, dtype=torch.float64).softmax(1)
Q = [0.5, 0.3, 0.15, 0.05]
INFIMA = {0.0: 2.48097, 0.5: 1.66003, 1.0: 1.14212, 1.5: 0.79170, 1.9: 0.55522}


def differences(scores: Tensor, labels: Tensor, margin: float) -> Tensor:
    own = scores.gather(1, labels[:, None])
    return scores - own + margin * (1 - functional.one_hot(labels, scores.shape[1]).to(scores))


# --- label-distributionally robust losses -----------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.3, 1.0, 10.0])
def test_ldr_is_the_largest_of_all_label_distributions(lam):
    v, num_classes = differences(S, Y, 0.2), S.shape[1]

    def penalised(p: Tensor) -> Tensor:
        return (p * v).sum(1) - lam * (torch.xlogy(p, p) + p * math.log(num_classes)).sum(1)

    found = LDRKL(lam, margin=0.2).per_anchor(S, Y)
    torch.testing.assert_close(found, penalised((v / lam).softmax(1)), rtol=1e-12, atol=1e-12)
    for seed in range(20):
        other = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(
            1
        )
        assert bool((penalised(other) < found).all())


def test_ldr_goes_from_the_hinge_to_the_mean_difference():
    v = differences(S, Y, 0.2)
    torch.testing.assert_close(LDRKL(1e-4, margin=0.2).per_anchor(S, Y), v.amax(1), rtol=0, atol=2e-4)
    torch.testing.assert_close(LDRKL(1e6, margin=0.2).per_anchor(S, Y), v.mean(1), rtol=0, atol=1e-5)
    assert (v.amax(1) - v.mean(1)).min() > 0.5, "vacuous: both ends are the same"


@pytest.mark.parametrize(("lam0", "alpha"), [(0.8, 2.0), (10.0, 2.0), (1.0, 3.0)])
def test_the_temperature_is_where_the_bracket_is_largest(lam0, alpha):
    options = {"lam0": lam0, "alpha": alpha, "margin_c": 0.1, "normalise": None}
    arrays = S.numpy(), np.eye(5)[Y.numpy()], np.ones((8, 5), bool), None, None
    loss = ALDRKL(lam0, alpha=alpha, margin=0.1, normalise=None, iterations=200)
    found = loss.per_anchor(S, Y).numpy()
    np.testing.assert_allclose(found, robust.aldr_kl_grid(*arrays, **options), rtol=1e-7)
    v = differences(S, Y, 0.1)
    lam = loss.temperatures(S, Y)
    assert bool((lam > lam0 * (1 - 1 / alpha)).all())
    assert bool((lam < lam0).all())
    grid = torch.linspace(1e-3 * lam0, 2 * lam0, 20_001, dtype=torch.float64)
    bracket = grid * (torch.logsumexp(v[:, None] / grid[:, None], 2) - math.log(5))
    bracket = bracket - alpha * math.log(5) / (2 * lam0) * (grid - lam0).square()
    torch.testing.assert_close(lam, grid[bracket.argmax(1)], rtol=0, atol=float(grid[1] - grid[0]))
    # The derivative of the bracket is -KL - (alpha log K / lam0) (lam - lam0), and 0 there.
    lam = lam.clone().requires_grad_()
    value = lam * (torch.logsumexp(v / lam[:, None], 1) - math.log(5))
    value = value - alpha * math.log(5) / (2 * lam0) * (lam - lam0).square()
    p = (v / lam.detach()[:, None]).softmax(1)
    divergence = (torch.xlogy(p, p) + p * math.log(5)).sum(1)
    stated = -divergence - alpha * math.log(5) / lam0 * (lam.detach() - lam0)
    (slope,) = torch.autograd.grad(value.sum(), lam)
    torch.testing.assert_close(slope, stated, rtol=1e-9, atol=1e-9)
    assert slope.abs().max() < 1e-8
    assert divergence.max() > 0.02, "vacuous: every prediction is uniform"


def test_temperatures_see_the_label_by_the_margin_alone():
    other = (Y + 1) % 5
    plain = ALDRKL(margin=0.0)
    torch.testing.assert_close(plain.temperatures(S, Y), plain.temperatures(S, other), rtol=1e-10, atol=0)
    wide = ALDRKL(margin=1.0)
    assert (wide.temperatures(S, Y) - wide.temperatures(S, other)).abs().max() > 1e-3
    flat = ALDRKL().temperatures(torch.stack([100 * S[0], torch.zeros(5).double()]), torch.tensor([0, 0]))
    assert flat[1] > flat[0] + 0.01


def test_temperatures_with_memory_are_one_step_on_and_leave_it_alone():
    memory = ALDRKLMemory(8, 3.0)
    memory.lam = torch.linspace(2.0, 3.0, 8, dtype=torch.float64)
    before = memory.lam.clone()
    found = memory.temperatures(S, Y, ids=torch.arange(8))
    assert torch.equal(memory.lam, before)
    memory(S, Y, ids=torch.arange(8))
    torch.testing.assert_close(found, memory.lam)
    assert (found - before).abs().max() > 1e-3


def test_a_row_that_does_not_count_has_the_first_temperature():
    found = ALDRKL(7.0).temperatures(S[:3], torch.tensor([0, -100, 2]))
    assert found[1] == 7.0
    assert found[0] != 7.0


# --- peers ------------------------------------------------------------------------------------------------


def test_truncated_rows_have_a_constant_loss_and_no_gradient():
    p = S.softmax(1)[torch.arange(8), Y]
    threshold = float(p.median())
    scores = S.clone().requires_grad_()
    found = TruncatedGCE(0.7, threshold=threshold).per_anchor(scores, Y)
    (grad,) = torch.autograd.grad(found.sum(), scores)
    is_cut = p < threshold
    assert 0 < int(is_cut.sum()) < 8
    torch.testing.assert_close(found[is_cut], ((1 - threshold**0.7) / 0.7 + 0 * p)[is_cut])
    assert bool((grad[is_cut] == 0).all())
    assert bool((grad[~is_cut].abs().amax(1) > 1e-3).all())


@pytest.mark.parametrize(
    ("loss", "total"),
    [
        (NormalizedCrossEntropy(), 1.0),
        (ReverseCrossEntropy(log_zero=-3.0), 12.0),
        (CompSum(2.0), 4.0),
        (AsymmetricGCE(0.5, q=1.0), 4.0),
    ],
    ids=["normalized", "reverse", "absolute error", "asymmetric at 1"],
)
def test_normalized_losses_add_up_to_a_constant_over_all_labels(loss, total):
    # The property that makes a loss's optimum the same under uniform label noise.
    added = torch.stack([loss.per_anchor(S, torch.full((8,), k)) for k in range(5)]).sum(0)
    torch.testing.assert_close(added, torch.full_like(added, total))


def test_cross_entropy_does_not_add_up_to_a_constant():
    added = torch.stack([CrossEntropy().per_anchor(S, torch.full((8,), k)) for k in range(5)]).sum(0)
    assert added.std() > 0.1


def test_jensen_shannon_is_zero_exactly_where_distributions_agree():
    loss = JensenShannon(0.3)
    agree = loss.per_anchor(SOFT.log() + 5.0, SOFT)
    assert agree.abs().max() < 1e-12
    scores = (SOFT.log() + 5.0).requires_grad_()
    (grad,) = torch.autograd.grad(loss(scores, SOFT), scores)
    assert grad.abs().max() < 1e-9
    assert loss.per_anchor(S, SOFT).min() > 1e-3


def test_jensen_shannon_of_soft_targets_is_its_definition():
    p, weight = S.softmax(1), 0.3
    m = weight * SOFT + (1 - weight) * p
    divergence = weight * (SOFT * (SOFT / m).log()).sum(1) + (1 - weight) * (p * (p / m).log()).sum(1)
    expected = divergence / -((1 - weight) * math.log(1 - weight))
    torch.testing.assert_close(JensenShannon(weight).per_anchor(S, SOFT), expected)


def test_jensen_shannon_comes_near_the_absolute_error_as_its_weight_comes_near_one():
    exact = CompSum(2.0).per_anchor(S, Y)
    gaps = [(JensenShannon(1 - rest).per_anchor(S, Y) - exact).abs().max() for rest in (1e-2, 1e-6, 1e-12)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.05


def test_reverse_cross_entropy_of_soft_targets_is_its_definition():
    grades = torch.where(SOFT > 0.2, SOFT, 0.0)
    expected = -(S.softmax(1) * grades.clamp(min=1e-4).log()).sum(1)
    torch.testing.assert_close(ReverseCrossEntropy().per_anchor(S, grades), expected)
    both = SymmetricCrossEntropy(0.4, log_zero=math.log(1e-4)).per_anchor(S, grades)
    torch.testing.assert_close(both, 0.6 * CrossEntropy().per_anchor(S, grades) + 0.4 * expected)


def test_smoothed_targets_are_read_by_losses_of_distributions():
    targets = Targets.of_classes(Y, 5).smooth(0.2)
    grades = 0.8 * functional.one_hot(Y, 5).double() + 0.04
    for loss in (ReverseCrossEntropy(), NormalizedCrossEntropy(), JensenShannon(0.4)):
        torch.testing.assert_close(loss.per_anchor(S, targets), loss.per_anchor(S, grades))


def test_a_single_candidate_has_a_normalized_loss_of_one_and_no_gradient():
    scores = torch.randn(3, 1, dtype=torch.float64).requires_grad_()
    found = NormalizedCrossEntropy().per_anchor(scores, torch.zeros(3, dtype=torch.long))
    (grad,) = torch.autograd.grad(found.sum(), scores)
    assert bool((found == 1).all())
    assert bool((grad == 0).all())


def test_a_weighted_sum_has_the_value_and_the_gradient_of_its_parts():
    # One part repeats a stage, two have row values of the same names.
    parts = [
        (1.5, CompSum(1.3)),
        (0.5, LDRKL(2.0, margin=0.1)),
        (0.2, NormalizedCrossEntropy()),
        (2.0, CompSum(1.8)),
    ]
    scores = S.clone().requires_grad_()
    found = WeightedSum(parts)(scores, Y)
    expected = sum(weight * loss(scores, Y) for weight, loss in parts)
    torch.testing.assert_close(found, expected)
    (grad,), (wanted,) = (torch.autograd.grad(value, scores) for value in (found, expected))
    torch.testing.assert_close(grad, wanted)
    assert wanted.abs().max() > 1e-2
    nested = WeightedSum([(2.0, WeightedSum(parts)), (1.0, CrossEntropy())])
    torch.testing.assert_close(nested(S, Y), 2 * found.detach() + CrossEntropy()(S, Y))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WeightedSum([]), "parts"),
        (lambda: WeightedSum([(1.0, ALDRKL())]), "parts[0]"),
        (lambda: WeightedSum([(1.0, CrossEntropy()), (1.0, BinaryCrossEntropy())]), "parts[1]"),
        (lambda: WeightedSum([(1.0, SoftInfoNCE())]), "parts[0]"),
        (lambda: WeightedSum([(-1.0, CrossEntropy())]), "parts[0][0]"),
        (lambda: TruncatedGCE(threshold=1.0), "threshold"),
        (lambda: ReverseCrossEntropy(log_zero=0.0), "log_zero"),
        (lambda: JensenShannon(1.0), "target_weight"),
        (lambda: JensenShannon()(S, 2 * SOFT), "targets"),
        (lambda: ReverseCrossEntropy()(S, 9 * SOFT), "targets"),
        (lambda: ErrorNormalized(CrossEntropy(reduction="none")), "loss"),
        (lambda: noise_scores(torch.ones(3), torch.ones(3) > 0), "is_wrong"),
        (lambda: noise_scores(torch.full((2,), torch.nan), torch.tensor([True, False])), "score"),
        (lambda: comp_sum_infimum(torch.ones(2, 2), tau=1.0), "label_distribution"),
        (lambda: comp_sum_infimum(SOFT, tau=2.5), "tau"),
        (lambda: minimizability_gap(CompSum(1.0), SOFT, best_in_class=0.0), "best_in_class"),
        (lambda: consistency_transform(1.5, tau=1.0, num_classes=2), "error_excess"),
        (lambda: error_bound(-0.1, tau=1.0, num_classes=2), "loss_excess"),
        (lambda: recalibrate_comp_sum(SOFT, tau=2.0), "tau"),
        (lambda: recalibrate_comp_sum(-SOFT, tau=1.0), "probabilities"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(make, words):
    with pytest.raises(MarginsError) as raised:
        make()
    assert raised.value.argument == words


# --- noise scores -----------------------------------------------------------------------------------------


def test_noise_scores_count_pairs_as_loops_do():
    score = torch.tensor([0.1, 0.4, 0.4, 0.7, 0.2, 0.4])
    wrong = torch.tensor([False, True, False, True, False, True])
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in score[wrong].tolist()
        for b in score[~wrong].tolist()
    ]
    found = noise_scores(score, wrong, num_bins=3)
    assert found.auroc == pytest.approx(sum(pairs) / len(pairs))
    np.testing.assert_allclose(found.edges, [0.1, 0.3, 0.5, 0.7], rtol=1e-6)
    np.testing.assert_allclose(found.wrong, [0, 2 / 3, 1 / 3])
    np.testing.assert_allclose(found.right, [2 / 3, 1 / 3, 0])
    assert (found.wrong_mean, found.right_mean) == pytest.approx((0.5, 0.7 / 3))


def test_the_loss_of_a_row_finds_wrong_labels_and_its_temperature_hardly():
    data = load_digits()
    x, y = torch.tensor(data.data[:900] / 16, dtype=torch.float32), torch.tensor(data.target[:900])
    draws = torch.Generator().manual_seed(1000)
    wrong = torch.rand(900, generator=draws) < 0.3
    given = torch.where(wrong, (y + 1) % 10, y)
    torch.manual_seed(0)
    network, loss = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), ALDRKL()
    steps = torch.optim.SGD(network.parameters(), 0.2, momentum=0.9)
    for _ in range(10):
        for rows in torch.randperm(900, generator=draws).split(64):
            steps.zero_grad()
            functional.cross_entropy(network(x[rows]), given[rows]).backward()
            steps.step()
    scores = network(x).detach()
    by_loss = noise_scores(loss.per_anchor(scores, given), wrong)
    by_temperature = noise_scores(loss.temperatures(scores, given), wrong)
    assert by_loss.auroc > 0.8
    assert by_temperature.auroc < by_loss.auroc - 0.15
    assert by_loss.wrong_mean > by_loss.right_mean


# --- comp-sum losses: infima, bounds, recalibration -------------------------------------------------------


def minimised(q: Tensor, tau: float) -> tuple[float, Tensor]:
    """The least expected loss that L-BFGS finds, and where."""
    scores = torch.zeros(1, q.shape[1], dtype=torch.float64, requires_grad=True)
    loss = CompSum(tau)
    steps = torch.optim.LBFGS(
        [scores], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        steps.zero_grad()
        value = loss(scores, q)
        value.backward()
        return value

    steps.step(closure)
    found = scores.detach()
    return float(loss(found, q)), found


@pytest.mark.parametrize("tau", INFIMA)
def test_the_infimum_is_what_a_minimiser_finds(tau):
    q = torch.tensor([Q], dtype=torch.float64)
    found = float(comp_sum_infimum(q, tau=tau))
    assert found == pytest.approx(INFIMA[tau], abs=5e-6)
    assert found == pytest.approx(comp_sum.infimum(Q, tau), abs=1e-12)
    assert found == pytest.approx(minimised(q, tau)[0], abs=1e-9)


def test_the_infimum_is_smooth_in_tau_and_zero_without_doubt():
    q = torch.tensor([Q, [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    for tau in (1.0, 2.0):
        near = comp_sum_infimum(q, tau=tau - 1e-7)
        torch.testing.assert_close(comp_sum_infimum(q, tau=tau), near, rtol=0, atol=1e-6)
    for tau in (0.0, 0.5, 1.0, 1.5, 2.0):
        assert comp_sum_infimum(q, tau=tau)[1] == 0


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.5])
def test_the_gap_of_a_model_that_can_say_anything_is_zero(tau):
    q = SOFT
    best = (q.log() / (2 - tau)) if tau != 1 else q.log()
    free = float(CompSum(tau)(best, q))
    assert minimizability_gap(CompSum(tau), q, best_in_class=free) == pytest.approx(0.0, abs=1e-9)
    blind = minimised(q.mean(0, keepdim=True), tau)[0]  # a model that sees no input
    gap = minimizability_gap(CompSum(tau), q, best_in_class=blind)
    assert gap > 1e-3
    if tau == 1:  # the mutual information of input and label
        expected = (q * (q / q.mean(0)).log()).sum(1).mean()
        assert gap == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.3, 1.9, 2.0])
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_the_bound_inverts_the_transform_and_holds_on_random_problems(tau, num_classes):
    for t in (0.0, 0.2, 0.7, 1.0):
        value = consistency_transform(t, tau=tau, num_classes=num_classes)
        assert value == pytest.approx(comp_sum.transformation(t, tau, num_classes), abs=1e-12)
        assert error_bound(value, tau=tau, num_classes=num_classes) == pytest.approx(t, abs=1e-6)
    draws = torch.Generator().manual_seed(num_classes)
    shape = (4000, num_classes)
    sharp = 3 * torch.rand(4000, 1, generator=draws, dtype=torch.float64)
    q = (sharp * torch.randn(shape, generator=draws, dtype=torch.float64)).softmax(1)
    scores = q.log() + torch.randn(shape, generator=draws, dtype=torch.float64)
    errors = q.amax(1) - q.gather(1, scores.argmax(1)[:, None])[:, 0]
    excess = CompSum(tau).per_anchor(scores, q) - comp_sum_infimum(q, tau=tau)
    least = torch.tensor([consistency_transform(float(e), tau=tau, num_classes=num_classes) for e in errors])
    assert errors.max() > 0.3, "vacuous: no errors"
    assert bool((excess >= least - 1e-9).all())


def test_the_bound_is_tight_for_two_classes_without_a_decision():
    # Nearly equal scores decide for the rarer class: the cheapest way to be wrong.
    q = torch.tensor([[0.7, 0.3]], dtype=torch.float64)
    for tau in (0.0, 1.0):
        excess = float(CompSum(tau)(torch.zeros(1, 2).double(), q) - comp_sum_infimum(q, tau=tau)[0])
        assert excess == pytest.approx(consistency_transform(0.4, tau=tau, num_classes=2), abs=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.7])
def test_recalibration_gives_back_the_shares_that_labels_have(tau):
    q = torch.tensor([Q], dtype=torch.float64)
    trained = minimised(q, tau)[1].softmax(1)
    found = recalibrate_comp_sum(trained, tau=tau)
    torch.testing.assert_close(found, q, rtol=0, atol=1e-5)
    assert tau == 1 or (trained - q).abs().max() > 0.01
    expected = [comp_sum.recalibrated(row, tau) for row in SOFT.tolist()]
    np.testing.assert_allclose(recalibrate_comp_sum(SOFT.numpy(), tau=tau), expected, rtol=1e-12)


def test_recalibration_keeps_type_decisions_and_certain_rows():
    given = torch.tensor([[1.0, 0.0], [1e-30, 1e-30], [0.2, 0.8]])
    found = recalibrate_comp_sum(given, tau=0.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:2], torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert found[2].argmax() == 1
    assert isinstance(recalibrate_comp_sum(given.numpy(), tau=0.0), np.ndarray)
