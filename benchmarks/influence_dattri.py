"""Compare influence of point estimates with that of dattri, in scores and seconds.

pip install --no-deps dattri
python -m benchmarks.influence_dattri

Ridge regression of 20 tasks with soft sharing, as a common part and one of each task with a normal
prior each: 800 rows, 100 test rows, 210 numbers. dattri's explicit solver has one full batch, as it
adds up solves over batches, and takes the priors as its ``regularization``.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from pyro_vmtl import TaskData, fit, influence, posterior_means
from pyro_vmtl.methods.fitted import Fitted

NUM_TASKS, SIZE, NOISE = 20, 10, 0.5


def draw_rows(generator: torch.Generator, w: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw features, tasks and targets."""
    tasks = torch.arange(NUM_TASKS).repeat_interleave(number)
    x = torch.randn(len(tasks), SIZE, generator=generator)
    noise = NOISE * torch.randn(len(tasks), generator=generator)
    return x, tasks, (x * w[tasks]).sum(1) + noise


def ridge(data: TaskData) -> None:
    """Regress on coefficients that are a common part and one of the task."""
    common = pyro.sample("common", dist.Normal(torch.zeros(SIZE), 1.0).to_event(1))
    with pyro.plate("task", data.num_tasks, dim=-2):
        own = pyro.sample("own", dist.Normal(torch.zeros(SIZE), 1.0).to_event(1))
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal((data.x * (common + own)).sum(-1), NOISE), obs=data.y)


class Ridge(torch.nn.Module):
    """The same for dattri."""

    def __init__(self, common: Tensor, own: Tensor) -> None:
        super().__init__()
        self.common, self.own = torch.nn.Parameter(common), torch.nn.Parameter(own)

    def forward(self, x: Tensor, tasks: Tensor) -> Tensor:
        """Compute means."""
        chosen = (tasks[..., None] == torch.arange(NUM_TASKS)).to(x)
        return (x * (self.common + chosen @ self.own)).sum(-1)


def of_dattri(model: Ridge, rows: tuple[Tensor, ...], test: tuple[Tensor, ...]) -> Tensor:
    """Compute its scores, (rows, test rows)."""
    from dattri.algorithm.influence_function import IFAttributorExplicit
    from dattri.task import AttributionTask

    def loss(params: Any, batch: tuple[Tensor, ...]) -> Tensor:
        mean = torch.func.functional_call(model, params, batch[:2])
        return (0.5 * ((batch[2] - mean) / NOISE) ** 2).mean()

    train, other = (
        DataLoader(TensorDataset(*part), batch_size=len(part[0]), shuffle=False)
        for part in (rows, test)
    )
    task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
    attributor = IFAttributorExplicit(task, regularization=1 / len(rows[0]))
    attributor.cache(train)
    return attributor.attribute(train, other).detach() / len(rows[0])


def main() -> None:
    """Print seconds, and the largest difference relative to the largest score."""
    torch.set_default_dtype(torch.float64)
    generator = torch.Generator().manual_seed(0)
    w = 0.5 * torch.randn(NUM_TASKS, SIZE, generator=generator)
    w = w + torch.randn(SIZE, generator=generator)
    rows, test = draw_rows(generator, w, 40), draw_rows(generator, w, 5)
    data = TaskData.regression(rows[0], rows[2], rows[1].tolist())
    new = data.new_rows(test[0], test[1].tolist(), test[2])
    guide = AutoDelta(ridge)
    fit(ridge, guide, data, optimizer="lbfgs", num_steps=100)
    means: dict[str, Tensor] = {}

    def quantity(fitted: Fitted) -> Tensor:
        means.update({k: v.detach() for k, v in posterior_means(fitted, data).items()})
        predictive = fitted.predictive(new, num_samples=1, differentiable=True)
        return predictive.log_prob(new.y).flatten()

    influence((ridge, guide), data, of=quantity, only=[0])  # imports
    begun = time.perf_counter()
    ours = torch.as_tensor(influence((ridge, guide), data, of=quantity)["influence"].values)
    seconds = time.perf_counter() - begun
    model = Ridge(means["common"].clone(), means["own"].reshape(NUM_TASKS, SIZE).clone())
    of_dattri(model, rows, tuple(part[:1] for part in test))
    begun = time.perf_counter()
    theirs = of_dattri(model, rows, test)
    result = {
        "seconds": round(seconds, 2),
        "seconds of dattri": round(time.perf_counter() - begun, 2),
        "difference": float((ours - theirs).abs().max() / theirs.abs().max()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
