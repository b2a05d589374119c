"""The rows of a split as task data."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.datasets import Split

__all__ = ["standardized", "to_task_data"]


def standardized(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return real targets of training and test rows, in units of the training rows' deviation."""
    center, unit = split.y_train.mean(), split.y_train.std()
    return (split.y_train - center) / unit, (split.y_test - center) / unit


def to_task_data(
    split: Split,
    kind: Literal["classification", "regression", "counts"],
    *,
    intercept: bool = True,
) -> tuple[TaskData, TaskData]:
    """Return training and test rows; real targets are standardized.

    Parameters
    ----------
    split
        Rows of a data set.
    kind
        What the targets are.
    intercept
        Whether to add a feature that is constant 1.
    """
    y_train, y_test = standardized(split) if kind == "regression" else (split.y_train, split.y_test)
    make = TaskData.classification if kind == "classification" else TaskData.regression
    data = make(split.X_train, y_train, split.tasks_train)
    if intercept:
        data = data.with_intercept()
    return data, data.new_rows(split.X_test, split.tasks_test, y_test)
