"""Latent variables of a new task: those of one of the tasks of a fit, drawn from its guide."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import biject_to

from pyro_vmtl.data.plates import DATA_PLATE, TASK_PLATE, some_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.handlers.tracing import sample_sites
from pyro_vmtl.methods.member import Member
from pyro_vmtl.sharing.messengers import Sharing

__all__ = ["SourceDraws", "draw_sources", "parts"]

Nodes = dict[str, Any]
"""Sample sites by name."""


class SourceDraws(NamedTuple):
    """Values of latent sites: of all tasks in common or of rows, and of one task."""

    common: dict[str, Tensor]
    of_task: dict[str, Tensor]


def draw_sources(
    fitted: Member, rows: TaskData, source: Tensor, of_model: Nodes, dim: int
) -> SourceDraws:
    """Draw all latent sites from the guide, and of each draw take one source, (S,).

    ``rows`` are those of the new task, (1, N), ``of_model`` the sites of the model for them, and
    ``dim`` the dimension of the plate of draws. Values of shared sites are widened by the transfer
    scale of their source.
    """
    guide, method = unwrap(fitted.guide), fitted.method
    num_tasks = 1 if method.pooled else fitted.num_tasks
    # The guide takes the new rows for those of every task: only the sources are looked at.
    every = rows.map_rows(lambda values: values.expand(num_tasks, *values.shape[1:]))
    every = replace(every, task_labels=tuple(range(num_tasks)))
    chosen = source.unique() if method.subsamples_tasks else None
    place = source if chosen is None else torch.searchsorted(chosen, source)

    def draw() -> Nodes:
        with some_tasks(chosen), pyro.plate("draws", len(source), dim=dim):
            return sample_sites(poutine.trace(guide).get_trace(every))

    shared = {site: each for each in parts(fitted.guide, Sharing) for site, _ in each.items()}
    doubled = any(sharing.expects_sources for sharing in shared.values())
    drawn = [draw() for _ in range(3 if doubled else 1)]
    found = SourceDraws({}, {})
    for site in of_model.keys() & drawn[0].keys():
        node = drawn[0][site]
        plates = {frame.name: frame.dim for frame in node["cond_indep_stack"]}
        values, event_dim = [sites[site]["value"] for sites in drawn], node["fn"].event_dim
        if TASK_PLATE not in plates:
            found.common[site] = values[0]
            continue
        at = plates[TASK_PLATE] - event_dim
        values = [torch.take_along_dim(v, _index(place, v, dim - event_dim), at) for v in values]
        value = values[0]
        if site in shared:
            transform = biject_to(of_model[site]["fn"].support)
            first, *others = (transform.inv(v) for v in values)
            if shared[site].expects_sources:  # a difference of two draws has twice the variance
                first = first + (others[0] - others[1]) / math.sqrt(2)
            scale = shared[site][site].transfer_scale
            if scale is not None:
                scale = scale.expand(num_tasks, *scale.shape[1:])
                scale = scale.reshape(*[1] * (first.ndim - scale.ndim), *scale.shape)
                scale = torch.take_along_dim(scale, _index(source, scale, dim - event_dim), at)
                first = first + scale * torch.randn_like(first)
            value = transform(first)
        (found.common if DATA_PLATE in plates else found.of_task)[site] = value
    return found


def _index(place: Tensor, like: Tensor, at: int) -> Tensor:
    """Arrange places, (S,), along dimension ``at`` of what is indexed."""
    shape = [1] * like.ndim
    shape[at] = len(place)
    return place.reshape(shape)


def parts(program: nn.Module, kind: Any) -> list[Any]:
    """Find the modules of a kind in a program."""
    return [module for module in program.modules() if isinstance(module, kind)]
