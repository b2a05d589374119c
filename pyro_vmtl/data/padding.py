"""Where rows go when tasks are padded to the same length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Padding"]


@dataclass(frozen=True, eq=False)
class Padding:
    """The place of every row in (T, N): its task, and its position there.

    Attributes
    ----------
    task, position
        (rows,), the place of each row, rows in the order of their tasks.
    order
        (rows,), which row that is.
    shape
        T and N, the rows of the longest task.

    Examples
    --------
    >>> Padding.of(["a", "b", "a"], ["a", "b"]).pad(torch.tensor([1.0, 2.0, 3.0]))
    tensor([[1., 3.],
            [2., 0.]])
    """

    task: Tensor
    position: Tensor
    order: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, labels: Sequence[Hashable], task_labels: Sequence[Hashable]) -> Padding:
        """Find the places of rows.

        Parameters
        ----------
        labels
            (rows,), the task of each row.
        task_labels
            All tasks, in order.

        Raises
        ------
        ValueError
            If a label is none of them.
        """
        index = {label: t for t, label in enumerate(task_labels)}
        for row, label in enumerate(labels):
            if label not in index:
                raise ValueError(
                    f"tasks has {label!r} in row {row}, which is not among the tasks of the "
                    f"training rows, {list(task_labels)}."
                )
        task = torch.tensor([index[label] for label in labels])
        counts = torch.bincount(task, minlength=len(task_labels))
        order = torch.argsort(task, stable=True)
        starts = counts.cumsum(0) - counts
        task = task[order]
        position = torch.arange(len(order)) - starts[task]
        return cls(task, position, order, (len(task_labels), int(counts.max())))

    def pad(self, values: Tensor, fill: int = 0) -> Tensor:
        """Lay values (rows, ...) out as (T, N, ...)."""
        padded = values.new_full((*self.shape, *values.shape[1:]), fill)
        padded[self.task, self.position] = values[self.order]
        return padded
