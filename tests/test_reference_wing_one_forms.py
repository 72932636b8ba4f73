"""The references of bags, orders, attention and closed forms agree with cases worked out by hand."""

import math
from functools import partial

import numpy as np
import pytest

from reference import aggregated, attention, closed_forms, collapse, order

LN2, LN3 = math.log(2.0), math.log(3.0)
ALL_KNOWN = np.ones((1, 3), dtype=bool)


def test_bag_losses_by_hand():
    # Bags (1, 3) with the mean 1 and (5) with 5: 1 and 0; (0 + 4) / 2 and 0; variances 1 and 0.
    bags = ([1.0, 3.0, 5.0], [0, 0, 1], [1.0, 5.0])
    assert aggregated.bag_loss(*bags, base="mse") == 0.5
    assert aggregated.instance_loss(*bags, base="mse") == 1.0
    assert aggregated.within_bag_variance(*bags) == 0.5
    assert aggregated.interpolated_loss(*bags, base="mse", rho=0.25) == 0.625
    # p = 1/2, 1/4, 1/4 and 1/4, 1/2, 1/4 against 1/2, 1/2, 0; their mean is 3/8, 3/8, 1/4.
    bags = ([[LN2, 0.0, 0.0], [0.0, LN2, 0.0]], [0, 0], [[0.5, 0.5, 0.0]])
    assert aggregated.bag_loss(*bags, base="ce") == pytest.approx(math.log(8 / 3))
    assert aggregated.instance_loss(*bags, base="ce") == pytest.approx(1.5 * LN2)


def test_least_squares_of_bags_by_hand():
    bag = ([[1.0], [3.0]], [0, 0], [4.0])  # mean 2, within 1: 8 / 4 and 8 / (4 + 1)
    assert aggregated.linear_solution(*bag, rho=0.0) == pytest.approx([2.0])
    assert aggregated.linear_solution(*bag, rho=1.0) == pytest.approx([1.6])
    short = aggregated.linear_solution([[1.0, 1.0]], [0], [2.0], rho=0.0)
    assert short == pytest.approx([1.0, 1.0])


def steps_of_two(emitted):
    """P(a, b) = 1/2 * 1/2 and P(b, a) = 1/4 * 1."""
    table = {
        frozenset(): {"a": 0.5, "b": 0.25, ".": 0.25},
        frozenset("a"): {"a": 0.0, "b": 0.5, ".": 0.5},
        frozenset("b"): {"a": 1.0, "b": 0.0, ".": 0.0},
        frozenset("ab"): {"a": 0.0, "b": 0.0, ".": 0.5},
    }
    return table[emitted]


