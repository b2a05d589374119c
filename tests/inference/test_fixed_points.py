"""Fixed points give exact expectations of quadratic losses, and approximate others."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal

from pyro_vmtl import MeanFieldELBO, TaskData, fit, relatedness, share, temper
from pyro_vmtl.guides import FullRankNormal, MeanFieldNormal
from pyro_vmtl.handlers.linear_predictor import linear_predictor
from pyro_vmtl.inference import elbo, fixed_points
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.inference.fixed_points import _points
from pyro_vmtl.models import (
    HierarchicalNormal,
    LinearClassifier,
    LinearRegressor,
    LogNormalNoise,
    StandardNormal,
)
from pyro_vmtl.sharing.pool import once


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator, dtype=F64)
    slopes = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=F64).repeat(2, 1)
    y = (x * slopes.repeat_interleave(10, 0)).sum(1)
    y = y + 0.3 * torch.randn(40, generator=generator, dtype=F64)
    return TaskData.regression(x, y, [t for t in "abcd" for _ in range(10)]).with_intercept()


@pytest.mark.parametrize("size", [2, 4, 16, 64])
def test_points_have_the_moments_of_independent_standard_normals(size):
    points = _points(size)
    torch.testing.assert_close(points.mean(0), torch.zeros(size // 2, dtype=F64))
    second = points.T @ points / size
    torch.testing.assert_close(second, torch.eye(size // 2, dtype=F64))


def fixed_noise(noise_scale):
    return lambda: torch.full((4, 1), noise_scale, dtype=F64)


def with_posterior(guide):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return guide


@pytest.mark.parametrize("kind", [MeanFieldNormal, FullRankNormal])
def test_the_expected_log_likelihood_of_linear_regression_is_exact(data, kind):
    model = LinearRegressor(StandardNormal([3]).double(), fixed_noise(0.5))
    guide = with_posterior(kind({"w": (3,)}, 4, init_scale=0.4).double())
    found = evaluate(MeanFieldELBO(num_points=2), model, guide, data).terms.log_likelihood["y"]
    w = guide.posterior("w")
    cov = w.covariance_matrix if kind is FullRankNormal else torch.diag_embed(w.variance)
    mean = (data.x @ w.mean.mT).squeeze(-1)
    var = ((data.x @ cov.squeeze(1)) * data.x).sum(-1)
    squares = ((data.y - mean) ** 2 + var) / 0.5**2
    expected = -0.5 * (squares + math.log(2 * math.pi * 0.5**2)).sum(1)
    torch.testing.assert_close(found, expected)


def test_products_of_numbers_are_exact_with_more_points_than_numbers(data):
    """A model that multiplies by itself, where the points of the coefficients count."""
    prior = StandardNormal([3]).double()

    def model(data):
        with pyro.plate("task", 4, dim=-2):
            w = pyro.sample("w", prior())
            with pyro.plate("data", 10, dim=-1):
                pyro.sample("y", dist.Normal((data.x @ w.mT).squeeze(-1), 0.5), obs=data.y)

    guide = with_posterior(MeanFieldNormal({"w": (3,)}, 4, init_scale=0.4).double())
    one, other = (
        evaluate(MeanFieldELBO(num_points=size), program, guide, data).loss
        for size, program in ((8, model), (2, LinearRegressor(prior, fixed_noise(0.5))))
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [MeanFieldNormal, FullRankNormal])
def test_the_expected_log_likelihood_of_classes_is_that_of_many_draws(kind):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator, dtype=F64)
    y = torch.randint(3, (40,), generator=generator).tolist()
    data = TaskData.classification(x, y, [t for t in "abcd" for _ in range(10)])
    model = LinearClassifier(StandardNormal([3, 2]).double())
    guide = with_posterior(kind({"w": (3, 2)}, 4, init_scale=0.4).double())
    points = evaluate(MeanFieldELBO(num_points=64), model, guide, data).terms.log_likelihood["y"]
    torch.manual_seed(0)
    draws = [
        evaluate(MeanFieldELBO(2000), model, guide, data).terms.log_likelihood["y"].detach()
        for _ in range(20)
    ]
    mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / math.sqrt(20)
    # 64 points approximate the softmax; 0.02 nats a row, and four errors of the draws
    assert ((points - mean).abs() < 0.02 * 10 + 4 * error).all()


def test_a_latent_scale_is_approximated(data):
    """Terms with the precision of a log-normal scale: cosh in place of an exponential."""
    model = LinearRegressor(HierarchicalNormal([3], latent_scales=True), fixed_noise(0.5))
    guide = MeanFieldNormal.for_model(model, data, init_scale=0.2)
    model, guide = model.double(), with_posterior(guide.double())
    points = evaluate(MeanFieldELBO(num_points=32), model, guide, data).terms.kl["w"]
    torch.manual_seed(0)
    draws = [
        evaluate(MeanFieldELBO(2000), model, guide, data).terms.kl["w"].detach() for _ in range(10)
    ]
    torch.testing.assert_close(points, torch.stack(draws).mean(0), rtol=0.05, atol=0.0)


def shared(data, **settings):
    torch.manual_seed(0)
    model = LinearRegressor(StandardNormal([3]), LogNormalNoise(spread=0.3))
    guide = MeanFieldNormal.for_model(model, data)
    pair = share(model, guide, sites=["w"], **settings)
    return temper(*pair, kl_weights={})


def test_lbfgs_fits_tasks_that_share_and_finds_their_groups(data):
    data = data.map_rows(lambda v: v.float() if v.is_floating_point() else v)
    model, guide = shared(data)
    result = fit(model, guide, data, elbo=MeanFieldELBO(num_points=4), optimizer="lbfgs")
    assert result.stopped == "settled"
    weights = relatedness(guide).mean(0)
    assert (weights[[0, 1, 2, 3], [2, 3, 0, 1]] > 0.3).all()
    assert (weights[:, :-1].sort(1).values[:, -2] < 0.2).all()  # of strangers
    assert (weights[:, -1] > 0.25).all()  # at least one of four


def test_pyro_agrees_with_the_points(data):
    """Pyro's own sum over a trace at the same values."""
    model = LinearRegressor(StandardNormal([3]).double(), fixed_noise(0.5))
    guide = with_posterior(MeanFieldNormal({"w": (3,)}, 4).double())
    elbo = MeanFieldELBO(num_points=8)
    traces = next(iter(elbo._get_traces(model, guide, (data,), {})))
    w = traces.guide.nodes["w"]["value"]
    assert w.shape == (8, 4, 1, 3)
    moments = guide.posterior("w")
    torch.testing.assert_close(w.mean(0), moments.mean)
    torch.testing.assert_close(w.var(0, correction=0), moments.variance)
    loss = elbo.differentiable_loss(model, guide, data)
    torch.testing.assert_close(loss, evaluate(elbo, model, guide, data).loss)


