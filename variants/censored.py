"""Survival regression: log-normal times, of which some are only known to be longer (censored).

To fit: ``model, guide = programs(data)``, then ``fit(model, guide, data, **SETTINGS)``.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib.axes import Axes

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, predict_moments, share
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


class RightCensored(dist.Normal):
    """Normal whose rows without ``event`` are only known to lie above their value."""

    def expand(self, batch_shape, _instance=None):
        expanded = super().expand(batch_shape, _instance)
        expanded.event = self.event
        return expanded

    def log_prob(self, value):
        longer = torch.special.log_ndtr((self.loc - value) / self.scale)
        return super().log_prob(value).where(self.event, longer)


def model(data: TaskData):
    """Sample everything of all tasks."""
    scale = pyro.sample("scale", dist.LogNormal(data.x.new_tensor(-0.5), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(data.num_features), 1.0).to_event(1))
        times = RightCensored((data.x @ w.mT).squeeze(-1), scale)
        times.event = data.columns["event"]
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", times, obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the times of the first clinic."""
    x, event = torch.linspace(-2, 2, 50), data.columns["event"][0]
    new = torch.stack([x, torch.ones(50)], dim=1), [0] * 50
    mean, std = predict_moments(model, guide, data.new_rows(*new, columns={"event": [True] * 50}))
    ax.plot(data.x[0, event, 0], data.y[0, event], "o", color="0.4", label="event")
    ax.plot(data.x[0, ~event, 0], data.y[0, ~event], "^", color="0.4", label="longer than")
    ax.plot(x, mean[0], label="mean")
    ax.fill_between(x, *(mean[0] + k * std[0] for k in (-1.6, 1.6)), alpha=0.2, label="90 %")
    ax.set(xlabel="x", ylabel="log time", title="Censored times pull upwards only")
    ax.legend()
