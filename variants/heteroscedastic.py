"""Noise that depends on the features: its logarithm has coefficients, too, which are shared.

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
    zero = data.x.new_zeros(data.num_features)
    low = torch.cat([zero[1:], zero[:1] - 1])  # the intercept comes last
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(zero, 1.0).to_event(1))
        v = pyro.sample("v", dist.Normal(low, 1.0).to_event(1))
        mean, log_scale = ((data.x @ of.mT).squeeze(-1) for of in (w, v))
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, log_scale.clamp(-10, 10).exp()), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w", "v"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the first task."""
    x = torch.linspace(-2.5, 2.5, 50)
    new = data.new_rows(torch.stack([x, torch.ones(50)], dim=1), [0] * 50)
    mean, std = predict_moments(model, guide, new)
    ax.plot(data.x[0, :, 0], data.y[0], "o", color="0.4", label="rows of task 0")
    ax.plot(x, mean[0], label="mean")
    ax.fill_between(x, *(mean[0] + k * std[0] for k in (-1.6, 1.6)), alpha=0.2, label="90 %")
    ax.set(xlabel="x", ylabel="y", title="The noise depends on x")
    ax.legend()
