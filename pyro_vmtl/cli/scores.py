"""Predictions of a fitted estimator as a table, and how good they are, task by task."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pyro_vmtl.analysis import classification_metrics, regression_metrics
from pyro_vmtl.analysis.baselines import logistic_regression_per_task, logistic_regression_pooled
from pyro_vmtl.cli.fit_problem import Rows
from pyro_vmtl.estimators import VMTLClassifier, VMTLRegressor

__all__ = ["ALL", "baseline_scores", "predictions", "score_table", "scores_as_json", "scores_frame"]

ALL = "all rows"
"""Label of the line for all rows together."""

SCORES = {
    "rows": "rows",
    "accuracy": "accuracy",
    "nll": "NLL (nats)",
    "ece": "ECE",
    "rmse": "RMSE",
    "explained_variance": "explained variance",
    "coverage_50": "inside 50 %",
    "coverage_90": "inside 90 %",
}
"""Headings of the scores, in the order of the columns."""

BASELINES = {"single_task": "LR per task", "pooled": "LR of all rows"}
"""Headings of the baselines."""

PROBABILITIES = (0.05, 0.25, 0.75, 0.95)

Estimator = VMTLClassifier | VMTLRegressor


def predictions(estimator: Estimator, rows: Rows) -> pd.DataFrame:
    """Predict rows, a line each.

    For classes ``prediction`` and a column ``p(class)`` for each; otherwise ``mean``, ``std``, the
    bounds of the central intervals of 50 and 90 % and, where targets are known, their
    ``log_density`` (nats).
    """
    if isinstance(estimator, VMTLClassifier):
        proba = estimator.predict_proba(rows.X, rows.tasks)
        table = pd.DataFrame(proba, columns=[f"p({label})" for label in estimator.classes_])
        table.insert(0, "prediction", estimator.classes_[proba.argmax(1)])
        return table
    mean, std, bounds = estimator.predict(
        rows.X, rows.tasks, return_std=True, quantiles=PROBABILITIES
    )
    table = pd.DataFrame({"mean": mean, "std": std})
    for probability, column in zip(PROBABILITIES, bounds.T, strict=True):
        table[f"{probability:.0%}"] = column
    if rows.y is not None:
        table["log_density"] = estimator.log_density(rows.X, rows.y, rows.tasks)
    return table


def score_table(estimator: Estimator, predicted: pd.DataFrame, rows: Rows) -> pd.DataFrame:
    """Score what :func:`predictions` returned: a line for all rows (:data:`ALL`), and one per task.

    Columns for classes: ``rows``, ``accuracy``, ``nll`` (nats per row), ``ece``; otherwise:
    ``rows``, ``rmse`` (in the unit of the target), ``explained_variance`` (1 minus the mean squared
    error over the variance of all these targets), ``nll``, ``coverage_50`` and ``coverage_90``
    (fractions of the targets inside the central intervals).
    """
    if isinstance(estimator, VMTLClassifier):
        proba = predicted.filter(regex=r"^p\(").to_numpy()
        classes = estimator.classes_.tolist()
        return _by_task(lambda tasks: classification_metrics(proba, rows.y, tasks, classes), rows)
    y = rows.y.astype(float)
    low, lower, upper, high = (predicted[f"{p:.0%}"].to_numpy() for p in PROBABILITIES)
    # a level inside the same central intervals as the target is all that coverage needs
    level = np.select([(y < low) | (y > high), (y < lower) | (y > upper)], [0.0, 0.1], 0.5)
    mean, log_density = predicted["mean"].to_numpy(), predicted["log_density"].to_numpy()

    def metrics(tasks: Sequence[Hashable]) -> pd.DataFrame:
        table = regression_metrics(mean, log_density, level, y, tasks)
        explained = 1 - table.pop("nmse")
        table.insert(1, "explained_variance", explained if np.var(y) > 0 else np.nan)
        return table

    return _by_task(metrics, rows)


def baseline_scores(train: Rows, test: Rows) -> dict[str, pd.DataFrame]:
    """Score logistic regressions of each task (``single_task``) and of all rows (``pooled``)."""
    X, y, X_test = train.X.to_numpy(), np.array(train.y.tolist()), test.X.to_numpy()
    classes = np.unique(y).tolist()
    alone = logistic_regression_per_task(X, y, train.tasks, X_test, test.tasks, classes)
    pooled = logistic_regression_pooled(X, y, X_test, classes)

    def scores(proba: np.ndarray) -> pd.DataFrame:
        return _by_task(lambda tasks: classification_metrics(proba, test.y, tasks, classes), test)

    return {"single_task": scores(alone), "pooled": scores(pooled)}


def scores_as_json(scores: pd.DataFrame) -> dict[str, Any]:
    """Convert scores to JSON: ``all`` rows, their ``mean`` over tasks, and ``per_task``."""
    tasks = scores.iloc[1:]  # a task may be called like the first line
    return {
        "all": scores.iloc[0].to_dict(),
        "mean": tasks.drop(columns="rows").mean().to_dict(),
        "per_task": {str(task): row.to_dict() for task, row in tasks.iterrows()},
    }


def scores_frame(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return the scores in a ``metrics.json`` with headings, those of baselines beside them."""

    def lines(scores: Mapping[str, Any]) -> pd.DataFrame:
        labels = pd.Index([ALL, *scores["per_task"]], name="task")
        return pd.DataFrame([scores["all"], *scores["per_task"].values()], index=labels)

    frame = lines(metrics).astype({"rows": int})
    frame = frame[[name for name in SCORES if name in frame]].rename(columns=SCORES)
    for method, scores in metrics.get("baselines", {}).items():
        for name in ("accuracy", "nll"):
            heading = f"{SCORES[name]} of {BASELINES[method]}"
            frame[heading] = lines(scores)[name].to_numpy()
    return frame


def _by_task(metrics: Callable[[Sequence[Hashable]], pd.DataFrame], rows: Rows) -> pd.DataFrame:
    """Compute metrics of all rows, then of each task, with their numbers of rows."""
    parts = []
    for labels in ([ALL] * len(rows.tasks), rows.tasks):
        part = metrics(labels)
        counts = pd.Series(labels, dtype=object).value_counts(sort=False)
        part.insert(0, "rows", counts.reindex(part.index).to_numpy().astype(int))
        parts.append(part.loc[sorted(part.index, key=lambda task: (type(task).__name__, task))])
    return pd.concat(parts)
