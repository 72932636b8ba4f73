"""Recipes that train without a matrix of scores: a spherical head, and a linear one scored block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import margins
from harness.blockwise import LargestTensor
from made_up_training import blobs, recipe, seeded, select_rows, train_rows
from margins.data import TrainRows
from margins.encoders import Numbers, NumericEncoder
from margins.errors import MarginsError
from margins.heads import LinearHead, SphericalHead, SphericalSettings
from margins.targets import Targets
from margins.training import Network, Recipe, Trainer
from margins.training.checkpoint import read_checkpoint, write_checkpoint
from margins.training.engine import Place
from test_resume import states_equal, without_seconds

SPHERICAL: dict[str, Any] = {
    "head": {"name": "spherical", "learning_rate": 0.5, "weight_decay": 0.02},
    "objective": {"loss": "z_loss", "settings": {"b": 1.0}},
}


def trainer(*, network_seed: int = 0, train: TrainRows | None = None, **changes: Any) -> Trainer:
    """Of a spherical head with V in float64, so that it equals a dense one to rounding."""
    plan = recipe(**{**SPHERICAL, **changes})
    draws = seeded(network_seed)
    encoder = NumericEncoder(num_columns=4, width=16, dropout=0.2, generator=draws)
    head = plan.head.build(16, 3, generator=draws)
    network = Network(encoder, head.double() if isinstance(head, SphericalHead) else head)
    return Trainer(plan, network, train or train_rows(), select_rows(), generator=draws)


class DenseTwin(nn.Module):
    """The same head with all its weights, under the recipe's own optimiser."""

    def __init__(self, head: SphericalHead) -> None:
        super().__init__()
        bias = head.bias()
        assert bias is not None
        self.weight, self.bias = nn.Parameter(head.weight().clone()), nn.Parameter(bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings.double() @ self.weight.T + self.bias


def twins(**changes: Any) -> tuple[Trainer, Trainer]:
    """Trainers with a spherical head and its dense twin; plain SGD everywhere."""
    sgd = {"name": "sgd", "learning_rate": 0.5, "momentum": 0.0, "weight_decay": 0.02}
    changes = {"optimizer": sgd, "max_epochs": 2, **changes}
    ours, twin = trainer(**changes), trainer(**changes)
    assert isinstance(twin.network.head, SphericalHead)
    network = Network(twin.network.encoder, DenseTwin(twin.network.head))
    dense = recipe(**{**SPHERICAL, **changes, "head": {"name": "linear"}})
    return ours, Trainer(dense, network, twin._given, twin._select, generator=twin.engine._generator)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulate": 3},
        {"clip_norm": 0.3},
        {"clip_norm": 0.3, "accumulate": 2},
        {"schedule": {"name": "one_cycle"}},
        {"mix": {"name": "feature_mixup", "alpha": 0.5}},
        {"objective": {"loss": "squared_error"}},
        {"objective": {**SPHERICAL["objective"], "targets": {"class_weight": "balanced"}}},
        {
            "objective": {
                **SPHERICAL["objective"], "penalties": [{"loss": "orthogonal_projection", "weight": 0.1}]
            }
        },
    ],
    ids=lambda changes: ",".join(changes) or "plain",
)  # fmt: skip
def test_a_spherical_head_trains_as_a_dense_one_does(changes: dict[str, Any]):
    if changes.get("objective", {}).get("loss") == "squared_error":
        sgd = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.0, "weight_decay": 0.02}
        changes = {**changes, "optimizer": sgd, "head": {**SPHERICAL["head"], "learning_rate": 0.05}}
    ours, dense = twins(**changes)
    before = [p.clone() for p in ours.network.encoder.parameters()]
    losses = []
    for _ in range(6):
        for t in (ours, dense):
            t.advance()
        losses.append((ours._progress.loss_sum, dense._progress.loss_sum))
    head, twin = ours.network.head, dense.network.head
    assert isinstance(head, SphericalHead)
    np.testing.assert_allclose(*np.array(losses).T, rtol=2e-5)
    torch.testing.assert_close(head.weight(), twin.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.bias(), twin.bias.detach(), rtol=1e-4, atol=1e-5)
    pairs = zip(ours.network.encoder.parameters(), dense.network.encoder.parameters(), before, strict=True)
    for a, b, old in pairs:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert not torch.equal(a, old), "vacuous: the encoder did not learn"


def test_clipping_was_felt():
    plain, clipped = (trainer(max_epochs=2, **c) for c in ({}, {"clip_norm": 0.3}))
    for t in (plain, clipped):
        t.advance()
    moved = [(t.network.head.weight() - trainer().network.head.weight()).norm() for t in (plain, clipped)]
    assert moved[1] < 0.9 * moved[0]