def test_a_joint_guide_has_its_covariance():
    def model():
        return pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    guide = AutoMultivariateNormal(model, init_scale=0.7)
    guide()
    with torch.no_grad():
        guide.scale_tril[1, 0] = 0.6
    traces = next(iter(MeanFieldELBO(num_points=8)._get_traces(model, guide, (), {})))
    w = traces.guide.nodes["w"]["value"].reshape(8, 3).detach()
    root = guide.scale[..., None] * guide.scale_tril
    covariance = (w - guide.loc).T @ (w - guide.loc) / 8
    torch.testing.assert_close(covariance, root @ root.T)


@pytest.mark.parametrize("num_points", [6, 10])
def test_covariances_need_a_point_pair_for_every_number(num_points):
    """With fewer, numbers move together at all points, whatever their covariance."""

    def model():
        with pyro.plate("task", 4):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(w.sum(-1), 1.0), obs=torch.tensor(1.0))

    elbo, guide = MeanFieldELBO(num_points=num_points), AutoMultivariateNormal(model)
    if num_points < 8:
        with pytest.raises(ValueError, match="num_points is 6, expected at least 8: the 4 numbers"):
            fit(model, guide, elbo=elbo, optimizer="lbfgs")
    else:
        fit(model, guide, elbo=elbo, optimizer="lbfgs")
        # a sum of 4 numbers N(0, 1), seen with noise 1: each has variance 1 - 1 / 5
        covariance = torch.eye(4) - 0.2
        root = guide.scale[:, None] * guide.scale_tril
        torch.testing.assert_close(
            root @ root.T, covariance, atol=0.1, rtol=0
        )  # as the fit settles


