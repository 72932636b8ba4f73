"""The references agree with three-item cases worked out by hand, with special cases and with peers."""

import ast
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from reference import binary, contrastive, counts, features, ranking, robust, softmax, spherical, topk

LN2, LN3 = math.log(2.0), math.log(3.0)
EASY = ([[LN2, 0.0, 0.0]], [[1.0, 0.0, 0.0]])  # exp(scores) = 2, 1, 1, so p = 1/2, 1/4, 1/4
TWO_OF_THREE = ([[LN2, LN3, 0.0]], [[1.0, 1.0, 0.0]])  # exp(scores) = 2, 3, 1: two positives, one negative
PEAK = ([[2.0, -1.0, -1.0]], [[1.0, 0.0, 0.0]])  # mean 0, variance 2, sum 0, sum of squares 6
ALL_KNOWN = np.ones((1, 3), dtype=bool)


def value(loss, case, *, weight=None, margin=None, known=ALL_KNOWN, **options):
    """Evaluate the only row of a three-item case."""
    (number,) = loss(*case, known, weight, margin, **options)
    return number


def soft_info_nce(*inputs, **options):
    return contrastive.soft_info_nce(*inputs[:5], inputs[0], alpha=1.0, beta=1.0, t=1.0, floor=0.1, **options)


