"""The root of a stack's tree: what its members predict together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.analysis.export.collected import MOST_NUMBERS
from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.analysis.export.predicted_rows import chunks, predictions
from pyro_vmtl.analysis.export.pyro_svi import constants, note_classes
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.methods.stack import FittedStack
from pyro_vmtl.predictive.calibration import Calibration

__all__ = ["mixture_groups"]

FEWER_DRAWS = 200
"""Draws of each member that predict new rows, as those of ``predictive``."""


def mixture_groups(
    stack: FittedStack,
    data: TaskData,
    rows: TaskData | None,
    *,
    num_samples: int,
    seed: int,
    coords: Mapping[str, Any] | None,
) -> dict[str, xr.Dataset]:
    """Give the groups of rows for the mixture of a stack, and how much its members count.

    A draw of the mixture is, in each task, one of a member: as often of each as it counts.

    Parameters
    ----------
    stack
        The fit.
    data, rows, num_samples, seed, coords
        As for :func:`~pyro_vmtl.analysis.to_datatree`.
    """

    def draws(name: str, some: TaskData, num_samples: int = num_samples) -> Distribution:
        drawn = stack.members[name].draws(some, num_samples=num_samples, seed=seed)
        return stack.calibrations.get(name, Calibration())(drawn)

    labels = Labels(data, coords)
    groups = _of_training(stack, data, labels, draws, num_samples, seed)
    groups["posterior"] = _relatedness(stack, labels, num_samples, seed)
    groups["stack"] = _members(stack, labels)
    note_classes(groups, "y", labels)
    if rows is not None:
        labels = Labels(rows, coords)
        each = min(num_samples, FEWER_DRAWS)
        found = predictions(
            lambda some: [draws(name, some, each) for name in stack.members],
            *(stack.weights, rows, labels),
            num_draws=each * len(stack.members),
            seed=seed,
        )
        groups["predictions"] = labels.dataset(found)
        note_classes(groups, "y", labels)
    return groups


@torch.no_grad()
def _of_training(
    stack: FittedStack, data: TaskData, labels: Labels, draws: Any, num_samples: int, seed: int
) -> dict[str, xr.Dataset]:
    kept = min(num_samples, max(1, MOST_NUMBERS // data.mask.numel()))
    which = _members_of_draws(stack.weights.to(data.x.device), num_samples, seed)[:kept]
    found: dict[str, list[Tensor]] = {"posterior_predictive": [], "log_likelihood": []}
    for some in chunks(data, num_samples):
        mixture: list[Tensor] = []
        for m, name in enumerate(stack.members):
            drawn = draws(name, some)
            both = (drawn.sample()[:kept], drawn.log_prob(some.y)[:kept])
            chosen = (which == m)[..., None]
            mixture = [v.where(chosen, old) for v, old in zip(both, mixture or both, strict=True)]
        for values, new in zip(found.values(), mixture, strict=True):
            values.append(new)
    variables = {}
    for name, parts in found.items():
        of_rows = labels.of_rows(torch.cat(parts, dim=2)).cpu().numpy()
        variables[name] = labels.dataset({"y": Variable(("draw", "row"), of_rows)})
    assert data.y is not None
    y = labels.of_rows(data.y[None])[0].cpu().numpy()
    variables["observed_data"] = labels.dataset({"y": Variable(("row",), y)})
    variables["constant_data"] = labels.dataset(constants(data, labels))
    return variables


def _relatedness(stack: FittedStack, labels: Labels, num_samples: int, seed: int) -> xr.Dataset:
    """Draw who borrows from whom, in the mean of the members."""
    num_tasks = len(stack.weights)
    kept = min(num_samples, max(1, MOST_NUMBERS // (num_tasks * (num_tasks + 1))))
    drawn = stack.relatedness(num_samples=kept, seed=seed).cpu().numpy()
    return labels.dataset({"w_sources": Variable(("draw", "task", "source"), drawn)})


def _members(stack: FittedStack, labels: Labels) -> xr.Dataset:
    weights = Variable(("task", "member"), stack.weights.cpu().double().numpy())
    calibrations = [stack.calibrations.get(name, Calibration()) for name in stack.members]
    made = labels.dataset(
        {
            "member_weights": weights,
            "spread": Variable(("member",), np.array([c.spread for c in calibrations])),
            "temperature": Variable(("member",), np.array([c.temperature for c in calibrations])),
        }
    )
    return made.assign_coords(member=list(stack.members))


def _members_of_draws(weights: Tensor, num_samples: int, seed: int) -> Tensor:
    """Choose a member for each draw and task, (S, T), as often as each counts."""
    generator = torch.Generator().manual_seed(seed)
    even = (torch.arange(num_samples, dtype=weights.dtype) + 0.5) / num_samples
    last = weights.shape[1] - 1
    chosen = torch.searchsorted(weights.cpu().cumsum(1), even.expand(len(weights), -1).contiguous())
    order = torch.rand(chosen.shape, generator=generator).argsort(1)  # tasks are independent
    return chosen.clamp(max=last).gather(1, order).T.to(weights.device)
