r"""Stacking weights of methods, from held-out log densities.

The weights :math:`\omega_t` of task t maximise

.. math:: \sum_n \log \sum_m \omega_{t(n) m}\, p_m(y_n \mid \text{rows of other folds})

with a Dirichlet prior that draws them to their mean over tasks. Expectation maximisation starts
from even weights and stops early: where methods predict alike, the weights stay near even.

References
----------
Yao, Vehtari, Simpson and Gelman (2018). Using stacking to average Bayesian predictive
distributions. Bayesian Analysis 13.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_stacking_weights", "stacking_weights"]

PRIOR_ROWS = 20.0
"""Rows that the prior of a task's weights is worth."""

NUM_ITERATIONS = 300

THINNING = 10
"""States of a chain from one draw to the next."""


def stacking_weights(
    log_density: Tensor,
    task: Tensor,
    num_tasks: int,
    *,
    sample_weight: Tensor | None = None,
    prior_mean: Tensor | None = None,
) -> Tensor:
    """Compute stacking weights of every task, (T, M), from log densities of rows, (rows, M).

    ``prior_mean`` is by default the mean of the weights over tasks; a task without rows has it.
    The result is on the CPU.

    Examples
    --------
    >>> stacking_weights(torch.tensor([[0.0, -9.0]] * 200), torch.zeros(200, dtype=int), 1).round()
    tensor([[1., 0.]])
    """
    density = _relative(log_density)
    rows = density.new_ones(len(task), 1) if sample_weight is None else sample_weight[:, None]
    rows_per_task = density.new_zeros(num_tasks, 1).index_add_(0, task, rows.to(density))
    weights = density.new_full((num_tasks, density.shape[1]), 1 / density.shape[1])
    mean = weights[0] if prior_mean is None else prior_mean.to(weights)
    for _ in range(NUM_ITERATIONS):
        responsibility = density * weights[task]
        responsibility = rows * responsibility / responsibility.sum(1, keepdim=True)
        sums = torch.zeros_like(weights).index_add_(0, task, responsibility)
        weights = (sums + PRIOR_ROWS * mean) / (rows_per_task + PRIOR_ROWS)
        mean = weights.mean(0) if prior_mean is None else mean
    return weights.cpu()


def draw_stacking_weights(
    log_density: Tensor,
    task: Tensor,
    start: Tensor,
    *,
    num_draws: int,
    sample_weight: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Draw stacking weights from their posterior, (num_draws, T, M), on the CPU.

    Gibbs sampling from ``start`` (T, M), every tenth state: each row belongs to a member in
    proportion to weight and density; the mean over tasks is drawn given how many of the rows are
    independent draws from it (Antoniak 1974), and weights given mean and rows.

    Examples
    --------
    >>> alike, task = torch.zeros(200, 2), torch.zeros(200, dtype=int)  # rows do not tell
    >>> draws = draw_stacking_weights(alike, task, torch.tensor([[0.5, 0.5]]), num_draws=100)
    >>> bool(draws[..., 0].std() > 0.05)
    True
    """
    generator = torch.Generator().manual_seed(seed)
    density, task = _relative(log_density).cpu(), task.cpu()
    rows = density.new_ones(len(task)) if sample_weight is None else sample_weight.to(density)
    weights, draws = start.to(density), []
    mean = weights.mean(0)
    size = weights.numel()
    for step in range(1, 1 + num_draws * THINNING):
        bounds = (density * weights[task]).cumsum(1)  # of torch.multinomial, ten times as fast
        drawn = torch.rand(len(task), 1, generator=generator) * bounds[:, -1:]
        cell, order = (task * len(mean) + (drawn > bounds[:, :-1]).sum(1)).sort()
        rank = torch.arange(len(cell)) - torch.searchsorted(cell, cell)
        prior = (PRIOR_ROWS * mean)[cell % len(mean)]
        independent = torch.rand(len(cell), generator=generator) < prior / (prior + rank)
        from_mean = torch.bincount(cell % len(mean), independent.double(), len(mean)).to(density)
        mean = _draw_dirichlet(from_mean + 1 / len(mean), generator)
        counts = torch.bincount(cell, rows[order], size).to(density).reshape(weights.shape)
        weights = _draw_dirichlet(counts + PRIOR_ROWS * mean, generator)
        if step % THINNING == 0:
            draws.append(weights)
    return torch.stack(draws)


def _draw_dirichlet(concentration: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from Dirichlet distributions (..., M); Pyro's takes no generator."""
    gamma = torch._standard_gamma(concentration.clamp_min(1e-3), generator=generator)
    return (gamma + 1e-30) / (gamma + 1e-30).sum(-1, keepdim=True)


def _relative(log_density: Tensor) -> Tensor:
    """Return densities of members relative to the largest of each row."""
    return (log_density - log_density.amax(1, keepdim=True)).exp()