HAND = {
    # p of the positive is 1/2.
    "cross-entropy": (partial(softmax.cross_entropy), EASY, LN2),
    # Smoothed target 0.8, 0.1, 0.1 against -log p = ln 2, 2 ln 2, 2 ln 2.
    "cross-entropy, smoothed": (partial(softmax.cross_entropy, smoothing=0.3), EASY, 1.2 * LN2),
    "focal": (partial(softmax.focal, gamma=2.0), EASY, 0.25 * LN2),
    # u = 1/p - 1 = 1.
    "sum-exponential": (partial(softmax.comp_sum, tau=0.0), EASY, 1.0),
    "comp-sum 1": (partial(softmax.comp_sum, tau=1.0), EASY, LN2),
    "comp-sum 1.5": (partial(softmax.comp_sum, tau=1.5), EASY, 2.0 - math.sqrt(2.0)),
    "comp-sum 2": (partial(softmax.comp_sum, tau=2.0), EASY, 0.5),
    # p = 1/2, 3/4, 1/4; the answers are yes, no, yes: ln 2 + ln 4 + ln 4.
    "binary": (partial(binary.binary_cross_entropy), ([[0.0, LN3, -LN3]], [[1.0, 0.0, 1.0]]), 5 * LN2),
    # 1/4 * 1/2 * ln 2 + 3/4 * 3/4 * ln 4 + 1/4 * 3/4 * ln 4.
    "binary focal": (
        partial(binary.binary_focal, gamma=1.0, alpha=0.25),
        ([[0.0, LN3, -LN3]], [[1.0, 0.0, 1.0]]),
        1.625 * LN2,
    ),
    # z = 2 / sqrt(2) = b.
    "z-loss": (partial(spherical.z_loss, a=2.0, b=math.sqrt(2.0)), PEAK, LN2 / 2.0),
    # 6 - 2 * 2 + 1.
    "squared error": (partial(spherical.squared_error), PEAK, 3.0),
    # (4 + 1) / (6 + 3).
    "spherical softmax": (partial(spherical.spherical_softmax, eps=1.0), PEAK, math.log(9.0 / 5.0)),
    # h(2) = 5, h(-1) = 1/2: 5 / (3 + 0 + 3).
    "taylor softmax": (partial(spherical.taylor_softmax), PEAK, math.log(6.0 / 5.0)),
    # v = 0, -ln 2, -ln 2: (1 + 1/2 + 1/2) / 3; at lam = 1/2 (1 + 1/4 + 1/4) / 3; a margin ln 2 makes v = 0.
    "ldr": (partial(robust.ldr_kl, lam=1.0), EASY, math.log(2.0 / 3.0)),
    "ldr, cold": (partial(robust.ldr_kl, lam=0.5), EASY, -0.5 * LN2),
    "ldr, margin": (partial(robust.ldr_kl, lam=1.0, margin_c=LN2), EASY, 0.0),
    # 2 / 6 and 3 / 6.
    "infonce": (partial(contrastive.info_nce, temperature=1.0), TWO_OF_THREE, 0.5 * math.log(6.0)),
    # exp(score / 0.5) = 4, 9, 1 of 14.
    "infonce, cold": (
        partial(contrastive.info_nce, temperature=0.5),
        TWO_OF_THREE,
        math.log(14.0 / 6.0),
    ),
    "infonce, graded": (
        partial(contrastive.info_nce, temperature=1.0),
        ([[LN2, LN3, 0.0]], [[2.0, 1.0, 0.0]]),
        (2.0 * LN3 + LN2) / 3.0,
    ),
    "supcon": (partial(contrastive.sup_con, temperature=1.0), TWO_OF_THREE, 0.5 * math.log(6.0)),
    # 2 / (2 + 1) and 3 / (3 + 1): the other positive is in no denominator.
    "decoupled": (partial(contrastive.decoupled_softmax, temperature=1.0), TWO_OF_THREE, 0.5 * LN2),
    # Shares 1/2, 1/3 and 1/6 add up to 1; shares 5/6, 2/3 and 1/2 to 2.
    "soft top 1": (
        partial(topk.soft_top_k, k=1, sharpness=1.0),
        ([[7.0, 7.0 - LN2, 7.0 - math.log(5.0)]], [[1.0, 0.0, 0.0]]),
        LN2,
    ),
    "soft top 2": (
        partial(topk.soft_top_k, k=None, sharpness=2.0),
        ([[0.5 * math.log(5.0), 0.5 * LN2, 0.0]], [[1.0, 1.0, 0.0]]),
        0.5 * math.log(9.0 / 5.0),
    ),
    # Positive exp(-ln 2) = 1/2; negatives exp(0) + exp(2 ln 2) = 5. With the base at ln 2 and mining, whose
    # thresholds are 2 ln 2 -+ 0.1, the positive is exp(-2 ln 2) = 1/4 and the one negative kept exp(2 ln 2).
    "multi-similarity": (
        partial(contrastive.multi_similarity, alpha=1.0, beta=2.0, base=0.0),
        ([[LN2, 0.0, LN2]], [[1.0, 0.0, 0.0]]),
        math.log(1.5) + 0.5 * math.log(6.0),
    ),
    "multi-similarity, mined": (
        partial(contrastive.multi_similarity, alpha=2.0, beta=2.0, base=LN2, epsilon=0.1),
        ([[2 * LN2, LN2, 2 * LN2]], [[1.0, 0.0, 0.0]]),
        0.5 * math.log(1.25) + 0.5 * math.log(5.0),
    ),
    "multi-similarity, nothing kept": (
        partial(contrastive.multi_similarity, alpha=2.0, beta=2.0, base=0.5, epsilon=0.1),
        ([[1.0, 0.0, 0.5]], [[1.0, 0.0, 0.0]]),
        0.0,
    ),
    # lam = 3/4, 1/4 gives weights 1/2, 3/2: (2 + 1/2 * 3 + 3/2 * 1) / 2.
    "soft infonce": (soft_info_nce, ([[LN2, LN3, 0.0]], [[1.0, 0.0, 0.0]]), math.log(2.5)),
    # exp(grade) = 2, 1, 1 and the same for the scores: the entropy of 1/2, 1/4, 1/4.
    "listnet": (partial(ranking.list_net, temperature=2.0), ([[2 * LN2, 0, 0]], [[LN2, 0, 0]]), 1.5 * LN2),
}


@pytest.mark.parametrize("name", HAND)
def test_reference_gives_the_value_worked_out_by_hand(name):
    loss, case, expected = HAND[name]
    assert value(loss, case) == pytest.approx(expected, abs=1e-11)


