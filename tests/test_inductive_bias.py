"""Laws of the information that a target error takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import gammainc, ive
from scipy.stats import kstest, ncx2, norm
from torch import Tensor, nn

from margins.diagnose import (
    NoncentralChiSquared,
    QuadraticForm,
    cnn,
    inductive_bias,
    kernel_errors,
    median_width,
    mlp,
    network_errors,
    probability_points,
    random_functions,
    rbf_kernel,
    shifted_patterns,
)
from margins.diagnose.noncentral import (
    fitted_by_likelihood,
    fitted_by_moments,
    log_gammainc,
    log_scaled_bessel,
    sankaran_log_cdf,
)
from margins.diagnose.random_functions import conjugate_gradients
from margins.errors import MarginsError

ENTRIES, DEVIATION = 40, 0.5
NATS = (4.63, 6.81, 8.92, 19.22)


def _draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _posterior(distance: float = 1.0) -> NoncentralChiSquared:
    """The law of the mean squared error of a Gaussian of equal variances around a point so far off."""
    nc, scale = (distance / DEVIATION) ** 2, DEVIATION**2 / ENTRIES
    return NoncentralChiSquared(df=ENTRIES, nc=nc, scale=scale)


def _sampled(law: NoncentralChiSquared, num: int, seed: int) -> np.ndarray:
    return law.scale * ncx2.rvs(law.df, law.nc, size=num, random_state=seed)


def _target(law: NoncentralChiSquared, nats: float) -> float:
    return float(law.scale * ncx2.ppf(math.exp(-nats), law.df, law.nc))


def test_the_fitted_information_is_near_the_exact_one():
    law = _posterior()
    fits = [fitted_by_likelihood(_sampled(law, 2000, seed)) for seed in range(6)]
    for nats in NATS:
        found = np.array([-fit.log_cdf(_target(law, nats)) for fit in fits])
        assert abs(found.mean() / nats - 1) <= 0.06
        assert max(abs(found / nats - 1)) <= (0.1 if nats < 9 else 0.15)
        assert found.std() > 1e-4, "vacuous: all fits are one"


def test_the_fit_agrees_with_counting_where_counting_is_possible():
    errors = _sampled(_posterior(), 2000, 7)
    for share in (0.01, 0.2):
        found = inductive_bias(
            errors, float(np.quantile(errors, share)), unit="nats", num_resamples=20, seed=0
        )
        assert found.counted == pytest.approx(-math.log(share), rel=0.01)
        assert found.information == pytest.approx(found.counted, abs=0.2)
        assert (found.warnings, found.distance < 0.03) == ((), True)


def test_most_intervals_hold_the_exact_information():
    law = _posterior()
    target = _target(law, 19.22)
    found = [
        inductive_bias(_sampled(law, 100, seed), target, unit="nats", num_resamples=30, seed=0)
        for seed in range(6)
    ]
    assert sum(each.low < 19.22 < each.high for each in found) >= 4
    assert all(0.5 < each.high - each.low < 19.22 for each in found), "vacuous: points, or all numbers"
    assert found[0].counted is None
    assert "extrapolation: none of 100" in found[0].warnings[0]


def test_bits_are_nats_over_the_logarithm_of_two():
    errors = _sampled(_posterior(), 300, 2)
    nats, bits = (
        inductive_bias(errors, 0.1, unit=unit, num_resamples=20, seed=0) for unit in ("nats", "bits")
    )
    for name in ("information", "low", "high"):
        assert getattr(nats, name) == pytest.approx(getattr(bits, name) * math.log(2))
    assert nats.curve([0.1])[0] == nats.information
    curve = bits.curve([0.05, 0.1, 0.2, 0.5])
    assert sorted(curve, reverse=True) == list(curve)


def test_a_law_that_does_not_fit_is_told():
    errors = np.concatenate([_sampled(_posterior(), 100, 3), 9 + _sampled(_posterior(), 100, 4)])
    found = inductive_bias(errors, 0.2, num_resamples=20, seed=0)
    assert found.distance > 0.1
    assert any("do not trust its tail" in text for text in found.warnings)
    points = probability_points(found, errors)
    assert abs(points[:, 0] - points[:, 1]).max() == pytest.approx(found.distance, abs=0.01)
    few = inductive_bias(errors[:20], 0.2, num_resamples=20, seed=0)
    assert any("20 hypotheses are few" in text for text in few.warnings)


def test_the_logarithm_of_the_tail_does_not_underflow():
    law = _posterior()
    for nats in (0.1, 4.63, 19.22, 300.0):
        assert -law.log_cdf(_target(law, nats)) == pytest.approx(nats, rel=1e-8)
    deep = [-law.log_cdf(x) for x in (1e-16, 1e-18, 1e-20)]
    assert deep[0] < deep[1] < deep[2] < math.inf
    # Each factor of a hundred in the error costs the degrees of freedom over two times its logarithm.
    assert deep[2] - deep[1] == pytest.approx(ENTRIES / 2 * math.log(100), rel=1e-6)
    assert deep[1] > 746, "vacuous: a plain logarithm would do"
    assert NoncentralChiSquared(df=900.0, nc=0.0, scale=1.0).log_cdf(1.0) < -1900
    assert law.log_cdf(0.0) == -math.inf
    assert law.log_cdf(1e9) == 0.0


def test_the_normal_approximation_is_of_the_logarithm_and_not_of_half_a_square():
    law = _posterior()
    value = _target(law, 19.22) / law.scale
    approximate = -sankaran_log_cdf(value, law.df, law.nc)
    assert approximate == pytest.approx(19.22, rel=0.05)
    z = norm.ppf(math.exp(-approximate))
    assert z * z / 2 < 0.9 * approximate  # what leaving the factor out would give
    large = NoncentralChiSquared(df=2e6, nc=1e7, scale=1.0)  # too many terms to sum
    x = large.df + large.nc - 5 * math.sqrt(2 * (large.df + 2 * large.nc))
    assert large.log_cdf(x) == pytest.approx(norm.logcdf(-5), rel=0.01)


def test_special_functions_equal_the_plain_ones_where_those_have_digits():
    shapes, values = np.linspace(0.5, 80, 40), np.geomspace(1e-2, 1e4, 60)
    for x in (0.1, 3.0, 50.0):
        plain = gammainc(shapes, x)
        np.testing.assert_allclose(
            log_gammainc(shapes, x)[plain > 1e-250], np.log(plain[plain > 1e-250]), rtol=1e-12
        )
    assert np.isfinite(log_gammainc(np.array([400.0]), 1e-3)).all()
    for order in (3.0, 15.0, 40.0, 300.0):
        plain = ive(order, values)
        seen = plain > 1e-250
        np.testing.assert_allclose(log_scaled_bessel(order, values)[seen], np.log(plain[seen]), atol=1e-6)


def test_the_likelihood_is_that_of_scipy_and_its_maximum_no_worse_than_the_moments():
    law = NoncentralChiSquared(df=6.0, nc=9.0, scale=0.2)
    errors = _sampled(law, 400, 5)
    expected = ncx2.logpdf(errors, 6.0, 9.0, 0, 0.2).mean()
    assert law.log_likelihood(errors) == pytest.approx(expected)
    fit, moments = fitted_by_likelihood(errors), fitted_by_moments(errors)
    assert fit.log_likelihood(errors) >= max(expected, moments.log_likelihood(errors)) - 1e-9
    central = NoncentralChiSquared(df=6.0, nc=0.0, scale=0.2)
    assert central.log_likelihood(errors) == pytest.approx(
        NoncentralChiSquared(df=6.0, nc=1e-9, scale=0.2).log_likelihood(errors)
    )


def test_moments_that_such_a_law_can_have_are_met():
    rng = np.random.default_rng(0)
    values = 0.3 * ncx2.rvs(5, 8, size=100_000, random_state=rng)
    found = fitted_by_moments(values)
    assert found.scale * (found.df + found.nc) == pytest.approx(values.mean())
    assert 2 * found.scale**2 * (found.df + 2 * found.nc) == pytest.approx(values.var())
    third = ((values - values.mean()) ** 3).mean()
    assert 8 * found.scale**3 * (found.df + 3 * found.nc) == pytest.approx(third)
    assert found.df == pytest.approx(5, rel=0.1)
    for odd in (rng.lognormal(size=500), 5 - rng.exponential(size=500).clip(max=4)):
        law = fitted_by_moments(odd)
        assert law.scale * (law.df + law.nc) == pytest.approx(odd.mean())
        assert law.df > 0
        assert law.nc >= 0


def _problem(num: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draws = _draws(seed)
    x = torch.randn(num + 6, 2, generator=draws, dtype=torch.float64)
    y = torch.stack([x[:, 0].sign(), x[:, 1].sin()], 1)
    return x[:num], y[:num], x[num:], y[num:]


def test_sampled_functions_have_the_errors_of_the_posterior():
    x, y, others, truth = _problem()
    kernel = rbf_kernel(1.0)
    found = kernel_errors(x, y, others, truth, kernel=kernel, num_samples=20_000, generator=_draws(1))
    gram = kernel(x, x) + 1e-8 * torch.eye(12)
    weights = torch.linalg.solve(gram, kernel(x, others))
    mean = weights.T @ y
    covariance = kernel(others, others) - kernel(x, others).T @ weights + 1e-12 * torch.eye(6)
    noise = torch.randn(20_000, 6, 2, generator=_draws(2), dtype=torch.float64)
    errors = (mean + torch.linalg.cholesky(covariance) @ noise - truth).square().mean((1, 2))
    assert float(found.errors.mean()) == pytest.approx(float(errors.mean()), rel=0.03)
    levels = torch.tensor([0.05, 0.3, 0.7, 0.95]).double()
    np.testing.assert_allclose(found.errors.quantile(levels), errors.quantile(levels), rtol=0.06)
    expected = float((mean - truth).square().mean() + covariance.trace() / 6)
    assert found.law.mean == pytest.approx(expected)


def test_the_law_of_the_errors_is_the_law_of_the_samples():
    x, y, others, truth = _problem()
    found = kernel_errors(x, y, others, truth, kernel=rbf_kernel(0.7), num_samples=50_000, generator=_draws())
    for share in (0.01, 0.1, 0.5, 0.9):
        value = float(found.errors.quantile(share))
        assert math.exp(found.law.log_cdf(value)) == pytest.approx(share, rel=0.06)
    assert found.law.log_cdf(0.0) == -math.inf
    assert math.exp(found.law.log_cdf(found.law.mean)) == pytest.approx(
        float((found.errors <= found.law.mean).double().mean()), abs=0.02
    )


def test_errors_of_gaussian_functions_follow_the_noncentral_law():
    draws, deviation = _draws(11), 0.5
    mean, truth = torch.randn(2, 40, generator=draws, dtype=torch.float64)
    functions = mean + deviation * torch.randn(20_000, 40, generator=draws, dtype=torch.float64)
    errors = (functions - truth).square().mean(1)
    shift = float((mean - truth).square().sum() / deviation**2)
    assert kstest(40 * errors.numpy() / deviation**2, ncx2(40, shift).cdf).pvalue > 0.01
    assert kstest(40 * errors.numpy() / deviation**2, ncx2(40, 0.9 * shift).cdf).pvalue < 1e-6


def test_the_saddlepoint_of_equal_variances_is_the_noncentral_law():
    law = _posterior()
    form = QuadraticForm(
        variances=np.full(ENTRIES // 2, law.scale),
        squared_offsets=np.full(ENTRIES // 2, law.nc * law.scale / (ENTRIES // 2)),
        num_outputs=2,
    )
    for nats in (0.5, *NATS, 100.0, 600.0):
        assert -form.log_cdf(_target(law, nats)) == pytest.approx(nats, rel=1e-3)
    assert form.mean == pytest.approx(law.scale * (law.df + law.nc))
    certain = QuadraticForm(variances=np.zeros(2), squared_offsets=np.array([0.1, 0.2]), num_outputs=1)
    assert (certain.log_cdf(0.2), certain.log_cdf(0.4)) == (-math.inf, 0.0)


def test_conjugate_gradients_solve_what_a_factorisation_solves(monkeypatch):
    x, y, others, truth = _problem(40)
    options = {"kernel": rbf_kernel(0.5), "jitter": 1e-3, "num_samples": 5}
    dense = kernel_errors(x, y, others, truth, generator=_draws(), **options)
    monkeypatch.setattr(random_functions, "_LARGEST_DENSE", 10)
    monkeypatch.setattr(random_functions, "_ENTRIES", 120)
    stepped = kernel_errors(x, y, others, truth, generator=_draws(), **options)
    np.testing.assert_allclose(stepped.law.variances, dense.law.variances, atol=1e-7)
    np.testing.assert_allclose(stepped.errors, dense.errors, rtol=1e-5)
    with pytest.raises(MarginsError, match="raise jitter"):
        conjugate_gradients(lambda v: torch.diag(torch.logspace(-9, 0, 40).double()) @ v, y[:40], max_steps=5)


def test_a_width_is_the_median_distance():
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert median_width(rows, generator=_draws()) == pytest.approx(math.sqrt(18))
    assert median_width(10 * rows, generator=_draws()) == pytest.approx(10 * math.sqrt(18))


def test_networks_trained_side_by_side_are_those_trained_alone():
    images, labels = shifted_patterns(24, num_classes=2, side=6, pattern=3, generator=_draws(3))
    y = nn.functional.one_hot(labels).float()
    options = {"learning_rate": 0.01, "fitted_below": 0.05, "max_steps": 400}
    for build, at_once in ((mlp(36, 2, width=8), 50), (cnn(1, 2, width=4), 3), (cnn(1, 2, width=4), 1)):
        options["at_once"] = at_once
        found = network_errors(build, images[:12], y[:12], images[12:], y[12:], num_trials=4, **options,
                               generator=_draws(4))  # fmt: skip
        draws, alone = _draws(4), []
        for network in [build(draws) for _ in range(4)]:
            descent = torch.optim.Adam(network.parameters(), lr=0.01)
            for step in range(401):
                loss = (network(images[:12]) - y[:12]).square().mean()
                if step % 10 == 0 and loss.item() <= 0.05:
                    alone.append((network(images[12:]) - y[12:]).square().mean().item())
                    break
                descent.zero_grad()
                loss.backward()
                descent.step()
        assert len(alone) == len(found.errors) > 1, "vacuous: nothing fits"
        np.testing.assert_allclose(found.errors, alone, rtol=1e-3)


def test_networks_that_do_not_fit_are_left_out_and_counted():
    x = torch.linspace(-1, 1, 12)[:, None]
    y = torch.sign(x)
    options = {"learning_rate": 0.02, "max_steps": 60, "fitted_below": 0.2, "num_trials": 8}
    found = network_errors(mlp(1, 1, width=4), x, y, x, y, generator=_draws(1), **options)
    assert len(found.errors) + found.num_unfitted == 8
    assert 0 < found.num_unfitted < 8, "vacuous: all or none fit"
    assert float(found.errors.max()) <= 0.2
    with pytest.raises(MarginsError, match="make them wider"):
        network_errors(mlp(1, 1, width=1), x, y, x, y, generator=_draws(), **{**options, "max_steps": 2})

    def normed(generator: torch.Generator) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))

    with pytest.raises(MarginsError, match="batch norm"):
        network_errors(normed, x, y, x, y, generator=_draws(), **options)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: inductive_bias([1.0] * 9, 0.5, seed=0), "errors"),
        (lambda: inductive_bias([1.0] * 20, 0.5, seed=0), "differ"),
        (lambda: inductive_bias([0.0, *range(1, 20)], 0.5, seed=0), "above 0"),
        (lambda: inductive_bias(range(1, 20), 0.0, seed=0), "target_error"),
        (lambda: inductive_bias(range(1, 20), 0.5, unit="bytes", seed=0), "unit"),
        (lambda: inductive_bias(range(1, 20), 0.5, num_resamples=5, seed=0), "num_resamples"),
        (lambda: _kernel_errors(y=torch.ones(4, 1)), "targets"),
        (lambda: _kernel_errors(others=torch.ones(2, 3)), "test_inputs"),
        (lambda: _kernel_errors(jitter=0.0), "jitter"),
        (lambda: _kernel_errors(kernel=lambda a, b: -rbf_kernel()(a, b)), "positive"),
        (lambda: rbf_kernel(0.0), "width"),
        (lambda: median_width(torch.ones(5, 2), generator=_draws()), "differ"),
        (lambda: network_errors(mlp(2, 1), torch.ones(3, 2), torch.ones(3), torch.ones(3, 2),
                                torch.ones(3, 1), generator=_draws()), "targets"),
        (lambda: mlp(2, 1, depth=0), "depth"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_by_name(call, named):
    with pytest.raises(MarginsError, match=named):
        call()


def _kernel_errors(**changes):
    given = {
        "x": torch.eye(3)[:, :2], "y": torch.ones(3, 1), "others": torch.ones(2, 2),
        "truth": torch.ones(2, 1), "kernel": rbf_kernel(), "jitter": 1e-8, **changes,
    }  # fmt: skip
    rows = [given.pop(name) for name in ("x", "y", "others", "truth")]
    return kernel_errors(*rows, num_samples=5, generator=_draws(), **given)
