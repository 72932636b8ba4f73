"""The references of counts, levels, maps, teachers and noisy labels agree with cases worked out by hand."""

import math
from functools import partial

import numpy as np
import pytest

from reference import (
    assistive,
    comp_sum,
    counts,
    cumulative,
    forward_model,
    hypotheses,
    maps,
    noise_peers,
    overlap,
)

LN2, LN3 = math.log(2.0), math.log(3.0)
# One column: p = 3/4, 1/2, 1/4 against 1, 1, 0, so TP = 5/4, FP = 1/4, FN = 3/4, TN = 3/4.
COLUMN = ([[LN3], [0.0], [-LN3]], [[1], [1], [0]], np.ones((3, 1), dtype=bool))
# A row with p = 1/2, 1/4, 1/4 and the first class as label.
EASY = ([[LN2, 0.0, 0.0]], [[1.0, 0.0, 0.0]], np.ones((1, 3), dtype=bool), None, None)


def test_adjusted_dice_of_a_batch_by_hand():
    # alpha = 1: v = 3/16, 4/16, 3/16. 2 * 7/16 + 1 over 10/16 + 2 + 1.
    paper = partial(overlap.dsc_batch, alpha=1.0, square=False)
    assert paper(*COLUMN, None) == pytest.approx(1 - 30 / 58)
    assert overlap.dsc_batch(*COLUMN, None, alpha=1.0) == pytest.approx(1 - 480 / 802)  # squares: 34/256 + 3
    assert paper(*COLUMN, [[2], [1], [1]]) == pytest.approx(1 - 36 / 77)  # 20/16 + 1 over 13/16 + 3 + 1
    unknown = (*COLUMN[:2], [[True], [True], [False]])
    assert paper(*unknown, None) == pytest.approx(1 - 30 / 55)  # 7/16 + 2 + 1
    for square in (True, False):  # alpha = 0 is the plain Dice loss
        plain = counts.dice(*COLUMN, None, square=square)
        assert overlap.dsc_batch(*COLUMN, None, square=square) == pytest.approx(plain)
    assert overlap.dsc_batch(COLUMN[0], [[0]] * 3, COLUMN[2], None) == 0.0


def test_hard_negatives_alone_are_kept_by_hand():
    # p = 3/4 is the positive; of 1/2 and 1/4 one is kept: 2 * 3/4 + 1 over 5/4 + 1 + 1.
    inputs = (COLUMN[0], [[1], [0], [0]], COLUMN[2], None)
    kept = partial(overlap.dsc_batch, *inputs, square=False)
    assert kept(ohem_ratio=1.0) == pytest.approx(1 - 2.5 / 3.25)
    assert kept(ohem_ratio=0.5) == pytest.approx(1 - 2.5 / 2.75)  # int(0.5) = 0 negatives
    assert kept(ohem_ratio=9.0) == kept() == pytest.approx(1 - 2.5 / 3.5)


def test_adjusted_dice_of_examples_by_hand():
    # v = 3/16, t = 1: 1 - 22/35; v = 1/4, t = 1: 1 - 1.5 / 2.25; v = 3/16, t = 0: 1 - 16/19.
    terms = [13 / 35, 1 / 3, 3 / 19]
    assert overlap.dsc_example(*COLUMN, None) == pytest.approx(sum(terms) / 3)
    weighted = overlap.dsc_example(*COLUMN, [[2], [1], [1]])
    assert weighted == pytest.approx((2 * terms[0] + terms[1] + terms[2]) / 4)
    # alpha = 0, squares, no smoothing: 1 - 1.5 / (9/16 + 1), 1 - 1 / (1/4 + 1), 1 - 0.
    sharp = overlap.dsc_example(*COLUMN, None, alpha=0.0, smoothing=0.0, square=True)
    assert sharp == pytest.approx((1 - 24 / 25 + 1 / 5 + 1) / 3)


def test_tversky_and_iou_by_hand():
    options = {"alpha": 0.25, "beta": 0.75}
    assert overlap.tversky_batch(*COLUMN, None, **options) == pytest.approx(1 - 2.25 / 2.875)
    # 1.75 / 1.9375, 1.5 / 1.875 and 1 / 1.0625.
    example = overlap.tversky_example(*COLUMN, None, **options)
    assert example == pytest.approx(1 - (28 / 31 + 0.8 + 16 / 17) / 3)
    assert overlap.soft_iou(*COLUMN, None) == pytest.approx(1 - 1.25 / 2.25)
    # Halves are Dice: smoothing g of Tversky is 2 g of Dice.
    halves = overlap.tversky_batch(*COLUMN, None, alpha=0.5, beta=0.5, smoothing=0.5)
    assert halves == pytest.approx(counts.dice(*COLUMN, None, square=False))