def test_weight_margin_and_unknown_act_as_stated_on_cross_entropy_by_hand():
    loss = softmax.cross_entropy
    assert value(loss, EASY, weight=[[1, 3, 1]]) == pytest.approx(LN3)  # (2 + 3 + 1) / 2
    assert value(loss, EASY, weight=[[2, 1, 1]]) == pytest.approx(2 * LN3)  # twice log((4 + 1 + 1) / 2)
    assert value(loss, EASY, margin=[[LN2, 0, 0]]) == pytest.approx(LN3)  # exp(scores) = 1, 1, 1
    assert value(loss, EASY, known=[[True, True, False]]) == pytest.approx(math.log(1.5))
    assert value(loss, EASY, known=[[False, True, True]]) == 0.0


def test_weights_and_grades_act_on_the_spherical_family_by_hand():
    # Weighted mean 1.5, variance 2.25, z = 1; 2 * (9 + 1) + 1 + 1 = 22; h(3) = 8.5 and h(0) = 1: 17 + 1 + 1.
    case, weight = ([[3.0, 0.0, 0.0]], [[0.5, 0.0, 0.0]]), [[2.0, 1.0, 1.0]]
    assert value(spherical.z_loss, case, weight=weight, a=1.0, b=1.0) == pytest.approx(LN2)
    assert value(spherical.spherical_softmax, case, weight=weight, eps=1.0) == pytest.approx(math.log(2.2))
    assert value(spherical.taylor_softmax, case, weight=weight) == pytest.approx(math.log(19 / 8.5))
    assert value(spherical.squared_error, case, weight=weight) == 12.5
    case = (case[0], [[0.25, 0.0, 0.0]])  # half the grade is half of these losses
    assert value(spherical.spherical_softmax, case, weight=weight, eps=1.0) == pytest.approx(
        math.log(2.2) / 2
    )


def test_focal_factor_is_zero_where_a_light_positive_has_p_above_one():
    # Weight 1/4: p = 2 / (1/2 + 1) = 4/3. At weight 1 and gamma 1/2 it is sqrt(1/2) ln 2.
    assert (
        value(softmax.focal, ([[LN2, 0]], [[1, 0]]), known=[[True] * 2], weight=[[0.25, 1]], gamma=0.5) == 0.0
    )
    assert value(softmax.focal, EASY, gamma=0.5) == pytest.approx(math.sqrt(0.5) * LN2)


def test_positive_weights_are_divided_out_by_supcon_and_by_decoupled_softmax():
    weight = [[3.0, 1.0, 1.0]]  # supcon: sum 3 * 2 + 3 + 1 = 10; decoupled: the negative's sum stays 1
    expected = (3 * math.log(5.0) + math.log(10.0 / 3.0)) / 4
    assert value(contrastive.sup_con, TWO_OF_THREE, weight=weight, temperature=1.0) == pytest.approx(expected)
    expected = (3 * math.log(1.5) + math.log(4.0 / 3.0)) / 4
    decoupled = value(contrastive.decoupled_softmax, TWO_OF_THREE, weight=weight, temperature=1.0)
    assert decoupled == pytest.approx(expected)


def test_ens_loss_slopes_by_hand():
    # r = 1, 2, 1/2, so -r clipped is -1, -1, -1/2 ascending; the margin 2 gets -1/2 and the tail halves it.
    slopes = robust.ens_loss_coefficients([2.0, -1.0, 0.5], [0.0, LN2, -LN2], lam=0.0)
    assert slopes == pytest.approx([-0.250001, -1.000001, -1.000001])
    # lam = 1: r = 1 + z, cut at 0: 0, 1/2, 1.  lam = -1: r = 1 / (1 - z): 1/3, 1/2 and, at z = 2, infinite.
    slopes = robust.ens_loss_coefficients([0.0, -1.0, 0.5], [-2.0, -0.5, 0.0], lam=1.0)
    assert slopes == pytest.approx([-0.5 - 1e-6, -1.0 - 1e-6, -1e-6])
    slopes = robust.ens_loss_coefficients([0.0, -1.0, 0.5], [-2.0, -1.0, 2.0], lam=-1.0, clip=0.75)
    assert slopes == pytest.approx([-0.5 - 1e-6, -0.75 - 1e-6, -1 / 3 - 1e-6])
    # lam = 1/2: r = (1 + z/2)^2: 1/4, 9/16, 1.
    slopes = robust.ens_loss_coefficients([0.0, -1.0, 0.5], [-1.0, -0.5, 0.0], lam=0.5)
    assert slopes == pytest.approx([-9 / 16 - 1e-6, -1.0 - 1e-6, -0.25 - 1e-6])


