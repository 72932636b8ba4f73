"""Laws of nested and ordered classes: the head, the cumulative loss, Dice of levels, and their recipes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor
from torch.nn import functional

from made_up_training import recipe, seeded
from margins import train
from margins.data import SelectRows, TrainRows
from margins.encoders import Numbers, NumericEncoder
from margins.errors import MarginsError
from margins.heads import NestedHead, NestedSettings, nested_log_probabilities
from margins.losses import BinaryCrossEntropy, CrossEntropy, Cumulative, NestedDice
from margins.losses.cumulative import cumulative_logits
from margins.targets import Targets
from margins.training import Network, Trainer
from reference import cumulative

WIDTH = 6


def head(num_classes: int = 4, seed: int = 0, **options: Any) -> NestedHead:
    return NestedHead(WIDTH, num_classes, generator=seeded(seed), **options).double()


def embeddings(num: int = 50, seed: int = 1, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(num, WIDTH, generator=seeded(seed), dtype=torch.float64)


def labels_of(num: int, num_classes: int = 4, seed: int = 2) -> Tensor:
    return torch.randint(0, num_classes, (num,), generator=seeded(seed))


@pytest.mark.parametrize("thresholds", ["fixed", "learned"])
def test_class_probabilities_sum_to_one_and_none_is_negative(thresholds: Any):
    made = head(5, thresholds=thresholds)
    if thresholds == "learned":
        with torch.no_grad():
            made.raw_gaps += torch.tensor([3.0, -40.0, 0.5])
    met: set[int] = set()
    for spread in (1.0, 30.0, 1e4):
        p = made(embeddings(300, spread=spread)).exp()
        torch.testing.assert_close(p.sum(1), torch.ones(300, dtype=torch.float64))
        assert bool((p >= 0).all())
        met |= set(p.argmax(1).tolist())
    assert len(met) >= 4, "vacuous: most classes are never the likeliest"


def test_levels_are_nested_for_any_scores_and_independent_sigmoids_are_not():
    made = head(5)
    x = embeddings(400)
    for probabilities in (made.at_least(x), cumulative_logits(made(x))[0].sigmoid()):
        assert bool((probabilities.diff(dim=1) <= 0).all())
    independent = torch.sigmoid(torch.randn(400, 4, generator=seeded(3)))
    assert bool((independent.diff(dim=1) > 0).any())


def test_log_probabilities_are_those_of_the_reference_where_probabilities_vanish_too():
    x, thresholds = (
        torch.linspace(-200, 200, 41, dtype=torch.float64),
        torch.tensor([-1.0, 0.2, 3.0]).double(),
    )
    found = nested_log_probabilities(x, thresholds, steepness=10.0)
    expected = cumulative.nested_log_probabilities(x.tolist(), thresholds.tolist(), 10.0)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-300)
    assert found.min() < -1000, "vacuous: nothing vanishes"
    near = x.abs() < 2
    plain = cumulative.nested_probabilities(x[near].tolist(), thresholds.tolist(), 10.0)
    np.testing.assert_allclose(found[near].exp(), plain, rtol=1e-6, atol=1e-12)
    maps = nested_log_probabilities(x[:40].reshape(2, 4, 5), thresholds, steepness=10.0)
    torch.testing.assert_close(maps.reshape(40, 4), found[:40])


def test_one_level_is_binary_cross_entropy_of_the_scaled_distance():
    made = head(2, steepness=7.0, spacing=2.0)
    with torch.no_grad():
        made.lowest.fill_(0.4)
    x, labels = embeddings(), labels_of(50, 2)
    logit = 7.0 * (made.position(x) - 0.4)
    expected = functional.binary_cross_entropy_with_logits(logit, labels.double())
    for loss in (CrossEntropy(), Cumulative()):
        torch.testing.assert_close(loss(made(x), labels), expected)
    assert expected > 0.1, "vacuous: no loss"


def test_gradients_are_right_where_everything_is_saturated():
    thresholds = torch.tensor([-0.5, 0.5], dtype=torch.float64, requires_grad=True)
    for at in (-8.0, -0.5, 0.0, 0.5, 8.0):
        x = torch.tensor([at], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda x, b: nested_log_probabilities(x, b, steepness=10.0), (x, thresholds)
        )
    # In float32, hundreds of steps away: the slope of a wrong level is the steepness, that of a right one 0.
    far = torch.tensor([-60.0, 60.0], requires_grad=True)
    log_p = nested_log_probabilities(far, torch.tensor([-0.5, 0.5]), steepness=10.0)
    assert bool(torch.isfinite(log_p).all())
    (wrong,) = torch.autograd.grad(log_p[0, 2] + log_p[1, 0], far, retain_graph=True)
    (right,) = torch.autograd.grad(log_p[0, 0] + log_p[1, 2], far)
    torch.testing.assert_close(wrong, torch.tensor([10.0, -10.0]))
    assert bool((right == 0).all())


def test_two_levels_are_the_published_staircase():
    made = head(3)
    torch.testing.assert_close(made.thresholds, torch.tensor([-0.5, 0.5]).double(), atol=1e-6, rtol=0)
    with torch.no_grad():
        made.weight.copy_(torch.eye(1, WIDTH))
    x = torch.zeros(5, WIDTH, dtype=torch.float64)
    x[:, 0] = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
    found = made.activation(x)
    steps = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found, steps, atol=1e-4, rtol=0)
    expected = cumulative.nested_activation(x[:, 0].tolist(), made.thresholds.tolist(), 10.0)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-9)


def test_the_decoded_level_is_the_median_class():
    made, x = head(5), embeddings(300, spread=2.0)
    assert made.levels(x).tolist() == cumulative.nested_levels(
        made.position(x).tolist(), made.thresholds.tolist()
    )
    median = (made(x).exp().cumsum(1) < 0.5).sum(1)
    assert torch.equal(made.levels(x), median)
    assert median.unique().numel() == 5, "vacuous: not every level is met"


def test_learned_thresholds_move_and_stay_in_order_and_fixed_ones_stay():
    x, labels = embeddings(200), labels_of(200)
    fixed, learned = head(thresholds="fixed"), head(thresholds="learned")
    torch.testing.assert_close(fixed.thresholds, learned.thresholds)
    torch.testing.assert_close(fixed.thresholds.diff(), torch.ones(2).double(), atol=1e-6, rtol=0)
    before = fixed.thresholds.clone()
    for made in (fixed, learned):
        steps = torch.optim.SGD(made.parameters(), lr=0.5)
        for _ in range(30):
            steps.zero_grad()
            Cumulative()(made(x), labels).backward()
            steps.step()
    assert torch.equal(fixed.thresholds, before)
    moved = learned.thresholds
    assert (moved - before).abs().max() > 0.1
    assert bool((moved.diff() > 0).all())
    assert moved.diff().std() > 1e-3
    copy = head(thresholds="learned", seed=5)
    copy.load_state_dict(learned.state_dict())
    torch.testing.assert_close(copy(x), learned(x), rtol=0, atol=0)


@pytest.mark.parametrize("weight", [None, (1.0, 0.0, 3.0)])
def test_the_cumulative_loss_of_a_nested_head_is_binary_over_its_levels(weight: Any):
    made, x, labels = head(), embeddings(), labels_of(50)
    found = Cumulative(cut_weight=weight).per_anchor(made(x), labels)
    expected = cumulative.nested_cumulative(
        made.position(x).tolist(), labels.tolist(), made.thresholds.tolist(), 10.0,
        level_weight=None if weight is None else [w * 3 / sum(weight) for w in weight],
    )  # fmt: skip
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-9, atol=1e-12)
    if weight is None:
        logits = 10.0 * (made.position(x)[:, None] - made.thresholds)
        levels = (labels[:, None] > torch.arange(3)).double()
        torch.testing.assert_close(found.mean(), BinaryCrossEntropy()(logits, levels))


def test_the_cumulative_loss_charges_a_mistake_by_how_far_it_is_off_and_cross_entropy_does_not():
    sure = 8 * torch.eye(4)
    far = [float(Cumulative()(sure[k : k + 1], torch.tensor([0]))) for k in range(4)]
    assert far == sorted(far)
    assert far[3] > 2.5 * far[1] > 1
    flat = [float(CrossEntropy()(sure[k : k + 1], torch.tensor([0]))) for k in range(4)]
    assert flat[1] == pytest.approx(flat[3])


def test_an_unknown_class_of_an_order_is_a_class_that_is_not_there():
    scores = torch.randn(6, 4, generator=seeded(4), dtype=torch.float64)
    labels = torch.tensor([0, 1, 3, 3, 0, 1])
    unknown = torch.zeros(6, 4, dtype=torch.bool)
    unknown[:, 2] = True
    targets = Targets.of_classes(labels, 4).ignore(entries=unknown)
    without = scores[:, [0, 1, 3]], torch.tensor([0, 1, 2, 2, 0, 1])
    for loss in (Cumulative(), NestedDice()):
        torch.testing.assert_close(loss(scores, targets), loss(*without))
        assert (loss(scores, targets) - loss(scores, labels)).abs() > 1e-4, "vacuous: nothing changes"


def test_graded_classes_are_the_mixture_of_their_losses():
    scores = torch.randn(5, 4, generator=seeded(6), dtype=torch.float64)
    shares = torch.softmax(torch.randn(5, 4, generator=seeded(7), dtype=torch.float64), 1)
    each = torch.stack([Cumulative().per_anchor(scores, torch.full((5,), k)) for k in range(4)], 1)
    torch.testing.assert_close(Cumulative().per_anchor(scores, shares), (shares * each).sum(1))


def test_nested_dice_of_certain_levels_is_one_minus_the_mean_f1_of_levels():
    labels, guesses = labels_of(60), labels_of(60, seed=8)
    scores = 60.0 * functional.one_hot(guesses, 4).double()
    expected = np.mean([metrics.f1_score(labels >= c, guesses >= c) for c in (1, 2, 3)])
    assert float(NestedDice(smoothing=0.0)(scores, labels)) == pytest.approx(1 - expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_give_finite_float32_scores(dtype: torch.dtype):
    made = NestedHead(WIDTH, 4, generator=seeded(0)).to(dtype)
    x = embeddings(spread=30.0).to(dtype).requires_grad_()
    scores = made(x)
    assert scores.dtype == torch.float32
    (slope,) = torch.autograd.grad(CrossEntropy()(scores, labels_of(50)), x)
    assert bool(torch.isfinite(scores).all())
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"num_classes": 1}, "num_classes: expected at least 2"), ({"steepness": 0.0}, "steepness.*above 0"),
     ({"spacing": -1.0}, "spacing"), ({"thresholds": "free"}, "'fixed' or 'learned'")],
)  # fmt: skip
def test_a_head_that_cannot_be_is_refused(options: dict[str, Any], words: str):
    with pytest.raises(MarginsError, match=words):
        NestedHead(WIDTH, **{"num_classes": 3, "generator": seeded(), **options})
    if "num_classes" in options:
        with pytest.raises(MarginsError, match=words):
            NestedSettings().build(WIDTH, 1, generator=seeded())


def test_thresholds_that_do_not_rise_are_refused():
    for wrong in (torch.tensor([0.5, 0.5]), torch.tensor([[0.0]]), torch.zeros(0)):
        with pytest.raises(MarginsError, match="rising"):
            nested_log_probabilities(torch.zeros(2), wrong, steepness=1.0)


def ordered_rows(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Four numbers, of which one, with noise, tells the class: 0, 1, 2, ever rarer."""
    x = torch.randn(num, 4, generator=seeded(seed))
    grade = x[:, 0] + 0.2 * torch.randn(num, generator=seeded(seed + 1))
    return x, (grade > 0.3).long() + (grade > 1.0)


