"""Sets of items with one label: padding, pooling, pretraining, and what set labels separate."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from margins.encoders import (
    GatedAttentionSetPool,
    MeanSetPool,
    PMASetPool,
    Set2Set,
    SumSetPool,
    new_set_pool,
)
from margins.encoders.base import linear
from margins.errors import MarginsError
from margins.labels import SetDataset
from margins.losses import Aggregated
from margins.pretrain import SetLabelPretrain, coarse_separation
from reference import order as reference

POOLS = ("mean", "sum", "attention", "pma", "set2set")


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _sets(seed: int = 0) -> tuple[Tensor, Tensor]:
    """States [4, 6, 8] with masks of 6, 3, 1 and 4 items, in places at random."""
    draws = _seeded(seed)
    states = torch.randn(4, 6, 8, generator=draws, dtype=torch.float64)
    sizes = torch.tensor([6, 3, 1, 4])
    places = torch.rand(4, 6, generator=draws).argsort(1)
    return states, places < sizes[:, None]


def _pool(name: str, width: int = 8) -> nn.Module:
    pool = new_set_pool(name, width, heads=2, steps=3, generator=_seeded(9)).double()
    assert not any(p.isnan().any() for p in pool.parameters())
    return pool


def _items(seed: int = 0) -> SetDataset:
    draws = _seeded(seed)
    sets = torch.cat([torch.arange(7), torch.randint(0, 7, (13,), generator=draws)])
    return SetDataset(torch.randn(20, 5, generator=draws), sets, torch.tensor([0, 1, 2, 0, 1, 2, 0]))


@pytest.mark.parametrize("name", POOLS)
def test_pools_do_not_see_the_order_of_items(name):
    states, mask = _sets()
    pool = _pool(name)
    found = pool(states, mask)
    order = torch.randperm(6, generator=_seeded(1))
    assert (pool(states[:, order], mask[:, order]) - found).abs().max() < 1e-6
    assert found.shape == (4, pool.width)
    assert (found[0] - found[1]).abs().max() > 1e-3, "vacuous: every set gives the same"


@pytest.mark.parametrize("name", POOLS)
def test_pools_do_not_see_padding_whatever_stands_there(name):
    states, mask = _sets()
    pool = _pool(name)
    expected = torch.cat([pool(s[m][None], torch.ones(1, int(m.sum()), dtype=torch.bool))
                          for s, m in zip(states, mask, strict=True)])  # fmt: skip
    dirty = states.masked_fill(~mask[..., None], float("nan")).requires_grad_()
    found = pool(dirty, mask)
    torch.testing.assert_close(found, expected)
    (grad,) = torch.autograd.grad(found.square().sum(), dirty)
    assert bool((grad[~mask] == 0).all())
    assert bool(torch.isfinite(grad).all())


@pytest.mark.parametrize("name", POOLS)
def test_a_set_without_items_gives_zeros_and_finite_gradients(name):
    states, mask = _sets()
    mask[2] = False
    pool = _pool(name)
    found = pool(states.requires_grad_(), mask)
    assert bool((found[2] == 0).all())
    grads = torch.autograd.grad(found.square().sum(), [states, *pool.parameters()])
    assert all(bool(torch.isfinite(g).all()) for g in grads)


@pytest.mark.parametrize("name", POOLS)
def test_pools_have_the_gradient_of_their_value(name):
    states, mask = _sets(2)
    pool = _pool(name)
    assert torch.autograd.gradcheck(lambda s: pool(s, mask), (states.requires_grad_(),), fast_mode=True)


def test_pools_draw_from_their_generator_alone():
    before = torch.random.get_rng_state()
    first, second = (_pool(name).state_dict() for name in ("pma", "pma") for _ in (0,))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_gated_attention_is_its_formula():
    states, mask = _sets(3)
    pool = GatedAttentionSetPool(8, hidden=5, generator=_seeded()).double()
    weights = pool.weights(states, mask)
    for s, m, w, pooled in zip(states, mask, weights, pool(states, mask), strict=True):
        gated = [torch.tanh(pool.values(item)) * torch.sigmoid(pool.gates(item)) for item in s[m]]
        raw = [pool.scores(each).item() for each in gated]
        expected = np.exp(raw) / np.exp(raw).sum()
        np.testing.assert_allclose(w[m].detach(), expected, rtol=1e-9)
        assert bool((w[~m] == 0).all())
        np.testing.assert_allclose(pooled.detach(), (expected[:, None] * s[m].numpy()).sum(0), rtol=1e-9)


def test_pma_attends_as_torch_does():
    states, mask = _sets(4)
    pool = PMASetPool(8, heads=2, generator=_seeded()).double()
    attention = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([pool.query.weight, pool.keys_and_values.weight]))
        attention.in_proj_bias.copy_(torch.cat([pool.query.bias, pool.keys_and_values.bias]))
        attention.out_proj.weight.copy_(pool.outgoing.weight)
        attention.out_proj.bias.copy_(pool.outgoing.bias)
    seen = torch.relu(pool.before(states))
    seeds = pool.seed.expand(4, 1, 8)
    attended = pool.attended_norm(seeds + attention(seeds, seen, seen, key_padding_mask=~mask)[0])[:, 0]
    expected = pool.norm(attended + torch.relu(pool.after(attended)))
    torch.testing.assert_close(pool(states, mask), expected)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_set2set_equals_the_reference(steps):
    states, mask = _sets(5)
    pool = Set2Set(8, steps=steps, generator=_seeded(2)).double()
    weights = [p.detach().numpy() for p in pool.cell.parameters()]
    for s, m, found in zip(states, mask, pool(states, mask), strict=True):
        expected = reference.set2set(s, *weights, steps=steps, known=m)
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-9, atol=1e-12)
    assert (pool(states, mask) == 0).all() == (steps == 0)


def test_a_first_step_from_a_zero_state_is_the_mean():
    states, mask = _sets(6)
    pool = Set2Set(8, steps=1, generator=_seeded()).double()
    with torch.no_grad():
        for parameter in pool.cell.parameters():
            parameter.zero_()
    found = pool(states, mask)
    assert bool((found[:, :8] == 0).all())
    torch.testing.assert_close(found[:, 8:], MeanSetPool(8)(states, mask))


def test_mean_pooling_under_a_linear_classifier_averages_the_items_logits():
    states, mask = _sets(7)
    classifier = linear(8, 3, generator=_seeded()).double()
    logits = classifier(states)
    expected = torch.stack([row[m].mean(0) for row, m in zip(logits, mask, strict=True)])
    torch.testing.assert_close(classifier(MeanSetPool(8)(states, mask)), expected)
    sizes = mask.sum(1, keepdim=True)
    torch.testing.assert_close(SumSetPool(8)(states, mask), MeanSetPool(8)(states, mask) * sizes)


def test_a_set_of_a_batch_holds_its_items_and_padding_after_them():
    data = _items()
    which = torch.tensor([4, 0, 6])
    batch = data.batch(which)
    for number, place in enumerate(which.tolist()):
        rows = torch.nonzero(data.set_index == place)[:, 0]
        size = len(rows)
        assert batch.mask[number].tolist() == [True] * size + [False] * (batch.mask.shape[1] - size)
        assert torch.equal(batch.rows[number, :size], rows)
        assert bool((batch.rows[number, size:] == -1).all())
        assert torch.equal(batch.items[number, :size], data.items[rows])
        assert bool((batch.items[number, size:] == 0).all())
    assert torch.equal(batch.labels, data.set_labels[which])
    items, sets = batch.flat()
    assert torch.equal(batch.padded(items), batch.items)
    # The contract of bags: what `flat` gives is what a loss of bags takes.
    torch.testing.assert_close(
        Aggregated(rho=0.0, reduction="sum")(items, sets, torch.zeros(3, 5)),
        MeanSetPool(5)(batch.items, batch.mask).square().sum(),
    )
    assert torch.equal(data.copied_labels(), data.set_labels[data.set_index])


def test_batches_hold_every_set_once_in_an_order_of_their_generator():
    data = _items()
    state = torch.random.get_rng_state()
    seen = [[b.rows[b.mask] for b in data.batches(3, generator=_seeded(seed))] for seed in (0, 0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert [len(rows) for rows in seen] == [3, 3, 3]
    assert sorted(torch.cat(seen[0]).tolist()) == list(range(20))
    assert torch.equal(torch.cat(seen[0]), torch.cat(seen[1]))
    assert not torch.equal(torch.cat(seen[0]), torch.cat(seen[2]))


def _pretrain(pool: str = "mean", **settings) -> SetLabelPretrain:
    encoder = nn.Sequential(linear(5, 4, generator=_seeded(3)), nn.Tanh())
    return SetLabelPretrain(
        encoder, new_set_pool(pool, 4, heads=2, generator=_seeded(4)), num_labels=3, generator=_seeded(5),
        **settings,
    )  # fmt: skip


@pytest.mark.parametrize("pool", POOLS)
def test_a_set_of_one_item_is_that_item_classified(pool):
    net = _pretrain(pool)
    items = torch.randn(6, 5, generator=_seeded())
    alone = SetDataset(items, torch.arange(6), torch.tensor([0, 1, 2, 0, 1, 2]))
    torch.testing.assert_close(net.set_logits(alone.batch(torch.arange(6))), net.item_logits(items))
    if pool == "mean":  # the classifier of items itself
        batch = alone.batch(torch.arange(6))
        plain = nn.functional.cross_entropy(net.classifier(net.encoder(items)), batch.labels)
        torch.testing.assert_close(net(batch), plain)


@pytest.mark.parametrize("loss", ["cross_entropy", "sup_con"])
def test_padding_changes_neither_loss_nor_gradient(loss):
    data, decoder = _items(), linear(4, 5, generator=_seeded())
    net = _pretrain("attention", loss=loss, decoder=decoder, reconstruction=0.5)
    batch = data.batch(torch.arange(7))
    wider = type(batch)(
        nn.functional.pad(batch.items, (0, 0, 0, 3), value=7.0), nn.functional.pad(batch.mask, (0, 3)),
        batch.labels, nn.functional.pad(batch.rows, (0, 3), value=-1),
    )  # fmt: skip
    weights = list(net.encoder.parameters())
    first, second = (torch.autograd.grad(net(b), weights) for b in (batch, wider))
    torch.testing.assert_close(net(batch), net(wider))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().max() > 1e-4


def test_the_mixed_objective_adds_the_mean_squared_error_of_all_items():
    data, decoder = _items(), linear(4, 5, generator=_seeded())
    batch = data.batch(torch.arange(7))
    plain, mixed = _pretrain(), _pretrain(decoder=decoder, reconstruction=0.5)
    missed = (decoder(mixed.encoder(data.items)) - data.items).square().mean()
    torch.testing.assert_close(mixed(batch), plain(batch) + 0.5 * missed)
    with pytest.raises(MarginsError, match="decoder"):
        _pretrain(reconstruction=0.5)
    with pytest.raises(MarginsError, match="decoder"):
        _pretrain(decoder=decoder)


def _key_sets(num_sets: int, seed: int) -> tuple[SetDataset, Tensor]:
    """Sets of five items: one of a key class 0 to 2, which is the set's label, four of classes 3 and 4."""
    draws = _seeded(seed)
    labels = torch.arange(num_sets) % 3
    classes = torch.randint(3, 5, (num_sets, 5), generator=draws)
    classes[:, 0] = labels
    items = 3 * torch.eye(5)[classes.flatten()] + 0.5 * torch.randn(5 * num_sets, 5, generator=draws)
    return SetDataset(items, torch.arange(num_sets).repeat_interleave(5), labels), classes.flatten()