def test_aldr_memory_step_by_hand():
    # p = 1/2, 1/4, 1/4 at lam = 1: KL = ln 3 - 1.5 ln 2 = 0.0588915; lam = 1 - 0.0588915 / (2 * 1.0986123).
    lam, loss = robust.aldr_kl_memory_step([LN2, 0, 0], [1, 0, 0], 1.0, lam0=1.0, alpha=2.0)
    assert lam == pytest.approx(0.9731973, abs=1e-7)
    assert loss == pytest.approx(lam * math.log((1 + 2 * 2 ** (-1 / lam)) / 3) - LN3 * (lam - 1) ** 2)


def test_aldr_keeps_its_lambda_without_a_positive_and_takes_lam0_for_a_single_candidate():
    options = {"lam0": 3.0, "alpha": 2.0}
    assert robust.aldr_kl_memory_step([LN2, 0, 0], [0, 0, 0], 1.7, **options) == (1.7, 0.0)
    alone = {"known_row": [True, False, False], **options}
    assert robust.aldr_kl_memory_step([LN2, 0, 0], [1, 0, 0], 1.7, **alone) == (3.0, 0.0)


def test_score_normalisation_of_aldr_divides_by_the_mean():
    # 3, -1, 2 have mean |.| 2: the loss is that of 1.5, -0.5, 1. Softplus of them, over its mean, likewise.
    scores, target = [[3.0, -1.0, 2.0]], [[1.0, 0.0, 0.0]]
    loss = partial(robust.aldr_kl, lam0=1.0, alpha=2.0, margin_c=0.1)
    plain = value(loss, ([[1.5, -0.5, 1.0]], target))
    assert value(loss, (scores, target), normalise="l1") == pytest.approx(plain)
    positive = np.log1p(np.exp(scores))
    plain = value(loss, (positive / positive.mean(), target))
    assert value(loss, (scores, target), normalise="softplus") == pytest.approx(plain)
    assert value(loss, (scores, target)) != pytest.approx(plain)


def test_mann_whitney_by_hand():
    inputs = ([[1.0, 0.0, 3.0]], [[1, 0, 0]], ALL_KNOWN)  # s_n - s_p = -1, 2
    loss = ranking.mann_whitney
    assert loss(*inputs, None, surrogate="hinge") == 1.5  # (0 + 3) / 2
    assert loss(*inputs, None, surrogate="square") == 4.5  # (0 + 9) / 2
    assert loss(*inputs, None) == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2)
    assert loss(*inputs, None, surrogate="hinge", temperature=2.0) == 1.25  # (0.5 + 2) / 2
    assert loss(*inputs, [[5, 1, 3]], surrogate="hinge") == 2.25  # (5 * 0 + 15 * 3) / 20
    square = ([[1.0, 0.0], [3.0, 5.0]], [[1, 0], [0, 1]], np.ones((2, 2), dtype=bool), None)
    by_scope = [loss(*square, surrogate="hinge", scope=s) for s in ("row", "column", "global")]
    assert by_scope == [0.0, 1.5, 0.75]  # differences -1; -2 | 2; -5 | -1, 2, -5, -2


def test_lambda_rank_by_hand():
    # Ranks 1, 2, 3 hold the grades 0, 2, 1: gains 0, 3, 1, discounts 1, d, 1/2 with d = 1 / log2(3).
    inputs = ([[1.0, 0.0, -1.0]], [[0, 2, 1]], ALL_KNOWN)
    d = 1 / math.log2(3)
    first, second, third = 3 * (1 - d), 1 * (1 - 0.5), 2 * (d - 0.5)
    ups = [math.log1p(math.exp(x)) for x in (1, 2, -1)]
    expected = (first * ups[0] + second * ups[1] + third * ups[2]) / (3 + d)
    assert ranking.lambda_rank(*inputs, top=3) == pytest.approx([expected])
    assert ranking.lambda_rank(*inputs, top=2) == pytest.approx([first * ups[0] / (3 + d)])
    assert ranking.lambda_rank([[1.0, 0.0, -1.0]], [[0, 0, 0]], ALL_KNOWN, top=3) == [0.0]