@pytest.mark.parametrize("loss", ["cross_entropy", "cumulative"])
@pytest.mark.parametrize("thresholds", ["fixed", "learned"])
def test_a_recipe_trains_a_nested_head_and_learns(loss: str, thresholds: str):
    rows = [ordered_rows(num, seed) for num, seed in ((160, 10), (100, 20))]
    given, chosen = (
        kind(Numbers(x), Targets.of_classes(y, 3))
        for kind, (x, y) in zip((TrainRows, SelectRows), rows, strict=True)
    )
    made = recipe(head={"name": "nested", "thresholds": thresholds}, objective={"loss": loss}, max_epochs=12)
    draws = seeded(0)
    encoder = NumericEncoder(num_columns=4, width=16, dropout=0.0, generator=draws)
    network = Network(encoder, made.head.build(16, 3, generator=draws))
    done = Trainer(made, network, given, chosen, generator=draws).run()
    share = float((rows[1][1] == 0).double().mean())
    assert max(record.select_score for record in done.history) > share + 0.15


def test_a_nested_head_is_for_classes():
    with pytest.raises(ValueError, match=r"head: expected one head .* the task label_sets, got nested"):
        recipe(
            task="label_sets", head={"name": "nested"}, objective={"loss": "binary_cross_entropy"},
            metric="macro_f1",
        )  # fmt: skip


def test_margins_train_takes_a_nested_head_and_its_model_predicts():
    x, y = ordered_rows(300, 30)
    table = {"a": x[:, 0].numpy(), "b": x[:, 1].numpy(), "grade": y.numpy()}
    changes = {
        "head": {"name": "nested"},
        "objective": {"loss": "cumulative"},
        "max_epochs": 6,
        "metric": "accuracy",
    }
    order = ["0", "1", "2"]
    done = train(table, target="grade", target_kind="label", class_order=order, recipe=changes)
    assert done.scores["report"]["accuracy"] > 0.7
    assert done.model.predict({"a": [-3.0, 3.0], "b": [0.0, 0.0]}).tolist() == ["0", "2"]
