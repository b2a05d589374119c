"""A net with shared heads: one hidden layer for all tasks, and coefficients for each.

To fit: ``model, guide = programs(data)``, then ``fit(model, guide, data, **SETTINGS)``.
"""

import pyro
import pyro.distributions as dist
import torch
from matplotlib.axes import Axes

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, predict_moments, share
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=10)}


class Model(torch.nn.Module):
    """Linear regression of each task on features that all tasks learn together."""

    fixed_graph = True  # every step does the same, and can be recorded

    def __init__(self, num_features, num_hidden=4):
        super().__init__()
        self.hidden = torch.nn.Linear(num_features, num_hidden)
        self.register_buffer("zero", torch.zeros(num_hidden + 1))

    def forward(self, data: TaskData):
        """Sample heads and targets."""
        z = torch.cat([self.hidden(data.x).tanh(), torch.ones_like(data.x[..., :1])], dim=-1)
        scale = pyro.sample("scale", dist.LogNormal(self.zero[0] - 1, 1.0))
        with pyro.plate("task", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.Normal(self.zero, 1.0).to_event(1))
            with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
                pyro.sample("y", dist.Normal((z @ w.mT).squeeze(-1), scale), obs=data.y)


def programs(data: TaskData):
    """Return model and guide, not yet fitted."""
    model = Model(data.num_features)
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def picture(ax: Axes, model, guide, data: TaskData):
    """Draw the curves of the tasks."""
    x = torch.linspace(-3, 3, 50)
    labels = [label for label in data.task_labels[:4] for _ in range(50)]
    means = predict_moments(model, guide, data.new_rows(x.repeat(4)[:, None], labels))[0]
    for task, (line, marker) in enumerate(zip(("-", "--", "-.", ":"), "os^x", strict=True)):
        ax.plot(x, means[task, :50], f"C{task}{line}", label=f"task {data.task_labels[task]}")
        rows = data.mask[task]
        ax.plot(data.x[task, rows, 0], data.y[task, rows], f"C{task}{marker}", ms=3, alpha=0.5)
    ax.set(xlabel="x", ylabel="y", title="Curves of the same three bends")
    ax.legend()
