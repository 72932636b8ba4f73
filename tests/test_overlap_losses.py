"""Laws of the losses of soft confusion counts that the shared harness does not know."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

from made_up_training import recipe, seeded, select_rows, train_rows
from margins.encoders import NumericEncoder
from margins.errors import MarginsError, MarginsWarning
from margins.heads import LinearHead
from margins.losses import AnyLoss, Dice, NestedDice, Tversky
from margins.losses.forms.counts import soft_confusion
from margins.targets import Targets
from margins.training import Network, Trainer
from reference import overlap


def weighted_accuracy(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    """A metric of one's own: misses cost three times what false alarms do."""
    return (tp + tn) / (tp + tn + fp + 3 * fn)


def quietly(make: type, **options: Any) -> Any:
    """A loss whose choice is told in a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MarginsWarning)
        return make(**options)


def batch(num: int = 200, seed: int = 0, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Scores that know something of their labels."""
    draws = seeded(seed)
    labels = (torch.rand(num, generator=draws) < share).double()
    return labels - 0.5 + 1.5 * torch.randn(num, generator=draws, dtype=torch.float64), labels


def columns(seed: int = 0) -> tuple[Tensor, Tensor]:
    scores, labels = batch(90, seed)
    return scores.reshape(30, 3), labels.reshape(30, 3)


def arrays(scores: Tensor, labels: Tensor) -> tuple[np.ndarray, ...]:
    """What a reference takes: scores, targets, what is known, weights."""
    s, t = (x[:, None] if x.ndim == 1 else x for x in (scores, labels))
    return s.numpy(), t.numpy(), np.ones(s.shape, dtype=bool), np.ones(s.shape)


CERTAIN, LABELS = (40 * batch(seed=3)[0].sign(), batch(seed=3)[1])
HARD = (CERTAIN > 0).double().numpy()
RECALL, SPECIFICITY = (metrics.recall_score(LABELS, HARD, pos_label=k) for k in (1, 0))
OF_SCIKIT_LEARN: dict[str, float] = {
    "accuracy": metrics.accuracy_score(LABELS, HARD),
    "bacc": metrics.balanced_accuracy_score(LABELS, HARD),
    "f1": metrics.f1_score(LABELS, HARD),
    "fbeta": metrics.fbeta_score(LABELS, HARD, beta=2.0),
    "gmean": (RECALL * SPECIFICITY) ** 0.5,
    "gmean_squared": RECALL * SPECIFICITY,
    "jaccard": metrics.jaccard_score(LABELS, HARD),
    "kappa": metrics.cohen_kappa_score(LABELS, HARD),
    "mcc": metrics.matthews_corrcoef(LABELS, HARD),
}


def test_soft_counts_are_sums_over_the_axes_named_and_add_up_to_all_items():
    draws = seeded()
    p, y, weight = (torch.rand(4, 1, 5, 6, generator=draws, dtype=torch.float64) for _ in range(3))
    maps = soft_confusion(p, y, dims=(1, 2, 3))
    torch.testing.assert_close(maps.tp, torch.stack([(p[i] * y[i]).sum() for i in range(4)]))
    torch.testing.assert_close(maps.tp + maps.fp + maps.fn + maps.tn, torch.full((4,), 30.0).double())
    torch.testing.assert_close(soft_confusion(p, y, dims=()).fp, p * (1 - y))
    weighed = soft_confusion(p, y, weight, dims=(0, 1, 2, 3))
    torch.testing.assert_close(weighed.tp + weighed.fn, (weight * y).sum())
    assert (weighed.tp - maps.tp.sum()).abs() > 1, "vacuous: weights change nothing"