@pytest.mark.parametrize("steps", [9, 14], ids=["mid-epoch", "between epochs"])
@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"mix": {"name": "feature_mixup"}}], ids=str)
def test_going_on_from_a_checkpoint_is_bit_identical(steps: int, changes: dict[str, Any], tmp_path: Path):
    head = {**SPHERICAL["head"], "balance_every": 3}
    changes = {"min_steps": 7, "patience": None, "head": head, **changes}
    whole = trainer(**changes)
    whole.run()
    first = trainer(**changes)
    for _ in range(steps):
        first.advance()
    write_checkpoint(tmp_path / "c", first.state_dict())
    second = trainer(network_seed=9, **changes)
    second.load_state_dict(read_checkpoint(tmp_path / "c"))
    second.run()
    ends = [without_seconds(t.state_dict()) for t in (whole, second)]
    for key in ends[0]:
        assert states_equal(ends[0][key], ends[1][key]), key


def test_a_head_learns_alone_over_an_encoder_that_does_not():
    class Still(nn.Module):
        width = 4

        def fit(self, inputs: Numbers) -> None:
            """Nothing to fit."""

        def forward(self, inputs: Numbers) -> Tensor:
            return inputs.values

    plan = recipe(**SPHERICAL, max_epochs=5)
    head = SphericalHead(4, 3, learning_rate=0.5, generator=seeded())
    t = Trainer(plan, Network(Still(), head), train_rows(), select_rows(), generator=seeded())
    assert t.run().select_scores[-1] > 0.8


def test_a_frozen_head_keeps_its_weights_and_learns_again_in_the_next_phase():
    t = trainer()
    network, given = t.network, t._given
    head = network.head
    assert isinstance(head, SphericalHead)
    for frozen, changes in ((("head",), False), ((), True)):
        before = head.dense()
        again = Trainer(t.recipe, network, given, t._select, generator=seeded(), frozen=frozen)
        encoder = [p.clone() for p in network.encoder.parameters()]
        again.advance()
        assert torch.equal(head.dense(), before) != changes
        assert not all(torch.equal(a, b) for a, b in zip(encoder, network.encoder.parameters(), strict=True))


def table(num: int = 400, seed: int = 0) -> dict[str, Any]:
    inputs, labels = blobs(num, seed, num_classes=4)
    values = inputs.values.double().numpy()
    return {**{f"x{k}": values[:, k] for k in range(4)}, "label": [f"c{k}" for k in labels.tolist()]}


