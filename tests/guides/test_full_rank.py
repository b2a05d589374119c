"""The normal guide with full covariance, and KLs of its posteriors."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64, random_weights
from torch.distributions import kl_divergence

from pyro_vmtl import (
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
    MeanFieldELBO,
    TaskData,
    fit,
    relatedness,
    share,
)
from pyro_vmtl.data.plates import some_tasks
from pyro_vmtl.guides import FullRankNormal, MeanFieldNormal
from pyro_vmtl.handlers.point_estimates import point_estimates
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.models import LinearClassifier, LinearRegressor, TaskNoise, ZeroMeanNormal
from pyro_vmtl.sharing.messengers import recorded_sources

T, F = 3, 4


def random_guide(event=(F,), **settings):
    torch.manual_seed(0)
    guide = FullRankNormal({"w": event}, T, **settings).double()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(torch.randn_like(parameter))
    return guide


def test_standard_deviations_are_those_of_the_mean_field_guide_and_correlations_its_own():
    guide = random_guide()
    posterior = guide.posterior("w")
    assert posterior.batch_shape == (T, 1) and posterior.event_shape == (F,)
    torch.testing.assert_close(posterior.stddev, guide.raw_scales["w"].exp())
    # by hand: rows of a unit lower-triangular matrix, of length 1
    for t in range(T):
        lower = torch.eye(F, dtype=F64)
        for i in range(F):
            for j in range(i):
                lower[i, j] = guide.raw_trils["w"][t, 0, i, j]
            lower[i] /= lower[i].norm()
        std = posterior.stddev[t, 0]
        cov = std[:, None] * std * (lower @ lower.T)
        torch.testing.assert_close(posterior.covariance_matrix[t, 0], cov)


def test_it_starts_as_the_mean_field_guide():
    settings = {"common": {"m": (F,)}, "common_scale": True}
    sites = {"w": (2, F), "b": ()}
    torch.manual_seed(0)
    one = MeanFieldNormal(sites, T, init_loc_scale=1.0, **settings)
    torch.manual_seed(0)
    other = FullRankNormal(sites, T, init_loc_scale=1.0, **settings)
    loc, scale = torch.randn(T, 2, F), torch.rand(T, 2, F) + 0.1
    one.start_at("w", loc, scale)
    other.start_at("w", loc, scale)
    for site in ("w", "b", "m"):
        p, q = one.posterior(site), other.posterior(site)
        assert p.batch_shape == q.batch_shape and p.event_shape == q.event_shape
        torch.testing.assert_close(p.mean, q.mean)
        torch.testing.assert_close(p.variance, q.variance)
        value = p.sample()
        torch.testing.assert_close(p.log_prob(value), q.log_prob(value))
    assert other()["w"].shape == (T, 1, 2, F)


def pool_of(kind, posterior, weights=None):
    sources = dist.Normal(posterior.mean.detach().roll(1, 0), 0.8).to_event(
        len(posterior.event_shape)
    )
    event = posterior.event_shape
    base = dist.Normal(torch.zeros(event, dtype=F64), 1.3).to_event(len(event))
    weights = random_weights(T) if weights is None else weights
    transfer = torch.tensor([0.1, 0.3, 0.2], dtype=F64).reshape(T, 1, *[1] * len(event))
    return kind(weights, sources, base, transfer)


@pytest.mark.parametrize("kind", [LogarithmicPool, GaussianSumPool])
@pytest.mark.parametrize("event", [(F,), (2, F)])
@torch.no_grad()
def test_the_kl_to_a_pool_is_the_average_over_draws(kind, event):
    posterior = random_guide(event).posterior("w")
    pool = pool_of(kind, posterior)
    closed = kl_divergence(posterior, pool)
    assert closed.shape == (T, 1)
    torch.manual_seed(0)
    values = posterior.sample((40_000,))
    ratios = posterior.log_prob(values) - pool.expand((40_000, T, 1)).log_prob(values)
    error = ratios.std(0) / len(values) ** 0.5
    assert ((ratios.mean(0) - closed).abs() < 4 * error).all()
    expanded = kl_divergence(posterior.expand((5, T, 1)), pool.expand((5, T, 1)))
    torch.testing.assert_close(expanded, closed.expand(5, T, 1))


@pytest.mark.parametrize("kind", [LogarithmicPool, GaussianSumPool])
@torch.no_grad()
def test_the_kl_to_one_source_is_that_between_two_normals(kind):
    posterior = random_guide().posterior("w")
    weights = torch.zeros(T, T + 1, dtype=F64)
    chosen = [2, 0, 1]
    weights[torch.arange(T), chosen] = 1.0
    pool = pool_of(kind, posterior, weights)
    for t, i in enumerate(chosen):
        p = dist.MultivariateNormal(posterior.mean[t, 0], posterior.covariance_matrix[t, 0])
        loc = pool.sources.mean[i, 0]
        wide = pool.sources.variance[i, 0] + pool.transfer_var[i].reshape(())
        expected = kl_divergence(p, dist.MultivariateNormal(loc, torch.diag(wide)))
        torch.testing.assert_close(kl_divergence(posterior, pool)[t, 0], expected)


def test_the_kl_to_the_linear_pool_is_not_closed():
    posterior = random_guide().posterior("w")
    with pytest.raises(NotImplementedError):
        kl_divergence(posterior, pool_of(LinearPool, posterior))


@pytest.mark.parametrize("event_dim", [1, 2])
def test_the_kl_to_a_plain_prior_is_closed(event_dim):
    posterior = random_guide((F,) if event_dim == 1 else (2, F)).posterior("w")
    prior = dist.Normal(torch.zeros(posterior.event_shape, dtype=F64), 0.7).to_event(event_dim)
    cov = posterior.base_dist.covariance_matrix if event_dim == 2 else posterior.covariance_matrix
    mvn = dist.MultivariateNormal(posterior.mean, cov)
    wide = dist.MultivariateNormal(
        torch.zeros(F, dtype=F64), 0.7**2 * torch.eye(F, dtype=F64)
    ).expand(mvn.batch_shape)
    expected = kl_divergence(mvn, wide)
    expected = expected if event_dim == 1 else expected.sum(-1)
    torch.testing.assert_close(kl_divergence(posterior, prior), expected)


def three_classes():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(30, F, generator=generator, dtype=F64)
    y = torch.arange(30) % 3
    return TaskData.classification(X, y, torch.arange(30).div(10, rounding_mode="floor").tolist())


@pytest.mark.parametrize("pool", [LogarithmicPool, GaussianSumPool])
def test_terms_of_some_tasks_stand_for_all(pool):
    data = three_classes()
    model = LinearClassifier(ZeroMeanNormal((3, F))).double()
    guide = random_guide((3, F))
    shared = share(model, guide, sites=["w"], pool=pool, weights="even")
    elbo = MeanFieldELBO()
    _, terms, [(_, trace)] = evaluate(elbo, *shared, data)
    sources = recorded_sources(trace, "w")
    torch.testing.assert_close(sources.variance, guide.posterior("w").variance)
    assert isinstance(sources.base_dist, dist.Normal)
    whole, total = terms.kl["w"].sum(), 0.0
    for t in range(T):
        with some_tasks(torch.tensor([t])):
            total += evaluate(elbo, *shared, data).terms.kl["w"].sum() / T
    torch.testing.assert_close(total, whole)
    # without draws: it is the closed form
    torch.testing.assert_close(evaluate(elbo, *shared, data).terms.kl["w"].sum(), whole)


NOISE, PRIOR = 0.4, 1.2


def collinear(num_tasks=T, num_rows=12):
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(num_tasks * num_rows, 1, generator=generator, dtype=F64)
    X = common + 0.5 * torch.randn(num_tasks * num_rows, F, generator=generator, dtype=F64)
    y = X[:, 0] - X[:, 1] + NOISE * torch.randn(len(X), generator=generator, dtype=F64)
    tasks = torch.arange(num_tasks).repeat_interleave(num_rows).tolist()
    model = LinearRegressor(ZeroMeanNormal([F], init_scale=PRIOR), TaskNoise(num_tasks, NOISE))
    return TaskData.regression(X, y, tasks), model.double().requires_grad_(False)


def test_a_fit_reaches_the_exact_covariance_where_mean_field_variances_are_too_small():
    data, model = collinear()
    precision = data.x.mT @ data.x / NOISE**2 + torch.eye(F, dtype=F64) / PRIOR**2
    cov = torch.linalg.inv(precision)
    mean = (cov @ (data.x.mT @ data.y[..., None]) / NOISE**2).squeeze(-1)
    settings = {"elbo": MeanFieldELBO(num_particles=100), "num_steps": 1000}
    full, mean_field = (kind({"w": [F]}, T).double() for kind in (FullRankNormal, MeanFieldNormal))
    for guide in (full, mean_field):
        fit(model, guide, data, **settings)
    var = cov.diagonal(dim1=-2, dim2=-1)
    found = full.posterior("w")
    # in units of the standard deviations; the fit ends when the average of 100 draws has settled
    scale = (var[:, :, None] * var[:, None, :]).sqrt()
    assert ((found.covariance_matrix[:, 0] - cov) / scale).abs().max() < 0.1
    assert ((found.mean[:, 0] - mean) / var.sqrt()).abs().max() < 0.05
    too_small = mean_field.posterior("w").variance[:, 0]
    torch.testing.assert_close(
        too_small, precision.diagonal(dim1=-2, dim2=-1).reciprocal(), rtol=0.06, atol=0.0
    )
    assert (too_small / var).max() < 0.6


@pytest.mark.parametrize("pool", [LogarithmicPool, LinearPool, GaussianSumPool])
def test_it_is_shared(pool):
    data, model = collinear()
    guide = FullRankNormal({"w": [F]}, T).double()
    shared = share(model, guide, sites=["w"], pool=pool, start="nearest")
    history = fit(*shared, data, num_steps=100).history
    assert history.loss[-20:].mean() < history.loss[:20].mean()
    assert relatedness(shared[1]).shape == (1000, T, T + 1)
    assert math.isfinite(history.loss[-1])


def test_its_point_estimate_is_its_mean():
    guide = random_guide()
    torch.testing.assert_close(point_estimates(guide)()["w"], guide.locs["w"])


def test_a_multivariate_prior_is_not_shared():
    def program():
        with pyro.plate("task", T, dim=-2):
            pyro.sample("w", dist.MultivariateNormal(torch.zeros(T, 1, F), torch.eye(F)))

    model, guide = share(program, program, sites=["w"])
    with pytest.raises(ValueError, match="MultivariateNormal in the model, expected Normal"):
        evaluate(MeanFieldELBO(), model, guide)
