"""The user's rows as training data: validated, with errors that name the row, and padded."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.utils import column_or_1d, gen_batches
from sklearn.utils.validation import _check_sample_weight, validate_data
from torch import Tensor

from pyro_vmtl.data.arrays import read_labels, read_weights
from pyro_vmtl.data.columns import check_columns, read_columns
from pyro_vmtl.data.padding import pad_arrays
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.estimators.exceptions import DataWarning

__all__ = [
    "Rows",
    "canonical_order",
    "check_finite",
    "join_some",
    "limit_rows",
    "positions_in_tasks",
    "read_features",
    "read_known_rows",
    "read_rows",
    "read_targets",
    "read_tasks",
    "to_dense",
    "to_task_data",
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
    columns: dict[str, Tensor]  # (rows, ...) each


def read_rows(
    estimator: Any,
    X: Any,
    y: Any,
    tasks: Any = None,
    sample_weight: Any = None,
    columns: Any = None,
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
    weight = None
    if sample_weight is not None:
        weight = _check_sample_weight(_to_numpy(sample_weight), X, dtype=np.float64)
        weight = read_weights(torch.from_numpy(weight)).numpy()
    further = read_columns(columns, tasks)
    if not reset:
        check_columns(further, estimator._columns)
    y = read_targets(y, X.shape[0])
    used = _find_known_targets(y, tasks)
    if weight is not None:
        used &= weight > 0
    index = np.flatnonzero(used)
    if limit:
        index = limit_rows(tasks, index, X.shape[1], seed=estimator.random_state)
    if len(index) < X.shape[0]:
        X, y, tasks = X[index], y[index], [tasks[row] for row in index.tolist()]
        weight = None if weight is None else weight[index]
        further = {name: values[index] for name, values in further.items()}
    check_finite(X, tasks, getattr(estimator, "feature_names_in_", None), index)
    return Rows(X, y, tasks, weight, index, further)


def read_known_rows(estimator: Any, rows: Sequence[Any], name: str) -> Rows:
    """Read rows (X, y, tasks, sample_weight, columns) of tasks of the fit, subsampled as there."""
    if not isinstance(rows, tuple | list) or not 2 <= len(rows) <= 5:
        raise ValueError(
            f"{name} is expected as (X, y, tasks), or (X, y, tasks, sample_weight, columns)."
        )
    found = read_rows(estimator, *rows, limit=True)
    new = [task for task in found.tasks if task not in estimator._sizes]
    if new:
        raise ValueError(
            f"{name} has rows of task {new[0]!r}, which is not in the fit. Leave them out, or add "
            "the task with `add_task`."
        )
    return found


def read_features(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Return features as a float array or sparse array, by scikit-learn's ``validate_data``."""
    if hasattr(X, "dtypes") and hasattr(X, "columns"):
        text = [str(c) for c, kind in zip(X.columns, X.dtypes, strict=True) if not _is_number(kind)]
        if text:
            raise ValueError(
                f"X has columns that are not numbers: {', '.join(map(repr, text))}. Encode them "
                "first, for example with sklearn.compose.make_column_transformer and "
                "OneHotEncoder, or drop them."
            )
    return validate_data(
        estimator,
        _to_numpy(X),
        reset=reset,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,  # `check_finite` names the task, too
    )


def _is_number(dtype: Any) -> bool:
    """Return whether a dtype of pandas or polars is numeric or boolean."""
    if hasattr(dtype, "is_numeric"):
        return bool(dtype.is_numeric()) or str(dtype) == "Boolean"
    return getattr(dtype, "kind", "O") in ("b", "i", "u", "f")


def _to_numpy(values: Any) -> Any:
    """Convert a tensor to an array, and return other values unchanged."""
    if not isinstance(values, Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def to_dense(X: Any, rows: slice) -> np.ndarray:
    """Return rows of an array or sparse array as an array."""
    part = X[rows]
    return part.toarray() if sparse.issparse(part) else np.asarray(part)


def check_finite(
    X: Any, tasks: Sequence[Hashable], names: Sequence[str] | None, index: Any
) -> None:
    """Raise an error that names the row, column and task of the first value that is not finite.

    ``index`` holds the positions of the rows in the user's arrays.
    """
    values = X.data if sparse.issparse(X) else X
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()  # unlike a mask it needs no memory
    if np.isfinite(total) or np.isfinite(values).all():
        return
    X = to_dense(X, slice(None))
    bad = np.argwhere(~np.isfinite(X))
    row, column = bad[0].tolist()
    raise ValueError(
        f"X has {'NaN' if np.isnan(X[row, column]) else 'infinity'} in row {index[row]}, column "
        f"{column if names is None else repr(names[column])} (task {tasks[row]!r}), and "
        f"{len(bad) - 1} more such values; expected finite numbers. Impute them first, for example "
        "with sklearn.impute.SimpleImputer, or drop the rows."
    )


def read_tasks(tasks: Any, num_rows: int, *, known: Sequence[Hashable] | None = None) -> list[Any]:
    """Return the task label of every row as a plain Python object.

    ``tasks`` may be None while fitting (``known`` is None), or if the fit has one task only.
    """
    if tasks is None:
        if known is not None and len(known) > 1:
            raise ValueError(
                f"tasks is missing, expected a label for each row: the fit has {len(known)} tasks."
            )
        return ["all" if known is None else known[0]] * num_rows
    if hasattr(tasks, "to_list"):
        tasks = tasks.to_list()
    elif isinstance(tasks, np.ndarray) and tasks.ndim == 2 and tasks.shape[1] == 1:
        tasks = tasks[:, 0]
    labels = read_labels(tasks, "tasks")
    if len(labels) != num_rows:
        raise ValueError(f"tasks has {len(labels)} rows, expected {num_rows} as in X.")
    return labels


def read_targets(y: Any, num_rows: int) -> np.ndarray:
    """Return targets as an array of shape (rows,)."""
    if y is None:
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None: expected one target "
            "for each row of X."
        )
    values: np.ndarray = column_or_1d(_to_numpy(y), warn=True)
    if len(values) != num_rows:
        raise ValueError(f"y has {len(values)} rows, expected {num_rows} as in X.")
    return values


