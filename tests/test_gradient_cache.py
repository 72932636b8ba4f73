"""Gradient caching gives the gradients of one big batch, dropout and all, and nothing when it fails."""

import pytest
import torch
from torch import Tensor, nn

from harness.blockwise import LargestTensor
from margins.engine import GradientCache
from margins.errors import MarginsError
from margins.losses import InfoNCE, LearnedTemperature, SupCon

ROWS = 11


def _encoder(seed: int = 0, rate: float = 0.4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Dropout(rate), nn.Tanh(), nn.Linear(8, 3)).double()


def _inputs(seed: int = 1) -> Tensor:
    return torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gradients(*modules: nn.Module) -> list[Tensor]:
    return [p.grad for module in modules for p in module.parameters() if p.grad is not None]


def _plain_in_chunks(encoder: nn.Module, view: Tensor, size: int) -> Tensor:
    """One graph over all chunks: the same random numbers, and no caching."""
    return torch.cat([encoder(view[a : a + size]) for a in range(0, len(view), size)])


@pytest.mark.parametrize("size", [1, 3, 4, 11, 50])
def test_gradients_are_those_of_one_batch_with_dropout_on(size: int) -> None:
    labels = torch.arange(ROWS) % 4
    plain, cached = _encoder(), _encoder()

    def loss(embeddings: Tensor) -> Tensor:  # it draws as well, after all the embeddings
        value = SupCon(temperature=0.5).double().on_embeddings(embeddings, labels)
        return value * (1 + torch.rand((), dtype=torch.float64))

    torch.manual_seed(7)
    expected = loss(_plain_in_chunks(plain, _inputs(), size))
    expected.backward()
    drawn_next = torch.rand(1)
    torch.manual_seed(7)
    found = GradientCache(cached, chunk_size=size).step(loss, _inputs())
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
    for a, b in zip(_gradients(cached), _gradients(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert torch.equal(torch.rand(1), drawn_next), "the generator goes on as after one pass"
    assert _gradients(plain)[0].abs().max() > 1e-4, "vacuous: no gradient"


def test_without_the_recorded_random_state_dropout_would_give_other_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("margins.engine.caching.random_state.RandomState.restore", lambda _: None)
    with pytest.raises(AssertionError):
        test_gradients_are_those_of_one_batch_with_dropout_on(3)


def _on_pairs(loss: InfoNCE):
    return lambda queries, documents: loss.on_pairs(queries, documents)


@pytest.mark.parametrize("shared", [True, False])
def test_two_views_through_one_encoder_or_two_get_the_gradients_of_one_batch(shared: bool) -> None:
    loss = InfoNCE(LearnedTemperature(0.5)).double()
    results = []
    for cached in (False, True):
        loss.zero_grad()
        first = _encoder()
        second = first if shared else _encoder(3)
        torch.manual_seed(8)
        if cached:
            cache = GradientCache(first if shared else [first, second], chunk_size=4)
            value = cache.step(_on_pairs(loss), _inputs(1), _inputs(2))
            assert cache.chunk_sizes == (4, 4)
        else:
            queries = _plain_in_chunks(first, _inputs(1), 4)
            value = loss.on_pairs(queries, _plain_in_chunks(second, _inputs(2), 4))
            value.backward()
        modules = (first, loss) if shared else (first, second, loss)
        results.append([value.detach(), *_gradients(*modules)])
    assert len(results[0]) == (6 if shared else 10)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


class _Noisy(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator, self.linear = generator, nn.Linear(5, 3).double()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        noise = torch.randn(inputs["x"].shape, generator=self.generator, dtype=torch.float64)
        return self.linear(inputs["x"] * noise) + inputs["y"]


def test_given_generators_are_replayed_and_inputs_may_be_dicts() -> None:
    inputs = {"x": _inputs(), "y": torch.ones(ROWS, 3, dtype=torch.float64)}
    results = []
    for cached in (False, True):
        torch.manual_seed(0)
        encoder = _Noisy(torch.Generator().manual_seed(5))
        if cached:
            cache = GradientCache(encoder, chunk_size=3, generators=[encoder.generator])
            cache.step(lambda z: z.square().sum().sqrt(), inputs)
        else:
            parts = [encoder({n: t[a : a + 3] for n, t in inputs.items()}) for a in range(0, ROWS, 3)]
            torch.cat(parts).square().sum().sqrt().backward()
        results.append([*_gradients(encoder), torch.rand(1, generator=encoder.generator)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, check_dtype=False)


def test_gradients_add_to_those_already_there_and_steps_add_up() -> None:
    encoder = _encoder(rate=0.0)
    cache = GradientCache(encoder, chunk_size=4)
    cache.step(lambda z: z.square().mean(), _inputs())
    once = [g.clone() for g in _gradients(encoder)]
    cache.step(lambda z: z.square().mean(), _inputs())
    for a, b in zip(_gradients(encoder), once, strict=True):
        torch.testing.assert_close(a, 2 * b)


class _FailsLate(nn.Module):
    """Raises at its n-th call."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.linear, self.left = nn.Linear(5, 3).double(), calls

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of luck")
        return self.linear(x)


def test_an_encoder_that_fails_in_its_second_pass_leaves_the_gradients_as_they_were() -> None:
    encoder = _FailsLate(4)  # three chunks without a graph, the first one again
    before = torch.full_like(encoder.linear.weight, 2.0)
    encoder.linear.weight.grad = before
    with pytest.raises(RuntimeError, match="out of luck"):
        GradientCache(encoder, chunk_size=4).step(lambda z: z.square().sum(), _inputs())
    assert encoder.linear.weight.grad is before
    assert bool((before == 2.0).all())
    assert encoder.linear.bias.grad is None


def test_batch_normalisation_in_training_is_refused_by_name_and_frozen_it_is_not() -> None:
    encoder = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).double()
    cache = GradientCache(encoder, chunk_size=4)
    with pytest.raises(MarginsError, match="BatchNorm1d"):
        cache.step(lambda z: z.sum(), _inputs())
    encoder[1].eval()
    cache.step(lambda z: z.square().sum(), _inputs())
    assert len(_gradients(encoder)) == 4


@pytest.mark.parametrize("inside", [True, False])
def test_autocast_and_a_scaler_give_the_scaled_gradients_of_a_plain_step(inside: bool) -> None:
    view, results = _inputs().float(), []
    for cached in (False, True):
        encoder = _encoder(rate=0.0).float()
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

        def encode(x: Tensor, encoder: nn.Module = encoder) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return encoder(x)

        def loss(z: Tensor) -> Tensor:
            return z.float().square().mean()

        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            if cached:
                value = GradientCache(encode, chunk_size=4).step(loss, view, scaler=scaler)
            else:
                value = loss(_plain_in_chunks(encode, view, 4))
                scaler.scale(value).backward()
        results.append([value.detach(), *_gradients(encoder)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.02 * float(b.abs().max()))  # bfloat16's grain
    assert len(results[1]) == 5
    assert results[1][1].abs().max() > 1e-2, "vacuous: nothing was scaled"


def test_a_chunk_that_fits_is_chosen_from_a_probe_and_reported() -> None:
    encoder = _encoder(rate=0.0)
    # A row keeps its input, the tanh of 8 and the embedding of 3, in float64, and perhaps a mask.
    small = GradientCache(encoder, chunk_size="auto", free_memory=3 * 4 * 8 * (5 + 8 + 3))
    small.step(lambda z: z.square().mean(), _inputs())
    large = GradientCache(encoder, chunk_size="auto")
    large.step(lambda z: z.square().mean(), _inputs())
    assert 1 <= small.chunk_sizes[0] <= 3
    assert large.chunk_sizes == (ROWS,)


def test_choosing_a_chunk_leaves_the_random_numbers_as_they_were() -> None:
    results = []
    for size in ("auto", ROWS):
        encoder = _encoder()
        torch.manual_seed(3)
        GradientCache(encoder, chunk_size=size).step(lambda z: z.square().mean(), _inputs())
        results.append(_gradients(encoder))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_no_chunk_makes_a_tensor_of_all_rows_inside_the_encoder() -> None:
    encoder = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 2))
    view = torch.randn(200, 5)
    with LargestTensor() as seen:
        encoder(view).square().mean().backward()
    assert seen.elements >= 200 * 64, "vacuous: the watcher does not see the activations"
    with LargestTensor() as seen:
        GradientCache(encoder, chunk_size=10).step(lambda z: z.square().mean(), view)
    assert seen.elements <= 10 * 64


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("chunk_size", lambda e: GradientCache(e, chunk_size=0)),
        ("loss", lambda e: GradientCache(e, chunk_size=4).step(lambda z: z, _inputs())),
        ("inputs", lambda e: GradientCache([e, e], chunk_size=4).step(torch.add, _inputs())),
        ("inputs", lambda e: GradientCache(e, chunk_size=4).step(lambda z: z.sum(), ["text"])),
        (
            "inputs",
            lambda e: GradientCache(e, chunk_size=4).step(lambda z: z.sum(), (_inputs(), _inputs()[:2])),
        ),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_by_name(argument, call) -> None:
    with pytest.raises(MarginsError) as raised:
        call(_encoder())
    assert raised.value.argument == argument