@pytest.mark.parametrize(
    "settings",
    [{"num_points": 3}, {"num_points": 0}, {"num_points": 4, "num_particles": 2}],
)
def test_wrong_numbers_are_refused(settings):
    with pytest.raises(ValueError, match="expected an even number, without draws"):
        MeanFieldELBO(**settings)


def test_arguments_of_the_linear_predictor_can_be_named():
    x, y = torch.randn(4, 5, 3), torch.zeros(4, 5, dtype=torch.long)
    prior = StandardNormal([2, 3])
    guide = MeanFieldNormal({"w": (2, 3)}, 4)

    def model(named):
        with pyro.plate("task", 4, dim=-2):
            w = pyro.sample("w", prior())
            logits = (
                linear_predictor(**{"w": w, "x": x, "event_dim": 2})
                if named
                else (linear_predictor(x, w, 2))
            )
            with pyro.plate("data", 5, dim=-1):
                pyro.sample("y", dist.Categorical(logits=logits), obs=y)

    elbo = MeanFieldELBO(num_points=8)
    losses = [
        elbo.differentiable_loss(model, lambda named: guide(), named) for named in (True, False)
    ]
    torch.testing.assert_close(*losses)


def test_without_a_handler_the_linear_predictor_is_a_product():
    x = torch.randn(4, 5, 3)
    w, classes = torch.randn(4, 1, 3), torch.randn(4, 1, 2, 3)
    with poutine.trace():
        one, two = linear_predictor(x, w), linear_predictor(x, classes, 2)
    torch.testing.assert_close(one, torch.einsum("tnf,tf->tn", x, w[:, 0]))
    torch.testing.assert_close(two, torch.einsum("tnf,tcf->tnc", x, classes[:, 0]))


def test_the_kl_of_normals_is_the_mean_over_points(data, monkeypatch):
    """The prior's mean is at points, all else is the same at each."""
    model = LinearRegressor(HierarchicalNormal([3]).double(), fixed_noise(0.5))
    guide = MeanFieldNormal({"w": (3,)}, 4, common={"w_mean": (3,)}, init_scale=0.4).double()
    with_posterior(guide)
    parameters = [*model.parameters(), *guide.parameters()]
    of_normals, used = fixed_points.kl_of_normals, []
    monkeypatch.setattr(elbo, "kl_of_normals", lambda *s: used.append(of_normals(*s)) or used[-1])

    def terms():
        found = evaluate(MeanFieldELBO(num_points=8), model, guide, data)
        gradients = torch.autograd.grad(found.loss, parameters, allow_unused=True)
        return [*found.terms.kl.values(), *gradients]

    found = terms()
    assert all(values is not None for values in used) and len(used) == 2
    monkeypatch.setattr(elbo, "kl_of_normals", lambda *sites: None)
    torch.testing.assert_close(found, terms(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [
    lambda x: x.expand(5, 2, 3),
    lambda x: x.T.expand(5, 3, 2),
    lambda x: x[0, 0].expand(5, 2, 3),
    lambda x: x[:1].expand(5, 2, 3),
    lambda x: x.exp().reshape(1, 6).expand(5, 6),
    lambda x: x.flip(0).expand(5, 2, 3),
])  # fmt: skip
def test_an_expansion_is_undone_as_by_a_slice(make):
    x = torch.arange(6.0, dtype=F64).reshape(2, 3).requires_grad_()
    found, exact = once(make(x), 1), make(x)[:1]
    torch.testing.assert_close(found, exact, rtol=0, atol=0)
    both = (torch.autograd.grad(values.square().sum(), x)[0] for values in (found, exact))
    torch.testing.assert_close(*both, rtol=0, atol=0)
