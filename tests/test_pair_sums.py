"""Pair sums: every method gives the sums over all pairs at any range of scores, and holds no matrix."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from harness.blockwise import LargestTensor
from margins.engine.pairs import direct, multipole
from margins.engine.pairs.functions import STEP, SURROGATES, Asymptote, PairFunction, Smooth
from margins.engine.pairs.sums import PairSums, methods_of, pair_sums
from margins.errors import MarginsError, OnceDifferentiableError
from margins.losses import MannWhitney
from reference.pairs import pair_sum

FUNCTIONS = {**SURROGATES, "step": STEP}
FAST = {name: methods_of(function)[1] for name, function in FUNCTIONS.items()}
BOTH = [(name, method) for name in FUNCTIONS for method in (FAST[name], "direct")]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}

# How the scores lie, from standard normal ones and a mask of positives, in units of the temperature.
RANGES = {
    "moderate": lambda z, _: z,
    "narrow": lambda z, _: z * 1e-4,
    "tens": lambda z, _: z * 30,
    "1e4 wide": lambda z, _: z * 1e4,
    "1e9 wide": lambda z, _: z * 1e9,
    "1e17 wide": lambda z, _: z * 1e17,
    "all equal": lambda z, _: torch.full_like(z, 0.3),
    "heavy ties": lambda z, _: (z * 2).round(),
    "far from zero": lambda z, _: z + 1e7,
    "two clusters": lambda z, _: z + torch.where(z.roll(1, 1) > 0, 0.0, 1e6),
    "well ordered": lambda z, positive: 0.3 * z + 25.0 * positive,
    "ordered by far": lambda z, positive: 0.3 * z + 300.0 * positive,
    "wrong by far": lambda z, positive: 0.3 * z - 300.0 * positive,
}


def evaluated(scores, positive, weight, **options):
    """Values and the gradient of their sum; no gradient for the step."""
    scores = scores.detach().clone().requires_grad_()
    found = pair_sums(scores, positive, weight, **options)
    gradient = torch.zeros_like(scores)
    if found.values.requires_grad:
        (gradient,) = torch.autograd.grad(found.values.sum(), scores)
    return found.values.detach(), gradient


def off(found, exact):
    """Largest error relative to the largest entry; what is exactly zero, in the dtype found, must be so."""
    exact = exact.to(found.dtype).double()
    largest = exact.abs().max()
    error = (found.double() - exact).abs().max()
    return float(error / largest) if largest > 0 else float("inf" if error > 0 else 0)


def made(seed=0, rows=2, items=300, share=0.2, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, items, generator=rng, dtype=torch.float64)
    positive = torch.rand(rows, items, generator=rng) < share
    weight = torch.rand(rows, items, generator=rng) * (torch.rand(rows, items, generator=rng) < 0.9)
    return normal.to(dtype), positive, weight.to(dtype)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", RANGES)
def test_fast_methods_equal_all_pairs_whatever_the_range(kind, dtype, name):
    normal, positive, weight = made(dtype=dtype)
    # Pairs just at the kink of the hinge have two slopes: their ties must be exact.
    for temperature in (1.0, 2**-4, 2**-13, 32.0) if kind == "heavy ties" else (1.0, 0.07, 1e-4, 30.0):
        scores = (RANGES[kind](normal.double(), positive) * temperature).to(dtype)
        options = {"surrogate": FUNCTIONS[name], "temperature": temperature}
        found = evaluated(scores, positive, weight, method=FAST[name], **options)
        exact = evaluated(scores.double(), positive, weight.double(), method="direct", **options)
        for a, b in zip(found, exact, strict=True):
            assert off(a, b) <= TOLERANCE[dtype], temperature
        assert exact[0].abs().max() > 0 or "ordered" in kind or name == "linear", "vacuous: no costs"


def test_the_accuracy_law_would_see_a_small_error():
    exact = torch.tensor([1.0, 1e-3], dtype=torch.float64)
    assert off(exact + torch.tensor([0.0, 2e-9]), exact) > TOLERANCE[torch.float64]
    assert off(torch.tensor([1e-30]), torch.tensor([0.0], dtype=torch.float64)) == math.inf


@pytest.mark.parametrize(("name", "method"), BOTH)
def test_every_method_equals_two_loops_on_problems_of_any_shape(name, method):
    rng = np.random.default_rng(0)
    largest = 0.0
    for trial in range(40):
        rows, items = int(rng.integers(1, 4)), int(rng.integers(1, 14))
        scores = rng.normal(size=(rows, items)) * 10.0 ** rng.integers(-2, 4)
        scores = np.round(scores) if trial % 3 == 0 else scores
        positive, weight = rng.random((rows, items)) < rng.random(), rng.random((rows, items)).round(1)
        temperature = float(rng.choice([0.25, 1.0, 8.0]))
        found = evaluated(
            torch.tensor(scores), torch.tensor(positive), torch.tensor(weight),
            surrogate=FUNCTIONS[name], temperature=temperature, method=method,
        )  # fmt: skip
        exact = [
            pair_sum(*row, function=name, temperature=temperature)
            for row in zip(scores, positive, weight, strict=True)
        ]
        values, gradients = (torch.tensor(x, dtype=torch.float64) for x in zip(*exact, strict=True))
        assert off(found[0], values) <= 1e-9
        assert off(found[1], gradients) <= 1e-9
        largest = max(largest, float(values.abs().max()))
    assert largest > 1, "vacuous: nothing but zeros"


@pytest.mark.parametrize(("name", "method"), [case for case in BOTH if case[0] != "step"])
def test_gradients_are_finite_differences_under_any_upstream(name, method):
    normal, positive, weight = made(items=9, share=0.4)
    upstream = torch.tensor([1.7, -0.4], dtype=torch.float64)

    def function(scores):
        return pair_sums(scores, positive, weight, surrogate=name, temperature=0.6, method=method).values

    scores = (3 * normal).requires_grad_()
    assert torch.autograd.gradcheck(function, (scores,), fast_mode=True)
    (gradient,) = torch.autograd.grad(function(scores) @ upstream, scores)
    (plain,) = torch.autograd.grad(function(scores).sum(), scores)
    torch.testing.assert_close(gradient, upstream[:, None] * plain)
    assert plain.abs().max() > 0.01, "vacuous: no gradient"


@pytest.mark.parametrize(("name", "method"), BOTH)
def test_a_weight_is_a_repetition(name, method):
    scores, positive, _ = made(rows=1, items=40)
    times = torch.arange(40) % 4
    repeated = [x[0].repeat_interleave(times)[None] for x in (scores, positive)]
    options = {"surrogate": FUNCTIONS[name], "method": method}
    weighted = pair_sums(scores, positive, times[None].double(), **options)
    written_out = pair_sums(*repeated, **options)
    plain = pair_sums(scores, positive, **options)
    torch.testing.assert_close(weighted.values, written_out.values, rtol=1e-9, atol=0)
    torch.testing.assert_close(weighted.pairs, written_out.pairs)
    assert (weighted.values - plain.values).abs() > 1, "vacuous: the weights change nothing"


@pytest.mark.parametrize(("name", "method"), BOTH)
def test_items_may_be_permuted_and_scores_shifted(name, method):
    normal, positive, weight = made()
    scores = (normal * 1024).round() / 64  # so that a shift by a whole number is exact
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    options = {"surrogate": FUNCTIONS[name], "method": method}
    values, gradient = evaluated(scores, positive, weight, **options)
    moved = evaluated(scores[:, order] + 4096, positive[:, order], weight[:, order], **options)
    torch.testing.assert_close(moved[0], values, rtol=1e-9, atol=0)
    torch.testing.assert_close(moved[1], gradient[:, order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "method"), BOTH)
def test_groups_of_any_size_equal_separate_calls(name, method):
    sizes, ids = (1, 3, 4, 5, 70, 2, 33), torch.tensor([7, -2, 5, 0, 3, 100, 4])
    rng = torch.Generator().manual_seed(2)
    groups = ids.repeat_interleave(torch.tensor(sizes))[torch.randperm(sum(sizes), generator=rng)]
    scores, positive, weight = made(rows=1, items=sum(sizes), share=0.4)
    options = {"surrogate": FUNCTIONS[name], "temperature": 0.5, "method": method}
    found = pair_sums(scores, positive, weight, groups=groups, **options)
    _, gradient = evaluated(scores, positive, weight, groups=groups, **options)
    for place, group in enumerate(ids.sort().values):
        own = groups == group
        alone = [x[:, own] for x in (scores, positive, weight)]
        value, slope = evaluated(*alone, **options)
        torch.testing.assert_close(found.values[place], value[0], rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(gradient[:, own], slope, rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(found.pairs[place], pair_sums(*alone, **options).pairs[0])
    assert (found.values > 0.1).sum() >= 3 or name == "linear", "vacuous: groups without pairs"


def test_groups_keep_their_upstream_gradients():
    scores, positive, weight = made(rows=1, items=30, share=0.5)
    groups = torch.arange(30) % 3
    scores.requires_grad_()
    values = pair_sums(scores, positive, weight, groups=groups, surrogate="logistic").values
    (whole,) = torch.autograd.grad(values.sum(), scores, retain_graph=True)
    (scaled,) = torch.autograd.grad(values @ torch.tensor([1.0, -2.0, 0.5]).double(), scores)
    torch.testing.assert_close(scaled, whole * torch.tensor([1.0, -2.0, 0.5]).double()[groups])


def test_the_step_is_the_area_over_the_roc_curve_with_ties_one_half():
    normal, positive, weight = made(rows=1, items=500)
    for scores in (normal, (2 * normal).round(), torch.zeros_like(normal)):
        found = pair_sums(scores, positive, weight, surrogate=STEP, method="sorted")
        area = roc_auc_score(positive[0], scores[0], sample_weight=weight[0])
        assert float(found.values / found.pairs) == pytest.approx(1 - area, abs=1e-12)
    tied = pair_sums(torch.zeros(1, 2), torch.tensor([[True, False]]), surrogate=STEP, method="sorted")
    assert tied.values.item() == 0.5


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_method_holds_the_pairs(name):
    num = 3000
    scores, positive, weight = made(rows=1, items=num, share=0.5, dtype=torch.float32)
    num_pairs = int(positive.sum()) * int((~positive).sum())

    def largest(run):
        with LargestTensor() as seen:
            run()
        return seen.elements

    seen = largest(lambda: scores[0][~positive[0]][:, None] - scores[0][positive[0]])
    assert seen >= num_pairs, "vacuous: the watcher does not see the pairs"
    for spread in (1.0, 1e5, 1e9):
        for method in (FAST[name], "direct"):
            options = {"surrogate": FUNCTIONS[name], "method": method}
            pair_sums(scores * spread, positive, weight, **options)  # plans are made once
            seen = largest(lambda s=spread, o=options: evaluated(s * scores, positive, weight, **o))
            assert seen < num_pairs / 2, (spread, method)


@pytest.mark.parametrize(("name", "method"), BOTH)
def test_without_a_pair_the_sum_is_an_exact_zero_on_the_graph(name, method):
    scores = torch.tensor([[1.0, -2.0, 3.0]] * 4, dtype=torch.float64)
    positive = torch.tensor([[True] * 3, [False] * 3, [True, False, False], [False, True, True]])
    weight = torch.ones(4, 3, dtype=torch.float64)
    weight[2, 1:], weight[3] = 0, 0
    values, gradient = evaluated(scores, positive, weight, surrogate=FUNCTIONS[name], method=method)
    assert (values == 0).all()
    assert (gradient == 0).all()
    for shape in ((0, 3), (2, 0)):
        empty = torch.zeros(shape, dtype=torch.float64)
        options = {"surrogate": FUNCTIONS[name], "method": method}
        values, gradient = evaluated(empty, empty.bool(), empty, **options)
        assert values.tolist() == [0.0] * shape[0]
        assert gradient.shape == shape


@pytest.mark.parametrize(("name", "method"), BOTH)
def test_inputs_are_left_alone(name, method):
    for spread in (1.0, 1e6):  # kept in place, and sorted
        given = made()
        given = (given[0] * spread, *given[1:])
        before = [x.clone() for x in given]
        pair_sums(*given, surrogate=FUNCTIONS[name], method=method)  # `evaluated` would hand over a copy
        assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_other_layouts_of_memory_give_the_same():
    normal, positive, weight = made(rows=40, items=30)
    for name, method in BOTH:
        options = {"surrogate": FUNCTIONS[name], "method": method}
        rows = evaluated(normal.T.contiguous(), positive.T.contiguous(), weight.T.contiguous(), **options)
        views = evaluated(normal.T, positive.T, weight.T, **options)
        for a, b in zip(rows, views, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spread", [1.0, 100.0, 1e6])
def test_the_size_of_the_parts_changes_nothing(monkeypatch, spread):
    normal, positive, weight = made(rows=3, items=200)
    options = {"surrogate": "logistic"}
    for method, module, names in (
        ("multipole", multipole, ("_PART", "_WINDOW_ELEMENTS")),
        ("direct", direct, ("_BLOCK_ELEMENTS",)),
    ):
        whole = evaluated(spread * normal, positive, weight, method=method, **options)
        for size in (70, 450):  # pieces of rows, and some rows at once
            for name in names:
                monkeypatch.setattr(module, name, size)
            parts = evaluated(spread * normal, positive, weight, method=method, **options)
            for a, b in zip(parts, whole, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_what_auto_runs_is_told_and_follows_the_number_of_pairs():
    def ways(rows, items, num_positive, name):
        scores = torch.randn(rows, items)
        positive = (torch.arange(items) < num_positive).expand(rows, -1)
        return pair_sums(scores, positive, surrogate=FUNCTIONS[name]).methods

    assert ways(1, 10_000, 1000, "logistic") == ("multipole",)
    assert ways(1, 10_000, 1000, "hinge") == ("sorted",)
    assert ways(1, 10_000, 1000, "step") == ("sorted",)
    assert ways(1, 10, 5, "square") == ("moments",)
    assert ways(50, 2000, 1, "logistic") == ways(50, 2000, 1, "hinge") == ("direct",)
    scores, positive, _ = made(rows=1, items=4100, share=0.5)
    groups = (torch.arange(4100) - 4000).clamp(min=0)
    assert pair_sums(scores, positive, surrogate="logistic", groups=groups).methods == ("direct", "multipole")


def _sigmoid_slope(x):
    return torch.sigmoid(x) * torch.sigmoid(-x)


@cache
def sigmoid_function():
    return Smooth(
        torch.sigmoid,
        _sigmoid_slope,
        left=Asymptote(tails=(1.0, -1.0, 1.0)),
        right=Asymptote(constant=1.0, tails=(-1.0, 1.0, -1.0)),
    )


def test_any_smooth_function_with_asymptotes_is_summed_in_boxes():
    normal, positive, weight = made()
    for spread in (1.0, 40.0, 1e4):
        found, exact = (
            evaluated(normal * spread, positive, weight, surrogate=sigmoid_function(), method=method)
            for method in ("multipole", "direct")
        )
        assert off(found[0], exact[0]) <= 1e-9
        assert off(found[1], exact[1]) <= 1e-9


def test_any_function_is_summed_over_all_pairs():
    cubic = PairFunction(lambda x: x**3, lambda x: 3 * x**2)
    scores, positive, weight = made(items=20)
    found = pair_sums(scores, positive, weight, surrogate=cubic)
    assert found.methods == ("direct",)
    with pytest.raises(MarginsError, match="method: expected one of"):
        pair_sums(scores, positive, weight, surrogate=cubic, method="multipole")


def test_a_smooth_function_with_wrong_asymptotes_or_a_kink_is_refused():
    logistic = SURROGATES["logistic"]
    scores, positive, weight = made(items=20)
    wrong = Smooth(logistic.value, logistic.slope, left=Asymptote(constant=1e-3), right=logistic.right)
    with pytest.raises(MarginsError, match="asymptotes"):
        pair_sums(scores, positive, weight, surrogate=wrong, method="multipole")
    kinked = Smooth(SURROGATES["hinge"].value, SURROGATES["hinge"].slope, right=Asymptote(1.0, 1.0))
    with pytest.raises(MarginsError, match="smooth"):
        pair_sums(scores, positive, weight, surrogate=kinked, method="multipole")


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda s: s.index_fill(1, torch.tensor(1), math.nan), {}, "scores: expected finite"),
        (lambda s: s.index_fill(1, torch.tensor(1), math.inf), {}, "scores: expected finite"),
        (lambda s: s * 1e300, {"temperature": 1e-30, "method": "multipole"}, "raise the temperature"),
        (lambda s: s, {"method": "sorted"}, "method: expected one of"),
        (lambda s: s, {"weight": torch.full((1, 20), -1.0).double()}, "weight: expected numbers >= 0"),
        (lambda s: s, {"groups": torch.arange(3)}, r"groups: expected \[items\]"),
    ],
)
def test_what_cannot_be_summed_is_refused_by_name(change, options, words):
    scores, positive, _ = made(rows=1, items=20)
    with pytest.raises(MarginsError, match=words):
        pair_sums(change(scores), positive, surrogate="logistic", **options)


def test_a_second_derivative_is_refused():
    scores, positive, weight = made(items=20)
    for name in SURROGATES:
        values = pair_sums(scores.requires_grad_(), positive, weight, surrogate=name).values
        with pytest.raises(OnceDifferentiableError):
            torch.autograd.grad(values.sum(), scores, create_graph=True)


def test_without_a_gradient_the_values_are_the_same():
    scores, positive, weight = made()
    for name, method in BOTH:
        options = {"surrogate": FUNCTIONS[name], "method": method}
        found: PairSums = pair_sums(scores, positive, weight, **options)
        torch.testing.assert_close(found.values, evaluated(scores, positive, weight, **options)[0])


def test_the_logistic_loss_over_log_two_bounds_one_minus_the_area():
    scores, positive, _ = made(rows=1, items=400, dtype=torch.float32)
    for spread in (0.1, 1.0, 10.0):
        loss = MannWhitney(method="multipole")(spread * scores[0], positive[0].long())
        step = pair_sums(scores, positive, surrogate=STEP)
        assert float(loss) / math.log(2) > float(step.values / step.pairs) > 0.3


def test_a_loss_of_groups_is_the_mean_of_its_queries():
    scores, positive, _ = made(rows=1, items=60, share=0.4)
    scores, labels, queries = scores[0], positive[0].long(), torch.arange(60) % 4
    loss = MannWhitney("squared_hinge", scope="row")
    each = torch.stack(
        [loss(scores[queries == q][None], labels[queries == q][None].double()) for q in range(4)]
    )
    torch.testing.assert_close(loss(scores, labels, groups=queries), each.mean())
    none = MannWhitney("squared_hinge", scope="row", reduction="none")
    torch.testing.assert_close(none(scores, labels, groups=queries), each)
    assert each.std() > 0.01, "vacuous: the queries are alike"
    with pytest.raises(MarginsError, match=r'groups: .* scope="row"'):
        MannWhitney()(scores, labels, groups=queries)
    with pytest.raises(MarginsError, match=r"groups: expected \[B\] ids"):
        loss(scores, labels, groups=queries[:3])
    with pytest.raises(MarginsError, match="method"):
        MannWhitney("hinge", method="multipole")


def test_a_loss_tells_how_its_pairs_were_summed():
    scores, positive, _ = made(rows=1, items=5000)
    assert MannWhitney().sums(scores[0], positive[0].long()).methods == ("multipole",)
    assert MannWhitney(method="direct").sums(scores[0], positive[0].long()).methods == ("direct",)
