"""GPBoost's trees with random effects, in place of the fixed effects of a mixed model.

The random effect of a task is an intercept: slopes of all features take minutes of 600 rows, as
variances are learned with every tree. Depth and number of trees have the least loss in
cross-validation.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from benchmarks.mixed_model import Rows, class_number, draws_of_log_rate, labels
from benchmarks.needed import needed

__all__ = ["boosted_mixed_model", "boosted_mixed_model_classes", "boosted_mixed_model_counts"]

GRID = [{"max_depth": depth, "num_leaves": 2**depth} for depth in (1, 3, 6)]
FIXED = {"learning_rate": 0.05, "min_data_in_leaf": 10, "num_threads": 1, "verbose": -1}
MAX_ROUNDS, PATIENCE, NUM_FOLDS = 500, 20, 4


def boosted_mixed_model(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict real targets.

    Parameters, results and errors are those of :func:`~benchmarks.mixed_model.linear_mixed_model`.
    """
    center, unit = y_train.mean(), y_train.std() or 1.0
    rows = (X_train, tasks_train), (X_test, tasks_test)
    mean, var, _ = _predict((y_train - center) / unit, *rows, "gaussian")
    return center + unit * mean, unit * np.sqrt(var)


def boosted_mixed_model_classes(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
    classes: Sequence[Hashable],
) -> np.ndarray:
    """Predict probabilities of two classes.

    Parameters, results and errors are those of
    :func:`~benchmarks.mixed_model.linear_mixed_model_classes`.
    """
    rows = (X_train, tasks_train), (X_test, tasks_test)
    second, _, _ = _predict(class_number(y_train, classes), *rows, "bernoulli_logit")
    return np.column_stack([1 - second, second])


def boosted_mixed_model_counts(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict counts.

    Parameters, results and errors are those of
    :func:`~benchmarks.mixed_model.linear_mixed_model_counts`.
    """
    rows = (X_train, tasks_train), (X_test, tasks_test)
    mean, var, effects = _predict(y_train, *rows, "negative_binomial", latent=True)
    return draws_of_log_rate(mean, var, effects)


def _predict(
    y: np.ndarray, train: Rows, test: Rows, likelihood: str, *, latent: bool = False
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return the mean and variance of test rows, or of their log rates, and the random effects."""
    gpboost = needed("gpboost")
    X, X_test = train[0], test[0]
    group, group_test = labels(train[1]), labels(test[1])

    def effects() -> Any:  # anew each time, as a fit changes them
        return gpboost.GPModel(group_data=group, likelihood=likelihood)

    def rows() -> Any:
        return gpboost.Dataset(X, y, free_raw_data=False)

    try:
        best = np.inf, 1, GRID[0]
        for chosen in GRID:
            history = gpboost.cv(
                {**FIXED, **chosen},
                rows(),
                gp_model=effects(),
                num_boost_round=MAX_ROUNDS,
                early_stopping_rounds=PATIENCE,
                nfold=min(NUM_FOLDS, len(y)),
                seed=0,
                verbose_eval=False,
            )
            losses = next(values for name, values in history.items() if name.endswith("-mean"))
            best = min(best, (min(losses), 1 + int(np.argmin(losses)), chosen), key=lambda b: b[0])
        model = effects()
        trees = gpboost.train(
            {**FIXED, **best[2]}, rows(), best[1], gp_model=model, verbose_eval=False
        )
        found = trees.predict(
            X_test,
            group_data_pred=group_test,
            predict_var=True,
            pred_latent=latent,
        )
    except gpboost.basic.GPBoostError as error:
        raise RuntimeError(f"GPBoost failed: {error}") from error
    if latent:
        mean = found["fixed_effect"] + found["random_effect_mean"]
        return mean, found["random_effect_cov"], model
    return found["response_mean"], found["response_var"], model