@pytest.mark.parametrize("metric", OF_SCIKIT_LEARN)
def test_any_loss_of_certain_predictions_is_the_metric_of_scikit_learn(metric: str):
    assert 0 < HARD.sum() < len(HARD)
    assert 0.1 < OF_SCIKIT_LEARN[metric] < 0.95, "vacuous: an extreme"
    found = AnyLoss(metric, amplify=33.0, beta=2.0)(CERTAIN, LABELS)
    assert float(found) == pytest.approx(1 - OF_SCIKIT_LEARN[metric], abs=1e-4)


@pytest.mark.parametrize("metric", OF_SCIKIT_LEARN)
def test_any_loss_nears_the_hard_metric_as_it_is_amplified(metric: str):
    scores = CERTAIN / 20 + batch(seed=4)[0] / 4
    hard = AnyLoss(metric, amplify=33.0, beta=2.0)(1e3 * scores, LABELS)
    away = [
        float((AnyLoss(metric, amplify=x, beta=2.0)(scores, LABELS) - hard).abs()) for x in (1, 5, 10, 20, 33)
    ]
    assert away == sorted(away, reverse=True)
    assert away[0] > 0.02, "vacuous: near from the start"
    assert away[-1] < 0.3 * away[0]


def test_any_loss_takes_any_function_of_the_counts():
    def predictive_value(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
        return tn / (tn + fn)

    expected = metrics.precision_score(LABELS, HARD, pos_label=0)
    found = AnyLoss(predictive_value, amplify=33.0)
    assert float(found(CERTAIN, LABELS)) == pytest.approx(1 - expected, abs=1e-6)
    assert "predictive_value" in repr(found)


def test_any_loss_of_f1_that_is_not_amplified_is_dice():
    scores, labels = columns()
    soft = AnyLoss("f1", amplify=None)(scores, labels)
    torch.testing.assert_close(soft, Dice(square=False, smoothing=0.0)(scores, labels), rtol=1e-5, atol=1e-5)
    assert abs(float(soft - AnyLoss("f1")(scores, labels))) > 0.01, "vacuous: amplifying changes nothing"


def test_the_g_mean_without_its_root_pulls_least_where_nothing_is_right_yet_and_both_are_finite():
    wrong = torch.tensor([-9.0, -9.0, 9.0, 9.0]).requires_grad_()
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    slopes = {m: torch.autograd.grad(AnyLoss(m)(wrong, labels), wrong)[0] for m in ("gmean", "gmean_squared")}
    assert all(bool(torch.isfinite(slope).all()) for slope in slopes.values())
    assert slopes["gmean"].abs().max() > 10 * slopes["gmean_squared"].abs().max() > 0


@pytest.mark.parametrize(("average", "metric"), [("macro", "f1"), ("micro", "mcc")])
def test_counts_of_earlier_batches_are_added_and_get_no_gradient(average: str, metric: str):
    steps = [columns(seed) for seed in range(4)]
    expected = overlap.any_loss_running(
        [arrays(*step) for step in steps], metric=metric, decay=0.6, average=average
    )
    loss = AnyLoss(metric, decay=0.6, average=average)
    found = [float(loss(*step)) for step in steps]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    alone = float(AnyLoss(metric, average=average)(*steps[-1]))
    assert abs(found[-1] - alone) > 1e-3, "vacuous: earlier batches change nothing"
    first, second = (s.clone().requires_grad_() for s, _ in steps[:2])
    loss = AnyLoss(metric, decay=0.6, average=average)
    loss(first, steps[0][1])
    slopes = torch.autograd.grad(loss(second, steps[1][1]), [first, second], allow_unused=True)
    assert slopes[0] is None
    assert slopes[1].abs().max() > 1e-5


def test_counts_of_earlier_batches_are_saved_and_stay_as_they_are_in_evaluation_mode():
    loss, other = AnyLoss("bacc", decay=0.9), AnyLoss("bacc", decay=0.9)
    loss(*columns(0))
    other(*columns(1))
    state = {name: value.clone() for name, value in loss.state_dict().items()}
    other.load_state_dict(state)
    torch.testing.assert_close(other.eval()(*columns(2)), loss.eval()(*columns(2)), rtol=0, atol=0)
    assert set(state) == {"earlier"}
    assert torch.equal(loss.state_dict()["earlier"], state["earlier"])
    assert not torch.equal(loss.train()(*columns(2)) * 0 + loss.state_dict()["earlier"], state["earlier"])
    other.load_state_dict(AnyLoss("bacc", decay=0.9).state_dict())
    torch.testing.assert_close(other(*columns(2)), AnyLoss("bacc")(*columns(2)))
    with pytest.raises(MarginsError, match=r"C = 3 columns, as in earlier batches, got 2"):
        loss(columns()[0][:, :2], columns()[1][:, :2])


def test_a_batch_without_positives_gives_zero_alone_and_still_lowers_false_alarms_after_others():
    scores, labels = batch(20)
    for loss in (
        AnyLoss("f1"),
        AnyLoss("f1", metric_share=0.5),
        AnyLoss("f1", metric_share=0.5, class_weight=None),
    ):
        s = scores.clone().requires_grad_()
        value = loss(s, torch.zeros_like(labels))
        assert value.item() == 0.0
        assert bool((torch.autograd.grad(value, s)[0] == 0).all())
    loss = AnyLoss("f1", decay=0.9)
    loss(scores, labels)
    s = scores.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(s, torch.zeros_like(labels)), s)
    assert bool((slope > 0).all())


