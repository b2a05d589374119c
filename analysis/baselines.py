"""Plain logistic regressions of scikit-learn, as baselines of a shared fit."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, PredefinedSplit

__all__ = ["logistic_regression_per_task", "logistic_regression_pooled", "rows_of_each_task"]

C_GRID = np.logspace(-2, 3, 11)


def logistic_regression_pooled(
    X_train: np.ndarray, y_train: np.ndarray, X_test: np.ndarray, classes: Sequence[Hashable]
) -> np.ndarray:
    """Predict class probabilities (rows, C) by one logistic regression over the rows of all tasks.

    Its C is chosen by cross-validated log-likelihood on the training rows. A row that is alone in
    its class is trained on in every fold; classes that were not trained on have probability 0.
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
    """Assign the rows of every class to five folds, in random order."""
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
    """Predict class probabilities (rows, C) by one logistic regression for each task alone."""
    proba = np.zeros((len(X_test), len(classes)))
    for train, test in rows_of_each_task(tasks_train, tasks_test):
        proba[test] = logistic_regression_pooled(
            X_train[train], y_train[train], X_test[test], classes
        )
    return proba


def rows_of_each_task(
    tasks_train: Sequence[Hashable], tasks_test: Sequence[Hashable]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield masks of the training and the test rows of each tested task."""
    for task in dict.fromkeys(tasks_test):
        yield (
            np.array([t == task for t in tasks_train]),
            np.array([t == task for t in tasks_test]),
        )
