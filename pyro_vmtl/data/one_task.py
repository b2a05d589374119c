"""All rows as if they were of one task, and back."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from pyro_vmtl.data.task_data import TaskData

__all__ = ["as_one_task", "of_each_task"]


def as_one_task(data: TaskData) -> TaskData:
    """Lay the rows of all tasks out as one task, called ``"all"``.

    Examples
    --------
    >>> data = TaskData.regression([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], ["a", "a", "b"])
    >>> as_one_task(data)
    TaskData(1 tasks, 3 rows, at most 3 a task, 1 features, regression)
    """
    return replace(data.map_rows(lambda values: values[data.mask][None]), task_labels=("all",))


def of_each_task(values: Tensor, data: TaskData) -> Tensor:
    r"""Take values of the one task back to the tasks.

    Parameters
    ----------
    values
        (S, 1, rows, ...), as :func:`as_one_task` lays rows out.
    data
        The rows by tasks, (T, N).

    Returns
    -------
    Tensor
        (S, T, N, ...), one where padded, as standard deviations and rates are above 0.
    """
    padded = values.new_ones(values.shape[0], *data.mask.shape, *values.shape[3:])
    padded[:, data.mask] = values[:, 0]
    return padded
