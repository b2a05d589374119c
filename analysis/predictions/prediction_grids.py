"""Predictions of one task on a grid of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch.distributions import Categorical

from pyro_vmtl.analysis.export.predicted_rows import split_uncertainty

__all__ = ["decision_grid", "read_rows", "regression_grid"]

MARGIN = 0.12
"""Part of the range of the rows that the grid extends beyond them, on every side."""

PROBABILITIES = (0.05, 0.25, 0.75, 0.95)
"""Levels of the quantiles: intervals of 50 and 90 %."""


def decision_grid(predict: Any, X: Any, *, task: Hashable, num: int = 100) -> xr.Dataset:
    """Predict the classes of a task on a grid over its two features.

    Parameters
    ----------
    predict
        A fitted :class:`~pyro_vmtl.VMTLClassifier`, any object with ``predict_proba(X,
        tasks=...)``, such as a pipeline that ends in one, or a function ``(X, tasks)`` that
        returns probabilities: (rows, C), or those of each draw from a posterior, (S, rows, C).
    X
        (rows, 2), rows that the grid encloses, such as those of the fit. Columns of a data frame
        name the features.
    task
        The task to predict for.
    num
        Points along each feature.

    Returns
    -------
    Dataset
        ``proba`` (x0, x1, class), ``label`` (x0, x1), the most probable class, and ``entropy``
        (x0, x1) in nats. Where there are draws, it is split into ``mutual_information``, which
        more rows could remove, and ``expected_entropy``, which they could not. Attributes
        ``task``, ``features``.

    See Also
    --------
    plot_decision_regions : Plot the grid.

    Examples
    --------
    >>> draws = np.array([0.2, 0.9])[:, None, None]  # two draws that do not agree
    >>> def predict(X, tasks):
    ...     return np.concatenate([1 - draws, draws], axis=-1).repeat(len(X), axis=1)
    >>> grid = decision_grid(predict, [[0.0, 0.0], [1.0, 2.0]], task="Ada", num=5)
    >>> dict(grid["proba"].sizes), round(float(grid["mutual_information"].mean()), 3)
    ({'x0': 5, 'x1': 5, 'class': 2}, 0.275)
    """
    values, names, like_input = _read_features(X, 2)
    axes = [_around(column, num) for column in values.T]
    index = pd.MultiIndex.from_product(axes, names=["x0", "x1"])
    points = index.to_frame().to_numpy()
    found = _predict(predict, like_input(points), [task] * len(points))
    if "proba" not in found:
        raise ValueError(
            f"predict returns {sorted(map(str, found.data_vars))}, expected probabilities of "
            "classes. For real targets use regression_grid."
        )
    grid = found.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "row")).unstack("row")
    grid = grid.transpose("x0", "x1", ...).assign_attrs(task=task, features=names)
    best = grid["class"].values[grid["proba"].values.argmax(-1)]
    return grid.assign(label=(("x0", "x1"), best))


def regression_grid(predict: Any, X: Any, *, task: Hashable, num: int = 200) -> xr.Dataset:
    """Predict the real targets of a task along its one feature.

    Parameters
    ----------
    predict
        A fitted :class:`~pyro_vmtl.VMTLRegressor`, or a pipeline that ends in one.
    X
        (rows, 1), rows that the grid encloses, such as those of the fit. The column of a data
        frame names the feature.
    task
        The task to predict for.
    num
        Points along the feature.

    Returns
    -------
    Dataset
        Along ``x0``, in the unit of the targets: ``mean`` and ``std`` of a new target,
        ``quantile`` (x0, probability) with 5, 25, 75 and 95 %, and ``epistemic_std`` and
        ``aleatoric_std``, which more rows could remove and which they could not. Attributes
        ``task``, ``features``.

    See Also
    --------
    plot_regression_bands : Plot the grid.

    Examples
    --------
    >>> from pyro_vmtl import Preset, VMTLRegressor
    >>> quick = VMTLRegressor(Preset(fitting={"num_steps": 20}))
    >>> X = [[0.0], [1.0], [2.0]]
    >>> reg = quick.fit(X, [0.0, 1.1, 1.9], ["Ada", "Ada", "Bo"])
    >>> dict(regression_grid(reg, X, task="Bo", num=50).sizes)
    {'x0': 50, 'probability': 4}
    """
    values, names, like_input = _read_features(X, 1)
    x0 = _around(values[:, 0], num)
    found = _predict(predict, like_input(x0[:, None]), [task] * num)
    if "mean" not in found:
        raise ValueError(
            f"predict returns {sorted(map(str, found.data_vars))}, expected means of real targets. "
            "For classes use decision_grid."
        )
    return found.rename(row="x0").assign_coords(x0=x0).assign_attrs(task=task, features=names)


def _predict(predict: Any, X: Any, tasks: Sequence[Hashable]) -> xr.Dataset:
    """Predict rows by an estimator, a pipeline or a function, and split the uncertainty."""
    while hasattr(predict, "steps"):  # pipelines, also nested ones
        X = predict[:-1].transform(X) if len(predict.steps) > 1 else X
        predict = predict[-1]
    classes = getattr(predict, "classes_", None)
    if hasattr(predict, "map_predictions"):
        found = predict.map_predictions(
            lambda batch: split_uncertainty(
                batch.draws, batch.weights, PROBABILITIES, posterior=batch.posterior
            ),
            *(X, list(tasks)),
        )
        for name in found if classes is None else ():
            shift = predict.target_mean_ if name in ("mean", "quantile") else 0.0
            found[name] = found[name] * predict.target_scale_ + shift
    else:
        if hasattr(predict, "predict_proba"):
            proba = np.asarray(predict.predict_proba(X, tasks=tasks), dtype=float)
        else:
            proba = np.asarray(predict(np.asarray(X), list(tasks)), dtype=float)
        if proba.ndim not in (2, 3) or proba.shape[-2] != len(tasks):
            raise ValueError(
                f"predict returns an array of shape {proba.shape}, expected probabilities "
                f"({len(tasks)} rows, classes), or with draws first (draws, {len(tasks)} rows, "
                "classes)."
            )
        classes = range(proba.shape[-1]) if classes is None else classes
        draws = Categorical(probs=torch.from_numpy(proba).reshape(-1, 1, *proba.shape[-2:]))
        parts = split_uncertainty([draws], torch.ones(1, 1))
        names = ("proba", "entropy") if proba.ndim == 2 else parts
        found = {name: parts[name][0].numpy() for name in names}
    last = {"proba": ("class", classes), "quantile": ("probability", list(PROBABILITIES))}
    return xr.Dataset(
        {name: (("row", *last.get(name, ())[:1]), values) for name, values in found.items()},
        dict(coord for name, coord in last.items() if name in found),
    )


def read_rows(
    rows: Sequence[Any], task: Any, *, num_features: int
) -> tuple[np.ndarray, list[Any], np.ndarray]:
    """Return features (rows, F), targets, and whether each row is of this task, (rows,)."""
    if not isinstance(rows, tuple | list) or len(rows) not in (2, 3):
        raise ValueError("rows is expected as (X, y, tasks), or (X, y) if all are of this task.")
    X, y = _read_features(rows[0], num_features)[0], list(rows[1])
    tasks = rows[2] if len(rows) == 3 else [task] * len(y)
    own = np.array([label == task for label in tasks], dtype=bool)
    if not len(X) == len(y) == len(own):
        raise ValueError(f"rows has {len(X)} rows in X, {len(y)} in y and {len(own)} in tasks.")
    if not own.any():
        raise ValueError(f"None of the rows is of task {task!r}, whose picture this is.")
    return X, y, own


def _read_features(X: Any, num: int) -> tuple[np.ndarray, list[str], Callable[[np.ndarray], Any]]:
    """Return features, their names, and a function that makes other features of the same type."""
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
    """Return points over a column's range and a margin."""
    low, high = column.min(), column.max()
    margin = MARGIN * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, num)
