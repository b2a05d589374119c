"""Overdispersed counts with exposure: more variable than Poisson counts of the same mean.

To fit: ``model, guide = programs(data)``, then ``fit(model, guide, data, **SETTINGS)``.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib.axes import Axes

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, predict_moments, share
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


def model(data: TaskData):
    """Sample everything of all tasks."""
    exposure = data.columns["exposure"]
    shape = pyro.sample("shape", dist.LogNormal(data.x.new_tensor(1.0), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(data.num_features), 1.0).to_event(1))
        mean = exposure * (data.x @ w.mT).squeeze(-1).clamp(-30, 30).exp()
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.GammaPoisson(shape.expand_as(mean), shape / mean), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the counts of the first town."""
    x = torch.linspace(-2, 2, 50)
    new = data.new_rows(
        torch.stack([x, torch.ones(50)], dim=1), [0] * 50, columns={"exposure": [1.0] * 50}
    )
    mean, std = predict_moments(model, guide, new)
    size = data.columns["exposure"][0]
    ax.scatter(data.x[0, :, 0], data.y[0] / size, 20 * size, "0.4", label="town 0, by its size")
    ax.plot(x, mean[0], label="mean")
    ax.plot(x, mean[0] + 2 * std[0], "--", label="mean + 2 sd")
    ax.plot(x, mean[0] + 2 * mean[0].sqrt(), ":", label="the same of Poisson counts")
    ax.set(xlabel="x", ylabel="cases per exposure", title="Wider than Poisson")
    ax.legend()
