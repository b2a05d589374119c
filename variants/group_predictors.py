"""Varying intercepts and slopes, whose means depend on a predictor of the group, such as soil.

To fit: ``model, guide = programs(data)``, then ``fit(model, guide, data, **SETTINGS)``.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib.axes import Axes

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, share, unwrap
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


def model(data: TaskData):
    """Sample everything of all tasks."""
    soil = data.columns["soil"][:, :1, None]  # the same in all rows of a group, (T, 1, 1)
    zero = data.x.new_zeros(data.num_features)
    level, slope = (pyro.sample(s, dist.Normal(zero, 1.0).to_event(1)) for s in ("level", "slope"))
    r_scale = pyro.sample("r_scale", dist.LogNormal(zero - 1, 1.0).to_event(1))
    with pyro.plate("task", data.num_tasks, dim=-2):
        r = pyro.sample("r", dist.Normal(zero, r_scale).to_event(1))  # beyond the predictor
        mean = (data.x @ (level + slope * soil + r).mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["r"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the intercepts of the groups."""
    soil, grid = data.columns["soil"][:, 0], torch.linspace(-2, 2, 50)
    draws = [unwrap(guide)(data) for _ in range(200)]
    line = torch.stack([d["level"][1] + d["slope"][1] * grid for d in draws]).detach()
    w = torch.stack(
        [d["level"][1] + d["slope"][1] * soil + d["r"][:, 0, 1] for d in draws]
    ).detach()
    ax.errorbar(soil, w.mean(0), 1.6 * w.std(0), fmt="o", color="0.4", label="groups, 90 %")
    ax.plot(grid, line.mean(0), label="regression of the groups")
    ax.fill_between(grid, line.quantile(0.05, 0), line.quantile(0.95, 0), alpha=0.2)
    ax.set(xlabel="predictor of the group", ylabel="intercept", title="Groups follow a line")
    ax.legend(loc="lower right")
