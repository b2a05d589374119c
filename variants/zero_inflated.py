"""Zero-inflated counts: some rows are 0 whatever their rate, such as visitors who do not fish.

To fit: ``model, guide = programs(data)``, then ``fit(model, guide, data, **SETTINGS)``.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib.axes import Axes

from pyro_vmtl import (
    ExpectedLogarithmicPool,
    Family,
    MeanFieldELBO,
    TaskData,
    likelihood_draws,
    register_family,
    share,
)
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}
register_family(Family(dist.ZeroInflatedPoisson, ["rate", "gate"]))  # not known yet


def model(data: TaskData):
    """Sample everything of all tasks."""
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(data.num_features), 1.0).to_event(1))
        gate = pyro.sample("gate", dist.Normal(data.x.new_zeros(()), 1.5))  # its logit
        rate = (data.x @ w.mT).squeeze(-1).clamp(-30, 30).exp()
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            counts = dist.ZeroInflatedPoisson(rate, gate=gate.sigmoid().expand_as(rate))
            pyro.sample("y", counts, obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    guide = FullRankNormal.for_model(model, data)
    return share(
        model, guide, sites=["w", "gate"], pool=ExpectedLogarithmicPool, transfer="dimension"
    )


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the shares of zeros."""
    draws, num = likelihood_draws(model, guide, data), data.mask.sum(1)
    zeros = draws.log_prob(torch.zeros(())).exp().mean(0)
    ax.plot(((data.y == 0) * data.mask).sum(1) / num, "o", color="0.4", label="rows")
    ax.plot((zeros * data.mask).sum(1) / num, "+", ms=12, label="predicted")
    ax.plot(
        ((-draws.rate).exp().mean(0) * data.mask).sum(1) / num, "v", label="by its Poisson part"
    )
    ax.set(
        xlabel="task", ylabel="share of zeros", title="A Poisson alone has too few zeros", ylim=0
    )
    ax.legend()
