"""LightGBM over all rows with the task as a categorical feature, tuned by cross-validation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom

from benchmarks.baselines import with_task
from benchmarks.needed import needed

__all__ = ["lightgbm_classes", "lightgbm_counts", "lightgbm_regression"]

GRID = [
    {"num_leaves": leaves, "min_data_in_leaf": rows}
    for leaves, rows in product((2, 4, 8, 16, 31), (5, 20))
]
FIXED = {
    "learning_rate": 0.05,
    "min_data_per_group": 5,  # by default 100, of which most tasks have fewer
    "num_threads": 1,  # fits run in parallel
    "deterministic": True,
    "seed": 0,
    "verbosity": -1,
}
MAX_ROUNDS, PATIENCE, NUM_FOLDS = 1000, 30, 5


def lightgbm_regression(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict real targets; the standard deviation is that of rows left out.

    The number of leaves, their least number of rows and the number of trees have the least loss in
    five-fold cross-validation.

    Parameters
    ----------
    X_train, y_train, tasks_train
        (rows, F), (rows,) and (rows,), training features, targets and tasks.
    X_test, tasks_test
        (rows, F) and (rows,), features to predict and their tasks.

    Returns
    -------
    tuple of ndarray
        Mean and standard deviation, noise included, each (rows,).

    Raises
    ------
    ImportError
        If LightGBM is not installed.
    """
    rows = with_task(X_train, tasks_train, X_test, tasks_test)
    left_out, mean = _tuned(*rows, y_train, {"objective": "regression"})
    std = np.sqrt(np.mean((left_out - y_train) ** 2))
    return mean, np.full(len(mean), std)


def lightgbm_classes(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
    classes: Sequence[Hashable],
) -> np.ndarray:
    """Predict class probabilities (rows, C).

    Parameters, tuning and errors are those of :func:`lightgbm_regression`, and ``classes``, the
    labels in the order of the columns.
    """
    number = {label: i for i, label in enumerate(classes)}
    y = np.array([number[label] for label in y_train])
    rows = with_task(X_train, tasks_train, X_test, tasks_test)
    if len(classes) > 2:
        return _tuned(*rows, y, {"objective": "multiclass", "num_class": len(classes)})[1]
    second = _tuned(*rows, y, {"objective": "binary"})[1]
    return np.column_stack([1 - second, second])


def lightgbm_counts(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict counts by trees for a Poisson distribution.

    Parameters, tuning and errors are those of :func:`lightgbm_regression`.

    Returns
    -------
    tuple of ndarray
        Rate and dispersion of negative binomial distributions, each (1, rows). Their shape is the
        most likely one for the rows left out.
    """
    rows = with_task(X_train, tasks_train, X_test, tasks_test)
    left_out, rate = _tuned(*rows, y_train, {"objective": "poisson"})

    def loss(log_shape: float) -> float:
        shape = np.exp(log_shape)
        return -float(nbinom.logpmf(y_train, shape, shape / (shape + left_out)).sum())

    shape = np.exp(minimize_scalar(loss, bounds=(-5.0, 10.0), method="bounded").x)
    return rate[None], 1 + rate[None] / shape


def _tuned(
    train: np.ndarray, test: np.ndarray, y: np.ndarray, objective: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the best of the grid predicts of rows left out, and of test rows."""
    lightgbm = needed("lightgbm")
    parts = np.array_split(np.random.RandomState(0).permutation(len(y)), min(NUM_FOLDS, len(y)))
    folds = [(np.setdiff1d(np.arange(len(y)), part), part) for part in parts]

    def data() -> Any:  # anew each time, as the least number of rows in a leaf changes its bins
        return lightgbm.Dataset(
            train, y, categorical_feature=[train.shape[1] - 1], free_raw_data=False
        )

    best: tuple[float, Any, dict[str, Any]] = (np.inf, None, {})
    for chosen in GRID:
        settings = {**FIXED, **objective, **chosen}
        results = lightgbm.cv(
            settings,
            data(),
            num_boost_round=MAX_ROUNDS,
            folds=folds,
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
            return_cvbooster=True,
        )
        boosters = results.pop("cvbooster")
        loss = min(next(values for name, values in results.items() if name.endswith("-mean")))
        if loss < best[0]:
            best = loss, boosters, settings
    _, boosters, settings = best
    left_out = [
        booster.predict(train[part], num_iteration=boosters.best_iteration)
        for booster, part in zip(boosters.boosters, parts, strict=True)
    ]
    trees = lightgbm.train(settings, data(), num_boost_round=boosters.best_iteration)
    return np.concatenate(left_out)[np.argsort(np.concatenate(parts))], trees.predict(test)
