"""Reading what users have: arrays, data frames, tensors and sparse matrices."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from pyro_vmtl.data.arrays import is_missing, read_labels
from pyro_vmtl.estimators.notices import DataNotice

__all__ = [
    "ALL",
    "as_array",
    "check_finite",
    "dense",
    "known_targets",
    "read_features",
    "read_row_weights",
    "read_targets",
    "read_tasks",
]

ALL = "all"
"""Label of the task that all rows are of where there are no labels."""


def as_array(values: Any) -> Any:
    """Make an array of a tensor; others stay as they are."""
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def read_features(estimator: BaseEstimator, X: Any, *, first: bool) -> Any:
    """Read features, and check them against those of the fit.

    Parameters
    ----------
    estimator
        It gets ``n_features_in_`` and ``feature_names_in_`` where this is the ``first`` time.
    X
        (rows, F), an array, data frame, tensor or sparse matrix.
    first
        Is this for a fit?

    Returns
    -------
    ndarray or sparse array
        (rows, F), float32 where it was, else float64.
    """
    _check_columns(X)
    return validate_data(
        estimator,
        as_array(X),
        reset=first,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        ensure_all_finite=False,  # checked below, with the names of tasks and columns
    )


def _check_columns(X: Any) -> None:
    """Name the columns of a data frame that are not numbers."""
    types = getattr(X, "dtypes", None)
    columns = getattr(X, "columns", None)
    if types is None or columns is None:
        return
    text = [
        str(column) for column, kind in zip(columns, types, strict=True) if not _is_number(kind)
    ]
    if text:
        raise ValueError(
            f"X has columns that are not numbers: {', '.join(map(repr, text))}. Make numbers of "
            "them first, with sklearn.compose.make_column_transformer and OneHotEncoder for "
            "example, or leave them out."
        )


def _is_number(kind: Any) -> bool:
    """Tell whether a data type of pandas or polars is one of numbers, or true and false."""
    if hasattr(kind, "is_numeric"):
        return bool(kind.is_numeric()) or str(kind) == "Boolean"
    return getattr(kind, "kind", "O") in ("b", "i", "u", "f")


def dense(X: Any, rows: slice | np.ndarray) -> np.ndarray:
    """Take some rows as an ordinary array."""
    part = X[rows]
    return part.toarray() if sparse.issparse(part) else np.asarray(part)


def check_finite(
    X: Any,
    tasks: Sequence[Hashable],
    names: Sequence[str] | None,
    rows: np.ndarray | None = None,
) -> None:
    """Check features, and name the row, column and task of the first that is not finite.

    Parameters
    ----------
    X
        (rows, F), an array or a sparse array.
    tasks
        (rows,), their tasks.
    names
        (F,), names of the columns.
    rows
        (rows,), which of the user's rows these are; by default all.

    Raises
    ------
    ValueError
        If there is one.
    """
    values = X.data if sparse.issparse(X) else X
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()  # needs no memory
    if np.isfinite(total) or np.isfinite(values).all():
        return
    bad = ~np.isfinite(X.toarray() if sparse.issparse(X) else X)
    row, column = (int(i) for i in np.argwhere(bad)[0])
    where = row if rows is None else rows[row]
    value = dense(X, slice(row, row + 1))[0, column]
    name = f"column {column}" if names is None else f"column {names[column]!r}"
    what = "NaN" if np.isnan(value) else "infinity"
    raise ValueError(
        f"X has {what} in row {where}, {name} (task {tasks[row]!r}), and {int(bad.sum()) - 1} more "
        "such values; expected finite numbers. Impute them first, with "
        "sklearn.impute.SimpleImputer for example, or drop the rows."
    )


def read_tasks(tasks: Any, num_rows: int, *, known: Sequence[Hashable] | None = None) -> list[Any]:
    """Read the task of every row.

    Parameters
    ----------
    tasks
        (rows,), labels of any hashable kind; None for one task.
    num_rows
        Rows that there are.
    known
        Tasks of the fit; None in a fit.

    Raises
    ------
    ValueError
        If there are not as many labels as rows, or none where they are needed.
    """
    if tasks is None:
        if known is not None and len(known) > 1:
            raise ValueError(
                f"tasks is missing, expected a label for each row: the fit has {len(known)} tasks."
            )
        return [ALL if known is None else known[0]] * num_rows
    if hasattr(tasks, "to_list"):
        tasks = tasks.to_list()
    elif isinstance(tasks, np.ndarray) and tasks.ndim == 2 and tasks.shape[1] == 1:
        tasks = tasks[:, 0]
    labels = read_labels(tasks, "tasks")
    if len(labels) != num_rows:
        raise ValueError(f"tasks has {len(labels)} rows, expected {num_rows} as in X.")
    return labels


def read_targets(y: Any, num_rows: int) -> np.ndarray:
    """Read targets.

    Parameters
    ----------
    y
        (rows,) or (rows, 1).
    num_rows
        Rows that there are.

    Raises
    ------
    ValueError
        If there are none, or not as many as rows.
    """
    if y is None:
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None: expected one target "
            "for each row of X."
        )
    values: np.ndarray = column_or_1d(as_array(y), warn=True)
    if len(values) != num_rows:
        raise ValueError(f"y has {len(values)} rows, expected {num_rows} as in X.")
    return values


def read_row_weights(sample_weight: Any, X: Any) -> np.ndarray | None:
    """Read weights of rows; None where all count alike.

    Raises
    ------
    ValueError
        If there are not as many as rows, or one is negative or not finite.
    """
    if sample_weight is None:
        return None
    given = as_array(sample_weight)
    weight: np.ndarray = _check_sample_weight(given, X, dtype=np.float64)
    if (weight < 0).any():
        row = int(np.argmin(weight))
        raise ValueError(
            f"sample_weight has {weight[row]} in row {row}, expected at least 0. To leave a row "
            "out, give it 0."
        )
    return weight


def known_targets(y: Any, tasks: Sequence[Hashable]) -> np.ndarray:
    """Find the rows whose target is known, and tell of others.

    Parameters
    ----------
    y
        (rows,), where None and NaN stand for a target that is not known.
    tasks
        (rows,), their tasks.

    Returns
    -------
    ndarray
        (rows,), is it known?

    Raises
    ------
    ValueError
        If none is.
    """
    if y.dtype.kind == "f":
        known = ~np.isnan(y)
    elif y.dtype == object:
        known = np.array([not is_missing(value) for value in y], dtype=bool)
    else:
        known = np.ones(len(y), dtype=bool)
    if known.all():
        return known
    if not known.any():
        raise ValueError("y has no target in any row (all are NaN or None), expected some.")
    where: dict[Hashable, int] = {}
    for row in np.flatnonzero(~known).tolist():
        where[tasks[row]] = where.get(tasks[row], 0) + 1
    left = {tasks[row] for row in np.flatnonzero(known).tolist()}
    some = ", ".join(f"{n} in task {label!r}" for label, n in list(where.items())[:5])
    more = f" and {len(where) - 5} tasks more" if len(where) > 5 else ""
    empty = [label for label in where if label not in left]
    tail = ""
    if empty:
        named = ", ".join(map(repr, empty[:5])) + (" and more" if len(empty) > 5 else "")
        tail = f" Without any target, {named} will be predicted as new tasks."
    warnings.warn(
        f"{int((~known).sum())} rows without a target are not used: {some}{more}.{tail}",
        DataNotice,
        stacklevel=4,
    )
    return known
