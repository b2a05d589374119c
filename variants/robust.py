"""Robust regression: Student-t noise, so that outliers hardly move the line of a task.

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
    scale = pyro.sample("scale", dist.LogNormal(data.x.new_tensor(-1.0), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(data.num_features), 1.0).to_event(1))
        mean = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.StudentT(3.0, mean, scale), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the line of the first task."""
    x = torch.linspace(-3, 3, 50)
    new = data.new_rows(torch.stack([x, torch.ones(50)], dim=1), [0] * 50)
    mean, std = predict_moments(model, guide, new)
    ax.plot(data.x[0, :, 0], data.y[0], "o", color="0.4", label="rows of task 0")
    ax.plot(x, mean[0], label="mean")
    ax.fill_between(x, *(mean[0] + k * std[0] for k in (-2, 2)), alpha=0.2, label="± 2 sd")
    ax.set(xlabel="x", ylabel="y", title="The line is not drawn to outliers")
    ax.legend()
