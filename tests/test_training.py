"""Recipes do what their titles say; the trainer sees only its roles and keeps the best epoch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from margins.data import SelectRows, TrainRows
from margins.encoders import Numbers, NumericEncoder
from margins.errors import MarginsError
from margins.evaluation import all_metrics, find_metric
from margins.evaluation.metrics import Metric
from margins.heads import LinearHead
from margins.training import (
    Classifier,
    TrainingSettings,
    all_recipes,
    find_recipe,
    predict_proba,
    recipes_for,
    train,
)

ACCURACY = find_metric("accuracy")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(num: int, seed: int, *, num_classes: int = 3, shift: float = 2.5) -> tuple[Numbers, Tensor]:
    labels = torch.arange(num) % num_classes
    centres = shift * torch.eye(num_classes, 4)
    values = centres[labels] + torch.randn(num, 4, generator=seeded(seed))
    return Numbers(values), labels


def small_model(seed: int = 0, num_classes: int = 3) -> Classifier:
    draws = seeded(seed)
    encoder = NumericEncoder(num_columns=4, width=16, generator=draws)
    return Classifier(encoder, LinearHead(16, num_classes, generator=draws))


def fitted(name: str = "cross_entropy", *, metric: Metric = ACCURACY, seed: int = 0, **settings: float):
    train_rows, select_rows = TrainRows(*blobs(120, 1)), SelectRows(*blobs(60, 2))
    model = small_model(seed)
    objective = find_recipe(name).objective(torch.bincount(train_rows.labels))
    result = train(
        model, objective, train_rows, select_rows,
        metric=metric, settings=TrainingSettings(**settings), generator=seeded(seed + 1),
    )  # fmt: skip
    return model, result


def test_there_are_recipes_enough_for_every_metric_and_the_baseline_comes_first():
    for metric in all_metrics():
        names = [r.name for r in recipes_for(metric)]
        assert names[0] == "cross_entropy"
        assert len(names) >= 7
        assert ("mann_whitney" in names) == (metric.kind == "ranking")
        assert ("any_f1" in names) == (metric.kind == "f1")
    assert len({r.title for r in all_recipes()}) == len(all_recipes())


def test_named_recipes_take_part_once_after_the_baseline():
    names = [r.name for r in recipes_for(ACCURACY, ["focal", "cross_entropy", "focal"])]
    assert names == ["cross_entropy", "focal"]
    with pytest.raises(MarginsError, match="did you mean focal"):
        recipes_for(ACCURACY, ["focl"])
    for names in ([], ["cross_entropy"]):
        with pytest.raises(MarginsError, match="at least one to compare"):
            recipes_for(ACCURACY, names)


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -0.2]])
LABELS = torch.tensor([0, 2])
COUNTS = torch.tensor([16, 4, 0])


def cross_entropy_by_hand(shift: list[list[float]]) -> float:
    scores = (LOGITS + torch.tensor(shift)).double()
    rows = [
        math.log(sum(map(math.exp, s))) - s[y] for s, y in zip(scores.tolist(), LABELS.tolist(), strict=True)
    ]
    return sum(rows) / 2


def value_of(name: str) -> float:
    return find_recipe(name).objective(COUNTS)(LOGITS, LABELS).item()


def test_the_baseline_is_plain_cross_entropy():
    assert value_of("cross_entropy") == pytest.approx(cross_entropy_by_hand([[0.0] * 3] * 2))


def test_logit_adjustment_adds_the_log_prior_and_an_empty_class_counts_as_one_row():
    prior = [math.log(n / 21) for n in (16, 4, 1)]
    assert value_of("logit_adjusted") == pytest.approx(cross_entropy_by_hand([prior] * 2))


def test_class_margins_fall_with_the_fourth_root_of_the_count_and_meet_the_own_class_alone():
    # Fourth roots of 16, 4, 1 are 2, 1.414, 1; the rarest class has the largest margin, 1.
    shift = [[-0.5, 0.0, 0.0], [0.0, 0.0, -1.0]]
    assert value_of("class_margins") == pytest.approx(cross_entropy_by_hand(shift))


def test_label_smoothing_moves_a_tenth_of_the_label_to_all_classes():
    expected = nn.functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1).item()
    assert value_of("label_smoothing") == pytest.approx(expected)


def test_focal_and_generalised_cross_entropy_equal_their_formulas():
    p = LOGITS.softmax(1)[torch.arange(2), LABELS].tolist()
    focal = sum(-((1 - q) ** 2) * math.log(q) for q in p) / 2
    assert value_of("focal") == pytest.approx(focal)
    assert value_of("generalized_cross_entropy") == pytest.approx(sum((1 - q**0.7) / 0.7 for q in p) / 2)


def test_mann_whitney_is_blind_to_a_shift_of_a_rows_logits_as_softmax_is():
    loss = find_recipe("mann_whitney").objective(COUNTS)
    shifted = LOGITS + torch.tensor([[3.0], [-1.0]])
    assert loss(LOGITS, LABELS).item() == pytest.approx(loss(shifted, LABELS).item())
    assert loss(LOGITS, LABELS).item() != pytest.approx(loss(LOGITS * 2, LABELS).item())


@pytest.mark.parametrize("recipe", all_recipes(), ids=lambda r: r.name)
def test_every_recipe_learns_separable_classes(recipe):
    model, result = fitted(recipe.name, max_epochs=40, patience=40, learning_rate=1e-2)
    inputs, labels = blobs(300, 3)
    assert ACCURACY(predict_proba(model, inputs), labels.numpy()) > 0.8
    assert ACCURACY(predict_proba(small_model(), inputs), labels.numpy()) < 0.7
    assert len(result.select_scores) == 40


def test_training_leaves_the_weights_of_the_best_select_epoch():
    model, result = fitted(max_epochs=12, patience=12)
    best = max(result.select_scores)
    assert result.epoch == result.select_scores.index(best) + 1
    inputs, labels = blobs(60, 2)
    assert ACCURACY(predict_proba(model, inputs), labels.numpy()) == best
    # Not vacuous: the last epoch was not the one kept.
    assert result.epoch < len(result.select_scores)


def test_a_metric_that_is_better_when_lower_is_followed_downwards():
    log_loss = find_metric("log_loss")
    model, result = fitted(metric=log_loss, max_epochs=15, patience=15, learning_rate=2e-2)
    assert result.select_scores[result.epoch - 1] == min(result.select_scores) < result.select_scores[0]
    inputs, labels = blobs(60, 2)
    assert log_loss(predict_proba(model, inputs), labels.numpy()) == min(result.select_scores)


def test_training_stops_when_patience_is_at_its_end():
    _, result = fitted(max_epochs=100, patience=3, learning_rate=1e-2)
    assert len(result.select_scores) == result.epoch + 3 < 100


def test_the_same_generators_give_the_same_weights_bit_for_bit_and_no_global_state_is_touched():
    before = torch.get_rng_state()
    legacy = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global state that must stay untouched
    one, again, other = (fitted(seed=s, max_epochs=3)[0].state_dict() for s in (0, 0, 5))
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == legacy  # noqa: NPY002


def test_preprocessing_is_fitted_on_training_rows_alone():
    model, _ = fitted(max_epochs=1)
    assert torch.allclose(model.encoder.mean, blobs(120, 1)[0].values.double().mean(0))


def test_select_rows_choose_the_epoch_but_not_the_way_there():
    weights = {}
    for seed in (2, 7):
        model = small_model()
        train_rows = TrainRows(*blobs(120, 1))
        result = train(
            model, find_recipe("focal").objective(torch.bincount(train_rows.labels)), train_rows,
            SelectRows(*blobs(30, seed)), metric=ACCURACY, settings=TrainingSettings(max_epochs=1),
            generator=seeded(1),
        )  # fmt: skip
        weights[seed] = (model.state_dict(), result.select_scores)
    assert weights[2][1] != weights[7][1]
    assert all(torch.equal(weights[2][0][k], weights[7][0][k]) for k in weights[2][0])


class Scaled(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits * self.log_scale.exp(), labels)


def test_parameters_of_the_objective_are_trained_too():
    objective = Scaled()
    train(
        small_model(), objective, TrainRows(*blobs(120, 1)), SelectRows(*blobs(60, 2)),
        metric=ACCURACY, settings=TrainingSettings(max_epochs=2), generator=seeded(),
    )  # fmt: skip
    assert objective.log_scale.item() != 0


class Broken(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.sum() * math.nan


def test_a_loss_that_is_no_longer_finite_stops_training_by_name():
    with pytest.raises(MarginsError, match=r"loss: expected a finite number, got nan in epoch 1; lower"):
        train(
            small_model(), Broken(), TrainRows(*blobs(20, 1)), SelectRows(*blobs(20, 2)),
            metric=ACCURACY, settings=TrainingSettings(), generator=seeded(),
        )  # fmt: skip


def test_probabilities_sum_to_one_in_float64_and_leave_the_mode_as_it_was():
    model = small_model()
    for mode in (True, False):
        model.train(mode)
        p = predict_proba(model, blobs(5000, 1)[0])
        assert p.dtype == np.float64
        assert p.shape == (5000, 3)
        assert np.allclose(p.sum(1), 1, atol=1e-12)
        assert model.training is mode


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"max_epochs": 0}, "max_epochs"),
        ({"patience": 0}, "patience"),
        ({"batch_size": 0}, "batch_size"),
        ({"min_steps": 0}, "min_steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"learning_rate": math.nan}, "learning_rate"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, word: str):
    with pytest.raises(MarginsError, match=word):
        TrainingSettings(**settings)
