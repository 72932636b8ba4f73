"""Normalised logistic gradient descent, probes that use it, and what it says of features."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from made_up_training import recipe, train_rows, trainer
from margins.data import TrainRows
from margins.diagnose import separability
from margins.errors import MarginsError
from margins.heads import LinearProbe, LogisticGD, NormalizedLogisticGD
from margins.losses import CrossEntropy, ErrorNormalized
from margins.targets import Targets

STEPS = {  # (rows, solver, step size): steps until all of them are separated
    (10, LogisticGD, 1e2): 6, (100, LogisticGD, 1e2): 59, (1000, LogisticGD, 1e2): 895,
    (10, LogisticGD, 1e6): 12, (100, LogisticGD, 1e6): 51, (1000, LogisticGD, 1e6): 501,
    (10000, LogisticGD, 1e2): 11368, (10000, LogisticGD, 1e6): 5001,
    (10, NormalizedLogisticGD, 1e2): 4, (100, NormalizedLogisticGD, 1e2): 2,
    (1000, NormalizedLogisticGD, 1e2): 2, (10000, NormalizedLogisticGD, 1e2): 2,
}  # fmt: skip


def hard_rows(num_rows: int) -> Tensor:
    """All rows but one say the same; that one is hard."""
    rows = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(num_rows, 1)
    rows[-1] = torch.tensor([-0.9, 0.3], dtype=torch.float64)
    return rows


def blobs(num_rows: int = 90, num_classes: int = 3, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(num_rows) % num_classes
    centres = 2 * torch.randn(num_classes, 4, generator=draws, dtype=torch.float64)
    return centres[labels] + spread * torch.randn(num_rows, 4, generator=draws, dtype=torch.float64), labels


@pytest.mark.parametrize(
    ("num_rows", "solver", "step_size"),
    [pytest.param(*case, marks=pytest.mark.slow) if STEPS[case] > 9000 else case for case in STEPS],
)
def test_steps_to_separate_hard_rows_are_those_measured(num_rows, solver, step_size):
    rows = hard_rows(num_rows)
    found = solver(step_size, max_steps=20_000).separate(rows, torch.ones(num_rows, dtype=torch.long))
    assert found.is_separated
    assert found.num_steps == STEPS[num_rows, solver, step_size]
    assert bool((rows @ found.weight > 0).all())


def test_large_steps_are_those_of_the_batch_perceptron():
    rows, labels = blobs(60, 2, spread=8.0)
    signed = rows * (2 * labels[:, None] - 1)
    step = 1e6
    descent, perceptron = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    num_wrong = []
    for _ in range(30):
        margins = signed @ perceptron
        mistaken = (margins < 0).double() + 0.5 * (margins == 0).double()  # half a mistake on the boundary
        num_wrong.append(int(mistaken.sum()))
        perceptron = perceptron + mistaken @ signed / len(signed)
        descent = descent + step * LogisticGD(step).weights(signed @ descent) @ signed
        torch.testing.assert_close(descent / step, perceptron, rtol=0, atol=1e-6)
    assert num_wrong[0] == 30, "vacuous: the first step is that of the class means"
    assert min(num_wrong) > 0, "vacuous: the perceptron stopped"


def test_weights_sum_to_one_and_the_solution_has_no_error():
    rows, labels = blobs(80, 2)
    solver = NormalizedLogisticGD(50.0)
    for scale in (0.0, 1.0, 1e3, 1e6):
        margins = scale * torch.linspace(-1, 1, 7, dtype=torch.float64)
        weights = solver.weights(margins)
        assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
        assert bool((weights >= 0).all())
    # At large margins: the mean over the rows that are wrong most.
    assert solver.weights(torch.tensor([-900.0, -900.0, 800.0])).tolist() == [0.5, 0.5, 0.0]
    found = solver.separate(rows, labels)
    assert found.is_separated
    assert found.errors[-1] == 0
    assert found.smallest_margins[-1] > 0
    assert len(found.errors) == len(found.losses) == found.num_steps + 1


def test_a_high_loss_does_not_mean_that_a_separator_is_far():
    rows = hard_rows(1000)
    ones = torch.ones(1000, dtype=torch.long)
    small, large = (LogisticGD(step).separate(rows, ones) for step in (1e2, 1e6))
    assert large.num_steps < small.num_steps
    assert large.losses[1] > 100 * small.losses[1]


def test_rows_that_cannot_be_separated_are_said_to_be_so():
    rows = torch.tensor([[1.0], [1.0]])
    found = NormalizedLogisticGD(max_steps=7).separate(rows, torch.tensor([0, 1]))
    assert not found.is_separated
    assert (found.num_steps, found.errors[-1]) == (7, 2)


# --- probes -----------------------------------------------------------------------------------------------


def test_a_probe_by_lbfgs_is_the_logistic_regression_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    features, labels = blobs(spread=2.5)
    decay = 1e-2
    fitted = LinearProbe(weight_decay=decay).fit(features, labels, num_classes=3)
    peer = LogisticRegression(C=1 / (decay * len(features)), tol=1e-10, max_iter=5000)
    peer.fit(features.numpy(), labels.numpy())
    found = fitted.head(features).softmax(1).detach().numpy()
    np.testing.assert_allclose(found, peer.predict_proba(features.numpy()), atol=1e-6)
    assert fitted.num_errors == int((found.argmax(1) != labels.numpy()).sum()) > 0


def test_a_probe_of_two_classes_takes_the_steps_of_the_binary_method():
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    labels = (features.sum(1) > 1.0).long()
    with_one = torch.cat([features, torch.ones(60, 1, dtype=torch.float64)], 1)
    binary = NormalizedLogisticGD(20.0).separate(with_one, labels)
    probe = LinearProbe("normalized_gd", step_size=10.0).fit(features, labels, num_classes=2)
    assert probe.num_steps == binary.num_steps > 3
    difference = torch.cat([probe.head.weight, probe.head.bias[:, None]], 1).diff(dim=0)[0]
    torch.testing.assert_close(difference, binary.weight)


def test_a_probe_finds_a_rare_class():
    draws = torch.Generator().manual_seed(1)
    features = torch.randn(2000, 20, generator=draws, dtype=torch.float64)
    features[:, 0] += 6
    features[:3, 0] -= 5.5  # the rare ones
    features[:3, 1] += 4
    labels = (torch.arange(2000) < 3).long()
    found = LinearProbe("normalized_gd").fit(features, labels, num_classes=2)
    assert found.num_errors == 0
    assert found.num_steps < 200


def test_a_probe_leaves_the_global_generator_and_the_features_alone():
    features, labels = blobs()
    before, copy = torch.get_rng_state(), features.clone()
    for solver in ("lbfgs", "normalized_gd"):
        LinearProbe(solver).fit(features, labels, num_classes=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(features, copy)
    assert LinearProbe().fit(features.float(), labels, num_classes=3).head.weight.dtype == torch.float32


def test_separability_finds_the_margin_and_says_when_there_is_none():
    line = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
    found = separability(line, torch.tensor([0, 0, 1, 1]))
    assert found.is_separated
    assert 0 < found.margin <= 1.5
    assert found.radius == pytest.approx(2.5)
    # In other units: the same steps, the margin in that unit.
    scaled = separability(1000 * line + 7, torch.tensor([0, 0, 1, 1]))
    assert scaled.num_steps == found.num_steps
    assert scaled.margin == pytest.approx(1000 * found.margin)
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    crossed = separability(corners, torch.tensor([0, 0, 1, 1]), max_steps=300)
    assert not crossed.is_separated
    assert crossed.num_steps == 300
    assert crossed.num_errors > 0
    assert crossed.margin <= 0


def test_the_margin_is_the_distance_to_the_boundary_between_two_classes():
    features, labels = blobs()
    found = separability(features, labels)
    rows = (features - features.mean(0)) / found.radius
    head = LinearProbe("normalized_gd").fit(rows, labels, num_classes=3).head
    scores = head(rows)
    distances = [
        (scores[i, y] - scores[i, k]) / (head.weight[y] - head.weight[k]).norm()
        for i, y in enumerate(labels.tolist())
        for k in range(3)
        if k != y
    ]
    assert found.is_separated
    assert found.margin == pytest.approx(float(min(distances).detach()) * found.radius, rel=1e-9)


# --- the loss ---------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_the_loss_over_the_mean_error():
    draws = torch.Generator().manual_seed(2)
    scores = torch.randn(6, 4, generator=draws, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    (grad,) = torch.autograd.grad(ErrorNormalized()(scores, labels), scores)
    p = scores.detach().softmax(1)
    hot = functional.one_hot(labels, 4).double()
    error = (1 - (p * hot).sum(1)).mean()
    torch.testing.assert_close(grad, (p - hot) / 6 / error)
    # What pushes labels up sums to one over the rows, however good the batch is.
    assert float(-(grad * hot).sum()) == pytest.approx(1.0)
    weighed = Targets.of_classes(labels, 4).weigh(rows=torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 0.0]))
    for reduction in ("mean", "weighted_mean"):
        loss = ErrorNormalized(CrossEntropy(reduction=reduction))
        (grad,) = torch.autograd.grad(loss(scores, weighed), scores)
        assert float(-(grad * hot).sum()) == pytest.approx(1.0)


def test_one_row_gets_the_perceptron_step_whatever_its_scores():
    for gap in (-30.0, 0.0, 3.0, 12.0):
        scores = torch.tensor([[0.0, gap]], dtype=torch.float64, requires_grad=True)
        ErrorNormalized()(scores, torch.tensor([1])).backward()
        torch.testing.assert_close(scores.grad, torch.tensor([[1.0, -1.0]], dtype=torch.float64))


def test_a_batch_that_is_right_to_rounding_has_a_small_finite_gradient():
    scores = torch.tensor([[0.0, 300.0], [0.0, 60.0]], requires_grad=True)
    loss = ErrorNormalized(floor=1e-6)(scores, torch.tensor([1, 1]))
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert scores.grad.abs().max() < 1e-3


@pytest.mark.parametrize("weighed", [False, True])
def test_a_step_of_a_recipe_takes_the_gradient_of_the_loss(weighed):
    changes = {"train": _weighed() if weighed else None, "dropout": 0.0}
    sgd = {"name": "sgd", "learning_rate": 0.5, "momentum": 0.0, "weight_decay": 0.0}
    t = trainer(step={"name": "error_normalized"}, optimizer=sgd, min_steps=1, batch_size=200, **changes)
    before = t.network.head.weight.detach().clone()
    batch = t.engine.batch(torch.arange(120))
    ErrorNormalized()(t.network(batch.inputs)[0], batch.targets).backward()
    gradient = t.network.head.weight.grad.clone()
    t.network.zero_grad()
    t.advance()
    torch.testing.assert_close(t.network.head.weight, before - 0.5 * gradient, rtol=1e-5, atol=1e-6)
    plain = trainer(optimizer=sgd, min_steps=1, batch_size=200, **changes)
    plain.advance()
    moved = [(u.network.head.weight - before).norm() for u in (t, plain)]
    assert moved[0] > 1.2 * moved[1], "vacuous: the mean error is 1"


def _weighed() -> TrainRows:
    rows = train_rows()
    return TrainRows(rows.inputs, rows.targets.weigh(rows=0.25 + 0.25 * (torch.arange(120.0) % 3)))


def test_a_recipe_refuses_the_step_where_rows_have_no_class_of_their_own():
    values = {"task": "values", "metric": "rmse", "objective": {"loss": "squared_error"}}
    with pytest.raises(ValueError, match="the task classes with it"):
        recipe(step={"name": "error_normalized"}, **values)
    with pytest.raises(MarginsError, match="no mix with error_normalized"):
        trainer(step={"name": "error_normalized"}, mix={"name": "feature_mixup"}).advance()


def test_one_step_of_the_loss_is_one_step_of_the_binary_method():
    features, labels = blobs(40, 2, spread=1.0)
    weight = torch.randn(2, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    leaf = weight.clone().requires_grad_()
    ErrorNormalized()(features @ leaf.T, labels).backward()
    signed = features * (2 * labels[:, None] - 1)
    margins = signed @ (weight[1] - weight[0])
    expected = NormalizedLogisticGD(1.0).weights(margins) @ signed
    torch.testing.assert_close(-(leaf.grad[1] - leaf.grad[0]), 2 * expected)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LogisticGD(0.0), "step_size"),
        (lambda: LogisticGD(max_steps=0), "max_steps"),
        (lambda: LogisticGD().separate(torch.ones(2, 2), torch.tensor([0, 2])), "labels"),
        (lambda: LogisticGD().separate(torch.ones(2, 2), torch.tensor([-1, 1])), "labels"),
        (lambda: LogisticGD().separate(torch.ones(2), torch.tensor([0, 1])), "features"),
        (lambda: LogisticGD().separate(torch.full((1, 2), torch.nan), torch.tensor([0])), "features"),
        (lambda: LinearProbe("newton"), "solver"),
        (lambda: LinearProbe(weight_decay=-1.0), "weight_decay"),
        (lambda: LinearProbe().fit(torch.ones(2, 2), torch.tensor([0, 1, 1]), num_classes=2), "labels"),
        (lambda: LinearProbe().fit(torch.ones(2, 2), torch.tensor([0, 0]), num_classes=1), "num_classes"),
        (lambda: separability(torch.ones(2, 2), torch.tensor([0, 0])), "labels"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(call, words):
    with pytest.raises(MarginsError) as raised:
        call()
    assert raised.value.argument == words
