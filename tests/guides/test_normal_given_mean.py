"""The normal given the mean of all tasks, beside Monte Carlo, and the conjugate guide."""

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from pyro_vmtl import MeanFieldELBO, TaskData, fit
from pyro_vmtl.guides import ConjugateNormal, FullRankNormal, NormalGivenMean
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.models import (
    HierarchicalNormal,
    LinearClassifier,
    LinearRegressor,
    LogNormalNoise,
)

T, C, F = 4, 2, 3


@pytest.fixture
def guide():
    torch.manual_seed(0)
    shape = (C, F)
    guide = NormalGivenMean(
        {"w": shape}, T, common={"w_mean": shape, "w_scale": shape}, positive=["w_scale"]
    )
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
        guide.locs["w_scale"].sub_(1.0)
    return guide.double()


def test_the_expected_kl_is_that_of_draws(guide):
    """Given mean and scale, the KL of two normals is torch's."""
    torch.manual_seed(1)
    common = {site: guide.posterior(site).sample((5000,)) for site in guide.common}
    of = guide._parts()
    apart = (common["w_mean"] - of.mean.loc)[:, None, None]  # (S, 1, 1, C, F)
    loc = of.loc + (of.gain @ apart[..., None]).squeeze(-1)
    posterior = MultivariateNormal(loc, scale_tril=of.root)
    root = torch.diag_embed(common["w_scale"])[:, None, None]
    prior = MultivariateNormal(common["w_mean"][:, None, None], scale_tril=root)
    kl = kl_divergence(posterior, prior).sum(-1)  # (S, T, 1)
    error = kl.std(0) / len(kl) ** 0.5
    assert ((guide.expected_kl(of) - kl.mean(0)).abs() < 4 * error).all()


def test_the_marginal_is_that_of_draws(guide):
    torch.manual_seed(2)
    draws = torch.stack([guide()["w"].detach() for _ in range(4000)])
    marginal = guide.posterior("w")
    covariance = marginal.base_dist.covariance_matrix
    centred = (draws - draws.mean(0))[:, :, 0]  # (S, T, C, F)
    found = torch.einsum("stcf,stcg->tcfg", centred, centred) / (len(draws) - 1)
    scale = covariance[:, 0].diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = (found - covariance[:, 0]) / (scale[..., None] * scale[..., None, :])
    assert correlation.abs().max() < 0.1  # 4 standard errors of a variance are 0.09


def rows(num_features=F):
    x = torch.randn(T * 6, num_features, generator=torch.Generator().manual_seed(3))
    tasks = [t for t in range(T) for _ in range(6)]
    return x, tasks


def test_points_give_the_elbo_of_draws(guide):
    x, tasks = rows()
    data = TaskData.classification(x.double(), (x[:, 0] > 0).long().tolist(), tasks)
    model = LinearClassifier(HierarchicalNormal((C, F), latent_scales=True)).double()
    torch.manual_seed(0)
    points = evaluate(MeanFieldELBO(num_points=64), model, guide, data).loss.item()
    draws = evaluate(MeanFieldELBO(num_particles=4000), model, guide, data).loss.item()
    assert points == pytest.approx(draws, abs=0.2)  # the standard error of the draws is 0.05


def test_regression_has_the_elbo_of_the_conjugate_guide():
    """With one coefficient both are the same family, as the mean has no covariances."""
    x, tasks = rows(1)
    y = x[:, 0] + 0.5 * torch.randn(len(x), generator=torch.Generator().manual_seed(4))
    data = TaskData.regression(x.double(), y.double(), tasks)
    losses = {}
    for kind in (ConjugateNormal, NormalGivenMean, FullRankNormal):
        model = LinearRegressor(HierarchicalNormal((1,), latent_scales=True), LogNormalNoise())
        guide = kind(data) if kind is ConjugateNormal else kind.for_model(model, data)
        programs, elbo = (model.double(), guide.double()), MeanFieldELBO(num_points=64)
        fit(*programs, data, elbo=elbo, optimizer="lbfgs", num_steps=2000)
        losses[kind] = evaluate(elbo, *programs, data).loss.item()
    assert losses[NormalGivenMean] == pytest.approx(losses[ConjugateNormal], abs=0.05)
    assert losses[FullRankNormal] > losses[NormalGivenMean] + 0.3