def test_columns_are_averaged_or_pooled_by_hand():
    # A second column with p = 1/2 three times and no positive adds FP = 3/2.
    wide = [np.hstack([np.asarray(x), np.zeros((3, 1))]) for x in COLUMN[:2]]
    wide = (*wide, np.ones((3, 2), dtype=bool), None)
    assert overlap.soft_iou(*wide) == pytest.approx(1 - 1.25 / 2.25)
    assert overlap.soft_iou(*wide, average="micro") == pytest.approx(1 - 1.25 / 3.75)
    # Items of the second column: 1 - 1 / 1.5 = 1/3 each at alpha = 0.
    first = overlap.dsc_example(*COLUMN, None, alpha=0.0)
    both = overlap.dsc_example(*wide, alpha=0.0, need_positive=False)
    assert both == pytest.approx((first + 1 / 3) / 2)
    assert overlap.dsc_example(*wide, alpha=0.0) == pytest.approx(first)
    # Softmax link: p = 1/2, 1/4, 1/4; only the first column has a positive.
    assert overlap.soft_iou(*EASY[:4], link="softmax") == pytest.approx(0.5)


def test_running_counts_by_hand():
    # Then p = 1/2 against 1, 0, 0: 1/2, 1, 1/2, 1. Half of 5/4, 1/4, 3/4 on top: 9/8 of 9/8 + 9/8 + 7/8.
    later = ([[0.0]] * 3, [[1], [0], [0]], COLUMN[2], None)
    running = partial(overlap.any_loss_running, [(*COLUMN, None), later], metric="jaccard", amplify=None)
    assert running(decay=0.5) == pytest.approx([1 - 1.25 / 2.25, 1 - 9 / 25], abs=1e-5)
    assert running(decay=0.0) == pytest.approx([1 - 1.25 / 2.25, 1 - 0.5 / 2], abs=1e-5)
    alone = counts.any_loss(*later, metric="jaccard")
    last = overlap.any_loss_running([later], metric="jaccard", decay=0.9)
    assert last == pytest.approx([alone])


def test_mixtures_by_hand():
    # n1 = 2, n0 = 1: ln(4/3) / 3, ln(2) / 3 and 2 ln(4/3) / 3. p (1 - p) = 3/16, 4/16, 3/16.
    mixed = partial(overlap.any_loss_mixture, *COLUMN, None, metric="jaccard", amplify=None)
    bce, quadratic = (math.log(4 / 3) + LN2 / 3) / 3, 10 / 48
    assert mixed(share=0.0) == pytest.approx(bce)
    assert mixed(share=0.25) == pytest.approx(0.75 * bce + 0.25 * (1 - 1.25 / 2.25), abs=1e-5)
    assert mixed(share=0.0, other="quadratic") == pytest.approx(quadratic)
    assert mixed(share=1.0, other="quadratic") == pytest.approx(1 - 1.25 / 2.25, abs=1e-5)


def test_cumulative_cross_entropy_by_hand():
    # f = 1/2, 1/4; the label 1 is at or above level 1 and below level 2.
    def loss(target, known=EASY[2], weight=None, **options):
        (value,) = cumulative.cumulative_cross_entropy(EASY[0], [target], known, weight, None, **options)
        return value

    up, down = LN2, math.log(4 / 3)
    assert loss([0, 1, 0]) == pytest.approx((up + down) / 2)
    assert loss([1, 0, 0]) == pytest.approx((LN2 + down) / 2)
    assert loss([0, 0, 1]) == pytest.approx((up + 2 * LN2) / 2)
    assert loss([0, 1, 0], level_weight=[1, 3]) == pytest.approx((up + 3 * down) / 2)
    assert loss([0, 1, 0], level_weight=[1, 3], divide="weights") == pytest.approx((up + 3 * down) / 4)
    between = (up + (2 * LN2 + down) / 2) / 2  # half of the mass at each of the classes 1 and 2
    assert loss([0, 1, 1]) == loss([0, 0.5, 0.5]) == pytest.approx(between)
    assert loss([0, 1, 1], normalised=False) == pytest.approx(2 * between)
    assert loss([1, 0, 0], known=[[True, False, True]]) == pytest.approx(math.log(1.5))  # p = 2/3, 1/3
    assert loss([1, 0, 0], known=[[False, True, True]]) == 0.0
    # Weight 2 on the last class: masses 2, 1, 2 of 5.
    assert loss([0, 1, 0], weight=[[1, 1, 2]]) == pytest.approx((math.log(5 / 3) + math.log(5 / 3)) / 2)