def test_count_losses_by_hand():
    # p = 3/4, 1/2, 1/4 against 1, 1, 0: TP = 5/4, FP = 1/4, FN = 3/4, TN = 3/4. Amplifying by 4 ln 3 keeps p.
    inputs = ([[LN3], [0.0], [-LN3]], [[1], [1], [0]], np.ones((3, 1), dtype=bool), None)
    expected = {"accuracy": 2 / 3, "f1": 2.5 / 3.5, "fbeta": 6.25 / 9.5, "gmean": math.sqrt(0.625 * 0.75)}
    expected |= {"bacc": 0.6875, "mcc": 0.75 / math.sqrt(4.5), "jaccard": 1.25 / 2.25}
    for metric, number in expected.items():
        for amplify in (None, 4 * LN3):
            loss = counts.any_loss(*inputs, metric=metric, amplify=amplify, beta=2.0)
            assert loss == pytest.approx(1 - number, abs=1e-5), metric
    assert counts.dice(*inputs, smoothing=1.0, square=False) == pytest.approx(1 - 3.5 / 4.5)
    assert counts.dice(*inputs, smoothing=1.0, square=True) == pytest.approx(1 - 3.5 / 3.875)
    empty = np.zeros((3, 1))  # a column without a positive: not in the macro mean, and in the micro counts
    wide = [np.hstack([np.asarray(x), empty]) for x in inputs[:2]]
    wide = (*wide, np.ones((3, 2), dtype=bool), None)
    assert counts.any_loss(*wide, metric="f1", amplify=None) == pytest.approx(1 - 2.5 / 3.5, abs=1e-5)
    micro = counts.any_loss(*wide, metric="f1", amplify=None, average="micro")  # FP grows by 3/2
    assert micro == pytest.approx(1 - 2.5 / 5, abs=1e-5)
    softened = ([[LN2, 0.0, 0.0]], [[1, 0, 0]], ALL_KNOWN, None)  # p = 1/2, 1/4, 1/4
    macro = counts.dice(*softened, smoothing=0.0, square=False, link="softmax")
    assert macro == pytest.approx(1 - 1 / 1.5)  # the first column alone has a positive
    micro = counts.dice(*softened, smoothing=0.0, square=False, link="softmax", average="micro")
    assert micro == pytest.approx(0.5)  # 1 - 2 * 1/2 / (1 + 1)


def test_guards_of_the_denominators_stand_where_stated():
    t = math.sqrt(1e-5)  # t * t is the guard
    both = partial(counts.confusion_metric, t, 0.0, 0.0, t)
    assert both(metric="gmean") == pytest.approx(math.sqrt(0.5))  # t^2 / (t^2 + t^2)
    assert both(metric="bacc") == pytest.approx(2 / 3)  # 2 t^2 / (2 t^2 + t^2)
    assert both(metric="mcc") == pytest.approx(0.5)  # t^2 / (t^2 + t^2)
    alone = partial(counts.confusion_metric, t * t, 0.0, 0.0, 0.0)
    assert alone(metric="f1") == pytest.approx(2 / 3)
    assert alone(metric="jaccard") == pytest.approx(0.5)
    # Cosines 1, 1 within and -1 four times between: 1 - 2 / (2 + 1e-6) - 4 / (4 + 1e-6).
    loss = features.orthogonal_projection([[1, 0], [2, 0], [-1, 0]], [0, 0, 1], gamma=1.0, neg="mean")
    assert loss + 1 == pytest.approx(5e-7 + 2.5e-7, rel=1e-5)


def test_orthogonal_projection_by_hand():
    # Cosines: 1/sqrt 2 within; -1/sqrt 5 and 1/sqrt 10 between.
    a, b = -1 / math.sqrt(5), 1 / math.sqrt(10)
    expected = {"abs_mean": -(a + b) / 2, "mean": (a + b) / 2, "mean_abs": (b - a) / 2, "mean_square": 0.15}
    for neg, term in expected.items():
        loss = features.orthogonal_projection([[1, 0], [2, 2], [-1, 2]], [0, 0, 1], gamma=0.5, neg=neg)
        assert loss == pytest.approx(1 - 1 / math.sqrt(2) + 0.5 * term, abs=2e-6), neg


