"""The user's rows as training data: those that can be used, in an order of their own, padded."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_batches
from torch import Tensor

from pyro_vmtl.data.padding import pad_arrays
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.estimators.exceptions import DataWarning
from pyro_vmtl.estimators.reading import (
    check_finite,
    find_known_targets,
    join_some,
    read_features,
    read_sample_weight,
    read_targets,
    read_tasks,
)

__all__ = [
    "Rows",
    "canonical_order",
    "index_tasks",
    "limit_rows",
    "positions_in_tasks",
    "read_rows",
    "to_task_data",
    "unpack_rows",
]

MAX_PADDED = 250_000_000
"""Numbers in padded rows, 1 GB: with tasks of very unequal sizes nearly all of them are padding."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows whose target is known and whose weight is above 0."""

    X: Any  # (rows, F)
    y: np.ndarray  # (rows,)
    tasks: list[Any]  # (rows,)
    weight: np.ndarray | None  # (rows,); None if all rows count alike
    index: np.ndarray  # (rows,), positions in the user's arrays


def read_rows(
    estimator: Any,
    X: Any,
    y: Any,
    tasks: Any,
    sample_weight: Any = None,
    *,
    reset: bool = False,
    limit: bool = False,
) -> Rows:
    """Validate rows with targets as ``fit`` does, and select those that can be used.

    ``reset`` says whether these are the rows of a new fit, and ``limit`` whether to subsample very
    long tasks by :func:`limit_rows`.
    """
    X = read_features(estimator, X, reset=reset)
    tasks = read_tasks(tasks, X.shape[0], known=None if reset else list(estimator._sizes))
    weight = read_sample_weight(sample_weight, X)
    y = read_targets(y, X.shape[0])
    used = find_known_targets(y, tasks)
    if weight is not None:
        used &= weight > 0
    index = np.flatnonzero(used)
    if limit:
        index = limit_rows(tasks, index, X.shape[1], seed=estimator.random_state)
    if len(index) < X.shape[0]:
        X, y, tasks = X[index], y[index], [tasks[row] for row in index.tolist()]
        weight = None if weight is None else weight[index]
    check_finite(X, tasks, getattr(estimator, "feature_names_in_", None), index)
    return Rows(X, y, tasks, weight, index)


def limit_rows(
    tasks: Sequence[Hashable], index: np.ndarray, num_features: int, *, seed: int
) -> np.ndarray:
    """Subsample the longest tasks if padding all tasks to their length would not fit into memory.

    Take and return indices of rows in ascending order.
    """
    task, labels = index_tasks([tasks[row] for row in index.tolist()])
    counts = np.bincount(task)
    most = max(MAX_PADDED // (len(labels) * (num_features + 1)), 2 * len(index) // len(labels), 1)
    if counts.max() <= most:
        return index
    long = [f"{labels[t]!r} ({counts[t]})" for t in np.flatnonzero(counts > most).tolist()]
    warnings.warn(
        f"{most} rows, drawn at random, are used of each of {len(long)} long tasks, as all tasks "
        f"are padded to the longest: {join_some(long)}.",
        DataWarning,
        stacklevel=4,
    )
    order = np.random.RandomState(seed).permutation(len(index))
    order = order[np.argsort(task[order], kind="stable")]
    return np.sort(index[order[positions_in_tasks(task[order]) < most]])


def index_tasks(labels: Sequence[Hashable]) -> tuple[np.ndarray, list[Hashable]]:
    """Return the index of every row's task, and the tasks in order of appearance."""
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(label, len(index)) for label in labels]), list(index)


def positions_in_tasks(task: np.ndarray) -> np.ndarray:
    """Number the rows of every task from 0.

    Examples
    --------
    >>> positions_in_tasks(np.array([0, 0, 2, 2, 2])).tolist()
    [0, 1, 0, 1, 2]
    """
    counts = np.bincount(task)
    return np.arange(len(task)) - (np.cumsum(counts) - counts)[task]


def canonical_order(
    x: Tensor, targets: Tensor, labels: Sequence[Hashable], weight: np.ndarray | None = None
) -> tuple[np.ndarray, dict[Hashable, int]]:
    """Order tasks and rows by their content, not by their labels or positions.

    Random numbers belong to positions, so that in this order a fit does not change if rows are
    permuted or tasks renamed. Return the order of the rows, and the number of rows of each task,
    tasks with the largest weight first.
    """
    task, known = index_tasks(labels)
    direction = torch.from_numpy(np.random.RandomState(0).normal(size=x.shape[1] + 1))
    key = torch.empty(len(x), dtype=torch.float64)
    for rows in gen_batches(len(x), 50_000):
        key[rows] = x[rows].double() @ direction[1:] + targets[rows].double() * direction[0]
    of_row = key.numpy()
    order = np.lexsort((of_row, task))
    counts = np.bincount(task)
    starts = np.cumsum(counts) - counts
    each = np.ones(len(task)) if weight is None else weight
    total, sums = (np.add.reduceat(v[order], starts) for v in (each, each * of_row))
    tasks = np.lexsort((sums / total, -total))
    rank = np.argsort(tasks)
    return np.lexsort((of_row, rank[task])), {known[t]: int(counts[t]) for t in tasks}


def to_task_data(
    x: Tensor,
    targets: Tensor | None,
    labels: Sequence[Hashable],
    task_labels: Sequence[Hashable],
    classes: tuple[Hashable, ...] | None,
    weight: np.ndarray | None = None,
) -> TaskData:
    """Pad rows of standardized features and encoded targets, and add an intercept.

    ``labels`` are the tasks of the rows, ``task_labels`` the T tasks in the order of the fit.
    """
    arrays = pad_arrays(x, targets, labels, task_labels=tuple(task_labels), sample_weight=weight)
    return TaskData(**arrays, classes=classes).with_intercept()


def unpack_rows(rows: Any, name: str) -> tuple[Any, Any, Any]:
    """Return rows given as (X, y) or (X, y, tasks) as three."""
    if not isinstance(rows, tuple | list) or len(rows) not in (2, 3):
        raise ValueError(f"{name} is expected as (X, y, tasks).")
    X, y, tasks = (*rows, None)[:3]
    return X, y, tasks
