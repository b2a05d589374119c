r"""Predictions for a new task, of which nothing is known yet.

Its coefficients come from what the method believes of any task:

============ ===================================================================================
member       coefficients of a new task
============ ===================================================================================
shared       one of the sources, widened by its transfer scale, or the base: the linear pool with
             the weights of the prior, even but for the base's anchor
hierarchical the prior about draws of the latent mean
pooled       those of all tasks
alone        the prior
============ ===================================================================================

The noise is that of a source, too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.methods.held_out import HeldOut, of_rows
from pyro_vmtl.models.task_noise import TaskNoise
from pyro_vmtl.predictive.families import concat_draws
from pyro_vmtl.sharing.sources import Sources
from pyro_vmtl.sharing.unwrap import unwrap

if TYPE_CHECKING:
    from pyro_vmtl.data.task_data import TaskData
    from pyro_vmtl.methods.fitted import Fitted

__all__ = ["new_task_draws", "new_task_member_weights"]

MOST_TASKS = 50
"""Tasks that are taken for new ones in turn: enough to weigh a handful of members."""

MOST_ROWS = 100
"""Rows of each of them."""


@torch.no_grad()
def new_task_draws(
    fitted: Fitted,
    rows: TaskData,
    *,
    num_samples: int = 200,
    seed: int = 0,
    without: int | None = None,
) -> Distribution:
    """Give what draws of a new task's coefficients predict.

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
        Index of a task that is no source, as if it had not been there.

    Returns
    -------
    Distribution
        The likelihood of the target, batch (S, 1, N).

    Raises
    ------
    ValueError
        If the preset has representations or amortised coefficients.
    """
    preset, guide = fitted.preset, _part(fitted.guide, MeanFieldNormal)
    if not _has_coefficients(fitted):
        raise ValueError(
            f"A new task needs a linear preset such as 'shared', found one with latent_size "
            f"{preset.latent_size} and amortized {preset.amortized}. Fit again with rows of that "
            "task."
        )
    with isolated(seed), validation(False):
        weights = _weights(fitted, guide.num_tasks, without).to(rows.x.device)
        drawn = torch.multinomial(weights, num_samples, replacement=True)
        from_source = drawn < guide.num_tasks
        source = drawn.where(from_source, _any_source(guide.num_tasks, without, drawn))
        model = copy.deepcopy(unwrap(fitted.model)).eval()
        noise = _part(model, TaskNoise)
        if noise is not None:
            noise.fix_log_noise_scale(noise.log_noise_scale[source].unsqueeze(1))
        # what all tasks have in common, such as the latent mean
        given = {site: guide.posterior(site).sample((num_samples, 1, 1)) for site in guide.common}
        w = _run(model, rows, given, num_samples)["w"]["value"]
        from_source = from_source.reshape(-1, *[1] * (w.ndim - 1))
        given["w"] = _of_sources(fitted, guide, source).unsqueeze(1).where(from_source, w)
        return concat_draws(
            [_run(model, rows, given, num_samples)["y"]["fn"]], lambda values: values[0]
        )


def new_task_member_weights(
    members: Mapping[str, Fitted], data: TaskData, *, seed: int = 0
) -> Tensor:
    """Find how much each member counts for a new task, (M,).

    Each task in turn is taken for a new one, and is then no source. It counts as one row, as it is
    one example of what a new task is like, against a prior of 20 that all members are as good. The
    fits have seen its rows, which is in favour of members that pool where tasks are few; there the
    prior decides.

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
    if data.num_tasks == 1 or not all(map(_has_coefficients, members.values())):
        return even
    generator, parts = torch.Generator().manual_seed(seed), []
    for t in torch.randperm(data.num_tasks, generator=generator)[:MOST_TASKS].tolist():
        places = data.mask[t].nonzero().flatten().cpu()
        places = places[torch.randperm(len(places), generator=generator)[:MOST_ROWS]]
        if not len(places):
            continue
        rows = data.map_rows(partial(_some_of, t, places.to(data.x.device)))
        weight = torch.full(rows.mask.shape, 1 / len(places), device=rows.x.device)
        rows = replace(rows, task_labels=("new",), weight=weight)
        draws = {
            name: of_rows(new_task_draws(fitted, rows, seed=seed, without=t), rows.mask)
            for name, fitted in members.items()
        }
        parts.append(HeldOut.of_new_task(draws, rows))
    held_out = HeldOut.joined(parts)
    return even if held_out is None else held_out.member_weights({}, prior_mean=even)[0]


def _some_of(task: int, places: Tensor, values: Tensor) -> Tensor:
    return values[task : task + 1, places]


def _has_coefficients(fitted: Fitted) -> bool:
    """Tell whether there are numbers of every task that a new one may have, too."""
    return fitted.preset.latent_size is None and not fitted.preset.amortized


def _weights(fitted: Fitted, num_tasks: int, without: int | None) -> Tensor:
    """Weights of the sources of a new task, the prior last, (T + 1,)."""
    weights = torch.zeros(num_tasks + 1)
    sources = _part(fitted.guide, Sources)
    if fitted.preset.pooled:
        weights[0] = 1.0
    elif sources is None:
        weights[-1] = 1.0
    else:
        weights += 1.0
        weights[-1] = float(sources.base)
        if without is not None:
            weights[without] = 0.0
        weights /= weights.sum()
        if sources.anchor:
            others = num_tasks - (without is not None)
            weights = torch.lerp(weights, torch.eye(num_tasks + 1)[-1], 1 / (others + 1))
    return weights


def _any_source(num_tasks: int, without: int | None, like: Tensor) -> Tensor:
    """Draw tasks evenly, whose noise a new task may have."""
    others = [t for t in range(num_tasks) if t != without] or [0]
    return torch.tensor(others, device=like.device)[torch.randint(len(others), like.shape)]


def _of_sources(fitted: Fitted, guide: MeanFieldNormal, source: Tensor) -> Tensor:
    """Draw coefficients of sources, widened by their transfer scales, (S, 1, *event)."""
    posterior = guide.posterior("w")
    loc = posterior.mean
    var = torch.zeros_like(loc) if fitted.preset.deterministic else posterior.variance
    sources = _part(fitted.guide, Sources)
    if sources is not None:
        var = var + torch.as_tensor(sources.transfer_var).to(var)
    loc, std = loc[source], var.sqrt()[source]
    return loc + std * torch.randn_like(loc)


def _run(model: nn.Module, rows: TaskData, given: dict[str, Tensor], num_samples: int) -> Any:
    """Run a model with what is given, under many draws at once."""
    with pyro.plate("draws", num_samples, dim=-3):
        return poutine.trace(poutine.condition(model, data=given)).get_trace(rows).nodes


def _part(program: nn.Module, kind: type[Any]) -> Any:
    """Find the first module of a kind in a program."""
    return next((module for module in program.modules() if isinstance(module, kind)), None)
