"""Heads against their formulas, and their settings as data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from margins.errors import MarginsError
from margins.heads import (
    AnyHead,
    CosineHead,
    CosineSettings,
    LinearHead,
    LinearSettings,
    MultiHead,
    MultiSettings,
    ProjectionHead,
    ProjectionSettings,
)

MULTI = MultiSettings(
    heads={"type": LinearSettings(), "a.b": CosineSettings(), "view": ProjectionSettings(dim=4)},
    sizes={"type": 7},
)
SETTINGS = {
    "linear": LinearSettings(),
    "cosine": CosineSettings(),
    "learned cosine": CosineSettings(temperature=0.3, learn_temperature=True),
    "projection": ProjectionSettings(dim=3),
    "deep projection": ProjectionSettings(dim=3, depth=3, normalise=False),
    "multi": MULTI,
}
every_head = pytest.mark.parametrize("name", list(SETTINGS))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embeddings(num: int = 5, width: int = 6) -> torch.Tensor:
    return torch.randn(num, width, generator=seeded(8))


def flat(outputs: Any) -> torch.Tensor:
    return (
        torch.cat([o.flatten() for o in outputs.values()]) if isinstance(outputs, dict) else outputs.flatten()
    )


@every_head
def test_state_in_a_head_built_from_data_gives_the_same_outputs(name: str):
    adapter: TypeAdapter[Any] = TypeAdapter(AnyHead)
    settings = adapter.validate_json(adapter.dump_json(SETTINGS[name]))
    head, fresh = settings.build(6, 3, generator=seeded()), settings.build(6, 3, generator=seeded(9))
    expected = flat(head(embeddings()))
    assert not torch.equal(flat(fresh(embeddings())), expected)
    fresh.load_state_dict(head.state_dict())
    assert torch.equal(flat(fresh(embeddings())), expected)
    assert len(flat(head(embeddings(0)))) == 0


@every_head
def test_first_weights_follow_from_the_generator_and_leave_the_global_one_alone(name: str):
    before = torch.get_rng_state()
    one, same = (SETTINGS[name].build(6, 3, generator=seeded(1)) for _ in range(2))
    assert torch.equal(flat(one(embeddings())), flat(same(embeddings())))
    assert torch.equal(torch.get_rng_state(), before)


@every_head
def test_every_parameter_of_a_head_learns(name: str):
    head = SETTINGS[name].build(6, 3, generator=seeded())
    (
        flat(head(embeddings())) * torch.randn(500, generator=seeded(2))[: len(flat(head(embeddings())))]
    ).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_cosine_logits_are_cosines_over_the_temperature():
    head, x = CosineHead(6, 3, temperature=0.2, generator=seeded()), embeddings()
    expected = nn.functional.cosine_similarity(x[:, None], head.weight[None], dim=-1) / 0.2
    assert torch.allclose(head(x), expected, atol=1e-5)
    assert torch.allclose(head(7 * x), expected, atol=1e-5)
    head.weight.data *= 3
    assert torch.allclose(head(x), expected, atol=1e-5)


def test_a_zero_embedding_scores_zero_with_a_finite_gradient():
    head, x = CosineHead(6, 3, generator=seeded()), torch.zeros(2, 6, requires_grad=True)
    scores = head(x)
    scores.sum().backward()
    assert (scores == 0).all()
    assert torch.isfinite(x.grad).all()


def test_a_learned_temperature_is_a_parameter_and_a_fixed_one_is_not():
    fixed, learned = (
        CosineSettings(learn_temperature=b).build(6, 3, generator=seeded()) for b in (False, True)
    )
    assert len(list(fixed.parameters())) == 1
    assert len(list(learned.parameters())) == 2
    assert torch.equal(fixed(embeddings()), learned(embeddings()))
    assert float(learned.temperature.detach()) == pytest.approx(0.05)
    assert set(fixed.state_dict()) == set(learned.state_dict())


def test_projections_have_length_one_only_when_asked_for():
    unit, free = (ProjectionHead(6, dim=4, normalise=n, generator=seeded()) for n in (True, False))
    assert torch.allclose(unit(embeddings()).norm(dim=1), torch.ones(5), atol=1e-6)
    assert torch.allclose(unit(embeddings()), nn.functional.normalize(free(embeddings()), dim=1))
    assert not torch.allclose(free(embeddings()).norm(dim=1), torch.ones(5), atol=1e-2)
    shallow = ProjectionHead(6, dim=4, depth=1, normalise=False, generator=seeded())
    assert torch.allclose(
        shallow(embeddings()), embeddings() @ shallow.layers[0].weight.T + shallow.layers[0].bias
    )


def test_several_heads_have_their_own_sizes_and_any_names():
    head = MULTI.build(6, 3, generator=seeded())
    outputs = head(embeddings())
    assert {name: tuple(o.shape) for name, o in outputs.items()} == {
        "type": (5, 7),
        "a.b": (5, 3),
        "view": (5, 4),
    }
    first = LinearHead(6, 7, generator=seeded())
    assert torch.equal(outputs["type"], first(embeddings()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CosineHead(6, 3, temperature=0.0, generator=seeded()), ("temperature", "positive")),
        (lambda: CosineSettings(temperature=-1.0), ("temperature", "greater than 0")),
        (lambda: CosineSettings(temperature=float("nan")), ("temperature", "finite")),
        (lambda: ProjectionSettings(dim=0), ("dim", "1")),
        (lambda: LinearSettings(bias=True), ("bias", "known setting")),  # type: ignore[call-arg]
        (lambda: MultiSettings(heads={}), ("heads", "at least 1")),
        (lambda: MultiHead({}), ("heads", "at least one head")),
        (
            lambda: MultiSettings(heads={"a": LinearSettings()}, sizes={"b": 2}).build(
                6, 3, generator=seeded()
            ),
            ("sizes", "among a", "{'b': 2}"),
        ),
        (
            lambda: MultiSettings(heads={"a": LinearSettings()}, sizes={"a": 0}).build(
                6, 3, generator=seeded()
            ),
            ("sizes", "at least 1"),
        ),
    ],
)
def test_heads_that_make_no_sense_are_refused(make: Any, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        make()
    for word in words:
        assert word in str(refused.value)