@pytest.mark.parametrize("loss", ["cross_entropy", "sup_con"])
def test_pretraining_brings_sets_of_a_label_together(loss):
    net, (data, _), (other, _) = _pretrain(loss=loss), _key_sets(150, 0), _key_sets(150, 1)
    right, losses = [], []
    for _ in range(2):
        pooled = []
        for each in (data, other):
            batch = each.batch(torch.arange(150))
            vectors = net.pool(batch.padded(net.encoder(batch.flat()[0])), batch.mask).detach()
            pooled.append(nn.functional.normalize(vectors, dim=1))
        centres = torch.stack([pooled[0][data.set_labels == c].mean(0) for c in range(3)])
        guess = torch.cdist(pooled[1], centres).argmin(1)
        right.append(float((guess == other.set_labels).float().mean()))
        losses += net.fit(data, epochs=15, lr=0.05, generator=_seeded(1))
    assert losses[-1] < 0.9 * losses[0]
    assert right[0] < 0.7
    assert right[1] > right[0] + 0.1


def test_classes_that_set_labels_do_not_separate_are_named():
    data, classes = _key_sets(300, 1)
    found = {c.number: c for c in coarse_separation(data, classes)}
    assert [c for c in found if found[c].is_separated] == [0, 1, 2]
    assert found[3].confused_with == (4,)
    assert found[4].confused_with == (3,)
    assert found[3].nearest == 4
    assert found[3].distance < 0.1 < found[0].distance
    assert found[0].num_sets == 100
    assert "do not tell it from 4" in found[3].sentence
    # Of items whose class is not known nothing is said; of few known ones nothing is claimed.
    few = torch.where(torch.arange(len(classes)) < 10, classes, -1)
    assert not any(c.is_separated for c in coarse_separation(data, few))
    with pytest.raises(MarginsError, match="item_classes"):
        coarse_separation(data, torch.full_like(classes, -1))


