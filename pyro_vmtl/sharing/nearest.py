"""Which sources are near: what candidates and the start of source weights go by."""

from __future__ import annotations

from collections.abc import Iterator

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vmtl.sharing.components import TaskComponents

__all__ = ["nearness"]

BLOCK = 1024
"""Tasks that are compared with all others at once."""


def nearness(
    posterior: dist.Independent, transfer_var: Tensor | float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Compare tasks with all others.

    Parameters
    ----------
    posterior
        Of every task, batch (T, ...).
    transfer_var
        Variance added to the sources.

    Yields
    ------
    tuple of Tensor
        Some tasks, (B,), and for each the expected log density of every source under its own
        posterior, (B, T), in nats; minus infinity for itself.
    """
    extra_var = torch.as_tensor(transfer_var).to(posterior.mean).expand_as(posterior.mean)
    loc, var, extra = (
        moment.flatten(1)[None] for moment in (posterior.mean, posterior.variance, extra_var)
    )
    every = TaskComponents(loc, var, extra)
    for tasks in torch.arange(loc.shape[1], device=loc.device).split(BLOCK):
        log_probs = every.log_probs(loc[:, tasks], var[:, tasks])[0]
        yield tasks, log_probs.scatter_(1, tasks[:, None], -torch.inf)
