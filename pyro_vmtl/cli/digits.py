"""The main job: VMTL on scikit-learn's digits, beside plain logistic regressions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr
from torch.distributions import Categorical

from pyro_vmtl.analysis import (
    classification_metrics,
    logistic_regression_per_task,
    logistic_regression_pooled,
    relatedness_table,
    to_datatree,
)
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.datasets import Split
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.method import Method
from pyro_vmtl.methods.presets import DEFAULT

__all__ = ["DigitsRun", "baseline_metrics", "fit_digits"]

FEATURES = [*(f"pixel {row}, {column}" for row in range(8) for column in range(8)), "intercept"]


@dataclass(frozen=True, eq=False)
class DigitsRun:
    """A fit and what it is worth.

    Attributes
    ----------
    data
        the training rows as the model saw them.
    test
        the test rows, with their targets.
    fitted
        what was fitted.
    metrics
        a row per task: accuracy, NLL and ECE on the test rows.
    """

    data: TaskData
    test: TaskData
    fitted: Fitted
    metrics: pd.DataFrame

    @property
    def result(self) -> FitResult:
        """History and time of the fit."""
        return self.fitted.result

    @cached_property
    def relatedness(self) -> pd.DataFrame:
        """Mean and 90 % interval of every task's weights."""
        draws = self.fitted.relatedness(num_samples=2000)
        return relatedness_table(draws, self.data.task_labels)

    @cached_property
    def tree(self) -> xr.DataTree:
        """Draws of the fit, for ArviZ."""
        data = to_datatree(self.fitted, self.data, rows=self.test, coords={"feature": FEATURES})
        data.attrs["task_name"] = "angle (degrees)"
        return data

    @cached_property
    def members(self) -> pd.DataFrame:
        """How much each member of a stack counts in each task; empty for a single fit."""
        if len(self.fitted.members) == 1:
            return pd.DataFrame(index=pd.Index(self.data.task_labels, name="task"))
        return pd.DataFrame(
            self.fitted.weights.numpy(),
            index=pd.Index(self.data.task_labels, name="task"),
            columns=list(self.fitted.members),
        )


def fit_digits(
    split: Split,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
    method: Method = DEFAULT,
) -> DigitsRun:
    """Fit a method to a split, and test it.

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
    method
        What to fit.
    """
    centre = split.X_train.mean(axis=0)
    data = TaskData.classification(split.X_train - centre, split.y_train, split.tasks_train)
    data = data.with_intercept().to(device)
    test = data.new_rows(split.X_test - centre, split.tasks_test, split.y_test)

    fitted = method.fit(data, seed=seed, progress=progress)
    predictive = fitted.predictive(test, seed=seed)
    assert isinstance(predictive, Categorical)
    proba = test.unpad(predictive.probs).double().cpu().numpy()
    metrics = classification_metrics(
        proba / proba.sum(axis=1, keepdims=True),  # float32 rows sum to 1 within 1e-6 only
        split.y_test,
        split.tasks_test,
        data.classes or (),
    )
    return DigitsRun(data, test, fitted, metrics)


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
