"""Zero-inflated counts: some rows are 0 whatever their rate, such as visitors who do not fish."""

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pyro_vmtl import (
    ExpectedLogarithmicPool,
    Family,
    MeanFieldELBO,
    TaskData,
    fit,
    likelihood_draws,
    register_family,
    share,
)
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}
register_family(Family(dist.ZeroInflatedPoisson, ["rate", "gate"]))  # not known yet


def model(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(2), 1.0).to_event(1))
        gate = pyro.sample("gate", dist.Normal(data.x.new_zeros(()), 1.5))  # its logit
        rate = (data.x @ w.mT).squeeze(-1).clamp(-30, 30).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            counts = dist.ZeroInflatedPoisson(rate, gate=gate.sigmoid().expand_as(rate))
            pyro.sample("y", counts, obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data):
    guide = FullRankNormal.for_model(model, data)
    return share(
        model, guide, sites=["w", "gate"], pool=ExpectedLogarithmicPool, transfer="dimension"
    )


def made_up(seed=0):
    """Draw eight tasks in two groups, and the truth."""
    g = torch.Generator().manual_seed(seed)
    task = torch.arange(8).repeat(40)
    w = 0.5 * torch.randn(2, 2, generator=g).repeat(4, 1) + 0.2 * torch.randn(8, 2, generator=g)
    w[:, 1] += 1
    gate = torch.randn(2, generator=g).repeat(4) + 0.3 * torch.randn(8, generator=g)
    X = torch.stack([torch.randn(320, generator=g), torch.ones(320)], dim=1)
    y = torch.poisson((X * w[task]).sum(1).exp(), generator=g)
    y = y * (torch.rand(320, generator=g) > gate[task].sigmoid())
    return TaskData.regression(X, y, task.tolist()), {"w": w, "gate": gate}


def picture(model, guide, data):
    draws = likelihood_draws(model, guide, data)
    ax = plt.figure(figsize=(5, 3.5)).gca()
    ax.plot((data.y == 0).float().mean(1), "o", color="0.4", label="rows")
    ax.plot(draws.log_prob(torch.zeros(())).exp().mean((0, 2)), "+", ms=12, label="predicted")
    ax.plot((-draws.rate).exp().mean((0, 2)), "v", label="by the Poisson part alone")
    ax.set(xlabel="task", ylabel="share of zeros", title="A Poisson alone has too few zeros")
    ax.legend()
    return ax


if __name__ == "__main__":
    rows, _ = made_up()
    fit(*(pair := programs(rows)), rows, **SETTINGS)
    picture(*pair, rows).figure.savefig("zero_inflated.png")