def test_order_losses_by_hand():
    assert sorted(order.orders([0, 1, 2])) == sorted(
        [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    )
    assert order.order_loss(steps_of_two, "ab") == pytest.approx(2 * LN2)
    assert order.exact_order_loss(steps_of_two, "ab") == pytest.approx(LN2)
    assert order.exact_order_loss(steps_of_two, "ab", stop=".") == pytest.approx(2 * LN2)
    assert order.order_posterior(steps_of_two, "ab") == pytest.approx(0.5)
    # Drawn among what remains: 1/2 of 3/4, though both orders are equally likely.
    assert order.sampled_order_probability(steps_of_two, "ab") == pytest.approx(2 / 3)
    assert order.sampled_order_probability(steps_of_two, "ba") == pytest.approx(1 / 3)
    assert order.greedy_order(steps_of_two, "ba") == ("a", "b")
    assert order.best_order(steps_of_two, "ba") == ("b", "a")


def test_recurrent_pooling_by_hand():
    zeros = ([[0.0, 0.0]] * 4, [[0.0]] * 4, [0.0] * 4)
    hidden, cell = order.lstm_cell([1.0, 1.0], [1.0], [1.0], *zeros, [0.0] * 4)
    assert (hidden, cell) == (pytest.approx([0.5 * math.tanh(0.5)]), pytest.approx([0.5]))  # gates at 1/2
    hidden, cell = order.lstm_cell([0.0] * 2, [0.0], [1.0], *zeros, [LN3, -LN3, 50.0, 0.0])
    assert cell == pytest.approx([0.25 + 0.75])  # forget 1/4 of 1, input 3/4 of 1
    assert hidden == pytest.approx([0.5 * math.tanh(1.0)])
    pool = order.set2set([[1.0], [3.0]], *zeros, [0.0] * 4, steps=1)
    assert pool == pytest.approx([0.0, 2.0])  # the mean
    assert order.set2set([[1.0], [3.0]], *zeros, [0.0] * 4, steps=0) == [0.0, 0.0]
    query = 0.5 * math.tanh(0.5)  # the bias of g far up: c = 1/2
    items = [[0.0], [LN3 / query], [7.0]]
    known = [True, True, False]
    pool = order.set2set(items, *zeros, [0.0, 0.0, 50.0, 0.0], steps=1, known=known)
    assert pool == pytest.approx([query, 0.75 * LN3 / query])


def test_label_attention_by_hand():
    # Energies 0 and ln 3: attention 1/4, 3/4 on the states 0 and 1.
    states, strength = [[0.0], [1.0]], LN3 / math.tanh(1.0)
    head = partial(attention.label_attention, states, w1=[[1.0]], b1=[0.0], w2=[[strength]], b2=[5.0])
    logits, shares = head(known=[True, True], out_weight=[[2.0]], out_bias=[1.0])
    assert (logits, shares[0]) == (pytest.approx([2.5]), pytest.approx([0.25, 0.75]))
    logits, shares = head(known=[True, False], out_weight=[[2.0]], out_bias=[1.0])
    assert (logits, shares) == ([1.0], [[1.0, 0.0]])
    logits, shares = attention.label_embedding_attention(
        states, [True, True], [[1.0]], [[strength]], [[2.0]], [1.0]
    )
    assert (logits, shares[0]) == (pytest.approx([2.5]), pytest.approx([0.25, 0.75]))


def test_margins_of_rare_labels_by_hand():
    assert attention.ldam_margins([16, 1, 0]) == [1.5, 3.0, 3.0]
    # Labels 0 and 1 shifted to 0; label 2 is a negative at ln 3, where softplus is ln 4.
    value = attention.multi_label_ldam(
        [[1.5, 3.0, LN3]], [[1, 1, 0]], ALL_KNOWN, [[1, 2, 1]], None, counts=[16, 1, 4]
    )
    assert value == pytest.approx([LN2 + 2 * LN2 + 2 * LN2])


def test_slot_attention_by_hand():
    # LN gives (1, -1) / n and its opposite, n^2 = 1 + 1e-5. Energies +-ln(3) / 2: attention 3/4, 1/4.
    square = 1 + 1e-5
    eye = np.eye(2)
    width = LN3 / (2 * math.sqrt(2.0)) * square
    gate = np.vstack([np.zeros((4, 2)), eye])  # only the candidate state reads the update
    gru = (gate, np.zeros((6, 2)), [0.0] * 6, [0.0] * 6)
    items = [[1.0, -1.0], [-1.0, 1.0]]
    slots, shares = attention.slot_attention_step(
        items, items, width * eye, math.sqrt(square) * eye, eye, gru
    )
    assert shares[0] == pytest.approx([0.75, 0.25], abs=1e-7)
    half = 0.5 * math.tanh(0.5) + 0.5  # the update is 3/4 - 1/4; both gates at 1/2
    assert np.asarray(slots) == pytest.approx(np.array([[half, -half], [-half, half]]), abs=1e-7)
    # r = 1/2 stands before the recurrent bias 2 of the candidate.
    state = attention.gru_cell([0.0], [1.0], [[0.0]] * 3, [[0.0]] * 3, [0.0] * 3, [0.0, 0.0, 2.0])
    assert state == pytest.approx([0.5 * math.tanh(1.0) + 0.5])
    assert attention.layer_norm([3.0, 1.0], [2.0, 2.0], [1.0, 0.0], guard=0.0) == [3.0, -2.0]


def test_cross_attention_by_hand():
    one = [[1.0]]
    logits, shares = attention.cross_attention(
        [[1.0]], [[0.0], [LN3]], one, one, one, [[2.0]], num_heads=1, biases=(None, None, None, [1.0])
    )
    assert shares[0] == pytest.approx([0.25, 0.75])
    assert logits[0] == pytest.approx([1.5 * LN3 + 1])
    eye = np.eye(2)  # the second head sees zeros: 1/2, 1/2
    inputs = ([[1.0, 1.0]], [[0.0, 0.0], [LN3, 0.0]], eye, eye, eye, eye)
    logits, shares = attention.cross_attention(*inputs, num_heads=2)
    assert shares[0] == pytest.approx([3 / 8, 5 / 8])
    assert logits[0] == pytest.approx([0.75 * LN3, 0.0])


def test_attribution_losses_and_set_pooling_by_hand():
    nan = math.nan
    shares, concepts = [[0.25, 0.75]] * 3, [[2.0, 2.0], [nan, 1.0], [0.0, 0.0]]
    assert attention.explanation_loss(shares, concepts) == pytest.approx(2 / 16)
    assert attention.explanation_loss(shares[:1], [[nan, nan]]) == 0.0
    assert attention.attribution_entropy([[0.5, 0.5], [1.0, 0.0]]) == pytest.approx(LN2 / 4, abs=1e-7)
    weight = [2 * LN3 / math.tanh(1.0)]  # times tanh(1) times 1/2
    pooled, shares = attention.gated_attention_pool([[0.0], [1.0]], [[1.0]], [[0.0]], weight)
    assert (pooled, shares) == (pytest.approx([0.75]), pytest.approx([0.25, 0.75]))
    pooled, shares = attention.attention_pool([[0.0], [LN3], [9.0]], [1.0], known=[True, True, False])
    assert (pooled, shares) == (pytest.approx([0.75 * LN3]), pytest.approx([0.25, 0.75, 0.0]))


def test_naive_bayes_by_hand():
    # Class 0: 0, 2; class 1: 5. Means 1, 5, variances 1, 0; v = 2/3.
    statistics = closed_forms.class_statistics([[0.0], [2.0], [5.0]], [0, 0, 1], 2)
    weight, bias = closed_forms.naive_bayes_linear(statistics, floor=0.0)
    assert weight.ravel().tolist() == pytest.approx([1.5, 7.5])
    assert bias == pytest.approx([math.log(2 / 3) - 0.75, math.log(1 / 3) - 18.75])
    _, bias = closed_forms.naive_bayes_linear(statistics, floor=0.0, prior="uniform")
    assert bias == pytest.approx([-LN2 - 0.75, -LN2 - 18.75])
    scores = closed_forms.naive_bayes_quadratic(statistics, [1.0], floor=1.0)  # v = 2, 1
    expected = [math.log(2 / 3) - 0.5 * math.log(4 * math.pi)]
    expected += [math.log(1 / 3) - 0.5 * (math.log(2 * math.pi) + 16)]
    assert scores == pytest.approx(expected)
    spread = closed_forms.class_statistics([[1.0, 0.0], [-1.0, 2 * math.sqrt(3.0)]], [0, 0], 1)  # 1, 3
    weight, _ = closed_forms.naive_bayes_linear(spread, floor=0.0, shrink=0.5)  # 1.5, 2.5
    assert weight[0, 1] == pytest.approx(math.sqrt(3.0) / 2.5)


def test_merged_blocks_by_hand():
    first = closed_forms.class_statistics([[0.0]], [0], 2)
    second = closed_forms.class_statistics([[2.0], [5.0]], [0, 1], 2)
    numbers, means, variances = closed_forms.merged_statistics(first, second)
    assert (numbers, means.ravel().tolist(), variances.ravel().tolist()) == ([2, 1], [1, 5], [1, 0])
    # The old example counts half: mean 4/3, variance (1/3) 4 / (3/2).
    numbers, means, variances = closed_forms.merged_statistics(first, second, keep=0.5)
    assert (numbers, means[0, 0], variances[0, 0]) == ([1.5, 1.0], pytest.approx(4 / 3), pytest.approx(8 / 9))


def test_decisions_of_least_distance_by_hand():
    # A path 0 - 1 - 2 whose ends were seen. Squares at (1/2, 1/2): 2, 1, 2.
    path = [[0, 1, 2], [2, 1, 0]]
    decide = closed_forms.frechet_decision
    assert decide([0.5, 0.5], path) == 1
    assert decide([0.5, 0.5], path, power=1.0) == 0  # all 1: the first
    assert decide([0.8, 0.2], path) == 0  # 0.8, 1, 3.2
    assert decide([0.8, 0.2], path, temperature=2.0) == 1  # (2/3, 1/3): 4/3, 1
    assert decide([0.5, 0.5], path, candidates=[0, 2]) == 0
    assert decide([0.2, 0.5, 0.3], 1 - np.eye(3)) == 1
    assert closed_forms.reachable_on_grid(path, steps=2) == [0, 1, 2]
    star = [[0, 9, 1, 1], [9, 0, 1, 1]]  # from both seen nodes, 2 and 3 are 1 away
    assert closed_forms.reachable_on_grid(star, steps=2) == [0, 1, 2, 3]
    assert closed_forms.reachable_on_grid([[0, 1]], steps=2) == [0]
    line = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    assert closed_forms.next_label(line, [0]) == 3
    assert closed_forms.next_label(line, [0, 3]) == 1
    assert closed_forms.next_label(line, [0, 1, 2, 3]) is None


def test_denoising_coefficients_by_hand():
    # 0, 1/4, 1/2: first r = 0; then r = 1/2 over 3/4.
    first, second = closed_forms.posterior_coefficients([0.0, 0.25, 0.5])
    assert first == pytest.approx((0.5, 0.0, 0.75))
    assert second == pytest.approx((math.sqrt(0.5) * 2 / 3, math.sqrt(0.5) * 2 / 3, 1 / 3))
    a, b, c = second
    assert a + b * math.sqrt(0.25) == pytest.approx(math.sqrt(0.5))
    assert b * b * 0.75 + c == pytest.approx(0.5)
    # SNR 0, 1/3, 1; two blocks.
    assert closed_forms.block_weights([0.0, 0.25, 0.5]) == pytest.approx([1 / 30, 2 / 30])


def test_logistic_steps_by_hand():
    rows, signs = [[1.0, 0.0], [-0.9, 0.3]], [1, 1]
    assert closed_forms.logistic_step([0.0, 0.0], rows, signs, 4.0) == pytest.approx([0.1, 0.3])
    assert closed_forms.normalised_logistic_step([0.0, 0.0], rows, signs, 4.0) == pytest.approx([0.2, 0.6])
    assert closed_forms.perceptron_step([0.0, 0.0], rows, signs) == pytest.approx([0.025, 0.075])
    assert closed_forms.perceptron_step([1.0, 0.0], rows, signs) == pytest.approx([1 - 0.45, 0.15])
    # Margins ln 3 and -ln 3: sigma 1/4, 3/4.
    moved = closed_forms.normalised_logistic_step([LN3], [[1.0], [-1.0]], [1, 1], 2.0)
    assert moved == pytest.approx([LN3 - 1.0])
    assert closed_forms.logistic_step([LN3], [[1.0], [1.0]], [1, -1], 2.0) == pytest.approx([LN3 - 0.5])
    errors = closed_forms.error_multiplier([[LN2, 0.0, 0.0]] * 2, [0, 1])  # 1/2, 3/4
    assert errors == pytest.approx(1.6)


def test_prototypes_weights_and_counterfactuals_by_hand():
    axes, half = [[2.0, 0.0], [0.0, 1.0]], 1 / math.sqrt(2.0)
    loss = closed_forms.orthogonal_prototypes
    assert loss([[3.0, 0.0]], [0], axes) == 0.0
    assert loss([[1.0, 1.0]], [0], axes) == pytest.approx((1 - half) / 2 + half)
    assert loss([[1.0, 1.0], [1.0, -1.0]], [0, 0], axes) == pytest.approx((1 - half) / 2)  # + and - cancel
    likelihood = closed_forms.cluster_likelihood
    assert likelihood([0, 0, -1]) == [1.0, 1.0, 1.0]
    assert likelihood([0, 0, -1], noise="single") == likelihood([0, 0, -1], noise="own") == [1.0, 1.0, 0.5]
    assert likelihood([4, 4, 4, 7, -1]) == pytest.approx([1, 1, 1, 1 / 3, 1 / 3])
    assert closed_forms.equity_weights([1.0, 0.5], floor=1.0, sharpness=2.0) == [0.5, 0.625]
    rescaled = closed_forms.equity_weights([1.0, 0.5], floor=1.0, sharpness=2.0, rescale=True)
    assert rescaled == pytest.approx([8 / 9, 10 / 9])
    pair = closed_forms.counterfactual_pair
    assert pair([[1.0, 0.0]], [[2.0, 0.0]], [[5.0, 0.0]]) == pytest.approx([LN2])
    value = pair([[1.0, 0.0]], [[2.0, 0.0]], [[-1.0, 0.0]], temperature=2 / LN3)
    assert value == pytest.approx([math.log(4 / 3)])  # softplus(-ln 3)


def test_kernels_of_wide_networks_by_hand():
    zero, one = closed_forms.arc_cosine_0, closed_forms.arc_cosine_1
    assert [zero(t) for t in (-1.0, 0.0, 1.0)] == pytest.approx([0.0, 0.5, 1.0])
    assert [one(t) for t in (-1.0, 0.0, 1.0)] == pytest.approx([0.0, 1 / math.pi, 1.0])
    kernel = closed_forms.hierarchical_kernel
    assert kernel([2.0, 0.0], [0.0, 3.0], patches=[2]) == pytest.approx(6 / math.pi)
    x, z = [1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]  # units at cosine 1 and 0
    mean = (1 + 1 / math.pi) / 2
    assert kernel(x, z, patches=[2]) == pytest.approx(mean)
    assert kernel(x, z, patches=[2, 2]) == pytest.approx(one(mean))
    # ntk: 2 and 1/pi at the first level.
    expected = one(mean) + (2 + 1 / math.pi) / 2 * zero(mean)
    assert kernel(x, z, patches=[2, 2], kind="ntk") == pytest.approx(expected)
    assert kernel(x, x, patches=[2, 2], kind="ntk") == pytest.approx(3.0)
    table = closed_forms.kernel_matrix([x, z], [x], patches=[2])
    assert table.ravel().tolist() == pytest.approx([1.0, mean])


def test_collapse_metrics_by_hand():
    # Class 0: 2, 0; class 1: -2. Means 1, -2, mean of all 0; within 2/3, between 5/2.
    features, labels = [[2.0], [0.0], [-2.0]], [0, 0, 1]
    found = collapse.neural_collapse(features, labels, [[1.0], [-1.0]])
    assert found["nc1"] == pytest.approx(2 / 15)
    assert found["nc4"] == 0.0
    assert found["gof"] == pytest.approx(8 / 25)  # 1, -2, -2, 4
    # [[1, -2], [-2, 4]] / 5 less [[1, -1], [-1, 1]] / 2, and less I / sqrt 2.
    assert found["nc2_etf"] == pytest.approx(math.sqrt(0.09 + 2 * 0.01 + 0.09))
    half = 1 / math.sqrt(2.0)
    assert found["nc2_of"] == pytest.approx(math.sqrt((0.2 - half) ** 2 + 2 * 0.16 + (0.8 - half) ** 2))
    # W C' = [[1, -2], [-1, 2]] / sqrt 10.
    a = 1 / math.sqrt(10.0)
    expected = math.sqrt(2 * (a - 0.5) ** 2 + 2 * (2 * a - 0.5) ** 2)
    assert found["nc3_etf"] == pytest.approx(expected)
    assert collapse.neural_collapse(features, labels, [[-1.0], [1.0]])["nc4"] == pytest.approx(2 / 3)
    assert collapse.neural_collapse(features, labels, [[0.0], [1.0]], [9.0, 0.0])["nc4"] == pytest.approx(
        1 / 3
    )


def test_exact_frames_have_no_distance():
    simplex = np.eye(3) - 1 / 3
    found = collapse.neural_collapse(simplex, [0, 1, 2], simplex)
    assert [found[k] for k in ("nc1", "nc2_etf", "nc3_etf", "nc4")] == pytest.approx([0.0] * 4, abs=1e-10)
    found = collapse.neural_collapse(np.eye(3), [0, 1, 2], np.eye(3))
    names = ("nc1", "nc2_etf", "nc2_of", "nc3_of", "nc4", "gof")
    assert [found[k] for k in names] == pytest.approx([0.0] * 6, abs=1e-10)


def test_predicted_collapse_by_hand():
    # One layer, N = 4, lam = 1/8: 1 - 4 / 8 / sqrt n; n = 1 gives 1/2, n = 3 gives 1 - 1 / (2 sqrt 3).
    small, large = collapse.predicted_collapse([1, 3], [1 / 8], 1 / 8)
    assert small["output"] == pytest.approx(0.5, abs=1e-6)
    assert large["output"] == pytest.approx(1 - 1 / math.sqrt(12.0), abs=1e-6)
    assert collapse.predicted_output_of_one_layer(1, 4, 1 / 8, 1 / 8) == 0.5
    assert (small["layers"][0], small["feature"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert collapse.predicted_output_of_one_layer(1, 4, 1 / 4, 1 / 4) == 0.0  # n = N^2 lam^2
    assert collapse.predicted_collapse([1, 3], [1 / 4], 1 / 4)[0]["collapsed"]
    sizes = (500, 100, 20, 5)
    one = collapse.predicted_collapse(sizes, [5e-3], 5e-3)
    assert [c["output"] for c in one] == pytest.approx([0.8602, 0.6875, 0.3012, 0.0], abs=1e-4)
    assert [c["layers"][0] for c in one] == pytest.approx([19.236, 6.875, 1.347, 0.0], abs=1e-3)
    one = collapse.predicted_collapse(sizes, [2e-3], 2e-3)
    assert [c["output"] for c in one] == pytest.approx([0.9441, 0.8750, 0.7205, 0.4410], abs=1e-4)
    two = collapse.predicted_collapse(sizes, [1e-3, 1e-3], 1e-3)
    assert [c["output"] for c in two] == pytest.approx([0.9900, 0.9707, 0.9125, 0.7664], abs=1e-4)