@pytest.mark.parametrize("target", ["classes", "label sets"])
def test_train_save_load_and_predict_with_a_spherical_head(target: str, tmp_path: Path):
    data = table()
    if target == "label sets":
        data["label"] = [f"{name};even" if name in ("c0", "c2") else name for name in data["label"]]
    kind = {"target_kind": "label_set", "separator": ";"} if target == "label sets" else {}
    chosen = {"max_epochs": 8, "head": {"name": "spherical", "learning_rate": 1.0}}
    loss = {"objective": {"loss": "z_loss" if target == "classes" else "squared_error"}}
    if target == "label sets":
        chosen["head"]["learning_rate"] = 0.05
    trained = margins.train(data, target="label", recipe={**chosen, **loss}, out=tmp_path / "run", **kind)
    metric = "accuracy" if target == "classes" else "micro_f1"
    assert trained.scores["report"][metric] > 0.8
    again = margins.load(tmp_path / "run")
    assert isinstance(again.network.head, SphericalHead)
    fresh = table(50, 5)
    assert list(again.predict(fresh)) == list(trained.model.predict(fresh))
    np.testing.assert_array_equal(again.predict_proba(fresh), trained.model.predict_proba(fresh))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a loss of every score": (
        {"objective": {"loss": "cross_entropy"}},
        "objective.loss: .*cross_entropy: its log_partition is a logsumexp, which needs every score",
    ),
    "a loss of another form": ({"objective": {"loss": "mann_whitney"}}, "a loss declared by statistics"),
    "smoothing": ({"targets": {"smooth": 0.1}}, "objective.targets.smooth"),
    "logit adjustment": ({"targets": {"logit_adjustment": 1.0}}, "objective.targets.logit_adjustment"),
    "margins": ({"targets": {"class_margins": 0.5}}, "objective.targets.class_margins"),
    "two passes a step": ({"step": {"name": "sharpness_aware"}}, "step: .*takes one step a batch"),
    "an average": ({"averaging": {"name": "ema"}}, "averaging: .*factored"),
    "half precision": ({"precision": "fp16"}, "precision: .*32 or bf16"),
    "another evaluator": ({"evaluator": "blockwise"}, "evaluator: .*its own"),
    "values": ({"task": "values", "metric": "rmse", "objective": {"loss": "squared_error"}}, "task"),
    "a link": ({"objective": {"loss": "z_loss", "link": "log_softmax"}}, "objective.link"),
    "penalties in parts": (
        {"accumulate": 2, "objective": {"loss": "z_loss", "penalties": [{"loss": "orthogonal_projection"}]}},
        "accumulate: .*penalties",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_go_with_a_spherical_head_is_refused_by_name(what: str):
    changes, message = REFUSED[what]
    targets = changes.pop("targets", None) if "targets" in changes else None
    if targets is not None:
        changes = {"objective": {**SPHERICAL["objective"], "targets": targets}}
    with pytest.raises((MarginsError, ValueError), match=message):
        recipe(**{**SPHERICAL, **changes})


def test_several_ranks_are_refused():
    class TwoRanks:
        world_size, global_rank, device = 2, 0, torch.device("cpu")

    plan = recipe(**SPHERICAL)
    network = Network(NumericEncoder(num_columns=4, width=16, generator=seeded()), plan.head.build(
        16, 3, generator=seeded()
    ))  # fmt: skip
    with pytest.raises(MarginsError, match="one process for a spherical head, got 2 ranks"):
        Trainer(plan, network, train_rows(), select_rows(), generator=seeded(), fabric=TwoRanks())


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "z_loss", "binary_cross_entropy"])
@pytest.mark.parametrize("changes", [{}, {"accumulate": 3}, {"step": {"name": "sharpness_aware"}}], ids=str)
def test_blockwise_trains_as_dense_does(loss: str, changes: dict[str, Any]):
    found = []
    for evaluator in ("dense", "blockwise"):
        plan = recipe(objective={"loss": loss}, evaluator=evaluator, max_epochs=2, **changes)
        draws = seeded()
        encoder = NumericEncoder(num_columns=4, width=16, dropout=0.2, generator=draws)
        network = Network(encoder, LinearHead(16, 3, generator=draws))
        t = Trainer(plan, network, train_rows(), select_rows(), generator=draws)
        start = network.head.weight.detach().clone()
        for _ in range(6):
            t.advance()
        found.append((t._progress.loss_sum, network.head.weight.detach(), start))
    (dense, weight, start), (ours, same, _) = found
    assert ours == pytest.approx(dense, rel=1e-5)
    torch.testing.assert_close(same, weight, rtol=1e-3, atol=1e-4)
    assert (weight - start).abs().max() > 1e-3, "vacuous: the head did not learn"


def test_a_blockwise_step_holds_no_matrix_of_scores():
    num_classes, seen = 100_000, {}
    inputs, _ = blobs(64, 0)
    labels = torch.arange(64)
    rows = TrainRows(inputs, Targets.of_classes(labels, num_classes))
    for evaluator in ("dense", "blockwise"):
        plan = recipe(evaluator=evaluator, batch_size=64, min_steps=1)
        draws = seeded()
        encoder = NumericEncoder(num_columns=4, width=16, generator=draws)
        network = Network(encoder, LinearHead(16, num_classes, generator=draws))
        t = Trainer(plan, network, rows, None, generator=draws)
        with LargestTensor() as watch:
            plan.step.run(t.engine, t._steps[0], Place(0, 0, 0))
        seen[evaluator] = watch.elements
    assert seen["dense"] >= 64 * num_classes, "vacuous: the watcher does not see the scores"
    assert seen["blockwise"] <= 16 * num_classes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {"name": "cosine"}}, "head: .*linear"),
        ({"objective": {"loss": "mann_whitney"}}, "objective.loss"),
        ({"objective": {"loss": "cross_entropy", "link": "log_softmax"}}, "objective.link"),
    ],
)
def test_what_does_not_go_with_blockwise_is_refused_by_name(changes: dict[str, Any], message: str):
    with pytest.raises((MarginsError, ValueError), match=message):
        recipe(evaluator="blockwise", **changes)


def test_settings_reach_the_head_and_recipes_keep_them():
    plan = recipe(**SPHERICAL, evaluator="dense")
    assert isinstance(plan.head, SphericalSettings)
    head = plan.head.build(16, 3, generator=seeded())
    assert (head.learning_rate, head.weight_decay, head.balance_every) == (0.5, 0.02, 100)
    assert Recipe.model_validate(plan.model_dump()) == plan
