"""Survival regression: log-normal times, of which some are only known to be longer (censored)."""

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pyro_vmtl import ExpectedLogarithmicPool, MeanFieldELBO, TaskData, fit, predict_moments, share
from pyro_vmtl.guides import FullRankNormal

SETTINGS = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8)}


class RightCensored(dist.Normal):
    """Normal whose rows without ``event`` are only known to lie above their value."""

    def __init__(self, loc, scale, event, validate_args=None):
        super().__init__(loc, scale, validate_args=validate_args)
        self.event = event

    def expand(self, shape, _instance=None):
        return RightCensored(*(v.expand(shape) for v in (self.loc, self.scale, self.event)))

    def log_prob(self, value):
        survival = torch.special.log_ndtr((self.loc - value) / self.scale)
        return torch.where(self.event, super().log_prob(value), survival)


def model(data):
    x, event = data.x[..., :-1], data.x[..., -1] == 1
    scale = pyro.sample("scale", dist.LogNormal(data.x.new_tensor(-0.5), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(data.x.new_zeros(2), 1.0).to_event(1))
        mean = (x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", RightCensored(mean, scale, event), obs=data.y)


model.fixed_graph = True  # every step does the same, and can be recorded


def programs(data):
    guide = FullRankNormal.for_model(model, data)
    return share(model, guide, sites=["w"], pool=ExpectedLogarithmicPool, transfer="dimension")


def made_up(seed=0):
    """Draw log times of eight clinics in two groups, the last feature whether the event was seen."""
    g = torch.Generator().manual_seed(seed)
    task = torch.arange(8).repeat(30)
    w = torch.randn(2, 2, generator=g).repeat(4, 1) + 0.3 * torch.randn(8, 2, generator=g)
    X = torch.stack([torch.randn(240, generator=g), torch.ones(240)], dim=1)
    time = (X * w[task]).sum(1) + 0.6 * torch.randn(240, generator=g)
    end = 1 + torch.randn(240, generator=g)
    X = torch.cat([X, (time <= end).float()[:, None]], dim=1)
    data = TaskData.regression(X, torch.minimum(time, end), task.tolist())
    return data, {"w": w, "scale": torch.tensor(0.6)}


def picture(model, guide, data):
    x, seen = torch.linspace(-2, 2, 50), data.x[0, :, 2] == 1
    new = data.new_rows(torch.stack([x, torch.ones(50), torch.ones(50)], dim=1), [0] * 50)
    mean, std = predict_moments(model, guide, new)
    ax = plt.figure(figsize=(5, 3.5)).gca()
    ax.scatter(data.x[0, :, 0], data.y[0], c=1.0 - seen.float(), label="rows (pale: censored)")
    ax.plot(x, mean[0], label="mean")
    ax.fill_between(x, *(mean[0] + k * std[0] for k in (-1.6, 1.6)), alpha=0.2, label="90 %")
    ax.set(xlabel="x", ylabel="log time", title="Censored times pull upwards only")
    ax.legend()
    return ax


if __name__ == "__main__":
    rows, _ = made_up()
    fit(*(pair := programs(rows)), rows, **SETTINGS)
    picture(*pair, rows).figure.savefig("censored.png")
