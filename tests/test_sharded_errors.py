"""Whatever keeps a process from going on is raised on every one of them, and none waits for ever."""

from __future__ import annotations

import pytest
import torch

from gloo_workers import Pool
from harness.sharded_refusals import ODD, posed

both_worlds = pytest.mark.parametrize("world", [2, 3])
SAID = {
    "fewer anchors": "number of anchors",
    "other anchors": "embeddings: expected the same on every rank",
    "float64": "dtype of the scores",
    "other width": "axes of the embeddings",
    "other labels": "targets: expected the same on every rank",
    "targets over its own": "call: expected the same on every rank",
    "a label outside": "labels: expected integers in [0, C)",
    "not finite": "candidates: expected finite numbers",
    "overflow": "scores of rank LAST",
    "another loss": "loss: expected the same on every rank",
    "another temperature": "loss: expected the same on every rank",
    "an error in the scores": "no scores today",
}


@both_worlds
@pytest.mark.parametrize("name", ODD)
def test_an_odd_rank_is_refused_on_every_rank_and_the_group_works_on(
    pools: dict[int, Pool], world: int, name: str
) -> None:
    answers = pools[world].run("refused_posing", [name] * world)
    for message, value in answers:
        assert SAID[name].replace("LAST", str(world - 1)) in message
        assert value > 0
        assert value == answers[0][1]
    told = [message for message, _ in answers[:-1]]
    assert all(f"rank {world - 1}" in message for message in told), told


@both_worlds
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("targets for too many", "candidates of all ranks"),
        ("more targets", "candidates of all ranks"),
        ("a label outside", "labels"),
        ("layers", "targets"),
    ],
)
def test_what_is_wrong_everywhere_is_refused_everywhere(
    pools: dict[int, Pool], world: int, name: str, said: str
) -> None:
    assert all(said in m for m in pools[world].run("refused_for_all", [name] * world))


@both_worlds
def test_a_rank_with_too_few_documents_is_refused_on_every_rank(pools: dict[int, Pool], world: int) -> None:
    assert all("documents" in m for m in pools[world].run("too_few_documents"))


@pytest.mark.parametrize("inside", [False, True], ids=["absent", "dead"])
def test_a_rank_that_does_not_answer_is_named(tmp_path_factory: pytest.TempPathFactory, inside: bool) -> None:
    with Pool(3, tmp_path_factory.mktemp("left"), timeout=3 if not inside else 60) as pool:
        pool.run("refused_posing", ["overflow"] * 3)  # all are there and connected
        if inside:
            pool.ask("left_waiting", [True] * 3, ranks=(2,))
        messages = pool.run("left_waiting", [inside] * 3, ranks=(0, 1))
    assert all(m.startswith("rank 2: expected an answer within the time-out") for m in messages), messages


def test_alone_nothing_is_refused() -> None:
    assert float(posed(labels=torch.tensor([0, 1, 2, 0]))) > 0
