"""A trial: one method, fitted to one split of a data set and tested."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from torch.distributions import Categorical

from benchmarks.gaussian_process import gaussian_process
from pyro_vmtl.analysis import (
    ALL_TASKS,
    boosted_trees_classification,
    boosted_trees_regression,
    classification_metrics,
    logistic_regression_per_task,
    logistic_regression_pooled,
    regression_metrics,
    ridge_per_task,
    ridge_pooled,
)
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.datasets import DataSet, Split
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.presets import Method
from pyro_vmtl.methods.stack import Stack

__all__ = ["NUM_SAMPLES", "PLAIN", "Trial", "run_trial"]

NUM_SAMPLES = 200
"""Draws from the posterior for a prediction."""

PLAIN: dict[str, dict[str, Callable[..., Any]]] = {
    "classification": {
        "per-task": logistic_regression_per_task,
        "pooled": lambda X, y, tasks, X_new, tasks_new, classes: logistic_regression_pooled(
            X, y, X_new, classes
        ),
        "boosted-trees": boosted_trees_classification,
    },
    "regression": {
        "per-task": ridge_per_task,
        "pooled": lambda X, y, tasks, X_new, tasks_new: ridge_pooled(X, y, X_new),
        "boosted-trees": boosted_trees_regression,
        "gaussian-process": gaussian_process,
    },
}
"""Methods of other libraries, which are no presets, for each kind of targets."""


@dataclass(frozen=True)
class Trial:
    """What to fit, and to what.

    Attributes
    ----------
    data_set
        the data.
    seed
        seed or number of the split, and seed of the fit.
    method
        its name.
    settings
        what to fit; None for those in :data:`PLAIN`.
    validation
        test on held-out training rows?
    device
        where to fit.
    """

    data_set: DataSet
    seed: int
    method: str
    settings: Method | None
    validation: bool = False
    device: str = "cpu"


Metrics = Callable[[list[Hashable]], pd.DataFrame]
"""Gives metrics of test rows from the task that each is to count for."""


def run_trial(trial: Trial) -> pd.DataFrame:
    """Fit, test, and give the results as tidy rows.

    Parameters
    ----------
    trial
        What to fit, and to what.

    Returns
    -------
    DataFrame
        Columns ``data_set``, ``split``, ``seed``, ``method``, ``task``, ``metric``, ``value`` and
        ``seconds``, the wall time of the fit. Besides each task there is the task ``(all)``: for
        classification the mean over tasks, for regression the metric over all rows. The
        calibration error is always that of all rows together: of a hundred rows in 15 bins it would
        be some 0.05 for perfect predictions, too.
    """
    split = trial.data_set.split(trial.seed, validation=trial.validation)
    classification = trial.data_set.kind == "classification"
    test = _test_classification if classification else _test_regression
    metrics, seconds = test(trial, split)
    per_task = metrics(split.tasks_test)
    overall = metrics([ALL_TASKS] * len(split.tasks_test))
    if classification:
        ece = overall["ece"]
        overall = per_task.mean().to_frame(ALL_TASKS).T.rename_axis("task").assign(ece=ece)
    tidy = pd.concat([per_task, overall]).reset_index()
    tidy["task"] = tidy["task"].astype(str)
    tidy = tidy.melt("task", var_name="metric")
    tidy.insert(0, "data_set", trial.data_set.name)
    tidy.insert(1, "split", trial.data_set.split_label(trial.seed))
    tidy.insert(2, "seed", trial.seed)
    tidy.insert(3, "method", trial.method)
    return tidy.assign(seconds=seconds)


def _test_classification(trial: Trial, split: Split) -> tuple[Metrics, float]:
    classes = np.unique(split.y_train).tolist()
    started = time.perf_counter()
    train = split.X_train, split.y_train
    if trial.settings is not None:
        data = TaskData.classification(*train, split.tasks_train, classes=classes)
        data = _ready(data, trial)
        fitted = _fit(trial, data)
        seconds = fitted.result.seconds
        test = data.new_rows(split.X_test, split.tasks_test)
        predictive = fitted.predictive(test, num_samples=NUM_SAMPLES)
        assert isinstance(predictive, Categorical)
        proba = test.unpad(predictive.probs).double().cpu().numpy()
        proba /= proba.sum(axis=1, keepdims=True)  # float32 rows sum to 1 within 1e-6 only
    else:
        predict = PLAIN["classification"][trial.method]
        proba = predict(*train, split.tasks_train, split.X_test, split.tasks_test, classes)
        seconds = time.perf_counter() - started

    def metrics(tasks: list[Hashable]) -> pd.DataFrame:
        return classification_metrics(proba, split.y_test, tasks, classes)

    return metrics, seconds


def _test_regression(trial: Trial, split: Split) -> tuple[Metrics, float]:
    centre, unit = split.y_train.mean(), split.y_train.std()
    started = time.perf_counter()
    if trial.settings is not None:
        y_train, y_test = ((y - centre) / unit for y in (split.y_train, split.y_test))
        data = _ready(TaskData.regression(split.X_train, y_train, split.tasks_train), trial)
        fitted = _fit(trial, data)
        seconds = fitted.result.seconds
        test = data.new_rows(split.X_test, split.tasks_test, y_test)
        predictive = fitted.predictive(test, num_samples=NUM_SAMPLES)
        assert test.y is not None
        mean, log_density, cdf = (
            test.unpad(values).double().cpu().numpy()
            for values in (predictive.mean, predictive.log_prob(test.y), predictive.cdf(test.y))
        )
        mean, log_density = centre + unit * mean, log_density - np.log(unit)
    else:
        train = split.X_train, split.y_train, split.tasks_train
        mean, std = PLAIN["regression"][trial.method](*train, split.X_test, split.tasks_test)
        log_density = norm.logpdf(split.y_test, mean, std)
        cdf = norm.cdf(split.y_test, mean, std)
        seconds = time.perf_counter() - started
    return partial(regression_metrics, mean, log_density, cdf, split.y_test), seconds


def _ready(data: TaskData, trial: Trial) -> TaskData:
    """Add what the method needs, on its device."""
    assert trial.settings is not None
    if isinstance(trial.settings, Stack) or trial.settings.latent_size is None:
        data = data.with_intercept()
    return data.to(trial.device)


def _fit(trial: Trial, data: TaskData) -> Fitted:
    """Fit, and take no half-done fit for a result."""
    assert trial.settings is not None
    fitted = trial.settings.fit(data, seed=trial.seed)
    if fitted.result.stopped == "interrupted":
        raise KeyboardInterrupt
    return fitted
