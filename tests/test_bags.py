"""Bags of rows that share a mean target: the loss, closed forms, privacy, whole-bag batches, recipes."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from made_up_training import recipe, select_rows, train_rows, trainer
from margins.data import TrainRows
from margins.encoders import Numbers
from margins.errors import MarginsError
from margins.labels import (
    BagSampler,
    choose_rho,
    fit_linear_bags,
    local_bags,
    make_bags,
    privatise_bags,
    privatise_proportions,
)
from margins.losses import Aggregated, CrossEntropy, SquaredError, bag_means
from margins.targets import Targets
from reference import aggregated as reference

BASES = {"squared_error": "mse", "cross_entropy": "ce"}


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _batch(seed: int = 0, num: int = 11, num_bags: int = 4) -> tuple[torch.Tensor, ...]:
    """Scores of three columns, bags of unequal sizes in mixed order, shares of classes."""
    draws = _seeded(seed)
    scores = 2 * torch.randn(num, 3, generator=draws, dtype=torch.float64)
    bags = torch.cat([torch.arange(num_bags), torch.randint(0, num_bags, (num - num_bags,), generator=draws)])
    targets = torch.rand(num_bags, 3, generator=draws, dtype=torch.float64)
    return scores, bags[torch.randperm(num, generator=draws)], targets / targets.sum(1, keepdim=True)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
def test_aggregated_equals_the_reference(base, rho):
    for seed in range(3):
        scores, bags, targets = _batch(seed)
        found = Aggregated(base, rho=rho)(scores, bags, targets)
        expected = reference.interpolated_loss(scores, bags, targets, base=BASES[base], rho=rho)
        np.testing.assert_allclose(float(found), expected, rtol=1e-12)


def test_the_instance_loss_is_the_bag_loss_plus_the_variance_within_bags():
    scores, bags, targets = _batch(7)
    ends = [float(Aggregated(rho=rho)(scores, bags, targets)) for rho in (0.0, 1.0)]
    variance = reference.within_bag_variance(scores, bags, targets)
    assert abs(ends[1] - (ends[0] + variance)) < 1e-12
    assert variance > 0.1, "vacuous: no variance within bags"


@pytest.mark.parametrize("base", BASES)
def test_bags_of_one_row_are_the_ordinary_loss_whatever_rho(base):
    scores, _, _ = _batch(1)
    targets = scores.flip(0).softmax(1)
    plain = SquaredError() if base == "squared_error" else CrossEntropy()
    expected = plain(scores, Targets.of_scores(targets))
    for rho in (0.0, 0.4, 1.0):
        torch.testing.assert_close(Aggregated(base, rho=rho)(scores, torch.arange(11), targets), expected)


@pytest.mark.parametrize("base", BASES)
def test_aggregated_has_the_gradient_of_its_value(base):
    scores, bags, targets = _batch(2)
    loss = Aggregated(base, rho=0.3)
    assert torch.autograd.gradcheck(lambda s: loss(s, bags, targets), (scores.requires_grad_(),))
    assert torch.autograd.gradgradcheck(lambda s: loss(s, bags, targets), (scores,))


@pytest.mark.parametrize("base", BASES)
def test_rows_may_stand_in_any_order_and_a_bag_without_rows_does_not_count(base):
    scores, bags, targets = _batch(3)
    loss = Aggregated(base, rho=0.3)
    order = torch.randperm(11, generator=_seeded(3))
    whole = loss(scores, bags, targets)
    torch.testing.assert_close(loss(scores[order], bags[order], targets), whole)
    torch.testing.assert_close(loss(scores, bags + 1, torch.cat([targets[:1], targets])), whole)
    with_empty = loss.bags(scores, bags + 1, torch.cat([targets[:1], targets]))
    assert with_empty.num_degenerate == 1
    assert with_empty.values[0] == 0


@pytest.mark.parametrize("base", BASES)
def test_reductions_of_bags_agree_and_steps_add_up(base):
    scores, bags, targets = _batch(4)
    of_bags = Aggregated(base, reduction="none")(scores, bags, targets)
    torch.testing.assert_close(Aggregated(base).per_bag(scores, bags, targets), of_bags)
    torch.testing.assert_close(Aggregated(base, reduction="sum")(scores, bags, targets), of_bags.sum())
    torch.testing.assert_close(Aggregated(base)(scores, bags, targets), of_bags.mean())
    parts = [
        Aggregated(base)(scores[rows], *(local_bags(bags[rows])[0], targets[which]), denominator=4)
        for which in (torch.tensor([0, 2]), torch.tensor([1, 3]))
        for rows in [torch.isin(bags, which)]
    ]
    torch.testing.assert_close(sum(parts), of_bags.mean())


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_aggregated_computes_half_precision_in_float32(base, dtype):
    scores, bags, targets = _batch(5)
    half = (40 * scores).clamp(-100, 100).to(dtype).requires_grad_()
    found = Aggregated(base)(half, bags, targets.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, Aggregated(base)(half.detach().float(), bags, targets.float()))
    (grad,) = torch.autograd.grad(found, half)
    assert bool(torch.isfinite(grad).all())


def test_probabilities_that_underflow_are_averaged_in_logarithms():
    scores = torch.tensor([[0.0, -1000.0], [0.0, -2000.0], [0.0, 0.0]]).requires_grad_()
    targets = torch.full((2, 2), 0.5)
    loss = Aggregated("cross_entropy", rho=0.0)(scores, torch.tensor([0, 0, 1]), targets)
    # -log p of the second class of the first bag is 1000 + log 2.
    torch.testing.assert_close(loss, torch.tensor((0.5 * (1000 + np.log(2)) + np.log(2)) / 2).float())
    (grad,) = torch.autograd.grad(loss, scores)
    assert bool(torch.isfinite(grad).all())


@pytest.mark.parametrize("base", BASES)
def test_a_batch_without_rows_gives_an_attached_zero(base):
    scores = torch.zeros(0, 3, requires_grad=True)
    for num_bags in (0, 2):
        loss = Aggregated(base)(scores, torch.zeros(0, dtype=torch.long), torch.zeros(num_bags, 3))
        assert loss.item() == 0
        (grad,) = torch.autograd.grad(loss, scores)
        assert grad.shape == (0, 3)


def test_values_may_come_without_columns_and_inputs_are_left_alone():
    scores, bags, targets = _batch(6)
    copies = scores.clone(), bags.clone(), targets.clone()
    column = Aggregated(rho=0.2)(scores[:, 0], bags, targets[:, 0])
    torch.testing.assert_close(column, Aggregated(rho=0.2)(scores[:, :1], bags, targets[:, :1]))
    assert all(torch.equal(a, b) for a, b in zip((scores, bags, targets), copies, strict=True))


S, B, T = _batch()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (lambda: Aggregated(rho=1.5), "rho"),
        (lambda: Aggregated("cross_entropy")(S[:, :1], B, T[:, :1]), "scores"),
        (lambda: Aggregated()(S, B + 1, T), "bag_index"),
        (lambda: Aggregated()(S, B, T * torch.nan), "bag_targets"),
        (lambda: Aggregated("cross_entropy")(S, B, -T), "bag_targets"),
        (lambda: Aggregated()(S * torch.inf, B, T), "scores"),
        (lambda: make_bags(0, 3, generator=_seeded()), "num_rows"),
        (lambda: BagSampler(B, bags_per_batch=0, generator=_seeded()), "bags_per_batch"),
        (lambda: BagSampler(B + 1, bags_per_batch=1, generator=_seeded()), "bag_index"),
        (lambda: privatise_bags(S[:, 0], B, clip=1.0, epsilon=0.0, generator=_seeded()), "epsilon"),
        (lambda: privatise_bags(S, B, clip=1.0, epsilon=1.0, generator=_seeded()), "responses"),
        (lambda: fit_linear_bags(S, B, T[:3, 0], rho=0.1), "bag_targets"),
        (lambda: choose_rho(S, B, T[:, 0], num_folds=9, generator=_seeded()), "num_folds"),
        (lambda: choose_rho(S, B, T[:, 0], rhos=(), generator=_seeded()), "rhos"),
    ],
)
def test_what_bags_cannot_be_made_of_is_refused_by_name(given, named):
    with pytest.raises(MarginsError) as caught:
        given()
    assert caught.value.argument.startswith(named)


def _regression(d: int, bag_size: int, seed: int) -> tuple[torch.Tensor, ...]:
    """1000 rows, isotropic inputs, weights N(0, I / d), noise 0.5: inputs, bags, bag means, weights."""
    draws = _seeded(seed)
    weight = torch.randn(d, generator=draws, dtype=torch.float64) / d**0.5
    x = torch.randn(1000, d, generator=draws, dtype=torch.float64)
    y = x @ weight + 0.5 * torch.randn(1000, generator=draws, dtype=torch.float64)
    bags = make_bags(1000, bag_size, generator=draws)
    return x, bags, bag_means(y, bags, 1000 // bag_size), weight


@pytest.mark.parametrize("rho", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("num_inputs", [4, 40])
def test_the_closed_form_is_that_of_the_normal_equations(rho, num_inputs):
    # 40 inputs and 25 bags: without rho the shortest of many solutions.
    draws = _seeded(1)
    x, bags = torch.randn(100, num_inputs, generator=draws, dtype=torch.float64), torch.arange(100) // 4
    y = torch.randn(25, generator=draws, dtype=torch.float64)
    found = fit_linear_bags(x, bags, y, rho=rho, fit_intercept=False)
    expected = reference.linear_solution(x.numpy(), bags, y, rho=rho)
    np.testing.assert_allclose(found.weight.numpy(), expected, rtol=1e-7, atol=1e-9)
    assert float(found.intercept) == 0


@pytest.mark.parametrize("rho", [0.0, 0.2, 1.0])
def test_gradient_descent_arrives_at_the_closed_form(rho):
    draws = _seeded(2)
    x = torch.randn(60, 3, generator=draws, dtype=torch.float64)
    bags = torch.cat([torch.arange(20), torch.randint(0, 20, (40,), generator=draws)])  # of unequal sizes
    y = bag_means(x @ torch.tensor([1.0, -2.0, 0.5]).double() + 3, bags, 20)
    y = y + 0.3 * torch.randn(20, generator=draws, dtype=torch.float64)
    weight = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    level = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loss = Aggregated(rho=rho)
    descent = torch.optim.LBFGS(
        [weight, level], max_iter=200, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def value() -> torch.Tensor:
        descent.zero_grad()
        found = loss(x @ weight + level, bags, y)
        found.backward()
        return found

    descent.step(value)
    found = fit_linear_bags(x, bags, y, rho=rho)
    torch.testing.assert_close(found.weight, weight.detach(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.intercept, level.detach(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.predict(x), (x @ weight + level).detach(), rtol=1e-6, atol=1e-8)
    assert weight.abs().max() > 0.1, "vacuous: nothing was fitted"


MEASURED = {
    (150, 5): {0.0: 0.698, 0.05: 0.288, 1.0: 0.645},
    (50, 5): {0.0: 0.075, 0.01: 0.064, 1.0: 0.640},
    (50, 10): {0.0: 0.235, 0.01: 0.155, 1.0: 0.815},
}
"""(inputs, bag size): squared error of the weights by rho, means of ten draws made elsewhere."""


@pytest.mark.parametrize("setting", MEASURED)
def test_parameter_errors_are_those_measured_before(setting):
    for rho, expected in MEASURED[setting].items():
        errors = []
        for seed in range(10):
            x, bags, y, weight = _regression(*setting, seed)
            found = fit_linear_bags(x, bags, y, rho=rho, fit_intercept=False)
            errors.append(float((found.weight - weight).square().sum()))
        spread = np.std(errors, ddof=1) / 10**0.5
        # Both are means of ten draws.
        assert abs(np.mean(errors) - expected) < 3 * 2**0.5 * spread + 0.001, (setting, rho, np.mean(errors))
        assert spread < 0.2 * expected, "vacuous: the errors say nothing"


@pytest.mark.parametrize("setting", [(50, 5), (50, 10)])
def test_rho_chosen_over_bags_beats_both_ends(setting):
    gains = []
    for seed in range(8):
        x, bags, y, weight = _regression(*setting, 100 + seed)
        chosen = choose_rho(x, bags, y, fit_intercept=False, generator=_seeded(seed)).rho
        errors = [
            float((fit_linear_bags(x, bags, y, rho=rho, fit_intercept=False).weight - weight).square().sum())
            for rho in (0.0, chosen, 1.0)
        ]
        gains.append((errors[0] - errors[1], errors[2] - errors[1]))
    assert (np.mean(gains, axis=0) > 0).all()


def test_rho_is_chosen_by_bag_means_alone():
    x, bags, y, _ = _regression(50, 10, 5)
    found = choose_rho(x, bags, y, rhos=(0.0, 0.02, 1.0), num_folds=4, generator=_seeded())
    assert found.rho == min(found.errors, key=found.errors.get) == 0.02
    # A mean of squared errors of held-out bags, by hand.
    fold = torch.empty(100, dtype=torch.long)
    fold[torch.randperm(100, generator=_seeded())] = torch.arange(100) % 4
    total = 0.0
    for number in range(4):
        rows = fold[bags] != number
        local, which = local_bags(bags[rows])
        model = fit_linear_bags(x[rows], local, y[which], rho=0.02)
        held = torch.nonzero(fold == number)[:, 0]
        total += float((bag_means(model.predict(x), bags, 100)[held] - y[held]).square().sum())
    assert found.errors[0.02] == pytest.approx(total / 100, rel=1e-9)


def test_bags_share_no_row_and_have_one_size():
    bags = make_bags(23, 5, generator=_seeded())
    assert bags.bincount().tolist() == [5, 5, 5, 5, 3]
    assert torch.equal(bags, make_bags(23, 5, generator=_seeded()))
    assert not torch.equal(bags, torch.arange(23) // 5), "vacuous: nothing is mixed"
    assert not torch.equal(bags, make_bags(23, 5, generator=_seeded(1)))


def test_a_batch_holds_whole_bags_and_an_epoch_every_bag_once():
    bags = make_bags(50, 4, generator=_seeded())
    sampler = BagSampler(bags, bags_per_batch=3, generator=_seeded(1))
    state = torch.random.get_rng_state()
    passes = [list(sampler), list(sampler)]
    assert torch.equal(state, torch.random.get_rng_state())
    for batches in passes:
        assert len(batches) == len(sampler) == 5
        assert sorted(row for batch in batches for row in batch) == list(range(50))
        for batch in batches:
            there, counts = bags[batch].unique(return_counts=True)
            assert torch.equal(counts, bags.bincount()[there])
    assert passes[0] != passes[1]
    loaded = next(iter(DataLoader(torch.arange(50), batch_sampler=sampler)))
    local, which = local_bags(bags[loaded])
    assert torch.equal(which[local], bags[loaded])
    assert local.max() == 2


def test_the_noise_of_private_means_has_the_scale_of_one_answer():
    clip, epsilon, bag_size = 2.0, 0.5, 4
    draws = _seeded(3)
    answers = 3 * torch.randn(40_000, generator=draws, dtype=torch.float64)
    bags = make_bags(40_000, bag_size, generator=draws)
    clipped = bag_means(answers.clamp(-clip, clip), bags, 10_000)
    noise = privatise_bags(answers, bags, clip=clip, epsilon=epsilon, generator=draws) - clipped
    scale = 2 * clip / (bag_size * epsilon)
    assert (answers.abs() > clip).double().mean() > 0.3, "vacuous: nothing is clipped"
    # Laplace: mean absolute value = scale, variance = 2 scale^2, kurtosis 6.
    assert float(noise.abs().mean()) == pytest.approx(scale, rel=0.04)
    assert float(noise.square().mean()) == pytest.approx(2 * scale**2, rel=0.08)
    assert float((noise**4).mean() / noise.square().mean() ** 2) == pytest.approx(6, rel=0.2)
    assert abs(float(noise.mean())) < 0.06 * scale
    # Another answer shifts one mean by 2 clip / size at most: densities change by a factor e^epsilon at most.
    moved = answers.clone()
    moved[0] = -100 if answers[0] > 0 else 100
    shift = (bag_means(moved.clamp(-clip, clip), bags, 10_000) - clipped).abs()
    assert int((shift > 0).sum()) == 1
    assert float(shift.max()) <= 2 * clip / bag_size
    assert float(shift.max()) / scale <= epsilon + 1e-12


def test_private_means_of_unequal_bags_have_the_noise_of_their_sizes():
    bags = torch.cat([torch.arange(2000).repeat_interleave(2), torch.arange(2000, 4000).repeat_interleave(8)])
    noise = privatise_bags(torch.zeros(len(bags)), bags, clip=1.0, epsilon=1.0, generator=_seeded()).abs()
    assert float(noise[:2000].mean() / noise[2000:].mean()) == pytest.approx(4, rel=0.1)


def test_private_proportions_are_shares_and_near_the_true_ones():
    draws = _seeded(4)
    labels = torch.randint(0, 3, (9000,), generator=draws)
    bags = make_bags(9000, 30, generator=draws)
    true = bag_means(torch.nn.functional.one_hot(labels, 3).float(), bags, 300)
    far = []
    for epsilon in (0.3, 3.0, 1e6):
        found = privatise_proportions(labels, bags, num_classes=3, epsilon=epsilon, generator=draws)
        torch.testing.assert_close(found.sum(1), torch.ones(300))
        assert bool((found >= 0).all())
        far.append(float((found - true).abs().mean()))
    assert far[0] > far[1] > far[2]
    assert far[2] < 1e-5


BAGS = {
    "draw": {"name": "bags", "size": 4},
    "objective": {"loss": "aggregated", "settings": {"base": "cross_entropy", "rho": 0.05}},
}
PENALTIES = [{"loss": "orthogonal_projection"}]


def test_steps_of_a_recipe_hold_whole_bags_that_are_the_same_in_every_epoch():
    rows, draw = train_rows(103), recipe(**BAGS).draw
    epochs = [draw.epoch(rows, batch_size=10, seed=3, epoch=epoch) for epoch in range(2)]
    bags = [{frozenset(bag.tolist()) for step in steps for bag in step.split(4)} for steps in epochs]
    assert bags[0] == bags[1]
    assert len(bags[0]) == 25
    assert [len(step) for step in epochs[0]] == [8] * 12 + [4]
    assert not all(torch.equal(a, b) for a, b in zip(*epochs, strict=True))
    other = draw.epoch(rows, batch_size=10, seed=4, epoch=0)
    assert bags[0] != {frozenset(bag.tolist()) for step in other for bag in step.split(4)}
    with pytest.raises(MarginsError, match=r"draw\.size"):
        draw.order(train_rows(3), _seeded())


def test_a_recipe_trains_on_bag_means_alone():
    """Labels that differ row by row, but not in the mean of any bag, give the same network."""
    rows, changes = train_rows(120), {**BAGS, "max_epochs": 8, "patience": None}
    bags = torch.cat(list(recipe(**changes).draw.epoch(rows, batch_size=120, seed=0, epoch=0))).reshape(-1, 4)
    labels = rows.class_ids()
    shuffled = labels.clone()
    shuffled[bags] = labels[bags.roll(1, 1)]
    assert (shuffled != labels).double().mean() > 0.3, "vacuous: no label has changed"
    networks = []
    for given in (labels, shuffled):
        training = trainer(train=TrainRows(rows.inputs, Targets.of_classes(given, 3)), **changes)
        fitted = training.run()
        networks.append(training.network.state_dict())
    for a, b in zip(networks[0].values(), networks[1].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert fitted.select_scores[-1] > 0.65  # of three classes


def test_a_recipe_of_bags_gives_the_same_result_in_parts():
    weights = []
    for accumulate in (1, 3):
        training = trainer(accumulate=accumulate, dropout=0.0, max_epochs=2, **BAGS)
        training.run()
        weights.append(training.network.state_dict())
    for a, b in zip(weights[0].values(), weights[1].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_recipe_of_values_learns_from_bag_means():
    draws = _seeded(5)
    x = torch.randn(400, 4, generator=draws)
    y = x @ torch.tensor([1.0, -1.0, 0.5, 0.0])
    train = TrainRows(Numbers(x[:300]), Targets.of_values(y[:300]))
    select = type(select_rows())(Numbers(x[300:]), Targets.of_values(y[300:]))
    training = trainer(
        train=train, select=select, num_outputs=1, dropout=0.0, task="values", metric="rmse", max_epochs=15,
        objective={"loss": "aggregated", "settings": {"rho": 0.0}}, draw={"name": "bags", "size": 3},
        optimizer={"name": "adamw", "learning_rate": 0.01},
    )  # fmt: skip
    scores = training.run().select_scores
    assert min(scores) < 0.5 * float(y[300:].std())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"draw": {"name": "bags"}}, "loss of bags"),
        ({"objective": BAGS["objective"]}, "loss of bags"),
        ({**BAGS, "mix": {"name": "mixup"}}, "mix"),
        ({**BAGS, "plan": [{"frozen": ["encoder"]}]}, "plan"),
        ({**BAGS, "objective": {**BAGS["objective"], "targets": {"class_weight": "balanced"}}}, "targets"),
        ({**BAGS, "objective": {**BAGS["objective"], "penalties": PENALTIES}}, "penalties"),
        ({**BAGS, "task": "values", "metric": "rmse"}, "base"),
    ],
)
def test_what_looks_into_bags_does_not_go_with_them(changes, named):
    with pytest.raises(ValueError, match=named):
        recipe(**changes)


def test_rows_of_different_weights_are_not_put_into_bags():
    rows = train_rows(24)
    weighed = TrainRows(rows.inputs, rows.targets.weigh(rows=torch.linspace(1, 2, 24)))
    with pytest.raises(MarginsError, match="weigh"):
        recipe(**BAGS).draw.order(weighed, _seeded())


def test_an_inner_size_of_bags_is_best_for_private_means():
    """Larger bags have less noise and fewer equations."""
    errors = []
    for size in (1, 4, 64):
        found = []
        for seed in range(3):
            draws = _seeded(seed)
            weight = torch.randn(50, generator=draws, dtype=torch.float64) / 50**0.5
            x = torch.randn(2000, 50, generator=draws, dtype=torch.float64)
            y = x @ weight + 0.5 * torch.randn(2000, generator=draws, dtype=torch.float64)
            bags = make_bags(2000, size, generator=draws)
            means = privatise_bags(y, bags, clip=4.0, epsilon=1.0, generator=draws)
            rhos = (0.0, 0.02, 0.1, 0.5, 1.0)
            rho = choose_rho(x, bags, means, rhos=rhos, num_folds=3, generator=draws).rho
            model = fit_linear_bags(x, bags, means, rho=rho)
            found.append(float((model.weight - weight).square().sum()))
        errors.append(np.mean(found))
    assert errors[1] < 0.9 * min(errors[0], errors[2])
