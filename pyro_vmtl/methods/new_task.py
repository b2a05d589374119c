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
from operator import itemgetter
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.guides import ConjugateNormal, MeanFieldNormal
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.methods.member import Member, PairMethod
from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.predictive.families import family_of
from pyro_vmtl.sharing.messengers import Sharing
from pyro_vmtl.sharing.sources import Sources

__all__ = ["check_predicts_new_tasks", "new_task_draws", "new_task_member_weights", "parts"]

LinearGuide = MeanFieldNormal | ConjugateNormal
"""Guides of linear models."""

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
    """Return the likelihood under draws of a new task's coefficients, batch (S, 1, N).

    ``rows`` are those of one task, (1, N). The task ``without`` is left out of the sources.
    """
    check_predicts_new_tasks(fitted.method)
    (guide,) = parts(fitted.guide, LinearGuide)
    with isolated(seed), validation(False):
        weights = _weights(fitted, guide.num_tasks, without).to(rows.x.device)
        drawn = torch.multinomial(weights, num_samples, replacement=True)
        from_source = drawn < guide.num_tasks
        source = drawn.where(from_source, 0)
        model = copy.deepcopy(unwrap(fitted.model)).eval()
        # sites common to all tasks, such as the latent mean
        given = {site: guide.posterior(site).sample((num_samples, 1, 1)) for site in guide.common}
        of_prior = _run(model, rows, given, num_samples)
        for site in guide.sites:
            value = of_prior[site]["value"]
            is_source = from_source.reshape(-1, *[1] * (value.ndim - 1))
            of_source = _of_sources(fitted, guide, site, source).unsqueeze(1)
            given[site] = of_source.where(is_source, value)
        likelihood: Distribution = _run(model, rows, given, num_samples)[fitted.method.site]["fn"]
        return family_of(likelihood).map(lambda values: values[0], likelihood)


def new_task_member_weights(
    members: Mapping[str, Member], data: TaskData, *, seed: int = 0
) -> Tensor:
    """Compute the weight of each member for a new task, (M,).

    Each task in turn is treated as new and is then no source. It counts as one row, being one
    example of a new task, against a prior of 20 rows with even weights. The fits have seen its
    rows, which favours members that pool where tasks are few; there the prior decides.
    """
    even = torch.full((len(members),), 1 / len(members))
    if data.num_tasks == 1 or not all(m.method.predicts_new_tasks for m in members.values()):
        return even
    generator, held_out = torch.Generator().manual_seed(seed), []
    for t in torch.randperm(data.num_tasks, generator=generator)[:MAX_TASKS].tolist():
        places = data.mask[t].nonzero().flatten().cpu()
        places = places[torch.randperm(len(places), generator=generator)[:MAX_ROWS]]
        if not len(places):
            continue
        rows = data.map_rows(itemgetter((slice(t, t + 1), places)))
        weight = torch.full(rows.mask.shape, 1 / len(places), device=rows.x.device)
        rows = replace(rows, task_labels=("new",), weight=weight)
        draws = {
            name: new_task_draws(fitted, rows, seed=seed, without=t)
            for name, fitted in members.items()
        }
        held_out.append(OutOfFold.of_rows(draws, rows))
    return OutOfFold.concat(held_out).weights(1, {}, prior_mean=even)[0] if held_out else even


def _weights(fitted: Member, num_tasks: int, without: int | None) -> Tensor:
    """Weights of the sources of a new task, the prior last, (T + 1,)."""
    weights = torch.zeros(num_tasks + 1)
    weights[0 if fitted.method.pooled else -1] = 1.0
    for sources in parts(fitted.guide, Sources):
        weights[:-1] = 1.0
        weights[-1] = float(sources.base)
        if without is not None:
            weights[without] = 0.0
        weights /= weights.sum()
        least = sources.min_base_weight
        if least in (None, "tasks"):
            least = 1 / (num_tasks - (without is not None) + 1)
        weights = torch.lerp(weights, torch.eye(num_tasks + 1)[-1], least)
    return weights


def _of_sources(fitted: Member, guide: LinearGuide, site: str, source: Tensor) -> Tensor:
    """Draw values of sources, those of ``w`` widened by transfer scales, (S, 1, *event)."""
    posterior = guide.posterior(site)
    if site != "w":
        return posterior.sample(source.shape)[torch.arange(len(source)), source]
    loc = posterior.mean
    var = torch.zeros_like(loc) if fitted.method.deterministic else posterior.variance
    for sharing in parts(fitted.guide, Sharing):
        if getattr(sharing.pool, "expects_sources", False):
            var = 2 * var
    for sources in parts(fitted.guide, Sources):
        var = var + torch.as_tensor(sources.transfer_var).to(var)
    loc, std = loc[source], var.sqrt()[source]
    return loc + std * torch.randn_like(loc)


def _run(model: nn.Module, rows: TaskData, given: dict[str, Tensor], num_samples: int) -> Any:
    """Trace a model conditioned on draws, vectorised over them."""
    with pyro.plate("draws", num_samples, dim=-3):
        return poutine.trace(poutine.condition(model, data=given)).get_trace(rows).nodes


def parts(program: nn.Module, kind: Any) -> list[Any]:
    """Find the modules of a kind in a program."""
    return [module for module in program.modules() if isinstance(module, kind)]


def check_predicts_new_tasks(method: PairMethod) -> None:
    """Check that new tasks can be predicted, and tasks be added."""
    if not method.predicts_new_tasks:
        raise ValueError(
            "A new task needs a linear preset such as 'shared', found "
            f"{type(method).__name__} without coefficients of every task. Fit again with rows of "
            "that task."
        )
