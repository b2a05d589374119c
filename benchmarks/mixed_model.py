"""GPBoost's generalized linear mixed models as baselines.

The random effects of a task are an intercept and slopes, independent of one another; variances and
fixed effects maximize the likelihood, approximated by Laplace's method unless targets are real. The
slopes are those of all features, or chosen by AIC.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.needed import needed

__all__ = [
    "Rows",
    "class_number",
    "draws_of_log_rate",
    "labels",
    "linear_mixed_model",
    "linear_mixed_model_classes",
    "linear_mixed_model_counts",
]

Rows = tuple[np.ndarray, Sequence[Hashable]]

MAX_SECONDS = 60.0
"""Processor time after which no further slope is tried."""

NUM_NODES = 200
"""Quantiles of a random effect that stand for its distribution."""


def linear_mixed_model(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
    *,
    selected: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict real targets by a linear mixed model.

    Parameters
    ----------
    X_train, y_train, tasks_train
        (rows, F), (rows,) and (rows,), training features, targets and tasks.
    X_test, tasks_test
        (rows, F) and (rows,), features to predict and their tasks.
    selected
        Whether AIC chooses the random slopes; else all features have one.

    Returns
    -------
    tuple of ndarray
        Mean and standard deviation, noise included, each (rows,).

    Raises
    ------
    ImportError
        If GPBoost is not installed.
    RuntimeError
        If it fails to fit.
    """
    center, unit = y_train.mean(), y_train.std() or 1.0
    rows = (X_train, tasks_train), (X_test, tasks_test)
    _, mean, var = _predict((y_train - center) / unit, *rows, "gaussian", selected)
    return center + unit * mean, unit * np.sqrt(var)


def linear_mixed_model_classes(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
    classes: Sequence[Hashable],
    *,
    selected: bool = False,
) -> np.ndarray:
    """Predict probabilities of two classes by a logistic mixed model.

    Parameters and errors are those of :func:`linear_mixed_model`, and ``classes``, the labels in
    the order of the columns.

    Returns
    -------
    ndarray
        (rows, 2), averaged over the random effects.

    Raises
    ------
    ValueError
        If there are not two classes.
    """
    y, rows = class_number(y_train, classes), ((X_train, tasks_train), (X_test, tasks_test))
    _, second, _ = _predict(y, *rows, "bernoulli_logit", selected)
    return np.column_stack([1 - second, second])


def linear_mixed_model_counts(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
    *,
    selected: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict counts by a negative binomial mixed model with a logarithmic link.

    Parameters and errors are those of :func:`linear_mixed_model`.

    Returns
    -------
    tuple of ndarray
        Rates and dispersions, each (200, rows), of negative binomial distributions that are equally
        likely: the log rate is normal, and these are its quantiles.
    """
    rows = (X_train, tasks_train), (X_test, tasks_test)
    model, mean, var = _predict(y_train, *rows, "negative_binomial", selected)
    return draws_of_log_rate(mean, var, model)


def class_number(y: np.ndarray, classes: Sequence[Hashable]) -> np.ndarray:
    """Return 1 for the second class and 0 for the first.

    Raises
    ------
    ValueError
        If there are not two classes.
    """
    if len(classes) != 2:
        raise ValueError(
            f"There are {len(classes)} classes, expected 2: GPBoost has no mixed model of more. "
            "Choose other --methods."
        )
    return np.array([label == classes[1] for label in y], float)


def draws_of_log_rate(
    mean: np.ndarray, var: np.ndarray, model: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return rates and dispersions (200, rows) at quantiles of normal log rates."""
    nodes = norm.ppf((np.arange(NUM_NODES) + 0.5) / NUM_NODES)[:, None]
    rate = np.exp(mean + np.sqrt(var) * nodes)
    shape = np.ravel(model.get_aux_pars())[0]
    return rate, 1 + rate / shape


def labels(tasks: Sequence[Hashable]) -> np.ndarray:
    """Return groups as GPBoost takes them."""
    return np.array([*map(repr, tasks)])


def _predict(
    y: np.ndarray, train: Rows, test: Rows, likelihood: str, selected: bool
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return a fitted model, and the mean and variance of test rows, for counts of the log rate."""
    num_features = train[0].shape[1]
    slopes = _chosen_slopes(y, train, likelihood) if selected else [*range(num_features)]
    model = _fit(y, train, slopes, likelihood)
    X, tasks = test
    predicted = model.predict(
        group_data_pred=labels(tasks),
        group_rand_coef_data_pred=X[:, slopes] if slopes else None,
        X_pred=_with_intercept(X),
        predict_var=True,
        predict_response=likelihood != "negative_binomial",
    )
    return model, predicted["mu"], predicted["var"]


def _fit(y: np.ndarray, rows: Rows, slopes: Sequence[int], likelihood: str) -> Any:
    """Fit a model with some random slopes."""
    gpboost = needed("gpboost")
    X, tasks = rows
    random = {
        "group_rand_coef_data": X[:, slopes],
        "ind_effect_group_rand_coef": [1] * len(slopes),
    }
    try:
        model = gpboost.GPModel(
            group_data=labels(tasks), likelihood=likelihood, **(random if slopes else {})
        )
        return model.fit(y=y, X=_with_intercept(X))
    except gpboost.basic.GPBoostError as error:
        raise RuntimeError(f"GPBoost failed with random slopes of {[*slopes]}: {error}") from error


def _chosen_slopes(y: np.ndarray, rows: Rows, likelihood: str) -> list[int]:
    """Choose the random slopes by AIC.

    Slopes are added if that lowers AIC, in the order of what each does alone. The result is that
    set, or all of them, whichever has the lower AIC.
    """

    def aic(slopes: list[int]) -> float:
        try:
            loss = _fit(y, rows, slopes, likelihood).get_current_neg_log_likelihood()
        except RuntimeError:
            return np.inf  # slopes that cannot be fitted are not chosen
        return 2 * (loss + len(slopes)) if np.isfinite(loss) else np.inf

    started = time.process_time()  # which other processes do not affect
    everything = [*range(rows[0].shape[1])]
    slopes, best = [], aic([])
    alone = {}
    for one in everything:
        if time.process_time() - started < MAX_SECONDS:
            alone[one] = aic([one])
    for one in sorted(alone, key=alone.__getitem__):
        if time.process_time() - started < MAX_SECONDS:
            found = aic([*slopes, one]) if slopes else alone[one]
            if found < best:
                slopes, best = [*slopes, one], found
    return everything if aic(everything) < best else slopes


def _with_intercept(X: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(X)), X])