@pytest.mark.parametrize(("average", "share"), [("macro", 0.3), ("micro", 0.8), ("macro", 0.0)])
def test_the_mixture_with_balanced_cross_entropy_is_that_of_its_parts(average: str, share: float):
    scores, labels = columns(5)
    expected = overlap.any_loss_mixture(*arrays(scores, labels), metric="gmean", share=share, average=average)
    found = AnyLoss("gmean", metric_share=share, average=average)(scores, labels)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    whole = AnyLoss("gmean", average=average)(scores, labels)
    assert abs(float(found - whole)) > 1e-3, "vacuous: the share changes nothing"


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_dice_of_certain_predictions_is_one_minus_the_f1_of_scikit_learn(average: str):
    scores, labels = columns(6)
    found = Dice(smoothing=0.0, average=average)(40 * scores.sign(), labels)
    expected = metrics.f1_score(labels, scores > 0, average=average)
    assert 0.1 < expected < 0.9, "vacuous: an extreme"
    assert float(found) == pytest.approx(1 - expected, abs=1e-9)


def test_tversky_of_one_half_and_one_half_is_dice():
    scores, labels = columns(7)
    for smoothing in (0.0, 1.0):
        found = Tversky(0.5, 0.5, smoothing=smoothing)(scores, labels)
        torch.testing.assert_close(found, Dice(square=False, smoothing=2 * smoothing)(scores, labels))
    assert abs(float(found - Tversky(0.2, 0.8)(scores, labels))) > 1e-3, "vacuous: prices change nothing"


def test_a_price_on_misses_asks_for_more_positives_and_one_on_false_alarms_for_fewer():
    scores, labels = batch(seed=8)
    slopes = []
    for alpha in (0.1, 0.9):
        shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
        slopes.append(float(torch.autograd.grad(Tversky(alpha, 1 - alpha)(scores + shift, labels), shift)[0]))
    assert slopes[0] < 0 < slopes[1]


