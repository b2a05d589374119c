"""Rows of all tasks as one task and back, and rows of one task as the last of several."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData

__all__ = ["as_last_task", "as_one_task", "split_one_task"]


def as_one_task(data: TaskData) -> TaskData:
    """Treat the rows of all tasks as one task, called ``"all"``.

    Examples
    --------
    >>> data = TaskData.regression([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], ["a", "a", "b"])
    >>> as_one_task(data)
    TaskData(1 tasks, 3 rows, at most 3 a task, 1 features, regression)
    """
    return replace(data.map_rows(lambda values: values[data.mask][None]), task_labels=("all",))


def split_one_task(values: Tensor, data: TaskData) -> Tensor:
    r"""Arrange values of the rows of :func:`as_one_task` by task again.

    Parameters
    ----------
    values
        (S, 1, rows, ...), in the order of ``as_one_task(data)``.
    data
        The rows by task, (T, N).

    Returns
    -------
    Tensor
        (S, T, N, ...), one where padded, as standard deviations and rates are above 0.
    """
    padded = values.new_ones(values.shape[0], *data.mask.shape, *values.shape[3:])
    padded[:, data.mask] = values[:, 0]
    return padded


def as_last_task(data: TaskData, num_others: int) -> TaskData:
    """Put the rows of one task after tasks that have no rows.

    Parameters
    ----------
    data
        Rows of one task, (1, N).
    num_others
        T, the number of tasks before it.

    Returns
    -------
    TaskData
        (T + 1, N), padded in all tasks but the last, which keeps its label. The others are called
        by their numbers.

    Examples
    --------
    >>> data = as_last_task(TaskData.regression([[1.0], [2.0]], [1.0, 2.0], ["b", "b"]), 1)
    >>> data.task_labels, data.row.tolist(), data.mask.tolist()
    ((0, 'b'), [[-1, -1], [0, 1]], [[False, False], [True, True]])
    """
    wide = data.map_rows(lambda v: torch.cat([v.new_zeros(num_others, *v.shape[1:]), v]))
    labels = (*range(num_others), *data.task_labels)
    return replace(wide, row=wide.row.masked_fill(~wide.mask, -1), task_labels=labels)
