"""Multi-task regressor for real targets and counts, with scikit-learn's interface."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from torch import Tensor

from pyro_vmtl.estimators.base import VMTLEstimator
from pyro_vmtl.estimators.exceptions import OutlierWarning
from pyro_vmtl.estimators.outliers import describe_outliers
from pyro_vmtl.estimators.predicting import PredictionBatch
from pyro_vmtl.estimators.rows import Rows
from pyro_vmtl.methods.method import Method
from pyro_vmtl.predictive.quantiles import quantiles as quantiles_of

__all__ = ["VMTLRegressor"]


class VMTLRegressor(RegressorMixin, VMTLEstimator):
    """Regressor of many related tasks, each of which borrows strength from the relevant others.

    Features and real targets are standardized over the rows of all tasks, and an intercept is
    added. Predictions are in the unit of the targets. Tasks may differ in their numbers of rows,
    from one on.

    Parameters
    ----------
    likelihood
        ``"normal"`` for real targets, or ``"poisson"`` for counts.
    scale_targets
        Whether to standardize real targets. False suits programs of your own whose likelihood is
        for other numbers, such as times above 0 or grades in order.
    method, scale_features, num_samples, random_state, device, progress
        As for :class:`VMTLClassifier`.

    Attributes
    ----------
    target_mean_, target_scale_
        Mean and standard deviation of real targets; 0 and 1 where they are not standardized.
    tasks_, task_sizes_, relatedness_, history_, fitted_, n_features_in_, feature_names_in_
        As for :class:`VMTLClassifier`.

    See Also
    --------
    VMTLClassifier : The same for classes, with references.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, tasks = rng.normal(size=(60, 2)), np.repeat(["Ada", "Bo", "Cy"], 20)
    >>> y = 100 + 10 * X[:, 0] + rng.normal(size=60)
    >>> reg = VMTLRegressor("shared").fit(X, y, tasks=tasks)
    >>> mean, std = reg.predict([[1.0, 0.0]], tasks=["Bo"], return_std=True)
    >>> bool(abs(mean - 110) < 2), bool(0.5 < std < 2)
    (True, True)
    """

    def __init__(
        self,
        method: str | Method = "default",
        *,
        likelihood: Literal["normal", "poisson"] = "normal",
        scale_features: bool = True,
        scale_targets: bool = True,
        num_samples: int = 200,
        random_state: int = 0,
        device: str = "cpu",
        progress: bool = False,
    ) -> None:
        super().__init__(
            method,
            scale_features=scale_features,
            num_samples=num_samples,
            random_state=random_state,
            device=device,
            progress=progress,
        )
        self.likelihood = likelihood
        self.scale_targets = scale_targets

    def predict(
        self,
        X: Any,
        tasks: Any = None,
        *,
        columns: Any = None,
        return_std: bool = False,
        quantiles: Sequence[float] | None = None,
    ) -> Any:
        """Return predictive means, and optionally standard deviations and quantiles.

        Parameters
        ----------
        X
            (rows, F), features.
        tasks
            (rows,), task labels. Rows of a task that is not in the fit are predicted as rows of a
            new task, with a warning.
        columns
            As for :meth:`fit`: the same columns.
        return_std
            Whether to return standard deviations, too.
        quantiles
            Probabilities between 0 and 1 of quantiles to return, too.

        Returns
        -------
        ndarray or tuple of ndarray
            Means (rows,), then standard deviations (rows,) and quantiles (rows, number of
            probabilities) if requested; all of new targets, noise included.
        """
        levels = [] if quantiles is None else [float(p) for p in quantiles]
        if any(not 0 < p < 1 for p in levels):
            raise ValueError(f"quantiles is {levels}, expected probabilities between 0 and 1.")

        def summarize(batch: PredictionBatch) -> dict[str, Tensor]:
            predictive = batch.mixture()
            found = {"mean": predictive.mean, "std": predictive.variance.sqrt()}
            if levels:
                found["quantiles"] = torch.stack(list(quantiles_of(predictive, levels)), dim=-1)
            return found

        found = self.map_predictions(summarize, X, tasks, columns)
        results = [self.target_mean_ + self.target_scale_ * found["mean"]]
        if return_std:
            results.append(self.target_scale_ * found["std"])
        if levels:
            results.append(self.target_mean_ + self.target_scale_ * found["quantiles"])
        return results[0] if len(results) == 1 else tuple(results)

    def log_density(self, X: Any, y: Any, tasks: Any = None, *, columns: Any = None) -> np.ndarray:
        """Return the log predictive density of known targets, (rows,), in nats.

        Parameters
        ----------
        X, tasks, columns
            As for :meth:`predict`.
        y
            (rows,), true targets.
        """
        targets = self._standardize(self._check_numbers(y, np.arange(len(y))))
        found = self.map_predictions(
            lambda batch: {"density": batch.mixture().log_prob(batch.pad(targets))},
            *(X, tasks, columns),
        )
        return found["density"] - np.log(self.target_scale_)

    def score(
        self, X: Any, y: Any, tasks: Any = None, sample_weight: Any = None, *, columns: Any = None
    ) -> float:
        """Return the coefficient of determination R² over all rows.

        Parameters
        ----------
        X, tasks, columns
            As for :meth:`predict`.
        y, sample_weight
            (rows,), true targets, and weights of the rows.
        """
        predicted = self.predict(X, tasks, columns=columns)
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.likelihood not in ("normal", "poisson"):
            raise ValueError(
                f"likelihood is {self.likelihood!r}, expected 'normal' for real targets or "
                "'poisson' for counts."
            )

    def _kind(self) -> str:
        return "regression" if self.likelihood == "normal" else "counts"

    def _learn_targets(self, rows: Rows) -> Tensor:
        values, weight = self._check_numbers(rows.y, rows.index), rows.weight
        self.target_mean_, self.target_scale_ = 0.0, 1.0
        if self.likelihood == "normal" and self.scale_targets:
            self.target_mean_ = float(np.average(values, weights=weight))
            off = values - self.target_mean_
            most = np.abs(off).max() or 1.0  # squares of huge or tiny numbers overflow
            scale = most * np.sqrt(np.average((off / most) ** 2, weights=weight))
            self.target_scale_ = float(scale) or 1.0  # 0 for a single row
        for message in describe_outliers(values, "y", rows.index):
            warnings.warn(message, OutlierWarning, stacklevel=3)
        if len(values) > 1 and values.min() == values.max():
            raise ValueError(
                f"y is {values[0]:g} in all {len(values)} rows, expected targets that differ: "
                "there is nothing to learn."
            )
        return self._standardize(values)

    def _encode_targets(self, rows: Rows) -> Tensor:
        return self._standardize(self._check_numbers(rows.y, rows.index))

    def _standardize(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy((values - self.target_mean_) / self.target_scale_).float()

    def _check_numbers(self, y: Any, index: np.ndarray) -> np.ndarray:
        """Convert targets to numbers, and name the row of the first that is unusable."""
        try:
            values = np.asarray(y, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"y has values that are not numbers ({error}). For classes use VMTLClassifier."
            ) from error
        wrong = np.flatnonzero(~np.isfinite(values))
        expected = "a finite number: y has NaN or infinity"
        if self.likelihood == "poisson" and not len(wrong):
            wrong = np.flatnonzero((values < 0) | (values != np.floor(values)))
            expected = "a count, 0, 1, 2 and so on. For other targets use likelihood='normal'"
        if len(wrong):
            raise ValueError(
                f"y has {values[wrong[0]]} in row {index[wrong[0]]}, expected {expected}."
            )
        return values
