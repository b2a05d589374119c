r"""How much of a task's posterior mean comes from other tasks' rows.

The posterior of a coefficient with standard deviation :math:`\sigma_t` weighs what its prior says
by the prior's precision :math:`\pi_t`: if the mean of the prior moves by 1, that of the posterior
moves by :math:`r_t = \sigma_t^2 \pi_t`, between 0 (the task's own rows decide) and 1 (the prior
does). What of the prior comes from which task depends on the model:

============================ ======================================================================
prior of task t              share of task i in its posterior mean
============================ ======================================================================
a pool of posteriors         :math:`a_{ti}` times the same ratio for source i: for the logarithmic
                             pool :math:`a_{ti}\, \sigma_t^2 / (\sigma_i^2 + s_i^2)`
about a mean that all tasks  :math:`r_t (1 - \rho) / T`, where :math:`\rho` is the ratio of the
have in common               mean's own posterior variance to its prior's
one posterior for all tasks  :math:`(1 - r)\, n_i / \sum_k n_k`, with :math:`n_i` the rows of task i
functions that tasks combine what the guide's method ``task_shares`` computes, (T, T)
any other                    0
============================ ======================================================================

each averaged over coefficients. The rest, of own rows and plain prior, is not borrowed. Shares of
different methods can thus be compared, and a hierarchical model between separate tasks
(:math:`\pi_t \to 0`) and pooled ones (:math:`\pi_t \to \infty`) is between 0 and
:math:`(T - 1) / T`. Point estimates have no width, and borrow nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, constraints

from pyro_vmtl.data.limits import exceeds
from pyro_vmtl.data.plates import DATA_PLATE, TASK_PLATE
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import evaluating, isolated, validation
from pyro_vmtl.handlers.program_handler import UNCONSTRAINED, Program
from pyro_vmtl.handlers.tracing import TracePair, sample_sites, trace_guide_and_model
from pyro_vmtl.sharing.pool import Pool, once
from pyro_vmtl.sharing.share import relatedness

__all__ = ["Borrowing"]

WEIGHT_DRAWS, MOST_DRAWS = 200, 20_000
"""Draws of the source weights that their mean is computed from: more where tasks are few, as
small weights are seldom drawn large."""

ENOUGH_NUMBERS = 2_000_000
"""Numbers in these draws beyond which there are no more than the least."""

MOST_NUMBERS = 20_000_000
"""Numbers in draws that are held at once."""


@dataclass(frozen=True, eq=False)
class Borrowing:
    """Shares of the posterior means of T tasks."""

    shares: Tensor
    """(T,), share of all tasks together that does not depend on source weights."""
    sources: Tensor
    """(T,), on the simplex: what each task has of these shares."""
    shares_per_weight: Mapping[str, Tensor] = field(default_factory=dict)
    """For each shared site (T, T): the share of each source over its weight."""
    of_tasks: Tensor | None = None
    """(T, T), further shares of each source, from the guide."""

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.shares)

    @classmethod
    def of_programs(
        cls, model: Program, guide: Program, data: TaskData, rows_per_task: Tensor
    ) -> Borrowing:
        """Compute the shares of a fit to prepared rows.

        In ``rows_per_task``, (T,), there are more tasks than in ``data`` where these are pooled.
        """
        num_tasks = len(rows_per_task)
        for part in guide.modules() if isinstance(guide, nn.Module) else ():
            task_shares: Any = getattr(part, "task_shares", None)
            if task_shares is not None and not exceeds("TASK_PAIRS", num_tasks**2):
                of_tasks = task_shares().float().cpu().clamp(min=0.0).fill_diagonal_(0.0)
                return cls(torch.zeros(num_tasks), torch.zeros(num_tasks), of_tasks=of_tasks)
        traces = _trace(model, guide, data, with_gradient=False)
        if any(_is_common(node) for node in sample_sites(traces.guide).values()):
            # Without gradients, it could not be seen what a prior depends on.
            traces = _trace(model, guide, data, with_gradient=True)
        found = []
        for site, node in sample_sites(traces.model).items():
            posterior = _posterior(traces.guide, site, node)
            if posterior is not None and _is_of_tasks(node):
                found.append((site, node["fn"], posterior))
        total = sum(posterior.mean.numel() for _, _, posterior in found)
        pooled = num_tasks > data.num_tasks or data.num_tasks == 1
        sources = torch.full((num_tasks,), 1 / num_tasks)
        if pooled and rows_per_task.sum() > 0:
            sources = rows_per_task / rows_per_task.sum()
        shares, per_weight = torch.zeros(num_tasks), {}
        for site, prior, posterior in found:
            part = posterior.mean.numel() / total
            if isinstance(prior, Pool):
                per_weight[site] = part * _shares_per_weight(prior, posterior, guide, site)
                continue
            ratio = (posterior.variance / prior.variance).detach().cpu().clamp(max=1.0)
            ratio = ratio.reshape(len(ratio), -1).mean(1)  # (T,)
            common = 1 - ratio if pooled else ratio * _share_of_common_mean(prior, traces)
            shares += part * common
        return cls(shares, sources, per_weight)

    def with_new_task(self) -> Borrowing:
        """Return the shares with one more task that is pooled with the others."""
        shares = torch.cat([self.shares, self.shares.mean(0, keepdim=True)])
        return Borrowing(shares, torch.cat([self.sources, torch.zeros(1)]))

    def total(self, guide: Program, *, seed: int = 0) -> Tensor:
        """Compute what is borrowed in all, (T,): without pools, no matter from whom."""
        if self.shares_per_weight or self.of_tasks is not None:
            return 1 - self.mean(guide, seed=seed)[:, -1]
        return (self.shares * (1 - self.sources)).clamp(max=1.0)

    def mean(self, guide: Program, *, seed: int = 0) -> Tensor:
        """Compute mean shares, (T, T + 1), by fewer draws where tasks are many."""
        return _mean(partial(self.draw, guide), self.num_tasks, seed)

    def draw(self, guide: Program, *, num_samples: int = 1000, seed: int = 0) -> Tensor:
        """Draw shares, (S, T, T + 1), with source weights from their posterior.

        Rows are on the simplex, the last column is what is not borrowed, and the diagonal is 0.
        """
        shares = torch.outer(self.shares, self.sources).fill_diagonal_(0.0)[None]
        for site, per_weight in self.shares_per_weight.items():
            weights = relatedness(guide, site, num_samples=num_samples, seed=seed).cpu()
            shares = shares + per_weight * once(weights, 1)[..., :-1]
        if self.of_tasks is not None:
            shares = shares + self.of_tasks
        total = shares.sum(-1, keepdim=True)
        shares = shares / total.clamp(min=1.0)  # a fit that has not settled may be beyond 1
        shares = torch.cat([shares, 1 - shares.sum(-1, keepdim=True)], dim=-1).clamp(min=0.0)
        return shares.expand(num_samples, -1, -1)


def _mean(draw: Callable[..., Tensor], num_tasks: int, seed: int) -> Tensor:
    """Average draws, (S, T, T + 1), batch by batch."""
    num_draws = max(WEIGHT_DRAWS, min(MOST_DRAWS, ENOUGH_NUMBERS // num_tasks**2))
    size = max(1, MOST_NUMBERS // num_tasks**2)
    total: Tensor | float = 0.0
    for start in range(0, num_draws, size):
        num_samples = min(size, num_draws - start)
        total = total + draw(num_samples=num_samples, seed=seed + start).sum(0)
    assert isinstance(total, Tensor)
    return total / num_draws


def _trace(model: Program, guide: Program, data: TaskData, *, with_gradient: bool) -> TracePair:
    grad = torch.enable_grad if with_gradient else torch.no_grad
    with isolated(0), validation(False), evaluating(model, guide), grad():
        return trace_guide_and_model(model, guide, data)


def _is_of_tasks(node: Any) -> bool:
    """Whether a site is in the task plate, and not one of rows."""
    plates = {frame.name for frame in node["cond_indep_stack"] if frame.vectorized}
    return TASK_PLATE in plates and DATA_PLATE not in plates


def _is_common(node: Any) -> bool:
    return not node["is_observed"] and not node["cond_indep_stack"]


def _posterior(guide_trace: Any, site: str, node: Any) -> Any:
    """Return the normal posterior of a real latent site; None where it has none."""
    support = node["fn"].support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if node["is_observed"] or support not in (constraints.real, constraints.real_vector):
        return None
    for name in (site, site + UNCONSTRAINED):
        fn = inner = guide_trace.nodes.get(name, {}).get("fn")
        while isinstance(inner, Independent):
            inner = inner.base_dist
        if isinstance(inner, Normal | MultivariateNormal):
            return fn
    return None


def _shares_per_weight(pool: Pool, posterior: Any, guide: Program, site: str) -> Tensor:
    """Compute the share of each source at the mean weights, over its weight, (T, T)."""
    mean = _mean(partial(relatedness, guide, site), len(posterior.mean), seed=0)
    with torch.no_grad():
        shares = pool.with_weights(mean.to(pool.weights)).shares(posterior)
    weights = mean[:, :-1].to(shares)
    return torch.where(weights > 0, shares / weights.clamp_min(1e-30), 0.0).cpu()


def _share_of_common_mean(prior: Any, traces: TracePair) -> float:
    """Return what of a prior's mean is learned from the rows of all tasks, by latent sites."""
    if not prior.mean.requires_grad:
        return 0.0
    for site, node in sample_sites(traces.model).items():
        posterior = _posterior(traces.guide, site, node)
        if posterior is None or not _is_common(node) or not node["value"].requires_grad:
            continue
        (moves,) = torch.autograd.grad(
            prior.mean.sum(), node["value"], allow_unused=True, retain_graph=True
        )
        if moves is not None and moves.any():
            own = (posterior.variance / node["fn"].variance).detach().clamp(max=1.0).mean()
            return 1.0 - float(own)
    return 0.0
