"""Named objectives do what their titles say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from made_up_training import select_rows, trainer
from margins.errors import MarginsError
from margins.evaluation import find_metric
from margins.targets import Targets
from margins.training import Objective, all_presets, find_preset, presets_for
from margins.training.objective import StepTargets
from margins.training.predicting import outputs_of, score_of

ACCURACY = find_metric("accuracy")
CLASS_METRICS = ["macro_f1", "accuracy", "balanced_accuracy", "average_precision", "auroc", "log_loss"]
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -0.2]])
LABELS = torch.tensor([0, 2])
COUNTS = torch.tensor([16, 4, 0])


def test_there_are_presets_enough_for_every_metric_of_classes_and_the_baseline_comes_first():
    for metric in map(find_metric, CLASS_METRICS):
        names = [p.name for p in presets_for(metric)]
        assert names[0] == "cross_entropy"
        assert len(names) >= 7
        assert ("mann_whitney" in names) == (metric.kind == "ranking")
        assert ("any_f1" in names) == (metric.kind == "f1")
    assert len({p.title for p in all_presets()}) == len(all_presets())


def test_named_presets_take_part_once_after_the_baseline():
    names = [p.name for p in presets_for(ACCURACY, ["focal", "cross_entropy", "focal"])]
    assert names == ["cross_entropy", "focal"]
    with pytest.raises(MarginsError, match="did you mean focal"):
        presets_for(ACCURACY, ["focl"])
    for names in ([], ["cross_entropy"]):
        with pytest.raises(MarginsError, match="at least one to compare"):
            presets_for(ACCURACY, names)


def cross_entropy_by_hand(shift: list[list[float]]) -> float:
    scores = (LOGITS + torch.tensor(shift)).double()
    rows = [
        math.log(sum(map(math.exp, s))) - s[y] for s, y in zip(scores.tolist(), LABELS.tolist(), strict=True)
    ]
    return sum(rows) / 2


def value_of(name: str, logits: torch.Tensor = LOGITS) -> float:
    targets = Targets.of_classes(LABELS, 3)
    step = StepTargets(targets, targets, 0, torch.arange(2))
    share = Objective(find_preset(name).objective, COUNTS)(logits, logits, step)
    return (share.total / share.denominator).item()


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
    shifted = LOGITS + torch.tensor([[3.0], [-1.0]])
    assert value_of("mann_whitney") == pytest.approx(value_of("mann_whitney", shifted))
    assert value_of("mann_whitney") != pytest.approx(value_of("mann_whitney", LOGITS * 2))


@pytest.mark.parametrize("preset", all_presets(), ids=lambda p: p.name)
def test_every_preset_learns_separable_classes(preset):
    trained = trainer(
        objective=preset.objective.model_dump(), max_epochs=40, patience=40,
        optimizer={"name": "adamw", "learning_rate": 1e-2},
    )  # fmt: skip
    fabric, fresh = trained.engine.fabric, select_rows(300, 3)
    before = score_of(fabric, trained.network, fresh, ACCURACY, "classes")
    result = trained.run()
    assert score_of(fabric, trained.network, fresh, ACCURACY, "classes") > 0.8 > 0.7 > before
    assert len(result.select_scores) == 40
    assert outputs_of(fabric, trained.network, fresh.inputs)[0].shape == (300, 3)
