"""Ascent in a ball, the smooth adversarial objective, and the step that trains by it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import margins
from margins.encoders.embeddings import Vectors
from margins.encoders.images import Images
from margins.encoders.inputs import Parts
from margins.encoders.numeric import Numbers, NumericEncoder
from margins.encoders.tabular import TabularEncoder, TabularRows
from margins.errors import MarginsError
from margins.losses import CompSum
from margins.robust import PGD, SmoothAdversarial, evaluating, margin_change, most_changed, movable
from margins.training.fit import Trained
from reference import comp_sum


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def up(attack: PGD, x: Tensor) -> Tensor:
    return attack.ascend(lambda moved: moved.sum(1), x, generator=draws())


def linear(num_in: int, num_classes: int, seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(num_in, num_classes).double()


# --- ascent -----------------------------------------------------------------------------------------------


def test_ascent_of_a_linear_objective_ends_where_the_ball_ends():
    slope = torch.tensor([3.0, -4.0, 0.0])
    x = torch.tensor([[0.5, 0.5, 0.5], [0.1, 0.95, 0.2]])
    box = PGD(0.2, num_steps=20, low=0.0, high=1.0, start_noise=0.0)
    found = box.ascend(lambda moved: moved @ slope, x, generator=draws())
    torch.testing.assert_close(found, torch.tensor([[0.7, 0.3, 0.5], [0.3, 0.75, 0.2]]))
    ball = PGD(0.2, norm="l2", num_steps=20, start_noise=0.0)
    found = ball.ascend(lambda moved: moved @ slope, x, generator=draws())
    torch.testing.assert_close(found, x + 0.2 * slope / 5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_point_that_is_tried_is_in_the_ball_and_in_the_range(norm):
    x = torch.rand(6, 2, 3, generator=draws(1))
    radius, seen = 0.3, []

    def objective(moved: Tensor) -> Tensor:
        seen.append(moved.detach().clone())
        return (7 * moved).sin().sum((1, 2))

    PGD(radius, norm=norm, step_size=0.2, low=0.0, high=1.0, start_noise=0.5).ascend(
        objective, x, generator=draws(2)
    )
    assert len(seen) == 11
    for point in seen:
        change = (point - x).flatten(1)
        size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        assert size.max() <= radius + 1e-6
        assert float(point.min()) >= 0
        assert float(point.max()) <= 1
    assert any(float(point.min()) == 0 for point in seen), "vacuous: the range is never met"


def test_the_point_that_is_returned_is_the_best_of_those_tried_for_each_row():
    x = torch.rand(20, 3, generator=draws(3))
    seen = []

    def objective(moved: Tensor) -> Tensor:
        value = (40 * moved).sin().sum(1)  # rough: long steps go down as often as up
        seen.append(value.detach())
        return value

    found = PGD(0.5, step_size=0.3).ascend(objective, x, generator=draws(4))
    values = torch.stack(seen)
    torch.testing.assert_close((40 * found).sin().sum(1), values.amax(0), rtol=0, atol=1e-4)
    assert bool((values.argmax(0) < 10).any()), "vacuous: the last point is always the best"


def test_ascent_draws_from_its_generator_alone_and_leaves_gradients_and_inputs_alone():
    model = linear(3, 2, 0)
    x = torch.rand(4, 3, generator=draws(5), dtype=torch.float64)
    copy, state = x.clone(), torch.get_rng_state()
    attack = PGD(0.2)
    found = [attack.ascend(lambda m: model(m)[:, 0].sin(), x, generator=draws(s)) for s in (6, 6, 7)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, copy)
    assert torch.equal(found[0], found[1])
    assert not found[0].requires_grad
    assert model.weight.grad is None
    started = [PGD(0.2, num_steps=1).ascend(lambda m: 0 * m.sum(1), x, generator=draws(s)) for s in (6, 7)]
    assert not torch.equal(*started), "vacuous: the start is not drawn"


def test_every_part_of_a_model_has_its_own_mode_again_also_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[1].eval()
    modes = [part.training for part in model.modules()]
    seen = []

    def objective(moved: Tensor) -> Tensor:
        seen.extend(part.training for part in model.modules())
        return model(moved).sum(1)

    PGD(0.1).ascend(objective, torch.rand(5, 2), generator=draws(), model=model)
    assert not any(seen)
    assert [part.training for part in model.modules()] == modes
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert [part.training for part in model.modules()] == modes
    assert float(model[1].num_batches_tracked) == 0


def test_a_radius_of_zero_and_a_batch_of_no_rows_are_left_where_they_are():
    x = torch.rand(3, 2)
    for norm in ("linf", "l2"):
        assert torch.equal(PGD(0.0, norm=norm).ascend(lambda m: m.sum(1), x, generator=draws()), x)
        assert PGD(0.1, norm=norm).ascend(lambda m: m.sum(1), x[:0], generator=draws()).shape == (0, 2)


# --- the objective ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_ascent_reaches_the_largest_stretch_of_a_linear_model(seed):
    model = linear(6, 4, seed)
    labels = torch.tensor([0, 1, 2, 3])
    x = torch.randn(4, 6, generator=draws(seed), dtype=torch.float64)
    weight = model.weight.detach().numpy()
    largest = np.array([comp_sum.largest_stretch(weight, y, 0.3) for y in range(4)])
    for attack, share in ((PGD(0.3, norm="l2", num_steps=100), 0.99), (PGD(0.3, norm="l2"), 0.9)):
        moved = most_changed(model, x, labels, attack, generator=draws(seed + 100), model=model)
        change = margin_change(model(moved), model(x), labels).detach().numpy()
        assert (change <= largest * (1 + 1e-9)).all()
        assert (change >= share * largest).all()


@pytest.mark.parametrize(
    ("tau", "temperature", "weight"), [(1.0, 1.0, 1.0), (1.7, 2.0, 0.3), (0.5, 1.0, 2.0)]
)
def test_the_objective_is_its_definition_for_a_linear_model(tau, temperature, weight):
    model = linear(5, 3, 7)
    x = torch.randn(4, 5, generator=draws(8), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 1])
    attack = PGD(0.2, norm="l2", num_steps=150)
    objective = SmoothAdversarial(attack, tau=tau, temperature=temperature, weight=weight)
    found = objective(model, x, labels, generator=draws(9))
    parameters = model.weight.detach().numpy(), model.bias.detach().numpy()
    options = {"tau": tau, "rho": temperature, "nu": weight, "radius": 0.2}
    expected = [
        comp_sum.smooth_adversarial(*parameters, row, y, **options)
        for row, y in zip(x.numpy(), labels.tolist(), strict=True)
    ]
    clean = CompSum(tau)(model(x) / temperature, labels).item()
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-3)
    assert found.item() > clean + 0.01, "vacuous: nothing moves"


def test_weight_zero_is_the_clean_loss():
    model = linear(5, 3, 10)
    x, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    generator = draws(11)
    state = generator.get_state()
    found = SmoothAdversarial(PGD(0.2), tau=1.7, weight=0.0)(model, x, labels, generator=generator)
    torch.testing.assert_close(found, CompSum(1.7)(model(x), labels), rtol=0, atol=0)
    assert torch.equal(generator.get_state(), state)


def test_the_gradient_is_that_of_both_terms_with_the_place_held():
    model = linear(5, 3, 12)
    x, labels = torch.randn(4, 5, generator=draws(13), dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    objective = SmoothAdversarial(PGD(0.2), weight=0.7)
    moved = objective.search(model, x, labels, generator=draws(14))
    expected = CompSum(1.0)(model(x), labels) + 0.7 * margin_change(model(moved), model(x), labels).mean()
    found = objective(model, x, labels, generator=draws(14))
    (grad,), (wanted,) = (torch.autograd.grad(value, model.weight) for value in (found, expected))
    torch.testing.assert_close(grad, wanted)
    assert wanted.abs().max() > 1e-2


def test_margin_change_is_the_length_of_the_change_of_margins():
    scores, moved = torch.randn(2, 5, 4, generator=draws(15), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0])
    expected = []
    for i, y in enumerate(labels.tolist()):
        others = [k for k in range(4) if k != y]
        gaps = [(moved[i, y] - moved[i, k]) - (scores[i, y] - scores[i, k]) for k in others]
        expected.append(math.sqrt(sum(float(g) ** 2 for g in gaps)))
    found = margin_change(moved, scores, labels)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    leaf = scores.clone().requires_grad_()
    (grad,) = torch.autograd.grad(margin_change(leaf, scores, labels).sum(), leaf)
    assert bool((grad == 0).all()), "where nothing has moved the gradient is 0"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: PGD(-0.1), "radius"),
        (lambda: PGD(0.1, norm="l1"), "norm"),
        (lambda: PGD(0.1, num_steps=0), "num_steps"),
        (lambda: PGD(0.1, step_size=0.0), "step_size"),
        (lambda: PGD(0.1, low=1.0, high=0.0), "low, high"),
        (lambda: up(PGD(0.1, high=1.0), 2 * torch.ones(2, 2)), "inputs"),
        (lambda: up(PGD(0.1), torch.ones(2, 2).long()), "inputs"),
        (lambda: PGD(0.1).ascend(lambda m: m.sum(), torch.ones(2, 2), generator=draws()), "objective"),
        (lambda: SmoothAdversarial(PGD(0.1, start_noise=0.0)), "attack"),
        (lambda: SmoothAdversarial(PGD(0.1), weight=-1.0), "weight"),
        (lambda: SmoothAdversarial(PGD(0.1), reduction="none"), "reduction"),
        (lambda: SmoothAdversarial(PGD(0.1), temperature=0.0), "temperature"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(call, words):
    with pytest.raises(MarginsError) as raised:
        call()
    assert raised.value.argument == words


# --- inputs of encoders -----------------------------------------------------------------------------------


def encoders() -> dict[str, tuple[Any, Any]]:
    numbers = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 20.0]], dtype=torch.float64)
    numeric = NumericEncoder(num_columns=2, width=4, generator=draws())
    numeric.fit(Numbers(numbers))
    gaps = numbers.clone()
    gaps[1, 0] = torch.nan
    rows = TabularRows(gaps, torch.tensor([[1], [0], [2]]))
    tabular = TabularEncoder(num_columns=2, num_categories=[2], with_gaps=[0], width=4, generator=draws())
    tabular.fit(rows)
    pixels = torch.arange(24, dtype=torch.uint8).reshape(2, 1, 3, 4) * 10
    return {
        "numbers": (numeric, Numbers(numbers)),
        "table": (tabular, rows),
        "images": (nn.Identity(), Images(pixels)),
        "vectors": (nn.Identity(), Vectors(torch.randn(3, 4, generator=draws()))),
    }


@pytest.mark.parametrize("name", ["numbers", "table", "images", "vectors"])
def test_numbers_of_inputs_go_there_and_back(name):
    encoder, inputs = encoders()[name]
    found = movable(encoder, inputs)
    back = found.as_inputs(found.values)
    assert type(back) is type(inputs)
    for field in vars(inputs):
        before, after = getattr(inputs, field), getattr(back, field)
        torch.testing.assert_close(after.to(before.dtype), before, equal_nan=True)
    if name in ("numbers", "table"):
        embedded = encoder.eval()(inputs)
        torch.testing.assert_close(encoder(back), embedded)
        assert (encoder(found.as_inputs(found.values + 0.5)) - embedded).abs().max() > 1e-3
        spread = found.values.nan_to_num(0.0).square().sum(0) / found.values.isfinite().sum(0)
        torch.testing.assert_close(spread, torch.ones(2, dtype=torch.float64))
    assert (found.low, found.high) == ((0.0, 1.0) if name == "images" else (None, None))


def test_a_missing_number_stays_missing_and_the_others_are_moved():
    encoder, inputs = encoders()["table"]
    encoder.eval()
    found = movable(encoder, inputs)
    moved = PGD(0.3, norm="l2").ascend(
        lambda values: encoder(found.as_inputs(values)).sum(1), found.values, generator=draws()
    )
    is_gap = inputs.numbers.isnan()
    assert bool(is_gap.any())
    assert torch.equal(moved.isnan(), is_gap)
    assert (moved - found.values)[~is_gap].abs().max() > 0.05
    assert torch.equal(found.as_inputs(moved).categories, inputs.categories)


@pytest.mark.parametrize(
    "inputs",
    [
        TabularRows(torch.zeros(2, 0), torch.ones(2, 1, dtype=torch.long)),
        Parts({"a": Vectors(torch.zeros(2, 2))}),
        ["a text"],
    ],
    ids=["categories alone", "several kinds", "texts"],
)
def test_inputs_that_are_no_numbers_are_refused(inputs):
    with pytest.raises(MarginsError, match="inputs"):
        movable(nn.Identity(), inputs)


# --- the step ---------------------------------------------------------------------------------------------

ROWS = 90


def table(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = np.arange(ROWS) % 3
    plain = {
        "a": (rng.normal(size=ROWS) + 2 * (labels == 0)).tolist(),
        "b": (rng.normal(size=ROWS) - 2 * (labels == 1)).tolist(),
        "c": ["uvw"[i] for i in rng.integers(0, 3, ROWS)],
        "label": ["xyz"[c] for c in labels],
        "split": [["train", "train", "train", "select", "report"][i // 3 % 5] for i in range(ROWS)],
    }
    return {**plain, **changes}


def trained(step: dict[str, Any], data: Any = None, **changes: Any) -> Trained:
    roles = {key: changes.pop(key) for key in ("inputs", "weight") if key in changes}
    recipe = {
        "max_epochs": 4,
        "patience": None,
        "objective": {"loss": "comp_sum", "settings": {"tau": 1.0}},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
    }
    recipe = {**recipe, "step": step, **changes}
    return margins.train(table() if data is None else data, recipe=recipe, **roles)


@cache
def plainly() -> Trained:
    return trained({"name": "standard"})


STEP = {"name": "smooth_adversarial", "radius": 0.3}


def losses(result: Trained) -> list[float]:
    return [record.loss for record in result.fitted[0].history]


def largest_changes(result: Trained) -> Tensor:
    network = result.model.network.eval()
    given = table()
    numbers = torch.tensor([given["a"], given["b"]], dtype=torch.float64).T
    places = torch.tensor([["u", "v", "w"].index(c) + 1 for c in given["c"]])[:, None]
    found = movable(network.encoder, TabularRows(numbers, places))
    labels = torch.arange(ROWS) % 3
    moved = most_changed(
        lambda v: network(found.as_inputs(v))[0],
        found.values,
        labels,
        PGD(0.3),
        generator=draws(),
        model=network,
    )
    scores = network(found.as_inputs(found.values))[0]
    change = margin_change(network(found.as_inputs(moved))[0], scores, labels)
    return change.detach()


def test_a_vanishing_weight_trains_as_the_standard_step_does():
    faint = trained({**STEP, "weight": 1e-12})
    np.testing.assert_allclose(losses(faint), losses(plainly()), rtol=1e-5)


def test_training_by_the_step_makes_margins_hard_to_move():
    robust, again = (trained({**STEP, "weight": 0.5}) for _ in range(2))
    assert largest_changes(robust).mean() < 0.8 * largest_changes(plainly()).mean()
    assert losses(again) == losses(robust)


def test_the_change_of_a_row_weighs_what_the_row_weighs():
    # AdamW does not see the scale of a loss: with all weights threefold it goes the same way.
    light, heavy = (trained(STEP, table(w=[w] * ROWS), weight="w") for w in (1.0, 3.0))
    np.testing.assert_allclose(losses(heavy), 3 * np.array(losses(light)), rtol=1e-2)


@pytest.mark.parametrize("changes", [{"mix": {"name": "feature_mixup"}}, {"evaluator": "blockwise"}])
def test_recipes_that_do_not_go_with_the_step_are_refused(changes):
    with pytest.raises(MarginsError, match="no mix with smooth_adversarial"):
        trained(STEP, **changes)


def test_texts_are_refused_by_the_step():
    with pytest.raises(MarginsError, match="moves them a little"):
        trained(STEP, table(a=["one", "two", "three"] * 30), inputs={"a": "text"})


def test_rows_with_several_classes_are_refused_by_the_step():
    sets = table(label=["x|y", "y", "z"] * 30)
    with pytest.raises(MarginsError):
        trained(STEP, sets, objective={"loss": "binary_cross_entropy"})
