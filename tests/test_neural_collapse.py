"""Laws of the collapse metrics, and of the prediction of what collapses."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import margins
from margins.diagnose import collapse_of, neural_collapse, predict_collapse
from margins.errors import MarginsError

COUNTS = (500, 100, 20, 5)


def _simplex(num_classes: int, dim: int, seed: int = 0) -> Tensor:
    """Vertices of a simplex around 0 in `dim` dimensions, rows of length one."""
    draws = torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(torch.randn(dim, num_classes, generator=draws, dtype=torch.float64)).Q.T
    return math.sqrt(num_classes / (num_classes - 1)) * (frame - frame.mean(0))


def _every_figure(found) -> list[float]:
    return [found.nc1, found.nc2_simplex, found.nc3_simplex, found.nc4]


def test_every_figure_is_zero_on_a_simplex_frame():
    means, labels = _simplex(4, 7), torch.arange(4).repeat(5)
    shift = torch.arange(7.0).double()
    found = neural_collapse(3 * means[labels] + shift, labels, 0.5 * means, -0.5 * means @ shift)
    assert max(_every_figure(found)) < 1e-10
    assert found.nc2_orthogonal > 0.1, "vacuous: the frames look alike"


def test_every_figure_is_zero_on_an_orthogonal_frame():
    frame = torch.linalg.qr(torch.randn(7, 4, generator=torch.Generator().manual_seed(1)).double()).Q.T
    labels = torch.arange(4).repeat_interleave(3)
    found = neural_collapse(2 * frame[labels], labels, 5 * frame)
    figures = [found.nc1, found.nc2_orthogonal, found.nc3_orthogonal, found.nc4, found.off_diagonal]
    assert max(figures) < 1e-10
    # Its centred means are a simplex too: the orthogonal frame is the sharper statement.
    assert found.nc2_simplex < 1e-10
    np.testing.assert_allclose(found.mean_norms, 2.0)
    np.testing.assert_allclose(found.weight_norms, 5.0)


def test_orthogonal_means_of_any_lengths_have_no_energy_off_the_diagonal():
    means = torch.diag(torch.tensor([3.0, 1.0, 0.2]))
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    found = neural_collapse(means[labels], labels)
    assert found.off_diagonal == 0.0
    assert found.nc2_orthogonal > 0.1, "vacuous: the lengths are alike"
    assert (found.counts, found.nc3_simplex, found.nc4, found.weight_norms) == ((4, 2, 1), None, None, None)


def test_metrics_equal_their_definitions_in_loops():
    rng = np.random.default_rng(3)
    features, weight, bias = rng.normal(size=(30, 5)), rng.normal(size=(3, 5)), rng.normal(size=3)
    labels = np.array([0] * 15 + [1] * 10 + [2] * 5)
    means = np.stack([features[labels == k].mean(0) for k in range(3)])
    centred = means - features.mean(0)
    within = sum(np.outer(f - means[k], f - means[k]) for f, k in zip(features, labels, strict=True)) / 30
    between = sum(np.outer(m, m) for m in centred) / 3
    simplex = (np.eye(3) - 1 / 3) / math.sqrt(2)

    def distance(found, target):
        return np.linalg.norm(found / np.linalg.norm(found) - target)

    gram = means @ means.T
    wrong = [
        np.argmax(weight @ f + bias) != np.argmin([np.linalg.norm(f - m) for m in means]) for f in features
    ]
    found = neural_collapse(*map(torch.from_numpy, (features, labels, weight, bias)))
    expected = {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / 3,
        "nc2_simplex": distance(centred @ centred.T, simplex),
        "nc2_orthogonal": distance(gram, np.eye(3) / math.sqrt(3)),
        "nc3_simplex": distance(weight @ centred.T, simplex),
        "nc3_orthogonal": distance(weight @ means.T, np.eye(3) / math.sqrt(3)),
        "nc4": np.mean(wrong),
        "off_diagonal": 1 - (np.diag(gram) ** 2).sum() / (gram**2).sum(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-9, err_msg=name)
    assert 0 < found.nc4 < 1, "vacuous: head and nearest mean agree everywhere"


def test_metrics_see_neither_rotation_nor_scale_of_features():
    draws = torch.Generator().manual_seed(4)
    features = torch.randn(40, 6, generator=draws, dtype=torch.float64)
    labels = torch.arange(4).repeat(10)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=draws, dtype=torch.float64)).Q
    first, second = neural_collapse(features, labels), neural_collapse(7 * features @ turn, labels)
    for name in ("nc1", "nc2_simplex", "nc2_orthogonal", "off_diagonal"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-9)


@pytest.mark.parametrize("decay", [5e-3, 2e-3])
def test_gradient_descent_ends_where_the_closed_form_says(decay):
    outputs, network = _descended([decay], decay)
    predicted = predict_collapse(COUNTS, weight_decay=[decay], feature_decay=decay)
    known = {
        5e-3: ((0.8602, 0.6875, 0.3012, 0.0), (19.236, 6.875, 1.347, 0.0)),
        2e-3: ((0.9441, 0.8750, 0.7205, 0.4410), None),
    }[decay]
    np.testing.assert_allclose(predicted.outputs, known[0], atol=5e-5)
    np.testing.assert_allclose(outputs, predicted.outputs, atol=5e-5)
    np.testing.assert_allclose(
        np.square(network.weight_norms), predicted.weight_energies, rtol=5e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        np.square(network.mean_norms), predicted.feature_energies, rtol=5e-4, atol=1e-4
    )
    assert predicted.feature_energies == pytest.approx(predicted.head_feature_energies)
    assert network.off_diagonal < 1e-8
    assert network.nc1 < 1e-10
    if known[1] is not None:
        np.testing.assert_allclose(predicted.weight_energies, known[1], atol=5e-4)
        assert predicted.collapsed == (3,)
        np.testing.assert_allclose(predicted.collapse_count, 9.765625)
        assert "classes 3 (5 rows) are predicted to collapse" in predicted.warnings[0]
    else:
        assert (predicted.collapsed, predicted.warnings) == ((), ())


def test_two_layers_end_where_the_scalar_problem_says():
    outputs, network = _descended([1e-3, 1e-3], 1e-3, steps=2500)
    predicted = predict_collapse(COUNTS, weight_decay=[1e-3, 1e-3], feature_decay=1e-3)
    np.testing.assert_allclose(predicted.outputs, (0.9900, 0.9707, 0.9125, 0.7664), atol=5e-5)
    np.testing.assert_allclose(outputs, predicted.outputs, atol=5e-5)
    np.testing.assert_allclose(np.square(network.weight_norms), predicted.weight_energies, rtol=1e-3)
    np.testing.assert_allclose(np.square(network.mean_norms), predicted.head_feature_energies, rtol=1e-3)
    assert network.off_diagonal < 1e-8


def _descended(decays, feature_decay, *, width: int = 8, steps: int = 1500):
    """Adam on free features and linear layers; what comes out for each class, and the geometry."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    targets = nn.functional.one_hot(labels).double()
    sizes = [width] * len(decays) + [len(COUNTS)]
    features, *layers = (
        (0.3 * torch.randn(*shape, generator=draws, dtype=torch.float64)).requires_grad_()
        for shape in [(len(labels), width), *zip(sizes[1:], sizes[:-1], strict=True)]
    )
    descent = torch.optim.Adam([features, *layers], lr=2e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(descent, steps)
    for _ in range(steps):
        outputs = features
        for layer in layers:
            outputs = outputs @ layer.T
        penalty = sum(d / 2 * w.square().sum() for d, w in zip(decays, layers, strict=True))
        loss = (outputs - targets).square().sum() / (2 * len(labels))
        descent.zero_grad()
        (loss + penalty + feature_decay / 2 * features.square().sum()).backward()
        descent.step()
        rate.step()
    inside = features.detach()
    for layer in layers[:-1]:
        inside = inside @ layer.detach().T
    own = [float(outputs.detach()[labels == k, k].mean()) for k in range(len(COUNTS))]
    means = torch.stack([inside[labels == k].mean(0) for k in range(len(COUNTS))])
    for rows in (means, layers[-1].detach()):
        gram = rows @ rows.T
        assert float((gram - gram.diag().diag()).abs().max()) < 2e-5
    return own, neural_collapse(inside, labels, layers[-1])


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_the_scalar_minimiser_is_the_least_on_a_fine_grid(depth):
    rng = np.random.default_rng(depth)
    collapsed = 0
    for _ in range(20):
        counts = rng.integers(1, 300, size=3).tolist()
        decays = (10 ** rng.uniform(-4, -1, size=depth)).tolist()
        feature_decay = float(10 ** rng.uniform(-4, -1))
        found = predict_collapse(counts, weight_decay=decays, feature_decay=feature_decay)
        x = np.linspace(0, 1, 20_001)
        for count, output in zip(counts, found.outputs, strict=True):
            c = count * feature_decay * math.prod(decays)
            cost = count / (2 * sum(counts)) * (x - 1) ** 2 + (depth + 1) / 2 * (c * x**2) ** (
                1 / (depth + 1)
            )
            assert abs(x[cost.argmin()] - output) < 1e-4
            collapsed += output == 0
    assert 0 < collapsed < 60, "vacuous: all or no classes collapse"


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_class_collapses_exactly_at_the_count_that_is_told(depth):
    decays = [3e-3] * depth
    total = 1000
    threshold = predict_collapse([total], weight_decay=decays, feature_decay=3e-3).collapse_count
    below, above = math.floor(threshold), math.floor(threshold) + 1
    assert 1 <= below < total / 2, "vacuous: no class near the threshold"
    for rare, output_is_zero in ((below, True), (above, False)):
        found = predict_collapse([total - rare, rare], weight_decay=decays, feature_decay=3e-3)
        np.testing.assert_allclose(found.collapse_count, threshold)
        assert (found.outputs[1] == 0) == output_is_zero
    if depth > 1:  # below the head of a deep tail a class is kept large or not at all
        assert found.outputs[1] >= (depth - 1) / depth - 1e-9


def test_collapse_of_a_model_is_that_of_its_embeddings_and_head():
    draws = torch.Generator().manual_seed(5)
    rows = torch.randn(12, 3, generator=draws)
    head = nn.Linear(3, 2)
    model = SimpleNamespace(classes=["b", "a"], network=SimpleNamespace(head=head), embed=lambda x: x.numpy())
    labels = ["a", "b"] * 6
    found = collapse_of(model, rows, labels)
    assert found == neural_collapse(rows, torch.tensor([1, 0] * 6), head.weight, head.bias)
    with pytest.raises(MarginsError, match="'c'"):
        collapse_of(model, rows, ["c"] * 12)
    model.network.head = nn.Identity()
    with pytest.raises(MarginsError, match="linear head"):
        collapse_of(model, rows, labels)


def test_a_trained_model_has_collapse_metrics():
    rng = np.random.default_rng(0)
    labels = ["no", "yes", "may be"] * 20
    shift = {"no": 0.0, "yes": 3.0, "may be": 6.0}
    data = {"a": [shift[label] + rng.normal() for label in labels], "label": labels}
    model = margins.train(data, target="label", recipe={"max_epochs": 2}).model
    found = collapse_of(model, data, labels)
    assert found.counts == (20, 20, 20)
    assert found.nc1 > 0
    predicted = model.predict(data)
    assert found.nc4 <= 1
    assert set(predicted) <= set(labels)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: neural_collapse(torch.ones(3, 2), torch.tensor([0, 0, 0])), "labels"),
        (lambda: neural_collapse(torch.ones(3, 2), torch.tensor([0, 2, 0])), "without rows"),
        (lambda: neural_collapse(torch.ones(3, 2), torch.tensor([0.0, 1.0, 0.0])), "labels"),
        (lambda: neural_collapse(torch.ones(3, 2).long(), torch.tensor([0, 1, 0])), "features"),
        (lambda: neural_collapse(torch.full((2, 2), math.nan), torch.tensor([0, 1])), "features"),
        (lambda: neural_collapse(torch.ones(2, 2), torch.tensor([0, 1]), torch.ones(2, 3)), "weight"),
        (lambda: predict_collapse([], weight_decay=[1e-3], feature_decay=1e-3), "counts"),
        (lambda: predict_collapse([5, 0], weight_decay=[1e-3], feature_decay=1e-3), "counts"),
        (lambda: predict_collapse([5], weight_decay=[], feature_decay=1e-3), "weight_decay"),
        (lambda: predict_collapse([5], weight_decay=[0.0], feature_decay=1e-3), "above 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(call, named):
    with pytest.raises(MarginsError, match=named):
        call()


def test_features_that_are_all_zero_give_numbers():
    found = neural_collapse(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]), torch.zeros(2, 3))
    assert all(math.isfinite(value) for value in [*_every_figure(found), found.off_diagonal])