def _find_known_targets(y: np.ndarray, tasks: Sequence[Hashable]) -> np.ndarray:
    """Return which targets are known, (rows,), and warn about the others: None, NaN and NA."""
    known: np.ndarray = ~pd.isna(y)
    if known.all():
        return known
    if not known.any():
        raise ValueError("y has no target in any row (all are NaN or None), expected some.")
    unknown = Counter(tasks[row] for row in np.flatnonzero(~known).tolist())
    labelled = {tasks[row] for row in np.flatnonzero(known).tolist()}
    where = join_some(f"{count} in task {task!r}" for task, count in unknown.items())
    message = f"{unknown.total()} rows without a target are not used: {where}."
    unlabelled = [repr(task) for task in unknown if task not in labelled]
    if unlabelled:
        message += f" Without any target, {join_some(unlabelled)} will be predicted as new tasks."
    warnings.warn(message, DataWarning, stacklevel=4)
    return known


def limit_rows(
    tasks: Sequence[Hashable], index: np.ndarray, num_features: int, *, seed: int
) -> np.ndarray:
    """Subsample the longest tasks if padding all tasks to their length would not fit into memory.

    Take and return indices of rows in ascending order.
    """
    task, labels = _index_tasks([tasks[row] for row in index.tolist()])
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
    return np.sort(index[order[positions_in_tasks(task[order]) < most]])


def _index_tasks(labels: Sequence[Hashable]) -> tuple[np.ndarray, list[Hashable]]:
    """Return the index of every row's task, and the tasks in order of appearance."""
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(label, len(index)) for label in labels]), list(index)


def positions_in_tasks(task: np.ndarray) -> np.ndarray:
    """Number the rows of every task from 0."""
    return pd.Series(task).groupby(task).cumcount().to_numpy()


def canonical_order(
    x: Tensor, targets: Tensor, labels: Sequence[Hashable], weight: np.ndarray | None = None
) -> tuple[np.ndarray, dict[Hashable, int]]:
    """Order tasks and rows by their content, not by their labels or positions.

    Random numbers belong to positions, so that in this order a fit does not change if rows are
    permuted or tasks renamed. Return the order of the rows, and the number of rows of each task,
    tasks with the largest weight first.
    """
    task, known = _index_tasks(labels)
    direction = torch.from_numpy(np.random.RandomState(0).normal(size=x.shape[1] + 1))
    key = torch.empty(len(x), dtype=torch.float64)
    for rows in gen_batches(len(x), 50_000):
        key[rows] = x[rows].double() @ direction[1:] + targets[rows].double() * direction[0]
    of_row = key.numpy()
    order = np.lexsort((of_row, task))
    each = np.ones(len(task)) if weight is None else weight
    total, sums = (np.bincount(task[order], v[order]) for v in (each, each * of_row))
    tasks = np.lexsort((sums / total, -total))
    order = np.lexsort((of_row, np.argsort(tasks)[task]))
    counts = np.bincount(task)
    return order, {known[t]: int(counts[t]) for t in tasks}


def to_task_data(
    x: Tensor,
    targets: Tensor | None,
    labels: Sequence[Hashable],
    task_labels: Sequence[Hashable],
    classes: tuple[Hashable, ...] | None,
    weight: np.ndarray | None = None,
    columns: Mapping[str, Tensor] | None = None,
) -> TaskData:
    """Pad rows of standardized features and encoded targets, and add an intercept.

    ``labels`` are the tasks of the rows, ``task_labels`` the T tasks in the order of the fit.
    """
    more = {"sample_weight": weight, "columns": columns}
    arrays = pad_arrays(x, targets, labels, task_labels=tuple(task_labels), **more)
    return TaskData(**arrays, classes=classes).with_intercept()


def join_some(items: Iterable[str], limit: int = 5) -> str:
    """Join the first items of a list, and say how many follow.

    Examples
    --------
    >>> join_some("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    items = list(items)
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
