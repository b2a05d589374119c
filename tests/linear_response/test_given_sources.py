"""Covariances within tasks given the sources, against those worked out by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import NOISE, PRIOR, programs
from problems import F64
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import LinearResponse, MeanFieldELBO, TaskData, fit, share, temper
from pyro_vmtl.linear_response.given_sources import given_sources
from pyro_vmtl.sharing.sources import Sources

POINTS = MeanFieldELBO(num_points=8)


def regression(num_tasks=4, num_rows=8):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_tasks, num_rows, 3, generator=generator, dtype=F64)
    x[..., 1:] += x[..., :1]  # correlated, as independent normals are not
    y = x.sum(-1) + NOISE * torch.randn(num_tasks, num_rows, generator=generator, dtype=F64)
    tasks = torch.arange(num_tasks).repeat_interleave(num_rows).tolist()
    return TaskData.regression(x.flatten(0, 1), y.flatten(), tasks)


@pytest.mark.parametrize("kl_weight", [1.0, 0.25])
def test_it_is_the_conditional_posterior_of_linear_regression(kl_weight):
    data = regression()
    model, guide = programs(data)
    model, guide = share(model, guide, sites=["w"], transfer="dimension", weights="categorical")
    tempered = temper(model, guide, kl_weights={"w": kl_weight, "w_sources": kl_weight})
    fit(*tempered, data, elbo=POINTS, optimizer="lbfgs", num_steps=40)
    corrected = given_sources(*tempered, data, elbo=POINTS)
    sources = next(m for m in guide.modules() if isinstance(m, Sources))
    with torch.no_grad():
        weights = sources.pool_weights(sources.logits.double().softmax(-1))
        var = guide.program.posterior("w").variance[:, 0] + sources.transfer_scale.squeeze() ** 2
    # log density of the logarithmic pool: the weighted mean of those of the sources and the base
    prior = weights[:, :-1] @ (1 / var) + weights[:, -1:] / PRIOR**2
    precision = data.x.mT @ data.x / NOISE**2 / kl_weight + torch.diag_embed(prior)
    found = corrected.state.normals["w"][1][:, 0]
    exact = torch.linalg.inv(precision)
    torch.testing.assert_close(found @ found.mT, exact, rtol=1e-4, atol=1e-7)
    own = guide.program.posterior("w").variance[:, 0]
    assert (own < 0.8 * exact.diagonal(dim1=1, dim2=2)).any()  # or it would show nothing
    torch.manual_seed(0)
    draws = torch.stack([corrected(data)["w"].detach()[:, 0] for _ in range(2000)])
    # 4 standard errors of a standard deviation of 2000 draws
    expected = exact.diagonal(dim1=1, dim2=2).sqrt()
    torch.testing.assert_close(draws.double().std(0), expected, rtol=4 / 4000**0.5, atol=0)


def test_sites_with_other_plates_are_refused():
    def program(learned):
        with pyro.plate("task", 3, dim=-2), pyro.plate("class", 2, dim=-1):
            loc = learned if learned is not None else torch.zeros(3, 2)
            pyro.sample("w", dist.Normal(loc, 1.0))

    class Guide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = torch.nn.Parameter(torch.zeros(3, 2))

        def forward(self):
            program(self.loc)

    pair = share(lambda: program(None), Guide(), sites=["w"], weights="categorical")
    with torch.no_grad():
        pair[1]()
    with pytest.raises(ValueError, match="'w' has no normal posterior with the plate of tasks"):
        given_sources(*pair)


def test_a_direction_that_descends_leaves_the_other_covariances_alone():
    y = torch.tensor([-1.0, 0.5, 2.0, 0.3], dtype=F64)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.raw = torch.nn.Parameter(torch.zeros(2, dtype=F64))

        def forward(self):
            with pyro.plate("task", 4):
                w = pyro.sample("w", dist.Normal(torch.zeros(4, dtype=F64), 1.0))
                # the loss has curvatures 0.6 and -0.4 along the diagonals
                pyro.factor("saddle", -0.05 * (self.raw**2).sum() - 0.5 * self.raw.prod())
                pyro.sample("y", dist.Normal(w, 1.0), obs=y)

    model = Model()
    guide = AutoNormal(model)
    guide()
    guide.double()
    with torch.no_grad():
        guide.locs.w.copy_(y / 2)
    with pytest.warns(UserWarning, match="a descent of"):
        response = LinearResponse(model, guide, elbo=POINTS)
    assert response.curvature.descent > 0.1 and not response.at_optimum
    # exact, though another direction descends
    expected = torch.full((4,), 0.5**0.5, dtype=F64)
    torch.testing.assert_close(response.stddev("w"), expected, rtol=1e-4, atol=0)
