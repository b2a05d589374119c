"""Ridge regressions and boosted trees of scikit-learn, as baselines of a shared fit."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

from pyro_vmtl.analysis.baselines import rows_of_each_task

__all__ = [
    "boosted_trees_classification",
    "boosted_trees_regression",
    "ridge_per_task",
    "ridge_pooled",
    "with_task",
]

ALPHA_GRID = np.logspace(-3, 5, 25)
TREES = {"min_samples_leaf": 5, "early_stopping": False}  # leaves of 20 rows do not learn from 100


def ridge_pooled(
    X_train: np.ndarray, y_train: np.ndarray, X_test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute predictive mean and standard deviation of one ridge regression over all rows.

    Its penalty is chosen by leaving one row out, from 25 values from 0.001 to 100,000; the standard
    deviation is that of the rows left out. With fewer than three rows, mean and standard deviation
    are those of the targets; where these are equal, the latter is their size, or 1.

    Parameters
    ----------
    X_train, y_train
        (rows, F) and (rows,), training features and targets.
    X_test
        (rows, F), features to predict.

    Returns
    -------
    tuple of ndarray
        Mean and standard deviation, noise included, each (rows,).
    """
    if len(y_train) < 3 or np.ptp(y_train) == 0:
        if not len(y_train):
            raise ValueError("There is no row to fit, expected at least one in every task.")
        spread = y_train.std() or abs(y_train).max() or 1.0
        return np.full(len(X_test), y_train.mean()), np.full(len(X_test), spread)
    ridge = RidgeCV(ALPHA_GRID, store_cv_results=True).fit(X_train, y_train)
    left_out = ridge.cv_results_.mean(axis=0).min()  # squared errors, (rows, penalties)
    return ridge.predict(X_test), np.full(len(X_test), np.sqrt(left_out))


def ridge_per_task(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Compute predictive mean and standard deviation of one ridge regression for each task alone.

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
    """
    mean, std = np.zeros((2, len(X_test)))
    for train, test in rows_of_each_task(tasks_train, tasks_test):
        mean[test], std[test] = ridge_pooled(X_train[train], y_train[train], X_test[test])
    return mean, std


def boosted_trees_classification(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
    classes: Sequence[Hashable],
) -> np.ndarray:
    """Predict class probabilities with boosted trees over all rows, the task a feature.

    Parameters
    ----------
    X_train, y_train, tasks_train
        (rows, F), (rows,) and (rows,), training features, classes and tasks.
    X_test, tasks_test
        (rows, F) and (rows,), features to predict and their tasks.
    classes
        The C class labels, in the order of the columns.

    Returns
    -------
    ndarray
        (rows, C).
    """
    train, test = with_task(X_train, tasks_train, X_test, tasks_test)
    trees = HistGradientBoostingClassifier(
        **TREES, categorical_features=[train.shape[1] - 1], random_state=0
    )
    trees.fit(train, y_train)
    proba = np.zeros((len(test), len(classes)))
    proba[:, [list(classes).index(label) for label in trees.classes_]] = trees.predict_proba(test)
    return proba


def boosted_trees_regression(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Compute predictive mean and standard deviation of gradient-boosted trees over all rows.

    The task is a categorical feature, and the standard deviation that of five-fold
    cross-validation.

    Parameters
    ----------
    X_train, y_train, tasks_train
        (rows, F), (rows,) and (rows,), training features, targets and tasks.
    X_test, tasks_test
        (rows, F) and (rows,), features to predict and their tasks.

    Returns
    -------
    tuple of ndarray
        Mean and standard deviation, each (rows,).
    """
    train, test = with_task(X_train, tasks_train, X_test, tasks_test)
    trees = HistGradientBoostingRegressor(
        **TREES, categorical_features=[train.shape[1] - 1], random_state=0
    )
    order = np.random.RandomState(0).permutation(len(train))
    held_out = cross_val_predict(trees, train[order], y_train[order], cv=5)
    std = np.sqrt(np.mean((held_out - y_train[order]) ** 2))
    return trees.fit(train, y_train).predict(test), np.full(len(test), std)


def with_task(
    X_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Append the number of the task as a feature of training and of test rows."""
    number = {task: i for i, task in enumerate(dict.fromkeys([*tasks_train, *tasks_test]))}
    return (
        np.column_stack([X_train, [number[task] for task in tasks_train]]),
        np.column_stack([X_test, [number[task] for task in tasks_test]]),
    )
