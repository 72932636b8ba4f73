"""Several encoders as one, one student of several teachers, and what tells whether it is worth it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from made_up_training import blobs, recipe, select_rows, train_rows
from margins.compare import ProbedTask, linear_probe, transfer
from margins.diagnose import effective_rank, linear_cka, richness
from margins.distill import MultiTeacherFeatures
from margins.encoders import ConcatenatedEncoder, Numbers, NumericEncoder
from margins.errors import MarginsError
from margins.heads import LinearHead
from margins.training import Network, Trainer


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def block(seed: int, *, width: int = 6, dropout: float = 0.0) -> NumericEncoder:
    return NumericEncoder(num_columns=4, width=width, dropout=dropout, generator=draws(seed))


def rows(num: int = 50, seed: int = 0) -> Numbers:
    return Numbers(torch.randn(num, 4, generator=draws(seed)))


def test_one_encoder_is_itself():
    alone = block(0)
    assert torch.equal(ConcatenatedEncoder([alone], standardise=False)(rows()), alone(rows()))


def test_embeddings_stand_side_by_side_in_order():
    blocks = [block(0), block(1, width=3)]
    joint = ConcatenatedEncoder(blocks, standardise=False)
    assert joint.width == 9
    assert torch.equal(joint(rows()), torch.cat([b(rows()) for b in blocks], 1))


def test_features_are_standardised_over_the_training_rows_alone():
    joint = ConcatenatedEncoder([block(0), block(1)])
    joint.fit(rows(5000))  # more than are embedded at once
    found = joint(rows(5000))
    varies = found.std(0) > 0
    torch.testing.assert_close(found.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, varies].std(0, correction=0), torch.ones(int(varies.sum())))
    few = joint(rows(20, seed=5))
    assert not torch.allclose(few.mean(0), torch.zeros(12), atol=1e-3), "vacuous: rows standardise themselves"


def test_a_feature_that_does_not_vary_becomes_zero():
    dead = block(0)
    with torch.no_grad():
        dead.layers[3].weight[2] = 0.0
        dead.layers[3].bias[2] = 7.0
    joint = ConcatenatedEncoder([dead])
    joint.fit(rows())
    assert bool((joint(rows(20, seed=3))[:, 2] == 0).all())
    assert dead(rows())[0, 2] == 7


def test_rows_must_be_fitted_before_they_are_standardised():
    with pytest.raises(MarginsError, match="fit"):
        ConcatenatedEncoder([block(0)])(rows())
    with pytest.raises(MarginsError, match="encoders"):
        ConcatenatedEncoder([])


def test_the_state_of_a_fitted_encoder_survives_save_and_load():
    first, second = ConcatenatedEncoder([block(0), block(1)]), ConcatenatedEncoder([block(2), block(3)])
    first.fit(rows())
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(rows()), first(rows()))


def test_encoders_keep_their_weights_and_mode_while_a_head_is_trained():
    blocks = [block(k, dropout=0.5) for k in range(2)]
    joint = ConcatenatedEncoder(blocks)
    network = Network(joint, LinearHead(12, 3, generator=draws()))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer = Trainer(recipe(), network, train_rows(), select_rows(), generator=draws())
    trainer.run()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias", "encoder.mean", "encoder.factor", "encoder.num_rows"}
    joint.train()
    assert joint.training
    assert not any(b.training for b in blocks)
    inputs = rows()
    assert torch.equal(joint(inputs), joint(inputs)), "dropout is on"


def test_a_probe_of_all_blocks_fits_at_least_as_well_as_that_of_each():
    inputs, labels = blobs(90, 1, shift=1.0)
    blocks = [block(k, width=4) for k in range(3)]
    joint = ConcatenatedEncoder(blocks, standardise=False)
    # Hardly any penalty: the models are nested then.
    losses = []
    for encoder in (joint, *blocks):
        embedded = encoder(inputs).detach()
        known = (embedded, labels)
        losses.append(linear_probe(known, known, known, strengths=[1e4]).train_loss)
    assert all(losses[0] <= alone + 1e-3 for alone in losses[1:])
    assert losses[0] < min(losses[1:]) - 1e-3, "vacuous: all fit alike"


def _teachers(num: int = 3) -> list[Tensor]:
    return [torch.randn(20, 3 + k, generator=draws(k), dtype=torch.float64) for k in range(num)]


def _identity(loss: MultiTeacherFeatures, width: int) -> None:
    for head in loss.heads:
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            head.weight.copy_(3 * torch.eye(width))
            head.bias.zero_()


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    features = torch.randn(20, 5, generator=draws(1), dtype=torch.float64)
    loss = MultiTeacherFeatures(5, [5, 5], generator=draws()).double()
    assert loss(features, [features, 2 * features]) > 0.1
    _identity(loss, 5)
    assert loss(features, [features, 2 * features]).item() == pytest.approx(0.0, abs=1e-12)


def test_a_student_learns_its_teacher_by_gradient_steps():
    features = torch.randn(200, 5, generator=draws(1))
    teacher = features @ torch.randn(5, 5, generator=draws(2))
    loss = MultiTeacherFeatures(5, [5], generator=draws())
    steps = torch.optim.Adam(loss.parameters(), 0.03)
    for _ in range(400):
        steps.zero_grad()
        value = loss(features, [teacher])
        value.backward()
        steps.step()
    assert value.item() < 1e-3


def test_distillation_is_two_minus_twice_the_cosine_of_each_teacher():
    features, teachers = torch.randn(20, 5, generator=draws(9), dtype=torch.float64), _teachers()
    loss = MultiTeacherFeatures(5, [t.shape[1] for t in teachers], generator=draws()).double()
    cosines = [
        nn.functional.cosine_similarity(head(features), teacher)
        for head, teacher in zip(loss.heads, teachers, strict=True)
    ]
    rows = sum(2 - 2 * c for c in cosines)
    torch.testing.assert_close(loss(features, teachers), rows.mean())
    weight = torch.arange(20.0, dtype=torch.float64)
    torch.testing.assert_close(loss(features, teachers, weight=weight), (weight * rows).mean())


def test_teachers_get_no_gradient_and_the_student_does():
    features, teachers = torch.randn(20, 5, generator=draws(9)).requires_grad_(), _teachers(1)
    teacher = teachers[0].float().requires_grad_()
    MultiTeacherFeatures(5, [3], generator=draws())(features, [teacher]).backward()
    assert teacher.grad is None
    assert features.grad is not None
    assert features.grad.abs().max() > 1e-4


def test_zero_features_give_finite_gradients():
    features = torch.zeros(4, 5, requires_grad=True)
    loss = MultiTeacherFeatures(5, [3], generator=draws())
    nn.init.zeros_(loss.heads[0].bias)
    value = loss(features, [torch.zeros(4, 3)])
    value.backward()
    assert torch.isfinite(value)
    assert bool(torch.isfinite(features.grad).all())


def test_teachers_that_do_not_fit_are_refused_by_name():
    loss = MultiTeacherFeatures(5, [3, 4], generator=draws())
    with pytest.raises(MarginsError, match="teachers"):
        loss(torch.zeros(2, 5), [torch.zeros(2, 3)])
    with pytest.raises(MarginsError, match=r"teachers\[1\]"):
        loss(torch.zeros(2, 5), [torch.zeros(2, 3), torch.zeros(2, 3)])
    with pytest.raises(MarginsError, match="teacher_widths"):
        MultiTeacherFeatures(5, [], generator=draws())


def test_alignment_does_not_see_rotation_scale_or_shift():
    x = torch.randn(40, 6, generator=draws(1), dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=draws(2), dtype=torch.float64)).Q
    assert linear_cka(x, 3 * x @ rotation - 5) == pytest.approx(1.0, abs=1e-12)
    y = torch.randn(40, 3, generator=draws(3), dtype=torch.float64)
    grams = []
    for z in (x, y):
        centred = z - z.mean(0)
        grams.append(centred @ centred.T)
    by_grams = (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())
    assert linear_cka(x, y) == pytest.approx(float(by_grams), rel=1e-9)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), rel=1e-12)
    assert linear_cka(x, torch.ones(40, 2)) == 0.0


def test_the_effective_rank_counts_directions_that_vary_alike():
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert effective_rank(signs) == pytest.approx(2.0)
    assert effective_rank(torch.cat([signs, signs], 1)) == pytest.approx(2.0)
    assert 1 < effective_rank(signs * torch.tensor([1.0, 0.1])) < 1.5
    assert effective_rank(torch.ones(5, 3)) == 0.0


def test_copies_are_aligned_and_independent_blocks_are_not():
    first, second = (torch.randn(3000, 4, generator=draws(k)) for k in range(2))
    copies, others = richness([first, 2 * first]), richness([first, second])
    assert copies.mean_alignment == pytest.approx(1.0, abs=1e-9)
    assert copies.joint_rank == pytest.approx(copies.ranks[0], rel=0.01)
    assert others.mean_alignment < 0.02
    assert others.joint_rank > 1.9 * others.ranks[0]
    torch.testing.assert_close(others.alignment, others.alignment.T)


def test_transfer_tells_features_apart_that_the_source_task_does_not():
    cues = torch.randint(0, 2, (600, 2), generator=draws(4))
    inputs = cues + 0.2 * torch.randn(600, 2, generator=draws(5))

    def task(labels: Tensor) -> ProbedTask:
        parts = [(inputs[a:b], labels[a:b]) for a, b in ((0, 200), (200, 300), (300, 600))]
        return ProbedTask(train=parts[0], select=parts[1], test=parts[2])

    kept = {"first": lambda x: x[:, :1], "both": lambda x: x}
    found = transfer(kept, source=task(cues[:, 0]), target=task(cues[:, 1]))
    scores = {score.name: (score.source.accuracy, score.target.accuracy) for score in found}
    assert scores["first"][0] > 0.95
    assert abs(scores["first"][0] - scores["both"][0]) < 0.02
    assert scores["first"][1] < 0.6
    assert scores["both"][1] > 0.95


def test_the_penalty_of_a_probe_is_chosen_on_the_select_rows():
    x = torch.randn(60, 30, generator=draws(6))
    labels = (x[:, 0] + torch.randn(60, generator=draws(7)) > 0).long()
    known = (x[:20], labels[:20])
    judged = (x[20:], labels[20:])
    scores = {s: linear_probe(known, judged, judged, strengths=[s]).accuracy for s in (1e-3, 0.1, 10.0)}
    found = linear_probe(known, judged, judged, strengths=[10.0, 1e-3, 0.1])
    assert found.accuracy == max(scores.values())
    assert found.strength == min(s for s, score in scores.items() if score == found.accuracy)


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"train": (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))}, "labels of train"),
        ({"select": (torch.ones(4, 3), torch.zeros(4, dtype=torch.long))}, "select"),
        ({"test": (torch.ones(4, 2), torch.zeros(3, dtype=torch.long))}, "labels of test"),
        ({"strengths": []}, "strengths"),
        ({"strengths": [-1.0]}, "strengths"),
    ],
)
def test_a_probe_refuses_what_it_cannot_use(change: dict, argument: str):
    plain = (torch.eye(4)[:, :2], torch.arange(4) % 2)
    parts = {"train": plain, "select": plain, "test": plain, **change}
    with pytest.raises(MarginsError, match=argument):
        linear_probe(parts.pop("train"), parts.pop("select"), parts.pop("test"), **parts)
