"""Sharing with autoguides that draw all sites as one vector."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64, normal_log_density
from pyro.infer import Predictive, Trace_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    init_to_value,
)

from pyro_vmtl import (
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
    MeanFieldELBO,
    TaskData,
    fit,
    relatedness,
    share,
    trace_guide_and_model,
    unwrap,
)
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.models import LinearRegressor, TaskNoise, ZeroMeanNormal
from pyro_vmtl.sharing.messengers import recorded_sources

JOINT = [AutoDiagonalNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal]
T, C, F = 4, 2, 3


def many_sites():
    """A shared site behind two that are transformed, one of which loses a number by that."""
    pyro.sample("a", dist.Dirichlet(torch.ones(3, dtype=F64)))
    with pyro.plate("task", T, dim=-2):
        zero, one = torch.zeros(F, dtype=F64), torch.ones(F, dtype=F64)
        pyro.sample("s", dist.LogNormal(torch.zeros(T, 1, dtype=F64), 1.0))
        with pyro.plate("class", C, dim=-1):
            pyro.sample("w", dist.Normal(zero, one).to_event(1))
        pyro.sample("b", dist.Normal(zero, one).to_event(1))


def random_guide(kind, model, *args):
    torch.manual_seed(0)
    guide = kind(model)
    guide(*args)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.7 * torch.randn_like(parameter))
    return guide


def moments_of(kind, guide):
    """Mean and covariance of the whole vector, from its definition."""
    if kind is AutoDiagonalNormal:
        return guide.loc, torch.diag(guide.scale**2)
    if kind is AutoMultivariateNormal:
        root = torch.diag(guide.scale) @ guide.scale_tril
        return guide.loc, root @ root.T
    factor = torch.diag(guide.scale) @ guide.cov_factor
    return guide.loc, factor @ factor.T + torch.diag(guide.scale**2)


@pytest.mark.parametrize("kind", JOINT)
@pytest.mark.parametrize("num_particles", [1, 5])
def test_sources_are_the_marginals_of_the_whole_vector(kind, num_particles):
    guide = random_guide(kind, many_sites)
    loc, cov = moments_of(kind, guide)
    # 2 unconstrained numbers of `a`, T of `s`; then `w`, and `b` at the end
    of_w = slice(2 + T, 2 + T + T * C * F)
    of_b = slice(of_w.stop, of_w.stop + T * F)
    model, guide = share(many_sites, guide, sites=["w", "b"])
    elbo = MeanFieldELBO(num_particles=num_particles)
    [(model_trace, trace)] = evaluate(elbo, model, guide).traces
    for site, part, shape in (("w", of_w, (T, C, F)), ("b", of_b, (T, 1, F))):
        sources = recorded_sources(trace, site)
        assert sources.batch_shape == shape[:2] and sources.event_shape == shape[2:]
        torch.testing.assert_close(sources.mean, loc[part].reshape(shape))
        torch.testing.assert_close(sources.variance, cov.diagonal()[part].reshape(shape))
        assert isinstance(trace.nodes[site]["fn"], dist.Delta)
        assert model_trace.nodes[site]["fn"].sources is sources


def flat_prior_programs(kind):
    def model():
        with pyro.plate("task", 3):
            pyro.sample("w", dist.Normal(torch.zeros(2, dtype=F64), 1.5).to_event(1))

    return model, random_guide(kind, model)


@pytest.mark.parametrize("kind", JOINT)
def test_the_average_elbo_is_closed_cross_entropies_less_the_entropy_of_the_vector(kind):
    model, guide = flat_prior_programs(kind)
    loc, cov = moments_of(kind, guide)
    model, guide = share(model, guide, sites=["w"], weights="even")
    num, parts = 10_000, 30
    elbo = MeanFieldELBO(num_particles=num, max_plate_nesting=1)
    torch.manual_seed(1)
    with torch.no_grad():
        losses = torch.stack([evaluate(elbo, model, guide).loss for _ in range(parts)])
    # Even weights of two sources and the base, 1/T of which goes to the base.
    of_source, of_base = 2 / 9, 5 / 9
    mu, var = loc.reshape(3, 2), cov.diagonal().reshape(3, 2)
    cross_entropy = torch.zeros((), dtype=F64)
    for t in range(3):
        for i in range(3):
            if i != t:
                wide = var[i] + 0.1**2  # the initial transfer scale
                expected = normal_log_density(mu[t], mu[i], wide) - 0.5 * (var[t] / wide).sum()
                cross_entropy -= of_source * expected
        base = torch.full((2,), 1.5**2, dtype=F64)
        expected = normal_log_density(mu[t], torch.zeros(2), base) - 0.5 * (var[t] / base).sum()
        cross_entropy -= of_base * expected
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * cov)
    error = losses.std() / parts**0.5
    assert error < 0.05  # nats: the correlations alone are several
    assert abs(losses.mean() - (cross_entropy - entropy)) < 4 * error


@pytest.mark.parametrize("pool", [LogarithmicPool, LinearPool, GaussianSumPool])
def test_pyros_elbo_and_ours_draw_the_same_loss(pool):
    model, guide = share(*flat_prior_programs(AutoMultivariateNormal), sites=["w"], pool=pool)
    guide()
    losses = []
    for elbo in (Trace_ELBO(), MeanFieldELBO()):
        torch.manual_seed(0)
        losses.append(elbo.loss(model, guide))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


NOISE, PRIOR = 0.5, 1.5


def collinear(num_tasks=6, num_rows=15):
    """Two groups of equal tasks, whose two features correlate by 0.95."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(num_tasks * num_rows, 2, generator=generator, dtype=F64)
    X[:, 1] = 0.95 * X[:, 0] + 0.3 * X[:, 1]
    tasks = torch.arange(num_tasks).repeat_interleave(num_rows)
    coefficients = torch.tensor([[1.0, -1.0], [-1.0, 1.5]], dtype=F64)[tasks % 2]
    noise = NOISE * torch.randn(len(X), generator=generator, dtype=F64)
    data = TaskData.regression(X, (X * coefficients).sum(1) + noise, tasks.tolist())
    model = LinearRegressor(ZeroMeanNormal([2], init_scale=PRIOR), TaskNoise(num_tasks, NOISE))
    return data, model.double().requires_grad_(False)


