"""How good predicted class probabilities are, task by task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, log_loss

__all__ = ["classification_metrics", "expected_calibration_error"]


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
