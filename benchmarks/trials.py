"""A trial: one method fitted to one split of a data set and tested."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Distribution

from benchmarks.datasets.data_set import DataSet
from benchmarks.methods import BASELINES
from benchmarks.rows import to_task_data
from pyro_vmtl import predictive_mixture
from pyro_vmtl.analysis import ALL_TASKS, classification_metrics, regression_metrics
from pyro_vmtl.datasets import Split
from pyro_vmtl.methods.method import Method
from pyro_vmtl.predictive.mixtures import pit
from pyro_vmtl.predictive.overdispersed_poisson import OverdispersedPoisson

__all__ = ["NUM_SAMPLES", "Trial", "run_trial"]

NUM_SAMPLES = 200
"""Draws from the posterior for a prediction."""

Metrics = Callable[[list[Hashable]], pd.DataFrame]
"""Computes metrics of the test rows, given the task that each counts for."""


@dataclass(frozen=True)
class Trial:
    """A method, a split, and where to fit.

    Attributes
    ----------
    data_set
        the data.
    seed
        seed or number of the split, and seed of the fit.
    method
        name of the method.
    settings
        the preset to fit; None for :data:`~benchmarks.methods.BASELINES`.
    validation
        whether to test on held-out training rows.
    device
        where to fit.
    """

    data_set: DataSet
    seed: int
    method: str
    settings: Method | None
    validation: bool = False
    device: str = "cpu"


def run_trial(trial: Trial) -> pd.DataFrame:
    """Fit and test a method.

    Parameters
    ----------
    trial
        The method and the split.

    Returns
    -------
    DataFrame
        Tidy rows with the columns ``data_set``, ``split``, ``seed``, ``method``, ``task``,
        ``metric``, ``value`` and ``seconds``, the wall time of the fit. Besides each task there is
        the task ``(all)``: for classification the mean over tasks, for others the metric over all
        rows. The calibration error of all tasks is that of all rows together: of a hundred rows in
        15 bins it would be about 0.05 for perfect predictions, too. The coverage of counts is that
        of their randomised probability integral transform.
    """
    split = trial.data_set.split(trial.seed, validation=trial.validation)
    classification = trial.data_set.kind == "classification"
    test = _test_baseline if trial.settings is None else _test_preset
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


def _test_preset(trial: Trial, split: Split) -> tuple[Metrics, float]:
    kind, method = trial.data_set.kind, trial.settings
    assert method is not None
    linear = getattr(method, "latent_size", None) is None
    data, test = (rows.to(trial.device) for rows in to_task_data(split, kind, intercept=linear))
    fitted = method.fit(data, seed=trial.seed)
    if fitted.result.stopped == "interrupted":  # a partial fit is no result
        raise KeyboardInterrupt
    predictive = fitted.predictive(test, num_samples=NUM_SAMPLES)
    if kind == "classification":
        proba = test.unpad(predictive.probs).double().cpu().numpy()
        proba /= proba.sum(axis=1, keepdims=True)  # float32 rows sum to 1 within 1e-6 only
        return _classification(proba, split), fitted.result.seconds
    mean, log_density, cdf = (
        test.unpad(values).double().cpu().numpy()
        for values in (
            *(predictive.mean, predictive.log_prob(test.y)),
            _integral_transform(predictive, test.y),
        )
    )
    counts = kind == "counts"
    center, unit = (0.0, 1.0) if counts else (split.y_train.mean(), split.y_train.std())
    mean, log_density = center + unit * mean, log_density - np.log(unit)
    metrics = partial(regression_metrics, mean, log_density, cdf, split.y_test)
    return metrics, fitted.result.seconds


def _test_baseline(trial: Trial, split: Split) -> tuple[Metrics, float]:
    kind = trial.data_set.kind
    rows = split.X_train, split.y_train, split.tasks_train, split.X_test, split.tasks_test
    predict = BASELINES[kind][trial.method]
    started = time.perf_counter()
    if kind == "classification":
        metrics = _classification(predict(*rows, np.unique(split.y_train).tolist()), split)
        return metrics, time.perf_counter() - started
    if kind == "counts":
        rate, dispersion = (torch.as_tensor(draws)[:, None] for draws in predict(*rows))
        seconds = time.perf_counter() - started
        predictive = predictive_mixture([OverdispersedPoisson(rate, dispersion)])
        y = torch.as_tensor(split.y_test)[None]
        values = predictive.mean, predictive.log_prob(y), _integral_transform(predictive, y)
        return partial(regression_metrics, *(v[0].numpy() for v in values), split.y_test), seconds
    mean, std = predict(*rows)
    seconds = time.perf_counter() - started
    log_density, cdf = norm.logpdf(split.y_test, mean, std), norm.cdf(split.y_test, mean, std)
    return partial(regression_metrics, mean, log_density, cdf, split.y_test), seconds


def _integral_transform(predictive: Distribution, y: Tensor) -> Tensor:
    """Return the probability of less than each target, randomised for counts."""
    return pit(predictive, y, torch.Generator().manual_seed(0))


def _classification(proba: np.ndarray, split: Split) -> Metrics:
    classes = np.unique(split.y_train).tolist()
    return lambda tasks: classification_metrics(proba, split.y_test, tasks, classes)
