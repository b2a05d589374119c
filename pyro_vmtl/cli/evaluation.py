"""How good the predictions of a fitted estimator are, task by task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pyro_vmtl.analysis import classification_metrics
from pyro_vmtl.estimators import VMTLClassifier, VMTLRegressor

__all__ = ["ALL", "PROBABILITIES", "predictions", "score_table"]

ALL = "all rows"
"""Label of the line that is of all rows together."""

PROBABILITIES = (0.05, 0.25, 0.75, 0.95)

Estimator = VMTLClassifier | VMTLRegressor


def predictions(estimator: Estimator, X: np.ndarray, tasks: Sequence[Hashable]) -> pd.DataFrame:
    """Predict rows.

    Returns
    -------
    DataFrame
        A row each. For classes ``prediction`` and a column ``p(class)`` for each; for others
        ``mean``, ``std`` and the bounds of the central intervals of 50 and 90 %.
    """
    if isinstance(estimator, VMTLClassifier):
        proba = estimator.predict_proba(X, tasks)
        table = pd.DataFrame(proba, columns=[f"p({label})" for label in estimator.classes_])
        table.insert(0, "prediction", estimator.classes_[proba.argmax(1)])
        return table
    mean, std, bounds = estimator.predict(X, tasks, return_std=True, quantiles=PROBABILITIES)
    table = pd.DataFrame({"mean": mean, "std": std})
    for probability, column in zip(PROBABILITIES, bounds.T, strict=True):
        table[f"{probability:.0%}"] = column
    return table


def score_table(
    estimator: Estimator, X: np.ndarray, y: Any, tasks: Sequence[Hashable]
) -> pd.DataFrame:
    """Test predictions.

    Parameters
    ----------
    estimator
        A fitted estimator.
    X
        (rows, F), features.
    y
        (rows,), true targets.
    tasks
        (rows,), task labels.

    Returns
    -------
    DataFrame
        A line for all rows together, labelled :data:`ALL`, and one for each task. Columns for
        classes: ``rows``, ``accuracy``, ``nll`` (nats per row), ``ece``; for others: ``rows``,
        ``rmse`` (in the unit of the target), ``explained_variance`` (1 less the mean squared error
        over the variance of all these targets), ``nll``, ``coverage_50`` and ``coverage_90`` (parts
        of the targets inside the central intervals).
    """
    if isinstance(estimator, VMTLClassifier):
        proba = estimator.predict_proba(X, tasks)
        classes = estimator.classes_.tolist()
        parts = [classification_metrics(proba, y, t, classes) for t in ([ALL] * len(X), tasks)]
    else:
        frame = _errors(estimator, X, np.asarray(y, dtype=float), tasks)
        parts = [_means(frame, t, float(np.var(y))) for t in ([ALL] * len(X), tasks)]
    for part, labels in zip(parts, ([ALL] * len(X), tasks), strict=True):
        counts = pd.Series(list(labels), dtype=object).value_counts(sort=False)
        part.insert(0, "rows", counts.reindex(part.index).to_numpy())
    return pd.concat(parts)


def _errors(
    estimator: VMTLRegressor, X: np.ndarray, y: np.ndarray, tasks: Sequence[Hashable]
) -> pd.DataFrame:
    mean, bounds = estimator.predict(X, tasks, quantiles=PROBABILITIES)
    low, lower, upper, high = bounds.T
    return pd.DataFrame(
        {
            "square": (mean - y) ** 2,
            "nll": -estimator.log_density(X, y, tasks),
            "coverage_50": (lower <= y) & (y <= upper),
            "coverage_90": (low <= y) & (y <= high),
        }
    )


def _means(frame: pd.DataFrame, tasks: Sequence[Hashable], variance: float) -> pd.DataFrame:
    means = frame.groupby(np.array(list(tasks), dtype=object), sort=False).mean()
    square = means.pop("square")
    means.insert(0, "rmse", np.sqrt(square))
    means.insert(1, "explained_variance", 1 - square / variance if variance else np.nan)
    return means.rename_axis("task")
