"""Rows of all tasks as one task and back, and rows of one task as the last of several."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData

__all__ = ["POOLED", "as_last_task", "as_one_task", "split_one_task"]


POOLED = "all"
"""Label of the one task that :func:`as_one_task` makes."""


def as_one_task(data: TaskData) -> TaskData:
    """Treat the rows of all tasks as one task, called ``"all"``.

    Examples
    --------
    >>> data = TaskData.regression([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], ["a", "a", "b"])
    >>> as_one_task(data)
    TaskData(1 tasks, 3 rows, at most 3 a task, 1 features, regression)
    """
    return replace(data.map_rows(lambda values: values[data.mask][None]), task_labels=(POOLED,))


def split_one_task(values: Tensor, data: TaskData) -> Tensor:
    """Arrange values of ``as_one_task(data)``, (S, 1, rows, ...), by task again, (S, T, N, ...).

    They are 1 where padded, as standard deviations and rates are above 0.
    """
    padded = values.new_ones(values.shape[0], *data.mask.shape, *values.shape[3:])
    padded[:, data.mask] = values[:, 0]
    return padded


def as_last_task(data: TaskData, num_others: int) -> TaskData:
    """Put the rows of one task, (1, N), after other tasks without rows, (``num_others`` + 1, N).

    The task keeps its label, and the others are called by their numbers.
    """
    wide = data.map_rows(lambda v: torch.cat([v.new_zeros(num_others, *v.shape[1:]), v]))
    labels = (*range(num_others), *data.task_labels)
    columns = {n: v.expand(len(labels), *v.shape[1:]) for n, v in data.columns.items()}  # as padded
    row = wide.row.masked_fill(~wide.mask, -1)
    return replace(wide, row=row, task_labels=labels, columns=columns)