def single_positive_case(seed):
    """Six rows of six candidates, the first of them positive."""
    shape = (6, 6)
    target = np.zeros(shape)
    target[:, 0] = 1.0
    return np.random.default_rng(seed).normal(size=shape), target, np.ones(shape, dtype=bool), None, None


def test_one_positive_a_row_makes_the_softmax_losses_one():
    inputs = single_positive_case(5)
    scores = inputs[0]
    expected = softmax.cross_entropy(*inputs)
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the peer here")
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert np.mean(expected) == pytest.approx(metrics.log_loss([0] * 6, p, labels=list(range(6))))
    for loss in (contrastive.info_nce, contrastive.sup_con, contrastive.decoupled_softmax):
        assert loss(*inputs, temperature=1.0) == pytest.approx(expected)
    options = {"beta": 1.0, "t": 1.0, "floor": 0.1}
    assert contrastive.soft_info_nce(*inputs, scores, alpha=0.0, **options) == pytest.approx(expected)
    assert contrastive.soft_info_nce(*inputs, scores, alpha=1.0, **options) != pytest.approx(
        expected, rel=1e-3
    )
    assert softmax.focal(*inputs, gamma=0.0) == pytest.approx(expected)
    shifted = [x + math.log(6) for x in robust.ldr_kl(*inputs, lam=1.0)]
    assert shifted == pytest.approx(expected)


def test_soft_info_nce_weights_average_to_one_keep_the_floor_and_are_one_for_a_single_negative():
    options = {"alpha": 1.0, "beta": 1.0, "t": 0.5}
    free = contrastive.soft_info_nce_weights([0.3, -1.0, 2.0, 0.1], floor=-math.inf, **options)
    assert np.mean(free) == pytest.approx(1.0)
    assert (
        min(free) < 0.1 == min(contrastive.soft_info_nce_weights([0.3, -1.0, 2.0, 0.1], floor=0.1, **options))
    )
    assert contrastive.soft_info_nce_weights([0.3], floor=0.1, **options) == [1.0]
    with pytest.raises(ValueError, match="number of negatives"):
        contrastive.soft_info_nce_weights([0.3, 0.2], alpha=2.0, beta=1.0, t=1.0, floor=0.1)


def test_limits_of_info_nce_and_ldr():
    inputs = single_positive_case(6)
    scores = inputs[0]
    hardest = [max(0.0, max(row[1:]) - row[0]) for row in scores]
    assert [1e-3 * x for x in contrastive.info_nce(*inputs, temperature=1e-3)] == pytest.approx(
        hardest, abs=1e-2
    )
    flat = [1e5 * (x - math.log(6)) for x in contrastive.info_nce(*inputs, temperature=1e5)]
    assert flat == pytest.approx([row.mean() - row[0] for row in scores], abs=1e-4)
    margins = [max(0.0, max(row[1:]) - row[0] + 0.5) for row in scores]
    assert max(margins) > 0.5
    assert robust.ldr_kl(*inputs, lam=1e-4, margin_c=0.5) == pytest.approx(margins, abs=1e-3)
    assert robust.ldr_kl(*inputs, lam=1e6) == pytest.approx([row.mean() - row[0] for row in scores], abs=1e-5)


def test_aldr_fixed_point_is_the_highest_point_of_the_grid_when_there_is_one_fixed_point():
    case = single_positive_case(7)
    options = {"lam0": 1.0, "alpha": 2.0, "margin_c": 0.1, "normalise": "softplus"}
    values = robust.aldr_kl(*case, **options)
    assert values == pytest.approx(robust.aldr_kl_grid(*case, **options), abs=1e-10)
    assert values != pytest.approx(robust.aldr_kl(*case, **options, iterations=0), abs=1e-4)


