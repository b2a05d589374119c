"""Robust regression: Student-t noise, so that outliers hardly move the line of a task."""

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, fit, predict_moments, share
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


def model(data):
    scale = pyro.sample("scale", dist.LogNormal(data.x.new_tensor(-1.0), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(2), 1.0).to_event(1))
        mean = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.StudentT(3.0, mean, scale), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data):
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def made_up(seed=0):
    """Draw eight tasks in two groups, and the truth."""
    g = torch.Generator().manual_seed(seed)
    task = torch.arange(8).repeat(25)
    w = torch.randn(2, 2, generator=g).repeat(4, 1) + 0.3 * torch.randn(8, 2, generator=g)
    X = torch.stack([torch.randn(200, generator=g), torch.ones(200)], dim=1)
    chi2 = torch.randn(200, 3, generator=g).square().mean(1)
    y = (X * w[task]).sum(1) + 0.5 * torch.randn(200, generator=g) / chi2.sqrt()
    return TaskData.regression(X, y, task.tolist()), {"w": w, "scale": torch.tensor(0.5)}


def picture(model, guide, data):
    x = torch.linspace(-3, 3, 50)
    new = data.new_rows(torch.stack([x, torch.ones(50)], dim=1), [0] * 50)
    mean, std = predict_moments(model, guide, new)
    ax = plt.figure(figsize=(5, 3.5)).gca()
    ax.plot(data.x[0, :, 0], data.y[0], "o", color="0.4", label="rows of task 0")
    ax.plot(x, mean[0], label="mean")
    ax.fill_between(x, *(mean[0] + k * std[0] for k in (-2, 2)), alpha=0.2, label="± 2 sd")
    ax.set(xlabel="x", ylabel="y", title="The line is not drawn to outliers")
    ax.legend()
    return ax


if __name__ == "__main__":
    rows, _ = made_up()
    fit(*(pair := programs(rows)), rows, **SETTINGS)
    picture(*pair, rows).figure.savefig("robust.png")