def test_nested_levels_by_hand():
    # z = ln 3 and -ln 3: f = 3/4, 1/4.
    thresholds, steepness = [-LN3 / 2, LN3 / 2], 2.0
    assert cumulative.nested_survival([0.0], thresholds, steepness)[0] == pytest.approx([0.75, 0.25])
    assert cumulative.nested_activation([0.0], thresholds, steepness) == pytest.approx([0.5])
    assert cumulative.nested_probabilities([0.0], thresholds, steepness)[0] == pytest.approx(
        [0.25, 0.5, 0.25]
    )
    logs = cumulative.nested_log_probabilities([0.0], thresholds, steepness)[0]
    assert logs == pytest.approx([-2 * LN2, -LN2, -2 * LN2])
    far = cumulative.nested_log_probabilities([100.0], [-0.5, 0.5], 10.0)[0]
    assert far[:2] == pytest.approx([-1005.0, -995.0 + math.log1p(-math.exp(-10))])
    assert cumulative.nested_levels([-1.0, 0.0, 1.0], thresholds) == [0, 1, 2]
    value = cumulative.nested_cumulative([0.0], [1], thresholds, steepness)
    assert value == pytest.approx([math.log(4 / 3)])
    value = cumulative.nested_cumulative([0.0], [2], thresholds, steepness, level_weight=[1, 3])
    assert value == pytest.approx([(math.log(4 / 3) + 6 * LN2) / 2])


def test_nested_dice_by_hand():
    # Level 1: f = 3/4 against 1, level 2: 1/4 against 0; with squares 1 - 2.5 / (25/16 + 1), 1 - 1 / (17/16).
    expected = 1 - 40 / 41 + 1 / 17
    assert cumulative.nested_dice([[0.75, 0.25]], [1]) == pytest.approx(expected)
    plain = cumulative.nested_dice([[0.75, 0.25]], [1], square=False, weight=[2.0])
    assert plain == pytest.approx(1 - 4 / 4.5 + 1 - 1 / 1.5)  # 2 * 1.5 + 1 over 3.5 + 1
    # The softmax 1/2, 1/4, 1/4 of label 1: f = 1/2, 1/4.
    rows = (EASY[0], [[0, 1, 0]], EASY[2], None)
    assert cumulative.cumulative_dice(*rows) == pytest.approx(1 - 2 / 2.25 + 1 / 17)


