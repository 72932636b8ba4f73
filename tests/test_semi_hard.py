"""Semi-hard triplets where the harness does not look: embeddings, both ways of counting, memory."""

import pytest
import torch
from torch import Tensor

from harness.blockwise import LargestTensor
from margins.engine import Cosine, Dot, ScoreRule, UnitEuclidean
from margins.engine.pairs import semi_hard
from margins.errors import MarginsError, OnceDifferentiableError
from margins.losses import SemiHardTriplet
from margins.targets import Targets
from reference.ranking import semi_hard_triplet


def _batch(num: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (num,), generator=rng)
    return torch.randn(num, 5, generator=rng, dtype=torch.float64).requires_grad_(), labels


def _plain(embeddings: Tensor, labels: Tensor, margin: float, rule: ScoreRule) -> Tensor:
    scores = rule(embeddings, embeddings)
    gap = scores[:, :, None] - scores[:, None, :]
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool)
    semi = (same & ~itself)[:, :, None] & ~same[:, None, :] & (gap > 0) & (gap < margin)
    return (margin - gap)[semi].sum() / semi.sum()


@pytest.mark.parametrize("few_positives", [0, 64])
@pytest.mark.parametrize("classes", [2, 9])
def test_embeddings_give_the_mean_over_listed_triplets(monkeypatch, few_positives, classes):
    monkeypatch.setattr(semi_hard, "_FEW_POSITIVES", few_positives)
    monkeypatch.setattr(semi_hard, "_ELEMENTS", 400)  # several stripes
    monkeypatch.setattr(semi_hard, "_FEWEST_ROWS", 3)
    embeddings, labels = _batch(40, classes)
    for rule in (UnitEuclidean(), Cosine(), Dot()):
        found = SemiHardTriplet(0.3).on_embeddings(embeddings, labels, rule=rule)
        expected = _plain(embeddings, labels, 0.3, rule)
        torch.testing.assert_close(found, expected)
        upstream = torch.tensor(0.7, dtype=torch.float64)
        a, b = (torch.autograd.grad(v, embeddings, upstream)[0] for v in (found, expected))
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
        assert a.abs().max() > 1e-4, "vacuous: no gradient"


@pytest.mark.parametrize("few_positives", [0, 64])
def test_row_weights_weigh_triplets(monkeypatch, few_positives):
    monkeypatch.setattr(semi_hard, "_FEW_POSITIVES", few_positives)
    rng = torch.Generator().manual_seed(1)
    scores = torch.randn(6, 9, generator=rng, dtype=torch.float64)
    grades = (torch.rand(6, 9, generator=rng) < 0.4).double()
    entries, rows = (
        torch.rand(6, 9, generator=rng).double() + 0.1,
        torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 3.0]),
    )
    targets = Targets.of_scores(grades).weigh(entries=entries).weigh(rows=rows)
    known = torch.ones(6, 9, dtype=torch.bool).numpy()
    arrays = (scores.numpy(), grades.numpy(), known, entries.numpy())
    expected = semi_hard_triplet(*arrays, margin=1.0, row_weight=rows)
    assert abs(expected - semi_hard_triplet(*arrays, margin=1.0)) > 1e-3, "vacuous: weights change nothing"
    assert float(SemiHardTriplet(1.0)(scores, targets)) == pytest.approx(expected, rel=1e-6)


def test_no_tensor_of_all_pairs_is_held(monkeypatch):
    monkeypatch.setattr(semi_hard, "_ELEMENTS", 3200)
    embeddings, labels = _batch(400, 100)
    with LargestTensor() as seen:
        SemiHardTriplet().on_embeddings(embeddings, labels).backward()
    assert 3200 <= seen.elements < 400 * 400 / 2


def test_the_sum_is_the_mean_times_the_number_of_triplets():
    embeddings, labels = _batch(30, 5)
    mean, total = (SemiHardTriplet(reduction=r).on_embeddings(embeddings, labels) for r in ("mean", "sum"))
    count = (total / mean).detach()
    assert count > 3
    torch.testing.assert_close(count, count.round())
    halved = SemiHardTriplet().on_embeddings(embeddings, labels, denominator=2 * float(count))
    torch.testing.assert_close(halved, mean / 2)


def test_without_a_semi_hard_triplet_the_loss_is_an_attached_zero():
    embeddings = torch.ones(4, 3, requires_grad=True)
    loss = SemiHardTriplet().on_embeddings(embeddings, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss == 0
    assert torch.equal(embeddings.grad, torch.zeros(4, 3))


def test_what_has_no_meaning_is_refused():
    embeddings, labels = _batch(8, 2)
    with pytest.raises(MarginsError, match="over triplets"):
        SemiHardTriplet(reduction="none")
    with pytest.raises(MarginsError, match="margin"):
        SemiHardTriplet(0.0)
    with pytest.raises(OnceDifferentiableError):
        torch.autograd.grad(
            SemiHardTriplet().on_embeddings(embeddings, labels), embeddings, create_graph=True
        )


def test_half_precision_vectors_are_scored_in_float32():
    halves = torch.randn(40, 8, generator=torch.Generator().manual_seed(9)).bfloat16()
    labels = torch.arange(40) // 4
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        x = halves.to(dtype).requires_grad_()
        value = SemiHardTriplet(margin=0.3).on_embeddings(x, labels)
        assert value.dtype == torch.float32
        found.append((value.detach(), torch.autograd.grad(value, x)[0]))
    torch.testing.assert_close(found[1][0], found[0][0])
    assert found[1][1].dtype == torch.bfloat16
    assert (found[1][1].float() - found[0][1]).norm() < 5e-3 * found[0][1].norm()
