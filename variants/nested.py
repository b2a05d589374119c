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
    r_scale = pyro.sample("r_scale", dist.LogNormal(zero[0] - 1, 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        r = pyro.sample("r", dist.Normal(zero[0], r_scale))  # of a class, beyond its school
        mean = (in_school * u).sum(-1) + r + slope * data.x[..., 0]
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, 0.7), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["r"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the classes."""
    order = data.columns["school"][:, 0].argsort(stable=True)
    school = data.columns["school"][order, 0]
    draws = [unwrap(guide)(data) for _ in range(200)]
    u, r = (torch.stack([d[site] for d in draws]).detach() for site in ("school", "r"))
    w = u[:, school] + r[:, order, 0]
    ax.errorbar(range(len(order)), w.mean(0), 1.6 * w.std(0), fmt="o", color="0.4", label="classes")
    ax.step(range(len(order)), u.mean(0)[school], where="mid", label="schools")
    ax.set(xlabel="class, by school", ylabel="mean", title="Classes lean on their school")
    ax.legend()
