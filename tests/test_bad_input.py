"""What a user can get wrong is refused with a message that names the argument and the cure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import margins
from bad_input_cases import ACCEPTED, CASES, Case
from margins.engine import Blockwise, Dense, Evaluator
from margins.losses import (
    ALDRKL,
    LDRKL,
    ALDRKLMemory,
    BinaryCrossEntropy,
    BinaryFocal,
    CompSum,
    CrossEntropy,
    DecoupledSoftmax,
    Focal,
    InfoNCE,
    MultiSimilarity,
    SoftInfoNCE,
    SphericalSoftmax,
    SquaredError,
    StatisticsLoss,
    SupCon,
    TaylorSoftmax,
    ZLoss,
)
from margins.targets import Targets

TESTS = Path(__file__).parent


@cache
def outcomes() -> dict[str, tuple[str, str]]:
    """What each case raised, all in one process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TESTS / "bad_input_cases.py")],
        env={**os.environ, "PYTHONPATH": str(Path(margins.__file__).parents[1])},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (kind, message) for name, (kind, message) in json.loads(done.stdout).items()}


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_bad_input_is_refused_by_name(case: Case) -> None:
    kind, message = outcomes()[case.name]
    assert kind == case.error, f"{case.expression} gave {kind or 'no error'}: {message}"
    missing = [word for word in case.words if word not in message]
    assert not missing, f"{message!r} does not say {missing}"


@pytest.mark.parametrize("case", ACCEPTED, ids=[c.name for c in ACCEPTED])
def test_the_like_of_it_done_right_is_accepted(case: Case) -> None:
    """A guard: the helpers of the cases raise nothing by themselves."""
    assert outcomes()[case.name] == ("", "")


def test_the_cases_differ_and_are_many() -> None:
    assert len({c.name for c in CASES}) == len({c.expression for c in CASES}) == len(CASES)
    assert len(CASES) >= 100


LOSSES: list[StatisticsLoss] = [
    *(CrossEntropy(), Focal(), CompSum(), BinaryCrossEntropy(), BinaryFocal(), InfoNCE(), SupCon()),
    *(DecoupledSoftmax(), SoftInfoNCE(), MultiSimilarity(), LDRKL(), ALDRKL(), ALDRKLMemory(num_rows=3)),
    *(ZLoss(), SquaredError(), SphericalSoftmax(), TaylorSoftmax()),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("evaluator", [Dense(), Blockwise(block_size=2)], ids=["dense", "blockwise"])
@pytest.mark.parametrize("kind", ["classes", "label sets", "dense"])
def test_an_empty_batch_gives_an_attached_zero(loss: StatisticsLoss, evaluator: Evaluator, kind: str) -> None:
    targets = {
        "classes": Targets.of_classes(torch.zeros(0, dtype=torch.long), 5),
        "label sets": Targets.of_label_sets([], 5),
        "dense": Targets.of_scores(torch.zeros(0, 5)),
    }[kind]
    embeddings = torch.zeros(0, 4, requires_grad=True)
    candidates = torch.ones(5, 4, requires_grad=True)
    side = {name: torch.zeros(0, 5) for name in loss.side_names}
    ids = torch.zeros(0, dtype=torch.long)
    value = loss.on_candidates(embeddings, candidates, targets, evaluator=evaluator, side=side, ids=ids)
    assert value.shape == ()
    assert value.item() == 0
    assert value.requires_grad
    value.backward()
    assert candidates.grad is not None
    assert not candidates.grad.any()
    assert loss.per_anchor(torch.zeros(0, 5), targets, side=side, ids=ids).shape == (0,)
