"""How good predictions are, task by task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, log_loss

__all__ = [
    "ALL_TASKS",
    "classification_metrics",
    "expected_calibration_error",
    "regression_metrics",
]

ALL_TASKS = "(all)"
"""Label of the row or column that is over all tasks."""


def classification_metrics(
    proba: np.ndarray,
    y: Sequence[Hashable] | np.ndarray,
    tasks: Sequence[Hashable] | np.ndarray,
    classes: Sequence[Hashable],
) -> pd.DataFrame:
    """Accuracy, negative log-likelihood and calibration error of each task.

    Parameters
    ----------
    proba
        (rows, C), class probabilities.
    y
        (rows,), true classes.
    tasks
        (rows,), task labels.
    classes
        The C class labels, in the order of the columns.

    Returns
    -------
    DataFrame
        A row per task in order of first appearance, columns ``accuracy``, ``nll`` (nats per row)
        and ``ece``.

    Examples
    --------
    >>> import numpy as np
    >>> proba = np.array([[0.5, 0.5], [0.2, 0.8]])
    >>> table = classification_metrics(proba, [0, 1], ["a", "b"], [0, 1])
    >>> table.loc["b"].round(3).to_dict()
    {'accuracy': 1.0, 'nll': 0.223, 'ece': 0.2}
    """
    index = {label: i for i, label in enumerate(classes)}
    truth = np.array([index[label] for label in np.asarray(y, dtype=object)])
    rows = {}
    for task in dict.fromkeys(tasks):
        members = np.array([label == task for label in tasks])
        p, t = proba[members], truth[members]
        rows[task] = {
            "accuracy": accuracy_score(t, p.argmax(1)),
            "nll": log_loss(t, p, labels=range(len(classes))),
            "ece": expected_calibration_error(p, t),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")


def expected_calibration_error(
    proba: np.ndarray, truth: np.ndarray, *, num_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy, over bins of equal width (Guo et al. 2017).

    Parameters
    ----------
    proba
        (rows, C), class probabilities.
    truth
        (rows,), index of the true class.
    num_bins
        Number of bins of the largest probability.

    Returns
    -------
    float
        From 0, calibrated, to 1.

    Examples
    --------
    >>> import numpy as np
    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    confidence = proba.max(1)
    hit = proba.argmax(1) == truth
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gap = np.bincount(bins, weights=hit - confidence, minlength=num_bins)
    return float(np.abs(gap).sum() / len(truth))


def regression_metrics(
    mean: np.ndarray,
    log_density: np.ndarray,
    cdf: np.ndarray,
    y: np.ndarray,
    tasks: Sequence[Hashable] | np.ndarray,
) -> pd.DataFrame:
    """Errors, negative log-likelihood and coverage of each task.

    Parameters
    ----------
    mean
        (rows,), predictive means.
    log_density
        (rows,), predictive log densities at the true targets.
    cdf
        (rows,), predictive probability of a target below the true one, such as
        :func:`pyro_vmtl.predictive_cdf` gives.
    y
        (rows,), true targets.
    tasks
        (rows,), task labels.

    Returns
    -------
    DataFrame
        A row per task in order of first appearance. ``rmse`` is in the unit of the targets;
        ``nmse`` is the mean squared error over the variance of all targets given, so that 1 - nmse
        is the explained variance; ``nll`` is in nats per row; ``coverage_50`` and ``coverage_90``
        are the fractions of targets inside the central intervals of 50 and 90 %.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([1.0, -1.0])
    >>> table = regression_metrics(np.zeros(2), np.zeros(2), np.array([0.3, 0.02]), y, ["a", "b"])
    >>> table.loc["a"].to_dict()
    {'rmse': 1.0, 'nmse': 1.0, 'nll': -0.0, 'coverage_50': 1.0, 'coverage_90': 1.0}
    """
    rows = pd.DataFrame(
        {
            "square": (mean - y) ** 2,
            "nll": -log_density,
            "coverage_50": np.abs(cdf - 0.5) <= 0.25,
            "coverage_90": np.abs(cdf - 0.5) <= 0.45,
        }
    )
    means = rows.groupby(np.array(list(tasks), dtype=object), sort=False).mean()
    means.insert(0, "rmse", np.sqrt(means["square"]))
    means.insert(1, "nmse", means.pop("square") / np.var(y))
    return means.rename_axis("task")
