"""Counts with exposure: cases per 1,000 people, in towns of different sizes.

To fit: ``model, guide = programs(data)``, then ``fit(model, guide, data, **SETTINGS)``.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib.axes import Axes

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, likelihood_draws, share
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


def model(data: TaskData):
    """Sample everything of all tasks."""
    exposure = data.columns["exposure"]
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(data.num_features), 1.0).to_event(1))
        rate = exposure * (data.x @ w.mT).squeeze(-1).clamp(-30, 30).exp()
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the rates of the first town."""
    x = torch.linspace(-2, 2, 50)
    new = data.new_rows(
        torch.stack([x, torch.ones(50)], dim=1), [0] * 50, columns={"exposure": [1.0] * 50}
    )
    rate = likelihood_draws(model, guide, new).rate[:, 0]
    size = data.columns["exposure"][0]
    ax.scatter(data.x[0, :, 0], data.y[0] / size, 20 * size, "0.4", label="town 0, by its size")
    ax.plot(x, rate.mean(0), label="rate")
    ax.fill_between(x, rate.quantile(0.05, 0), rate.quantile(0.95, 0), alpha=0.2, label="90 %")
    ax.set(xlabel="x", ylabel="cases per exposure", title="Large exposures count for more")
    ax.legend()
