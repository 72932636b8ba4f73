"""The spread over seeds: one division of the rows, other draws in each run."""

from __future__ import annotations

import numpy as np
import pytest

from margins.errors import MarginsError
from margins.training import protocols
from margins.training.protocols import seed_spread


def table(num: int = 240) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(num, 2))
    return {
        "a": x[:, 0],
        "b": x[:, 1],
        "label": (x.sum(1) + np.random.default_rng(1).normal(size=num) > 0).astype(int),
    }


def test_seeds_change_the_draws_and_not_the_rows(monkeypatch: pytest.MonkeyPatch):
    divisions = []
    train = protocols.train

    def watched(*args, **kwargs):
        trained = train(*args, **kwargs)
        divisions.append(trained.division)
        return trained

    monkeypatch.setattr(protocols, "train", watched)
    found = seed_spread(table(), seeds=[0, 1, 2], recipe={"max_epochs": 4, "metric": "accuracy"})
    assert found.metric == "accuracy"
    assert found.mean == pytest.approx(np.mean(found.scores))
    assert found.deviation == pytest.approx(np.std(found.scores, ddof=1))
    assert len({d.report.tobytes() for d in divisions}) == 1
    assert found.churn is not None
    assert 0 < found.churn < 0.5
    again = seed_spread(table(), seeds=[0, 1, 2], recipe={"max_epochs": 4, "metric": "accuracy"})
    assert again == found


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"seeds": [1]}, "two different"),
        ({"seeds": [1, 1]}, "two different"),
        ({"recipe": {"seed": 3}}, "no seed"),
    ],
)
def test_a_spread_without_a_meaning_is_refused(changes: dict, word: str):
    with pytest.raises(MarginsError, match=word):
        seed_spread(table(40), **changes)
