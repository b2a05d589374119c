"""Ordinal regression: marks from 0 to 3, with cut-points that all tasks have in common."""

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, fit, predict_proba, share
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


def model(data):
    gaps = pyro.sample("gaps", dist.LogNormal(data.x.new_zeros(2), 0.5).to_event(1))
    cuts = torch.cat([torch.zeros_like(gaps[..., :1]), gaps.cumsum(-1)], dim=-1) - 1.5
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(2), 1.0).to_event(1))
        latent = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.OrderedLogistic(latent, cuts), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data):
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def made_up(seed=0):
    """Draw eight tasks in two groups, and the truth."""
    g = torch.Generator().manual_seed(seed)
    task = torch.arange(8).repeat(40)
    w = torch.randn(2, 2, generator=g).repeat(4, 1) + 0.3 * torch.randn(8, 2, generator=g)
    gaps = torch.tensor([1.5, 0.8])
    X = torch.stack([torch.randn(320, generator=g), torch.ones(320)], dim=1)
    latent = (X * w[task]).sum(1) + torch.rand(320, generator=g).logit()
    y = torch.bucketize(latent, torch.tensor([-1.5, 0.0, 0.8]))
    data = TaskData.classification(X, y.tolist(), task.tolist(), classes=range(4))
    return data, {"w": w, "gaps": gaps}


def picture(model, guide, data):
    x = torch.linspace(-3, 3, 50)
    new = data.new_rows(torch.stack([x, torch.ones(50)], dim=1), [0] * 50)
    ax = plt.figure(figsize=(5, 3.5)).gca()
    marks = [f"mark {mark}" for mark in data.classes]
    ax.stackplot(x, predict_proba(model, guide, new)[0].T, labels=marks, alpha=0.6)
    ax.plot(data.x[0, :, 0], (data.y[0] + 0.5) / 4, "k.", label="rows of task 0")
    ax.set(xlabel="x", ylabel="probability", title="Marks have an order")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    ax.figure.tight_layout()
    return ax


if __name__ == "__main__":
    rows, _ = made_up()
    fit(*(pair := programs(rows)), rows, **SETTINGS)
    picture(*pair, rows).figure.savefig("ordinal.png")
