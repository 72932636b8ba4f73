"""Training against the class prior decides for rare classes; probabilities keep the shares of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import margins
from made_up_training import recipe
from margins.training.fit import train
from margins.training.prior import prior_shift

COUNTS = torch.tensor([80, 15, 5])
PRIOR = COUNTS.double() / 100


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"draw": {"name": "class_balanced"}}, torch.full((3,), 1 / 3)),
        ({"objective": {"targets": {"class_weight": "balanced"}}}, torch.full((3,), 1 / 3)),
        ({"objective": {"targets": {"logit_adjustment": 1.0}}}, torch.full((3,), 1 / 3)),
        ({"objective": {"targets": {"logit_adjustment": 0.5}}}, PRIOR**0.5),
    ],
)
def test_the_shift_leads_from_the_prior_that_training_saw_to_that_of_the_data(
    changes: dict, seen: torch.Tensor
):
    shift = prior_shift(recipe(**changes), COUNTS)
    assert shift is not None
    # A model that knows nothing of a row answers with the prior it saw; shifted, with that of the data.
    answer = (torch.log(seen.double()) + shift).softmax(0)
    assert torch.allclose(answer, PRIOR, atol=1e-6)


def test_training_with_the_prior_as_it_is_needs_no_shift():
    for changes in (
        {},
        {"objective": {"loss": "focal", "targets": {"smooth": 0.1}}},
        {"mix": {"name": "feature_mixup"}},
    ):
        assert prior_shift(recipe(**changes), COUNTS) is None


def rows(num: int, seed: int) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    rare = draws.random(num) < 0.1
    return {"x": draws.normal(size=num) + 1.5 * rare, "label": np.where(rare, "rare", "usual").tolist()}


@pytest.mark.parametrize(
    "changes",
    [{"draw": {"name": "class_balanced"}}, {"objective": {"targets": {"class_weight": "balanced"}}},
     {"objective": {"targets": {"logit_adjustment": 1.0}}}],
    ids=["draw", "weights", "adjustment"],
)  # fmt: skip
def test_decisions_are_for_the_rare_class_and_probabilities_for_the_data(changes: dict, tmp_path):
    recipe_changes = {"max_epochs": 15, "decisions": {"calibration": None}, "metric": "balanced_accuracy"}
    plain, against = (train(rows(3000, 0), recipe={**recipe_changes, **c}) for c in ({}, changes))
    fresh = {"x": rows(3000, 1)["x"]}
    share = {run: np.mean(np.array(run.model.predict(fresh)) == "rare") for run in (plain, against)}
    assert share[against] > share[plain] + 0.1
    p = {run: run.model.predict_proba(fresh)[:, run.model.classes.index("rare")] for run in (plain, against)}
    assert p[against].mean() == pytest.approx(0.1, abs=0.03)
    assert np.abs(p[against] - p[plain]).mean() < 0.04
    assert against.scores["report"]["balanced_accuracy"] > plain.scores["report"]["balanced_accuracy"]
    assert any("rare classes count more" in sentence for sentence in against.told)
    loaded = margins.load(against.model.save(tmp_path / "m"))
    assert np.array_equal(loaded.predict_proba(fresh), against.model.predict_proba(fresh))
    assert list(loaded.predict(fresh)) == list(against.model.predict(fresh))
