r"""Predictions for a task without training rows.

Its latent variables are drawn from what the fit says of any task:

============ ===================================================================================
member       latent variables of a new task
============ ===================================================================================
shared       those of one of the sources, shared ones widened by its transfer scale, or the prior:
             the linear pool with the weights of the prior, even but for the base's least weight
hierarchical the prior about draws of what all tasks have in common
pooled       those of all tasks
alone        the prior
============ ===================================================================================

Programs need nothing for that, but that the model runs on the rows of a single task, too.
"""

from __future__ import annotations

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
from pyro_vmtl.handlers.isolation import evaluating, isolated, validation
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.handlers.tracing import sample_sites
from pyro_vmtl.methods.member import Member, PairMethod
from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.methods.source_draws import draw_sources, parts
from pyro_vmtl.predictive.families import family_of
from pyro_vmtl.predictive.posterior_predictive import plate_of_draws
from pyro_vmtl.sharing.sources import Sources

__all__ = ["NewTaskError", "check_predicts_new_tasks", "new_task_draws", "new_task_member_weights"]

MAX_TASKS = 50
"""Tasks that are treated as new in turn: enough to weigh a handful of members."""

MAX_ROWS = 100
"""Rows of each of them."""


class NewTaskError(ValueError):
    """A fit has programs that are only for the tasks of its rows."""


@torch.no_grad()
def new_task_draws(
    fitted: Member,
    rows: TaskData,
    *,
    num_samples: int = 200,
    seed: int = 0,
    without: int | None = None,
) -> Distribution:
    """Return the likelihood under draws of a new task's latent variables, batch (S, 1, N).

    ``rows`` are those of one task, (1, N). The task ``without`` is left out of the sources.

    Raises
    ------
    NewTaskError
        If the model does not run on the rows of a single task.
    """
    check_predicts_new_tasks(fitted.method)
    model, site = unwrap(fitted.model), fitted.method.site
    num_tasks = 1 if fitted.method.pooled else fitted.num_tasks
    with isolated(seed), validation(False), evaluating(model, fitted.guide):
        weights = _weights(fitted, num_tasks, without).to(rows.x.device)
        drawn = torch.multinomial(weights, num_samples, replacement=True)
        from_source = drawn < num_tasks
        of_model = _trace_one_task(model, rows, site)
        dim = plate_of_draws(of_model)
        found = draw_sources(fitted, rows, drawn.where(from_source, 0), of_model, dim)
        given = dict(found.common)
        of_prior = _run(model, rows, given, num_samples, dim)
        for name, value in found.of_task.items():
            is_source = from_source.reshape(-1, *[1] * (value.ndim - 1))
            given[name] = value.where(is_source, of_prior[name]["value"])
        likelihood: Distribution = _run(model, rows, given, num_samples, dim)[site]["fn"]
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
        try:
            draws = {
                name: new_task_draws(fitted, rows, seed=seed, without=t)
                for name, fitted in members.items()
            }
        except NewTaskError:
            return even
        held_out.append(OutOfFold.of_rows(draws, rows))
    if not held_out:
        return even
    found = OutOfFold.concat(held_out)
    return found.weights(found.log_density({}), 1, prior_mean=even)[0]


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


def _trace_one_task(model: nn.Module, rows: TaskData, site: str) -> dict[str, Any]:
    """Run a model on the rows of one task."""
    try:
        nodes = sample_sites(poutine.trace(model).get_trace(rows))
        found: Any = tuple(nodes[site]["fn"].batch_shape)
    except (RuntimeError, IndexError, ValueError) as error:
        nodes, found = {}, str(error).splitlines()[0]
    if found[-2:] != tuple(rows.mask.shape):
        raise NewTaskError(
            f"The model cannot predict a new task: run on one task of {rows.num_rows} rows, the "
            f"batch of site {site!r} is expected as (1, {rows.num_rows}), found {found}. Make its "
            "plate of `data.num_tasks` tasks, and what is learned of a task a latent site, not a "
            "parameter. Or fit again with rows of that task."
        )
    return nodes


def _run(
    model: nn.Module, rows: TaskData, given: dict[str, Tensor], num_samples: int, dim: int
) -> Any:
    """Trace a model conditioned on draws, vectorised over them."""
    with pyro.plate("draws", num_samples, dim=dim):
        return poutine.trace(poutine.condition(model, data=given)).get_trace(rows).nodes


def check_predicts_new_tasks(method: PairMethod) -> None:
    """Check that new tasks can be predicted, and tasks be added."""
    if not method.predicts_new_tasks:
        raise NewTaskError(
            "A new task needs a linear preset such as 'shared', found "
            f"{type(method).__name__} without coefficients of every task. Fit again with rows of "
            "that task."
        )
