"""Groups of a tree that are of the mixture of all members: rows, shares, weights, predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pyro_vmtl.analysis.export.collected import MOST_NUMBERS
from pyro_vmtl.analysis.export.labels import SHARE, Labels, Variable
from pyro_vmtl.analysis.export.predicted_rows import chunks, predictions
from pyro_vmtl.data.limits import exceeds
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.predictive.calibration import Calibration

__all__ = ["mixture_groups", "predictions_group"]

MAX_PREDICTION_DRAWS = 200
"""Draws of each of several members that predict new rows, as those of ``predictive``."""


def mixture_groups(
    fitted: Fitted, data: TaskData, *, num_samples: int, seed: int, coords: Mapping[str, Any] | None
) -> dict[str, xr.Dataset]:
    """Return the groups of training rows for the mixture of the members, and their weights."""
    labels = Labels(data, coords)
    groups = _training_groups(fitted, data, labels, num_samples, seed)
    if not exceeds("TASK_PAIRS", fitted.num_tasks**2):
        groups["posterior"] = _relatedness(fitted, labels, num_samples, seed)
    groups["stack"] = _members(fitted, labels)
    return groups


def predictions_group(
    fitted: Fitted, rows: TaskData, *, num_samples: int, seed: int, coords: Mapping[str, Any] | None
) -> xr.Dataset:
    """Return the predictions of rows."""
    each = num_samples if len(fitted.members) == 1 else min(num_samples, MAX_PREDICTION_DRAWS)
    return predictions(
        lambda some: fitted.draws(some, num_samples=each, seed=seed, calibrated=False),
        *(fitted.weights, rows, Labels(rows, coords)),
        num_draws=each * len(fitted.members),
        seed=seed,
        calibrate=fitted.calibrate,
    )


@torch.no_grad()
def _training_groups(
    fitted: Fitted, data: TaskData, labels: Labels, num_samples: int, seed: int
) -> dict[str, xr.Dataset]:
    kept = min(num_samples, max(1, MOST_NUMBERS // data.mask.numel()))
    which = _members_of_draws(fitted.weights.to(data.x.device), num_samples, seed)[:kept]
    assert data.y is not None
    found: dict[str, list[Tensor]] = {"posterior_predictive": [], "log_likelihood": []}
    for some in chunks(data, num_samples):
        mixture: list[Tensor] = []
        for m, drawn in enumerate(fitted.draws(some, num_samples=num_samples, seed=seed)):
            both = (drawn.sample()[:kept], drawn.log_prob(cast(Tensor, some.y))[:kept])
            chosen = (which == m)[..., None]
            mixture = [v.where(chosen, old) for v, old in zip(both, mixture or both, strict=True)]
        for values, new in zip(found.values(), mixture, strict=True):
            values.append(new)
    variables = {}
    for name, parts in found.items():
        of_rows = labels.of_rows(torch.cat(parts, dim=2)).cpu().numpy()
        variables[name] = labels.dataset({"y": Variable(("draw", "row"), of_rows)})
    variables["observed_data"] = labels.dataset({"y": labels.variable(data.y)})
    labels.note_classes("y", variables["observed_data"], variables["posterior_predictive"])
    variables["constant_data"] = labels.dataset(labels.constants())
    return variables


def _relatedness(fitted: Fitted, labels: Labels, num_samples: int, seed: int) -> xr.Dataset:
    """Draw what each task borrows from each other."""
    num_tasks = fitted.num_tasks
    kept = min(num_samples, max(1, MOST_NUMBERS // (num_tasks * (num_tasks + 1))))
    drawn = fitted.relatedness(num_samples=kept, seed=seed).cpu().numpy()
    shares = labels.dataset({"w_sources": Variable(("draw", "task", "source"), drawn)})
    shares["w_sources"].attrs["long_name"] = SHARE
    return shares


def _members(fitted: Fitted, labels: Labels) -> xr.Dataset:
    weights = Variable(("task", "member"), fitted.weights.cpu().double().numpy())
    calibrations = [fitted.calibrations.get(name, Calibration()) for name in fitted.members]
    scales = np.array([c.posterior_scale for c in calibrations])
    made = labels.dataset(
        {
            "member_weights": weights,
            "posterior_scale": Variable(("member",), scales),
            "temperature": Variable(("member",), np.array([c.temperature for c in calibrations])),
        }
    )
    return made.assign_coords(member=list(fitted.members))


def _members_of_draws(weights: Tensor, num_samples: int, seed: int) -> Tensor:
    """Choose a member for each draw and task, (S, T), in proportion to the weights."""
    generator = torch.Generator().manual_seed(seed)
    even = (torch.arange(num_samples, dtype=weights.dtype) + 0.5) / num_samples
    last = weights.shape[1] - 1
    chosen = torch.searchsorted(weights.cpu().cumsum(1), even.expand(len(weights), -1).contiguous())
    order = torch.rand(chosen.shape, generator=generator).argsort(1)  # tasks are independent
    return chosen.clamp(max=last).gather(1, order).T.to(weights.device)
