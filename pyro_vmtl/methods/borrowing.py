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
any other                    0
============================ ======================================================================

each averaged over coefficients. The rest, of own rows and plain prior, is not borrowed. Shares of
different methods can thus be compared, and a hierarchical model between separate tasks
(:math:`\pi_t \to 0`) and pooled ones (:math:`\pi_t \to \infty`) is between 0 and
:math:`(T - 1) / T`. Point estimates have no width, and borrow nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import evaluating, isolated, validation
from pyro_vmtl.handlers.program_handler import UNCONSTRAINED, Program
from pyro_vmtl.handlers.tracing import trace_guide_and_model
from pyro_vmtl.sharing.pool import Pool
from pyro_vmtl.sharing.share import relatedness

__all__ = ["Borrowing"]


@dataclass(frozen=True, eq=False)
class Borrowing:
    """Shares of the posterior means of T tasks.

    Attributes
    ----------
    shares
        (T, T), share of each other task that does not depend on source weights; diagonal 0.
    shares_per_weight
        For each shared site (T, T): the share of each source over its weight.
    """

    shares: Tensor
    shares_per_weight: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.shares)

    @classmethod
    def of_programs(
        cls, model: Program, guide: Program, data: TaskData, rows_per_task: Tensor
    ) -> Borrowing:
        """Compute the shares of a fit.

        Parameters
        ----------
        model, guide
            Fitted programs.
        data
            Training rows, as the programs take them.
        rows_per_task
            (T,), rows of each task, or the sum of their weights. There are more tasks than in
            ``data`` where these are pooled.
        """
        # Without gradients, it could not be seen what a prior depends on.
        with isolated(0), validation(False), evaluating(model, guide), torch.enable_grad():
            model_trace, guide_trace = trace_guide_and_model(model, guide, data)
        found: list[tuple[str, Any, Any]] = []
        total = 0
        for site, node in model_trace.nodes.items():
            posterior = _posterior(guide_trace, site)
            if node["type"] != "sample" or posterior is None:
                continue
            plates = {frame.name for frame in node["cond_indep_stack"] if frame.vectorized}
            if plates == {TASK_PLATE}:
                found.append((site, node["fn"], posterior))
                total += posterior.mean.numel()
        num_tasks = len(rows_per_task)
        pooled = num_tasks > data.num_tasks
        shares, per_weight = torch.zeros(num_tasks, num_tasks), {}
        for site, prior, posterior in found:
            part = posterior.mean.numel() / total
            if isinstance(prior, Pool):
                per_weight[site] = part * prior.shares_per_weight(posterior).detach().cpu()
                continue
            ratio = _by_task(posterior.variance / prior.variance)
            if pooled:
                of_task = rows_per_task / rows_per_task.sum()
                shares += part * (1 - ratio) * of_task
            else:
                common = _share_of_common_mean(prior, model_trace, guide_trace)
                shares += part * (ratio * common / num_tasks)[:, None]
        shares = shares.fill_diagonal_(0.0)
        return cls(shares, per_weight)

    def with_new_task(self) -> Borrowing:
        """Return the shares with one more pooled task, which has an even share."""
        num_tasks = self.num_tasks + 1
        shares = torch.zeros(num_tasks, num_tasks)
        shares[:-1, :-1] = self.shares
        shares[-1, :-1] = self.shares.sum(0) / max(self.num_tasks - 1, 1)
        return Borrowing(shares)

    def draw(self, guide: Program, *, num_samples: int = 1000, seed: int = 0) -> Tensor:
        """Draw shares, with source weights from their posterior.

        Parameters
        ----------
        guide
            The fitted guide.
        num_samples
            S, the number of draws.
        seed
            Seed of the draws.

        Returns
        -------
        Tensor
            (S, T, T + 1), rows on the simplex; the last column is what is not borrowed, and the
            diagonal is 0.
        """
        shares = self.shares.expand(num_samples, -1, -1)
        for site, per_weight in self.shares_per_weight.items():
            weights = relatedness(guide, site, num_samples=num_samples, seed=seed).cpu()
            shares = shares + per_weight * weights[..., :-1]
        total = shares.sum(-1, keepdim=True)
        shares = shares / total.clamp(min=1.0)  # a fit that has not settled may be beyond 1
        return torch.cat([shares, 1 - shares.sum(-1, keepdim=True)], dim=-1).clamp(min=0.0)


def _posterior(guide_trace: Any, site: str) -> Any:
    """Return the normal posterior of a site; None where it has none."""
    for name in (site, site + UNCONSTRAINED):
        fn = guide_trace.nodes.get(name, {}).get("fn")
        inner = fn
        while isinstance(inner, Independent):
            inner = inner.base_dist
        if isinstance(inner, Normal):
            return fn
    return None


def _by_task(values: Tensor) -> Tensor:
    """Average ratios over the numbers of each task, (T,), each at most 1."""
    return values.detach().cpu().clamp(max=1.0).flatten(1).mean(1)


def _share_of_common_mean(prior: dist.Distribution, model_trace: Any, guide_trace: Any) -> float:
    """Return what of a prior's mean is learned from the rows of all tasks."""
    if not prior.mean.requires_grad:
        return 0.0
    for site, node in model_trace.nodes.items():
        posterior = _posterior(guide_trace, site)
        if node["type"] != "sample" or node["is_observed"] or posterior is None:
            continue
        if node["cond_indep_stack"] or not node["value"].requires_grad:
            continue
        (moves,) = torch.autograd.grad(
            prior.mean.sum(), node["value"], allow_unused=True, retain_graph=True
        )
        if moves is not None and moves.any():
            own = (posterior.variance / node["fn"].variance).detach().clamp(max=1.0).mean()
            return 1.0 - float(own)
    return 0.0
