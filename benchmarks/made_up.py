"""Made-up data for the variants in ``variants/``, with the truth that a fit should recover.

Tasks belong to two groups, and differ a little within them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from pyro_vmtl import TaskData

__all__ = ["MADE_UP", "MadeUp"]

Draws = Mapping[str, Tensor]


@dataclass(frozen=True)
class MadeUp:
    """Rows, and true values by site or by name of a function of model and draws."""

    data: TaskData
    truth: dict[str, Tensor]
    functions: Mapping[str, Callable[[Any, Draws], Tensor]] = field(default_factory=dict)


def _groups(g: Generator, num_tasks: int = 8, spread: float = 0.3, size: float = 1.0) -> Tensor:
    """Draw coefficients of tasks in two groups, (T, 2)."""
    centre = size * torch.randn(2, 2, generator=g)
    return centre.repeat(num_tasks // 2, 1) + spread * torch.randn(num_tasks, 2, generator=g)


def _rows(g: Generator, num_tasks: int, each: int) -> tuple[Tensor, Tensor]:
    """Draw a feature beside a 1, (rows, 2), and the tasks of rows, which differ in number."""
    sizes = [each - 4 + 8 * (task % 2) for task in range(num_tasks)]
    task = torch.arange(num_tasks).repeat_interleave(torch.tensor(sizes))
    return torch.stack([torch.randn(len(task), generator=g), torch.ones(len(task))], dim=1), task


def robust(g: Generator) -> MadeUp:
    """Draw Student-t noise of 3 degrees of freedom."""
    w, (X, task) = _groups(g), _rows(g, 8, 25)
    chi2 = torch.randn(len(X), 3, generator=g).square().mean(1)
    y = (X * w[task]).sum(1) + 0.5 * torch.randn(len(X), generator=g) / chi2.sqrt()
    data = TaskData.regression(X, y, task.tolist())
    return MadeUp(data, {"w": w, "scale": torch.tensor(0.5)})


def _exposed(g: Generator, each: int, shape: int | None) -> MadeUp:
    w, (X, task) = _groups(g, size=0.7, spread=0.2), _rows(g, 8, each)
    exposure = 0.5 + 4 * torch.rand(len(X), generator=g)
    rate = (X * w[task]).sum(1).exp() * exposure
    if shape is not None:  # a gamma variable of mean 1
        rate = rate * torch.randn(len(X), 2 * shape, generator=g).square().mean(1)
    y = torch.poisson(rate, generator=g)
    data = TaskData.regression(X, y, task.tolist(), columns={"exposure": exposure})
    return MadeUp(data, {"w": w} | ({} if shape is None else {"shape": torch.tensor(float(shape))}))


def poisson(g: Generator) -> MadeUp:
    """Draw Poisson counts of towns with exposures."""
    return _exposed(g, 15, None)


def negative_binomial(g: Generator) -> MadeUp:
    """Draw gamma-Poisson counts with shape 3."""
    return _exposed(g, 25, 3)


def zero_inflated(g: Generator) -> MadeUp:
    """Draw Poisson counts, of which about half are set to 0."""
    w, (X, task) = _groups(g, size=0.5, spread=0.2), _rows(g, 8, 40)
    w[:, 1] += 1
    gate = _groups(g)[:, 0]
    y = torch.poisson((X * w[task]).sum(1).exp(), generator=g)
    y = y * (torch.rand(len(X), generator=g) > gate[task].sigmoid())
    return MadeUp(TaskData.regression(X, y, task.tolist()), {"w": w, "gate": gate})


def ordinal(g: Generator) -> MadeUp:
    """Draw marks from 0 to 3, with cut-points at -1.5, 0 and 0.8."""
    w, (X, task) = _groups(g), _rows(g, 8, 40)
    latent = (X * w[task]).sum(1) + torch.rand(len(X), generator=g).logit()
    y = torch.bucketize(latent, torch.tensor([-1.5, 0.0, 0.8]))
    data = TaskData.classification(X, y.tolist(), task.tolist(), classes=range(4))
    return MadeUp(data, {"w": w, "gaps": torch.tensor([1.5, 0.8])})


def censored(g: Generator) -> MadeUp:
    """Draw log times, of which about a third are censored."""
    w, (X, task) = _groups(g), _rows(g, 8, 30)
    time = (X * w[task]).sum(1) + 0.6 * torch.randn(len(X), generator=g)
    end = 0.7 + torch.randn(len(X), generator=g)
    observed, event = torch.minimum(time, end), time <= end
    data = TaskData.regression(X, observed, task.tolist(), columns={"event": event})
    return MadeUp(data, {"w": w, "scale": torch.tensor(0.6)})


def heteroscedastic(g: Generator) -> MadeUp:
    """Draw noise whose scale depends on the feature."""
    w, v, (X, task) = _groups(g), _groups(g, size=0.5, spread=0.2), _rows(g, 8, 40)
    v[:, 1] -= 1
    scale = (X * v[task]).sum(1).exp()
    y = (X * w[task]).sum(1) + scale * torch.randn(len(X), generator=g)
    return MadeUp(TaskData.regression(X, y, task.tolist()), {"w": w, "v": v})


def shared_heads(g: Generator) -> MadeUp:
    """Draw curves of tasks with three bends in common."""
    w = _groups(g, spread=0.2).repeat(1, 2)[:, :3] + 0.2 * torch.randn(8, 3, generator=g)
    X, task = _rows(g, 8, 50)
    x = X[:, :1] * 1.5

    def bends(x: Tensor) -> Tensor:
        return (1.5 * x + torch.tensor([-2.0, 0.0, 2.0])).tanh()

    y = (bends(x) * w[task]).sum(1) + 0.3 * torch.randn(len(X), generator=g)
    grid = torch.linspace(-2, 2, 9)[:, None]

    def curves(model: Any, draws: Draws) -> Tensor:
        hidden = next(module for module in model.modules() if isinstance(module, nn.Linear))
        z = hidden(grid).tanh()
        w = draws["w"].squeeze(-2)
        return torch.cat([z, torch.ones_like(grid)], dim=1).to(w.dtype) @ w.mT

    truth = {"scale": torch.tensor(0.3), "curves": bends(grid) @ w.T}
    return MadeUp(TaskData.regression(x, y, task.tolist()), truth, {"curves": curves})


def group_predictors(g: Generator) -> MadeUp:
    """Draw groups whose intercepts and slopes depend on the soil."""
    soil, (X, task) = torch.randn(16, 1, generator=g), _rows(g, 16, 12)
    level, slope = torch.randn(2, 2, generator=g)
    w = level + slope * soil + 0.3 * torch.randn(16, 2, generator=g)
    y = (X * w[task]).sum(1) + 0.5 * torch.randn(len(X), generator=g)
    data = TaskData.regression(X, y, task.tolist(), columns={"soil": soil[task, 0]})

    def coefficients(model: Any, draws: Draws) -> Tensor:
        return draws["level"] + draws["slope"] * soil[:, None] + draws["r"]

    truth = {"coefficients": w, "level": level, "slope": slope}
    return MadeUp(data, truth, {"coefficients": coefficients})


def nested(g: Generator) -> MadeUp:
    """Draw 20 classes in 5 schools."""
    school, (X, task) = torch.arange(20) % 5, _rows(g, 20, 10)
    u, slope = torch.randn(5, generator=g), torch.randn((), generator=g)
    w = u[school] + 0.3 * torch.randn(20, generator=g)
    y = w[task] + slope * X[:, 0] + 0.7 * torch.randn(len(X), generator=g)
    data = TaskData.regression(X[:, :1], y, task.tolist(), columns={"school": school[task]})

    def means(model: Any, draws: Draws) -> Tensor:
        return draws["school"][..., school].reshape(*draws["r"].shape) + draws["r"]

    return MadeUp(data, {"means": w, "school": u, "slope": slope}, {"means": means})


MADE_UP: dict[str, Callable[[Generator], MadeUp]] = {
    make.__name__: make
    for make in (
        *(robust, poisson, negative_binomial, zero_inflated, ordinal, censored),
        *(heteroscedastic, shared_heads, group_predictors, nested),
    )
}
"""By the name of the variant."""