def test_separation_errs_seldom_when_labels_say_nothing():
    wrong = 0
    for seed in range(40):
        draws = _seeded(seed)
        labels = torch.randint(0, 4, (200,), generator=draws)
        data = SetDataset(torch.zeros(400, 1), torch.arange(400) // 2, labels)
        classes = torch.randint(0, 5, (400,), generator=draws)
        wrong += any(c.is_separated for c in coarse_separation(data, classes, least_distance=0.0))
    assert wrong <= 2


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (lambda: SetDataset(torch.zeros(3, 1), torch.tensor([0, 2, 2]), torch.tensor([0, 0])), "bag_index"),
        (lambda: SetDataset(torch.zeros(3, 1), torch.tensor([0, 1, 1]), torch.tensor([0])), "set_labels"),
        (lambda: next(_items().batches(0, generator=_seeded())), "sets_per_batch"),
        (lambda: new_set_pool("median", 4, generator=_seeded()), "name"),
        (lambda: PMASetPool(7, heads=2, generator=_seeded()), "width, heads"),
        (lambda: Set2Set(4, steps=-1, generator=_seeded()), "steps"),
        (lambda: MeanSetPool(4)(torch.zeros(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)), "states"),
        (lambda: MeanSetPool(4)(torch.zeros(2, 3, 4), torch.ones(2, 3)), "mask"),
        (lambda: _pretrain(loss="hinge"), "loss"),
        (lambda: coarse_separation(_items(), torch.zeros(3, dtype=torch.long)), "item_classes"),
    ],
)
def test_what_sets_cannot_be_made_of_is_refused_by_name(given, named):
    with pytest.raises(MarginsError) as caught:
        given()
    assert caught.value.argument == named
