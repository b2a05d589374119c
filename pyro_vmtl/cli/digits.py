"""The main job: VMTL on scikit-learn's digits, beside plain logistic regressions."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pyro_vmtl.analysis import (
    classification_metrics,
    logistic_regression_per_task,
    logistic_regression_pooled,
    relatedness_table,
)
from pyro_vmtl.data import TaskData
from pyro_vmtl.datasets import Split, rotated_digits
from pyro_vmtl.fit import FitResult, fit
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.handled import Handled
from pyro_vmtl.models import LinearClassifier, ZeroMeanNormal
from pyro_vmtl.predict import predict_proba
from pyro_vmtl.share import relatedness, share
from pyro_vmtl.temper import temper

__all__ = ["DigitsRun", "fit_digits", "shared_classifier"]

KL_WEIGHT = 0.3
"""Weight of the KL of ``w``, chosen on validation images (``benchmarks/digits_settings.py``)."""


@dataclass(frozen=True, eq=False)
class DigitsRun:
    """What the main job found.

    Attributes
    ----------
    data
        the training rows as the model saw them.
    model, guide
        the fitted programs.
    result
        history and time of the fit.
    metrics
        for ``vmtl``, ``single_task`` and ``pooled`` a row per task with accuracy, NLL and ECE on
        the test rows.
    relatedness
        mean and 90 % interval of every task's weights.
    """

    data: TaskData
    model: Handled
    guide: Handled
    result: FitResult
    metrics: dict[str, pd.DataFrame]
    relatedness: pd.DataFrame


def shared_classifier(data: TaskData, *, kl_weight: float = KL_WEIGHT) -> tuple[Handled, Handled]:
    """Make the linear classifier that borrows, untrained.

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
    split: Split, *, seed: int = 0, device: str = "cpu", progress: bool = False
) -> DigitsRun:
    """Fit VMTL and the baselines on a split, and test them.

    Parameters
    ----------
    split
        Training and test rows, as :func:`~pyro_vmtl.datasets.rotated_digits` gives them.
    seed
        Seed of the fit.
    device
        Where to fit, such as ``"cuda"``.
    progress
        Show a progress bar?
    """
    centre = split.X_train.mean(axis=0)
    rows = TaskData.classification(split.X_train - centre, split.y_train, split.tasks_train)
    data = rows.with_intercept().to(device)
    test = rows.features(split.X_test - centre, split.tasks_test).with_intercept().to(device)

    model, guide = (program.to(device) for program in shared_classifier(data))
    result = fit(model, guide, data, seed=seed, progress=progress)
    proba = test.unpad(predict_proba(model, guide, test, seed=seed)).double().cpu().numpy()

    assert data.classes is not None
    classes = data.classes
    predictions = {
        "vmtl": proba / proba.sum(axis=1, keepdims=True),  # float32 sums to 1 within 1e-6 only
        "single_task": logistic_regression_per_task(
            split.X_train,
            split.y_train,
            split.tasks_train,
            split.X_test,
            split.tasks_test,
            classes,
        ),
        "pooled": logistic_regression_pooled(split.X_train, split.y_train, split.X_test, classes),
    }
    metrics = {
        name: classification_metrics(p, split.y_test, split.tasks_test, classes)
        for name, p in predictions.items()
    }
    draws = relatedness(guide, "w", num_samples=2000)
    return DigitsRun(data, model, guide, result, metrics, relatedness_table(draws, data.task_labels))
