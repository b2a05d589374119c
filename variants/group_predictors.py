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
    zero = data.x.new_zeros(2)
    level, slope = (pyro.sample(s, dist.Normal(zero, 1.0).to_event(1)) for s in ("level", "slope"))
    w_scale = pyro.sample("w_scale", dist.LogNormal(zero - 1, 1.0).to_event(1))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(level + slope * soil, w_scale).to_event(1))
        mean = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the intercepts of the groups."""
    w = unwrap(guide).posterior("w")
    mean, std = (m[:, 0, 1].detach() for m in (w.mean, w.variance.sqrt()))
    soil, draws = torch.linspace(-2, 2, 50), [unwrap(guide)(data) for _ in range(200)]
    line = torch.stack([(d["level"] + d["slope"] * soil[:, None])[:, 1] for d in draws]).detach()
    ax.errorbar(
        data.columns["soil"][:, 0], mean, 1.6 * std, fmt="o", color="0.4", label="groups, 90 %"
    )
    ax.plot(soil, line.mean(0), label="regression of the groups")
    ax.fill_between(soil, line.quantile(0.05, 0), line.quantile(0.95, 0), alpha=0.2)
    ax.set(xlabel="predictor of the group", ylabel="intercept", title="Groups follow a line")
    ax.legend()
