"""The main job: VMTL on scikit-learn's digits, beside plain logistic regressions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pyro_vmtl.analysis import (
    classification_metrics,
    logistic_regression_per_task,
    logistic_regression_pooled,
    relatedness_table,
)
from pyro_vmtl.data import TaskData
from pyro_vmtl.datasets import Split
from pyro_vmtl.fit import FitResult, fit
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.handled import Handled
from pyro_vmtl.models import LinearClassifier, ZeroMeanNormal
from pyro_vmtl.predict import predict_proba
from pyro_vmtl.share import relatedness, share
from pyro_vmtl.temper import temper

__all__ = ["KL_WEIGHT", "DigitsRun", "baseline_metrics", "fit_digits", "shared_classifier"]

KL_WEIGHT = 0.2
"""Weight of the KL of ``w``, chosen by ``python -m benchmarks.digits --validation``."""


@dataclass(frozen=True, eq=False)
class DigitsRun:
    """A fit and what it is worth.

    Attributes
    ----------
    data
        the training rows as the model saw them.
    model, guide
        the fitted programs.
    result
        history and time of the fit.
    metrics
        a row per task: accuracy, NLL and ECE on the test rows.
    relatedness
        mean and 90 % interval of every task's weights.
    """

    data: TaskData
    model: Handled
    guide: Handled
    result: FitResult
    metrics: pd.DataFrame
    relatedness: pd.DataFrame


def shared_classifier(data: TaskData, *, kl_weight: float = KL_WEIGHT) -> tuple[Handled, Handled]:
    """Make the linear classifier that borrows, untrained.

    Parameters
    ----------
    data
        Training rows.
    kl_weight
        Weight of the KL of ``w``.

    Returns
    -------
    tuple
        Model and guide.
    """
    shape = (data.num_classes, data.num_features)
    model = LinearClassifier(ZeroMeanNormal(shape))
    guide = MeanFieldNormal({"w": shape}, data.num_tasks)
    return temper(*share(model, guide, sites=["w"]), kl_weights={"w": kl_weight})


def fit_digits(
    split: Split,
    *,
    seed: int = 0,
    device: str = "cpu",
    kl_weight: float = KL_WEIGHT,
    progress: bool = False,
) -> DigitsRun:
    """Fit VMTL on a split, and test it.

    Parameters
    ----------
    split
        Training and test rows, as :func:`~pyro_vmtl.datasets.rotated_digits` gives them.
    seed
        Seed of the fit.
    device
        Where to fit, such as ``"cuda"``.
    kl_weight
        Weight of the KL of ``w``.
    progress
        Show a progress bar?
    """
    centre = split.X_train.mean(axis=0)
    data = TaskData.classification(split.X_train - centre, split.y_train, split.tasks_train)
    data = data.with_intercept().to(device)
    test = data.new_rows(split.X_test - centre, split.tasks_test)

    model, guide = (p.to(device) for p in shared_classifier(data, kl_weight=kl_weight))
    result = fit(model, guide, data, seed=seed, progress=progress)
    proba = test.unpad(predict_proba(model, guide, test, seed=seed)).double().cpu().numpy()
    metrics = classification_metrics(
        proba / proba.sum(axis=1, keepdims=True),  # float32 rows sum to 1 within 1e-6 only
        split.y_test,
        split.tasks_test,
        data.classes or (),
    )
    draws = relatedness(guide, "w", num_samples=2000)
    return DigitsRun(
        data, model, guide, result, metrics, relatedness_table(draws, data.task_labels)
    )


def baseline_metrics(split: Split) -> dict[str, pd.DataFrame]:
    """Test the plain logistic regressions on a split.

    Returns
    -------
    dict
        For ``single_task`` (one for each task) and ``pooled`` (one for all) a row per task, as in
        :attr:`DigitsRun.metrics`.
    """
    train = split.X_train, split.y_train
    classes = np.unique(split.y_train).tolist()
    predictions = {
        "single_task": logistic_regression_per_task(
            *train, split.tasks_train, split.X_test, split.tasks_test, classes
        ),
        "pooled": logistic_regression_pooled(*train, split.X_test, classes),
    }
    return {
        name: classification_metrics(proba, split.y_test, split.tasks_test, classes)
        for name, proba in predictions.items()
    }
