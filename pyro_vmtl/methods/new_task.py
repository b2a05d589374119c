r"""Predictions for a task without training rows.

Its coefficients are drawn from what the fit says of any task:

============ ===================================================================================
member       coefficients of a new task
============ ===================================================================================
shared       one of the sources, widened by its transfer scale, or the base: the linear pool with
             the weights of the prior, even but for the base's least weight
hierarchical the prior about draws of the latent mean
pooled       those of all tasks
alone        the prior
============ ===================================================================================

The noise is that of a source as well.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.methods.stacking_weights import stacking_weights
from pyro_vmtl.models.task_noise import TaskNoise
from pyro_vmtl.predictive.families import family_of
from pyro_vmtl.sharing.sources import Sources

__all__ = ["new_task_draws", "new_task_member_weights"]

MAX_TASKS = 50
"""Tasks that are treated as new in turn: enough to weigh a handful of members."""

MAX_ROWS = 100
"""Rows of each of them."""


@torch.no_grad()
def new_task_draws(
    fitted: Member,
    rows: TaskData,
    *,
    num_samples: int = 200,
    seed: int = 0,
    without: int | None = None,
) -> Distribution:
    """Return the likelihood under draws of a new task's coefficients.

    Parameters
    ----------
    fitted
        A fitted linear preset.
    rows
        Rows of the new task: one task, (1, N).
    num_samples
        S, draws.
    seed
        Seed of the draws.
    without
        Index of a task that is left out of the sources.

    Returns
    -------
    Distribution
        The likelihood of the target, batch (S, 1, N).

    Raises
    ------
    ValueError
        If the method cannot predict new tasks.
    """
    if not fitted.method.predicts_new_tasks:
        raise ValueError(
            "A new task needs a linear preset such as 'shared', found "
            f"{type(fitted.method).__name__} without coefficients of every task. Fit again with "
            "rows of that task."
        )
    guide = _part(fitted.guide, MeanFieldNormal)
    with isolated(seed), validation(False):
        weights = _weights(fitted, guide.num_tasks, without).to(rows.x.device)
        drawn = torch.multinomial(weights, num_samples, replacement=True)
        from_source = drawn < guide.num_tasks
        source = drawn.where(from_source, _any_source(guide.num_tasks, without, drawn))
        model = copy.deepcopy(unwrap(fitted.model)).eval()
        noise = _part(model, TaskNoise)
        if noise is not None:
            noise.fix_log_noise_scale(noise.log_noise_scale[source].unsqueeze(1))
        # sites common to all tasks, such as the latent mean
        given = {site: guide.posterior(site).sample((num_samples, 1, 1)) for site in guide.common}
        w = _run(model, rows, given, num_samples)["w"]["value"]
        from_source = from_source.reshape(-1, *[1] * (w.ndim - 1))
        given["w"] = _of_sources(fitted, guide, source).unsqueeze(1).where(from_source, w)
        likelihood: Distribution = _run(model, rows, given, num_samples)[fitted.method.site]["fn"]
        return family_of(likelihood).map(lambda values: values[0], likelihood)


def new_task_member_weights(
    members: Mapping[str, Member], data: TaskData, *, seed: int = 0
) -> Tensor:
    """Compute the weight of each member for a new task, (M,).

    Each task in turn is treated as new and is then no source. It counts as one row, being one
    example of a new task, against a prior of 20 rows with even weights. The fits have seen its
    rows, which favours members that pool where tasks are few; there the prior decides.

    Parameters
    ----------
    members
        Fits to ``data``, by name.
    data
        Training rows.
    seed
        Seed of the choice of tasks and rows, where there are many, and of the draws.
    """
    even = torch.full((len(members),), 1 / len(members))
    if data.num_tasks == 1 or not all(m.method.predicts_new_tasks for m in members.values()):
        return even
    generator, parts = torch.Generator().manual_seed(seed), []
    for t in torch.randperm(data.num_tasks, generator=generator)[:MAX_TASKS].tolist():
        places = data.mask[t].nonzero().flatten().cpu()
        places = places[torch.randperm(len(places), generator=generator)[:MAX_ROWS]]
        if not len(places):
            continue
        rows = data.map_rows(partial(_some_of, t, places.to(data.x.device)))
        weight = torch.full(rows.mask.shape, 1 / len(places), device=rows.x.device)
        rows = replace(rows, task_labels=("new",), weight=weight)
        draws = {
            name: new_task_draws(fitted, rows, seed=seed, without=t)
            for name, fitted in members.items()
        }
        parts.append(OutOfFold.of_rows(draws, rows))
    held_out = OutOfFold.concat(parts)
    if held_out is None:
        return even
    return stacking_weights(
        held_out.log_density({}), held_out.task, 1, sample_weight=held_out.weight, prior_mean=even
    )[0]


def _some_of(task: int, places: Tensor, values: Tensor) -> Tensor:
    return values[task : task + 1, places]


def _weights(fitted: Member, num_tasks: int, without: int | None) -> Tensor:
    """Weights of the sources of a new task, the prior last, (T + 1,)."""
    weights = torch.zeros(num_tasks + 1)
    sources = _part(fitted.guide, Sources)
    if fitted.method.pooled:
        weights[0] = 1.0
    elif sources is None:
        weights[-1] = 1.0
    else:
        weights += 1.0
        weights[-1] = float(sources.base)
        if without is not None:
            weights[without] = 0.0
        weights /= weights.sum()
        least = sources.min_base_weight
        if least is None:
            least = 1 / (num_tasks - (without is not None) + 1)
        weights = torch.lerp(weights, torch.eye(num_tasks + 1)[-1], least)
    return weights


def _any_source(num_tasks: int, without: int | None, like: Tensor) -> Tensor:
    """Draw tasks evenly, to take their noise for that of a new task."""
    others = [t for t in range(num_tasks) if t != without] or [0]
    return torch.tensor(others, device=like.device)[torch.randint(len(others), like.shape)]


def _of_sources(fitted: Member, guide: MeanFieldNormal, source: Tensor) -> Tensor:
    """Draw coefficients of sources, widened by their transfer scales, (S, 1, *event)."""
    posterior = guide.posterior("w")
    loc = posterior.mean
    var = torch.zeros_like(loc) if fitted.method.deterministic else posterior.variance
    sources = _part(fitted.guide, Sources)
    if sources is not None:
        var = var + torch.as_tensor(sources.transfer_var).to(var)
    loc, std = loc[source], var.sqrt()[source]
    return loc + std * torch.randn_like(loc)


def _run(model: nn.Module, rows: TaskData, given: dict[str, Tensor], num_samples: int) -> Any:
    """Trace a model conditioned on draws, vectorised over them."""
    with pyro.plate("draws", num_samples, dim=-3):
        return poutine.trace(poutine.condition(model, data=given)).get_trace(rows).nodes


def _part(program: nn.Module, kind: type[Any]) -> Any:
    """Find the first module of a kind in a program."""
    return next((module for module in program.modules() if isinstance(module, kind)), None)