def test_ssim_by_hand():
    # Window 1/4, 1/2, 1/4. Means 1/2, 1/4, 0 and 1/4, 1/2, 1/4; nothing in common.
    sigma = 1 / math.sqrt(2 * LN2)
    assert maps.gaussian_window(3, sigma) == pytest.approx([0.25, 0.5, 0.25])
    both = 1.25 * 0.75 / (1.3125 * 1.4375)
    loose = partial(maps.ssim_map, window=3, sigma=sigma, c1=1.0, c2=1.0)
    value = loose([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    assert list(value) == pytest.approx([both, both, 1 / (1.0625 * 1.1875)])
    dot = np.zeros((3, 3))
    dot[1, 1] = 1.0  # mean 1/4, variance 3/16 in the middle; 1/16 and 15/256 in a corner
    value = loose(dot, np.zeros((3, 3)))
    assert value[1, 1] == pytest.approx(1 / (17 / 16 * 19 / 16))
    assert value[0, 2] == pytest.approx(1 / (257 / 256 * 271 / 256))
    assert maps.ssim_loss([dot], [dot]) == pytest.approx([0.0])


def test_map_losses_by_hand():
    # Sum S G = 1/2 of 3/2 + 1 - 1/2.
    assert maps.iou_loss([[0.5, 1.0]], [[1.0, 0.0]]) == [0.75]
    assert maps.iou_loss([[0.5, 1.0]], [[1.0, 0.0]], smoothing=1.0) == [0.5]
    assert maps.iou_loss_guarded([[0.5, 1.0]], [[1.0, 0.0]], guard=2.0) == [1 - 0.5 / 4]
    # S = 1/2: ln 2; with a window of one place 2 S G + c over S^2 + G^2 + c; 1/2 of 3/2.
    c = 1e-4
    bce, iou = LN2, 2 / 3
    ssim = 1 - ((1 + c) / (1.25 + c) + c / (0.25 + c)) / 2
    assert maps.pixel_loss([[0.0, 0.0]], [[1.0, 0.0]]) == pytest.approx([bce])
    value = maps.hybrid([[0.0, 0.0]], [[1.0, 0.0]], ssim=2.0, iou=3.0, window=1)
    assert value == pytest.approx([bce + 2 * ssim + 3 * iou])
    deep = maps.deep_supervision([[[0.0, 0.0]]] * 2, [[1.0, 0.0]], weights=[1, 2], window=1)
    assert deep == pytest.approx([3 * (bce + ssim + iou)])


def test_best_of_several_heads_by_hand():
    # Errors -1, 1, -2: losses 1, 1, 4.
    outputs, target = [[[1.0], [3.0], [0.0]]], [[2.0]]
    loss = partial(hypotheses.min_over_heads, outputs, target)
    assert loss() == [1.0]
    assert loss(relax=0.1) == pytest.approx([0.9 + 0.05 + 0.2])
    assert loss(temperature=3 / LN2) == pytest.approx([4 / 2.5])  # weights 1, 1, 1/2
    assert loss(multiplex=True) == [0.0]  # (1 + 3) / 2
    assert hypotheses.multiplexed(outputs).ravel().tolist() == [1.0, 2.0, 3.0, 0.5, 1.5, 0.0]
    assert hypotheses.win_counts(outputs, target) == [1, 0, 0]
    psnr = hypotheses.min_over_heads([[[0.1], [1.0]]], [[0.0]], base="psnr")
    assert psnr == pytest.approx([-20.0], abs=1e-5)
    ce = hypotheses.min_over_heads([[[LN2, 0.0, 0.0], [0.0, 0.0, 0.0]]], [[1.0, 0.0, 0.0]], base="ce")
    assert ce == pytest.approx([LN2])
    assert hypotheses.min_over_heads([[[1.0]]], [[3.0]], relax=0.5) == [4.0]


def test_renderer_by_hand():
    up = (0.0, 0.0, 1.0)
    # Head on with r = 1: D = 1 / pi, G = 1, F = F0.
    plain = forward_model.shade(up, [0.5], 0.0, 1.0, up, up)[0]
    assert plain == pytest.approx((0.5 * 0.96 + 0.04 / 4.0001) / math.pi)
    metal = forward_model.shade(up, [0.5], 1.0, 1.0, up, up, intensity=8.0, distance=2.0)[0]
    assert metal == pytest.approx(2 * 0.5 / 4.0001 / math.pi)
    # r^4 = 1/4: D = 1/4 / (pi (1/4)^2) = 4 / pi.
    glossy = forward_model.shade(up, [0.5], 1.0, math.sqrt(0.5), up, up)[0]
    assert glossy == pytest.approx(4 * 0.5 / 4.0001 / math.pi)
    # Light at 60 degrees, white metal, r = 1: G1(1/2) = 2/3, n.L = 1/2.
    aside = (math.sqrt(3.0), 0.0, 1.0)
    slant = forward_model.shade(up, [1.0], 1.0, 1.0, aside, up)[0]
    assert slant == pytest.approx(2 / 3 / 2.0001 / math.pi / 2)
    # Black plain surface: F = 0.04 + 0.96 (1 - cos 30)^5.
    rim = forward_model.shade(up, [0.0], 0.0, 1.0, aside, up)[0]
    fresnel = 0.04 + 0.96 * (1 - math.sqrt(3.0) / 2) ** 5
    assert rim == pytest.approx(fresnel * 2 / 3 / 2.0001 / math.pi / 2)
    assert forward_model.shade(up, [1.0], 0.0, 1.0, (0.0, 0.0, -1.0), aside) == [0.0]


def test_losses_after_rendering_by_hand():
    assert forward_model.log_l1([0.0, math.e - 1], [math.e - 1, math.e - 1]) == pytest.approx(0.5)
    assert forward_model.l1([0.0, 1.0], [2.0, 1.0]) == 1.0
    up = np.array([0.0, 0.0, 1.0]).reshape(3, 1, 1)
    maps_of = lambda b: (up, np.full((3, 1, 1), b), np.ones((1, 1)), np.ones((1, 1)))  # noqa: E731
    light = (0.0, 0.0, 1.0)
    value = forward_model.rendering_loss(
        maps_of(1.0), maps_of(0.0), [(light, light)], intensity=4.0001 * math.pi
    )
    assert value == pytest.approx(LN2)  # 1 against 0


def test_two_teachers_by_hand():
    # Truth 0, teacher 2 or -2: reflected to x's side; the band ends at 0.3.
    x, zero = [[3.0, 1.0, 0.2]], [[0.0, 0.0, 0.0]]
    loss = partial(assistive.assist_terms, beyond=1.9, between=-0.45)
    for teacher in ([[2.0, 2.0, 2.0]], [[-2.0, -2.0, -2.0]]):
        assert loss(x, zero, teacher).ravel().tolist() == pytest.approx([1.9, -0.45, 0.0])
    assert loss([[-3.0, -1.0, -0.2]], zero, [[2.0] * 3]).ravel().tolist() == pytest.approx([1.9, -0.45, 0.0])
    assert not loss(x, zero, zero).any()
    main = assistive.main_terms(x, zero, [[2.0] * 3]).ravel().tolist()
    assert main == pytest.approx([9 + 6 - 4, 3.0, 0.6])
    total = assistive.assistive_loss(x, zero, [[2.0] * 3], [[2.0] * 3])
    # 22 + 1.9 + 1.8; 6 - 0.45 - 0.4; 1.2.
    assert total == pytest.approx([(25.7 + 5.15 + 1.2) / 3])


def test_smoothed_shapes_by_hand():
    # Sums of squares 2 and 6, no product: the second coordinate has 3/4 of the variance, lambda = 6/2.
    shapes = [[1.0, 1.0], [-1.0, 1.0], [0.0, -2.0]]
    kept = assistive.shape_smooth(shapes, variance=0.75)
    assert kept == pytest.approx(np.array([[0.0, 1.0], [0.0, 1.0], [0.0, -2.0]]))
    assert assistive.shape_smooth(shapes, variance=0.9) == pytest.approx(np.array(shapes))
    limit = 0.5 * math.sqrt(3.0)
    cut = assistive.shape_smooth(shapes, variance=0.75, clip=0.5)
    assert cut == pytest.approx(np.array([[0.0, limit], [0.0, limit], [0.0, -limit]]))


NOISE = {
    "gce": (partial(noise_peers.generalised_cross_entropy, q=0.5), 2 * (1 - math.sqrt(0.5))),
    "truncated": (partial(noise_peers.truncated_gce, q=1.0, threshold=0.75), 0.25),
    "not truncated": (partial(noise_peers.truncated_gce, q=1.0, threshold=0.25), 0.5),
    "sce": (partial(noise_peers.symmetric_cross_entropy, share=0.25), 0.75 * LN2 + 0.5),
    "mae": (noise_peers.mean_absolute_error, 0.5),
    "nce": (noise_peers.normalised_cross_entropy, 0.2),  # 1 of 1 + 2 + 2
    "rce": (noise_peers.reverse_cross_entropy, 2 * math.log(10)),  # half of 4 ln 10
    "aul": (partial(noise_peers.asymmetric_unhinged, a=2.0, q=2.0), 0.625),  # (9/4 - 1) / 2
    "agce": (partial(noise_peers.asymmetric_gce, a=1.0, q=2.0), 0.875),  # (4 - 9/4) / 2
    "ael": (partial(noise_peers.asymmetric_exponential, a=2.0), math.exp(-0.25)),
    # m = 3/4, 1/8, 1/8: half of ln(4/3), half of (ln(2/3) + ln 2) / 2, over half of ln 2.
    "js": (partial(noise_peers.jensen_shannon, pi=0.5), 1.5 * math.log(4 / 3) / LN2),
    "apl": (
        partial(
            noise_peers.active_passive,
            active=noise_peers.normalised_cross_entropy,
            passive=noise_peers.mean_absolute_error,
            active_weight=2.0,
            passive_weight=8.0,
        ),
        4.4,
    ),
}


@pytest.mark.parametrize("name", NOISE)
def test_losses_for_wrong_labels_by_hand(name):
    loss, expected = NOISE[name]
    assert loss(*EASY) == pytest.approx([expected])
    scores, _, known, weight, margin = EASY
    assert loss(scores, [[0, 0, 0]], known, weight, margin) == [0.0]
    # A margin of ln 2 and an unknown third candidate: p = 1/2, 1/2. Of all, only NCE minds the other shares.
    shifted = loss(scores, [[1, 0, 0]], [[True, True, False]], None, [[LN2, 0, 0]])
    assert shifted == pytest.approx([{"nce": 0.5, "apl": 5.0}.get(name, expected)])


def test_jensen_shannon_of_several_views_and_its_ends():
    p = [0.5, 0.25, 0.25]
    expected = 1.5 * math.log(4 / 3) / LN2
    assert noise_peers.generalised_jensen_shannon([p], 0, weights=[0.5, 0.5]) == pytest.approx(expected)
    twice = noise_peers.generalised_jensen_shannon([p, p], 0, weights=[0.5, 0.25, 0.25])
    assert twice == pytest.approx(expected)
    # Views (1, 0) and (0, 1), weights 1/2, 1/4, 1/4: m = 3/4, 1/4.
    apart = noise_peers.generalised_jensen_shannon([[1, 0], [0, 1]], 0, weights=[0.5, 0.25, 0.25])
    assert apart == pytest.approx((0.75 * math.log(4 / 3) + 0.25 * math.log(4)) / (0.5 * LN2))
    assert noise_peers.jensen_shannon(*EASY, pi=1e-6) == pytest.approx([LN2], abs=1e-4)
    assert noise_peers.jensen_shannon(*EASY, pi=1 - 1e-9) == pytest.approx([0.5], abs=0.05)


def test_comp_sum_closed_forms_by_hand():
    half = [0.5, 0.5]
    assert [comp_sum.infimum(half, tau) for tau in (0.0, 1.0, 2.0)] == pytest.approx([1.0, LN2, 0.5])
    q = (0.5, 0.3, 0.15, 0.05)
    figures = {0.0: 2.48097, 0.5: 1.66003, 1.0: 1.14212, 1.5: 0.79170, 1.9: 0.55522}
    for tau, figure in figures.items():
        assert comp_sum.infimum(q, tau) == pytest.approx(figure, abs=1e-5)
    assert comp_sum.minimizability_gap(1.0, [half, [1.0, 0.0]], 2.0) == pytest.approx(0.75)
    assert comp_sum.recalibrated([2 / 3, 1 / 3], 0.0) == pytest.approx([0.8, 0.2])
    assert comp_sum.recalibrated([2 / 3, 1 / 3], 1.0) == pytest.approx([2 / 3, 1 / 3])
    assert comp_sum.phi(3.0, 0.5) == pytest.approx(2.0)


def test_comp_sum_transformation_by_hand():
    assert comp_sum.transformation(0.6, 0.0, 5) == pytest.approx(0.2)  # 1 - sqrt(1 - t^2)
    assert comp_sum.transformation(1.0, 1.0, 5) == pytest.approx(LN2)
    assert comp_sum.transformation(0.75, 1.5, 4) == pytest.approx(0.25)  # sqrt(1 + t^2) - 1 over 1/2 * 2
    assert comp_sum.transformation(0.6, 2.0, 4) == pytest.approx(0.15)
    for tau, value in {0.0: 0.2, 1.5: 0.25, 2.0: 0.15}.items():
        back = comp_sum.transformation_inverse(value, tau, 4)
        assert comp_sum.transformation(back, tau, 4) == pytest.approx(value)
    # Two classes: the value at a tie less the infimum at (1 + t) / 2.
    for tau in (0.5, 1.0, 1.5):
        tie = comp_sum.phi(1.0, tau)
        expected = tie - comp_sum.infimum([0.8, 0.2], tau)
        assert comp_sum.transformation(0.6, tau, 2) == pytest.approx(expected)


def test_smooth_adversarial_loss_by_hand():
    # Rows (1, -1), (1, 0): the squared singular value is the larger root of s^2 - 3 s + 1.
    golden = (1 + math.sqrt(5.0)) / 2
    weight = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert comp_sum.largest_stretch(weight, 0, 2.0) == pytest.approx(2 * golden)
    value = comp_sum.smooth_adversarial(
        weight, [0.0] * 3, [LN2, 0.0], 0, tau=1.0, rho=1.0, nu=0.5, radius=2.0
    )
    assert value == pytest.approx(LN2 + golden)  # u = 1/2 + 1/2
    value = comp_sum.smooth_adversarial(
        weight, [LN2, 0.0, 0.0], [0.0, 0.0], 0, tau=0.0, rho=0.5, nu=0.0, radius=2.0
    )
    assert value == pytest.approx(0.5)  # 1/4 + 1/4
