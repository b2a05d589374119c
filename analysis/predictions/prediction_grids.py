"""Predictions on a grid of inputs, for pictures of what a task has learned."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from pyro_vmtl.analysis.export.predictive_split import predictive_split

__all__ = ["decision_grid", "regression_grid", "rows_of"]

MARGIN = 0.12
"""Of the range of the rows, on every side: what is said beyond them is a part of the picture."""

Predict = Callable[[np.ndarray, list[Hashable]], Any]


def decision_grid(predict: Any, X: Any, *, task: Hashable, num: int = 100) -> xr.Dataset:
    """Predict the classes of a task on a grid over its two features.

    Parameters
    ----------
    predict
        A fitted :class:`~pyro_vmtl.VMTLClassifier`, whatever has ``predict_proba(X, tasks=...)``,
        such as a pipeline that ends in one, or a function ``(X, tasks)`` that gives probabilities:
        (rows, C), or those of each draw from a posterior, (S, rows, C).
    X
        (rows, 2), rows that the grid goes around, such as those of the fit. Columns of a data
        frame give the features' names.
    task
        The task to predict for.
    num
        Points along each feature.

    Returns
    -------
    Dataset
        ``proba`` (x0, x1, class), ``label`` (x0, x1), the most probable class, and ``entropy``
        (x0, x1) in nats. Where there are draws, it is split into ``mutual_information``, what more
        rows could remove, and ``expected_entropy``, what they could not. Attributes ``task``,
        ``features``.

    Raises
    ------
    ValueError
        If ``X`` has another number of features than two.

    Examples
    --------
    >>> draws = np.array([0.2, 0.9])[:, None, None]  # two draws that do not agree
    >>> def predict(X, tasks):
    ...     return np.concatenate([1 - draws, draws], axis=-1).repeat(len(X), axis=1)
    >>> grid = decision_grid(predict, [[0.0, 0.0], [1.0, 2.0]], task="Ada", num=5)
    >>> dict(grid["proba"].sizes), round(float(grid["mutual_information"].mean()), 3)
    ({'x0': 5, 'x1': 5, 'class': 2}, 0.275)
    """
    values, names, lay_out = _features(X, 2)
    x0, x1 = (_around(column, num) for column in values.T)
    points = np.stack(np.meshgrid(x0, x1, indexing="ij"), axis=-1).reshape(-1, 2)
    found = predictive_split(predict, lay_out(points), [task] * len(points))
    if "proba" not in found:
        raise ValueError(
            f"predict gives {sorted(map(str, found.data_vars))}, expected probabilities of "
            "classes. For real targets use regression_grid."
        )
    shape, num_each = ("x0", "x1"), (len(x0), len(x1))
    grid = xr.Dataset(
        {
            name: ((*shape, *value.dims[1:]), value.values.reshape(*num_each, *value.shape[1:]))
            for name, value in found.data_vars.items()
        },
        coords={"x0": x0, "x1": x1, "class": found["class"].values},
        attrs={"task": task, "features": names},
    )
    best = grid["proba"].values.argmax(-1)
    return grid.assign(label=(("x0", "x1"), found["class"].values[best]))


def regression_grid(predict: Any, X: Any, *, task: Hashable, num: int = 200) -> xr.Dataset:
    """Predict the real targets of a task along its one feature.

    Parameters
    ----------
    predict
        A fitted :class:`~pyro_vmtl.VMTLRegressor`, or a pipeline that ends in one.
    X
        (rows, 1), rows that the grid goes around, such as those of the fit. The column of a data
        frame gives the feature's name.
    task
        The task to predict for.
    num
        Points along the feature.

    Returns
    -------
    Dataset
        Along ``x0``, in the unit of the targets: ``mean`` and ``std`` of a new target,
        ``quantile`` (x0, probability) with 5, 25, 75 and 95 %, and ``epistemic_std`` and
        ``aleatoric_std``, what more rows could remove and what they could not. Attributes
        ``task``, ``features``.

    Raises
    ------
    ValueError
        If ``X`` has another number of features than one.
    """
    values, names, lay_out = _features(X, 1)
    x0 = _around(values[:, 0], num)
    found = predictive_split(predict, lay_out(x0[:, None]), [task] * num)
    if "mean" not in found:
        raise ValueError(
            f"predict gives {sorted(map(str, found.data_vars))}, expected means of real targets. "
            "For classes use decision_grid."
        )
    return found.rename(row="x0").assign_coords(x0=x0).assign_attrs(task=task, features=names)


def rows_of(
    rows: Sequence[Any], task: Any, *, num_features: int
) -> tuple[np.ndarray, list[Any], np.ndarray]:
    """Read rows to lay on top of a picture, and which of them are of its task.

    Parameters
    ----------
    rows
        ``(X, y, tasks)``, or ``(X, y)`` where all are of this task.
    task
        That of the picture.
    num_features
        F.

    Returns
    -------
    tuple
        Features (rows, F), targets, and whether each is of this task, (rows,).
    """
    if not isinstance(rows, tuple | list) or len(rows) not in (2, 3):
        raise ValueError("rows is expected as (X, y, tasks), or (X, y) where all are of this task.")
    X, _, _ = _features(rows[0], num_features)
    y = list(rows[1])
    own = np.ones(len(y), dtype=bool)
    if len(rows) == 3:
        own = np.array([label == task for label in rows[2]], dtype=bool)
    if not len(X) == len(y) == len(own):
        raise ValueError(f"rows has {len(X)} rows in X, {len(y)} in y and {len(own)} in tasks.")
    if not own.any():
        raise ValueError(f"None of the rows is of task {task!r}, whose picture this is.")
    return X, y, own


def _features(X: Any, num: int) -> tuple[np.ndarray, list[str], Callable[[np.ndarray], Any]]:
    """Read features and their names, and give what lays others out in the same way."""
    values = np.asarray(X, dtype=float)
    if values.ndim != 2 or values.shape[1] != num:
        raise ValueError(
            f"X has the shape {values.shape}, expected (rows, {num}): the picture is of "
            f"{'two features' if num == 2 else 'one feature'}."
        )
    if not hasattr(X, "columns"):
        return values, [f"x{i}" for i in range(num)], lambda points: points
    columns = list(X.columns)
    return values, [str(name) for name in columns], lambda p: type(X)(p, columns=columns)


def _around(column: np.ndarray, num: int) -> np.ndarray:
    """Give points that go a little beyond a column's range."""
    low, high = column.min(), column.max()
    margin = MARGIN * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, num)
