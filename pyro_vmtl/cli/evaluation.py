"""How good the predictions of a fitted estimator are, task by task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pyro_vmtl.analysis import classification_metrics
from pyro_vmtl.estimators import VMTLClassifier, VMTLRegressor

__all__ = ["ALL", "PROBABILITIES", "predictions", "score_table", "scores_as_json"]

ALL = "all rows"
"""Label of the line that is of all rows together."""

PROBABILITIES = (0.05, 0.25, 0.75, 0.95)

Estimator = VMTLClassifier | VMTLRegressor


def predictions(
    estimator: Estimator, X: np.ndarray, tasks: Sequence[Hashable], y: Any = None
) -> pd.DataFrame:
    """Predict rows.

    Parameters
    ----------
    estimator
        A fitted estimator.
    X
        (rows, F), features.
    tasks
        (rows,), task labels.
    y
        (rows,), true targets where they are known.

    Returns
    -------
    DataFrame
        A row each. For classes ``prediction`` and a column ``p(class)`` for each; for others
        ``mean``, ``std``, the bounds of the central intervals of 50 and 90 % and, where targets are
        known, their ``log_density`` (nats).
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
    if y is not None:
        table["log_density"] = estimator.log_density(X, y, tasks)
    return table


def score_table(
    estimator: Estimator, predicted: pd.DataFrame, y: Any, tasks: Sequence[Hashable]
) -> pd.DataFrame:
    """Test predictions.

    Parameters
    ----------
    estimator
        A fitted estimator.
    predicted
        What :func:`predictions` gave with ``y``.
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
    parts = []
    every: list[Hashable] = [ALL] * len(predicted)
    for labels in (every, list(tasks)):
        if isinstance(estimator, VMTLClassifier):
            proba = predicted.filter(regex=r"^p\(").to_numpy()
            part = classification_metrics(proba, y, labels, estimator.classes_.tolist())
        else:
            part = _errors(predicted, np.asarray(y, dtype=float), labels)
        counts = pd.Series(labels, dtype=object).value_counts(sort=False)
        part.insert(0, "rows", counts.reindex(part.index).to_numpy())
        part["rows"] = part["rows"].astype(int)
        parts.append(part.loc[sorted(part.index, key=str)])
    return pd.concat(parts)


def scores_as_json(scores: pd.DataFrame) -> dict[str, Any]:
    """Give what :func:`score_table` gave as ``all`` and ``per_task``, of types that JSON has."""
    tasks = scores.drop(index=ALL)
    return {
        "all": scores.loc[ALL].to_dict(),
        "per_task": {str(task): row.to_dict() for task, row in tasks.iterrows()},
    }


def _errors(predicted: pd.DataFrame, y: np.ndarray, labels: list[Hashable]) -> pd.DataFrame:
    low, lower, upper, high = (predicted[f"{p:.0%}"].to_numpy() for p in PROBABILITIES)
    frame = pd.DataFrame(
        {
            "square": (predicted["mean"] - y) ** 2,
            "nll": -predicted["log_density"],
            "coverage_50": (lower <= y) & (y <= upper),
            "coverage_90": (low <= y) & (y <= high),
        }
    )
    means = frame.groupby(np.array([*labels, None], dtype=object)[:-1], sort=False).mean()
    square, variance = means.pop("square"), np.var(y)
    means.insert(0, "rmse", np.sqrt(square))
    means.insert(1, "explained_variance", 1 - square / variance if variance else np.nan)
    return means.rename_axis("task")
