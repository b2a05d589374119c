"""Overdispersed counts with exposure: more variable than Poisson counts of the same mean."""

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, fit, predict_moments, share
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


def model(data):
    x, log_exposure = data.x[..., :-1], data.x[..., -1]
    shape = pyro.sample("shape", dist.LogNormal(data.x.new_tensor(1.0), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(2), 1.0).to_event(1))
        mean = (log_exposure + (x @ w.mT).squeeze(-1)).clamp(-30, 30).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.GammaPoisson(shape.expand_as(mean), shape / mean), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data):
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def made_up(seed=0):
    """Draw eight towns in two groups, and the truth; the last feature is the log exposure."""
    g = torch.Generator().manual_seed(seed)
    task = torch.arange(8).repeat(25)
    w = 0.7 * torch.randn(2, 2, generator=g).repeat(4, 1) + 0.2 * torch.randn(8, 2, generator=g)
    exposure = 0.5 + 4 * torch.rand(200, generator=g)
    X = torch.stack([torch.randn(200, generator=g), torch.ones(200), exposure.log()], dim=1)
    gamma = torch.randn(200, 6, generator=g).square().mean(1)  # of shape 3 and mean 1
    y = torch.poisson(((X[:, :2] * w[task]).sum(1)).exp() * exposure * gamma, generator=g)
    return TaskData.regression(X, y, task.tolist()), {"w": w, "shape": torch.tensor(3.0)}


def picture(model, guide, data):
    x = torch.linspace(-2, 2, 50)
    new = data.new_rows(torch.stack([x, torch.ones(50), torch.zeros(50)], dim=1), [0] * 50)
    mean, std = predict_moments(model, guide, new)
    ax = plt.figure(figsize=(5, 3.5)).gca()
    size = data.x[0, :, 2].exp()
    ax.scatter(data.x[0, :, 0], data.y[0] / size, 20 * size, "0.4", label="town 0, by its size")
    ax.plot(x, mean[0], label="mean")
    for sd, label in ((std[0], "mean + 2 sd"), (mean[0].sqrt(), "the same of Poisson counts")):
        ax.plot(x, mean[0] + 2 * sd, "--", label=label)
    ax.set(xlabel="x", ylabel="cases per exposure", title="Wider than Poisson")
    ax.legend()
    return ax


if __name__ == "__main__":
    rows, _ = made_up()
    fit(*(pair := programs(rows)), rows, **SETTINGS)
    picture(*pair, rows).figure.savefig("negative_binomial.png")
