"""Varying intercepts and slopes, whose means depend on a predictor of the group, such as its soil."""

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, fit, share, unwrap
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


def model(data):
    x, soil = data.x[..., :2], data.x[:, :1, 2:]  # the same in all rows of a task: (T, 1, 1)
    zero = data.x.new_zeros(2)
    level, slope = (pyro.sample(s, dist.Normal(zero, 1.0).to_event(1)) for s in ("level", "slope"))
    scale = pyro.sample("w_scale", dist.LogNormal(zero - 1, 1.0).to_event(1))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(level + slope * soil, scale).to_event(1))
        mean = (x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data):
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def made_up(seed=0):
    """Draw 16 groups with slope and intercept, and the truth."""
    g = torch.Generator().manual_seed(seed)
    task, soil = torch.arange(16).repeat(12), torch.randn(16, 1, generator=g)
    level, slope = torch.randn(2, 2, generator=g)
    w = level + slope * soil + 0.3 * torch.randn(16, 2, generator=g)
    X = torch.stack([torch.randn(192, generator=g), torch.ones(192), soil[task, 0]], dim=1)
    y = (X[:, :2] * w[task]).sum(1) + 0.5 * torch.randn(192, generator=g)
    return TaskData.regression(X, y, task.tolist()), {"w": w, "level": level, "slope": slope}


def picture(model, guide, data):
    w = unwrap(guide).posterior("w")
    mean, std = (m[:, 0, 1].detach() for m in (w.mean, w.variance.sqrt()))
    soil, draws = torch.linspace(-2, 2, 50), [unwrap(guide)(data) for _ in range(200)]
    line = torch.stack([(d["level"] + d["slope"] * soil[:, None])[:, 1] for d in draws]).detach()
    ax = plt.figure(figsize=(5, 3.5)).gca()
    ax.errorbar(data.x[:, 0, 2], mean, 1.6 * std, fmt="o", color="0.4", label="groups, 90 %")
    ax.plot(soil, line.mean(0), label="regression of the groups")
    ax.fill_between(soil, line.quantile(0.05, 0), line.quantile(0.95, 0), alpha=0.2)
    ax.set(xlabel="predictor of the group", ylabel="intercept", title="Groups follow a line")
    ax.legend()
    return ax


if __name__ == "__main__":
    rows, _ = made_up()
    fit(*(pair := programs(rows)), rows, **SETTINGS)
    picture(*pair, rows).figure.savefig("group_predictors.png")
