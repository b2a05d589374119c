"""Validation of targets that are counts."""

from __future__ import annotations

from torch import Tensor

from pyro_vmtl.data.task_data import TaskData

__all__ = ["check_counts"]


def check_counts(data: TaskData) -> Tensor:
    """Return the targets of training rows, (T, N), after checking that they are counts."""
    if data.y is None:
        raise ValueError("The rows have no targets, expected training rows.")
    if data.classes is not None:
        raise ValueError(
            f"The targets are classes, {list(data.classes)}, expected counts. Make the rows by "
            "`TaskData.regression`, or choose a preset for classes."
        )
    wrong = data.mask & ((data.y < 0) | (data.y != data.y.round()))
    if wrong.any():
        task, place = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"y is {data.y[task, place].item():g} in row {data.row[task, place].item()}, task "
            f"{data.task_labels[task]!r}, expected counts: whole numbers from 0. For real targets "
            "choose the likelihood 'Normal'."
        )
    return data.y
