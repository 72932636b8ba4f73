"""Candidates that are divided over processes: the same values and gradients as in one, and errors on all."""

from __future__ import annotations

import pytest

from gloo_workers import Pool
from harness.cases import CASES
from harness.sharded import sharded_equals_dense

STATISTICS = [case.name for case in CASES if case.form == "statistics"]
both_worlds = pytest.mark.parametrize("world", [2, 3])


@both_worlds
@pytest.mark.parametrize("name", STATISTICS)
def test_sharded_equals_dense(pools: dict[int, Pool], world: int, name: str) -> None:
    sharded_equals_dense(name, pools[world])
