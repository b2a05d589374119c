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

__all__ = ["stacking_weights"]

PRIOR_ROWS = 20.0
"""Rows that the prior of a task's weights is worth."""

NUM_ITERATIONS = 300


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
    density = (log_density - log_density.amax(1, keepdim=True)).exp()
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
