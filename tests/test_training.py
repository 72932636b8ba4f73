"""The trainer sees only its roles, keeps the best epoch, and makes one batch of many parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from made_up_training import SUP_CON, blobs, recipe, select_rows, train_rows, trainer
from margins.data import TrainRows
from margins.encoders import Numbers
from margins.errors import MarginsError
from margins.evaluation import find_metric
from margins.targets import Targets
from margins.training import Trainer
from margins.training.predicting import outputs_of, probabilities_of, score_of

SGD = {"name": "sgd", "learning_rate": 0.05}
FAST = {"name": "adamw", "learning_rate": 1e-2}
ANY_LOSS = {"loss": "any_loss", "settings": {"metric": "f1", "link": "softmax", "average": "macro"}}
PENALISED = {"loss": "cross_entropy", "penalties": [{"loss": "orthogonal_projection", "weight": 0.5}]}


def weights_of(t: Trainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in t.network.state_dict().items()}


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def test_training_leaves_the_weights_of_the_best_select_epoch():
    t = trainer(max_epochs=12, patience=12)
    result = t.run()
    best = max(result.select_scores)
    assert result.epoch == result.select_scores.index(best) + 1
    assert score_of(t.engine.fabric, t.network, select_rows(), find_metric("accuracy"), "classes") == best
    # Not vacuous: the last epoch was not the one kept.
    assert result.epoch < len(result.select_scores)


def test_a_metric_that_is_better_when_lower_is_followed_downwards():
    result = trainer(metric="log_loss", max_epochs=15, optimizer=FAST, patience=None).run()
    assert result.select_scores[result.epoch - 1] == min(result.select_scores) < result.select_scores[0]


def test_training_stops_when_patience_is_at_its_end():
    result = trainer(max_epochs=100, patience=3, optimizer=FAST).run()
    assert len(result.select_scores) == result.epoch + 3 < 100


def test_the_same_seeds_give_the_same_weights_bit_for_bit_and_no_global_state_is_touched():
    before = torch.get_rng_state()
    legacy = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global state that must stay untouched
    found = []
    for network_seed, seed in ((0, 0), (0, 0), (5, 0), (0, 5)):
        t = trainer(network_seed=network_seed, seed=seed)
        t.run()
        found.append(weights_of(t))
    assert largest_difference(found[0], found[1]) == 0
    assert largest_difference(found[0], found[2]) > 0 < largest_difference(found[0], found[3])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == legacy  # noqa: NPY002


def test_preprocessing_is_fitted_on_training_rows_alone():
    t = trainer(max_epochs=1)
    t.run()
    assert torch.allclose(t.network.encoder.mean, blobs(120, 1)[0].values.double().mean(0))


def test_select_rows_choose_the_epoch_but_not_the_way_there():
    found = {}
    for seed in (2, 7):
        t = trainer(select=select_rows(30, seed), max_epochs=1)
        found[seed] = (t.run().select_scores, weights_of(t))
    assert found[2][0] != found[7][0]
    assert largest_difference(found[2][1], found[7][1]) == 0


@pytest.mark.parametrize(
    "changes",
    [{}, {"objective": ANY_LOSS}, {"objective": {"loss": "mann_whitney", "settings": {"scope": "column"}}},
     {"objective": PENALISED}, {**SUP_CON, "num_outputs": 8},
     {"objective": {"loss": "cross_entropy", "targets": {"class_weight": "balanced"}}},
     {"clip_norm": 0.1}],
    ids=["rows", "counts", "pairs", "penalty", "embeddings", "weights", "clipped"],
)  # fmt: skip
def test_micro_batches_equal_one_big_batch(changes: dict):
    found = []
    for accumulate in (1, 4):
        t = trainer(dropout=0.0, accumulate=accumulate, optimizer=SGD, **changes)
        losses = [record.loss for record in t.run().history]
        found.append((weights_of(t), losses))
    assert largest_difference(found[0][0], found[1][0]) < 1e-6
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-6)
    fresh = trainer(dropout=0.0, optimizer=SGD, **changes)
    assert largest_difference(found[0][0], weights_of(fresh)) > 1e-3  # not vacuous: it trained


def test_gradient_caching_replays_the_dropout_of_each_part():
    # With other draws in the second pass the gradient would be that of another network: training by it is
    # compared with the gradient of the whole graph at once.
    t = trainer(dropout=0.5, accumulate=3, optimizer=SGD, objective=ANY_LOSS)
    rows, engine = torch.arange(48), t.engine
    from margins.training.engine import Place, concatenated_targets

    place = Place(0, 0, 0)
    t.recipe.step.run(engine, rows, place)
    cached = [p.grad.clone() for p in engine.parameters]
    t = trainer(dropout=0.5, accumulate=3, optimizer=SGD, objective=ANY_LOSS)
    engine = t.engine
    parts = [
        engine.forward(engine.batch(part), place, k) for k, part in enumerate(engine.micro_batches(rows))
    ]
    share = engine.objective(
        torch.cat([s for s, _, _ in parts]), torch.cat([e for _, e, _ in parts]),
        concatenated_targets([x for _, _, x in parts]),
    )  # fmt: skip
    engine.loss_of(share).backward()
    for one, other in zip(cached, engine.parameters, strict=True):
        assert torch.allclose(one, other.grad, atol=1e-7)
    assert any(bool(g.abs().max() > 1e-4) for g in cached)


def test_a_doubled_row_weight_equals_a_repeated_row_under_weighted_sums():
    inputs, labels = blobs(60, 1)
    weight = torch.ones(60)
    weight[:20] = 2
    repeated = torch.cat([torch.arange(60), torch.arange(20)])
    weighted = TrainRows(inputs, Targets.of_classes(labels, 3).weigh(rows=weight))
    doubled = TrainRows(Numbers(inputs.values[repeated]), Targets.of_classes(labels[repeated], 3))
    gradients = []
    for rows in (weighted, doubled):
        t = trainer(dropout=0.0, train=rows, optimizer=SGD)
        t.network.encoder.fit(inputs)
        scores, embeddings, targets = t.engine.forward(t.engine.batch(torch.arange(len(rows))), _start(), 0)
        t.engine.objective(scores, embeddings, targets).total.backward()
        gradients.append([p.grad for p in t.engine.parameters])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def _start():
    from margins.training.engine import Place

    return Place(0, 0, 0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_as_well_and_is_not_the_same_arithmetic(precision: str):
    half, full = (trainer(precision=p, max_epochs=8, optimizer=FAST) for p in (precision, "32"))
    scores = (half.run().select_scores[-1], full.run().select_scores[-1])
    assert scores[0] > scores[1] - 0.1 > 0.6
    assert largest_difference(weights_of(half), weights_of(full)) > 0
    assert {p.dtype for p in half.network.parameters()} == {torch.float32}


def test_float16_is_float16_and_scales_the_loss():
    t = trainer(precision="fp16")
    assert t.engine.scaler is not None
    scale = t.engine.scaler.get_scale()
    t.advance()
    with t.engine.fabric.autocast():
        scores, _ = t.network(blobs(4, 1)[0])
    assert scores.dtype == torch.float16
    assert scale > 1


def test_sharpness_aware_steps_go_down_the_gradient_of_the_worst_point_nearby():
    rho, rate = 0.05, 0.1
    plain = {
        "dropout": 0.0,
        "optimizer": {"name": "sgd", "learning_rate": rate, "momentum": 0.0, "weight_decay": 0.0},
    }
    t = trainer(step={"name": "sharpness_aware", "rho": rho}, **plain)
    before = [p.detach().clone() for p in t.engine.parameters]
    t.advance()
    moved = [(b - p.detach()) / rate for b, p in zip(before, t.engine.parameters, strict=True)]
    by_hand = trainer(**plain)
    rows, engine = by_hand._steps[0], by_hand.engine

    def gradients() -> list[torch.Tensor]:
        scores, embeddings, targets = engine.forward(engine.batch(rows), _start(), 0)
        loss = engine.loss_of(engine.objective(scores, embeddings, targets))
        return list(torch.autograd.grad(loss, engine.parameters))

    first = gradients()
    norm = math.sqrt(sum(float(g.square().sum()) for g in first))
    with torch.no_grad():
        for p, g in zip(engine.parameters, first, strict=True):
            p += rho * g / norm
    second = gradients()
    for found, expected in zip(moved, second, strict=True):
        assert torch.allclose(found, expected, atol=2e-5)
    assert any(not torch.allclose(a, b, atol=1e-3) for a, b in zip(first, second, strict=True))


def test_mixed_features_come_with_mixed_targets():
    t = trainer(mix={"name": "feature_mixup", "alpha": 1.0}, dropout=0.0)
    batch = t.engine.batch(torch.arange(12))
    scores, embeddings, targets = t.engine.forward(batch, _start(), 0)
    plain = t.network.encoder(batch.inputs)
    grades, own = targets.local.grades(0, 3), batch.targets.grades(0, 3)
    share = float(grades[(grades > 0) & (grades < 1)].max())
    for row in range(12):
        partners = [
            k for k in range(12)
            for s in (share, 1 - share)
            if torch.allclose(embeddings[row], s * plain[row] + (1 - s) * plain[k], atol=1e-5)
            and torch.allclose(grades[row], s * own[row] + (1 - s) * own[k], atol=1e-5)
        ]  # fmt: skip
        assert partners, row
    assert torch.allclose(scores, t.network.head(embeddings))
    assert 0 < share < 1


def test_label_correction_trains_on_sure_predictions_and_keeps_the_given_classes():
    wrong = torch.arange(120) % 3
    wrong[:12] = (wrong[:12] + 1) % 3
    rows = TrainRows(blobs(120, 1)[0], Targets.of_classes(wrong, 3))
    t = trainer(
        train=rows, refresh=[{"name": "label_correction", "start": 6, "confidence": 0.8}], max_epochs=9,
        optimizer=FAST, patience=None,
    )  # fmt: skip
    t.run()
    corrected = t.engine.rows.class_ids()
    changed, true = corrected != wrong, torch.arange(120) % 3
    assert changed.sum() >= 6
    assert (corrected == true)[changed].float().mean() > 0.6
    assert (corrected == true).sum() > (wrong == true).sum()
    assert torch.equal(rows.class_ids(), wrong)


def test_frozen_parts_keep_their_weights():
    from margins.training.network import Network

    t = trainer()
    network: Network = t.network
    frozen = Trainer(
        recipe(), network, train_rows(), select_rows(), generator=torch.Generator(), frozen=("encoder",)
    )
    before = weights_of(t)
    frozen.run()
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"head.weight", "head.bias"}


def test_probabilities_sum_to_one_in_float64_and_the_mode_stays_as_it_was():
    t = trainer()
    for mode in (True, False):
        t.network.train(mode)
        p = probabilities_of(outputs_of(t.engine.fabric, t.network, blobs(5000, 1)[0])[0])
        assert p.dtype == np.float64
        assert p.shape == (5000, 3)
        assert np.allclose(p.sum(1), 1, atol=1e-12)
        assert t.network.training is mode


def test_the_rate_of_every_step_follows_the_schedule():
    t = trainer(schedule={"name": "cosine", "warmup": 0.2}, optimizer={"name": "sgd", "learning_rate": 0.3})
    rates = []
    while not t.is_done:
        t.advance()
        rates.append(t.engine.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.3 * t.recipe.schedule.factor(k, len(rates)) for k in range(len(rates))])
    assert t.history[0].learning_rate == rates[len(rates) // 3 - 1]
    assert max(rates) > 10 * rates[-1]


def test_degenerate_rows_are_counted_in_the_record():
    labels = torch.zeros(40, dtype=torch.long)
    labels[:3] = torch.tensor([1, 2, 1])
    rows = TrainRows(blobs(40, 1)[0], Targets.of_classes(labels, 3))
    record = trainer(train=rows, **SUP_CON, num_outputs=4, max_epochs=1).run().history[0]
    assert record.num_degenerate > 0
    assert math.isfinite(record.loss)


def test_an_epoch_without_a_row_to_learn_from_is_refused_with_its_cure():
    t = trainer(**SUP_CON, num_outputs=4, batch_size=1, min_steps=1)
    t._batch_size = 1
    t._steps = t._epoch_steps()
    with pytest.raises(MarginsError, match="several_per_class"):
        t.run()


def test_an_objective_that_needs_one_class_a_row_refuses_others_by_name():
    with pytest.raises(MarginsError, match="one class a row"):
        TrainRows(blobs(4, 1)[0], Targets.of_values(torch.rand(4))).class_ids()
