"""Plain regressions and boosted trees of scikit-learn, to lay a shared fit beside."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict

__all__ = [
    "boosted_trees_classification",
    "boosted_trees_regression",
    "logistic_regression_per_task",
    "logistic_regression_pooled",
    "ridge_per_task",
    "ridge_pooled",
]

C_GRID = np.logspace(-2, 3, 11)
ALPHA_GRID = np.logspace(-3, 5, 25)
TREES = {"min_samples_leaf": 5, "early_stopping": False}  # leaves of 20 rows do not learn from 100


def logistic_regression_pooled(
    X_train: np.ndarray, y_train: np.ndarray, X_test: np.ndarray, classes: Sequence[Hashable]
) -> np.ndarray:
    """Class probabilities of one logistic regression over all rows, as if there were no tasks.

    Its C is chosen by cross-validated log-likelihood on the training rows, over 11 values from
    0.01 to 1000. A row that is alone in its class is trained on in every fold.

    Parameters
    ----------
    X_train, y_train
        (rows, F) and (rows,), training features and classes.
    X_test
        (rows, F), features to predict.
    classes
        The C class labels, in the wanted order of the columns.

    Returns
    -------
    ndarray
        (rows, C). Classes that were not trained on have probability 0.
    """
    labels, counts = np.unique(y_train, return_counts=True)
    proba = np.zeros((len(X_test), len(classes)))
    columns = [list(classes).index(label) for label in labels]
    if len(labels) == 1:
        proba[:, columns] = 1.0
        return proba
    model = LogisticRegression(max_iter=2000)
    if counts.max() > 1:
        scoring = make_scorer(
            log_loss, response_method="predict_proba", greater_is_better=False, labels=labels
        )
        model = GridSearchCV(model, {"C": C_GRID}, cv=_folds(y_train), scoring=scoring)
    proba[:, columns] = model.fit(X_train, y_train).predict_proba(X_test)
    return proba


def _folds(y: np.ndarray) -> PredefinedSplit:
    """Deal the rows of every class out to five folds, in random order."""
    rng = np.random.RandomState(0)
    fold = np.full(len(y), -1)  # in no fold
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        if len(rows) > 1:
            fold[rows] = np.arange(len(rows)) % 5
    return PredefinedSplit(fold)


def logistic_regression_per_task(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
    classes: Sequence[Hashable],
) -> np.ndarray:
    """Class probabilities of one logistic regression for each task alone.

    Parameters
    ----------
    X_train, y_train, tasks_train
        (rows, F), (rows,) and (rows,), training features, classes and tasks.
    X_test, tasks_test
        (rows, F) and (rows,), features to predict and their tasks.
    classes
        The C class labels, in the wanted order of the columns.

    Returns
    -------
    ndarray
        (rows, C).
    """
    proba = np.zeros((len(X_test), len(classes)))
    for train, test in _rows_of_each_task(tasks_train, tasks_test):
        proba[test] = logistic_regression_pooled(
            X_train[train], y_train[train], X_test[test], classes
        )
    return proba


def ridge_pooled(
    X_train: np.ndarray, y_train: np.ndarray, X_test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predictive mean and standard deviation of one ridge regression over all rows.

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
    """Predictive mean and standard deviation of one ridge regression for each task alone.

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
    for train, test in _rows_of_each_task(tasks_train, tasks_test):
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
    """Class probabilities of gradient-boosted trees over all rows, the task a categorical feature.

    Parameters
    ----------
    X_train, y_train, tasks_train
        (rows, F), (rows,) and (rows,), training features, classes and tasks.
    X_test, tasks_test
        (rows, F) and (rows,), features to predict and their tasks.
    classes
        The C class labels, in the wanted order of the columns.

    Returns
    -------
    ndarray
        (rows, C).
    """
    train, test = _with_task(X_train, tasks_train, X_test, tasks_test)
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
    """Predictive mean and standard deviation of gradient-boosted trees over all rows.

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
    train, test = _with_task(X_train, tasks_train, X_test, tasks_test)
    trees = HistGradientBoostingRegressor(
        **TREES, categorical_features=[train.shape[1] - 1], random_state=0
    )
    order = np.random.RandomState(0).permutation(len(train))
    held_out = cross_val_predict(trees, train[order], y_train[order], cv=5)
    std = np.sqrt(np.mean((held_out - y_train[order]) ** 2))
    return trees.fit(train, y_train).predict(test), np.full(len(test), std)


def _with_task(
    X_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Append the number of the task as a feature."""
    number = {task: i for i, task in enumerate(dict.fromkeys([*tasks_train, *tasks_test]))}
    return (
        np.column_stack([X_train, [number[task] for task in tasks_train]]),
        np.column_stack([X_test, [number[task] for task in tasks_test]]),
    )


def _rows_of_each_task(
    tasks_train: Sequence[Hashable], tasks_test: Sequence[Hashable]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Which training and test rows belong to each task that is tested."""
    for task in dict.fromkeys(tasks_test):
        yield (
            np.array([t == task for t in tasks_train]),
            np.array([t == task for t in tasks_test]),
        )
