"""GPBoost's linear mixed model as a baseline."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

__all__ = ["linear_mixed_model"]


def linear_mixed_model(
    X_train: np.ndarray,
    y_train: np.ndarray,
    tasks_train: Sequence[Hashable],
    X_test: np.ndarray,
    tasks_test: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict by a linear mixed model with random intercepts and random slopes of all features.

    The random effects are independent of one another; variances maximize the likelihood.

    Parameters and results are those of :func:`~benchmarks.baselines.ridge_per_task`.

    Raises
    ------
    ImportError
        If GPBoost is not installed.
    """
    import gpboost

    center, unit = y_train.mean(), y_train.std() or 1.0
    fixed, new = (np.column_stack([np.ones(len(X)), X]) for X in (X_train, X_test))
    model = gpboost.GPModel(
        group_data=np.array([*map(repr, tasks_train)]),
        group_rand_coef_data=X_train,
        ind_effect_group_rand_coef=[1] * X_train.shape[1],
        likelihood="gaussian",
    )
    model.fit(y=(y_train - center) / unit, X=fixed)
    predicted = model.predict(
        group_data_pred=np.array([*map(repr, tasks_test)]),
        group_rand_coef_data_pred=X_test,
        X_pred=new,
        predict_var=True,
    )
    return center + unit * predicted["mu"], unit * np.sqrt(predicted["var"])