def exact_posterior(data):
    """Means (T, F) and covariances (T, F, F) of linear regression, textbook formula."""
    precision = data.x.mT @ data.x / NOISE**2 + torch.eye(2, dtype=F64) / PRIOR**2
    cov = torch.linalg.inv(precision)
    return (cov @ (data.x.mT @ data.y[..., None]) / NOISE**2).squeeze(-1), cov


@pytest.mark.slow
def test_correlations_are_found_where_only_the_prior_is_pooled():
    data, model = collinear()
    guide = AutoMultivariateNormal(model)
    shared = share(model, guide, sites=["w"], min_base_weight=1.0, weights="even")
    elbo = MeanFieldELBO(num_particles=20)
    fit(*shared, data, elbo=elbo, num_steps=700, learning_rate=0.03)
    _, found = moments_of(AutoMultivariateNormal, guide)
    mean, cov = exact_posterior(data)
    assert (cov[:, 0, 1] / (cov[:, 0, 0] * cov[:, 1, 1]).sqrt()).max() < -0.85
    # The noise of a fit with 20 draws a step: 7 % of a covariance, 6 % of a standard deviation.
    for t in range(6):
        block = slice(2 * t, 2 * t + 2)
        torch.testing.assert_close(found[block, block], cov[t], rtol=0.1, atol=0.0)
    std = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((guide.loc.reshape(6, 2) - mean) / std).abs().max() < 0.1


@pytest.mark.parametrize("kind", [AutoNormal, *JOINT])
def test_groups_are_found_as_with_independent_normals(kind):
    data, model = collinear()
    mean, _ = exact_posterior(data)
    guide = kind(model, init_loc_fn=init_to_value(values={"w": mean.unsqueeze(1)}))
    model, guide = share(model, guide, sites=["w"], start="nearest", min_base_weight=0.1)
    fit(model, guide, data, num_steps=150, learning_rate=0.02)
    weights = relatedness(guide).mean(0)[:, :6]
    same = torch.arange(6)[:, None] % 2 == torch.arange(6) % 2
    assert ((weights * same).sum(1) > (weights * ~same).sum(1)).all()
    predictive = Predictive(unwrap(model), guide=unwrap(guide), num_samples=20)
    drawn = predictive(data.without_targets())["w"]
    assert drawn.shape == (20, 6, 1, 2)
    assert (drawn.squeeze(2).mean(0) - mean).abs().max() < 1.0


@pytest.mark.parametrize("pool", [LogarithmicPool, LinearPool, GaussianSumPool])
def test_pools_and_several_particles_fit(pool):
    data, model = collinear()
    model, guide = share(
        model, AutoLowRankMultivariateNormal(model), sites=["w"], pool=pool, detach_sources=True
    )
    history = fit(model, guide, data, elbo=MeanFieldELBO(num_particles=4), num_steps=100).history
    assert history.loss[-20:].mean() < history.loss[:20].mean()
    trace = trace_guide_and_model(model, guide, data).guide
    assert not recorded_sources(trace, "w").mean.requires_grad


@pytest.mark.parametrize("kind", [AutoDelta, AutoIAFNormal, AutoLaplaceApproximation])
def test_a_guide_with_no_normal_of_a_site_is_refused(kind):
    with pytest.raises(ValueError, match="'b' is Delta in the guide, expected Normal"):
        share(many_sites, kind(many_sites), sites=["b"])[1]()


def test_a_transformed_site_is_refused():
    guide = AutoMultivariateNormal(many_sites)
    with pytest.raises(ValueError, match="'s' is Delta in the guide, expected Normal"):
        share(many_sites, guide, sites=["s"])[1]()
