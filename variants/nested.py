"""Nested groups: tasks are classes, each in a school; classes lean on their school, schools on all.

To fit: ``model, guide = programs(data)``, then ``fit(model, guide, data, **SETTINGS)``.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib.axes import Axes

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, share, unwrap
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}
NUM_SCHOOLS = 5


def model(data: TaskData):
    """Sample everything of all tasks."""
    school = data.columns["school"][:, :1]  # that of a class, the same in all rows, (T, 1)
    in_school = (school[..., None] == torch.arange(NUM_SCHOOLS)).to(data.x)
    zero = data.x.new_zeros(NUM_SCHOOLS)
    u = pyro.sample("school", dist.Normal(zero, 1.0).to_event(1))
    slope = pyro.sample("slope", dist.Normal(zero[0], 1.0))
    w_scale = pyro.sample("w_scale", dist.LogNormal(zero[0] - 1, 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal((in_school * u).sum(-1), w_scale))
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(w + slope * data.x[..., 0], 0.7), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the classes."""
    posterior = unwrap(guide).posterior("w")
    school = data.columns["school"][:, 0]
    order = (school + 0.001 * posterior.mean[:, 0]).argsort()
    mean, std = posterior.mean[order, 0].detach(), posterior.variance[order, 0].detach().sqrt()
    ax.errorbar(range(len(mean)), mean, 1.6 * std, fmt="o", color="0.4", label="classes, 90 %")
    u = unwrap(guide).posterior("school").mean.detach()
    ax.step(range(len(mean)), u[school[order]], where="mid", label="schools")
    ax.set(xlabel="class, by school", ylabel="mean", title="Classes lean on their school")
    ax.legend()
