"""Rows of many tasks as padded arrays (T, N, ...): task, row within the task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vmtl.data.arrays import check_finite, label_index, read_labels, read_real, read_weights
from pyro_vmtl.data.columns import read_columns

__all__ = ["pad_arrays"]


def pad_arrays(
    X: Any,
    targets: Tensor | None,
    tasks: Sequence[Hashable] | np.ndarray,
    *,
    task_labels: tuple[Hashable, ...] | None = None,
    sample_weight: Any = None,
    columns: Any = None,
) -> dict[str, Any]:
    """Validate the user's arrays, and pad them to the tensors of a ``TaskData``.

    ``targets`` are class indices or real values. ``task_labels`` are all tasks, in order; None for
    those in ``tasks``, in order of first appearance. Columns repeat a row where padded, so that
    programs can compute with it: of an exposure of 0 they might take the logarithm.
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
    message = "tasks has {!r} in row {}, which is not among the tasks of the training rows, {}."
    task = label_index(labels, task_labels, message)
    counts = torch.bincount(task, minlength=len(task_labels))
    order = torch.argsort(task, stable=True)
    starts = counts.cumsum(0) - counts
    task = task[order]
    place = task, torch.arange(len(order)) - starts[task]
    shape = len(task_labels), int(counts.max())

    def pad(values: Tensor, fill: int = 0) -> Tensor:
        padded = values.new_full((*shape, *values.shape[1:]), fill)
        padded[place] = values[order]
        return padded

    row = pad(torch.arange(len(x)), -1).to(x.device)
    further = {
        name: values.to(x if values.is_floating_point() else x.device)[row.clamp(min=0)]
        for name, values in read_columns(columns, labels).items()
    }
    if targets is not None:
        targets = targets.to(x if targets.is_floating_point() else x.device)
    return {
        "x": pad(x),
        "y": None if targets is None else pad(targets),
        "mask": row >= 0,
        "row": row,
        "task_labels": task_labels,
        "weight": None if weight is None else pad(weight.to(x)),
        "columns": further,
    }
