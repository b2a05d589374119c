"""Metrics of predictions, task by task."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, log_loss

__all__ = [
    "ALL_TASKS",
    "calibrated_hits",
    "classification_metrics",
    "confidence_bins",
    "ece_interval",
    "expected_calibration_error",
    "hits_p_value",
    "regression_metrics",
    "rows_by_task",
]

ALL_TASKS = "(all)"
"""Label of the row or column for all tasks together."""

NUM_DRAWS = 2000
"""Simulated data sets: they estimate a tail of 5 % to 0.5 %."""


def classification_metrics(
    proba: np.ndarray,
    y: Sequence[Hashable] | np.ndarray,
    tasks: Sequence[Hashable] | np.ndarray,
    classes: Sequence[Hashable],
) -> pd.DataFrame:
    """Compute accuracy, negative log-likelihood and calibration error of each task.

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
        A row per task in order of first appearance, with the columns ``accuracy``, ``nll`` (nats
        per row) and ``ece``.

    Examples
    --------
    >>> proba = np.array([[0.5, 0.5], [0.2, 0.8]])
    >>> table = classification_metrics(proba, [0, 1], ["a", "b"], [0, 1])
    >>> table.loc["b"].round(3).to_dict()
    {'accuracy': 1.0, 'nll': 0.223, 'ece': 0.2}
    """
    index = {label: i for i, label in enumerate(classes)}
    truth = np.array([index[label] for label in np.asarray(y, dtype=object)])
    rows = {}
    for task, own in rows_by_task(tasks).items():
        p, t = proba[own], truth[own]
        rows[task] = {
            "accuracy": accuracy_score(t, p.argmax(1)),
            "nll": log_loss(t, p, labels=range(len(classes))),
            "ece": expected_calibration_error(p, t),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")


def rows_by_task(tasks: Iterable[Hashable]) -> dict[Hashable, list[int]]:
    """Return the positions of the rows of each task, in order of first appearance."""
    found: dict[Hashable, list[int]] = {}
    for row, task in enumerate(tasks):
        found.setdefault(task, []).append(row)
    return found


def expected_calibration_error(
    proba: np.ndarray, truth: np.ndarray, *, num_bins: int = 15
) -> float:
    """Compute the mean gap between confidence and accuracy over bins of equal width.

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
        Between 0, calibrated, and 1.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, ICML 2017, arXiv 1706.04599.

    Examples
    --------
    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    confidence = proba.max(1)
    hit = proba.argmax(1) == truth
    return _mean_gap(confidence_bins(confidence, num_bins), hit - confidence)


def _mean_gap(bins: np.ndarray, gap: np.ndarray) -> float:
    """Average the absolute values of the mean gaps of bins, weighted by their rows."""
    return float(np.abs(np.bincount(bins, weights=gap)).sum() / len(gap))


def confidence_bins(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the bin of each confidence, integers below ``num_bins``."""
    bins: np.ndarray = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    return bins


def ece_interval(
    proba: np.ndarray,
    y: np.ndarray,
    *,
    num_bins: int = 15,
    ci_prob: float = 0.9,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Compute the expected calibration error, and a bootstrap interval of it over rows.

    Chance gaps of bins make the error larger than that of infinitely many rows, and those of a
    resample make it larger again. The mean of the resamples is therefore shifted to the error
    itself: the interval shows its sampling variation, and does not remove its bias.
    """
    if not len(y):
        raise ValueError("There are no rows, expected at least one with a known class.")
    ece = expected_calibration_error(proba, y, num_bins=num_bins)
    bins = confidence_bins(proba.max(1), num_bins)
    gap = (proba.argmax(1) == y) - proba.max(1).astype(float)
    random = np.random.default_rng(seed)
    resamples = (random.integers(len(y), size=len(y)) for _ in range(num_resamples))
    resampled = np.array([_mean_gap(bins[rows], gap[rows]) for rows in resamples])
    ends = np.quantile(resampled, [(1 - ci_prob) / 2, (1 + ci_prob) / 2]) - resampled.mean()
    low, high = np.clip(ece + ends, 0.0, 1.0)
    return ece, float(low), float(high)


def calibrated_hits(
    confidence: np.ndarray, bins: np.ndarray, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate numbers of right rows and calibration errors, 2000 of each, of calibrated rows.

    Unlike the variation of the observed rows, theirs is known where all of a small number of rows
    are right (Spiegelhalter, Statistics in Medicine 1986).
    """
    random = np.random.default_rng(seed)
    hits, ece = np.empty(NUM_DRAWS, int), np.empty(NUM_DRAWS)
    for s in range(NUM_DRAWS):
        hit = random.uniform(size=len(confidence)) < confidence
        hits[s] = hit.sum()
        ece[s] = _mean_gap(bins, hit - confidence)
    return hits, ece


def hits_p_value(simulated: np.ndarray, hits: int) -> float:
    """Compute the two-sided probability of as few or as many right rows as observed."""
    # The observed number counts as a draw: no p-value is 0.
    tail = 1 + min((simulated <= hits).sum(), (simulated >= hits).sum())
    return float(min(1.0, 2 * tail / (1 + len(simulated))))


def regression_metrics(
    mean: np.ndarray,
    log_density: np.ndarray,
    cdf: np.ndarray,
    y: np.ndarray,
    tasks: Sequence[Hashable] | np.ndarray,
) -> pd.DataFrame:
    """Compute errors, negative log-likelihood and coverage of each task.

    Parameters
    ----------
    mean
        (rows,), predictive means.
    log_density
        (rows,), predictive log densities at the true targets.
    cdf
        (rows,), predictive probability of a target below the true one, as from
        :func:`pyro_vmtl.predictive_mixture`.
    y
        (rows,), true targets.
    tasks
        (rows,), task labels.

    Returns
    -------
    DataFrame
        A row per task in order of first appearance. ``rmse`` is in the unit of the targets;
        ``nmse`` is the mean squared error over the variance of all targets passed, so that 1 - nmse
        is the explained variance; ``nll`` is in nats per row; ``coverage_50`` and ``coverage_90``
        are the fractions of targets inside the central intervals of 50 and 90 %.

    Examples
    --------
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
