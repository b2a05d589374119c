"""Validation of features, tasks, targets and sample weights, with errors that name the row."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from pyro_vmtl.data.arrays import read_labels
from pyro_vmtl.estimators.notices import DataNotice

__all__ = [
    "ALL",
    "check_finite",
    "find_known_targets",
    "join_some",
    "read_features",
    "read_sample_weight",
    "read_targets",
    "read_tasks",
    "to_dense",
]

ALL = "all"
"""Label of the single task if the user passes no labels."""

MOST_NAMES = 5
"""Labels listed in a message."""


def read_features(estimator: BaseEstimator, X: Any, *, reset: bool) -> Any:
    """Return features as a float array or sparse array, by scikit-learn's ``validate_data``.

    ``reset`` says whether to set ``n_features_in_`` and ``feature_names_in_`` of the estimator, as
    in ``fit``, or to compare with them.
    """
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
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def to_dense(X: Any, rows: slice | np.ndarray) -> np.ndarray:
    """Return rows of an array or sparse array as an array."""
    part = X[rows]
    return part.toarray() if sparse.issparse(part) else np.asarray(part)


def check_finite(
    X: Any, tasks: Sequence[Hashable], names: Sequence[str] | None, index: np.ndarray | None = None
) -> None:
    """Raise an error that names the row, column and task of the first value that is not finite.

    ``index`` holds the positions of the rows in the user's arrays; by default 0, 1, ....
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
        f"X has {'NaN' if np.isnan(X[row, column]) else 'infinity'} in row "
        f"{row if index is None else index[row]}, column "
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


def read_sample_weight(sample_weight: Any, X: Any) -> np.ndarray | None:
    """Return sample weights, (rows,), or None if all rows count alike."""
    if sample_weight is None:
        return None
    weight: np.ndarray = _check_sample_weight(_to_numpy(sample_weight), X, dtype=np.float64)
    if (weight < 0).any():
        row = int(np.argmin(weight))
        raise ValueError(
            f"sample_weight has {weight[row]} in row {row}, expected at least 0. Pass 0 to leave a "
            "row out."
        )
    return weight


def find_known_targets(y: np.ndarray, tasks: Sequence[Hashable]) -> np.ndarray:
    """Return which targets are known, (rows,), and warn about the others: None, NaN and NA."""
    known: np.ndarray = ~pd.isna(y)
    if known.all():
        return known
    if not known.any():
        raise ValueError("y has no target in any row (all are NaN or None), expected some.")
    unknown = Counter(task for task, there in zip(tasks, known.tolist(), strict=True) if not there)
    labelled = {task for task, there in zip(tasks, known.tolist(), strict=True) if there}
    where = join_some(f"{count} in task {task!r}" for task, count in unknown.items())
    message = f"{unknown.total()} rows without a target are not used: {where}."
    unlabelled = [repr(task) for task in unknown if task not in labelled]
    if unlabelled:
        message += f" Without any target, {join_some(unlabelled)} will be predicted as new tasks."
    warnings.warn(message, DataNotice, stacklevel=4)
    return known


def join_some(items: Iterable[str]) -> str:
    """Join the first items of a list, and say how many follow.

    Examples
    --------
    >>> join_some("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    items = list(items)
    rest = len(items) - MOST_NAMES
    return ", ".join(items[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
