"""Recipes are plain data: they go through YAML and back, and what is wrong with them is told by its place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from made_up_training import recipe, train_rows
from margins.data.columns import Columns
from margins.data.settings import validated
from margins.errors import MarginsError
from margins.training import Recipe
from margins.training.defaults import default_recipe
from margins.training.objective import class_weights
from margins.training.objective_settings import loss_named, names_of_losses, new_loss
from margins.training.parts.averaging import EMA, AveragedWeights, EpochMean
from margins.training.parts.drawing import ClassBalanced, SeveralPerClass
from margins.training.parts.schedules import Constant, Cosine, OneCycle
from margins.training.prior import refuse_double_correction
from margins.training.recipe import read_recipe

RICH: dict[str, Any] = {
    "objective": {"loss": "focal", "settings": {"gamma": 1.5}, "targets": {"smooth": 0.1},
                  "penalties": [{"loss": "orthogonal_projection", "weight": 0.2}]},
    "draw": {"name": "several_per_class", "items": 8},
    "mix": {"name": "feature_mixup"},
    "step": {"name": "sharpness_aware"},
    "refresh": [{"name": "label_correction"}],
    "plan": [{"changes": {"draw": {"name": "class_balanced"}, "max_epochs": 2}, "frozen": ["encoder"], "fresh_head": True}],
    "optimizer": {"name": "sgd"},
    "schedule": {"name": "one_cycle"},
    "averaging": {"name": "ema"},
    "clip_norm": 1.0,
    "precision": "bf16",
}  # fmt: skip


@pytest.mark.parametrize("changes", [{}, RICH], ids=["plain", "rich"])
def test_a_recipe_goes_through_yaml_and_back(changes: dict[str, Any], tmp_path: Path):
    first = recipe(**changes)
    (tmp_path / "r.yaml").write_text(first.to_yaml())
    again = validated(Recipe, read_recipe(tmp_path / "r.yaml"), what="r.yaml")
    assert again == first
    assert again.to_yaml() == first.to_yaml()
    assert all(v == getattr(again.optimizer, k) for k, v in changes.get("optimizer", {}).items())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"optimiser": {"name": "sgd"}}, r"recipe: optimiser: .*did you mean optimizer\?"),
    "nested key": ({"optimizer": {"name": "sgd", "momentun": 0.5}}, r"optimizer\.sgd\.momentun.*did you mean momentum"),
    "key of a phase": ({"plan": [{"frozn": []}]}, r"plan\.0\.frozn.*did you mean frozen"),
    "name of a part": ({"schedule": {"name": "cosin"}}, r"schedule: expected one of .*'cosine'"),
    "type": ({"max_epochs": "many"}, r"max_epochs.*integer.*'many'"),
    "range": ({"max_epochs": 0}, r"max_epochs.*greater than or equal to 1.*0"),
    "infinite": ({"clip_norm": math.inf}, r"clip_norm"),
    "loss": ({"objective": {"loss": "cross_entrop"}}, r"did you mean cross_entropy"),
    "hyperparameter": ({"objective": {"loss": "focal", "settings": {"gama": 1}}}, r"did you mean gamma"),
    "value of a hyperparameter": ({"objective": {"loss": "focal", "settings": {"gamma": -1}}}, r"gamma"),
    "kind of a hyperparameter": ({"objective": {"loss": "focal", "settings": {"gamma": "x"}}}, r"focal"),
    "metric": ({"metric": "acuracy"}, r"did you mean accuracy"),
    "metric of another task": ({"metric": "rmse"}, r"metric: expected a metric of classes"),
    "loss of another task": ({"objective": {"loss": "sup_con"}}, r"task: matches"),
    "task of another loss": ({"task": "matches", "metric": "map@r"}, r"sup_con is one"),
    "penalty": ({"objective": {"penalties": [{"loss": "focal"}]}}, r"a loss of features"),
    "tuned cut for another goal": ({"metric": "log_loss", "decisions": {"cut": "tuned"}}, r"metric: expected a metric of decisions .*'?log_loss.*macro_f1"),
    "tuned cut of another task": (
        {"task": "label_sets", "metric": "macro_f1", "objective": {"loss": "binary_cross_entropy"}, "decisions": {"cut": "tuned"}},
        r"decisions\.cut: expected largest with the task label_sets.*thresholds",
    ),
    "adjustment of label sets by another loss": (
        {"task": "label_sets", "metric": "macro_f1", "objective": {"loss": "dice", "targets": {"logit_adjustment": 1}}},
        r"logit_adjustment: expected the loss binary_cross_entropy or binary_focal.*got dice",
    ),
    "adjustment of values": (
        {"task": "values", "metric": "rmse", "objective": {"loss": "squared_error", "targets": {"logit_adjustment": 1}}},
        r"logit_adjustment: expected the task classes",
    ),
    "weights of label sets": (
        {"task": "label_sets", "metric": "macro_f1", "objective": {"loss": "binary_cross_entropy", "targets": {"logit_adjustment": 1, "class_weight": "balanced"}}},
        r"class_weight: expected the task classes",
    ),
    "micro-batches of two passes": ({"accumulate": 2, "step": {"name": "sharpness_aware"}}, r"accumulate"),
    "phase with another encoder": ({"plan": [{"changes": {"encoder": {"name": "tabular"}}}]}, r"plan\.0\.changes.*encoder"),
    "phase that does not fit": ({"plan": [{"changes": {"max_epochs": 0}}]}, r"plan\.0\.changes.*max_epochs"),
    "classes for values": (
        {"task": "values", "metric": "rmse", "objective": {"loss": "squared_error", "targets": {"class_margins": 1}}},
        r"class_margins.*: expected the task classes",
    ),
    "encoder setting": ({"encoder": {"name": "tabular", "widht": 3}}, r"did you mean width"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_in_a_recipe_is_told_with_its_place_and_cure(case: str):
    changes, words = WRONG[case]
    plain = {"task": "classes", "encoder": {"name": "tabular"}, "metric": "accuracy"}
    with pytest.raises(MarginsError, match=words) as told:
        validated(Recipe, {**plain, **changes}, what="recipe")
    assert "\n" not in str(told.value)
    assert "pydantic" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("!!python/object/apply:os.system ['true']", "tags that make objects"), ("a: [1,", "plain YAML"),
     ("- 1", "keys of a recipe"), ("", "keys of a recipe")],
    ids=["object", "broken", "list", "empty"],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_refused(text: str, words: str, tmp_path: Path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(MarginsError, match=words):
        read_recipe(tmp_path / "r.yaml")
    with pytest.raises(MarginsError, match="No such file"):
        read_recipe(tmp_path / "none.yaml")


def test_two_corrections_of_the_prior_are_a_recipe_that_training_refuses_unless_it_accepts_them():
    both = {"draw": {"name": "class_balanced"}, "objective": {"targets": {"class_weight": "balanced"}}}
    with pytest.raises(MarginsError, match=r"draw and .*class_weight.*effects multiply.*16\.0 by draw"):
        refuse_double_correction(recipe(**both), torch.tensor([80, 15, 5]), "abc")
    accepted = recipe(**both, accept_double_correction=True)
    assert accepted.accept_double_correction
    refuse_double_correction(accepted, torch.tensor([80, 15, 5]), "abc")


def test_a_plan_is_one_recipe_a_phase_and_each_has_draws_of_its_own():
    first, second = recipe(**RICH).phases()
    assert first.plan == second.plan == ()
    assert (first.draw.name, second.draw.name) == ("several_per_class", "class_balanced")
    assert second.max_epochs == 2
    assert second.seed != first.seed
    assert second.objective == first.objective


@pytest.mark.parametrize(
    ("inputs", "kind", "expected"),
    [({"t": "text"}, "label", ("classes", "hashed_text", "cross_entropy", "macro_f1")),
     ({"t": "text"}, "label_set", ("label_sets", "hashed_text", "binary_cross_entropy", "macro_f1")),
     ({"a": "numeric", "b": "categorical"}, "value", ("values", "tabular", "squared_error", "rmse")),
     ({"i": "image"}, "label", ("classes", "small_resnet", "cross_entropy", "macro_f1")),
     ({"e": "embedding"}, "path", ("label_sets", "embeddings", "binary_cross_entropy", "macro_f1"))],
)  # fmt: skip
def test_defaults_follow_from_the_kinds_of_columns(inputs: dict, kind: Any, expected: tuple[str, ...]):
    found = default_recipe(Columns(inputs=inputs, target="y", target_kind=kind))
    assert (found.task, found.encoder.name, found.objective.loss, found.metric) == expected


@pytest.mark.parametrize(
    ("inputs", "encoder", "expected"),
    [({"e": "embedding"}, {}, ("sgd", 4.0, 60)), ({"e": "embedding"}, {"depth": 2}, ("adamw", 2e-3, 100)),
     ({"t": "text"}, {"name": "pretrained_text", "model": "m"}, ("sgd", 4.0, 60)),
     ({"t": "text"}, {"name": "pretrained_text", "model": "m", "mode": "finetune"}, ("adamw", 3e-5, 4)),
     ({"t": "text"}, {}, ("adamw", 2e-3, 30)), ({"i": "image"}, {"name": "small_vit"}, ("adamw", 1e-3, 30))],
)  # fmt: skip
def test_the_pace_follows_from_the_encoder_that_is_chosen(inputs: dict, encoder: dict, expected: tuple):
    columns = Columns(inputs=inputs, target="y", target_kind="label")
    found = default_recipe(columns, {"encoder": encoder})
    assert (found.optimizer.name, found.optimizer.learning_rate, found.max_epochs) == expected


def test_changes_are_laid_over_defaults_and_a_part_with_another_name_starts_anew():
    columns = Columns(inputs={"i": "image"}, target="y", target_kind="label")
    kept = default_recipe(columns, {"optimizer": {"weight_decay": 0.5}})
    assert (kept.optimizer.learning_rate, kept.optimizer.weight_decay) == (5e-3, 0.5)
    other = default_recipe(columns, {"optimizer": {"name": "sgd"}})
    assert other.optimizer.learning_rate == 0.1
    assert (
        default_recipe(columns, num_rows=100).max_epochs > default_recipe(columns, num_rows=60_000).max_epochs
    )
    with pytest.raises(MarginsError, match="one of classes"):
        default_recipe(columns, {"task": "clases"})


def test_every_loss_has_a_name_by_which_it_is_found_and_made():
    needed = {"aldrkl_memory": {"num_rows": 4}, "weighted_sum": {"parts": [[1.0, "cross_entropy"]]}}
    for name in names_of_losses("statistics", "pairs", "counts", "list", "rows", "ordered counts", "bags"):
        settings = needed.get(name, {})
        assert type(new_loss(name, settings)) is loss_named(name) is loss_named(loss_named(name).__name__)


def test_parts_of_a_weighted_sum_are_named_in_a_recipe():
    parts = [[2.0, "normalized_cross_entropy"], [0.5, {"comp_sum": {"tau": 2.0}}]]
    scores, labels = (
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 2, 0, 1]),
    )
    found = new_loss("weighted_sum", {"parts": parts})(scores, labels)
    own = 2.0 * new_loss("normalized_cross_entropy", {})(scores, labels)
    torch.testing.assert_close(found, own + 0.5 * new_loss("comp_sum", {"tau": 2.0})(scores, labels))
    for wrong in (["cross_entropy"], [[1.0]], [[1.0, {"comp_sum": {}, "focal": {}}]], [3]):
        with pytest.raises(MarginsError, match="pairs of a weight and the name"):
            new_loss("weighted_sum", {"parts": wrong})
    with pytest.raises(MarginsError, match="did you mean focal"):
        new_loss("weighted_sum", {"parts": [[1.0, "focel"]]})


def test_class_weights_are_those_of_their_formulas_and_rows_weigh_one_on_average():
    counts = torch.tensor([900.0, 90.0, 10.0])
    assert torch.allclose(class_weights("balanced", counts), 1000 / (3 * counts))
    effective = (1 - 0.999) / (1 - 0.999**counts)
    assert torch.allclose(
        class_weights("effective_number", counts), effective * 1000 / (effective * counts).sum()
    )


def test_schedules_are_those_of_their_formulas():
    assert [Constant().factor(step, 10) for step in range(3)] == [1, 1, 1]
    assert [Constant(warmup=0.3).factor(step, 10) for step in range(4)] == [0.25, 0.5, 0.75, 1]
    assert Cosine().factor(5, 10) == pytest.approx(0.5)
    factors = [OneCycle().factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.04)
    assert max(factors) == factors[30] == 1
    assert factors[-1] < 0.001
    assert factors[:31] == sorted(factors[:31])
    assert factors[30:] == sorted(factors[30:], reverse=True)


def test_averages_are_those_of_their_formulas_and_leave_the_weights_alone():
    layer = torch.nn.Linear(1, 1, bias=False)
    ema, mean = AveragedWeights(layer, EMA(decay=0.8)), AveragedWeights(layer, EpochMean(start=0.5))
    for step in range(8):
        with torch.no_grad():
            layer.weight.fill_(float(step))
        ema.after_step(progress=(step + 1) / 8, ends_epoch=True)
        mean.after_step(progress=(step + 1) / 8, ends_epoch=True)
    by_hand = 0.0
    for step in range(8):
        share = max(0.2, 1 / (step + 1))
        by_hand += share * (step - by_hand)
    for averaged, expected in ((ema, by_hand), (mean, (4 + 5 + 6 + 7) / 4)):
        with averaged.in_place():
            assert layer.weight.item() == pytest.approx(expected)
        assert layer.weight.item() == 7


def test_a_balanced_draw_shows_classes_alike_and_all_their_rows_in_turn():
    rows = train_rows(120)
    labels = rows.class_ids()
    uneven = type(rows)(rows.inputs, rows.targets.take(torch.tensor([0] * 90 + [1] * 20 + [2] * 10)))
    order = ClassBalanced().order(uneven, torch.Generator().manual_seed(0))
    drawn = uneven.class_ids()[order]
    assert len(order) == 120
    assert drawn.bincount().tolist() == [40, 40, 40]
    assert order[drawn == 2].bincount()[110:].tolist() == [4] * 10
    assert drawn[:12].unique().numel() == 3
    assert labels.unique().numel() == 3


def test_class_batches_hold_several_rows_of_each_class_and_none_twice():
    rows = train_rows(100)
    order = SeveralPerClass(items=4).order(rows, torch.Generator().manual_seed(0))
    labels = rows.class_ids()[order].reshape(-1, 4)
    assert (labels == labels[:, :1]).all()
    assert order.unique().numel() == len(order) == 96
    with pytest.raises(MarginsError, match=r"lower draw\.items"):
        SeveralPerClass(items=50).order(rows, torch.Generator())


def test_yaml_of_a_recipe_is_plain():
    assert "!!" not in recipe(**RICH).to_yaml()
    assert yaml.safe_load(recipe().to_yaml())["encoder"]["name"] == "tabular"
