"""Every card that names a recipe: the default recipe with its changes trains, saves, loads and predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import margins
from margins.cards import Card, all_cards
from margins.evidence import all_methods

all_methods()
WITH_RECIPE = {path: card for path, card in all_cards().items() if card.recipe is not None}
TEXT_ENCODERS = ("hashed_text", "transformer_text")


def _table(card: Card) -> tuple[dict[str, Any], dict[str, Any]]:
    """A small table that the recipe can train on, and the roles of its columns."""
    recipe, draws = card.recipe or {}, np.random.default_rng(0)
    group = np.arange(160) % 3
    if recipe.get("encoder", {}).get("name") in TEXT_ENCODERS:
        words = ["red apple", "blue sky", "green field"]
        inputs: dict[str, Any] = {"text": [f"{words[g]} number {i % 7}" for i, g in enumerate(group)]}
    elif recipe.get("encoder", {}).get("name") == "embeddings":
        inputs = {"vector": (np.eye(3)[group] + 0.3 * draws.normal(size=(160, 3))).tolist()}
    else:
        numbers = np.eye(3)[group] * 3 + draws.normal(size=(160, 3))
        inputs = {f"x{place}": numbers[:, place] for place in range(3)}
    task = recipe.get("task") or ("classes" if "classes" in card.targets else _task_of(card))
    target: Any = {
        "classes": [str(g) for g in group],
        "matches": [str(g) for g in group],
        "label_sets": [f"{'abc'[g]};{'de'[i % 2]}" for i, g in enumerate(group)],
        "values": (group * 1.5 + draws.normal(size=160) * 0.1).tolist(),
    }[task]
    more: dict[str, Any] = {
        "label_sets": {"separator": ";"}, "classes": {"class_order": ["0", "1", "2"]},
    }.get(task, {})  # fmt: skip
    roles = {"target": "y", "inputs": list(inputs), **more}
    return {**inputs, "y": target}, roles


def _task_of(card: Card) -> str:
    return {"label sets": "label_sets", "values": "values", "matches": "matches"}[
        next(kind for kind in card.targets if kind in ("label sets", "values", "matches"))
    ]


@pytest.mark.parametrize("component", sorted(WITH_RECIPE))
def test_the_recipe_of_a_card_trains_and_its_model_is_kept(component: str, tmp_path: Path) -> None:
    card = WITH_RECIPE[component]
    table, roles = _table(card)
    trained = margins.train(
        table, recipe={**(card.recipe or {}), "max_epochs": 2}, out=tmp_path / "run", device="cpu", **roles
    )
    history = [record for phase in trained.fitted for record in phase.history]
    assert len(history) >= 2
    assert all(np.isfinite(record.loss) for record in history)
    again = margins.load(tmp_path / "run")
    found, kept = trained.model.predict(table), again.predict(table)
    assert len(found) == len(table["y"])
    assert [str(a) for a in found] == [str(a) for a in kept]


def test_most_trainable_methods_have_a_recipe() -> None:
    assert len(WITH_RECIPE) >= 1
