"""Heads for training alone: what they are, what is kept, and what a probe finds before and behind them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from made_up_training import SUP_CON, blobs, recipe, seeded, select_rows, train_rows
from margins import load, train
from margins.data.settings import validated
from margins.diagnose import LayerProbe, layer_outputs, layer_probe
from margins.encoders import NumericEncoder
from margins.errors import MarginsError
from margins.heads import Disposable, DisposableSettings, LinearHead, SymmetricReLU, TrainingOnly
from margins.training import Network, Recipe, Trainer

D = 6
KINDS = ("none", "linear", "mlp", "identity", "reweight")


def embeddings(num: int = 5) -> torch.Tensor:
    return torch.randn(num, D, generator=seeded(3))


def test_a_reweighting_by_one_is_no_head():
    x = embeddings()
    head = Disposable(D, kind="reweight", decay=1.0, generator=seeded())
    assert torch.equal(head(x), x)
    assert torch.equal(Disposable(D, kind="none", generator=seeded())(x), x)
    assert head.num_seen == D
    assert not list(head.parameters())
    assert not head.state_dict()


def test_the_gradient_of_a_coordinate_is_divided_by_the_power_of_its_place():
    x = embeddings().requires_grad_()
    head = Disposable(D, kind="reweight", decay=1.5, generator=seeded())
    torch.testing.assert_close(head(x), x / 1.5 ** torch.arange(D))
    (plain,) = torch.autograd.grad((3 * x).sin().sum(), x)
    upstream = torch.randn(x.shape, generator=seeded(4))
    (found,) = torch.autograd.grad(head(x), x, upstream)
    torch.testing.assert_close(found, upstream / 1.5 ** torch.arange(D))
    assert plain.abs().max() > 1


@pytest.mark.parametrize(("width", "decay"), [(2048, 1.01), (64, 1.45), (8, 2.0)])
def test_without_a_decay_the_loss_sees_a_twentieth_of_the_coordinates(width: int, decay: float):
    head = Disposable(width, kind="reweight", generator=seeded())
    assert head.decay == pytest.approx(decay, abs=0.005)
    assert head.num_seen == pytest.approx(max(2, width / 20), rel=0.01)
    assert bool(torch.isfinite(head(torch.ones(1, width))).all())


def test_the_identity_starts_as_one_and_learns_a_threshold():
    x = embeddings().requires_grad_()
    head = Disposable(D, kind="identity", generator=seeded())
    assert torch.equal(head(x), x)
    (grad,) = torch.autograd.grad(head(x), x, torch.ones_like(x))
    assert torch.equal(grad, torch.ones_like(x))
    middle = next(m for m in head.modules() if isinstance(m, SymmetricReLU))
    with torch.no_grad():
        middle.threshold.fill_(0.5)
    shrunk = x.sign() * (x.abs() - 0.5).clamp(min=0)
    torch.testing.assert_close(middle(x), shrunk)
    middle(x).sum().backward()
    assert middle.threshold.grad == -((x > 0.5).sum() - (x < -0.5).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_changes_nothing_in_what_is_kept(kind: Any):
    x = embeddings()
    kept = x.clone()
    head = TrainingOnly(Disposable(D, kind=kind, generator=seeded()))
    behind = head(x)
    assert torch.equal(head.eval()(x), kept)
    assert torch.equal(head.inner.representation(x), kept)
    assert torch.equal(x, kept)
    assert torch.equal(behind, kept) == (kind in ("none", "identity"))


@pytest.mark.parametrize("kind", KINDS)
def test_heads_built_from_settings_have_their_shapes_and_leave_the_global_generator_alone(kind: Any):
    before = torch.get_rng_state()
    settings = DisposableSettings(kind=kind)
    one, same = (settings.build(D, 3, generator=seeded(1)) for _ in range(2))
    assert one(embeddings()).shape == (5, 3)
    assert torch.equal(one(embeddings()), same(embeddings()))
    assert torch.equal(torch.get_rng_state(), before)
    one(embeddings()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in one.parameters())


def test_sizes_of_linear_and_mlp_are_those_asked_for():
    mlp = Disposable(D, kind="mlp", hidden=9, num_outputs=4, generator=seeded())
    assert [tuple(p.shape) for p in mlp.parameters()] == [(9, D), (9,), (4, 9), (4,)]
    settings = DisposableSettings(kind="linear", num_outputs=2)
    assert settings.build(D, 3, generator=seeded())(embeddings()).shape == (5, 3)


def trainer_of(head: dict[str, Any], network_seed: int = 0, **changes: Any) -> Trainer:
    draws, settings = seeded(network_seed), DisposableSettings(**head)
    encoder = NumericEncoder(num_columns=4, width=16, dropout=0.0, generator=draws)
    network = Network(encoder, settings.build(16, 3, generator=draws))
    chosen = recipe(head={"name": "disposable", **head}, **changes)
    return Trainer(chosen, network, train_rows(), select_rows(), generator=draws)


@pytest.mark.parametrize("kind", KINDS)
def test_classes_are_learned_through_it_and_the_embedding_before_it_is_kept(kind: str):
    trainer = trainer_of({"kind": kind}, optimizer={"name": "adamw", "learning_rate": 0.02}, max_epochs=4)
    fitted = trainer.run()
    assert max(fitted.select_scores) > 0.85
    inputs, _ = blobs(10, 5)
    scores, kept = trainer.network(inputs)
    torch.testing.assert_close(kept, trainer.network.encoder(inputs))
    torch.testing.assert_close(scores, trainer.network.head(kept))


def test_going_on_in_a_fresh_process_gives_the_same_weights():
    whole, first, second = (trainer_of({"kind": "mlp"}, network_seed=s) for s in (0, 0, 9))
    whole.run()
    for _ in range(9):
        first.advance()
    second.load_state_dict(first.state_dict())
    second.run()
    states = [t.network.state_dict() for t in (whole, second)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def table(num: int = 120) -> dict[str, Any]:
    inputs, labels = blobs(num, 7)
    columns = {f"x{k}": inputs.values[:, k].double().numpy() for k in range(4)}
    return {**columns, "label": np.array(["a", "b", "c"])[labels]}


def test_a_model_of_matches_embeds_before_the_head_and_survives_its_folder(tmp_path: Path):
    changes = {
        "task": "matches", "head": {"name": "disposable", "kind": "linear", "num_outputs": 2, "then": None},
        "objective": {"loss": "sup_con"}, "metric": "map@r", "max_epochs": 2,
        "encoder": {"name": "tabular", "width": 8},
    }  # fmt: skip
    model = train(table(), target="label", recipe=changes).model
    rows = {key: value[:7] for key, value in table().items() if key != "label"}
    embedded = model.embed(rows)
    assert embedded.shape == (7, 8), "behind the head there are 2"
    again = load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(again.embed(rows), embedded)


def test_a_model_of_classes_embeds_before_the_head(tmp_path: Path):
    changes = {
        "head": {"name": "disposable", "kind": "mlp", "num_outputs": 2, "then": {"name": "cosine"}},
        "max_epochs": 2, "encoder": {"name": "tabular", "width": 8},
    }  # fmt: skip
    model = train(table(), target="label", recipe=changes).model
    rows = {key: value[:7] for key, value in table().items() if key != "label"}
    assert model.embed(rows).shape == (7, 8)
    again = load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))


# Probes


def layers(num: int = 300) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
    """Two attributes; the later layer has forgotten one of them."""
    rng = seeded(2)
    kept, dropped = (torch.randint(k, (num,), generator=rng) for k in (2, 3))
    directions = torch.linalg.qr(torch.randn(8, 5, generator=rng)).Q.T
    early = 6 * directions[:2][kept] + directions[2:][dropped] + 0.1 * torch.randn(num, 8, generator=rng)
    late = 6 * directions[:2][kept] + 0.1 * torch.randn(num, 8, generator=rng)
    attributes = {"kept": kept, "dropped": dropped}
    return {"early": early, "late": late}, attributes, torch.arange(num) >= 200


def probes(**options: Any) -> dict[str, LayerProbe]:
    features, attributes, is_test = layers()
    return {p.layer: p for p in layer_probe(features, attributes, is_test=is_test, **options)}


def test_a_probe_finds_the_label_in_the_layer_that_keeps_it():
    found = probes()
    assert list(found) == ["early", "late"]
    assert found["early"].accuracy == {"kept": 1.0, "dropped": 1.0}
    assert found["late"].accuracy["kept"] == 1.0
    assert found["late"].accuracy["dropped"] < found["late"].chance["dropped"] + 0.2 < 0.7
    _, attributes, is_test = layers()
    common = attributes["dropped"][~is_test].mode().values
    assert found["late"].chance["dropped"] == float(
        (attributes["dropped"][is_test] == common).double().mean()
    )


def test_alignment_is_the_share_of_the_means_in_the_leading_directions():
    found = probes(num_leading=1)["early"]
    assert found.alignment["dropped"] < 0.5 < 0.98 < found.alignment["kept"]
    assert probes(num_leading=8)["early"].alignment["dropped"] == pytest.approx(1.0)
    features, attributes, is_test = layers()
    train, labels = features["early"][~is_test].double(), attributes["dropped"][~is_test]
    leading = np.linalg.svd((train - train.mean(0)).numpy(), full_matrices=False)[2][:3]
    inside = whole = 0.0
    for k in range(3):
        shift = (train[labels == k].mean(0) - train.mean(0)).numpy()
        share = float((labels == k).double().mean())
        whole += share * float(shift @ shift)
        inside += share * sum(float(shift @ direction) ** 2 for direction in leading)
    assert probes(num_leading=3)["early"].alignment["dropped"] == pytest.approx(inside / whole)


def test_a_probe_of_features_as_they_are_needs_them_to_be_large():
    rng = seeded(5)
    labels, is_test = torch.randint(3, (300,), generator=rng), torch.arange(300) >= 200
    small = 0.01 * (nn.functional.one_hot(labels).double() + 0.1 * torch.randn(300, 3, generator=rng))
    large = torch.randn(300, 1, generator=rng).double()
    given = {"layer": torch.cat([small, large], 1)}, {"label": labels}
    found = {s: layer_probe(*given, is_test=is_test, num_leading=1, standardise=s)[0] for s in (True, False)}
    assert found[True].accuracy["label"] > 0.95 > 0.7 > found[False].accuracy["label"]
    assert found[True].effective_rank == found[False].effective_rank


def test_the_effective_rank_counts_directions_that_are_filled():
    labels, is_test = torch.arange(40) % 2, torch.arange(40) < 8
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).repeat(10, 1)
    features = {
        "two alike": square, "one": square * torch.tensor([1.0, 0.0]), "none": torch.ones(40, 2),
        "unequal": square * torch.tensor([3.0, 1.0]),
    }  # fmt: skip
    found = layer_probe(features, {"parity": labels}, is_test=is_test, num_leading=1)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    expected = [2.0, 1.0, 0.0, math.exp(entropy)]
    assert [probe.effective_rank for probe in found] == pytest.approx(expected)
    assert found[2].alignment["parity"] == 0.0


def test_layer_outputs_are_those_of_evaluation_and_modes_are_put_back():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3), nn.Unflatten(1, (3, 1)))
    network[1].eval()
    x = torch.randn(6, 2, 2, generator=seeded())
    found = layer_outputs(network, ["1", "3"], x)
    assert torch.equal(found["1"], x.flatten(1))
    torch.testing.assert_close(found["3"], network[2](x.flatten(1)).detach())
    assert found["3"].shape == (6, 3)
    assert [m.training for m in network] == [True, False, True, True]
    assert not any(m._forward_hooks for m in network)


FEATURES, ATTRIBUTES, IS_TEST = layers(20)
IS_TEST = torch.arange(20) < 5


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: Disposable(D, kind="deep", generator=seeded()), ("kind", "'mlp'")),  # type: ignore[arg-type]
        (lambda: Disposable(0, kind="none", generator=seeded()), ("width", "at least 1")),
        (lambda: Disposable(D, kind="mlp", hidden=0, generator=seeded()), ("hidden", "at least 1")),
        (lambda: Disposable(D, kind="linear", hidden=3, generator=seeded()), ("hidden", "of the kind mlp")),
        (lambda: Disposable(D, kind="mlp", decay=2.0, generator=seeded()), ("decay", "reweight")),
        (lambda: Disposable(D, kind="reweight", num_outputs=3, generator=seeded()), ("linear and mlp",)),
        (lambda: Disposable(D, kind="reweight", decay=0.9, generator=seeded()), ("decay", "at least 1")),
        (lambda: DisposableSettings(kind="reweight", decay=0.5), ("decay", "1")),
        (
            lambda: layer_probe(FEATURES, ATTRIBUTES, is_test=torch.zeros(20, dtype=torch.bool)),
            ("is_test", "of both kinds"),
        ),
        (lambda: layer_probe(FEATURES, ATTRIBUTES, is_test=IS_TEST, num_leading=9), ("features", "d >= 9")),
        (lambda: layer_probe(FEATURES, {"a": torch.ones(19)}, is_test=IS_TEST), ("attributes['a']", "[20]")),
        (
            lambda: layer_probe(FEATURES, {"a": torch.zeros(20, dtype=torch.long)}, is_test=IS_TEST),
            ("attributes['a']", "two classes"),
        ),
        (lambda: layer_outputs(nn.Sequential(nn.ReLU()), ["1"], torch.ones(1, 1)), ("layers", "'1'")),
        (
            lambda: layer_outputs(
                TrainingOnly(Disposable(2, generator=seeded())), ["inner"], torch.ones(1, 2)
            ),
            ("layers", "did not"),
        ),
    ],
)
def test_what_makes_no_head_or_probe_is_refused(act: Any, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        act()
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": {"name": "disposable", "then": None}}, ("head.then", "null", "linear and cosine")),
        ({**SUP_CON, "head": {"name": "disposable"}}, ("head.then", "linear", "set head.then to null")),
    ],
)
def test_a_head_of_scores_stands_behind_it_where_there_are_scores_and_nowhere_else(
    changes: dict[str, Any], words: tuple[str, ...]
):
    plain = recipe().model_dump()
    with pytest.raises(MarginsError) as refused:
        validated(Recipe, {**plain, **changes}, what="recipe")
    for word in words:
        assert word in str(refused.value)


def test_a_plain_linear_head_is_the_kind_none():
    head = DisposableSettings(kind="none").build(D, 3, generator=seeded())
    assert torch.equal(head(embeddings()), LinearHead(D, 3, generator=seeded())(embeddings()))
