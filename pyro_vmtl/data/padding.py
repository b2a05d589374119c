"""Rows of many tasks as padded arrays (T, N, ...): task, row within the task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vmtl.data.arrays import check_finite, read_labels, read_real, read_weights

__all__ = ["Padding", "pad_arrays"]


@dataclass(frozen=True, eq=False)
class Padding:
    """The place of every row in (T, N): its task, and its position there.

    Attributes
    ----------
    task, position
        (rows,), the place of each row, rows sorted by task.
    order
        (rows,), the index of each of these rows in the user's arrays.
    shape
        T and N, the number of rows of the longest task.

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
        """Compute the places of rows.

        Parameters
        ----------
        labels
            (rows,), the task of each row.
        task_labels
            All tasks, in order.

        Raises
        ------
        ValueError
            If a label is not among the tasks.
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
        """Arrange values (rows, ...) as (T, N, ...)."""
        padded = values.new_full((*self.shape, *values.shape[1:]), fill)
        padded[self.task, self.position] = values[self.order]
        return padded


def pad_arrays(
    X: Any,
    targets: Tensor | None,
    tasks: Sequence[Hashable] | np.ndarray,
    *,
    task_labels: tuple[Hashable, ...] | None = None,
    sample_weight: Any = None,
) -> dict[str, Any]:
    """Validate the user's arrays and pad them.

    Parameters
    ----------
    X
        (rows, F), features.
    targets
        (rows,), class indices or real values; None where they are not known.
    tasks
        (rows,), task labels.
    task_labels
        All tasks, in order; by default those in ``tasks``, in order of first appearance.
    sample_weight
        (rows,), the weight of each row; None for no weights.

    Returns
    -------
    dict
        The attributes ``x``, ``y``, ``mask``, ``row``, ``task_labels`` and ``weight`` of a
        :class:`~pyro_vmtl.TaskData`.

    Raises
    ------
    ValueError
        If lengths disagree, there are no rows or columns, or a value is not finite.
    """
    x = read_real(X, "X", ndim=2)
    labels = read_labels(tasks, "tasks")
    weight = None if sample_weight is None else read_weights(sample_weight)
    for name, values in (("tasks", labels), ("y", targets), ("sample_weight", weight)):
        if values is not None and len(values) != len(x):
            raise ValueError(f"{name} has {len(values)} rows, expected {len(x)} as in X.")
    if not len(x):
        raise ValueError("X has no rows, expected at least one.")
    if not x.shape[1]:
        raise ValueError("X has no columns, expected at least one feature.")
    check_finite(x, labels, "X")

    if task_labels is None:
        task_labels = tuple(dict.fromkeys(labels))
    padding = Padding.of(labels, task_labels)
    row = padding.pad(torch.arange(len(x)), -1).to(x.device)
    if targets is not None:
        targets = targets.to(x if targets.is_floating_point() else x.device)
    return {
        "x": padding.pad(x),
        "y": None if targets is None else padding.pad(targets),
        "mask": row >= 0,
        "row": row,
        "task_labels": task_labels,
        "weight": None if weight is None else padding.pad(weight.to(x)),
    }