def test_aldr_fixed_point_can_miss_the_maximum_among_a_thousand_candidates():
    # One score 5.5 above 999 equal ones: stable fixed points at lam = 0.862 and, the maximum, at 0.521.
    case = (np.eye(1, 1000) * 5.5, np.eye(1, 1000), np.ones((1, 1000), dtype=bool), None, None)
    (reached,) = robust.aldr_kl(*case, lam0=1.0, alpha=2.0)
    (highest,) = robust.aldr_kl_grid(*case, lam0=1.0, alpha=2.0, points=100)
    assert highest - reached == pytest.approx(0.0617, abs=1e-3)


def test_comp_sum_infimum_over_scores_has_the_closed_form():
    q = np.array([[0.5, 0.3, 0.15, 0.05]])
    known = np.ones_like(q, dtype=bool)
    for tau, figure in {0.0: 2.48097, 0.5: 1.66003, 1.5: 0.79170, 1.9: 0.55522}.items():
        power = 1 / (2 - tau)
        closed = ((q**power).sum() ** (2 - tau) - 1) / (1 - tau)
        best = softmax.comp_sum(np.log(q) * power, q, known, None, None, tau=tau)[0]
        assert best == pytest.approx(closed) == pytest.approx(figure, abs=1e-5)
        nearby = softmax.comp_sum(np.log(q) * power + [[0.01, 0, 0, 0]], q, known, None, None, tau=tau)[0]
        assert nearby > best


def test_pair_and_count_losses_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the peer here")
    rng = np.random.default_rng(8)
    scores, target = rng.integers(-2, 3, size=(40, 1)).astype(float), rng.integers(0, 2, size=(40, 1))
    known = np.ones_like(target, dtype=bool)
    y, hard = target.ravel(), (scores.ravel() > 0).astype(int)
    auc = metrics.roc_auc_score(y, scores.ravel())
    step = ranking.mann_whitney(scores * 1e6, target, known, None, surrogate="logistic") / 1e6
    hinge = np.subtract.outer(scores[target == 0], scores[target == 1])
    assert step == pytest.approx(np.maximum(hinge, 0).mean(), abs=1e-5)
    assert ranking.mann_whitney(scores, target, known, None) / LN2 >= 1 - auc > 0.1
    saturated = np.where(hard[:, None] > 0, 1e3, -1e3)
    inputs = (saturated, target, known, None)
    peers = {"accuracy": metrics.accuracy_score, "f1": metrics.f1_score, "mcc": metrics.matthews_corrcoef}
    peers |= {"jaccard": metrics.jaccard_score, "bacc": metrics.balanced_accuracy_score}
    for metric, peer in peers.items():
        assert 1 - counts.any_loss(*inputs, metric=metric, amplify=None) == pytest.approx(
            peer(y, hard), abs=1e-5
        )
    f1 = metrics.f1_score(y, hard)
    assert 1 - counts.dice(*inputs, smoothing=0.0) == pytest.approx(f1)
    assert 1 - counts.any_loss(*inputs, metric="fbeta", amplify=33.0) == pytest.approx(f1, abs=1e-5)


def test_lambda_rank_weights_are_the_changes_of_ndcg_when_two_candidates_swap():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the peer here")
    rng = np.random.default_rng(9)
    scores, target = rng.normal(size=(1, 6)), np.array([[0, 3, 1, 0, 2, 1]])
    gains = 2.0**target - 1
    base, expected = metrics.ndcg_score(gains, scores), 0.0
    for i, j in [(i, j) for i in range(6) for j in range(6) if target[0, i] > target[0, j]]:
        swapped = scores.copy()
        swapped[0, [i, j]] = scores[0, [j, i]]
        change = abs(metrics.ndcg_score(gains, swapped) - base)
        expected += change * math.log1p(math.exp(scores[0, j] - scores[0, i]))
    assert ranking.lambda_rank(scores, target, np.ones_like(target), top=6) == pytest.approx([expected])
    assert expected > 0.1


def test_references_import_nothing_but_python_and_numpy():
    allowed = {"__future__", "math", "dataclasses", "numpy", "reference"}
    paths = sorted((Path(__file__).parent / "reference").glob("*.py"))
    assert len(paths) >= 9
    for path in paths:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
        assert {name.split(".")[0] for name in names} <= allowed, path.name
