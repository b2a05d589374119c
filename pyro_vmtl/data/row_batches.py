"""Mini-batches: some rows of every task at each step, weighted so that the ELBO is unbiased."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_vmtl.data.arrays import check_positive
from pyro_vmtl.data.task_data import TaskData

__all__ = ["BalancedRows", "Batches", "RandomRows"]

Batches = Callable[[TaskData], tuple[TaskData, Tensor]]
"""Draws a batch and returns it with the weight of a row of each task, (T,)."""

SMALL_PART = 8
"""Where the longest task has this many times the rows of a batch, its rows are not shuffled."""


@dataclass(frozen=True)
class RandomRows:
    """Random rows of every task.

    Each row counts as (rows of the task) / (rows in the batch), so that the ELBO of a batch is an
    unbiased estimate of that of all rows.

    Parameters
    ----------
    num_rows
        Number of rows of each task; all of them where a task has fewer.
    max_total
        Maximum number of rows of all tasks together: with many tasks, fewer of each.

    Notes
    -----
    Rows are drawn without replacement. Where a batch is a small part of the longest task, it is
    stratified instead: each task is split into as many equal parts as the batch has rows, and one
    row is drawn from each, which needs no sorting of all rows. A row at the border of two parts can
    then be drawn twice.

    See Also
    --------
    BalancedRows : As many rows of every class.

    Examples
    --------
    >>> data = TaskData.regression(torch.zeros(12, 1), torch.zeros(12), ["a"] * 10 + ["b"] * 2)
    >>> batch, weight = RandomRows(4)(data)
    >>> batch.mask.sum(1).tolist(), weight.tolist()
    ([4, 2], [2.5, 1.0])
    """

    fixed_graph = True
    num_rows: int
    max_total: int | None = None

    def __post_init__(self) -> None:
        check_positive(num_rows=self.num_rows, max_total=self.max_total)

    def __call__(self, data: TaskData) -> tuple[TaskData, Tensor]:
        """Draw a batch, and the weight of a row of each task, (T,)."""
        size = min(self.num_rows, data.num_rows)
        if self.max_total is not None:
            size = max(1, min(size, self.max_total // data.num_tasks))
        if size * SMALL_PART < data.num_rows:
            return _stratified(data, size)
        index = _shuffled(data)[:, :size]
        mask = data.mask.gather(1, index)
        counts = torch.stack([data.mask.sum(1), mask.sum(1)]).to(data.x)
        return data.take(index, mask), counts[0] / counts[1].clamp(min=1)


@dataclass(frozen=True)
class BalancedRows:
    """As many rows of every class in every task, repeated where a class has fewer.

    The rows of a task together count as one, as in a loss that is a mean over rows. The authors'
    code of VMTL draws its batches this way.

    Parameters
    ----------
    num_per_class
        Number of rows of each class in each task.

    See Also
    --------
    RandomRows : Random rows, also for real targets.

    Examples
    --------
    >>> X, y = torch.zeros(5, 1), ["cat", "cat", "cat", "dog", "cat"]
    >>> data = TaskData.classification(X, y, ["home"] * 3 + ["zoo"] * 2)
    >>> batch, weight = BalancedRows(2)(data)
    >>> batch.y.tolist(), batch.mask.tolist()
    ([[0, 0, 0, 0], [0, 0, 1, 1]], [[True, True, False, False], [True, True, True, True]])
    >>> weight.tolist()
    [0.5, 0.25]
    """

    fixed_graph = True
    num_per_class: int

    def __post_init__(self) -> None:
        check_positive(num_per_class=self.num_per_class)

    def __call__(self, data: TaskData) -> tuple[TaskData, Tensor]:
        """Draw a batch, and the weight of a row of each task, (T,)."""
        if data.classes is None or data.y is None:
            raise ValueError("BalancedRows needs classes. Use RandomRows for real targets.")
        shuffled = _shuffled(data)
        labels = data.y.masked_fill(~data.mask, data.num_classes).gather(1, shuffled)
        by_class = shuffled.gather(1, labels.argsort(dim=1, stable=True))
        counts = labels.new_zeros(data.num_tasks, data.num_classes + 1)
        counts = counts.scatter_add(1, labels, torch.ones_like(labels))[:, :-1, None]
        starts = counts.cumsum(1) - counts
        place = torch.arange(self.num_per_class, device=labels.device) % counts.clamp(min=1)
        place = (starts + place).clamp(max=data.num_rows - 1).flatten(1)
        mask = (counts > 0).expand(-1, -1, self.num_per_class).flatten(1)
        index = by_class.gather(1, place)
        batch = data.take(index, mask)
        batch.y.masked_fill_(~mask, 0)  # type: ignore[union-attr]
        return batch, 1 / mask.sum(1).clamp(min=1).to(data.x)


def _shuffled(data: TaskData) -> Tensor:
    """Shuffle the positions of each task's rows, the padding last, (T, N)."""
    keys = torch.rand(data.mask.shape, device=data.x.device)
    return keys.masked_fill(~data.mask, 2.0).argsort(dim=1)


def _stratified(data: TaskData, size: int) -> tuple[TaskData, Tensor]:
    """Draw one row from each of ``size`` equal parts of every task, without sorting all rows.

    A row of a task with n rows is drawn size / n times on average, whatever the rounding: the
    positions (j + u) n / size with u uniform from 0 to 1 are uniform from 0 to n.
    """
    # Padding comes last, and a search is much faster than a sum over all rows.
    one = torch.ones(data.num_tasks, 1, dtype=torch.uint8, device=data.x.device)
    counts = torch.searchsorted((~data.mask).view(torch.uint8), one)  # (T, 1)
    part = torch.arange(size, device=data.x.device)
    place = part + torch.rand(data.num_tasks, size, dtype=torch.float64, device=data.x.device)
    index = (place * (counts.double() / size)).long().minimum(counts - 1).clamp(min=0)
    index = torch.where(counts > size, index, part.expand_as(index))
    mask = part < counts
    at = torch.arange(data.num_tasks, device=data.x.device)[:, None], index
    # Indexing copies entire rows, faster than `take`, which gathers every number.
    batch = data.map_rows(lambda values: values[at])
    batch = replace(batch, mask=mask, row=batch.row.masked_fill(~mask, -1))
    weight = (counts / mask.sum(1, keepdim=True).clamp(min=1)).squeeze(1)
    return batch, weight.to(data.x)
