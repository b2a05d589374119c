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
from typing import Any, NamedTuple

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
from pyro_vmtl.methods.source_draws import draw_sources, parts
from pyro_vmtl.methods.stacking_weights import stacking_weights
from pyro_vmtl.predictive.families import family_of
from pyro_vmtl.predictive.posterior_predictive import plate_of_draws
from pyro_vmtl.sharing.sources import Sources

__all__ = [
    "NewTaskError",
    "check_predicts_new_tasks",
    "new_task_draws",
    "new_task_log_density",
    "new_task_member_weights",
]

MAX_TASKS = 50
"""Tasks that are treated as new in turn: enough to weigh a handful of members."""

MAX_ROWS = 100
"""Rows of each of them."""

MOST_NUMBERS = 5_000_000
"""Numbers that are predicted at once, of all draws and classes."""


class NewTaskError(ValueError):
    """A fit has programs that are only for the tasks of its rows."""


class _Draws(NamedTuple):
    """The likelihood under draws of a new task's latent variables, and the source of each."""

    likelihood: Distribution  # batch (S, 1, N)
    source: Tensor  # (S,), T for the prior


def new_task_draws(
    fitted: Member, rows: TaskData, *, num_samples: int = 200, seed: int = 0
) -> Distribution:
    """Return the likelihood under draws of a new task's latent variables, batch (S, 1, N).

    ``rows`` are those of one task, (1, N).

    Raises
    ------
    NewTaskError
        If the model does not run on the rows of a single task.
    """
    return _draw(fitted, rows, num_samples, seed).likelihood


@torch.no_grad()
def _draw(fitted: Member, rows: TaskData, num_samples: int, seed: int) -> _Draws:
    check_predicts_new_tasks(fitted.method)
    model, site = unwrap(fitted.model), fitted.method.site
    weights = _weights(fitted).to(rows.x.device)
    prior = len(weights) - 1
    with isolated(seed), validation(False), evaluating(model, fitted.guide):
        source = torch.multinomial(weights, num_samples, replacement=True)
        of_model = _trace_one_task(model, rows, site)
        dim = plate_of_draws(of_model)
        found = draw_sources(fitted, rows, source.where(source < prior, 0), of_model, dim)
        given = dict(found.common)
        of_prior = _run(model, rows, given, num_samples, dim)
        for name, value in found.of_task.items():
            is_source = (source < prior).reshape(-1, *[1] * (value.ndim - 1))
            given[name] = value.where(is_source, of_prior[name]["value"])
        likelihood: Distribution = _run(model, rows, given, num_samples, dim)[site]["fn"]
        return _Draws(family_of(likelihood).map(lambda values: values[0], likelihood), source)


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
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(data.num_tasks, generator=generator)[:MAX_TASKS].tolist()
    cells = [data.mask[t].cpu().nonzero().flatten() for t in some]
    cells = [c[torch.randperm(len(c), generator=generator)[:MAX_ROWS]] for c in cells]
    sizes = torch.tensor([len(c) for c in cells])
    task, place = torch.tensor(some).repeat_interleave(sizes), torch.cat(cells)
    if not len(task):
        return even
    weight = sizes.reciprocal().repeat_interleave(sizes)
    try:
        density = [new_task_log_density(m, data, task, place, seed=seed) for m in members.values()]
    except NewTaskError:
        return even
    one = torch.zeros_like(task)
    weights = stacking_weights(
        torch.stack(density, dim=1).cpu(), one, 1, sample_weight=weight, prior_mean=even
    )
    return weights[0]


@torch.no_grad()
def new_task_log_density(
    fitted: Member,
    data: TaskData,
    task: Tensor,
    place: Tensor,
    *,
    num_samples: int = 200,
    seed: int = 0,
) -> Tensor:
    """Compute log predictive densities of rows, (R,), were the task of each new, and no source.

    ``task`` and ``place`` say which rows. All have the same draws: those from the row's own task do
    not count, and others by how much more likely they are without it.
    """
    new, which = task.unique(return_inverse=True)
    weights = torch.stack([_weights(fitted, t) for t in new.tolist()])
    log_ratio = (weights / _weights(fitted)).log().to(data.x)  # (new tasks, sources)
    at_once = max(1, MOST_NUMBERS // (num_samples * data.num_classes))
    found = []
    for some in torch.arange(len(task)).split(at_once):
        rows = data.map_rows(itemgetter((task[some][None], place[some][None])))
        rows = replace(rows, task_labels=("new",))
        assert rows.y is not None
        draws = _draw(fitted, rows, num_samples, seed)
        of_draws = log_ratio[which[some]][:, draws.source].T  # (S, rows)
        log_density = draws.likelihood.log_prob(rows.y)[:, 0] + of_draws
        found.append(log_density.logsumexp(0) - of_draws.logsumexp(0))
    return torch.cat(found)


def _weights(fitted: Member, without: int | None = None) -> Tensor:
    """Weights of the sources of a new task, the prior last, (T + 1,), a task left out."""
    num_tasks = 1 if fitted.method.pooled else fitted.num_tasks
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