@pytest.mark.parametrize("level", ["batch", "example"])
def test_self_adjusting_dice_does_not_pull_at_a_negative_of_one_half(level: str):
    """With alpha = 1 what counts is (1 - p) p, whose slope in p is 1 - 2 p."""
    scores = torch.tensor([0.0, -2.0, 2.0, 1.0], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    for square in (True, False):
        loss = quietly(Dice, alpha=1.0, level=level, square=square)
        (slope,) = torch.autograd.grad(loss(scores, labels), scores)
        assert float(slope[0]) == pytest.approx(0, abs=1e-15)
        assert float(slope[1]) > 1e-3
        assert float(slope[2]) < -1e-3
        plain = torch.autograd.grad(quietly(Dice, level=level, square=square)(scores, labels), scores)[0]
        assert float(plain[0]) > 1e-3, "vacuous: no pull with alpha = 0 either"


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
def test_self_adjusting_dice_is_finite_where_predictions_are_certain(alpha: float):
    scores = torch.tensor([200.0, -200.0, 30.0, 0.0], requires_grad=True)
    loss = quietly(Dice, alpha=alpha)(scores, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    (slope,) = torch.autograd.grad(loss, scores)
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(slope).all())


def test_the_form_of_the_paper_hardly_pulls_at_a_positive_of_small_probability():
    """Why it collapses: the pull of a lone positive at p = 0.01, beside that of plain Dice of the batch."""
    labels = torch.tensor([1.0, 0.0], dtype=torch.float64)
    scores = torch.tensor([0.01, 0.01], dtype=torch.float64).logit().requires_grad_()
    slopes = [
        float(torch.autograd.grad(loss(scores, labels), scores)[0][0].abs())
        for loss in (quietly(Dice, alpha=1.0, level="example", square=False), Dice(smoothing=0.0))
    ]
    assert slopes[0] < 0.01
    assert slopes[1] > 1.5 * slopes[0]


MASKED: dict[str, Any] = {
    "dice": lambda: Dice(),
    "dice of examples": lambda: quietly(Dice, level="example"),
    "self-adjusting": lambda: quietly(Dice, alpha=1.0),
    "hard negatives": lambda: Dice(ohem_ratio=1.5),
    "tversky": lambda: Tversky(),
    "any loss": lambda: AnyLoss("mcc"),
    "mixture": lambda: AnyLoss(metric_share=0.5),
}


@pytest.mark.parametrize("name", MASKED)
def test_an_unknown_item_is_an_item_that_is_not_there(name: str):
    scores, labels = batch(40, seed=9)
    gone = torch.zeros(40, dtype=torch.bool)
    gone[[*labels.nonzero()[:2, 0].tolist(), *(labels == 0).nonzero()[:3, 0].tolist()]] = True
    assert labels[gone].unique().numel() == 2, "vacuous: only one class goes"
    targets = Targets.of_scores(labels[:, None])
    for masked in (targets.ignore(entries=gone[:, None]), targets.weigh(rows=(~gone).double())):
        found = MASKED[name]()(scores[:, None], masked)
        torch.testing.assert_close(found, MASKED[name]()(scores[~gone], labels[~gone]))
        assert abs(float(found - MASKED[name]()(scores, labels))) > 1e-5, "vacuous: they change nothing"


@pytest.mark.parametrize("level", ["batch", "example"])
@pytest.mark.parametrize("ratio", [1.0, 2.0, 50.0])
def test_hard_negatives_are_the_best_scored_ones_as_many_as_positives_times_the_ratio(
    level: str, ratio: float
):
    scores, labels = columns(10)
    reference = overlap.dsc_batch if level == "batch" else overlap.dsc_example
    expected = reference(*arrays(scores, labels), alpha=0.0, square=True, ohem_ratio=ratio)
    found = quietly(Dice, level=level, ohem_ratio=ratio)(scores, labels)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    every = quietly(Dice, level=level)(scores, labels)
    assert (abs(float(found - every)) > 1e-3) == (ratio < 50), "as many as there are is all of them"


def test_hard_negatives_of_a_weighed_row_are_those_of_the_row_twice_and_a_small_ratio_keeps_part_of_one():
    scores, labels = batch(12, seed=11)
    heavy = int(torch.where(labels == 0, scores, -9.0).argmax())
    loss = Dice(ohem_ratio=1.0, smoothing=0.0)
    weight = torch.ones(12, dtype=torch.float64)
    weight[heavy] = 2
    weighed = loss(scores[:, None], Targets.of_scores(labels[:, None]).weigh(rows=weight))
    twice = loss(torch.cat([scores, scores[heavy][None]]), torch.cat([labels, labels.new_zeros(1)]))
    torch.testing.assert_close(weighed, twice)
    assert abs(float(weighed - loss(scores, labels))) > 1e-3, "vacuous: the weight changes nothing"
    few = Dice(ohem_ratio=0.25 / float(labels.sum()), smoothing=0.0)(scores, labels)
    p, hardest = torch.sigmoid(scores), torch.sigmoid(scores[heavy])
    positive = p[labels > 0]
    expected = 1 - 2 * positive.sum() / (positive.square().sum() + len(positive) + 0.25 * hardest.square())
    torch.testing.assert_close(few, expected)


def test_columns_without_a_positive_do_not_count_whatever_the_level():
    scores, labels = columns(12)
    labels[:, 1] = 0
    for level in ("batch", "example"):
        loss = quietly(Dice, level=level)
        torch.testing.assert_close(loss(scores, labels), loss(scores[:, [0, 2]], labels[:, [0, 2]]))


@pytest.mark.parametrize(
    ("code", "make"),
    [("MG001", lambda: AnyLoss(amplify=34.0)), ("MG030", lambda: Dice(alpha=1.0)),
     ("MG031", lambda: Dice(level="example")), ("MG031", lambda: Tversky(level="example"))],
)  # fmt: skip
def test_what_often_fails_is_told_where_it_is_chosen(code: str, make: Any):
    with pytest.warns(MarginsWarning, match=code):
        make()


OBJECTIVES: dict[str, dict[str, Any]] = {
    "any_loss": {"metric": "kappa", "link": "softmax", "decay": 0.5},
    "dice": {"link": "softmax", "ohem_ratio": 2.0},
    "tversky": {"alpha": 0.4, "beta": 0.6, "link": "softmax"},
    "nested_dice": {},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_recipe_trains_with_it_and_learns(name: str):
    draws = seeded(0)
    encoder = NumericEncoder(num_columns=4, width=16, dropout=0.0, generator=draws)
    network = Network(encoder, LinearHead(16, 3, generator=draws))
    chosen = recipe(objective={"loss": name, "settings": OBJECTIVES[name]}, max_epochs=12)
    done = Trainer(chosen, network, train_rows(), select_rows(), generator=draws).run()
    assert isinstance(chosen.objective.loss, str)
    assert max(record.select_score for record in done.history) > 0.75


def test_a_card_of_ordered_counts_is_of_that_form():
    assert NestedDice.card.form == "ordered counts"
    assert Dice.card.form == AnyLoss.card.form == "counts"


@pytest.mark.parametrize("metric", ["accuracy", "kappa", "gmean_squared", weighted_accuracy])
def test_gradients_of_further_metrics_are_those_of_their_values(metric: Any):
    draws = seeded(5)
    scores = torch.randn(12, 3, generator=draws, dtype=torch.float64).requires_grad_()
    labels = (torch.rand(12, 3, generator=draws) < 0.4).double()
    loss = AnyLoss(metric, amplify=4.0)
    assert torch.autograd.gradcheck(lambda s: loss(s, labels), (scores,))
    a = torch.sigmoid(4 * (scores.detach().sigmoid() - 0.5))
    tp, fp = (a * labels).sum(0), (a * (1 - labels)).sum(0)
    fn, tn = ((1 - a) * labels).sum(0), ((1 - a) * (1 - labels)).sum(0)
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    chance = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / 144
    expected = {
        "accuracy": (tp + tn) / 12,
        "kappa": ((tp + tn) / 12 - chance) / (1 - chance),
        "gmean_squared": sensitivity * specificity,
        weighted_accuracy: weighted_accuracy(tp, fp, fn, tn),
    }[metric]
    torch.testing.assert_close(loss(scores, labels), 1 - expected.mean(), rtol=1e-5, atol=0)
