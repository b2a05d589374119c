"""Ordinal regression: marks from 0 to 3, with cut-points that all tasks have in common.

To fit: ``model, guide = programs(data)``, then ``fit(model, guide, data, **SETTINGS)``.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, predict_proba, share
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


def model(data: TaskData):
    """Sample everything of all tasks."""
    gaps = pyro.sample("gaps", dist.LogNormal(data.x.new_zeros(2), 0.5).to_event(1))
    cuts = torch.cat([torch.zeros_like(gaps[..., :1]), gaps.cumsum(-1)], dim=-1) - 1.5
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(data.num_features), 1.0).to_event(1))
        latent = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.OrderedLogistic(latent, cuts), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the probabilities of the marks in the first task."""
    x = torch.linspace(-3, 3, 50)
    new = data.new_rows(torch.stack([x, torch.ones(50)], dim=1), [0] * 50)
    marks = [f"mark {mark}" for mark in data.classes]
    shades = colormaps["Blues"](torch.linspace(0.1, 0.7, len(marks)).numpy())
    ax.stackplot(x, predict_proba(model, guide, new)[0].T, labels=marks, colors=shades)
    ax.plot(data.x[0, :, 0], (data.y[0] + 0.5) / 4, "k.", label="rows of task 0")
    ax.set(xlabel="x", ylabel="probability", title="Marks have an order")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
