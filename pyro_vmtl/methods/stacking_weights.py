"""How much each member of a stack counts."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["stacking_weights"]

PRIOR_ROWS = 20.0
"""Rows that the prior of a task's weights counts for."""

NUM_ITERATIONS = 300


def stacking_weights(
    log_density: Tensor,
    task: Tensor,
    num_tasks: int,
    *,
    sample_weight: Tensor | None = None,
    prior_mean: Tensor | None = None,
) -> Tensor:
    """Find weights of large held-out log density, by expectation maximisation from even ones.

    Parameters
    ----------
    log_density
        (rows, M), log predictive density of each row under each member, up to a constant per row.
    task
        (rows,), the task of each row, from 0 on.
    num_tasks
        T.
    sample_weight
        (rows,), how much each row counts; all 1 by default.
    prior_mean
        (M,), what the weights of tasks are drawn to; their mean by default.

    Returns
    -------
    Tensor
        (T, M), rows on the simplex. A task without rows has the mean weights.

    Examples
    --------
    >>> stacking_weights(torch.tensor([[0.0, -9.0]] * 200), torch.zeros(200, dtype=int), 1).round()
    tensor([[1., 0.]])
    """
    density = (log_density - log_density.amax(1, keepdim=True)).exp()
    rows = density.new_ones(len(task), 1) if sample_weight is None else sample_weight[:, None]
    counts = density.new_zeros(num_tasks, 1).index_add_(0, task, rows.to(density))
    weights = density.new_full((num_tasks, density.shape[1]), 1 / density.shape[1])
    mean = weights[0] if prior_mean is None else prior_mean.to(weights)
    for _ in range(NUM_ITERATIONS):
        responsibility = density * weights[task]
        responsibility = rows * responsibility / responsibility.sum(1, keepdim=True)
        sums = torch.zeros_like(weights).index_add_(0, task, responsibility)
        weights = (sums + PRIOR_ROWS * mean) / (counts + PRIOR_ROWS)
        mean = weights.mean(0) if prior_mean is None else mean
    return weights
